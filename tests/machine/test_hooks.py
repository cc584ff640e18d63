"""Hooks: where they fire, how they stop the machine, and that none of their exceptions is lost."""

from __future__ import annotations

import gc
import signal
import threading
import weakref
from collections.abc import Callable

import pytest

from sandbox.errors import EngineError, UsageError
from sandbox.machine import Machine
from sandbox.machine import filter as native
from sandbox.machine.calibration import calibrate
from tests.machine.rig import CODE, DATA, Rig

Guest = Callable[..., Rig]
LOOP = f"mov ebx, {DATA}; l: inc rax; mov [rbx], rax; mov rcx, [rbx]; jmp l"
INC, STORE, LOAD = CODE + 5, CODE + 8, CODE + 11


@pytest.mark.parametrize("filtered", [True, False])
def test_a_code_hook_fires_once_per_execution_in_any_slices(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, filtered: bool
) -> None:
    if not filtered:
        monkeypatch.setattr(native, "native_callbacks_work", lambda: False)
    rig = guest(LOOP)
    assert (rig.machine.cpu._filter is not None) is (filtered and native.native_callbacks_work())
    rig.run(10)
    seen: list[tuple[int, int]] = []
    start = rig.machine.instructions
    hook = rig.machine.cpu.hook_code([STORE, LOAD], lambda at: seen.append((at, rig.machine.instructions - start)))
    for length in (1, 2, 3, 4, 5, 6, 7, 8, 4):
        rig.run(length)
    # 1 + 4n starts: mov ebx, then loops of four; 10 are done, so the next is `mov [rbx]` at once.
    expected = [(STORE if index % 4 == 2 else LOAD, index - 10) for index in range(10, 50) if index % 4 in (2, 3)]
    assert seen == expected
    hook.remove()
    hook.remove()
    rig.run(100)
    assert seen == expected


def test_a_memory_hook_sees_physical_accesses_with_their_values(guest: Guest) -> None:
    rig = guest(f"mov ebx, {DATA + 0x4000}; mov dword ptr [rbx], 0x11223344; mov ax, [rbx + 1]; hlt")
    rig.machine.paging.map(DATA + 0x4000, 0x500000, 2)
    seen: list[tuple[str, int, int, int]] = []
    rig.machine.cpu.hook_memory(0x500000, 0x500010, lambda *access: seen.append(access), write=True, read_after=True)
    rig.run()
    assert seen == [("write", 0x500000, 4, 0x11223344), ("read after", 0x500001, 2, 0x2233)]


def test_stops_asked_for_in_hooks_are_exact_and_resume_where_they_were(guest: Guest) -> None:
    plain = guest(LOOP)
    plain.run(5000)
    rig = guest(LOOP)
    start, stops = rig.machine.instructions, []
    rig.machine.cpu.hook_code([LOAD], lambda at: rig.machine.request_stop("before the load"))
    rig.machine.cpu.hook_memory(DATA, DATA + 8, lambda *access: rig.machine.request_stop("after the store"), write=True)
    for _ in range(6):
        stop = rig.run()
        stops.append((stop.reason, stop.rip, stop.instructions - start))
    assert stops == [(reason, LOAD, 3 + 4 * turn) for turn in range(3)
                     for reason in ("after the store", "before the load")]
    while rig.machine.instructions < start + 5000:
        rig.run(start + 5000 - rig.machine.instructions)
    assert rig.machine.cpu.registers() == plain.machine.cpu.registers()
    assert rig.machine.memory.image() == plain.machine.memory.image()


@pytest.mark.parametrize("where", ["code", "memory", "port"])
def test_an_exception_in_a_hook_comes_out_of_run(guest: Guest, where: str) -> None:
    rig = guest(f"mov ebx, {DATA}; mov [rbx], rax; out 0xf4, al; nop; l: jmp l")

    def fail(*_: int) -> None:
        raise ZeroDivisionError(where)

    if where == "code":
        rig.machine.cpu.hook_code([CODE + 5], fail)
    elif where == "memory":
        rig.machine.cpu.hook_memory(DATA, DATA + 8, fail, write=True)
    else:
        rig.machine.debug_exit.write = fail  # type: ignore[method-assign]
    before = rig.machine.instructions
    with pytest.raises(ZeroDivisionError, match=where):
        rig.run()
    assert rig.machine.instructions - before == {"code": 1, "memory": 2, "port": 3}[where]


def test_breakpoints_stop_before_but_not_on_the_first_instruction(guest: Guest) -> None:
    rig = guest(LOOP)
    rig.run(1)
    for turn in range(3):
        stop = rig.run(until=[INC])
        assert stop.kind == "breakpoint" and stop.rip == INC and rig["rax"] == turn + 1
    assert rig.run(50).kind == "instruction limit"


def test_registers_are_the_same_in_a_hook_and_after_a_stop(guest: Guest) -> None:
    rig = guest(LOOP)
    reader = rig.machine.cpu.register_reader(("rip", "rax", "rbx"))
    inside: list[object] = []
    rig.machine.cpu.hook_code([STORE], lambda at: inside.append((reader(), rig.machine.cpu.registers(), rig["cr3"])))
    rig.run(3)
    assert (rig["rip"] == LOAD and not inside) or inside[0] == ((STORE, 1, DATA), inside[0][1], rig["cr3"])  # type: ignore[index]
    other = guest(LOOP)
    other.run(2)
    assert inside[0][1] == other.machine.cpu.registers()  # type: ignore[index]


def test_a_hook_cannot_run_the_machine(guest: Guest) -> None:
    rig = guest(LOOP)
    rig.machine.cpu.hook_code([INC], lambda at: rig.machine.run(1))
    with pytest.raises(UsageError):
        rig.run(10)


def test_ctrl_c_stops_a_guest_that_loops(guest: Guest) -> None:
    rig = guest("l: jmp l")
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    stop = rig.run(None)
    timer.join()
    assert stop.kind == "interrupted" and signal.getsignal(signal.SIGINT) is before
    assert rig.run(10).kind == "instruction limit"


def test_a_hundred_hooks_cost_no_more_than_one(guest: Guest) -> None:
    """One engine hook serves all addresses: the engine itself would ask each of them at every instruction."""
    rig = guest(LOOP)
    rig.machine.cpu.hook_code(range(0x600000, 0x600000 + 1000), lambda at: None)
    assert len(rig.machine.cpu._engine._callbacks) < 20 or not native.native_callbacks_work()


def test_a_closed_machine_leaves_no_cycle_behind() -> None:
    gc.collect()
    gc.disable()
    try:
        machine = Machine(2 << 20)
        gone = weakref.ref(machine), weakref.ref(machine.cpu)
        machine.close()
        del machine
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_an_unknown_layout_of_the_engine_is_refused() -> None:
    class Strange:
        """An engine that keeps nothing where anyone would look."""

        def write_memory(self, address: int, data: bytes) -> None: ...
        def write_register(self, name: str, value: int) -> None: ...
        def write_table(self, name: str, base: int, limit: int) -> None: ...
        def run(self, address: int, count: int) -> int | None: ...
        def context(self) -> bytes:
            return bytes(5000)

        def words(self, count: int) -> tuple[int, ...]:
            return (0,) * count

    with pytest.raises(EngineError):
        calibrate(Strange())
