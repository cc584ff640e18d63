"""Object files: what a compiler wrote, read with pyelftools (System V ABI, gabi 4.1, chapter 4)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import LinkError, ProgramError
from .damage import damage

MAX_OBJECT_BYTES = 64 << 20
"""The largest object file that is read."""

_ALLOC, _WRITE, _EXEC, _TLS, _GROUP, _COMPRESSED = 2, 1, 4, 0x400, 0x200, 0x800          # sh_flags
_COMPRESSION, _ZLIB = struct.Struct("<IIQQ"), 1
_BRAND = b"\x7fELF"
_ARCHIVE = b"!<arch>\n"


@dataclass(frozen=True)
class ObjectFile:
    """An ELF relocatable, not looked into yet.

    ``shown`` is its name in messages: ``my.c`` for one that was compiled from it just now, else the file's own.
    ``directory`` is where its sources lie, ``sources`` are the texts of those that are known, by the names that
    messages give them. ``warnings`` is what the compiler said all the same.
    """

    shown: str
    data: bytes
    directory: Path
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: str = ""

    @classmethod
    def read(cls, path: Path, shown: str) -> ObjectFile:
        """The file at ``path``; ``ProgramError`` when it cannot be read."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_OBJECT_BYTES + 1)
        except FileNotFoundError:
            raise ProgramError(shown, "no such file") from None
        except (OSError, ValueError) as error:
            raise ProgramError(shown, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if len(data) > MAX_OBJECT_BYTES:
            raise ProgramError(shown, f"larger than {MAX_OBJECT_BYTES >> 20} MiB")
        return cls(shown, data, path.parent)


@dataclass(frozen=True)
class Placed:
    """One object at its final addresses.

    ``addresses`` are those of its loaded sections, by their numbers; ``debug`` are its own ``.debug_*`` sections and
    its ``.eh_frame``, with every relocation applied: offsets into other debug sections count within the object.
    ``functions`` are name, start and end of its functions, ascending.
    """

    object: ObjectFile
    addresses: Mapping[int, int]
    debug: Mapping[str, bytes]
    functions: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Relocation:
    """A field of a section that depends on a symbol's address; ``kind`` is R_X86_64_*'s number."""

    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class InputSection:
    """A section of an object; ``data`` is empty for one of zeros (SHT_NOBITS), whose ``size`` counts."""

    number: int
    name: str
    kind: str
    flags: int
    data: bytes
    size: int
    alignment: int
    relocations: tuple[Relocation, ...]

    @property
    def loaded(self) -> bool:
        """Whether it has a place in guest memory."""
        return bool(self.flags & _ALLOC) and self.kind != "SHT_NOTE" and self.name != ".eh_frame" \
            and not self.thread_local

    @property
    def debug(self) -> bool:
        """Whether it tells of the code; ``.eh_frame`` is read, and not loaded. Macros (-g3) are left out."""
        return (self.name.startswith(".debug_") or self.name == ".eh_frame") and self.name != ".debug_macro"

    @property
    def writable(self) -> bool:
        """Whether the guest may write it: what is only relocated at load time need not be."""
        return bool(self.flags & _WRITE) and not self.name.startswith(".data.rel.ro")

    @property
    def executable(self) -> bool:
        """Whether it is code."""
        return bool(self.flags & _EXEC)

    @property
    def thread_local(self) -> bool:
        """Whether each thread would have its own."""
        return bool(self.flags & _TLS)


@dataclass(frozen=True)
class InputSymbol:
    """A symbol of an object: ``section`` is a number, or ``undefined``, ``absolute``, ``common``; ``file`` is the
    source that a local one comes from, as far as the object tells."""

    name: str
    binding: str
    kind: str
    section: int | str
    value: int
    size: int
    file: str

    @property
    def local(self) -> bool:
        """Whether other objects do not see it."""
        return self.binding == "STB_LOCAL"

    @property
    def weak(self) -> bool:
        """Whether another definition may replace it, or none may be there."""
        return self.binding == "STB_WEAK"


@dataclass(frozen=True)
class Parsed:
    """All of an object that a linker needs."""

    object: ObjectFile
    sections: Mapping[int, InputSection]
    symbols: tuple[InputSymbol, ...]

    def defined(self) -> Iterator[InputSymbol]:
        """Its symbols that others may use."""
        return (symbol for symbol in self.symbols if not symbol.local and symbol.section != "undefined")

    def undefined(self) -> Iterator[InputSymbol]:
        """Its symbols that somebody else must define."""
        return (symbol for symbol in self.symbols if symbol.section == "undefined" and symbol.name)


def parse(file: ObjectFile) -> Parsed:
    """Look into an object; :class:`LinkError` for what is none, or is for another machine, or is damaged."""
    if not file.data.startswith(_BRAND):
        what = "an archive: give its objects one by one" if file.data.startswith(_ARCHIVE) else "no ELF object file"
        raise LinkError(file.shown, [f"it is {what}"])
    try:
        return _parse(file)
    except damage() as error:
        raise LinkError(file.shown, [f"it is damaged: {type(error).__name__}: {error}"]) from None


def _parse(file: ObjectFile) -> Parsed:
    from elftools.elf.descriptions import describe_e_machine
    from elftools.elf.elffile import ELFFile

    elf: Any = ELFFile(io.BytesIO(file.data))
    if elf["e_machine"] != "EM_X86_64" or elf.elfclass != 64 or not elf.little_endian:
        machine = describe_e_machine(elf["e_machine"])
        raise LinkError(file.shown, [f"it is an object for another machine ({machine}, {elf.elfclass} bits): the "
                                     "guest is x86-64"])
    if elf["e_type"] != "ET_REL":
        kinds = {"ET_EXEC": "an executable", "ET_DYN": "a shared library or an executable"}
        raise LinkError(file.shown, [f"it is {kinds.get(elf['e_type'], 'no object')}: the guest takes relocatable "
                                     "objects, as `cc -c` and `ld -r` make them"])
    relocations: dict[int, list[Relocation]] = {}
    sections: dict[int, InputSection] = {}
    symbols: tuple[InputSymbol, ...] = ()
    found = list(enumerate(elf.iter_sections()))
    for _, section in found:
        if section["sh_type"] in ("SHT_RELA", "SHT_REL"):
            if section["sh_type"] == "SHT_REL":
                raise LinkError(file.shown, [f"its section {section.name} has relocations without addends, which "
                                             "x86-64 has not"])
            relocations.setdefault(section["sh_info"], []).extend(
                Relocation(entry["r_offset"], entry["r_info_type"], entry["r_info_sym"], entry["r_addend"])
                for entry in section.iter_relocations())
        elif section["sh_type"] == "SHT_SYMTAB":
            symbols = tuple(_symbols(section))
    for number, section in found:
        if section.name.startswith(".gnu.lto_") or section.name == ".llvmbc":
            raise LinkError(file.shown, ["it holds no code yet: it was compiled with -flto"])
        size = section["sh_size"]
        zeros = section["sh_type"] in ("SHT_NOBITS", "SHT_NULL")
        if not zeros and section["sh_offset"] + size > len(file.data):
            raise ValueError(f"section {section.name} goes past the end of the file")
        data = b"" if zeros else file.data[section["sh_offset"] : section["sh_offset"] + size]
        if not zeros and section["sh_flags"] & _COMPRESSED:
            data = _unpacked(section.name, data)
        sections[number] = InputSection(number, section.name, str(section["sh_type"]), section["sh_flags"], data,
                                        size if zeros else len(data), max(section["sh_addralign"], 1),
                                        tuple(relocations.get(number, ())))
    return Parsed(file, sections, symbols)


def _unpacked(name: str, data: bytes) -> bytes:
    """A compressed section (gabi 4.1, "Compression Header": type, reserved, size, alignment)."""
    kind, _, size, _ = _COMPRESSION.unpack_from(data)
    if kind != _ZLIB:
        raise ValueError(f"section {name} is compressed in a way that is not known here: use -gz=none")
    if size > MAX_OBJECT_BYTES:
        raise ValueError(f"section {name} unpacks to more than {MAX_OBJECT_BYTES >> 20} MiB")
    unpacker = zlib.decompressobj()
    return unpacker.decompress(data[_COMPRESSION.size :], size)


def _symbols(table: Any) -> Iterator[InputSymbol]:
    special = {"SHN_UNDEF": "undefined", "SHN_ABS": "absolute", "SHN_COMMON": "common"}
    source = ""
    for symbol in table.iter_symbols():
        kind, section = symbol["st_info"]["type"], symbol["st_shndx"]
        if kind == "STT_FILE":
            source = symbol.name
        if isinstance(section, str) and section not in special:
            raise ValueError(f"symbol {symbol.name} lies in section {section}")
        yield InputSymbol(symbol.name, str(symbol["st_info"]["bind"]), str(kind), special.get(section, section),
                          symbol["st_value"], symbol["st_size"], source)
