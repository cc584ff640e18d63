"""``.debug_frame``: the rules of :mod:`sandbox.toolchain.unwind` as DWARF's call frame information (DWARF 4, 6.4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from .dwarf_encoding import REGISTERS, VERSION, sleb, text, uleb, unit
from .unwind import CALLED, INTERRUPTED, Rule

_CIE_ID = 0xFFFF_FFFF
_DATA_ALIGNMENT = -8
_ADDRESS = 8
_AUGMENTATION = {False: ("", b""), True: ("zS", b"\0")}     # S: the caller did not call, it was interrupted
# Call frame instructions (7.23); the first two have an operand in their low 6 bits.
_ADVANCE, _OFFSET = 0x40, 0x80
_ADVANCE1, _ADVANCE2, _ADVANCE4 = 0x02, 0x03, 0x04
_UNDEFINED, _SAME_VALUE, _REGISTER, _DEF_CFA, _OFFSET_SIGNED = 0x07, 0x08, 0x09, 0x0C, 0x11


class Ruled(NamedTuple):
    """An instruction, and its rule."""

    address: int
    size: int
    rule: Rule | None


_Certain: TypeAlias = "tuple[int, int, Rule]"


def debug_frame(code: Iterable[Ruled], labels: Collection[int] = ()) -> bytes:
    """The section for instructions in ascending order, with an entry (FDE) of its own from each label on.

    Code without a rule has no entry, which leaves it to the debugger's own guess.
    """
    out = bytearray()
    cies = {}
    for initial in (CALLED, INTERRUPTED):
        cies[initial.interrupt] = len(out)
        augmentation, its_data = _AUGMENTATION[initial.interrupt]
        out += _padded(_CIE_ID.to_bytes(4, "little") + bytes([VERSION]) + text(augmentation) + bytes([_ADDRESS, 0])
                       + uleb(1) + sleb(_DATA_ALIGNMENT) + uleb(REGISTERS["rip"]) + its_data + b"".join(_row(initial)))
    for group in _groups(code, labels):
        (start, _, rule), (last, size, _) = group[0], group[-1]
        out += _padded(cies[rule.interrupt].to_bytes(4, "little") + start.to_bytes(_ADDRESS, "little")
                       + (last + size - start).to_bytes(_ADDRESS, "little") + _AUGMENTATION[rule.interrupt][1]
                       + _program(group))
    return bytes(out)


def _groups(code: Iterable[Ruled], labels: Collection[int]) -> Iterator[list[_Certain]]:
    """Runs of instructions, one behind the other, with rules of one kind."""
    group: list[_Certain] = []
    for address, size, rule in code:
        if group:
            (before, length, other) = group[-1]
            if (rule is None or rule.interrupt != other.interrupt or address != before + length or address in labels
                    or not _writable(rule)):
                yield group
                group = []
        if rule is not None and _writable(rule):
            group.append((address, size, rule))
    if group:
        yield group


def _writable(rule: Rule) -> bool:
    """Whether its CFA and its return address can be written: their offsets are no odd or negative numbers."""
    return rule.cfa_offset >= 0 and rule.saved.get("rip", 0) % _DATA_ALIGNMENT == 0


def _program(group: list[_Certain]) -> bytes:
    """The instructions that lead from the rule of an entry to that of each place."""
    out = bytearray()
    at, rule = group[0][0], INTERRUPTED if group[0][2].interrupt else CALLED
    row = _row(rule)
    for address, _, now in group:
        if now != rule:
            before, row, rule = row, _row(now), now
            out += _advance(address - at) + b"".join(how for how, old in zip(row, before, strict=True) if how != old)
            at = address
    return bytes(out)


def _advance(distance: int) -> bytes:
    if distance < 0x40:
        return bytes([_ADVANCE | distance]) if distance else b""
    if distance < 0x100:
        return bytes([_ADVANCE1, distance])
    if distance < 0x10000:
        return bytes([_ADVANCE2]) + distance.to_bytes(2, "little")
    return bytes([_ADVANCE4]) + distance.to_bytes(4, "little")


def _row(rule: Rule) -> list[bytes]:
    """An instruction for the CFA, and one for each register."""
    cfa = bytes([_DEF_CFA]) + uleb(REGISTERS[rule.cfa_register]) + uleb(rule.cfa_offset)
    return [cfa, *(_how(rule, name, number) for name, number in REGISTERS.items())]


def _how(rule: Rule, name: str, number: int) -> bytes:
    """How a register is to be found."""
    offset = rule.saved.get(name)
    if offset is not None and offset % _DATA_ALIGNMENT == 0:
        factored = offset // _DATA_ALIGNMENT
        if factored >= 0:
            return bytes([_OFFSET | number]) + uleb(factored)
        return bytes([_OFFSET_SIGNED]) + uleb(number) + sleb(factored)
    if name in rule.held:
        return bytes([_REGISTER]) + uleb(number) + uleb(REGISTERS[rule.held[name]])
    if offset is not None or name in rule.lost:
        return bytes([_UNDEFINED]) + uleb(number)
    if name == "rsp" or (name == "rflags" and not rule.interrupt):     # the CFA itself; what nobody asks a call about
        return b""
    return bytes([_SAME_VALUE]) + uleb(number)


def _padded(body: bytes) -> bytes:
    """An entry, filled up with instructions that do nothing (0) to a multiple of an address."""
    return unit(body + bytes(-(len(body) + 4) % _ADDRESS))
