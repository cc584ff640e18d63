"""C prototypes out of debugging information entries: ``void *allocate(unsigned long size)``.

A declaration in C is written from the inside out (C11, 6.7.6), so a type is spelled around what it is the type of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

_C = frozenset({0x01, 0x02, 0x0C, 0x1D, 0x2C})            # DW_LANG_C89, C, C99, C11, C17
_DEEPEST = 64
"""Types inside of each other; more is a circle."""
_MOST = 2000
"""Types in one declaration."""
_QUALIFIERS = {"DW_TAG_const_type": "const", "DW_TAG_volatile_type": "volatile", "DW_TAG_restrict_type": "restrict",
               "DW_TAG_atomic_type": "_Atomic"}
_TAGGED = {"DW_TAG_structure_type": "struct", "DW_TAG_union_type": "union", "DW_TAG_enumeration_type": "enum"}
_LONG_NAMES = {
    "long unsigned int": "unsigned long", "long int": "long", "short unsigned int": "unsigned short",
    "short int": "short", "long long int": "long long", "long long unsigned int": "unsigned long long",
}  # fmt: skip
"""What gcc calls some types, and people do not."""


def declarations(units: Iterable[Any], functions: Sequence[tuple[str, int, int]]) -> dict[str, str]:
    """The prototypes of those of ``functions`` (name, start, end) that the units (pyelftools') describe.

    A clone that a compiler made of a function, with fewer arguments perhaps, has another name, and no prototype.
    """
    starts = {(name, start) for name, start, _ in functions}
    found = {}
    for unit in units:
        top = unit.get_top_DIE().attributes
        if "DW_AT_language" in top and top["DW_AT_language"].value in _C:
            entries = Entries(unit)
            for entry in entries.functions():
                origin = declared(entry)
                name = name_of(origin)
                if (name, entry.attributes["DW_AT_low_pc"].value) in starts:
                    found[name] = _Speller(entries).function(origin, name)
    return found


class Entries:
    """The entries of a unit in the order of the section, which is that of a tree."""

    def __init__(self, unit: Any) -> None:
        self._entries = list(unit.iter_DIEs())
        self._numbers = {entry.offset: number for number, entry in enumerate(self._entries)}

    def functions(self) -> Iterator[Any]:
        """Those of functions that have code of their own."""
        return (entry for entry in self._entries
                if entry.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in entry.attributes)

    def every(self, tags: Collection[str]) -> Iterator[Any]:
        """Those of some kinds, wherever they stand."""
        return (entry for entry in self._entries if entry.tag in tags)

    def below(self, parent: Any) -> Iterator[Any]:
        """Those right below another one of this unit."""
        number = self._numbers.get(parent.offset)
        depth = 0
        while number is not None and parent.has_children and number + 1 < len(self._entries):
            number += 1
            entry = self._entries[number]
            if depth == 0 and not entry.is_null():
                yield entry
            depth += bool(entry.has_children) - entry.is_null()
            if depth < 0:
                return


def variable(entries: Entries, entry: Any, name: str | None = None) -> str:
    """The declaration of a variable or a parameter: ``struct node *list``; with another name, or, for the bare type,
    with an empty one."""
    entry = declared(entry)
    return _Speller(entries).spelled(entry, name_of(entry) if name is None else name, 0)


class _Speller:
    """Spells the declaration of one function."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._left = _MOST                                # a type may be made of others, and those of others again

    def function(self, entry: Any, name: str) -> str:
        """The prototype."""
        return self.spelled(entry, f"{name}({self._parameters(entry, 0)})", 0)

    def _parameters(self, entry: Any, depth: int) -> str:
        """What stands between the parentheses."""
        found = []
        for child in self._entries.below(entry):
            if child.tag == "DW_TAG_formal_parameter":
                found.append(self.spelled(child, name_of(child), depth))
            elif child.tag == "DW_TAG_unspecified_parameters":
                found.append("...")
        return ", ".join(found) or "void"

    def spelled(self, entry: Any, declarator: str, depth: int) -> str:
        """The declaration of ``declarator`` with the type that ``entry`` has."""
        self._left -= 1
        if depth > _DEEPEST or self._left < 0:
            raise ValueError("a type that is made of itself")
        kind = goal_of(entry)
        if kind is None:
            return f"void {declarator}".rstrip()
        if kind.tag == "DW_TAG_pointer_type":
            inner = goal_of(kind)
            bound = inner is not None and inner.tag in ("DW_TAG_array_type", "DW_TAG_subroutine_type")
            return self.spelled(kind, f"(*{declarator})" if bound else f"*{declarator}", depth + 1)
        if kind.tag in _QUALIFIERS:
            return self._qualified(kind, declarator, depth + 1)
        if kind.tag == "DW_TAG_array_type":
            return self.spelled(kind, declarator + "".join(map(_bound, self._entries.below(kind))), depth + 1)
        if kind.tag == "DW_TAG_subroutine_type":
            return self.spelled(kind, f"{declarator}({self._parameters(kind, depth + 1)})", depth + 1)
        name = _LONG_NAMES.get(name_of(kind), name_of(kind))
        return " ".join(filter(None, (_TAGGED.get(kind.tag), name, declarator)))

    def _qualified(self, kind: Any, declarator: str, depth: int) -> str:
        """``int *const p``, but ``const int p``."""
        goal, words = goal_of(kind), [_QUALIFIERS[kind.tag]]
        while goal is not None and goal.tag in _QUALIFIERS and len(words) < len(_QUALIFIERS):
            words.append(_QUALIFIERS[goal.tag])
            kind, goal = goal, goal_of(goal)
        if goal is not None and goal.tag == "DW_TAG_pointer_type":
            return self.spelled(kind, f"{' '.join(words)} {declarator}".rstrip(), depth)
        return f"{' '.join(words)} {self.spelled(kind, declarator, depth)}"


def declared(entry: Any) -> Any:
    """The entry that has a function's name and type, where the code's own one only refers to it."""
    for _ in range(_DEEPEST):
        way = next((way for way in ("DW_AT_abstract_origin", "DW_AT_specification") if way in entry.attributes), None)
        if way is None:
            break
        entry = entry.get_DIE_from_attribute(way)
    return entry


def name_of(entry: Any) -> str:
    """What an entry is called, empty for one without a name."""
    name = entry.attributes.get("DW_AT_name")
    return name.value.decode("utf-8", "replace") if name is not None else ""


def goal_of(entry: Any) -> Any:
    """The type that another entry has, or is a kind of; None for void."""
    return entry.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in entry.attributes else None


def _bound(entry: Any) -> str:
    """A dimension of an array, which is not always known."""
    for name, more in (("DW_AT_count", 0), ("DW_AT_upper_bound", 1)):
        found = entry.attributes.get(name)
        if found is not None and isinstance(found.value, int):
            return f"[{found.value + more}]"
    return "[]"
