"""What kmem_cache_validate finds, repairs and prints, in the words of Linux's mm/slub.c."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import pytest

import sandbox
from sandbox.abi import SlabList, slab_debug_state, track
from sandbox.kernel import Kernel
from tests.kernel_asm.debugged import KMALLOC, Cache, F, P, U, Z, dump, head, poke, slab_line
from tests.soundness import assert_sound


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel without options."""
    with sandbox.boot(ram="8M") as booted:
        yield booted


@pytest.fixture
def make(kernel: Kernel) -> Callable[..., Cache]:
    """Make a cache with flags."""
    return partial(Cache.make, kernel)


def test_a_damaged_red_zone_is_reported_in_linuxs_words(make: Callable[..., Cache]) -> None:
    cache = make(60, Z | P | U, "victim")
    pointer = cache.alloc()
    poke(cache, pointer + 61, 0x12)
    poke(cache, pointer + 62, 0x41)
    memory, info = cache.kernel.memory, cache.page_of(pointer)
    record = track(memory, pointer + 72)
    assert record.nr == 1 and record.address_ == record.stack[0] == cache.kernel.symbols["call_return"]
    following = memory.u64(pointer + cache.struct.offset)
    end = 72 + 2 * track.size
    size = cache.struct.size_
    expected = (
        head("victim", "Right Redzone overwritten")
        + f"0x{pointer + 61:016x}-0x{pointer + 62:016x} @offset=69. First byte 0x12 instead of 0xcc\n"
        + f"Allocated in 0x{record.address_:016x} cpu=0 seq=0\n 0x{record.stack[0]:016x}\n"
        + slab_line(info)
        + f"Object 0x{pointer:016x} @offset=8 fp=0x{following:016x}\n\n"
        + dump("Redzone  ", pointer - 8, b"\xcc" * 8)
        + dump("Object   ", pointer, b"\x6b" * 59 + b"\xa5")
        + dump("Redzone  ", pointer + 60, b"\xcc\x12\x41\xcc")
        + dump("Padding  ", pointer + end, b"\x5a" * (size - 8 - end))
        + f"FIX victim: Restoring Right Redzone 0x{pointer + 61:016x}-0x{pointer + 62:016x}=0xcc\n")
    assert cache.validate() == 2
    assert cache.text == expected
    assert memory.read(pointer + 60, 4) == b"\xcc" * 4


@pytest.mark.parametrize(("flags", "size", "freed", "offset", "what", "good"), [
    (Z, 64, False, -1, "Left Redzone", 0xCC),
    (Z, 64, True, -8, "Left Redzone", 0xBB),
    (Z, 64, True, 71, "Right Redzone", 0xBB),
    (P, 60, False, 60, "Alignment padding", 0x5A),
    (P, 64, True, 62, "Poison", 0x6B),
    (P, 64, True, 63, "End Poison", 0xA5),
    (Z | P, 64, False, 80, "Object padding", 0x5A),
])
def test_each_part_of_an_object_is_watched(make: Callable[..., Cache], flags: int, size: int, freed: bool,
                                           offset: int, what: str, good: int) -> None:
    cache = make(size, flags, "part")
    pointer = cache.alloc()
    if freed:
        cache.free(pointer)
    poke(cache, pointer + offset, 0x12)
    assert cache.validate() == 2
    at = f"0x{pointer + offset:016x}-0x{pointer + offset:016x}"
    assert cache.text.startswith(head("part", f"{what} overwritten") + at)
    assert f". First byte 0x12 instead of 0x{good:x}\n" in cache.text
    assert cache.text.endswith(f"FIX part: Restoring {what} {at}=0x{good:x}\n")
    assert cache.validate() == 0


def test_the_bytes_behind_the_last_object_are_watched(make: Callable[..., Cache]) -> None:
    cache = make(128, P, "rest")
    pointer = cache.alloc()
    slab = cache.kernel.heap.find(pointer).slab
    rest = 4096 % 136
    poke(cache, slab.end - 1, 0x12)
    name, at = "rest", f"0x{slab.end - 1:016x}-0x{slab.end - 1:016x}"
    info = cache.page_of(pointer)
    assert cache.validate() == 2
    assert cache.text == (
        head(name, f"Padding overwritten. {at} @offset={slab.size - 1}") + slab_line(info)
        + dump("Padding  ", slab.end - rest, b"\x5a" * (rest - 1) + b"\x12")
        + f"FIX {name}: Restoring slab padding {at}=0x5a\n")


@pytest.mark.parametrize(("damage", "errors", "words"), [
    ({"objects": 99}, 1, "objects 99 > max {objects}"),
    ({"inuse": 77}, 1, "inuse 77 > max {objects}"),
    ({"inuse": 3}, 2, "Wrong object count. Counter is 3 but counted were 1"),
    ({"objects": 5, "inuse": 1}, 5, "Wrong number of objects. Found 5 but should be {objects}"),
    ({"freelist": 0x1234}, 2, "Freepointer corrupt"),
])
def test_the_numbers_of_a_slab_are_judged(make: Callable[..., Cache], damage: dict[str, int], errors: int,
                                          words: str) -> None:
    cache = make(64, F, "numbers")
    pointer = cache.alloc()
    info = cache.page_of(pointer)
    objects = info.objects
    for name, value in damage.items():
        setattr(info, name, value)
    assert cache.validate() == errors
    assert f"BUG numbers (Not tainted): {words.format(objects=objects)}\n" in cache.text
    assert cache.validate() == (1 if errors == 1 else 0)     # a count that cannot be is not repaired


def test_a_cycle_is_cut_and_the_slab_is_given_up(make: Callable[..., Cache]) -> None:
    cache = make(64, F, "cycle")
    first, second = cache.alloc(), cache.alloc()
    cache.free(first)
    cache.free(second)
    info = cache.page_of(first)
    cache.kernel.memory.write(first + cache.struct.offset, second.to_bytes(8, "little"))
    assert cache.validate() == 2
    assert "Freelist cycle detected" in cache.text and cache.text.endswith("FIX cycle: Freelist cleared\n")
    assert info.freelist == 0 and info.inuse == info.objects and info.list == SlabList.SLAB_LIST_FULL
    assert_sound(cache.kernel)


def test_a_quiet_kernel_counts_and_prints_nothing(make: Callable[..., Cache]) -> None:
    cache = make(64, Z)
    state = slab_debug_state(cache.kernel.memory, cache.kernel.symbols["slab_debug_state"])
    state.quiet = 1
    poke(cache, cache.alloc() + 64, 0x12)
    assert cache.validate() == 2 and cache.text == ""
    assert (state.reports, state.fixes) == (1, 1)


DAMAGED = ["", "F", "Z", "P", "U", "ZP", "ZU", "PU", "FZPU"]


@pytest.mark.parametrize("option", DAMAGED)
def test_any_damage_to_slabs_is_survived_and_repaired_until_nothing_is_left_to_report(option: str) -> None:
    number = DAMAGED.index(option)
    choose = random.Random(number)
    with sandbox.boot(ram="8M", slab_debug=option, freelist_hardened=bool(number & 1),
                      freelist_random=bool(number & 2), seed=number, magazines=False) as kernel:
        memory, size = kernel.memory, choose.choice([8, 24, 64, 100, 500])
        cache = Cache.make(kernel, size, int(KMALLOC) if number & 1 else 0, "damaged")
        live = [cache.alloc() for _ in range(60)]
        for pointer in choose.sample(live, 30):
            cache.free(pointer)
        for slab in kernel.heap.cache("damaged").slabs:
            for _ in range(6):
                at = slab.address + choose.randrange(slab.size - 8)
                inside = slab.address + choose.randrange(slab.size)
                memory.write(at, choose.choice([choose.randbytes(5), inside.to_bytes(8, "little")]))
            slab.page.inuse = choose.randrange(slab.count + 1)
        found = 0
        while now := cache.validate():
            found += now
            assert found < 2000
        assert found >= 2
        assert_sound(kernel)
