"""One moment of a run in words: where the guest is about to be, and what it is about to access."""

from __future__ import annotations

from dataclasses import dataclass

from ..guest.symbols import Symbols


@dataclass(frozen=True)
class Moment:
    """The state right before an instruction starts.

    ``instruction`` is the count of starts before it, ``rip`` the instruction that is about to be the next one,
    ``location`` its place (``kmalloc+0x12 (kernel_asm/kmalloc.asm:31)``), ``line`` the ``file:line`` of it, "" where
    there is none.
    """

    instruction: int
    rip: int
    location: str
    line: str

    def __str__(self) -> str:
        return f"@{self.instruction:,} {self.location}"


@dataclass(frozen=True)
class Access(Moment):
    """An access to memory, at the moment before it happens.

    ``kind`` is ``read`` or ``write``; ``address`` the virtual address of its first byte, ``physical`` the physical
    one; ``size`` in bytes; ``value`` what was read or written, an unsigned number of that size; ``by`` is
    ``instruction``, ``processor`` (the frame of an exception or interrupt) or ``python``.
    """

    kind: str
    address: int
    physical: int
    size: int
    value: int
    by: str

    def __str__(self) -> str:
        if self.by == "python":
            return f"@{self.instruction:,} Python writes {self._what}"
        if self.by == "processor":
            return f"@{self.instruction:,} the processor writes {self._what} for an interrupt at {self.location}"
        return f"@{self.instruction:,} {self.location} {self.kind}s {self._what}"

    @property
    def _what(self) -> str:
        size = f"{self.size} byte{'' if self.size == 1 else 's'}"
        what = f"0x{self.value:0{2 * self.size}x} ({size})" if self.size <= 8 else size
        return f"{what} at 0x{self.address:016x}"


def moment(symbols: Symbols, instruction: int, rip: int) -> Moment:
    """The moment at a count, with ``rip`` next."""
    location = symbols.locate(rip)
    return Moment(instruction, rip, str(location), str(location.source) if location.source else "")
