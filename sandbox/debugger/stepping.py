"""Stepping as a reader of the code means it: over a call, over an interrupt, over a whole ``rep``, out of a function;
and all of it backwards.

Forwards the goal is a place with a stack pointer: where the call comes back to, where the interrupted code goes on.
Backwards it is who wrote the return address: a ``call``, or the processor when it delivered an interrupt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import GuestMemoryError, UsageError
from ..guest.frames import Frame, frames
from ..guest.registers import Registers
from ..guest.symbols import Symbols
from ..guest.travel import Travel
from ..layout import Readable
from ..toolchain.disassembler import MAX_INSTRUCTION, Disassembler, Instruction
from .search import Found, Search, Watch, pieces

_CALL_SIZES = range(2, 8)
_IRET_FRAME = 40
"""Bytes of what the processor pushes in 64-bit mode: RIP CS RFLAGS RSP SS (Intel SDM volume 3, section 6.14.2)."""


@dataclass
class _Deliveries:
    """The interrupts and exceptions that the processor delivers meanwhile: RIP and RSP of the interrupted code."""

    interrupted: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, address: int, data: bytes, by_processor: bool) -> None:
        """A listener of RAM."""
        if by_processor and len(data) >= _IRET_FRAME:
            frame = data[-_IRET_FRAME:]
            self.interrupted.append((int.from_bytes(frame[:8], "little"), int.from_bytes(frame[24:32], "little")))


class Stepping:
    """Finds the moments to step to; ``go(t)`` takes the guest to the moment ``t``.

    Every method begins at the present moment, leaves the guest anywhere, and returns the moment that was meant.
    """

    def __init__(self, travel: Travel, search: Search, symbols: Symbols, memory: Readable, registers: Registers,
                 go: Callable[[int], None]) -> None:
        self._travel = travel
        self._machine = travel.machine
        self._search = search
        self._symbols = symbols
        self._memory = memory
        self._registers = registers
        self._go = go
        self._disassembler = Disassembler()
        self._rsp = travel.machine.cpu.register_reader(("rsp",))

    # -- forwards ---------------------------------------------------------------------------------------------
    def next(self) -> int:
        """The next instruction of this function: behind a call, a ``rep``, an interrupt; the end of the run where that
        does not come."""
        while True:
            instruction, rsp = self._instruction(), self._registers["rsp"]
            if instruction is not None and (instruction.mnemonic == "call" or instruction.mnemonic.startswith("rep")):
                return self._until(instruction.end, rsp)
            rip = self._registers["rip"]
            interrupted = self._step()
            if interrupted is None:
                return self._machine.instructions
            there = self._until(*interrupted)
            if interrupted[0] != rip:
                return there
            self._go(there)                              # a fault that was repaired: the instruction is still to come

    def finish(self) -> int:
        """Where the caller of this function goes on, or the interrupted code; the end of the run where it does not."""
        frame, caller = self._frames()
        if frame.return_slot is None:
            raise UsageError(f"nobody called {frame.location.symbol or frame.location}: there is no return to go to")
        if caller is None:
            return self._travel.entry_end
        return self._until(caller.rip, caller.rsp)

    def _step(self) -> tuple[int, int] | None:
        """Execute one instruction; RIP and RSP of what was interrupted behind it, None where nothing was."""
        deliveries, listeners = _Deliveries(), self._machine.memory.listeners
        listeners.append(deliveries)
        try:
            self._go(self._machine.instructions + 1)
        finally:
            listeners.remove(deliveries)
        return deliveries.interrupted[-1] if deliveries.interrupted else None

    def _until(self, rip: int, rsp: int) -> int:
        """The next moment at which ``rip`` is about to run with this stack or a shorter one."""
        found = self._search.forwards(self._travel.history.end, (rip,), (), wanted=lambda found: self._rsp()[0] >= rsp)
        return self._travel.history.end if found is None else found.instruction

    # -- backwards --------------------------------------------------------------------------------------------
    def reverse_next(self) -> int:
        """The last instruction of this function before the present one; before its first, that of the caller."""
        rip, rsp = self._registers["rip"], self._registers["rsp"]
        position = self._machine.instructions
        while True:
            self._go(position - 1)
            before = self._instruction()
            if before is None:
                return position - 1
            if before.mnemonic.startswith("iret"):
                delivered = self._written(self._registers["rsp"], position - 1, "processor")
                if delivered is None:
                    return position - 1
                position = delivered.instruction         # as it was right before the interrupt
                continue
            if before.mnemonic == "ret":
                call = self._call_before(rip, rsp, position - 1)
                return position - 1 if call is None else call
            if before.mnemonic.startswith("rep"):
                return self._first_turn(before.address, position)
            return position - 1

    def reverse_finish(self) -> int:
        """The call that entered this function, about to run; the instruction that was interrupted; or, of a function
        that Python called, its first."""
        frame, _ = self._frames()
        if frame.return_slot is None:
            raise UsageError(f"nobody called {frame.location.symbol or frame.location}: it has no call to go back to")
        found = self._written(frame.return_slot, self._machine.instructions)
        if found is None:
            return self._travel.history.first.machine.instructions
        return found.instruction - 1 if found.by == "processor" else found.instruction

    def _written(self, address: int, position: int, by: str = "") -> Found | None:
        """The last store to a word of the stack before a moment."""
        watched = pieces((Watch(address, 8),), lambda at: int(self._machine.paging.translate(at)))
        return self._search.backwards(position, (), watched, lambda found: not by or found.by == by)

    def _call_before(self, rip: int, rsp: int, position: int) -> int | None:
        """When the call that comes back to ``rip`` was about to run, the last time with this stack."""
        calls = [rip - size for size in _CALL_SIZES if self._is_call(rip - size, rip)]
        if not calls:
            return None
        found = self._search.backwards(position, calls, (), lambda found: self._rsp()[0] == rsp)
        return None if found is None else found.instruction

    def _first_turn(self, address: int, position: int) -> int:
        """When the last row of starts of one ``rep`` began."""
        last = -2

        def begins(found: Found) -> bool:
            nonlocal last
            last, before = found.instruction, last
            return found.instruction != before + 1

        found = self._search.backwards(position, (address,), (), begins)
        return position - 1 if found is None else found.instruction

    # -- the code ---------------------------------------------------------------------------------------------
    def _instruction(self) -> Instruction | None:
        return self._decoded(self._registers["rip"])

    def _is_call(self, address: int, end: int) -> bool:
        instruction = self._decoded(address)
        return instruction is not None and instruction.mnemonic == "call" and instruction.end == end

    def _decoded(self, address: int) -> Instruction | None:
        room = 4096 - address % 4096
        for size in {MAX_INSTRUCTION, min(room, MAX_INSTRUCTION)}:
            try:
                return self._disassembler.disassemble(self._memory.read(address, size), address)
            except GuestMemoryError:
                continue
        return None

    def _frames(self) -> tuple[Frame, Frame | None]:
        """The present function's frame, and that of its caller where it is one of the guest."""
        first, *more = frames(self._registers, self._memory, self._symbols, self._symbols.unwind, limit=2)
        return first, more[0] if more else None
