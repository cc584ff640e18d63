"""Damage of every kind and at every place: the views answer, or name an address, and always come to an end."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sandbox.abi import DIRECT_MAP, kmem_cache, kmem_cache_cpu, magazine, page
from sandbox.errors import HeapCorruption
from sandbox.heap.views import Heap
from sandbox.machine.memory import PhysicalMemory
from sandbox.machine.paging import Paging, PagingControls, VirtualMemory


class Copy:
    """A guest's memory as a snapshot has it, without the guest."""

    def __init__(self, kernel) -> None:
        self.ram = PhysicalMemory(len(kernel.physical))
        self.ram.load_image(kernel.machine.memory.image())
        self.memory = VirtualMemory(self.ram, Paging(self.ram, PagingControls(kernel.machine.paging.controls.cr3)))
        self.symbols = kernel.symbols


def work(kernel) -> None:
    """Leave slabs of all kinds, magazines of all kinds, and a large allocation."""
    chance = random.Random(11)
    live = [kernel.call("kmalloc", chance.choice((30, 500, 3000))) for _ in range(160)]
    for pointer in chance.sample(live, 110):
        kernel.call("kfree", pointer)
    kernel.call("kmalloc", 20_000)


def ask_everything(heap: Heap, addresses: list[int]) -> Counter[str]:
    """Every question that the views answer; how many were answered, and how many were refused as corrupt."""
    questions = [lambda: heap.allocated(), lambda: heap.pages.counts(), lambda: heap.pages.free_by_order,
                 lambda: heap.pages.nr_free, lambda: heap.large_allocations]
    questions += [lambda cache=cache, name=name: getattr(cache, name) for cache in caches(heap)
                  for name in ("name", "flags", "slabs", "magazines", "inuse", "cached", "free", "total", "depot")]
    questions += [lambda address=address: str(heap.find(address)) for address in addresses]
    answers: Counter[str] = Counter()
    for question in questions:
        try:
            question()
            answers["answered"] += 1
        except HeapCorruption as error:
            assert 0 <= error.address < 1 << 64 and str(error)
            answers["corrupt"] += 1
    return answers


def caches(heap: Heap):
    try:
        return heap.caches
    except HeapCorruption:
        return ()


def test_a_snapshot_is_read_like_the_guest_it_was_taken_of(kernel):
    work(kernel)
    copy, then = Heap(Copy(kernel)), kernel.heap.allocated()
    for pointer in list(then)[:40]:
        if kernel.heap.find(pointer).cache.name.startswith("kmalloc"):
            kernel.call("kfree", pointer)
    assert copy.allocated() == then != kernel.heap.allocated()


@pytest.mark.parametrize("seed", range(2))
def test_no_damage_makes_the_views_fail_otherwise_or_never_end(kernel, seed):
    work(kernel)
    copy = Copy(kernel)
    heap = Heap(copy)
    held = list(heap.allocated())
    sound = ask_everything(heap, held[::9])
    assert sound["corrupt"] == 0
    used = [cache for cache in heap.caches if cache.slabs]
    targets = [(slab.page.address, page.size) for cache in used for slab in cache.slabs]
    targets += [(cache.address, kmem_cache.size) for cache in used]
    targets += [(front.address, kmem_cache_cpu.size) for cache in used for front in cache.fronts]
    targets += [(one.address, magazine.size) for cache in used for one in cache.magazines]
    targets += [(free + cache.offset, 8) for cache in used for slab in cache.slabs for free in slab.freelist]
    targets += [(copy.symbols[name], 8) for name in ("mem_map", "max_pfn", "slab_caches", "free_areas")]
    words = [held[0], used[0].address, heap.pages.mem_map, targets[0][0] + page.next.offset, 0, 1, 0xDEAD, DIRECT_MAP,
             (1 << 64) - 1, DIRECT_MAP + (1 << 31), 0xFFFF_FFFF_8000_0000]
    chance = random.Random(seed)
    refused = 0
    for _ in range(40):
        base, size = chance.choice(targets)
        at = base + 8 * chance.randrange(max(size // 8, 1))
        before = copy.memory.read(at, 8)
        value = chance.choice(words) if chance.random() < 0.7 else \
            int.from_bytes(before, "little") ^ 1 << chance.randrange(64)
        copy.memory.write(at, value.to_bytes(8, "little"))
        refused += ask_everything(heap, held[::9])["corrupt"] > 0
        copy.memory.write(at, before)
    assert refused > 4
    assert ask_everything(heap, held[::9]) == sound
