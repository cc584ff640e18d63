"""The kernel's structures, enumerations and constants as DWARF types, out of :mod:`sandbox.abi`.

So that a debugger can print ``*(struct page *)ADDRESS``, ``PG_SLAB`` or ``slab_caches``. A comment that names a
structure (``mem_map:  # struct page mem_map[max_pfn]``) is a label's declaration.
"""

from __future__ import annotations

import re

from ..abi import ENUMS, STRUCTS, constants
from ..layout import Field, NestedField, PointerField, TextField
from .dwarf_encoding import OP_ADDR, At, Encoding, Tag
from .dwarf_entries import Entry, expression, flag, named, number, typed
from .image import Image

_NAMES_STRUCT = re.compile(r"struct (\w+)( \*)?")
# Pointers whose notes do not say what they point to.
_LINKS = {
    ("list_head", "next"): "struct list_head", ("list_head", "prev"): "struct list_head",
    ("page", "prev"): "struct list_head", ("magazine", "next"): "struct magazine", ("percpu", "self"): "struct percpu",
    ("kmem_cache", "depot_full"): "struct magazine", ("kmem_cache", "depot_empty"): "struct magazine",
    ("kmalloc_info", "name"): "char",
}  # fmt: skip
_QUALIFIERS = re.compile(r"\b(const|static|volatile)\b|\*")
_SYNONYMS = {"unsigned": "u32", "unsigned int": "u32", "size_t": "u64", "unsigned long": "u64", "int": "s32",
             "long": "s64"}


class Types:
    """The types, each an entry; ``entries`` are all of them, in an order in which they can be written."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._named = {f"u{8 * width}": self._base(f"u{8 * width}", width, Encoding.UNSIGNED) for width in (1, 2, 4, 8)}
        self._named |= {"s32": self._base("int", 4, Encoding.SIGNED), "s64": self._base("s64", 8, Encoding.SIGNED),
                        "char": self._base("char", 1, Encoding.UNSIGNED_CHAR),
                        "bool": self._base("bool", 1, Encoding.BOOLEAN)}
        self._named |= {f"struct {struct.__name__}": self._add(Entry(Tag.STRUCTURE_TYPE, [
            named(struct.__name__), number(At.BYTE_SIZE, struct.size)])) for struct in STRUCTS}
        self._pointers: dict[int | None, Entry] = {}
        for struct in STRUCTS:
            self._named[f"struct {struct.__name__}"].children = [
                self._member(struct.__name__, field) for field in struct.fields]
        self._enumerations()

    def of(self, declared: str) -> Entry | None:
        """The type that C writes so; None for ``void``. What only other files know is a pointer to anything."""
        name = " ".join(_QUALIFIERS.sub(" ", declared).split())
        found = self._named.get(_SYNONYMS.get(name, name))
        if "(" in declared or (found is None and "*" not in declared and name not in ("void", "noreturn", "")):
            return self._pointer_to(None)
        for _ in range(declared.count("*")):
            found = self._pointer_to(found)
        return found

    def variable(self, image: Image, label: str, size: int) -> Entry | None:
        """A label outside the code as a variable of ``size`` bytes; None when nothing says what it is."""
        at = image.symbols[label]
        kind = self._declared(_declaration(image, label), size)
        if kind is None:
            return None
        location = bytes([OP_ADDR]) + at.to_bytes(8, "little")
        return Entry(Tag.VARIABLE, [named(label), typed(kind), flag(At.EXTERNAL),
                                    expression(At.LOCATION, location)])

    def _add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        return entry

    def _base(self, name: str, width: int, encoding: Encoding) -> Entry:
        return self._add(Entry(Tag.BASE_TYPE, [
            named(name), number(At.BYTE_SIZE, width), number(At.ENCODING, encoding)]))

    def _array(self, element: Entry, count: int) -> Entry:
        bound = Entry(Tag.SUBRANGE_TYPE, [typed(self._named["u64"]), number(At.LOWER_BOUND, 0),
                                           number(At.UPPER_BOUND, count - 1)])
        return self._add(Entry(Tag.ARRAY_TYPE, [typed(element)], [bound]))

    def _pointer_to(self, goal: Entry | None) -> Entry:
        """A pointer to something, or to anything."""
        key = None if goal is None else id(goal)
        if key not in self._pointers:
            self._pointers[key] = self._add(Entry(Tag.POINTER_TYPE, [
                number(At.BYTE_SIZE, 8), *([typed(goal)] if goal else [])]))
        return self._pointers[key]

    def _member(self, struct: str, field: Field) -> Entry:
        if isinstance(field, TextField):
            element = self._named["char"]
        elif isinstance(field, NestedField):
            element = self._named[f"struct {field.struct.__name__}"]
        elif isinstance(field, PointerField):
            noted = _NAMES_STRUCT.search(field.note)
            goal = _LINKS.get((struct, field.name)) or (f"struct {noted[1]}" if noted else "")
            element = self._pointer_to(self._named.get(goal))
        else:
            element = self._named[f"u{8 * field.width}"]
        kind = self._array(element, field.count) if field.count > 1 else element
        return Entry(Tag.MEMBER, [named(field.name), typed(kind), number(At.DATA_MEMBER_LOCATION, field.offset)])

    def _enumerations(self) -> None:
        """The enumerations, and all the other shared numbers as constants."""
        inside = {member.name for enum in ENUMS for member in enum}
        for enum in ENUMS:
            self._add(Entry(Tag.ENUMERATION_TYPE, [named(enum.__name__), number(At.BYTE_SIZE, 4)], [
                Entry(Tag.ENUMERATOR, [named(str(member.name)), number(At.CONST_VALUE, int(member))])
                for member in enum]))
        for name, value in constants():
            if name not in inside:
                self._add(Entry(Tag.CONSTANT, [named(name), typed(self._named["u64"]),
                                               number(At.CONST_VALUE, value), flag(At.EXTERNAL)]))

    def _declared(self, declaration: str, size: int) -> Entry | None:
        found = _NAMES_STRUCT.search(declaration)
        struct = next((struct for struct in STRUCTS if found and struct.__name__ == found[1]), None)
        if found is None or struct is None:
            return self._named.get(f"u{8 * size}")
        element, width = self._named[f"struct {found[1]}"], struct.size
        if found[2] or size < width:
            element, width = self._pointer_to(element), 8
        return self._array(element, size // width) if "[" in declaration and size // width > 1 else element


def _declaration(image: Image, label: str) -> str:
    """The comment on a label's own line, or else the one right above it."""
    file, _, line = image.origins.get(label, "").rpartition(":")
    if not line.isdecimal():
        return ""
    lines = image.files.get(file, "").split("\n")
    own = lines[int(line) - 1].partition("#")[2]
    above = lines[int(line) - 2] if int(line) > 1 else ""
    return own or (above[1:] if above.startswith("#") else "")
