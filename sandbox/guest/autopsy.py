"""What happened to a guest that stopped where it should not have: from its own last words to a typed error.

``panic`` fills ``panic_info`` before it prints anything, so the record is read from memory, never from the console.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..abi import PANIC_VECTOR, panic_record, pt_regs
from ..errors import GuestFault, GuestMemoryError, GuestPanic
from ..layout import Writable
from ..machine.stop import Stop, StopKind
from ..x86 import REGISTERS
from .frames import frames
from .symbols import Symbols

PAGE_FAULT = 14
DOUBLE_FAULT = 8
_HLT = 0xF4


class Autopsy:
    """Reads a stopped guest: its panic record and its frames."""

    def __init__(self, memory: Writable, symbols: Symbols) -> None:
        self.memory = memory
        self.symbols = symbols

    def panicked(self) -> bool:
        """Whether the kernel has given up, as far as it can still be read."""
        try:
            return bool(self._record().active)
        except GuestMemoryError:
            return False

    def panic(self, instruction: int) -> GuestPanic | GuestFault:
        """The error for a kernel that has panicked, with the registers at the fault or at the call of ``panic``."""
        record = self._record()
        registers = self._saved_registers(record.regs)
        frames = self.backtrace(registers, returned=record.vector == PANIC_VECTOR)
        if record.vector == PANIC_VECTOR:
            return GuestPanic(record.message, registers=registers, backtrace=frames, instruction=instruction)
        at = frames[0] if frames else f"0x{registers.get('rip', 0):016x}"
        error_code = pt_regs(self.memory, record.regs).error_code if registers else 0
        address = record.address_ if record.vector in (PAGE_FAULT, DOUBLE_FAULT) else registers.get("rip", 0)
        return GuestFault(f"{record.message}, at {at}", vector=record.vector, error_code=error_code, address=address,
                          registers=registers, backtrace=frames, instruction=instruction)

    def backtrace(self, registers: Mapping[str, int], returned: bool = False) -> tuple[str, ...]:
        """One ``function+0x12 (file:line)`` for each frame, innermost first.

        ``returned``: RIP is already a return address, so the line is that of the call before it.
        """
        if "rip" not in registers:
            return ()
        found = frames(registers, self.memory, self.symbols, self.symbols.unwind, returned=returned)
        return tuple(str(frame) for frame in found)

    def describe(self, stop: Stop) -> str:
        """A stop and its place in words; of a processor that waits, the place of the ``hlt``, not of what follows."""
        if self._waits(stop):
            return f"{stop.kind} at {self.symbols.locate(stop.rip - 1)}"
        return f"{stop}: {self.symbols.locate(stop.rip)}"

    def frames_of(self, stop: Stop, registers: Mapping[str, int]) -> tuple[str, ...]:
        """The backtrace of a stop, with that place as the innermost."""
        return self.backtrace({**registers, "rip": stop.rip - 1} if self._waits(stop) else registers)

    def _waits(self, stop: Stop) -> bool:
        return stop.kind in (StopKind.HALTED, StopKind.IDLE) and self._u8(stop.rip - 1) == _HLT

    def _record(self) -> panic_record:
        return panic_record(self.memory, self.symbols["panic_info"])

    def _saved_registers(self, address: int) -> dict[str, int]:
        try:
            saved = dict(pt_regs(self.memory, address))
        except GuestMemoryError:                 # a panic so early, or so damaged, that no frame was saved
            return {}
        return {name: saved[name] for name in REGISTERS}

    def _u8(self, address: int) -> int:
        try:
            return self.memory.read(address, 1)[0]
        except GuestMemoryError:
            return 0
