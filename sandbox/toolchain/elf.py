"""An ELF file of the kernel and the program, at the addresses where they run: what a debugger calls the executable.

Layout and numbers are those of the System V ABI (gabi 4.1) and its supplement for x86-64::

    header, program headers
    .text .rodata .data          the kernel's bytes, each at a multiple of a page
    .text.program ...            the program's, and those of other images
    .debug_*                     as dwarf.py wrote them
    .symtab .strtab .shstrtab
    section headers
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..abi import ALLOCATOR_BASE, MODULES_BASE, PROGRAM_BASE
from ..address import PAGE_SIZE, align_up
from .image import Image, Section

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")         # 64 bits, little-endian, version 1, System V
_EXECUTABLE, _X86_64 = 2, 62
_LOAD = 1
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_WRITE, _ALLOCATE, _EXECUTE = 1, 2, 4                    # sh_flags
_RIGHTS = {"r": 4, "w": 2, "x": 1}                       # p_flags
_SUFFIXES = {PROGRAM_BASE: ".program", MODULES_BASE: ".modules", ALLOCATOR_BASE: ".allocator"}
_LOCAL, _GLOBAL = 0, 1 << 4                              # st_info: the binding, and below it the type
_OBJECT, _FUNCTION = 1, 2


class Names:
    """A string table: text by the offset that stands for it. The first is the empty one."""

    def __init__(self) -> None:
        self._offsets: dict[str, int] = {}
        self.data = bytearray()
        self.add("")

    def add(self, name: str) -> int:
        """Where ``name`` lies in the table."""
        if name not in self._offsets:
            self._offsets[name] = len(self.data)
            self.data += name.encode() + b"\0"
        return self._offsets[name]


@dataclass
class _Part:
    """A section of the file."""

    name: str
    kind: int
    data: bytes
    address: int = 0
    flags: int = 0
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0
    rights: str = ""
    offset: int = field(default=0, init=False)


def elf_file(images: Sequence[Image], debug: Mapping[str, bytes]) -> bytes:
    """The bytes of an executable with the sections of ``images``, the kernel's first, and the sections of ``debug``."""
    parts = [_Part("", 0, b""), *(part for number, image in enumerate(images) for part in _loaded(image, number))]
    loaded = parts[1:]
    parts += [_Part(name, _PROGBITS, data) for name, data in debug.items()]
    strings = Names()
    local, others = (list(_symbols(images, loaded, strings, binding)) for binding in (_LOCAL, _GLOBAL))
    parts.append(_Part(".symtab", _SYMTAB, b"".join([bytes(_SYMBOL.size), *local, *others]), link=len(parts) + 1,
                       info=1 + len(local), alignment=8, entry_size=_SYMBOL.size))
    parts.append(_Part(".strtab", _STRTAB, bytes(strings.data)))
    names = Names()
    for part in parts:
        names.add(part.name)
    names.add(".shstrtab")
    parts.append(_Part(".shstrtab", _STRTAB, bytes(names.data)))

    body = bytearray(_HEADER.size + _SEGMENT.size * len(loaded))
    for part in parts[1:]:
        part.offset = align_up(len(body), part.alignment)
        body += bytes(part.offset - len(body)) + part.data
    table = align_up(len(body), 8)
    body += bytes(table - len(body)) + b"".join(
        _SECTION.pack(names.add(part.name), part.kind, part.flags, part.address, part.offset, len(part.data),
                      part.link, part.info, part.alignment if part.kind else 0, part.entry_size) for part in parts)
    body[: _HEADER.size] = _HEADER.pack(
        _IDENT, _EXECUTABLE, _X86_64, 1, images[0].symbols.get("_start", images[0].base), _HEADER.size, table, 0,
        _HEADER.size, _SEGMENT.size, len(loaded), _SECTION.size, len(parts), len(parts) - 1)
    for number, part in enumerate(loaded):
        _SEGMENT.pack_into(body, _HEADER.size + number * _SEGMENT.size, _LOAD, sum(
            _RIGHTS.get(letter, 0) for letter in part.rights), part.offset, part.address, part.address,
            len(part.data), len(part.data), PAGE_SIZE)
    return bytes(body)


def _loaded(image: Image, number: int) -> Iterator[_Part]:
    suffix = _SUFFIXES.get(image.base, f".{number}") if number else ""
    for section in image.sections:
        flags = _ALLOCATE | _WRITE * ("w" in section.rights) | _EXECUTE * ("x" in section.rights)
        yield _Part(f".{section.name}{suffix}", _PROGBITS, section.data, section.address, flags, alignment=PAGE_SIZE,
                    rights=section.rights)


def _symbols(images: Sequence[Image], loaded: Sequence[_Part], strings: Names, binding: int) -> Iterator[bytes]:
    """Every label of a binding, up to the next one: functions in the text, objects elsewhere. Local ones are called
    what their sources call them, without the file that the image has behind some names."""
    numbers = {part.address: number for number, part in enumerate(loaded, 1)}
    for image in images:
        starts = sorted({*image.symbols.values(), image.text_end, *(section.end for section in image.sections)})
        for name, address in sorted(image.symbols.items(), key=lambda item: item[1]):
            section = _section_of(image, address)
            if section is None or (name in image.local) != (binding == _LOCAL):
                continue
            kind = _FUNCTION if "x" in section.rights else _OBJECT
            after = bisect_right(starts, address)
            size = starts[after] - address if after < len(starts) and address < section.end else 0
            shown = name.partition("@")[0] if name in image.local else name
            yield _SYMBOL.pack(strings.add(shown), binding | kind, 0, numbers[section.address], address, size)


def _section_of(image: Image, address: int) -> Section | None:
    """The section of a label; one behind a section's last byte, which marks its end, counts as in it."""
    return image.section_at(address) or image.section_at(address - 1)
