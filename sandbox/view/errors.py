"""A guest's end in words: what was wrong, who had called, and what the registers held."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..errors import GuestError
from ..guest.symbols import Symbols
from ..x86 import REGISTERS

_FRAME = re.compile(r"(?P<where>\S+) \((?P<file>.+):(?P<line>\d+)\)")
_REGISTERS_ON_A_LINE = 3


def report(error: GuestError, symbols: Symbols, explanations: Sequence[str] = (),
           with_registers: bool = True) -> Iterator[str]:
    """The error, what ``explanations`` add to it, the backtrace with source lines, and the registers."""
    yield str(error)
    yield from (f"  {text}" for text in explanations)
    if error.backtrace:
        yield ""
        yield "backtrace, innermost first"
        yield from backtrace(error.backtrace, symbols)
    if error.registers and with_registers:
        yield ""
        yield "registers"
        yield from registers(error)


def backtrace(frames: Sequence[str], symbols: Symbols) -> Iterator[str]:
    """Each frame (``function+0x12 (file:line)``), and below it the line of source where it stands. Of frames that
    repeat, as a recursion's do, the first is shown and the others are counted."""
    for depth, frame in enumerate(frames):
        if depth and frame == frames[depth - 1]:
            if depth + 1 == len(frames) or frames[depth + 1] != frame:
                yield f"          ... {_repeats(frames, depth)} more like this"
            continue
        yield f"  {depth:>2}  {frame}"
        found = _FRAME.fullmatch(frame)
        source = source_line(symbols, found["file"], int(found["line"])) if found else ""
        if source:
            yield f"          {source}"


def _repeats(frames: Sequence[str], last: int) -> int:
    """How many frames up to ``last`` are the same as the one before them."""
    first = last
    while first and frames[first - 1] == frames[last]:
        first -= 1
    return last - first


def source_line(symbols: Symbols, file: str, number: int) -> str:
    """The text of a line, without the blanks around it; empty where the source is not known."""
    text = next((image.files[file] for image in symbols.images if file in image.files), "")
    lines = text.split("\n")
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def registers(error: GuestError) -> Iterator[str]:
    """Three registers on a line, RIP and RFLAGS last."""
    known = [name for name in REGISTERS if name in error.registers]
    for at in range(0, len(known), _REGISTERS_ON_A_LINE):
        yield "  ".join(f"{name:>8} {error.registers[name]:016x}" for name in known[at : at + _REGISTERS_ON_A_LINE])
