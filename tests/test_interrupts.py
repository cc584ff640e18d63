"""A timer interrupt at every instruction of the allocator in turn, with a handler that allocates and frees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox.abi import IRQ_BASE, TIMER_IRQ, percpu
from sandbox.kernel import Kernel
from tests.soundness import assert_sound

PROGRAM = """
# A tick handler that uses the allocator itself, and a workload that reaches its slow paths.
.set ROUNDS, 40

.text
main:
    xor eax, eax
    ret

# int on_tick(struct pt_regs *regs): take two objects of the class that is being worked on, give one back, keep one
on_tick:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    inc qword ptr [rip + ticks]
    mov rax, [rdi + pt_regs.rip]
    mov [rip + interrupted], rax
    mov edi, 64
    call kmalloc
    mov rbx, rax
    mov edi, 64
    call kmalloc
    mov r12, rax
    mov rdi, rbx
    call kfree
    mov rdi, [rip + kept]
    call kfree
    mov [rip + kept], r12
    mov eax, 1
    pop r12
    pop rbx
    pop rbp
    ret

# int workload(void): fill a slab and a magazine, and empty them again
workload:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    lea r12, [rip + pointers]
    xor ebx, ebx
.Lworkload_alloc:
    mov edi, 64
    call kmalloc
    test rax, rax
    jz .Lworkload_failed
    mov [rax], rax
    mov [r12 + rbx * 8], rax
    inc ebx
    cmp ebx, ROUNDS
    jb .Lworkload_alloc
.Lworkload_free:
    dec ebx
    mov rdi, [r12 + rbx * 8]
    cmp [rdi], rdi                      # nobody else has written here
    jne .Lworkload_failed
    call kfree
    test ebx, ebx
    jnz .Lworkload_free
    mov rdi, [rip + kmalloc_caches]
    call kmem_cache_shrink
    xor eax, eax
    jmp .Lworkload_out
.Lworkload_failed:
    mov eax, 1
.Lworkload_out:
    pop r12
    pop rbx
    pop rbp
    ret

.bss
.p2align 3
ticks:
    .zero 8
interrupted:
    .zero 8
kept:
    .zero 8
pointers:
    .rept ROUNDS
    .zero 8
    .endr
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    path: Path = tmp_path_factory.mktemp("interrupts") / "ticks.asm"
    path.write_text(PROGRAM)
    with sandbox.boot(path, ram="4M", hz=20) as kernel:
        kernel.call("set_trap_handler", IRQ_BASE + TIMER_IRQ, kernel.symbols["on_tick"])
        yield kernel


def interrupt_everywhere(kernel: Kernel, function: str, *arguments: int, expected: int | None = None) -> set[int]:
    """Run a call once for each of its instructions with an interrupt there; the addresses that were interrupted."""
    start = kernel.snapshot()
    begin = kernel.instructions
    kernel.call(function, *arguments)
    length = kernel.instructions - begin
    ticks, interrupted = kernel.symbols["ticks"], kernel.symbols["interrupted"]
    places = set()
    for offset in range(length):
        kernel.restore(start)
        kernel.machine.interrupt_at(kernel.instructions + offset, TIMER_IRQ)
        result = kernel.call(function, *arguments)
        if expected is not None:
            assert result == expected
        assert kernel.memory.u64(ticks) == 1, f"interrupt {offset} of {length} was lost"
        places.add(kernel.memory.u64(interrupted))
        assert_sound(kernel)
    kernel.restore(start)
    return places


def code(kernel: Kernel, function: str, end: str) -> set[int]:
    """The addresses of the instructions of a function up to its first return."""
    from sandbox.toolchain.disassembler import disassemble

    start = kernel.symbols[function]
    data = kernel.memory[start : start + 256]
    addresses = set()
    for instruction in disassemble(data, start):
        addresses.add(instruction.address)
        if instruction.mnemonic == end:
            break
    return addresses


@pytest.mark.parametrize("function", ["kmalloc", "kfree"])
def test_the_fast_path_survives_an_interrupt_at_each_of_its_instructions(kernel: Kernel, function: str) -> None:
    first = kernel.snapshot()
    pointer = kernel.call("kmalloc", 64)
    argument = 64 if function == "kmalloc" else pointer
    restarts = kernel.memory.u64(kernel.symbols["boot_cpu"] + percpu.restarts.offset)
    places = interrupt_everywhere(kernel, function, argument)
    assert code(kernel, function, "ret") - {kernel.symbols[function]} <= places | restart_points(kernel)
    assert kernel.memory.u64(kernel.symbols["boot_cpu"] + percpu.restarts.offset) == restarts
    kernel.restore(first)


def restart_points(kernel: Kernel) -> set[int]:
    """Everything inside a critical section: what an interrupt there leaves behind is the section's start."""
    start, end = kernel.symbols["critical_sections"], kernel.symbols["critical_sections_end"]
    inside: set[int] = set()
    for row in range(start, end, 24):
        inside |= set(range(kernel.memory.u64(row), kernel.memory.u64(row + 8)))
    return inside


def test_a_workload_through_every_slow_path_survives_an_interrupt_at_each_instruction(kernel: Kernel) -> None:
    places = interrupt_everywhere(kernel, "workload", expected=0)
    assert len(places) > 200


def test_an_interrupted_critical_section_is_restarted(kernel: Kernel) -> None:
    first = kernel.snapshot()
    kernel.call("kfree", kernel.call("kmalloc", 64))
    start = kernel.snapshot()
    begin = kernel.instructions
    kernel.call("kmalloc", 64)
    length = kernel.instructions - begin
    restarted = 0
    for offset in range(length):
        kernel.restore(start)
        kernel.machine.interrupt_at(kernel.instructions + offset, TIMER_IRQ)
        kernel.call("kmalloc", 64)
        restarted += kernel.memory.u64(kernel.symbols["boot_cpu"] + percpu.restarts.offset)
    assert restarted == 5               # one for each instruction from the restart point to the one that commits
    kernel.restore(first)
