"""Types of C: how large they are, what they have and what they lead to (DWARF 5, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from .damage import damage
from .declarations import Entries, goal_of, name_of, variable

_THROUGH = frozenset({"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type",
                      "DW_TAG_atomic_type"})
_DEEPEST = 64
_ENCODINGS = {2: "boolean", 5: "signed", 6: "character", 7: "unsigned", 8: "character"}     # DW_ATE
_NEGATIVE = frozenset({5, 6})                             # signed, signed_char


def _nowhere() -> None:
    """Where a type leads that leads nowhere."""


Member = tuple[str, int, "Type"]
"""Name (empty for a structure without one, whose members are meant), offset in bytes, type."""


@dataclass(frozen=True)
class Type:
    """``kind`` is ``signed``, ``unsigned``, ``character``, ``boolean``, ``pointer``, ``enum``, ``struct`` (or union),
    ``array`` or ``other``; ``size`` is in bytes, 0 where it is not known. ``negative``: it has negative values.
    ``names`` are those of an enumeration's values, ``spelled`` is how it is written in C. What it leads to (``to``) and
    has (``has``) is read when it is first asked for: types of C go round in circles."""

    kind: str
    size: int
    names: Mapping[int, str] = field(default_factory=dict)
    negative: bool = False
    spelled: str = ""
    to: Callable[[], Type | None] = field(default=_nowhere, repr=False, compare=False)
    has: Callable[[], tuple[Member, ...]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def inner(self) -> Type | None:
        """The type that a pointer leads to, or that an array's elements have."""
        return self.to()

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The members of a structure or union, without its bit fields."""
        return self.has()


def type_of(entries: Entries, entry: Any) -> Type:
    """The type that an entry has."""
    kind = goal_of(entry)
    return described(entries, kind, guarded(lambda: variable(entries, entry, "")) or "")


def described(entries: Entries, kind: Any, spelled: str) -> Type:
    """The type that an entry is."""
    for _ in range(_DEEPEST):
        if kind is None or kind.tag not in _THROUGH:
            break
        kind = goal_of(kind)
    if kind is None:
        return Type("other", 0, spelled=spelled)
    size = kind.attributes["DW_AT_byte_size"].value if "DW_AT_byte_size" in kind.attributes else 0
    if kind.tag == "DW_TAG_base_type":
        encoding = kind.attributes["DW_AT_encoding"].value
        return Type(_ENCODINGS.get(encoding, "other"), size, negative=encoding in _NEGATIVE, spelled=spelled)
    if kind.tag == "DW_TAG_pointer_type":
        return Type("pointer", size or 8, spelled=spelled, to=lambda: guarded(lambda: type_of(entries, kind)))
    if kind.tag == "DW_TAG_enumeration_type":
        names = {item.attributes["DW_AT_const_value"].value: name_of(item) for item in entries.below(kind)
                 if item.tag == "DW_TAG_enumerator"}
        return Type("enum", size, names, any(value < 0 for value in names), spelled)
    if kind.tag == "DW_TAG_array_type":
        return _array(type_of(entries, kind), [_count(item) for item in entries.below(kind)], spelled)
    if kind.tag in ("DW_TAG_structure_type", "DW_TAG_union_type"):
        return Type("struct", size, spelled=spelled, has=lambda: guarded(lambda: tuple(_members(entries, kind))) or ())
    return Type("other", size, spelled=spelled)


def _array(element: Type, counts: list[int], spelled: str) -> Type:
    """An array of one or several dimensions: those behind the first are its elements'."""
    first, *others = counts or [0]
    inner = _array(element, others, f"{element.spelled}{''.join(f'[{count}]' for count in others)}") if others \
        else element
    return Type("array", first * inner.size, spelled=spelled, to=lambda: inner)


def _count(dimension: Any) -> int:
    """The elements of a dimension; 0 where that is not known."""
    known = dimension.attributes.get("DW_AT_count")
    upper = dimension.attributes.get("DW_AT_upper_bound")
    return int(known.value if known is not None else upper.value + 1 if upper is not None else 0)


def _members(entries: Entries, kind: Any) -> Iterator[Member]:
    for item in entries.below(kind):
        if item.tag != "DW_TAG_member" or "DW_AT_data_bit_offset" in item.attributes:
            continue
        offset = item.attributes.get("DW_AT_data_member_location")
        found = guarded(partial(type_of, entries, item))
        if found is not None:
            yield name_of(item), 0 if offset is None else offset.value, found


def guarded(read: Callable[[], Any]) -> Any:
    """What ``read`` says, None where the debug information is damaged: it only helps to understand."""
    try:
        return read()
    except damage():
        return None
