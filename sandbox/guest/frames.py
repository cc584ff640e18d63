"""The guest's call stack at any instruction: each frame found by the rules that were worked out from the code.

Where the rules do not know, the walk goes on along the chain of RBP, which every function of the kernel that calls
another begins with; at a ``ret``, and after a jump to nowhere, the return address is taken from the top of the stack
when a ``call`` lies before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..address import U64
from ..errors import GuestMemoryError
from ..layout import Readable
from ..toolchain.unwind import Rule, Unwind
from .symbols import Location, Symbols

MAX_FRAMES = 64
_RET = 0xC3


@dataclass(frozen=True)
class Frame:
    """One function, or piece of interrupted code, on the stack.

    ``rip`` is where it goes on, ``rsp`` and ``rbp`` (None: not known) are what it has in these registers. ``cfa`` is
    what RSP is when the frame is gone, in its caller; ``return_slot`` is the address at which RIP of the caller lies,
    None when it lies in a register, or there is no caller. ``location`` is that of the call in a caller, else that of
    the next instruction. ``interrupted``: RIP is not behind a call, as of the innermost frame and of interrupted code.
    """

    rip: int
    rsp: int
    rbp: int | None
    cfa: int | None
    return_slot: int | None
    location: Location
    interrupted: bool

    def __str__(self) -> str:
        return str(self.location)


def frames(registers: Mapping[str, int], memory: Readable, symbols: Symbols, unwind: Unwind, *,
           returned: bool = False, limit: int = MAX_FRAMES) -> list[Frame]:
    """The frames of a guest that stands at ``registers``, innermost first, at least one and at most ``limit``.

    The walk ends at code that nobody called, at a call from Python, and where a return address is not in any text.
    ``returned``: RIP is a return address already, as it is in the record of a panic.
    """
    walk = _Walk(memory, symbols, unwind)
    found: list[Frame] = []
    known: dict[str, int] | None = dict(registers)
    interrupted = not returned
    while known is not None and len(found) < limit:
        frame, known, interrupted = walk.frame(known, interrupted)
        found.append(frame)
    return found


@dataclass(frozen=True)
class _Caller:
    """How a frame is left: its CFA, where the return address is, and what is known of the caller's registers."""

    cfa: int
    return_slot: int | None
    registers: dict[str, int]
    interrupted: bool


class _Walk:
    def __init__(self, memory: Readable, symbols: Symbols, unwind: Unwind) -> None:
        self._memory = memory
        self._symbols = symbols
        self._unwind = unwind

    def frame(self, known: Mapping[str, int], interrupted: bool) -> tuple[Frame, dict[str, int] | None, bool]:
        """The frame of code that stands so, the registers of its caller (None: there is none), and whether that was
        interrupted."""
        rip = known["rip"]
        caller = self._caller(known, rip if interrupted else rip - 1)
        frame = Frame(rip, known["rsp"], known.get("rbp"), caller.cfa if caller else None,
                      caller.return_slot if caller else None, self._locate(rip, interrupted), interrupted)
        if caller is None or not self._goes_on(caller):
            return frame, None, False
        return frame, caller.registers, caller.interrupted

    def _goes_on(self, caller: _Caller) -> bool:
        rip = caller.registers.get("rip", 0)
        return rip != self._symbols.get("call_return") and self._symbols.in_text(rip if caller.interrupted else rip - 1)

    def _locate(self, rip: int, interrupted: bool) -> Location:
        """In a caller, the place behind the call with the line of the call itself."""
        if interrupted:
            return self._symbols.locate(rip)
        call = self._symbols.locate(rip - 1)
        return Location(call.address + 1, call.symbol, call.offset + (1 if call.symbol else 0), call.source)

    def _caller(self, known: Mapping[str, int], at: int) -> _Caller | None:
        rule = self._unwind.rule(at)
        if rule is not None and rule.outermost:
            return None
        found = None if rule is None else self._by_rule(rule, known)
        if rule is None and (not self._symbols.in_text(at) or (self._word(at) or 0) & 0xFF == _RET):
            found = self._from_top(known)
        return found or self._by_chain(known)

    def _by_rule(self, rule: Rule, known: Mapping[str, int]) -> _Caller | None:
        base = known.get(rule.cfa_register)
        if base is None:
            return None
        cfa = base + rule.cfa_offset & U64
        if cfa <= known["rsp"] and not rule.interrupt:       # a frame lies above what its function has pushed
            return None
        found: dict[str, int | None] = {**known, "rip": None, "rsp": cfa, **dict.fromkeys(rule.lost)}
        found |= {name: known.get(holder) for name, holder in rule.held.items()}
        found |= {name: self._word(cfa + offset & U64) for name, offset in rule.saved.items()}
        registers = {name: value for name, value in found.items() if value is not None}
        if "rsp" not in registers:
            return None
        slot = rule.saved.get("rip")
        return _Caller(registers["rsp"], None if slot is None else cfa + slot & U64, registers, rule.interrupt)

    def _from_top(self, known: Mapping[str, int]) -> _Caller | None:
        """At a return, or after a jump to where no code is: if that was a call, its return address is on top."""
        rsp = known["rsp"]
        address = self._word(rsp)
        if address is None or not (address == self._symbols.get("call_return") or self._follows_call(address)):
            return None
        return _Caller(rsp + 8, rsp, {**known, "rip": address, "rsp": rsp + 8}, False)

    def _by_chain(self, known: Mapping[str, int]) -> _Caller | None:
        """The frame that RBP points to; frames lie higher the older they are, and anything else is no chain."""
        rbp = known.get("rbp")
        if rbp is None or rbp < known["rsp"]:
            return None
        caller, address = self._word(rbp), self._word(rbp + 8)
        if caller is None or not address:
            return None
        interrupted = not self._follows_call(address)
        return _Caller(rbp + 16, rbp + 8, {"rip": address, "rsp": rbp + 16, "rbp": caller}, interrupted)

    def _follows_call(self, address: int) -> bool:
        """Whether a ``call`` ends at ``address``; where none does, an interrupt came between two instructions."""
        if not self._symbols.in_text(address) or not self._symbols.in_text(address - 7):
            return False
        try:
            before = self._memory.read(address - 7, 7)
        except GuestMemoryError:                 # the text was unmapped
            return False
        direct = before[2] == 0xE8
        indirect = any(before[7 - size] == 0xFF and before[8 - size] >> 3 & 7 == 2 for size in (2, 3, 6, 7))
        return direct or indirect

    def _word(self, address: int) -> int | None:
        try:
            return int.from_bytes(self._memory.read(address, 8), "little")
        except GuestMemoryError:
            return None
