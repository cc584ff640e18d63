"""A timer interrupt at every instruction of the allocator in turn, with a handler that allocates and frees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox.abi import IRQ_BASE, TIMER_IRQ, percpu
from sandbox.kernel import Kernel
from sandbox.toolchain.disassembler import Disassembler
from tests.soundness import assert_sound

PROGRAM = """
# A tick handler that uses the allocator itself, and a workload that reaches its slow paths.
.set SIZE, 2048                         # two objects to a slab, seven rounds to a magazine
.set ROUNDS, 90                         # more than the depot keeps

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
    mov edi, SIZE
    call kmalloc
    mov rbx, rax
    mov edi, SIZE
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
    mov edi, SIZE
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
    mov rdi, [rip + kmalloc_caches + 80]    # kmalloc-2k
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


FILES = ("page_alloc", "slab", "magazine", "slowpath", "fastpath", "kmalloc", "kmem_cache", "list", "spinlock")


def allocator(kernel: Kernel) -> set[int]:
    """The address of every instruction of the allocator."""
    return {instruction.address for instruction in Disassembler().code(kernel.image, kernel.image.base,
                                                                       kernel.image.text_end)
            if Path(kernel.image.line(instruction.address).file).stem in FILES}


def interrupt_everywhere(kernel: Kernel, function: str, *arguments: int, expected: int | None = None) -> set[int]:
    """Run a call once for each of the allocator's instructions that it reaches, with an interrupt just before the
    first time; returns their addresses."""
    start = kernel.snapshot()
    begin = kernel.instructions
    first: dict[int, int] = {}
    hook = kernel.machine.cpu.hook_code(
        allocator(kernel), lambda address: first.setdefault(address, kernel.instructions - begin))
    kernel.call(function, *arguments)
    hook.remove()
    ticks = kernel.symbols["ticks"]
    for address, offset in first.items():
        kernel.restore(start)
        kernel.machine.interrupt_at(kernel.instructions + offset, TIMER_IRQ)
        result = kernel.call(function, *arguments)
        assert expected is None or result == expected
        assert kernel.memory.u64(ticks) == 1, f"the interrupt at {address:#x} was lost"
        assert_sound(kernel)
    kernel.restore(start)
    return set(first)


@pytest.mark.parametrize("function", ["kmalloc", "kfree"])
def test_the_fast_path_survives_an_interrupt_at_each_of_its_instructions(kernel: Kernel, function: str) -> None:
    pointer = kernel.call("kmalloc", 2048)
    places = interrupt_everywhere(kernel, function, 2048 if function == "kmalloc" else pointer)
    assert len(places) == (15 if function == "kmalloc" else 21)
    kernel.call("kfree", pointer)


def test_a_workload_through_the_slow_paths_survives_an_interrupt_at_each_instruction(kernel: Kernel) -> None:
    places = interrupt_everywhere(kernel, "workload", expected=0)
    reached = {kernel.symbolize(address).symbol for address in places}
    assert {"slab_alloc", "slab_free", "slab_create", "slab_destroy", "slab_take", "slab_put", "slab_move",
            "magazine_prepare", "magazine_find_object", "magazine_find_room", "magazine_refill", "magazine_flush",
            "magazine_drain", "depot_push", "depot_pop", "get_free_pages", "free_pages", "kmem_cache_shrink"} <= reached
    assert len(places) > 550


def test_an_interrupted_critical_section_is_restarted(kernel: Kernel) -> None:
    first = kernel.snapshot()
    kernel.call("kfree", kernel.call("kmalloc", 2048))
    start = kernel.snapshot()
    begin = kernel.instructions
    kernel.call("kmalloc", 2048)
    length = kernel.instructions - begin
    restarted = 0
    for offset in range(length):
        kernel.restore(start)
        kernel.machine.interrupt_at(kernel.instructions + offset, TIMER_IRQ)
        kernel.call("kmalloc", 2048)
        restarted += kernel.memory.u64(kernel.symbols["boot_cpu"] + percpu.restarts.offset)
    assert restarted == 5               # one for each instruction from the restart point to the one that commits
    kernel.restore(first)
