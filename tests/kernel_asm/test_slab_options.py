"""The boot parameter slab_debug, as the guest reads it, against Linux's parser in Python."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations

import pytest

import sandbox
from sandbox.abi import SLAB_DEBUG_DEFAULT_FLAGS, SLAB_DEBUG_FLAGS, SlabFlag, boot_info
from sandbox.guest.options import BootOptions
from sandbox.kernel import Kernel
from tests.kernel_asm.debugged import U, Z
from tests.soundness import assert_sound

LETTERS = {"F": SlabFlag.SLAB_CONSISTENCY_CHECKS, "Z": SlabFlag.SLAB_RED_ZONE, "P": SlabFlag.SLAB_POISON,
           "U": SlabFlag.SLAB_STORE_USER, "T": SlabFlag.SLAB_TRACE, "A": SlabFlag.SLAB_FAILSLAB}


def kmem_cache_flags(option: str, name: str) -> int:
    """mm/slub.c's setup_slub_debug() and kmem_cache_flags() in one: what an option means for a cache."""
    everywhere = 0
    for block in filter(None, option.split(";")):
        letters, *names = block.split(",")
        flags = 0 if letters or not names else SLAB_DEBUG_DEFAULT_FLAGS
        for letter in letters.upper():
            flags = 0 if letter == "-" else flags | LETTERS.get(letter, 0)
        if not names:
            everywhere = flags
        elif any(name.startswith(glob[:-1]) if glob.endswith("*") else name == glob for glob in names):
            return int(flags)
    return int(everywhere)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A kernel whose option is written over."""
    with sandbox.boot(ram="8M") as booted:
        yield booted


def parsed(kernel: Kernel, option: str, name: str) -> int:
    """What the guest makes of an option for a cache of that name."""
    info = boot_info(kernel.memory, kernel.memory.u64(kernel.symbols["boot_params"]))
    info.slab_debug = option
    return kernel.call("slab_debug_flags", name)


@pytest.mark.parametrize("option", [
    "", "F", "fzpu", "FZPUTA", "-", "F-Z", "FZ,kmalloc-*;-,name", ",kmalloc-64", "P;", ";;P;;U", "U;Z,kmalloc-64",
    "Z,kmalloc-64;U", "F,kmalloc-6;P,kmalloc-64", "F,kmalloc-64;P,kmalloc-64", "F,*", "F,x,y,kmalloc-*,z;P",
    "-,kmalloc-64;FZPU", "O", "OZ,kmalloc-8", "T,kmalloc-64x", "T,kmalloc-6*;A,name*",
])
def test_an_option_means_for_a_cache_what_it_means_in_linux(kernel: Kernel, option: str) -> None:
    BootOptions(slab_debug=option)
    for name in ("kmalloc-64", "kmalloc-8", "kmalloc-6", "name", "named", "x"):
        assert parsed(kernel, option, name) == kmem_cache_flags(option, name), name


def test_random_options_mean_what_they_mean_in_linux(kernel: Kernel) -> None:
    choose = random.Random(5)
    names = ["a", "ab", "abc", "b", "ba"]
    for _ in range(150):
        blocks = []
        for _ in range(choose.randrange(4)):
            letters = "".join(choose.choice("FZPUTAO-fz") for _ in range(choose.randrange(4)))
            globs = [choose.choice(names) + choose.choice(["", "*"]) for _ in range(choose.randrange(3))]
            blocks.append(",".join([letters, *globs]))
        option = ";".join(blocks)
        for name in names:
            assert parsed(kernel, option, name) == kmem_cache_flags(option, name), (option, name)


def test_the_caches_of_a_kernel_have_the_flags_that_their_option_says() -> None:
    option = "FZ,kmalloc-*;-,magazine;P"
    with sandbox.boot(ram="8M", slab_debug=option) as kernel:
        for cache in kernel.heap.caches:
            assert cache.flags & SLAB_DEBUG_FLAGS == kmem_cache_flags(option, cache.name), cache.name
            assert cache.wants_magazines is False or not cache.flags & SLAB_DEBUG_FLAGS
        address = kernel.call("kmem_cache_create", "mine", 64, 0, int(Z), 0)
        assert kernel.heap.cache("mine").flags & SLAB_DEBUG_FLAGS == Z | SlabFlag.SLAB_POISON
        assert kernel.call("kmem_cache_destroy", address) == 0
        assert kernel.call("kmem_cache_create", "plain", 64, 0, int(SlabFlag.SLAB_NO_USER_FLAGS), 0)
        assert not kernel.heap.cache("plain").flags & SLAB_DEBUG_FLAGS


def test_with_o_a_cache_whose_slabs_would_grow_goes_without_what_takes_room() -> None:
    with sandbox.boot(ram="8M") as plain, sandbox.boot(ram="8M", slab_debug="FZPUO") as kernel:
        for before, cache in zip(plain.heap.caches, kernel.heap.caches, strict=True):
            small = cache.object_size + 2 * 152 + 64 <= 4096
            kept = cache.flags & SLAB_DEBUG_FLAGS
            if cache.name in ("kmalloc-4k", "kmalloc-8k"):
                assert kept == SlabFlag.SLAB_CONSISTENCY_CHECKS
                assert (cache.size, cache.offset) == (before.size, before.offset) and cache.red_left_pad == 0
            elif small and cache.object_size < 2048:
                assert kept == SLAB_DEBUG_DEFAULT_FLAGS, cache.name
        assert_sound(kernel)


COMBINATIONS = ["".join(letters) for count in range(6) for letters in combinations("FZPUO", count)]


@pytest.mark.parametrize("option", COMBINATIONS)
def test_the_heap_stays_sound_with_every_combination_of_letters(option: str) -> None:
    number = COMBINATIONS.index(option)
    choose = random.Random(number)
    with sandbox.boot(ram="8M", slab_debug=option, freelist_hardened=bool(number & 1),
                      freelist_random=bool(number & 2), seed=number) as kernel:
        call, memory = kernel.call, kernel.memory
        kinds = [(1, 0), (7, 0), (24, SlabFlag.SLAB_HWCACHE_ALIGN), (100, U | Z), (700, Z)]
        caches = [(call("kmem_cache_create", f"c{size}", size, 0, int(flags), 0), size) for size, flags in kinds]
        live: dict[int, tuple[int, int]] = {}

        def adopt(pointer: int, size: int, cache: int) -> None:
            assert pointer and pointer not in live
            live[pointer] = (size, cache)
            memory.write(pointer, bytes([pointer >> 3 & 0xFF]) * size)

        def release(pointer: int) -> None:
            size, cache = live.pop(pointer)
            assert memory.read(pointer, size) == bytes([pointer >> 3 & 0xFF]) * size
            if cache:
                call("kmem_cache_free", cache, pointer)
            else:
                call("kfree", pointer)

        for _ in range(80):
            what = choose.randrange(10)
            general = [pointer for pointer, (_, cache) in live.items() if not cache]
            if what < 4 and live:
                release(choose.choice(list(live)))
            elif what == 4 and general:
                pointer, size = choose.choice(general), choose.randrange(1, 300)
                kept = min(live.pop(pointer)[0], size)
                moved = call("krealloc", pointer, size, 0)
                assert memory.read(moved, kept) == bytes([pointer >> 3 & 0xFF]) * kept
                adopt(moved, size, 0)
            elif what == 5:
                cache, size = choose.choice(caches)
                array = bytearray(8 * 5)
                assert call("kmem_cache_alloc_bulk", cache, 5, array) == 5
                for at in range(0, 40, 8):
                    adopt(int.from_bytes(array[at : at + 8], "little"), size, cache)
            elif what < 8:
                cache, size = choose.choice(caches)
                adopt(call("kmem_cache_alloc", cache), size, cache)
            else:
                size = choose.randrange(1, 3000)
                adopt(call("kmalloc", size), size, 0)
        assert_sound(kernel)
        assert [call("kmem_cache_validate", cache.address) for cache in kernel.heap.caches] == [0] * (13 + 2 + 5)
        for pointer in list(live):
            release(pointer)
        assert all(call("kmem_cache_destroy", cache) == 0 for cache, _ in caches)
        assert "BUG" not in kernel.console
        assert_sound(kernel)
