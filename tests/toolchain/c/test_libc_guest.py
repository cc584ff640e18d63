"""The C library's memory and console, in the guest: its pages, counted from outside, are the oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox.abi import HEAP_SLOT, HEAPS_BASE, PAGE_SIZE
from sandbox.errors import CompilerMissing, GuestFault, GuestPanic
from sandbox.heap.views import HeapObject
from sandbox.kernel import Kernel
from sandbox.toolchain.c.find import find_compiler

FAILED = (1 << 64) - 1
ENOMEM, EFAULT, ENODEV, EINVAL, ENOTSUP = 12, 14, 19, 22, 95
NONE, READ, WRITE, EXECUTE = 0, 1, 2, 4
ANONYMOUS = 0x22                                     # and private
MAYMOVE = 1
MODULE = """
#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *grow(long bytes) { return sbrk(bytes); }
int set_break(void *address) { return brk(address); }
void *map(size_t length, int protection, int flags) { return mmap(NULL, length, protection, flags, -1, 0); }
int unmap(void *address, size_t length) { return munmap(address, length); }
void *remap(void *address, size_t old, size_t new, int flags) { return mremap(address, old, new, flags); }
int protect(void *address, size_t length, int protection) { return mprotect(address, length, protection); }
int advise(void *address, size_t length, int advice) { return madvise(address, length, advice); }
void *allocate_memory(size_t size) { return malloc(size); }
void *allocate_zeroed_memory(size_t count, size_t size) { return calloc(count, size); }
void *change_memory(void *pointer, size_t size) { return realloc(pointer, size); }
void *allocate_aligned_memory(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }
int allocate_posix(void **result, size_t alignment, size_t size) { return posix_memalign(result, alignment, size); }
void free_memory(void *pointer) { free(pointer); }
size_t usable(void *pointer) { return malloc_usable_size(pointer); }
int error(void) { int number = errno; errno = 0; return number; }
void expect(int value) { assert(value == 3); }
void give_up(void) { abort(); }
void leave(int status) { exit(status); }
void speak(void)
{
    printf("%s %d%c", "printf", 1, '\\n');
    fprintf(stderr, "%#x\\n", 255);
    puts("puts");
    fputs("fputs\\n", stdout);
    putchar('c');
    fwrite("ab\\n", 1, 3, stdout);
    errno = ENOMEM;
    perror("perror");
    write(1, "write\\n", 6);
}
long count_atomically(void)
{
    static atomic_long count = ATOMIC_VAR_INIT(5);
    static atomic_flag flag = ATOMIC_FLAG_INIT;
    long expected = 7;

    atomic_fetch_add(&count, 2);
    if (atomic_flag_test_and_set(&flag) || !atomic_flag_test_and_set(&flag) ||
        !atomic_compare_exchange_strong(&count, &expected, 10) ||
        atomic_compare_exchange_strong(&count, &expected, 11) || expected != 10)
        return -1;
    return atomic_exchange_explicit(&count, 1, memory_order_acq_rel) + atomic_load(&count);
}
int numbers(void) { srand(5); return rand(); }
"""


@pytest.fixture(scope="module", autouse=True)
def a_compiler() -> None:
    try:
        find_compiler(None)
    except CompilerMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Kernel]]:
    """Kernels with the module, each booted once and set back for each test."""
    path = tmp_path_factory.mktemp("module") / "module.c"
    path.write_text(MODULE)
    kernels: dict[tuple[tuple[str, Any], ...], tuple[Kernel, Any]] = {}

    def get(**options: Any) -> Kernel:
        key = tuple(sorted(options.items()))
        if key not in kernels:
            kernel = sandbox.boot(modules=[path], **options)
            kernels[key] = kernel, kernel.snapshot()
        kernel, snapshot = kernels[key]
        kernel.restore(snapshot)
        return kernel

    yield get
    for kernel, _ in kernels.values():
        kernel.close()


@pytest.fixture
def kernel(booted: Callable[..., Kernel]) -> Kernel:
    return booted()


def free_pages(kernel: Kernel) -> int:
    return kernel.heap.pages.free


def is_mapped(kernel: Kernel, address: int) -> bool:
    return kernel.call("walk_page", address & -PAGE_SIZE) != 0


def test_the_break_moves_both_ways_and_its_pages_read_as_zero(kernel: Kernel) -> None:
    base = kernel.call("grow", 0)
    assert HEAPS_BASE <= base < HEAPS_BASE + 3 * HEAP_SLOT
    assert base % PAGE_SIZE == 0
    kernel.call("grow", 1)
    kernel.call("grow", -1)                          # the tables are there now
    before = free_pages(kernel)
    assert kernel.call("grow", 100) == base
    assert kernel.call("grow", 3 * PAGE_SIZE) == base + 100
    assert free_pages(kernel) == before - 4
    assert bytes(kernel.memory[base : base + 4 * PAGE_SIZE]) == bytes(4 * PAGE_SIZE)
    assert not is_mapped(kernel, base + 4 * PAGE_SIZE)
    assert kernel.call("set_break", base + PAGE_SIZE) == 0
    assert [is_mapped(kernel, base + at * PAGE_SIZE) for at in range(3)] == [True, False, False]
    assert kernel.call("grow", -PAGE_SIZE) == base + PAGE_SIZE
    assert free_pages(kernel) == before
    assert kernel.heap.validate() == []


def test_a_break_that_cannot_be_moves_nothing(kernel: Kernel) -> None:
    base = kernel.call("grow", 5000)
    before = free_pages(kernel)
    for bytes_ in (1 << 40, -5001, (1 << 63) - 1, -(1 << 63), 64 << 20):
        assert kernel.call("grow", bytes_) == FAILED
        assert kernel.call("error") == ENOMEM
        assert kernel.call("grow", 0) == base + 5000
    assert before - free_pages(kernel) < 40          # page tables alone
    assert not is_mapped(kernel, base + 2 * PAGE_SIZE)


def test_mappings_are_zeroed_apart_from_each_other_and_given_back_whole(kernel: Kernel) -> None:
    kernel.call("unmap", kernel.call("map", 1, READ | WRITE, ANONYMOUS), 1)
    before = free_pages(kernel)
    first, second = (kernel.call("map", 2 * PAGE_SIZE + 1, READ | WRITE, ANONYMOUS) for _ in range(2))
    assert second >= first + 4 * PAGE_SIZE
    assert bytes(kernel.memory[first : first + 3 * PAGE_SIZE]) == bytes(3 * PAGE_SIZE)
    assert not is_mapped(kernel, first + 3 * PAGE_SIZE)
    kernel.memory.write(first, b"\xee" * (3 * PAGE_SIZE))
    assert kernel.call("unmap", first, 3 * PAGE_SIZE) == 0
    again = kernel.call("map", PAGE_SIZE, READ | WRITE, ANONYMOUS)
    assert again == first
    assert bytes(kernel.memory[first : first + PAGE_SIZE]) == bytes(PAGE_SIZE)
    assert kernel.call("unmap", again, 1) == kernel.call("unmap", second, 2 * PAGE_SIZE + 1) == 0
    assert free_pages(kernel) == before
    assert kernel.heap.validate() == []


def test_mappings_agree_with_a_model_over_random_cuts_and_moves(kernel: Kernel) -> None:
    kernel.call("unmap", kernel.call("map", 1, READ | WRITE, ANONYMOUS), 1)
    before, rng = free_pages(kernel), random.Random(12)
    pages: dict[int, int] = {}                       # address -> the number that is written there
    for turn in range(250):
        choice = rng.randrange(10)
        length = rng.randrange(1, 6) * PAGE_SIZE
        if choice < 4 or not pages:
            start = kernel.call("map", length, READ | WRITE, ANONYMOUS)
            fresh = range(start, start + length, PAGE_SIZE)
            assert not pages.keys() & set(range(start - PAGE_SIZE, start + length + PAGE_SIZE, PAGE_SIZE))
            for page in fresh:
                assert kernel.memory.u64(page) == 0
                pages[page] = turn
                kernel.memory.write(page, turn.to_bytes(8, "little"))
        elif choice < 8:
            start = rng.choice(list(pages)) - rng.randrange(2) * PAGE_SIZE
            assert kernel.call("unmap", start, length) == 0
            for page in range(start, start + length, PAGE_SIZE):
                pages.pop(page, None)
        else:
            start = rng.choice(list(pages))
            old = PAGE_SIZE
            while start + old in pages:
                old += PAGE_SIZE
            to = kernel.call("remap", start, old, length, MAYMOVE)
            moved = [pages.pop(start + at) for at in range(0, old, PAGE_SIZE)]
            assert to == start or not pages.keys() & set(range(to, to + length, PAGE_SIZE))
            for at in range(0, length, PAGE_SIZE):
                expected = moved[at // PAGE_SIZE] if at < old else 0
                assert kernel.memory.u64(to + at) == expected
                pages[to + at] = expected
    assert all(kernel.memory.u64(page) == number for page, number in pages.items())
    assert before - free_pages(kernel) == len(pages) + 1          # and the table of mappings
    low, high = min(pages), max(pages) + PAGE_SIZE
    assert kernel.call("unmap", low, high - low) == 0
    assert free_pages(kernel) == before
    assert kernel.heap.validate() == []


@pytest.mark.parametrize(("length", "protection", "flags", "number"), [
    (0, READ, ANONYMOUS, EINVAL), (PAGE_SIZE, READ, 0x21, EINVAL), (PAGE_SIZE, READ, 0x32, EINVAL),
    (PAGE_SIZE, READ, 0x20, EINVAL), (PAGE_SIZE, READ, 0x02, ENODEV), (PAGE_SIZE, 8, ANONYMOUS, EINVAL),
    (PAGE_SIZE, EXECUTE, ANONYMOUS, ENOTSUP), (1 << 62, READ, ANONYMOUS, ENOMEM), (FAILED, READ, ANONYMOUS, ENOMEM),
    (1 << 35, NONE, ANONYMOUS, ENOMEM), (64 << 20, READ | WRITE, ANONYMOUS, ENOMEM)])
def test_a_mapping_that_cannot_be_fails_with_its_error_and_costs_nothing(
        kernel: Kernel, length: int, protection: int, flags: int, number: int) -> None:
    before = free_pages(kernel)
    assert kernel.call("map", length, protection, flags) == FAILED
    assert kernel.call("error") == number
    assert before - free_pages(kernel) < 40          # page tables alone
    assert kernel.heap.validate() == []


def test_pages_that_run_out_half_way_are_all_given_back(kernel: Kernel) -> None:
    kernel.call("unmap", kernel.call("map", 64 * PAGE_SIZE, READ | WRITE, ANONYMOUS), 64 * PAGE_SIZE)
    before, failures = free_pages(kernel), 0
    base = kernel.call("grow", 0)
    for nth in (1, 2, 7, 20):
        kernel.inject(f"pages:{nth}")
        assert kernel.call("map", 20 * PAGE_SIZE, READ | WRITE, ANONYMOUS) == FAILED
        assert kernel.call("error") == ENOMEM
        kernel.inject(f"pages:{nth}")
        assert kernel.call("grow", 20 * PAGE_SIZE) == FAILED
        assert kernel.call("grow", 0) == base
        assert before - free_pages(kernel) <= 3          # page tables of the break
        failures += sum(armed.struck for armed in kernel.injected)
        kernel.stop_injecting()
    assert failures == 8
    assert kernel.heap.validate() == []


def test_a_mapping_that_cannot_grow_where_it_is_takes_its_frames_along(kernel: Kernel) -> None:
    first = kernel.call("map", 2 * PAGE_SIZE, READ | WRITE, ANONYMOUS)
    kernel.call("map", PAGE_SIZE, READ | WRITE, ANONYMOUS)
    kernel.memory.write(first, b"first")
    kernel.memory.write(first + PAGE_SIZE, b"second")
    before = free_pages(kernel)
    assert kernel.call("remap", first, 2 * PAGE_SIZE, 3 * PAGE_SIZE, 0) == FAILED
    assert kernel.call("error") == ENOMEM
    for nth in (1, 2):
        kernel.inject(f"pages:{nth}")
        to = kernel.call("remap", first, 2 * PAGE_SIZE, 4 * PAGE_SIZE, MAYMOVE)
        kernel.stop_injecting()
        assert to == FAILED
        assert kernel.memory.read(first, 5) == b"first"
        assert free_pages(kernel) == before
    frames = [kernel.call("walk_page", first + at) for at in (0, PAGE_SIZE)]
    frames = [kernel.memory.u64(entry) for entry in frames]
    to = kernel.call("remap", first, 2 * PAGE_SIZE, 4 * PAGE_SIZE, MAYMOVE)
    assert [kernel.memory.u64(kernel.call("walk_page", to + at)) >> 12 for at in (0, PAGE_SIZE)] == \
        [entry >> 12 for entry in frames]
    assert not is_mapped(kernel, first)
    assert free_pages(kernel) == before - 2
    assert kernel.call("remap", to, 4 * PAGE_SIZE, PAGE_SIZE, 0) == to
    assert kernel.call("remap", to, PAGE_SIZE, 8 * PAGE_SIZE, 0) == to          # nothing is in its way
    assert kernel.memory.read(to, 6) == b"first\0"
    assert kernel.memory.u64(to + PAGE_SIZE) == 0
    assert kernel.call("remap", to + 20 * PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, 0) == FAILED
    assert kernel.call("error") == EFAULT


def test_pages_have_the_rights_that_they_were_mapped_with(kernel: Kernel) -> None:
    before = free_pages(kernel)
    start = kernel.call("map", 2 * PAGE_SIZE, NONE, ANONYMOUS)
    assert not is_mapped(kernel, start)
    assert kernel.call("protect", start, PAGE_SIZE, READ | WRITE) == 0
    kernel.call("memset", start, 0x41, 10)
    assert kernel.call("protect", start, PAGE_SIZE, READ) == 0
    assert kernel.memory.read(start, 2) == b"AA"
    with pytest.raises(GuestFault):
        kernel.call("memset", start, 0, 10)
    kernel.rewind()
    for protection, number in ((NONE, ENOTSUP), (EXECUTE, ENOTSUP), (64, EINVAL)):
        assert kernel.call("protect", start, PAGE_SIZE, protection) & 0xFFFFFFFF == 0xFFFFFFFF
        assert kernel.call("error") == number
    assert kernel.call("protect", start, 3 * PAGE_SIZE, READ) & 0xFFFFFFFF == 0xFFFFFFFF
    assert kernel.call("error") == ENOMEM
    assert kernel.call("advise", start, 2 * PAGE_SIZE, 3) == 0
    assert kernel.memory.read(start, 2) == b"AA"
    assert kernel.call("advise", start, 2 * PAGE_SIZE, 4) == 0
    assert kernel.memory.read(start, 2) == bytes(2)
    kernel.call("unmap", start, 2 * PAGE_SIZE)
    assert before - free_pages(kernel) <= 3


def test_thousands_of_mappings_fit_into_the_table_that_grows(kernel: Kernel) -> None:
    kernel.call("unmap", kernel.call("map", 600 * PAGE_SIZE, READ | WRITE, ANONYMOUS), 600 * PAGE_SIZE)
    before = free_pages(kernel)
    start = kernel.call("map", 600 * PAGE_SIZE, READ | WRITE, ANONYMOUS)
    for page in range(1, 600, 2):                    # 300 mappings are left; one page of the table holds 256
        assert kernel.call("unmap", start + page * PAGE_SIZE, 1) == 0
    assert free_pages(kernel) == before - 300 - 2
    assert kernel.call("unmap", start, 600 * PAGE_SIZE) == 0
    assert free_pages(kernel) == before


# -- malloc -----------------------------------------------------------------------------------------------------
SIZES = (0, 1, 8, 15, 16, 17, 65, 80, 96, 97, 129, 191, 192, 193, 1000, 8192, 8193, 100000)


@pytest.mark.parametrize("options", [{}, {"slab_debug": "FZPU"}])
def test_malloc_aligns_to_16_and_realloc_keeps_the_bytes(
        booted: Callable[..., Kernel], options: dict[str, Any]) -> None:
    kernel, rng = booted(**options), random.Random(13)
    held: dict[int, bytes] = {}
    for size in SIZES * 2:
        pointer = kernel.call("allocate_memory", size)
        assert pointer
        assert pointer not in held
        assert pointer % (16 if size >= 16 else 8) == 0, size
        held[pointer] = rng.randbytes(size)
        kernel.memory.write(pointer, held[pointer])
        assert kernel.call("usable", pointer) >= size
    for pointer in list(held):
        data, size = held.pop(pointer), rng.choice(SIZES[1:])
        moved = kernel.call("change_memory", pointer, size)
        assert moved % (16 if size >= 16 else 8) == 0, size
        kept = data[:size]
        assert kernel.memory.read(moved, len(kept)) == kept
        held[moved] = kept + bytes(size - len(kept))
        kernel.memory.write(moved, held[moved])
    for pointer, data in held.items():
        assert kernel.memory.read(pointer, len(data)) == data
        kernel.call("free_memory", pointer)
    kernel.call("free_memory", 0)
    assert kernel.heap.validate() == []
    assert all(cache.inuse == 0 for cache in kernel.heap.caches if cache.name.startswith("kmalloc-"))


@pytest.mark.parametrize("options", [{}, {"slab_debug": "FZPU"}])
def test_aligned_memory_is_aligned_for_every_size(booted: Callable[..., Kernel], options: dict[str, Any]) -> None:
    kernel = booted(**options)
    for shift in range(17):
        for size in (0, 1, 24, 100, 5000, 9000):
            pointer = kernel.call("allocate_aligned_memory", 1 << shift, size)
            assert pointer % max(1 << shift, 16 if size >= 16 else 1) == 0
            assert kernel.call("usable", pointer) >= size
            kernel.memory.write(pointer, bytes(size))
            kernel.call("free_memory", pointer)
    for alignment in (0, 3, 24):
        assert kernel.call("allocate_aligned_memory", alignment, 10) == 0
        assert kernel.call("error") == EINVAL
    place = kernel.call("allocate_memory", 8)
    assert kernel.call("allocate_posix", place, 4, 10) == kernel.call("allocate_posix", place, 48, 10) == EINVAL
    assert kernel.call("allocate_posix", place, 64, 1 << 40) == ENOMEM
    assert kernel.call("error") == 0
    assert kernel.call("allocate_posix", place, 64, 10) == 0
    assert kernel.memory.u64(place) % 64 == 0
    assert kernel.heap.validate() == []


def test_what_is_too_large_is_enomem_and_leaves_the_old_memory(kernel: Kernel) -> None:
    pointer = kernel.call("allocate_memory", 10)
    for name, arguments in (("allocate_memory", (1 << 40,)), ("allocate_memory", (FAILED,)),
                            ("allocate_zeroed_memory", (1 << 33, 1 << 33)), ("change_memory", (pointer, 1 << 40)),
                            ("allocate_aligned_memory", (1 << 40, 1)), ("allocate_aligned_memory", (64, FAILED))):
        assert kernel.call(name, *arguments) == 0
        assert kernel.call("error") == ENOMEM
    found = kernel.heap.find(pointer)
    assert isinstance(found, HeapObject)
    assert found.cache.name == "kmalloc-16"
    assert found.cache.inuse == 1
    zeroed = kernel.call("allocate_zeroed_memory", 3, 1000)
    assert kernel.memory.read(zeroed, 3000) == bytes(3000)
    assert kernel.call("change_memory", zeroed, 0) == 0
    assert kernel.call("change_memory", 0, 5) != 0


# -- the console, and the end -----------------------------------------------------------------------------------
def test_everything_printed_arrives_on_the_console(kernel: Kernel) -> None:
    before = len(kernel.console)
    kernel.call("speak")
    assert kernel.console[before:] == ("printf 1\n0xff\nputs\nfputs\ncab\nperror: Cannot allocate memory\nwrite\n")


def test_an_assertion_is_a_panic_with_file_line_function_and_condition(kernel: Kernel) -> None:
    kernel.call("expect", 3)
    line = MODULE[: MODULE.index("void expect")].count("\n") + 1
    with pytest.raises(GuestPanic, match=rf"module\.c:{line}: expect: Assertion `value == 3' failed\."):
        kernel.call("expect", 4)
    kernel.rewind()
    with pytest.raises(GuestPanic, match=r"abort\(\) was called"):
        kernel.call("give_up")
    kernel.rewind()


@pytest.mark.parametrize(("status", "kind"), [(0, "success"), (3, "failure")])
def test_exit_is_as_good_as_main_s_return(tmp_path: Path, status: int, kind: str) -> None:
    path = tmp_path / "leaves.c"
    path.write_text(f"#include <stdlib.h>\nint main(void) {{ exit({status}); }}\n")
    kernel = sandbox.boot(path)
    result = kernel.run()
    assert (result.kind, result.returned) == (kind, status)
    kernel.close()


def test_random_numbers_are_the_same_in_every_run(kernel: Kernel) -> None:
    state = 5
    state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
    assert kernel.call("numbers") == kernel.call("numbers") == state >> 33


def test_atomic_operations_are_what_c11_calls_them(kernel: Kernel) -> None:
    assert kernel.call("count_atomically") == 11


# -- beside an allocator of somebody else -----------------------------------------------------------------------
BUMP = """
#include <stdint.h>
#include <unistd.h>

static uintptr_t freed, count;

void *allocate(size_t size)
{
    char *start = sbrk((intptr_t)((size + 15) & -16ul));

    count++;
    return start == (char *)-1 ? NULL : start;
}

void deallocate(void *pointer) { freed ^= (uintptr_t)pointer; }
uintptr_t what_was_freed(void) { return freed; }
uintptr_t how_many(void) { return count; }
"""
USER = """
#include <malloc.h>
#include <string.h>

char *allocate_memory(size_t size) { return malloc(size); }
char *change_memory(char *pointer, size_t size) { return realloc(pointer, size); }
void *allocate_aligned_memory(size_t alignment, size_t size) { return memalign(alignment, size); }
void *allocate_zeroed_memory(size_t count, size_t size) { return calloc(count, size); }
void free_memory(void *pointer) { free(pointer); }
size_t usable(void *pointer) { return malloc_usable_size(pointer); }
char *copy(const char *text) { return strdup(text); }
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """A module on the C library's malloc, which stands on an allocator that stands on its own sbrk."""
    directory = tmp_path_factory.mktemp("beside")
    (directory / "bump.c").write_text(BUMP)
    (directory / "user.c").write_text(USER)
    kernel = sandbox.boot(modules=[directory / "user.c"], allocator=directory / "bump.c", arena="64K",
                          symbols={"init": None, "stats": None})
    yield kernel
    kernel.close()


def test_malloc_keeps_its_own_header_in_front_of_what_the_allocator_gave(beside: Kernel) -> None:
    pointer = beside.call("allocate_memory", 100)
    assert beside.memory.u64(pointer - 16) == 100
    assert beside.memory.u64(pointer - 8) == pointer - 16
    assert beside.call("usable", pointer) == 100
    beside.call("free_memory", pointer)
    assert beside.call("what_was_freed") == pointer - 16
    aligned = beside.call("allocate_aligned_memory", 256, 10)
    assert aligned % 256 == 0
    beside.call("free_memory", beside.call("allocate_memory", 0))
    beside.call("free_memory", 0)
    count = beside.call("how_many")
    beside.memory.write(aligned, b"0123456789")
    moved = beside.call("change_memory", aligned, 20)
    assert beside.memory.read(moved, 10) == b"0123456789"
    assert beside.call("how_many") == count + 1
    zeroed = beside.call("allocate_zeroed_memory", 5, 5)
    assert beside.memory.read(zeroed, 25) == bytes(25)
    text = beside.call("copy", b"text\0")
    assert beside.memory.read(text, 5) == b"text\0"


def test_the_arena_s_size_bounds_what_the_allocator_s_sbrk_maps(beside: Kernel) -> None:
    assert beside.call("allocate_memory", 64 << 10) == 0
    taken = 0
    while beside.call("allocate_memory", 4000):
        taken += 4016
    assert (64 << 10) - 16384 < taken < 64 << 10
    assert beside.heap.validate() == []
