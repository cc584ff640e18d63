"""Interrupts inside traced functions: the handler allocates and frees, and the trace keeps the two apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import IRQ_BASE, TIMER_IRQ
from sandbox.trace.ledger import held
from sandbox.x86 import Vector

PROGRAM = """
.text
main:
    xor eax, eax
    ret

# int on_tick(struct pt_regs *regs): one allocation that stays, one that does not
on_tick:
    push rbp
    mov rbp, rsp
    mov edi, 64
    call kmalloc
    mov edi, 600
    call kmalloc
    mov rdi, rax
    call kfree
    mov eax, 1
    pop rbp
    ret
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with sandbox.boot(PROGRAM, ram="4M", hz=20) as kernel:
        kernel.call("set_trap_handler", IRQ_BASE + TIMER_IRQ, kernel.symbols["on_tick"])
        yield kernel


def interrupted_everywhere(kernel: Kernel, function: str, *arguments: int, step: int = 1) -> int:
    """Trace one call with an interrupt after each of its first, second ... instructions; how often the handler's
    calls lay inside the call's own."""
    start = kernel.snapshot()
    before = kernel.heap.allocated()
    with kernel.trace() as quiet:
        kernel.call(function, *arguments)
    alone = [(event.function, event.parent) for event in quiet.walk()]
    length = kernel.instructions - start.machine.instructions
    inside = 0
    for offset in range(0, length, step):
        kernel.restore(start)
        kernel.machine.interrupt_at(kernel.instructions + offset, TIMER_IRQ)
        with kernel.trace() as trace:
            kernel.call(function, *arguments)
        every = trace.events()
        handler = [event for event in trace if event.call_site.startswith("on_tick")]
        assert [event.kind for event in handler] == ["alloc", "alloc", "free"]
        assert not any(event.unfinished or event.failed for event in every)
        (own,) = [event for event in trace if event not in handler]
        of_handler = {event.sequence for root in handler for event in root.walk()}
        assert own.function == function and of_handler.isdisjoint(event.sequence for event in own.walk())
        if len(every) - len(of_handler) == len(alone):
            assert [event.function for event in own.walk()] == [name for name, _ in alone]
        assert held(every, before) == kernel.heap.allocated()
        inside += own.entered < handler[0].entered < own.instruction
    kernel.restore(start)
    return inside


def test_an_interrupt_at_each_instruction_of_the_fast_path_is_a_tree_of_its_own(kernel: Kernel) -> None:
    pointers = [kernel.call("kmalloc", 64) for _ in range(3)]
    kernel.call("kfree", kernel.call("kmalloc", 600))
    kernel.call("kfree", pointers[0])
    assert interrupted_everywhere(kernel, "kmalloc", 64) >= 8
    assert interrupted_everywhere(kernel, "kfree", pointers[1]) >= 8


def test_an_interrupt_in_the_slow_path_is_a_tree_of_its_own(kernel: Kernel) -> None:
    assert interrupted_everywhere(kernel, "kmalloc", 192, step=37) >= 20


FAULTS = """
.text
main:
    xor eax, eax
    ret

# int on_fault(struct pt_regs *regs): give the page that was missed
on_fault:
    push rbp
    mov rbp, rsp
    xor edi, edi
    call get_free_pages
    lea rsi, [rip + direct_map_base]
    sub rax, [rsi]
    mov rsi, rax
    mov rdi, cr2
    and rdi, -4096
    mov edx, 3
    call map_page
    mov eax, 1
    pop rbp
    ret

.rodata
.p2align 3
direct_map_base:
    .quad DIRECT_MAP
"""


def test_a_page_fault_inside_a_bulk_allocation_is_handled_in_trees_of_its_own() -> None:
    array = 0x7000_0000_0FE8                             # the fourth pointer lies on a page of its own
    with sandbox.boot(FAULTS, hz=0) as kernel:
        kernel.call("set_trap_handler", Vector.PF, kernel.symbols["on_fault"])
        cache = kernel.call("kmem_cache_create", "things", 64, 0, 0, 0)
        with kernel.trace() as trace:
            assert kernel.call("kmem_cache_alloc_bulk", cache, 10, array) == 10
        given = [kernel.memory.u64(array + 8 * index) for index in range(10)]
    bulk = [event for event in trace if event.kind == "alloc"]
    pages = [event for event in trace if event.kind == "page_alloc"]
    assert [event.address for event in bulk] == given and {event.cache for event in bulk} == {"things"}
    assert {page.call_site.split("+")[0] for page in pages} >= {"on_fault"} and len(pages) >= 2
    assert all(bulk[0].entered < page.entered and page.instruction < bulk[0].instruction for page in pages)
    assert not any(event.unfinished for event in trace.walk())
