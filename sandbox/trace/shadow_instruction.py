"""The instruction at which an access was caught: its text, its line, and the memory that its operands name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..address import U64
from ..errors import GuestMemoryError
from ..guest.symbols import Location, Symbols
from ..layout import Writable
from ..toolchain.disassembler import MAX_INSTRUCTION, Decoded, DecodedMemory, Disassembler

STRING_REGISTERS = ("rsi", "rdi")
_LOW_NAMES = {f"e{name}": f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")} | {
    f"r{number}d": f"r{number}" for number in range(8, 16)}


@dataclass(frozen=True)
class Seen:
    """An instruction with its surroundings. ``addresses`` are the virtual ones that its operands may name, the
    explicit one first; ``bases`` the values of the registers that point into memory."""

    address: int
    text: str
    location: Location
    addresses: tuple[int, ...]
    bases: tuple[int, ...]


class Examiner:
    """Decodes single instructions of a guest. ``gs_base`` gives the base of the one segment that has one."""

    def __init__(self, memory: Writable, symbols: Symbols, gs_base: Callable[[], int]) -> None:
        self._memory = memory
        self._symbols = symbols
        self._gs_base = gs_base
        self._disassembler = Disassembler()

    def at(self, rip: int, registers: Mapping[str, int]) -> Seen:
        """The instruction at ``rip``, with the values of registers before it."""
        code = self._code(rip)
        image = self._symbols.image_at(rip)
        shown = self._disassembler.disassemble(code, rip, None if image is None else image.symbolize)
        decoded = self._disassembler.decode(code, rip) if code else None
        explicit, bases = operand_addresses(decoded, registers, {"gs": self._gs_base()})
        implied = [registers[name] for name in STRING_REGISTERS] + [registers["rsp"], registers["rsp"] - 8 & U64]
        return Seen(rip, shown.text, self._symbols.locate(rip), (*explicit, *implied), tuple(bases))

    def _code(self, rip: int) -> bytes:
        for size in (MAX_INSTRUCTION, 4096 - (rip & 4095)):
            try:
                return self._memory.read(rip, min(size, MAX_INSTRUCTION))
            except GuestMemoryError:
                continue
        return b""


def operand_addresses(
    decoded: Decoded | None, registers: Mapping[str, int], segments: Mapping[str, int]
) -> tuple[list[int], list[int]]:
    """The virtual addresses that an instruction's operands name, and the registers that point into memory there.
    ``registers`` are those before it, ``segments`` the bases of the segments that have one."""
    addresses, bases = [], []
    if decoded is not None:
        values = {**registers, "rip": registers["rip"] + decoded.size}
        for operand in decoded.operands:
            if isinstance(operand, DecodedMemory):
                base, index = _value(values, operand.base), _value(values, operand.index)
                segment = segments.get(operand.segment, 0)
                addresses.append((segment + base + index * operand.scale + operand.displacement) & U64)
                bases += [base] if operand.base and operand.base != "rip" else []
    return addresses, bases


def _value(values: Mapping[str, int], name: str) -> int:
    """A register by the name that an operand has for it; 32-bit names in an address are those of its low half."""
    if name in _LOW_NAMES:
        return values[_LOW_NAMES[name]] & 0xFFFF_FFFF
    return values.get(name, 0)
