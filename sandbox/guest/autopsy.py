"""What happened to a guest that stopped where it should not have: from its own last words to a typed error.

``panic`` fills ``panic_info`` before it prints anything, so the record is read from memory, never from the console.
The frames are those of the RBP chain; where the processor stands before ``push rbp``, behind ``pop rbp`` or in a
function without a frame, the return address is on top of the stack. It is believed only when a ``call`` lies before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from ..abi import KERNEL_CS, PANIC_VECTOR, panic_record, pt_regs
from ..errors import GuestFault, GuestMemoryError, GuestPanic
from ..layout import Writable
from ..machine.stop import Stop, StopKind
from ..x86 import REGISTERS
from .symbols import Location, Symbols

MAX_FRAMES = 64
PAGE_FAULT = 14
DOUBLE_FAULT = 8
_PUSH_RBP = 0x55
_RET = 0xC3
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
        innermost = self._locate(registers["rip"], returned)
        callers = self._callers(registers, innermost)
        return (str(innermost), *(str(self._locate(address, self._follows_call(address))) for address in callers))

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

    def _locate(self, address: int, returned: bool) -> Location:
        location = self.symbols.locate(address - 1 if returned else address)
        if not returned:
            return location
        shift = 1 if location.symbol else 0
        return Location(location.address + 1, location.symbol, location.offset + shift, location.source)

    def _callers(self, registers: Mapping[str, int], innermost: Location) -> Iterator[int]:
        """The return addresses, innermost first, up to the call from Python or to the end of the chain."""
        rsp, rbp = registers["rsp"], registers["rbp"]
        on_top = self._return_address_on_top(registers["rip"], rsp, innermost)
        frames = self._chain(rbp)
        for count, address in enumerate((on_top, *frames) if on_top else frames):
            if count == MAX_FRAMES or address == self.symbols["call_return"]:
                return
            yield address

    def _chain(self, rbp: int) -> Iterator[int]:
        while True:
            caller, address = self._u64(rbp), self._u64(rbp + 8)
            if not address or not self.symbols.in_text(address):
                return
            yield address
            if caller <= rbp:                    # frames lie higher the older they are: anything else is no chain
                return
            rbp = caller

    def _return_address_on_top(self, rip: int, rsp: int, innermost: Location) -> int:
        """The return address that lies on top of the stack because this function has no frame now; else 0."""
        if innermost.symbol == "trap_stubs":
            return self._interrupted(rsp)
        first = self._u8(rip - innermost.offset) if innermost.symbol else 0
        if first == _PUSH_RBP and innermost.offset == 1:
            return self._believed(self._u64(rsp + 8))
        if first != _PUSH_RBP or innermost.offset == 0 or self._u8(rip) == _RET:
            return self._believed(self._u64(rsp))
        return 0

    def _interrupted(self, rsp: int) -> int:
        """The RIP that the processor pushed below CS, at most a vector and an error code above ``rsp``."""
        words = [self._u64(rsp + offset) for offset in (0, 8, 16, 24)]
        return next((rip for rip, cs in pairwise(words) if cs == KERNEL_CS and self.symbols.in_text(rip)), 0)

    def _believed(self, address: int) -> int:
        """``address`` when it can be a return address, else 0."""
        return address if address == self.symbols["call_return"] or self._follows_call(address) else 0

    def _follows_call(self, address: int) -> bool:
        """Whether a ``call`` ends at ``address``; where none does, an interrupt came between two instructions."""
        if not self.symbols.in_text(address) or not self.symbols.in_text(address - 7):
            return False
        try:
            before = self.memory.read(address - 7, 7)
        except GuestMemoryError:                 # the text was unmapped
            return False
        direct = before[2] == 0xE8
        indirect = any(before[7 - size] == 0xFF and before[8 - size] >> 3 & 7 == 2 for size in (2, 3, 6, 7))
        return direct or indirect

    def _u64(self, address: int) -> int:
        try:
            return int.from_bytes(self.memory.read(address, 8), "little")
        except GuestMemoryError:
            return 0

    def _u8(self, address: int) -> int:
        try:
            return self.memory.read(address, 1)[0]
        except GuestMemoryError:
            return 0
