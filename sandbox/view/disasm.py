"""A function as its author wrote it, with the bytes that it became beside each line.

::

    +0x00  55                    push rbp
    +0x01  48 89 e5              mov rbp, rsp
    +0x04  48 81 ff 00 20 00 00  cmp rdi, KMALLOC_MAX           # larger ones are pages
                                 = cmp rdi, 0x2000

A line that begins with ``=`` is what the processor decodes, where the source says it in other words: a constant's
name, a macro, an alias.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from ..errors import UsageError
from ..guest.symbols import Symbols
from ..toolchain.disassembler import Disassembler, Instruction
from ..toolchain.image import Image
from ..toolchain.source import SourceLine

BYTES_SHOWN = 7
"""Bytes on one row; a longer instruction goes on below."""
_BYTES = 3 * BYTES_SHOWN - 1
_JUMP = re.compile(r"(?:j\w+|call)\s+[.\w]+(?:\+0x[0-9a-f]+)?\s*(?:#|$)")


def disassembly(symbols: Symbols, name: str) -> Iterator[str]:
    """The function ``name`` of the kernel or the program, one line of text after the other.

    ``SymbolNotFound`` for a name that nobody defines, ``UsageError`` for one that is data.
    """
    address = int(symbols[name])
    image = symbols.image_at(address)
    if image is None or name not in image.functions:
        raise UsageError(f"{name} is not code: it lies at 0x{address:016x}, among the data")
    start, end = image.functions[name]
    yield f"{name}  0x{start:016x}, {end - start} bytes  {image.line(start) or 'no source'}"
    yield ""
    yield from _rows(image, start, end)


def _rows(image: Image, start: int, end: int) -> Iterator[str]:
    """Source and bytes; lines of the function's file that became no bytes are shown where they stand."""
    first = image.line(start)
    file, shown = (first.file, _comment_above(image, first)) if first else ("", 0)
    code = Disassembler().code(image, start, end)
    for line, instructions in groupby(code, key=lambda found: image.line(found.address)):
        if line is not None and line.file == file:
            for silent in range(shown + 1, line.number):
                yield _text_of(image, file, silent)
            shown = max(shown, line.number)
        yield from _line(line, file, list(instructions), start)


def _comment_above(image: Image, line: SourceLine) -> int:
    """The number of the line before the comment that stands above a function (labels between them are passed)."""
    number = line.number - 1
    while number > 0 and re.match(r"\s*(#|[\w.]+:)", _text_of(image, line.file, number)):
        number -= 1
    return number


def _text_of(image: Image, file: str, number: int) -> str:
    lines = image.files.get(file, "").split("\n")
    return lines[number - 1].rstrip() if 0 < number <= len(lines) else ""


def _line(line: SourceLine | None, file: str, instructions: list[Instruction], start: int) -> Iterator[str]:
    """One source line with its instructions, of which a macro may have made several."""
    source = line.text.strip() if line else ""
    if line is not None and line.file != file:
        source += f"  [{line}]"
    for index, found in enumerate(instructions):
        shown, rest = found.bytes[:BYTES_SHOWN].hex(" "), found.bytes[BYTES_SHOWN:].hex(" ")
        decoded = "" if alike(source, found.text) else f"= {found.text}"
        beside = decoded if index else source
        yield f"{f'+0x{found.address - start:02x}':<6} {shown:<{_BYTES}}  {beside}".rstrip()
        below = "" if index else decoded
        if rest or below:
            yield f"{'':6} {rest:<{_BYTES}}  {below}".rstrip()


def alike(source: str, decoded: str) -> bool:
    """Whether two texts of one instruction say the same to a reader; a jump's label says more than an address."""
    return _plain(source) == _plain(decoded) or bool(_JUMP.match(source) and _JUMP.match(decoded))


def _plain(text: str) -> str:
    """Without labels before it, spaces, and what the assembler adds: the size that a register tells anyway."""
    text = re.sub(r"^\s*[\w.]+:\s*", "", text.lower().partition("#")[0])
    text = re.sub(r"\b(?:byte|word|dword|qword) ptr\b", "", text)
    text = re.sub(r"\b0x([0-9a-f]+)\b|\b(\d+)\b", lambda m: str(int(m[1], 16) if m[1] else int(m[2])), text)
    return re.sub(r"\s+", "", text)
