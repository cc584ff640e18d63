"""A function as its author wrote it, with the bytes that it became beside each line.

::

    +0x00  55                    push rbp
    +0x01  48 89 e5              mov rbp, rsp
    +0x04  48 81 ff 00 20 00 00  cmp rdi, KMALLOC_MAX           # larger ones are pages
                                 = cmp rdi, 0x2000

A line that begins with ``=`` is what the processor decodes, where the source says it in other words: a constant's
name, a macro, an alias. Of C, each line stands above the instructions that it became::

        6      struct node *node = malloc(sizeof *node);
    +0x14  e8 cf 00 00 00        call malloc
    +0x19  48 89 45 f8           mov qword ptr [rbp - 8], rax        # node
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from ..debugger.locals import variable_at
from ..errors import UsageError
from ..guest.symbols import Symbols
from ..toolchain.disassembler import Disassembler, Instruction
from ..toolchain.image import Image
from ..toolchain.source import SourceLine

BYTES_SHOWN = 7
"""Bytes on one row; a longer instruction goes on below."""
_BYTES = 3 * BYTES_SHOWN - 1
_PADDING = ("nop", "int3")
_FRAME_OPERAND = re.compile(r"\[(?P<register>r[bs]p) (?P<sign>[+-]) (?P<offset>0x[0-9a-f]+|\d+)\]")
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
    yield from _rows(symbols, image, start, end)


def _rows(symbols: Symbols, image: Image, start: int, end: int) -> Iterator[str]:
    """Source and bytes; lines of the function's file that became no bytes are shown where they stand."""
    first = image.line(start)
    if first is not None and first.is_c:
        yield from _c_rows(symbols, image, start, end, first.file)
        return
    file, shown = (first.file, _comment_above(image, first)) if first else ("", 0)
    code = Disassembler().code(image, start, end)
    for line, instructions in groupby(code, key=lambda found: image.line(found.address)):
        if line is not None and line.file == file:
            for silent in range(shown + 1, line.number):
                yield _text_of(image, file, silent)
            shown = max(shown, line.number)
        yield from _line(line, file, list(instructions), start)


def _c_rows(symbols: Symbols, image: Image, start: int, end: int, file: str) -> Iterator[str]:
    """Lines of C, and below each the instructions that it became there; a line may come several times. Operands in the
    function's frame are told by their variables."""
    code = [found for found in Disassembler().code(image, start, end) if image.line(found.address) is not None]
    while code and code[-1].mnemonic.split()[-1] in _PADDING:
        code.pop()
    for line, instructions in groupby(code, key=lambda found: image.line(found.address)):
        assert line is not None
        yield f"{line.number:>5}  {line.text.rstrip()}" + (f"  [{line.file}]" if line.file != file else "")
        for found in instructions:
            shown, rest = found.bytes[:BYTES_SHOWN].hex(" "), found.bytes[BYTES_SHOWN:].hex(" ")
            operand = _FRAME_OPERAND.search(found.text)
            sign = -1 if operand and operand["sign"] == "-" else 1
            variable = variable_at(symbols, found.address, operand["register"], sign * int(operand["offset"], 0)) \
                if operand else ""
            text = f"{found.text:<34}  # {variable}" if variable else found.text
            yield f"{f'+0x{found.address - start:02x}':<6} {shown:<{_BYTES}}  {text}"
            if rest:
                yield f"{'':6} {rest}"


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
