"""Debugging information entries (DIEs) and the two sections that hold them: ``.debug_info`` and ``.debug_abbrev``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from .dwarf_encoding import VERSION, At, Form, Tag, text, uleb, unit

Attribute: TypeAlias = "tuple[At, Form, bytes | Entry]"
_UNIT_HEADER = 11                                         # length, version, offset of the abbreviations, address size


@dataclass
class Entry:
    """One entry: its attributes, of which a reference names another entry, and what it contains."""

    tag: Tag
    attributes: list[Attribute]
    children: list[Entry] = field(default_factory=list)
    offset: int = field(default=0, init=False)


def named(name: str) -> Attribute:
    """DW_AT_name."""
    return At.NAME, Form.STRING, text(name)


def number(attribute: At, value: int) -> Attribute:
    """An unsigned number."""
    return attribute, Form.UDATA, uleb(value)


def address(attribute: At, value: int) -> Attribute:
    """An address in the guest."""
    return attribute, Form.ADDR, value.to_bytes(8, "little")


def expression(attribute: At, code: bytes) -> Attribute:
    """A location expression (2.5)."""
    return attribute, Form.EXPRLOC, uleb(len(code)) + code


def typed(entry: Entry) -> Attribute:
    """DW_AT_type, an entry of any unit."""
    return At.TYPE, Form.REF_ADDR, entry


def flag(attribute: At) -> Attribute:
    """An attribute that says all by being there."""
    return attribute, Form.FLAG_PRESENT, b""


def offset(attribute: At, value: int) -> Attribute:
    """An offset into another section."""
    return attribute, Form.SEC_OFFSET, value.to_bytes(4, "little")


def sections(units: Sequence[Entry]) -> tuple[bytes, bytes, list[int]]:
    """``.debug_info`` and ``.debug_abbrev`` of compile units, and at which offset in the first each unit begins."""
    codes: dict[_Shape, int] = {}
    starts, end = [], 0
    for root in units:
        starts.append(end)
        end = _place(root, end + _UNIT_HEADER, codes)
    info = bytearray()
    for root in units:
        body = bytearray()
        _write(root, codes, body)
        info += unit(VERSION.to_bytes(2, "little") + bytes(4) + bytes([8]) + body)
    return bytes(info), _abbreviations(codes), starts


class _Shape(NamedTuple):
    """What an abbreviation says of the entries that use it."""

    tag: Tag
    has_children: bool
    attributes: tuple[tuple[At, Form], ...]


def _shape(entry: Entry) -> _Shape:
    return _Shape(entry.tag, bool(entry.children), tuple((attribute, form) for attribute, form, _ in entry.attributes))


def _place(entry: Entry, at: int, codes: dict[_Shape, int]) -> int:
    """Give every entry its offset in the section; returns the one behind the last."""
    entry.offset = at
    at += len(uleb(codes.setdefault(_shape(entry), len(codes) + 1)))
    at += sum(4 if isinstance(value, Entry) else len(value) for _, _, value in entry.attributes)
    for child in entry.children:
        at = _place(child, at, codes)
    return at + bool(entry.children)


def _write(entry: Entry, codes: dict[_Shape, int], out: bytearray) -> None:
    out += uleb(codes[_shape(entry)])
    for _, _, value in entry.attributes:
        out += value.offset.to_bytes(4, "little") if isinstance(value, Entry) else value
    for child in entry.children:
        _write(child, codes, out)
    if entry.children:
        out.append(0)


def _abbreviations(codes: dict[_Shape, int]) -> bytes:
    out = bytearray()
    for shape, code in codes.items():
        out += uleb(code) + uleb(shape.tag) + bytes([shape.has_children])
        for attribute, form in shape.attributes:
            out += uleb(attribute) + uleb(form)
        out += bytes(2)
    return bytes(out + b"\0")
