"""The clock: one for every instruction start, the same however a run is cut into slices."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.machine.rig import CODE, NOWHERE, Rig

Guest = Callable[..., Rig]
EXIT = "mov al, 1; out 0xf4, al"
SKIP3 = "pop rax; add qword ptr [rsp], 3; iretq"

# Each with its starts, counted by hand up to and including the `out` that ends it.
PROGRAMS: dict[str, tuple[str, dict[int, str], int]] = {
    "straight": (f"nop; nop; {EXIT}", {}, 4),
    "loop": (f"mov ecx, 10; l: dec ecx; jnz l; {EXIT}", {}, 1 + 20 + 2),
    "rep": (f"mov ecx, 5; mov edi, 0x200000; rep stosb; {EXIT}", {}, 2 + 6 + 2),
    "rep of nothing": (f"xor ecx, ecx; rep stosb; {EXIT}", {}, 1 + 1 + 2),
    "fault": (f"mov ebx, {NOWHERE}; mov rax, [rbx]; {EXIT}", {14: SKIP3}, 1 + 1 + 3 + 2),
    "fault and retry": (f"mov ebx, {NOWHERE}; mov rax, [rbx]; {EXIT}",
                        {14: "mov ebx, 0x200000; pop rax; iretq"}, 1 + 1 + 3 + 1 + 2),
    "fetch fault": (f"mov eax, {NOWHERE}; jmp rax; back: {EXIT}",
                    {14: f"pop rax; mov dword ptr [rsp], {CODE + 7}; iretq"}, 2 + 3 + 2),
    "int n": (f"int 0x40; {EXIT}", {0x40: "nop; iretq"}, 1 + 2 + 2),
    "invalid opcode": (f"ud2; nop; {EXIT}", {6: "add qword ptr [rsp], 2; iretq"}, 1 + 2 + 1 + 2),
    "syscall": (f"syscall; nop; {EXIT}", {6: "add qword ptr [rsp], 2; iretq"}, 1 + 2 + 1 + 2),
    "a store into the running block": (
        f"lea rbx, [rip + x]; nop; mov byte ptr [rbx], 0x90; x: nop; nop; {EXIT}", {}, 5 + 2),
    "a store behind the running instruction": (
        f"top: nop; mov byte ptr [rip + top], 0x90; nop; {EXIT}", {}, 3 + 2),
    "stores that rewrite a loop": (
        f"lea rbx, [rip + x]; mov ecx, 40; l: nop; mov byte ptr [rbx], 0x90; x: nop; nop; inc rax;"
        f"mov byte ptr [rbx + 1], 0x90; mov word ptr [rbx], 0x9090; dec ecx; jnz l; {EXIT}", {}, 2 + 40 * 9 + 2),
    "unaligned stores that rewrite a loop": (
        f"lea rbx, [rip + l]; mov ecx, 40; l: mov dword ptr [rbx + 9], 0x90909090; {'nop;' * 9} inc rax; dec ecx;"
        f"jnz l; {EXIT}", {}, 2 + 40 * 13 + 2),
    "a read and a store that rewrite a loop": (
        f"lea rbx, [rip + l]; mov ecx, 40; l: add byte ptr [rbx + 9], 0; {'nop;' * 9} dec ecx; jnz l; {EXIT}", {},
        2 + 40 * 12 + 2),
    "a rep that rewrites what follows it": (
        f"mov ecx, 20; lea rdi, [rip + y]; mov al, 0x90; rep stosb; y: {'nop;' * 22} {EXIT}", {}, 3 + 21 + 22 + 2),
    "a push onto the running block": (
        f"lea rsp, [rip + y + 8]; mov rax, 0x9090909090909090; push rax; y: {'nop;' * 8} {EXIT}", {}, 3 + 8 + 2),
    "a call that pushes onto the running block": (
        f"lea rsp, [rip + y + 8]; call f; y: {'nop;' * 8}; f: {EXIT}", {}, 2 + 2),
    "a new instruction is executed as it was written": (
        "lea rbx, [rip + x]; mov dword ptr [rbx], 0xc3ff4890; x: hlt; nop; nop; nop; nop;" + EXIT, {}, 0),
}
DIFFERS = "a new instruction is executed as it was written"


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != DIFFERS])
def test_the_clock_counts_what_can_be_counted_by_hand(guest: Guest, name: str) -> None:
    code, handlers, starts = PROGRAMS[name]
    rig = guest(code, handlers)
    before = rig.machine.instructions
    stop = rig.run(1000)
    assert stop.kind == "debug exit" and stop.instructions - before == starts


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != DIFFERS])
def test_single_steps_and_random_slices_see_what_one_run_sees(guest: Guest, name: str) -> None:
    code, handlers, _ = PROGRAMS[name]
    whole = guest(code, handlers)
    stop = whole.run(1000)
    for seed in range(4):
        chosen = random.Random(seed)
        rig = guest(code, handlers)
        for _ in range(1000):
            piece = rig.run(1 if seed == 0 else chosen.randint(1, 7))
            if piece.kind != "instruction limit":
                break
        assert (piece, rig.machine.cpu.registers()) == (stop, whole.machine.cpu.registers())
        assert rig.machine.memory.image() == whole.machine.memory.image()


def test_a_store_changes_the_very_next_instruction(guest: Guest) -> None:
    rig = guest("lea rbx, [rip + x]; mov dword ptr [rbx], 0x90c0ff48; x: hlt; nop; nop; nop; " + EXIT)
    before = rig.machine.instructions
    stop = rig.run(1000)
    assert stop.kind == "debug exit" and stop.instructions - before == 2 + 2 + 2 and rig["rax"] == 1


def test_hlt_is_one_start(guest: Guest) -> None:
    rig = guest("nop; hlt; nop")
    before = rig.machine.instructions
    for _ in range(2):
        stop = rig.run(2)
        assert stop.instructions - before == 2 and rig["rip"] == CODE + 2
    assert rig.run().kind == "halted with interrupts off"
    assert rig.machine.instructions - before == 2


def test_the_limit_is_exact_and_a_limit_of_zero_runs_nothing(guest: Guest) -> None:
    rig = guest("l: inc rax; jmp l")
    before = rig.machine.instructions
    assert rig.run(0).instructions == before and rig["rip"] == CODE
    stop = rig.run(10_001)
    assert stop.kind == "instruction limit" and stop.instructions - before == 10_001 and rig["rax"] == 5001
    assert rig["rip"] == CODE + 3


def test_text_that_becomes_writable_later_does_not_disturb_the_clock(guest: Guest) -> None:
    """The pages are read-only when their code is first seen; then the guest itself clears CR0.WP."""
    code = ("nop; jmp next; next: mov rax, cr0; btr rax, 16; mov cr0, rax; jmp far; far: lea rbx, [rip + x]; nop;"
            "mov byte ptr [rbx], 0x90; x: nop; mov byte ptr [rbx], 0x90; nop;" + EXIT)
    counts = set()
    for limit in (None, 1, 3, 4, 5):
        rig = guest(code)
        paging = rig.machine.paging
        for step in paging.walk(CODE)[-1:]:
            rig.machine.memory.write_u64(step.address, step.entry & ~2)
        before = rig.machine.instructions
        for _ in range(1000):
            stop = rig.run(limit or 1000)
            if stop.kind != "instruction limit":
                break
        counts.add((stop.kind.value, stop.instructions - before))
    assert counts == {("debug exit", 6 + 6 + 2)}
