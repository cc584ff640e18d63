"""The letters of slab_debug: what each does to a cache's objects, and what happens at an allocation or a free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

import sandbox
from sandbox import GuestPanic
from sandbox.abi import KMALLOC_SIZES, SlabFlag, track
from sandbox.kernel import Kernel
from tests.kernel_asm.debugged import KMALLOC, A, Cache, F, P, T, U, Z, dump, head, poke
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


def calculate_sizes(object_size: int, align: int, flags: int, ctor: bool) -> dict[str, int]:
    """mm/slub.c's function of that name."""
    def up(value: int, to: int) -> int:
        return -(-value // to) * to

    size = up(object_size, 8)
    if flags & Z and size == object_size:
        size += 8
    inuse, keeps = size, bool(flags & U and flags & KMALLOC)
    if flags & P or ctor or (flags & Z and (object_size < 8 or keeps)):
        offset, size = size, size + 8
    else:
        offset = object_size // 2 // 8 * 8
    size += (2 * track.size if flags & U else 0) + (4 if keeps else 0)
    pad = up(8, align) if flags & Z else 0
    size += 8 + pad if flags & Z else 0
    return {"metadata": inuse, "offset": offset, "red_left_pad": pad, "size": up(size, align)}


@pytest.mark.parametrize("flags", [0, F, Z, P, U, Z | P, Z | U, P | U, F | Z | P | U, KMALLOC | U, KMALLOC | Z | U,
                                   KMALLOC | Z | P | U, T, A])
def test_objects_are_laid_out_as_linux_lays_them_out(kernel: Kernel, flags: int) -> None:
    ctor = kernel.symbols["list_init"]                   # any function with one pointer
    for number, (size, align) in enumerate([(1, 8), (7, 8), (8, 8), (20, 16), (64, 64), (100, 8), (1000, 32)]):
        for constructed in (False, True) if size >= 16 else (False,):
            name = f"c{number}{constructed:d}"
            assert kernel.call("kmem_cache_create", name, size, align, int(flags), ctor if constructed else 0)
            view = kernel.heap.cache(name)
            found = {key: getattr(view, key) for key in ("metadata", "offset", "red_left_pad", "size")}
            assert found == calculate_sizes(size, align, flags, constructed), (size, align, constructed)
            assert bool(view.flags & SlabFlag.SLAB_OBJECT_POISON) == bool(flags & P and not constructed)
            assert view.objects_per_slab == (4096 << view.order) // view.size


def test_a_cache_with_any_letter_has_no_magazines(make: Callable[..., Cache]) -> None:
    for number, flag in enumerate((F, Z, P, U, T, A)):
        cache = make(64, flag, f"letter-{number}")
        cache.free(cache.alloc())
        view = cache.kernel.heap.cache(f"letter-{number}")
        assert not view.wants_magazines and view.cached == 0 and view.free == view.total


def test_every_byte_of_a_free_and_of_a_live_object_has_linuxs_value(make: Callable[..., Cache]) -> None:
    cache = make(60, F | Z | P | U | KMALLOC)
    first, second = cache.alloc(60), cache.alloc(33)
    cache.free(first)
    read = cache.kernel.memory.read
    assert read(first - 8, 8) == b"\xbb" * 8
    assert read(first, 64) == b"\x6b" * 59 + b"\xa5" + b"\xbb" * 4
    assert read(second - 8, 8) == b"\xcc" * 8
    assert read(second, 64) == b"\x6b" * 32 + b"\xa5" + b"\xcc" * 31
    end = 64 + 8 + 2 * track.size + 4
    assert set(read(second + end, cache.struct.size_ - 8 - end)) == {0x5A}
    assert_sound(cache.kernel)


def test_a_constructors_work_survives_poison_and_red_zones(make: Callable[..., Cache], kernel: Kernel) -> None:
    cache = make(64, Z | P | F, ctor=kernel.symbols["list_init"])
    pointer = cache.alloc()
    assert kernel.memory.u64(pointer) == kernel.memory.u64(pointer + 8) == pointer
    cache.free(pointer)
    assert kernel.memory.u64(pointer) == pointer
    assert cache.validate() == 0


def test_with_f_a_damaged_object_is_reported_when_it_is_freed_and_not_freed(make: Callable[..., Cache]) -> None:
    cache = make(64, F | Z, "late")
    pointer = cache.alloc()
    poke(cache, pointer + 64, 0x12)
    cache.free(pointer)
    assert "Right Redzone overwritten" in cache.text
    assert cache.text.endswith(f"FIX late: Object at 0x{pointer:016x} not freed\n")
    assert str(cache.kernel.heap.find(pointer).state) == "allocated"
    assert_sound(cache.kernel)


def test_with_f_use_after_free_is_reported_before_the_object_is_handed_out(make: Callable[..., Cache]) -> None:
    cache = make(64, F | P, "stale")
    pointer = cache.alloc()
    cache.free(pointer)
    poke(cache, pointer + 7, 0x41)
    other = cache.alloc()
    assert "Poison overwritten" in cache.text and "FIX stale: Marking all objects used\n" in cache.text
    assert cache.kernel.heap.find(other).slab != cache.kernel.heap.find(pointer).slab
    assert_sound(cache.kernel)


def test_freeing_twice_with_f_panics_with_object_cache_and_history(make: Callable[..., Cache]) -> None:
    cache = make(64, F | U, "twice")
    pointer = cache.alloc()
    cache.free(pointer)
    with pytest.raises(GuestPanic) as caught:
        cache.free(pointer)
    assert f"object 0x{pointer:016x} of cache twice is free already" in str(caught.value)
    assert head("twice", "Object already free") in cache.text
    assert cache.text.index("Allocated in 0x") < cache.text.index("Freed in 0x") < cache.text.index("kernel panic")


def test_kfree_of_an_interior_pointer_with_f_panics_with_the_object(kernel: Kernel) -> None:
    with sandbox.boot(ram="8M", slab_debug="FU") as booted:
        pointer = booted.call("kmalloc", 100)
        with pytest.raises(GuestPanic) as caught:
            booted.call("kfree", pointer + 24)
        assert (f"0x{pointer + 24:016x} is no object of cache kmalloc-128: it lies 24 bytes from the first of "
                f"0x{pointer:016x}") in str(caught.value)
        assert head("kmalloc-128", f"Invalid object pointer 0x{pointer + 24:016x}") in booted.console.replace("\r", "")
        assert "Allocated in 0x" in booted.console and f"Object 0x{pointer:016x}" in booted.console


def test_without_flags_a_double_free_corrupts_and_the_object_is_handed_out_twice(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    kernel.call("kfree", pointer)
    kernel.call("kfree", pointer)
    assert kernel.call("kmalloc", 64) == kernel.call("kmalloc", 64) == pointer


def test_owners_are_tracked_with_stack_and_sequence() -> None:
    program = """
main:
    push rbp
    mov rbp, rsp
    call outer
    xor eax, eax
    pop rbp
    ret
outer:
    push rbp
    mov rbp, rsp
    mov edi, 40
    call kmalloc
after_kmalloc:
    mov [rip + kept], rax
    pop rbp
    ret
.bss
.p2align 3
kept:
    .zero 8
"""
    with sandbox.boot(program, ram="8M", slab_debug="U,kmalloc-64") as kernel:
        kernel.run()
        pointer = kernel.memory.u64(kernel.symbols["kept"])
        cache = kernel.heap.find(pointer).cache
        info_end = cache.metadata + (8 if cache.offset >= cache.metadata else 0)
        record = track(kernel.memory, pointer + info_end)
        assert record.address_ == kernel.symbols["after_kmalloc"] and record.cpu == 0 and record.sequence == 0
        names = [str(kernel.symbolize(address)).split("+")[0] for address in record.stack[: record.nr]]
        assert names[0].startswith("after_kmalloc") and names[1].startswith("main") and record.nr == 3
        assert track(kernel.memory, pointer + info_end + track.size).address_ == 0


def test_trace_prints_linuxs_line_for_each_call(make: Callable[..., Cache]) -> None:
    cache = make(20, T, "traced")
    pointer = cache.alloc()
    info = cache.page_of(pointer)
    back = cache.kernel.symbols["call_return"]
    alloc = f"TRACE traced alloc 0x{pointer:016x} inuse=1 fp=0x{info.freelist:016x}\nCall Trace:\n 0x{back:016x}\n"
    assert cache.text == alloc
    data, fp = cache.kernel.memory.read(pointer, 20), info.freelist
    cache.free(pointer)
    assert cache.text == alloc + (f"TRACE traced free 0x{pointer:016x} inuse=1 fp=0x{fp:016x}\n"
                                  + dump("Object ", pointer, data) + f"Call Trace:\n 0x{back:016x}\n")


def test_kzalloc_and_ksize_keep_the_red_zone_behind_the_bytes_asked_for() -> None:
    with sandbox.boot(ram="8M", slab_debug="FZU") as kernel:
        for size in (1, 8, 33, 64, 100, 4097):
            pointer = kernel.call("kzalloc", size)
            room = min(room for room in KMALLOC_SIZES if room >= size)
            assert kernel.memory.read(pointer, room) == bytes(size) + b"\xcc" * (room - size)
            assert kernel.call("ksize", pointer) == room
            kernel.memory[pointer : pointer + room] = b"x" * room      # whoever asked may use them all
            kernel.call("kfree", pointer)
        assert "BUG" not in kernel.console
        assert_sound(kernel)


@pytest.mark.parametrize("damage", [{"objects": 0}, {"objects": 0, "freelist": 0x41}, {"inuse": 999}, {"flags": 0},
                                    {"freelist": 0x4141414141414141}])
def test_with_f_a_slab_whose_numbers_cannot_be_is_never_used_again(make: Callable[..., Cache],
                                                                  damage: dict[str, int]) -> None:
    cache = make(64, F)
    pointer = cache.alloc()
    info = cache.page_of(pointer)
    for name, value in damage.items():
        setattr(info, name, value)
    others = [cache.alloc() for _ in range(3)]
    assert all(others) and len(set(others)) == 3 and pointer not in others
    if damage != {"objects": 0}:
        assert all(abs(other - pointer) >= 4096 for other in others)
        assert "FIX test: Marking all objects used" in cache.text
