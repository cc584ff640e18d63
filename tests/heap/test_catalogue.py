"""The catalogue: every rule of the judge broken on purpose, and found under its name, at its address, as the first
cause; and 1,000 sound workloads in which nothing is found."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import TRACK_FRAMES, SlabFlag, track
from sandbox.guest.guest import Snapshot
from sandbox.heap.validate import RULES
from tests.heap.catalogue import BARE, DEBUG, FAULTS, PLAIN, Fault, Scene, one_byte_before_a_live_object
from tests.workloads import generate, release, run


class Stage:
    """Booted kernels by their options, each with the state to come back to."""

    def __init__(self) -> None:
        self._kernels: dict[str, tuple[Kernel, Snapshot]] = {}

    def kernel(self, options: dict[str, object]) -> Kernel:
        key = repr(sorted(options.items()))
        if key not in self._kernels:
            kernel = sandbox.boot(ram="8M", hz=0, **options)  # type: ignore[arg-type]
            self._kernels[key] = kernel, kernel.snapshot()
        kernel, snapshot = self._kernels[key]
        kernel.restore(snapshot)
        return kernel

    def close(self) -> None:
        for kernel, _ in self._kernels.values():
            kernel.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_one_fault_is_named_at_its_address_as_the_first_cause(stage: Stage, fault: Fault) -> None:
    scene = Scene(stage.kernel(fault.options))
    assert scene.kernel.heap.validate() == []
    address = fault.damage(scene)
    found = scene.kernel.heap.validate()
    first = scene.kernel.heap.validate(first=True)
    assert [(one.rule, hex(one.address)) for one in first] == [(fault.rule, hex(address))], "\n".join(map(str, found))
    assert found[:1] == first and str(first[0]).startswith(f"0x{address:016x}: {fault.rule}: ")


def test_every_rule_is_in_the_catalogue() -> None:
    assert {fault.rule for fault in FAULTS} == set(RULES)


def test_the_table_in_the_judges_docstring_has_every_rule() -> None:
    from sandbox.heap import validate

    rows = (validate.__doc__ or "").split("======")
    table = [line.split()[0] for line in max(rows, key=len).splitlines() if line[:1].isalpha()]
    assert sorted(table) == sorted(RULES) and len(set(RULES)) == len(RULES)


SINGLE = ("left-red-zone", "right-red-zone", "poison", "end-poison", "free-pointer", "free-list-cycle", "free-chain",
          "object-count", "wrong-list", "lost-slab", "list-links", "cache-fields", "slab-padding", "colour")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.rule in SINGLE and "run" not in str(fault)],
                         ids=str)
def test_what_follows_from_a_fault_is_not_reported_beside_it(stage: Stage, fault: Fault) -> None:
    scene = Scene(stage.kernel(fault.options))
    fault.damage(scene)
    found = scene.kernel.heap.validate()
    assert len({one.rule for one in found}) == 1 and len(found) == 1, "\n".join(map(str, found))


def test_a_run_over_everything_is_found_byte_region_by_byte_region(stage: Stage) -> None:
    scene = Scene(stage.kernel(DEBUG))
    start = scene.objects[1] + 30
    scene.memory[start : start + 2 * scene.cache.size_] = b"A" * (2 * scene.cache.size_)
    rules = [one.rule for one in scene.kernel.heap.validate()]
    assert rules[0] == "right-red-zone"              # the size that was asked for is overwritten too
    assert {"right-red-zone", "free-pointer", "object-padding", "left-red-zone", "requested-size"} <= set(rules)


def test_an_object_that_its_caller_holds_must_not_be_free(stage: Stage) -> None:
    scene = Scene(stage.kernel(BARE))
    assert scene.kernel.heap.validate(live=scene.objects) == []
    found = scene.kernel.heap.validate(live=[*scene.objects, scene.freed])
    assert [(one.rule, one.object) for one in found] == [("free-live", scene.freed)]
    scene = Scene(stage.kernel(PLAIN))
    found = scene.kernel.heap.validate(live=[scene.freed])
    assert [(one.rule, one.object) for one in found] == [("magazine-live", scene.freed)]


def test_a_violation_says_cache_object_and_a_sentence(stage: Stage) -> None:
    scene = Scene(stage.kernel(DEBUG))
    at = one_byte_before_a_live_object(scene)
    (found,) = scene.kernel.heap.validate()
    assert (found.cache, found.object) == ("kmalloc-64", scene.objects[1])
    assert str(found) == f"0x{at:016x}: left-red-zone: kmalloc-64's live object at 0x{scene.objects[1]:x}: 0x{at:x} " \
                         "overwritten, first byte 0x41 instead of 0xcc"


def test_a_track_is_nobodys_padding(stage: Stage) -> None:
    """What the guest writes down about owners may be anything."""
    scene = Scene(stage.kernel(DEBUG))
    at = scene.objects[0] + scene.tracks() + track.stack.offset
    scene.memory[at : at + 8 * TRACK_FRAMES] = bytes(range(8 * TRACK_FRAMES))
    assert scene.kernel.heap.validate() == []


SOUND = {
    "plain": PLAIN, "no magazines": BARE, "FZPU": DEBUG,
    "hardened, random": {"freelist_hardened": True, "freelist_random": 9},
    "some caches": {"slab_debug": "FZ,kmalloc-*;P", "freelist_hardened": True, "empty_slab_limit": 0},
}


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("options", SOUND.values(), ids=SOUND)
def test_nothing_is_accused_in_fifty_sound_workloads(stage: Stage, options: dict[str, object], part: int) -> None:
    """20 times 50: a thousand."""
    kernel = stage.kernel(options)
    for seed in range(50 * part, 50 * part + 50):
        held = run(kernel, generate(seed, 24))
        assert kernel.heap.validate(live=held.addresses) == [], seed
        release(kernel, held)
    assert kernel.heap.validate() == []
    assert kernel.heap.pages.counts().lost == 0


CONSTRUCTOR = """
.text
main:
    xor eax, eax
    ret
construct:
    mov byte ptr [rdi], 0x7e
    ret
"""


@pytest.mark.parametrize("debug", ["", "F", "Z", "P", "U", "ZU", "PU", "FZPU"])
def test_caches_of_every_form_are_cut_as_the_judge_computes(debug: str) -> None:
    """The kernel's arithmetic, and the judge's own: sizes, alignments, flags and constructors of all kinds."""
    with sandbox.boot(CONSTRUCTOR, ram="8M", hz=0, slab_debug=debug) as kernel:
        chance = random.Random(debug)
        for number in range(60):
            size = chance.choice((1, 7, 8, 9, 61, 64, 100, 255, 1000, 4096, 5000, 8192, 20_000, 65_536))
            align, flags = chance.choice((0, 8, 16, 64, 512, 4096)), chance.choice((0, SlabFlag.SLAB_HWCACHE_ALIGN))
            construct = chance.choice((0, kernel.symbols["construct"]))
            cache = kernel.call("kmem_cache_create", f"form-{number}", size, align, int(flags), construct)
            held = [kernel.call("kmem_cache_alloc", cache) for _ in range(3)]
            kernel.call("kmem_cache_free", cache, held.pop())
            assert cache and all(held) and kernel.heap.validate(live=held) == [], (size, align, flags, construct)
            for pointer in held:
                assert not construct or kernel.memory[pointer] == 0x7E
                kernel.call("memset", pointer, 0x41, size)
                kernel.call("kmem_cache_free", cache, pointer)
            assert kernel.call("kmem_cache_destroy", cache) == 0
        assert kernel.heap.validate() == []


def test_a_workload_is_the_same_in_every_run_and_does_every_kind_of_work() -> None:
    assert generate(3) == generate(3) != generate(4)
    kinds = {operation.kind for seed in range(40) for operation in generate(seed)}
    assert {"kmalloc", "kzalloc", "kfree", "krealloc", "kmem_cache_create", "kmem_cache_alloc", "kmem_cache_free",
            "kmem_cache_alloc_bulk", "kmem_cache_free_bulk", "kmem_cache_shrink", "kmem_cache_destroy",
            "get_free_pages", "free_pages", "memset"} <= kinds
    assert any(operation.flags & SlabFlag.SLAB_POISON for seed in range(40) for operation in generate(seed)
               if operation.kind == "kmem_cache_create")
