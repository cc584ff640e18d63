"""Snapshots: everything, into any machine, and the same future from each."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from sandbox.machine import Machine
from tests.machine.rig import DATA, Rig
from tests.machine.test_interrupts import PIC, TICK, TIMER

Guest = Callable[..., Rig]
BUSY = (PIC.format(0xFE, 0xFF) + TIMER.format(30, 0)
        + "mov rax, cr4; or eax, 0x600; mov cr4, rax;"
        + f"mov edi, {DATA}; sti; l: inc rbx; movq xmm0, rbx; paddq xmm1, xmm0; movq [rdi], xmm1; add edi, 8;"
          "and edi, 0x20ffff; mov al, bl; out 0xe9, al; mov dx, 0x3f8; out dx, al; jmp l")


def state(machine: Machine) -> tuple[object, ...]:
    """Everything that a future can depend on."""
    machine.cpu.pull()
    assert machine.instructions > 6000 and machine.cpu["rbx"] > 100
    return (machine.cpu.registers(), machine.memory.image(), machine.instructions, machine.serial.output,
            [device.state() for device in machine.devices], machine.cpu["cr2"], machine.cpu["efer"])


def test_a_restored_machine_repeats_its_future_exactly(guest: Guest) -> None:
    rig = guest(BUSY, {0x20: TICK})
    rig.run(5003)
    snapshot = rig.machine.snapshot()
    rig.run(7000)
    future = state(rig.machine)
    rig.machine.restore(snapshot)
    assert rig.machine.instructions == snapshot.instructions
    rig.run(3000)
    rig.run(4000)
    assert state(rig.machine) == future


def test_a_snapshot_goes_into_another_machine_even_by_pickle(guest: Guest) -> None:
    rig = guest(BUSY, {0x20: TICK})
    rig.run(5003)
    snapshot = pickle.loads(pickle.dumps(rig.machine.snapshot()))
    rig.run(7000)
    with Machine(len(rig.machine.memory)) as other:
        other.restore(snapshot)
        other.run(7000)
        assert state(other) == state(rig.machine)


def test_a_halted_machine_is_halted_after_restore(guest: Guest) -> None:
    rig = guest("hlt; nop; nop")
    rig.run()
    snapshot = rig.machine.snapshot()
    with Machine(len(rig.machine.memory)) as other:
        other.restore(snapshot)
        assert other.run(5).kind == "halted with interrupts off"


def test_restore_forgets_code_that_is_different_there(guest: Guest) -> None:
    rig = guest("inc rax; hlt")
    snapshot = rig.machine.snapshot()
    rig.run()
    rig.machine.memory.write(0x100000, b"\x48\xff\xc3")  # inc rbx
    rig.machine.cpu["rip"] = 0x100000
    rig.machine.restore(snapshot)
    rig.run()
    assert (rig["rax"], rig["rbx"]) == (1, 0)


def test_code_written_by_python_is_executed_as_written(guest: Guest) -> None:
    rig = guest("l: inc rax; jmp l")
    rig.run(10)
    rig.machine.memory.write(0x100000, b"\x48\xff\xc3")  # inc rbx
    rig.run(10)
    assert (rig["rax"], rig["rbx"]) == (5, 5)


def test_two_machines_end_with_the_same_accessed_and_dirty_bits(guest: Guest) -> None:
    images = []
    for pieces in ((6000,), (1,) * 500 + (5500,), (1999, 2001, 2000)):
        rig = guest(BUSY, {0x20: TICK})
        for piece in pieces:
            rig.run(piece)
        images.append(rig.machine.memory.image())
    assert images[0] == images[1] == images[2]
