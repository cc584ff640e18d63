"""External interrupts: where they land, what holds them off, and what halting means."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.machine.rig import CODE, STACK, Rig, frame

Guest = Callable[..., Rig]
PIC = ("mov al, 0x11; out 0x20, al; out 0xa0, al; mov al, 0x20; out 0x21, al; mov al, 0x28; out 0xa1, al; mov al, 4;"
       "out 0x21, al; mov al, 2; out 0xa1, al; mov al, 1; out 0x21, al; out 0xa1, al; mov al, {0}; out 0x21, al;"
       "mov al, {1}; out 0xa1, al;")
TIMER = "mov al, 0x34; out 0x43, al; mov al, {0}; out 0x40, al; mov al, {1}; out 0x40, al;"
TICK = "push rax; inc r8; mov al, 0x20; out 0x20, al; pop rax; iretq"


def test_ticks_land_at_the_same_instruction_in_any_slices(guest: Guest) -> None:
    code = PIC.format(0xFE, 0xFF) + TIMER.format(20, 0) + "sti; l: inc rbx; pushfq; cli; nop; nop; popfq; jmp l"
    outcomes = set()
    for seed in range(4):
        rig, chosen, landed = guest(code, {0x20: TICK}), random.Random(seed), []
        rig.machine.cpu.hook_code([0x110000], lambda at, rig=rig, landed=landed: landed.append(
            (rig.machine.instructions, frame(rig, rig["rsp"])["rip"])))
        left = 20_000
        while left:
            piece = left if seed == 0 else min(left, chosen.randint(1, 300))
            left -= piece
            rig.run(piece)
        outcomes.add((tuple(landed), tuple(rig.machine.cpu.registers().values()), rig.machine.memory.image()))
    ((landed, _, _),) = outcomes
    # A tick is due every 320 starts, and is late by at most the three instructions behind `cli` and `popfq` itself.
    assert len(landed) > 60
    dues = [(at - landed[0][0]) % 320 for at, _ in landed]
    assert all(due <= 5 or due >= 315 for due in dues)


def test_an_interrupt_waits_for_sti_and_its_shadow(guest: Guest) -> None:
    rig = guest("cli; nop; sti; inc rax; inc rax; hlt", {0x41: "mov al, 1; out 0xf4, al"})
    rig.machine.inject_interrupt(0x41)
    rig.run()
    seen = frame(rig, rig["rsp"])
    assert seen["rip"] == CODE + 3 + 3 and seen["rflags"] & 0x200 and seen["rsp"] == STACK


def test_an_interrupt_waits_for_popf_and_iret_too(guest: Guest) -> None:
    for enable in ("push 0x202; popfq", "push 0x10; push rsp; add qword ptr [rsp], 8; push 0x202; push 8;"
                                         "lea rcx, [rip + on]; push rcx; iretq; on:"):
        rig = guest(f"{enable}; inc rbx; inc rbx; hlt", {0x41: "mov al, 1; out 0xf4, al"})
        rig.machine.inject_interrupt(0x41)
        pieces = [rig.run(2) for _ in range(6)]
        assert "debug exit" in [stop.kind for stop in pieces] and rig["rbx"] == 0


def test_the_shadow_of_mov_ss_holds_an_interrupt_off(guest: Guest) -> None:
    rig = guest("sti; nop; mov eax, 0x10; mov ss, ax; inc rbx; inc rbx; hlt", {0x41: "mov al, 1; out 0xf4, al"})
    rig.machine.run(4)
    rig.machine.inject_interrupt(0x41)
    rig.run()
    assert rig["rbx"] == 1


def test_an_interrupt_lands_at_every_instruction_in_turn(guest: Guest) -> None:
    rig = guest(PIC.format(0xFD, 0xFF) + "sti; nop; " + "inc rbx; push rbx; pop rcx; " * 10 + "hlt",
                {0x21: "push rax; mov al, 0x20; out 0x20, al; pop rax; inc r8; iretq"})
    while rig.machine.memory[rig["rip"]] != 0xFB:
        rig.run(1)
    rig.run(2)
    start, now = rig.machine.snapshot(), rig.machine.instructions
    landed = []
    for offset in range(30):
        rig.machine.restore(start)
        rig.machine.interrupt_at(now + offset, 1)
        rig.run(offset)
        landed.append(frame(rig, rig["rsp"])["rip"])
        rig.run(40)
        assert (rig["r8"], rig["rbx"], rig["rcx"]) == (1, 10, 10)
    assert len(set(landed)) == 30 and landed == sorted(landed)


def test_hlt_brings_the_next_tick_forward(guest: Guest) -> None:
    rig = guest(PIC.format(0xFE, 0xFF) + TIMER.format(0, 0) + "l: sti; hlt; cmp r8, 3; jb l; mov al, 9; out 0xf4, al",
                {0x20: TICK})
    before = rig.machine.instructions
    stop = rig.run(None)
    assert stop.status == 9 and rig["r8"] == 3 and stop.instructions - before < 100


def test_a_halt_that_nothing_ends_says_so(guest: Guest) -> None:
    for code, kind in (("cli; hlt", "halted with interrupts off"), ("sti; hlt", "halted with no interrupt to come")):
        rig = guest(code)
        stop = rig.run(None)
        assert stop.kind == kind and str(stop) == f"{kind} at {CODE + 2:#x}"
        assert rig.run(None).kind == kind
    rig.machine.inject_interrupt(0x41)
    assert rig.run(None).kind == "triple fault"


def test_an_interrupt_in_a_repeated_string_instruction_resumes_it(guest: Guest) -> None:
    rig = guest("sti; mov ecx, 1000; mov edi, 0x200000; mov al, 7; rep stosb; mov al, 1; out 0xf4, al",
                {0x41: "inc r8; iretq"})
    rig.run(400)
    rig.machine.inject_interrupt(0x41)
    assert rig.run().status == 1 and rig["r8"] == 1
    assert rig.machine.memory[0x200000:0x200000 + 1001] == b"\x07" * 1000 + b"\0"


def test_the_serial_port_interrupts_for_what_it_receives(guest: Guest) -> None:
    rig = guest(PIC.format(0xEF, 0xFF) + "mov dx, 0x3fc; mov al, 8; out dx, al; mov dx, 0x3f9; mov al, 1; out dx, al;"
                "l: sti; hlt; jmp l",
                {0x24: "mov dx, 0x3f8; in al, dx; out dx, al; mov al, 0x20; out 0x20, al; iretq"})
    assert rig.run().kind == "halted with no interrupt to come"
    rig.machine.serial.feed(b"echo")
    assert rig.run().kind == "halted with no interrupt to come" and rig.machine.serial.text == "echo"
