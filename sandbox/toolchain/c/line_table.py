"""``.debug_line``: the line programs of a compiler, run (DWARF 2 to 5, section 6.2).

Read here and not with pyelftools, because a count in a damaged header must not be believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from posixpath import join
from typing import NamedTuple

_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _NEGATE_STATEMENT = 1, 2, 3, 4, 6
_CONST_ADD_PC, _FIXED_ADVANCE_PC = 8, 9
_END_SEQUENCE, _SET_ADDRESS, _DEFINE_FILE = 1, 2, 3       # extended opcodes
_PATH, _DIRECTORY = 1, 2                                  # DW_LNCT: what a field of a DWARF 5 table is
_STRING, _BLOCK, _STRP, _UDATA, _LINE_STRP = 0x08, 0x09, 0x0E, 0x0F, 0x1F
_FIXED = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}   # DW_FORM_data1, 2, 4, 8, 16
_VERSIONS = range(2, 6)


class Damaged(ValueError):
    """Debug information that is not what the standard says; the text says what is wrong."""


class Row(NamedTuple):
    """From ``address`` on the code belongs to ``line`` of ``file`` (0: to none); ``statement`` is a good place to stop.

    ``end``: no code of the table lies here any more.
    """

    address: int
    file: str
    line: int
    statement: bool
    end: bool


class LineTable(NamedTuple):
    """The table of one unit. ``offset`` is where it begins in the section, and by what its unit knows it.

    Files are named as they were given to the compiler: relative to the directory that it ran in, or absolute.
    ``directory`` is that one, as far as the table has it (DWARF 5), else empty.
    """

    offset: int
    directory: str
    rows: list[Row]


def line_tables(debug: Mapping[str, bytes]) -> Iterator[LineTable]:
    """All tables of the section ``.debug_line``; raises :class:`Damaged`."""
    data = debug.get(".debug_line", b"")
    at = 0
    while at < len(data):
        unit = _Bytes(data, at, len(data))
        wide, length = unit.initial_length()
        if length > len(data) - unit.at:
            raise Damaged(f".debug_line is cut off at {at:#x}")
        start, at = at, unit.at + length
        if length:
            yield _table(start, _Bytes(data, unit.at, at), wide, debug)


class _Bytes:
    """A position in a section, which never leaves ``end``."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self.at = at
        self.end = end

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise Damaged(f".debug_line ends too soon, at {self.at:#x}")
        self.at += size
        return self._data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def initial_length(self) -> tuple[bool, int]:
        """Whether offsets have 64 bits, and how many bytes follow."""
        length = self.number(4)
        return (True, self.number(8)) if length == 0xFFFF_FFFF else (False, length)

    def uleb(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF
            if shift > 63:
                raise Damaged(f".debug_line has a number of more than 64 bits at {self.at:#x}")

    def sleb(self) -> int:
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if bits < 64 and value >> (bits - 1) else value - (1 << 64) * (value >> 63)

    def string(self) -> str:
        end = self._data.find(b"\0", self.at, self.end)
        if end < 0:
            raise Damaged(f".debug_line has a name without an end at {self.at:#x}")
        text = self._data[self.at : end]
        self.at = end + 1
        return text.decode("utf-8", "replace")


class _Header(NamedTuple):
    """What the program needs to know (6.2.4)."""

    unit: int                                             # bytes that an advance of 1 means
    statement: bool
    line_base: int
    line_range: int
    operands: bytes                                       # of the standard opcodes, from 1 on
    directories: list[str]
    files: list[str]
    first_file: int


def _table(offset: int, data: _Bytes, wide: bool, debug: Mapping[str, bytes]) -> LineTable:
    version = data.number(2)
    if version not in _VERSIONS:
        raise Damaged(f".debug_line has version {version}, and 2 to 5 are known")
    if version >= 5:
        data.take(2)                                      # the sizes of an address and of a segment's selector
    program = data.number(8 if wide else 4)
    program += data.at
    unit = data.number(1)
    if version >= 4:
        data.take(1)                                      # operations of one instruction: 1, but for VLIW
    statement, base, line_range, opcodes = (data.number(1) for _ in range(4))
    if not line_range or not opcodes or program > data.end:
        raise Damaged(f".debug_line has a header that says nothing, at {offset:#x}")
    operands = data.take(opcodes - 1)
    directories, files = _names_5(data, wide, debug) if version >= 5 else _names(data)
    header = _Header(unit, bool(statement), base - ((base & 0x80) << 1), line_range, operands, directories, files,
                     int(version < 5))
    data.at = program
    return LineTable(offset, directories[0] if directories else "", list(_run(data, header)))


def _names(data: _Bytes) -> tuple[list[str], list[str]]:
    """Directories and files up to DWARF 4; directory 0 is the one that the compiler ran in."""
    directories = [""]
    while name := data.string():
        directories.append(name)
    files = []
    while name := data.string():
        files.append(_file(name, data, directories))
    return directories, files


def _file(name: str, data: _Bytes, directories: list[str]) -> str:
    directory = data.uleb()
    data.uleb()                                           # the time of its last change, and its size
    data.uleb()
    return _joined(directories, directory, name)


def _joined(directories: list[str], directory: int, name: str) -> str:
    if directory >= len(directories):
        raise Damaged(f".debug_line names directory {directory}, and has {len(directories)}")
    return name if directory == 0 else join(directories[directory], name)


def _names_5(data: _Bytes, wide: bool, debug: Mapping[str, bytes]) -> tuple[list[str], list[str]]:
    """The same of DWARF 5, whose tables say what their fields are."""
    directories = [str(entry.get(_PATH, "")) for entry in _entries(data, wide, debug)]
    files = [_joined(directories, int(entry.get(_DIRECTORY, 0)), str(entry.get(_PATH, "")))
             for entry in _entries(data, wide, debug)]
    return directories, files


def _entries(data: _Bytes, wide: bool, debug: Mapping[str, bytes]) -> Iterator[dict[int, str | int]]:
    fields = [(data.uleb(), data.uleb()) for _ in range(data.number(1))]
    count = data.uleb()
    if count and not fields:
        raise Damaged(f".debug_line has {count} names without a form, at {data.at:#x}")
    for _ in range(count):                                # each form takes a byte at least
        yield {kind: _value(data, form, wide, debug) for kind, form in fields}


def _value(data: _Bytes, form: int, wide: bool, debug: Mapping[str, bytes]) -> str | int:
    if form in _FIXED:
        return data.number(_FIXED[form])
    if form == _STRING:
        return data.string()
    if form == _UDATA:
        return data.uleb()
    if form == _BLOCK:
        return int.from_bytes(data.take(data.uleb()), "little")
    if form in (_STRP, _LINE_STRP):
        strings = debug.get(".debug_str" if form == _STRP else ".debug_line_str", b"")
        return _Bytes(strings, data.number(8 if wide else 4), len(strings)).string()
    raise Damaged(f".debug_line has a name in form {form:#x}")


def _run(data: _Bytes, header: _Header) -> Iterator[Row]:
    """Run a program: it sets registers, and every now and then makes a row of them (6.2.5)."""
    first_special = len(header.operands) + 1
    address, file, line, statement = 0, 1, 1, header.statement

    def row(end: bool = False) -> Row:
        number = file - header.first_file
        if not end and not 0 <= number < len(header.files):
            raise Damaged(f".debug_line names file {file}, and has {len(header.files)}")
        name = header.files[number] if 0 <= number < len(header.files) else ""
        return Row(address, name, max(line, 0), statement, end)

    while data.at < data.end:
        opcode = data.number(1)
        if opcode >= first_special:
            advance, lines = divmod(opcode - first_special, header.line_range)
            address, line = address + advance * header.unit, line + header.line_base + lines
            yield row()
        elif opcode == 0:
            size = data.uleb()
            operand = _Bytes(data.take(size), 0, size)
            extended = operand.number(1)
            if extended == _END_SEQUENCE:
                yield row(end=True)
                address, file, line, statement = 0, 1, 1, header.statement
            elif extended == _SET_ADDRESS:
                address = operand.number(size - 1)
            elif extended == _DEFINE_FILE:
                header.files.append(_file(operand.string(), operand, header.directories))
        elif opcode == _COPY:
            yield row()
        elif opcode == _ADVANCE_PC:
            address += data.uleb() * header.unit
        elif opcode == _ADVANCE_LINE:
            line += data.sleb()
        elif opcode == _SET_FILE:
            file = data.uleb()
        elif opcode == _NEGATE_STATEMENT:
            statement = not statement
        elif opcode == _CONST_ADD_PC:
            address += (255 - first_special) // header.line_range * header.unit
        elif opcode == _FIXED_ADVANCE_PC:
            address += data.number(2)
        else:                                             # nothing that a line is about
            for _ in range(header.operands[opcode - 1]):
                data.uleb()
