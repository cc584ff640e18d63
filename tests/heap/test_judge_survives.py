"""The judge assumes nothing: whatever one word of the allocator holds, it answers, soon, and says nothing twice."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import DIRECT_MAP, free_area, kmem_cache, kmem_cache_cpu, magazine, page
from tests.workloads import generate, run

KINDS: dict[str, dict[str, object]] = {
    "plain": {}, "FZPU": {"slab_debug": "FZPU"},
    "hardened": {"freelist_hardened": True, "freelist_random": 3, "magazines": False},
}


@pytest.fixture(params=KINDS)
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    with sandbox.boot(ram="8M", **KINDS[request.param]) as kernel:  # type: ignore[arg-type]
        run(kernel, generate(5, 150))
        assert kernel.heap.validate() == []
        yield kernel


def targets(kernel: Kernel) -> list[tuple[int, int]]:
    """Every structure of the allocator, as address and size."""
    heap, symbols = kernel.heap, kernel.symbols
    used = [cache for cache in heap.caches if cache.slabs]
    found = [(slab.page.address, page.size) for cache in used for slab in cache.slabs]
    found += [(cache.address, kmem_cache.size) for cache in heap.caches]
    found += [(front.address, kmem_cache_cpu.size) for cache in used for front in cache.fronts]
    found += [(one.address, magazine.size) for cache in used for one in cache.magazines]
    found += [(free + cache.offset, 8) for cache in used for slab in cache.slabs for free in slab.freelist[:3]]
    found += [(symbols[name], 8) for name in ("mem_map", "max_pfn", "slab_caches", "boot_params")]
    found += [(symbols["free_areas"], free_area.size * 11), (heap.pages.mem_map, page.size * 2048)] * 4
    return found


@pytest.mark.parametrize("seed", range(2))
def test_any_word_may_be_garbage(kernel: Kernel, seed: int) -> None:
    chance, places = random.Random(seed), targets(kernel)
    words = [places[0][0] + page.next.offset, places[-1][0], 0, 1, 0xDEAD, DIRECT_MAP, (1 << 64) - 1,
             DIRECT_MAP + (1 << 31), 0xFFFF_FFFF_8000_0000, 0x8000_0000_0000_0000]
    accused = 0
    for _ in range(120):
        base, size = chance.choice(places)
        at = base + 8 * chance.randrange(size // 8)
        before = kernel.memory.u64(at)
        flipped = before ^ 1 << chance.randrange(64)
        kernel.memory.write_u64(at, chance.choice(words) if chance.random() < 0.6 else flipped)
        found = kernel.heap.validate()
        assert len(set(found)) == len(found) < 40 and all(0 <= one.address < 1 << 64 and str(one) for one in found)
        assert kernel.heap.validate(first=True) == found[:1]
        accused += bool(found)
        kernel.memory.write_u64(at, before)
    assert accused > 50
    assert kernel.heap.validate() == []


def test_a_heap_full_of_noise_is_judged_too(kernel: Kernel) -> None:
    chance = random.Random(2)
    for base, size in targets(kernel):
        for _ in range(max(1, size // 64)):
            kernel.memory.write_u64(base + 8 * chance.randrange(size // 8), chance.getrandbits(64))
    assert kernel.heap.validate()


def test_a_kernel_that_has_not_come_up_has_nothing_to_judge() -> None:
    with sandbox.boot(ram="4M") as kernel:
        for name in ("mem_map", "max_pfn", "slab_caches"):
            kernel.memory.write_u64(kernel.symbols[name], 0)
        assert kernel.heap.validate() == []


def test_judging_disturbs_nothing(kernel: Kernel) -> None:
    before = kernel.machine.memory.image(), kernel.instructions, len(kernel.journal)
    kernel.heap.validate()
    kernel.heap.leaks()
    assert (kernel.machine.memory.image(), kernel.instructions, len(kernel.journal)) == before


@pytest.mark.parametrize(("root", "rule"), [("mem_map", "memory-map"), ("max_pfn", "memory-map"),
                                            ("slab_caches", "list-links")])
def test_a_root_of_the_allocator_that_has_become_zero_is_named(kernel: Kernel, root: str, rule: str) -> None:
    kernel.call("kmalloc", 64)
    kernel.memory.write_u64(kernel.symbols[root], 0)
    assert [(found.rule, found.address) for found in kernel.heap.validate(first=True)] == [(rule, kernel.symbols[root])]
