"""Kernels of a given image, and calls into them that look at more than the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox.guest import actions
from sandbox.guest.boot import load
from sandbox.guest.options import BootOptions
from sandbox.kernel import Kernel
from sandbox.machine import Machine
from sandbox.toolchain.image import Image
from tests.soundness import assert_sound

CALL_LIMIT = 2_000_000
BOOT_LIMIT = 3_000_000

SHIM = """
# Calls that notice what a caller in C would: interrupts left off, the direction flag left on.

# u64 shim(void *function, void *a, void *b, void *c, void *d, void *e)
shim:
    push rbp
    mov rbp, rsp
    mov rax, rdi
    mov rdi, rsi
    mov rsi, rdx
    mov rdx, rcx
    mov rcx, r8
    mov r8, r9
    call rax
    pushfq
    pop rcx
    and ecx, 0x600
    cmp ecx, 0x200
    jne .Lshim_flags
    pop rbp
    ret
.Lshim_flags:
    lea rdi, [rip + flags_message]
    mov esi, ecx
    call panic

# int on_tick(struct pt_regs *regs)
# Drains the magazines of the cache at victim, takes an object and gives it back, and drains them again.
on_tick:
    push rbp
    mov rbp, rsp
    inc qword ptr [rip + ticks]
    mov rdi, [rip + victim]
    call kmem_cache_shrink
    mov rdi, [rip + victim]
    call kmem_cache_alloc
    mov rdi, [rip + victim]
    mov rsi, rax
    call kmem_cache_free
    mov rdi, [rip + victim]
    call kmem_cache_shrink
    mov eax, 1
    pop rbp
    ret

main:
    xor eax, eax
    ret

.rodata
flags_message:
    .asciz "shim: interrupts are off or the direction flag is on: 0x%x"
.bss
.p2align 3
victim:
    .zero 8
ticks:
    .zero 8
"""


@contextmanager
def booted(image: Image, program: Image, **options: Any) -> Iterator[Kernel]:
    """A kernel of this image, which must come up in bounded time."""
    chosen = BootOptions(**options)
    with Machine(chosen.ram_size, console_limit=1 << 16) as machine:
        start = load(machine.memory, image, program, chosen)
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        before, actions.BOOT_LIMIT = actions.BOOT_LIMIT, BOOT_LIMIT
        try:
            yield Kernel(machine, image, program, chosen)
        finally:
            actions.BOOT_LIMIT = before


class Caller:
    """Something that calls functions of ``kernel``, through the shim."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def call(self, function: str, *arguments: Any) -> int:
        """RAX; bounded, and with a look at the flags and the callee-saved registers."""
        return self.kernel.call("shim", self.kernel.symbols[function], *arguments, *[0] * (5 - len(arguments)),
                                limit=CALL_LIMIT)


def judge(kernel: Kernel, live: tuple[int, ...] = (), both: bool = False) -> None:
    """The judge of the heap; ``both``: and the tests' own, which shares nothing with it and is slower."""
    assert kernel.heap.validate(live=live) == []
    if both:
        assert_sound(kernel)
