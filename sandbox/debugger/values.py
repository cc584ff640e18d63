"""Values in words: what a pointer leads to, which flags a number holds.

What a number means depends on where it was read, so a question may come with the name of that place: in
``page.flags``, 12 is ``PG_HEAD|PG_SLAB``.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from ..abi import (
    BootFlag,
    MemoryType,
    PageFlag,
    SlabFlag,
    SlabList,
    boot_info,
    kmem_cache,
    kmem_cache_cpu,
    list_head,
    memory_region,
    page,
    pt_regs,
)
from ..heap.reader import byteswap
from ..heap.slabs import HeapObject, Slab
from ..heap.whatis import Stack, part_of
from ..layout import Struct
from ..x86 import PageTableEntry, Rflags, vector_name
from .name import Name, plus

if TYPE_CHECKING:
    from .names import Names

_HIGH_HALF = 0xFFFF_8000_0000_0000
_ERRORS = 4096
_STRING = 48
"""Characters of a string that are shown."""

_FLAGS: Mapping[tuple[type[Struct], str], type[IntFlag]] = {
    (page, "flags"): PageFlag, (kmem_cache, "flags"): SlabFlag, (boot_info, "flags"): BootFlag}
_CHOICES: Mapping[tuple[type[Struct], str], type[IntEnum]] = {
    (page, "list"): SlabList, (memory_region, "type"): MemoryType}


def flag_names(flags: type[IntFlag], value: int) -> str:
    """``PG_HEAD|PG_SLAB``, lowest bit first; bits without a name as a number; ``0`` for none."""
    known = [flag for flag in flags if value & flag]
    rest = value & ~sum(known)
    return "|".join([str(flag.name) for flag in known] + ([f"{rest:#x}"] if rest else [])) or "0"


def number(value: int, size: int = 8) -> str:
    """A number as a reader wants it: ``7``, ``40 (0x28)``, ``-12 (-ENOMEM)``, an address in hexadecimal."""
    negative = value - (1 << 8 * size)
    if size >= 4 and -_ERRORS < negative < 0:
        name = errno.errorcode.get(-negative)
        return f"{negative} (-{name})" if name else f"{negative}"
    if value < 10:
        return str(value)
    return f"{value} ({value:#x})" if value < 1 << 20 else f"{value:#x}"


class Values:
    """Words for numbers at one moment, by the names of that moment."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def shown(self, value: int, size: int = 8, place: Name | None = None) -> str:
        """A value for a reader: its words, or the bare number where it has none."""
        return self.words(value, size, place) or number(value, size)

    def words(self, value: int, size: int = 8, place: Name | None = None) -> str:
        """What a value means: read at ``place`` where that is given. Empty for a mere number."""
        if place is not None and size == place.width:
            known = self._in_field(value, place)
            if known:
                return known
        if size != 8 or value < _HIGH_HALF:
            return ""
        return self._pointer(value, place)

    def _in_field(self, value: int, place: Name) -> str:
        """The words that the field's type gives."""
        if place.structure == "page-table":
            return _table_entry(value)
        if place.structure == "free-pointer" and isinstance(place.owner, HeapObject):
            return self._free_pointer(value, place)
        if place.struct is None:
            return ""
        part = part_of(place.struct, place.offset)
        key = part.within, part.field.name if part.field else ""
        if key in _FLAGS and value:
            return flag_names(_FLAGS[key], value)
        if key in _CHOICES and value in set(_CHOICES[key]):
            return _CHOICES[key](value).name
        if key in ((kmem_cache_cpu, "top"), (kmem_cache_cpu, "limit")):
            return self._end(value)
        if key == (pt_regs, "vector") and value < 256:
            return vector_name(value)
        return ""

    def _free_pointer(self, value: int, place: Name) -> str:
        assert isinstance(place.owner, HeapObject)
        secret = self._names.reading.attempt(lambda: place.owner.cache.random) or 0  # type: ignore[attr-defined]
        plain = value ^ secret ^ byteswap(place.at) if secret else value
        target = "the end of the free list" if plain == 0 else self._pointer(plain, place) or number(plain)
        return f"encoded: {target}" if secret else target

    def _pointer(self, value: int, place: Name | None) -> str:
        """What a pointer leads to; empty where it leads nowhere."""
        names = self._names
        found = names.name(value)
        if found.structure in ("unmapped", "non-canonical", "hole", "null"):
            return ""
        if place is not None and value == place.at:
            return "itself: an empty list" if _is_link(found) else f"itself, {found.text}"
        if found.structure == "page":
            slab = names.slabs.target(value)
            return slab or (f"{found.text if found.offset else found.whole}"
                            + (f", {found.detail}" if found.detail else ""))
        if found.structure == "guard-page" and isinstance(found.owner, Stack) and value == found.start:
            return found.text
        if isinstance(found.owner, HeapObject):
            state = found.detail.partition(",")[0]
            if found.structure in ("object", "free-pointer"):
                return f"{found.whole}{plus(found.offset)}, {state}"
            return f"{found.text}, {state}"
        if isinstance(found.owner, Slab):
            return names.slabs.summary(found.owner)
        if found.structure in ("rodata", "variable") and (quoted := self._string(value)):
            return f"{quoted} at {found.text}"
        return found.whole if found.struct is not None and not found.offset and not _is_link(found) else found.text

    def _end(self, value: int) -> str:
        """Where a magazine ends: ``kmem_cache_cpu.top`` and ``limit`` point behind an object."""
        last = self._names.name(value - 8)
        if last.structure != "magazine":
            return "no magazine" if last.structure == "rodata" else ""
        return f"behind {last.text}" if last.field.startswith("objects") else f"the bottom of {last.whole}, empty"

    def _string(self, address: int) -> str:
        """The text at an address in quotes, empty where there is none."""
        names = self._names
        data = names.reading.attempt(lambda: names.reading.guest.memory.read(address, _STRING)) or b""
        text, end, _ = data.partition(b"\0")
        if len(text) < 2 or any(not 32 <= byte < 127 and byte not in b"\n\t" for byte in text):
            return ""
        quoted = text.decode("ascii").replace("\n", "\\n").replace("\t", "\\t")
        return f'"{quoted}"' if end else f'"{quoted}..."'


def _is_link(found: Name) -> bool:
    """Whether a list's own head or link lies there."""
    return found.struct is not None and part_of(found.struct, found.offset).within is list_head


def _table_entry(value: int) -> str:
    entry = PageTableEntry(value)
    if not value:
        return ""
    bits = " ".join(entry.names())
    return f"physical 0x{entry.address:x}, {bits}" if entry.P else f"not present, {value:#x}"


def rflags(value: int) -> str:
    """The flags that are set, without the bit that always is."""
    return " ".join(name for name in Rflags(value).names() if name != "FIXED") or "none"
