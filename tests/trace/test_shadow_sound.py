"""The shadow on whole workloads: silent where nothing is wrong, the same in native code and in Python, consistent
after every way back, and cheap enough."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sandbox
from sandbox.errors import GuestError, SandboxError, ShadowError
from sandbox.kernel import Kernel
from sandbox.machine.stop import StopKind
from sandbox.trace import shadow as shadow_module
from sandbox.trace.shadow import Shadow

from ..workloads import generate, release, run

ROOT = Path(__file__).parent.parent.parent
OPTIONS: tuple[dict[str, Any], ...] = (
    {}, {"magazines": False}, {"slab_debug": "FZPU"}, {"quarantine": 8}, {"slab_debug": "FZPU", "quarantine": 3},
    {"freelist_hardened": True, "freelist_random": 5},
)


def shadow_of(kernel: Kernel) -> Shadow:
    assert kernel.shadow is not None
    return kernel.shadow


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Kernel, Kernel]]:
    """Two kernels that collect: one with native code, one without."""
    def refuse(*arguments: object) -> None:
        raise OSError("no native code here")

    with pytest.MonkeyPatch.context() as patch, sandbox.boot(shadow="collect") as native:
        patch.setattr(shadow_module, "NativeGate", refuse)
        with sandbox.boot(shadow="collect") as python:
            assert (shadow_of(native).native, shadow_of(python).native) == (True, False)
            yield native, python


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sound_workloads_are_not_accused(options: dict[str, Any]) -> None:
    with sandbox.boot(shadow=True, **options) as kernel:
        start = kernel.snapshot()
        for seed in range(30):
            release(kernel, run(kernel, generate(seed)))
            kernel.restore(start)
        assert shadow_of(kernel).errors == []


@pytest.mark.soak
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_thousand_sound_workloads_are_not_accused(options: dict[str, Any]) -> None:
    with sandbox.boot(shadow=True, **options) as kernel:
        start = kernel.snapshot()
        for seed in range(1000, 1170):
            release(kernel, run(kernel, generate(seed)))
            kernel.restore(start)
        assert shadow_of(kernel).errors == []


WRONG_ON_PURPOSE = ("14_overflow", "15_use_after_free", "16_double_free")
SOUND = [path for path in sorted((ROOT / "examples").glob("*.asm")) if path.stem not in WRONG_ON_PURPOSE]


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.stem)
def test_a_shadow_changes_nothing_of_an_example_and_accuses_it_of_nothing(path: Path) -> None:
    results = []
    for options in ({}, {"shadow": "collect"}):
        with sandbox.boot(path, **options) as kernel:
            result = kernel.run()
            results.append((result, kernel.console, kernel.instructions, bytes(kernel.physical.read(0, 0x9F000))))
            if options:
                kinds = {str(error) for error in shadow_of(kernel).errors}
    assert results[0] == results[1]
    assert kinds == set()


def test_the_self_test_is_accused_of_nothing_but_the_damage_that_it_does_on_purpose() -> None:
    with sandbox.boot(ROOT / "kernel_asm" / "selftest.asm", shadow="collect") as kernel:
        assert kernel.run().ok
        for error in shadow_of(kernel).errors:
            assert any("selftest/debug.asm" in frame for frame in error.backtrace), error.report


INTERRUPTED = """
.text
main:
    push rbx
    push r12
    push r13
    mov edi, 0x20
    lea rsi, [rip + tick]
    call set_trap_handler
    mov r12d, 1500
again:
    mov edi, r12d
    and edi, 127
    inc edi
    mov r13d, edi
    call kmalloc
    mov rbx, rax
    mov rdi, rax
    mov esi, 1
    mov edx, r13d
    call memset
    mov rdi, rbx
    mov rsi, rbx
    mov edx, r13d
    call memcmp
    mov rdi, rbx
    call kfree
    dec r12d
    jnz again
    xor eax, eax
    pop r13
    pop r12
    pop rbx
    ret

tick:
    push rbp
    mov rbp, rsp
    mov rdi, [rip + kept]
    call kfree
    mov edi, 48
    call kmalloc
    mov [rip + kept], rax
    mov qword ptr [rax + 40], 5
    mov rcx, [rax + 40]
    inc qword ptr [rip + ticks]
    mov eax, 1
    pop rbp
    ret
.bss
.p2align 3
kept: .zero 8
ticks: .zero 8
"""


@pytest.mark.parametrize("options", [{}, {"magazines": False}, {"quarantine": 5}, {"slab_debug": "FZPU"}], ids=str)
def test_an_interrupt_handler_may_allocate_in_the_middle_of_the_allocator(options: dict[str, Any]) -> None:
    with sandbox.boot(INTERRUPTED, hz=1_000 if "slab_debug" in options else 10_000, shadow=True, **options) as kernel:
        result = kernel.run(limit=30_000_000)
        assert result.ok, result
        assert kernel.memory.u64(kernel.symbols["ticks"]) > 100


def test_a_breakpoint_and_an_interrupt_at_the_same_free_are_one_free() -> None:
    with sandbox.boot(INTERRUPTED.replace("1500", "300"), hz=10_000, shadow=True) as kernel:
        stops = 0
        until = [int(kernel.symbols[name]) for name in ("kfree", "kmalloc")]
        while (stop := kernel.machine.run(limit=2_000_000, until=until)).kind is StopKind.BREAKPOINT:
            stops += 1
        assert stop.kind is StopKind.DEBUG_EXIT and stop.qemu_status == 33
        assert stops > 600 and shadow_of(kernel).errors == []


def commands(seed: int) -> Iterator[tuple[str, int, int, int]]:
    """Things to do, good and bad: a function, and which object, offset and size it is for."""
    chance = random.Random(seed)
    for _ in range(60):
        what = chance.choice(["kmalloc", "kmalloc", "kzalloc", "memset", "memset", "memcpy", "memmove", "memcmp",
                              "strlen", "kfree", "krealloc"])
        yield what, chance.randrange(1000), chance.randrange(-4, 40), chance.choice([1, 3, 8, 13, 24, 60, 130])


def misbehave(kernel: Kernel, seed: int) -> None:
    """Use objects in every way, as those commands say; a wrong free is the last thing that happens to a kernel."""
    held: list[int] = [kernel.call("kmalloc", 40)]
    for what, which, offset, size in commands(seed):
        pointer, other = held[which % len(held)], held[which // 7 % len(held)]
        try:
            if what in ("kmalloc", "kzalloc"):
                held.append(kernel.call(what, size))
            elif what == "memset":
                kernel.call(what, pointer + max(offset, 0), 1, size)
            elif what in ("memcpy", "memmove", "memcmp"):
                kernel.call(what, pointer + offset, other, size)
            elif what == "strlen":
                kernel.call("strnlen", pointer + offset, size)
            elif what == "kfree":
                kernel.call(what, held.pop(which % len(held)) if len(held) > 1 else held[0])
                held[:] = held or [pointer]
            else:
                held[which % len(held)] = kernel.call(what, pointer, size, 0)
        except GuestError:
            kernel.rewind()


@pytest.mark.parametrize("seed", range(12))
def test_native_code_and_python_come_to_the_same_states_and_errors(pair: tuple[Kernel, Kernel], seed: int) -> None:
    found = []
    for kernel in pair:
        start = kernel.snapshot()
        shadow = shadow_of(kernel)
        first = len(shadow.errors)
        shadow._found.clear()
        misbehave(kernel, seed)
        found.append(([error.report for error in shadow.errors[first:]], shadow.table.shadow.copy(),
                      dict(shadow.table.objects), kernel.instructions))
        kernel.restore(start)
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])
    assert found[0][2:] == found[1][2:]
    assert found[0][0], "nothing went wrong: the seed tests nothing"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [{}, {"quarantine": 4}], ids=str)
def test_after_a_rewind_the_shadow_is_what_it_was(seed: int, options: dict[str, Any]) -> None:
    with sandbox.boot(shadow=True, **options) as kernel:
        shadow = shadow_of(kernel)
        held = run(kernel, generate(seed))
        states, objects = shadow.table.shadow.copy(), dict(shadow.table.objects)
        victim = kernel.call("kmalloc", 20)
        after = shadow.table.shadow.copy()
        with pytest.raises(ShadowError):
            kernel.call("memset", victim, 1, 21)
        kernel.rewind()
        assert np.array_equal(shadow.table.shadow, after) and shadow.table.objects[victim - 0xFFFF_8880_0000_0000].live
        here = kernel.snapshot()
        release(kernel, held)
        kernel.restore(here)
        assert np.array_equal(shadow.table.shadow, after)
        kernel.call("kfree", victim)
        assert set(shadow.table.objects) >= set(objects) and states.shape == after.shape
        release(kernel, held)


def test_what_the_shadow_holds_is_what_the_views_say_is_held() -> None:
    with sandbox.boot(shadow=True) as kernel:
        run(kernel, generate(3))
        live = {0xFFFF_8880_0000_0000 + start for start, held in shadow_of(kernel).table.objects.items() if held.live}
        assert live == set(kernel.heap.allocated())


def test_a_closed_kernel_is_freed_with_its_shadow() -> None:
    import weakref

    kernel = sandbox.boot(shadow=True)
    machine = weakref.ref(kernel.machine)
    kernel.close()
    del kernel
    assert machine() is None
    with pytest.raises(SandboxError):
        sandbox.boot(shadow="sometimes")
