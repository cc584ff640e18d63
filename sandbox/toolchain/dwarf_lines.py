"""``.debug_line``: which source line each instruction came from (DWARF 4, 6.2), as a program that draws the table."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from .dwarf_encoding import VERSION, sleb, text, uleb, unit
from .image import Image

# Standard opcodes (6.2.5.2), how many operands each has, and the first special one. Those do everything at once.
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE = 1, 2, 3, 4
_OPERANDS = (0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1)
_FIRST_SPECIAL = len(_OPERANDS) + 1
_LINE_BASE, _LINE_RANGE = -5, 14
_END_SEQUENCE, _SET_ADDRESS = 1, 2                        # extended opcodes (6.2.5.3)


class FileTable:
    """The source files of an image by the numbers that DWARF knows them by, from 1 on.

    ``paths`` maps the name that the image has for a file to the path that a debugger shall look for, relative to the
    directory of the compilation.
    """

    def __init__(self, image: Image, paths: Mapping[str, str]) -> None:
        used = {file for file, _ in image.lines.values()}
        self._paths = {name: PurePosixPath(paths[name]) for name in image.files if name in used}
        self._numbers = {name: number for number, name in enumerate(self._paths, 1)}

    def __getitem__(self, name: str) -> int:
        return self._numbers[name]

    @property
    def main(self) -> str:
        """The path of the first file."""
        return str(next(iter(self._paths.values()), ""))

    def tables(self) -> bytes:
        """The include directories and the files, as the header of a line program has them (6.2.4)."""
        numbers = {PurePosixPath(): 0}                    # the directory of the compilation
        for path in self._paths.values():
            numbers.setdefault(path.parent, len(numbers))
        out = b"".join(text(str(directory)) for directory in list(numbers)[1:]) + b"\0"
        for path in self._paths.values():
            out += text(path.name) + uleb(numbers[path.parent]) + bytes(2)
        return out + b"\0"


def line_program(image: Image, files: FileTable) -> bytes:
    """The contribution of an image to the section."""
    header = bytes([1, 1, 1, _LINE_BASE & 0xFF, _LINE_RANGE, _FIRST_SPECIAL, *_OPERANDS]) + files.tables()
    return unit(VERSION.to_bytes(2, "little") + unit(header) + b"".join(_sequences(image, files)))


def _sequences(image: Image, files: FileTable) -> Iterator[bytes]:
    """A piece of the program for each run of code with no data in it."""
    start = image.base
    for data_start, data_end in (*image.data_in_text, (image.text_end, image.text_end)):
        rows = [(at, files[file], line) for at, (file, line) in _between(image, start, data_start)]
        if rows:
            yield _sequence(rows, data_start)
        start = data_end


def _between(image: Image, start: int, end: int) -> Iterator[tuple[int, tuple[str, int]]]:
    """The lines that begin in a range, in order."""
    addresses = sorted(image.lines)
    for at in addresses[bisect_left(addresses, start) : bisect_left(addresses, end)]:
        yield at, image.lines[at]


def _sequence(rows: Sequence[tuple[int, int, int]], end: int) -> bytes:
    """Set the registers to each row, and copy them into the table; where nothing but the address changes, go on."""
    out = bytearray(b"\0" + uleb(9) + bytes([_SET_ADDRESS]) + rows[0][0].to_bytes(8, "little"))
    address, file, line = rows[0][0], 1, 1
    shown = (0, 0)
    for at, number, goal in rows:
        if (number, goal) == shown:
            continue
        if number != file:
            out += bytes([_SET_FILE]) + uleb(number)
        out += _row(at - address, goal - line)
        address, file, line = at, number, goal
        shown = number, goal
    return bytes(out + bytes([_ADVANCE_PC]) + uleb(end - address) + b"\0" + uleb(1) + bytes([_END_SEQUENCE]))


def _row(distance: int, lines: int) -> bytes:
    special = lines - _LINE_BASE + _LINE_RANGE * distance + _FIRST_SPECIAL
    if 0 <= lines - _LINE_BASE < _LINE_RANGE and special < 256:
        return bytes([special])
    return bytes([_ADVANCE_PC]) + uleb(distance) + bytes([_ADVANCE_LINE]) + sleb(lines) + bytes([_COPY])
