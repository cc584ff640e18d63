"""Leaks: what nothing leads to is listed, with where it came from; what anything leads to is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest

import sandbox
from sandbox import Kernel
from sandbox.errors import UsageError
from sandbox.heap.views import Heap
from tests.workloads import generate, run

PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov edi, 500
    call kmalloc
    mov [rip + kept], rax               # reached from the program's data
    mov rbx, rax
    mov edi, 100
    call kmalloc
    add rax, 60
    mov [rbx + 16], rax                 # reached through the first, by a pointer into it
    mov edi, 40
    call kmalloc                        # lost
    mov edi, 20000
    call kmalloc                        # lost, too large for a cache
    mov edi, 1
    call get_free_pages                 # lost pages
    mov edi, 30
    call kmalloc
    mov rdi, rax
    call kfree                          # given back
    mov edi, 30
    call kmalloc
    mov rdi, rax
    mov esi, 900
    xor edx, edx
    call krealloc
    mov [rip + kept + 8], rax
    pop rbx
    pop rbx
    pop rbp
    xor eax, eax
    ret
.bss
kept:
    .zero 16
"""
OPTIONS: dict[str, dict[str, object]] = {
    "plain": {}, "no magazines": {"magazines": False}, "poisoned": {"slab_debug": "P"},
    "FZPU": {"slab_debug": "FZPU"}, "random": {"freelist_random": 1, "freelist_hardened": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_exactly_what_nothing_leads_to_is_lost(options: dict[str, object]) -> None:
    with sandbox.boot(PROGRAM, ram="8M", **options) as kernel:  # type: ignore[arg-type]
        assert kernel.heap.leaks() == []
        with kernel.trace() as trace:
            assert kernel.run().status == 33
        lost = kernel.heap.leaks()
        assert sorted((leak.size, leak.cache) for leak in lost) == [(64, "kmalloc-64"), (8192, None), (32768, None)]
        for leak in lost:
            assert leak.allocation is not None
            event = next(event for event in trace.walk() if event.address == leak.address and event.kind != "free")
            assert leak.allocation.instruction == event.instruction
            assert leak.allocation.stack[0].startswith("main+") and leak.allocation.call_site.startswith("main+")


def test_without_a_trace_the_guests_own_tracks_say_who_allocated_it() -> None:
    with sandbox.boot(PROGRAM, ram="8M", slab_debug="U") as kernel:
        kernel.run()
        (leak,) = [leak for leak in kernel.heap.leaks() if leak.cache]
        assert leak.allocation is not None and leak.allocation.instruction is None
        assert leak.allocation.requested == 40 and leak.allocation.stack[0].startswith("main+")
        assert "allocated by main+" in str(leak)


def test_without_either_nothing_is_made_up() -> None:
    with sandbox.boot(PROGRAM, ram="8M", slab_debug="P") as kernel:
        kernel.run()
        (leak,) = [leak for leak in kernel.heap.leaks() if leak.cache]
        assert leak.allocation is None and str(leak).endswith("64 bytes of kmalloc-64, and nothing leads to it")


def test_what_a_script_holds_is_what_it_says(kernel: Kernel) -> None:
    pointers = [kernel.call("kmalloc", size) for size in (8, 64, 5000, 30_000)]
    assert [leak.address for leak in kernel.heap.leaks()] == sorted(pointers)
    assert [leak.address for leak in kernel.heap.leaks(pointers[:2])] == sorted(pointers[2:])
    assert kernel.heap.leaks([pointers[0], pointers[1] + 63, pointers[2] + 1, pointers[3] + 4096]) == []
    assert [leak.address for leak in kernel.heap.leaks([*pointers[1:], pointers[0] + 8])] == [pointers[0]]


def holder_in_memory(kernel: Kernel, pointer: int) -> None:
    kernel.memory.write_u64(kernel.registers["rsp"] + 8, pointer)


def holder_in_a_register(kernel: Kernel, pointer: int) -> None:
    kernel.registers["rbx"] = pointer


def holder_in_pages(kernel: Kernel, pointer: int) -> None:
    pages = kernel.call("get_free_pages", 1)
    kernel.memory.write_u64(pages + 5000, pointer)
    kernel.registers["r12"] = pages


def holder_in_mapped_pages(kernel: Kernel, pointer: int) -> None:
    pages = kernel.call("get_free_pages", 0)
    kernel.memory.write_u64(pages + 8, pointer)
    kernel.call("map_page", 0xFFFF_E000_0000_0000, pages - 0xFFFF_8880_0000_0000, 3)


HOLDERS = (holder_in_memory, holder_in_a_register, holder_in_pages, holder_in_mapped_pages)


@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__)
def test_a_pointer_anywhere_in_use_is_enough(kernel: Kernel, hold: Callable[[Kernel, int], None]) -> None:
    if hold is holder_in_memory:
        kernel.registers["rsp"] = kernel.registers["rsp"] - 64
    pointer = kernel.call("kmalloc", 100)
    assert [leak.address for leak in kernel.heap.leaks()] == [pointer]
    hold(kernel, pointer)
    assert kernel.heap.leaks() == []


def test_free_memory_and_magazines_hold_nothing(kernel: Kernel) -> None:
    holder, pointer = kernel.call("kmalloc", 64), kernel.call("kmalloc", 64)
    kernel.memory.write_u64(holder, pointer)
    assert kernel.heap.leaks([holder]) == []
    kernel.call("kfree", holder)
    assert [leak.address for leak in kernel.heap.leaks([holder])] == [pointer]


def test_what_an_old_free_pointer_leads_to_is_a_possible_leak() -> None:
    with sandbox.boot(ram="8M", magazines=False) as kernel:
        first, second = kernel.call("kmalloc", 64), kernel.call("kmalloc", 64)
        assert kernel.memory.u64(first + 32) == second          # nobody wrote that but the allocator
        (leak,) = kernel.heap.leaks([first])
        assert (leak.address, leak.certain) == (second, False) and "old free pointer" in str(leak)
        kernel.memory.write_u64(first + 8, second)
        assert kernel.heap.leaks([first]) == []


def test_rings_of_lost_objects_are_lost(kernel: Kernel) -> None:
    first, second = kernel.call("kmalloc", 200), kernel.call("kmalloc", 300)
    kernel.memory.write_u64(first, second)
    kernel.memory.write_u64(second, first)
    assert [leak.address for leak in kernel.heap.leaks()] == sorted([first, second])


@pytest.mark.parametrize("seed", range(5))
def test_a_workload_loses_nothing_that_is_held_and_everything_that_is_not(kernel: Kernel, seed: int) -> None:
    held = run(kernel, generate(seed, 60))
    wanted = sorted(held.addresses)
    assert kernel.heap.leaks(wanted) == []
    assert [leak.address for leak in kernel.heap.leaks()] == wanted


def test_bytes_without_a_processor_have_no_roots(kernel: Kernel) -> None:
    with pytest.raises(UsageError, match="registers"):
        Heap(kernel).leaks()


def test_the_heap_keeps_no_kernel_alive() -> None:
    kernel = sandbox.boot(ram="4M")
    kernel.heap.leaks()
    alive = weakref.ref(kernel)
    gc.disable()
    try:
        del kernel
        assert alive() is None
    finally:
        gc.enable()
