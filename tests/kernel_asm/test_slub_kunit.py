"""The cases of Linux's lib/tests/slub_kunit.c, from Python, with the same numbers of reports and repairs.

Linux's two cases of RCU and the two that allocate where no lock may be taken have no counterpart here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

import sandbox
from sandbox.abi import GFP_ZERO, track
from sandbox.kernel import Kernel
from tests.kernel_asm.debugged import KMALLOC, Cache, P, U, Z, head, poke, slab_line
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


def test_clobber_zone_gives_2_and_next_pointer_3_then_2_then_0(make: Callable[..., Cache]) -> None:
    cache = make(64, Z, "clobber_zone")
    pointer = cache.alloc()
    poke(cache, pointer + 64, 0x12)
    assert cache.validate() == 2 and cache.validate() == 0
    cache = make(64, P, "next_pointer")
    pointer = cache.alloc()
    cache.free(pointer)
    place = pointer + cache.struct.offset
    stored = cache.kernel.memory.read(place, 8)
    poke(cache, place, stored[0] ^ 0xFF)
    assert cache.validate() == 3
    cache.kernel.memory.write(place, stored)
    assert [cache.validate(), cache.validate()] == [2, 0]
    assert_sound(cache.kernel)


@pytest.mark.parametrize(("size", "flags", "asked", "freed", "writes"), [
    (64, P, None, True, {0: 0x78}),                      # first_word
    (64, P, None, True, {50: 0x9A}),                     # clobber_50th_byte
    (64, Z, None, True, {64: 0xAB}),                     # clobber_redzone_free
    (32, KMALLOC | U | Z, 18, False, {18: 0xAB, 19: 0xAB}),  # kmalloc_redzone_access
])
def test_slub_kunits_damage_gives_2(make: Callable[..., Cache], size: int, flags: int, asked: int | None,
                                    freed: bool, writes: dict[int, int]) -> None:
    cache = make(size, flags)
    pointer = cache.alloc(asked)
    if freed:
        cache.free(pointer)
    for offset, value in writes.items():
        poke(cache, pointer + offset, value)
    assert cache.validate() == 2
    assert (cache.struct.reports, cache.struct.fixes) == (1, 1)
    assert cache.validate() == 0
    assert_sound(cache.kernel)


def test_leak_destroy_gives_2(make: Callable[..., Cache]) -> None:
    cache = make(64, U, "leak")
    pointer = cache.alloc()
    assert cache.kernel.call("kmem_cache_destroy", cache.address) == (1 << 64) - 16
    assert (cache.struct.reports, cache.struct.fixes) == (2, 0)
    record = track(cache.kernel.memory, pointer + 64)
    info = cache.page_of(pointer)
    assert cache.text == (
        head("leak", "Objects remaining on __kmem_cache_shutdown()") + slab_line(info)
        + f"Object 0x{pointer:016x} @offset=0\n"
        + f"Allocated in 0x{record.address_:016x} cpu=0 seq={record.sequence}\n 0x{record.stack[0]:016x}\n"
        + "kmem_cache_destroy: leak still has objects in use\n")
    cache.free(pointer)
    assert cache.kernel.call("kmem_cache_destroy", cache.address) == 0


def test_krealloc_redzone_zeroing_gives_0(make: Callable[..., Cache]) -> None:
    cache = make(64, KMALLOC | U | Z)
    memory, call = cache.kernel.memory, cache.kernel.call
    pointer = cache.alloc(48)
    memory[pointer : pointer + 48] = b"\xff" * 48
    assert call("krealloc", pointer, 40, GFP_ZERO) == pointer
    assert memory.read(pointer, 64) == b"\xff" * 40 + b"\xcc" * 24
    assert call("krealloc", pointer, 56, GFP_ZERO) == pointer
    assert memory.read(pointer, 64) == b"\xff" * 40 + bytes(16) + b"\xcc" * 8
    assert cache.validate() == 0
    memory[pointer : pointer + 56] = b"\xff" * 56
    moved = call("krealloc", pointer, 112, GFP_ZERO)
    assert memory.read(moved, 112) == b"\xff" * 56 + bytes(56)
    assert cache.validate() == 0
