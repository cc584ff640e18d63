"""Places in the code as people write them: an address, a label, a label and an offset, a line of a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from ..address import check_address
from ..errors import UsageError
from ..guest.symbols import Symbols
from .prologue import behind_prologue

_LABEL = re.compile(r"(?P<entry>\*)?\s*(?P<label>[A-Za-z_.][\w.]*(?:@[\w./-]+?)?)"
                    r"\s*(?:(?P<sign>[+-])\s*(?P<offset>0x[0-9a-fA-F]+|[0-9]+))?")
_LINE = re.compile(r"(?P<file>[^:]+):(?P<line>[0-9]+)")
_NUMBER = re.compile(r"\*?(0x[0-9a-fA-F_]+|[0-9][0-9_]*)")


def addresses(symbols: Symbols, place: int | str) -> tuple[int, ...]:
    """The addresses of code that ``place`` means; more than one for a line that became several pieces of code.

    ``0xffffffff80003b4b``, ``*0xffffffff80003b4b``, ``kmalloc``, ``kmalloc+0x12``, ``slab.asm:120`` (the next line with
    code, where that one has none); in C, ``helper@more.c`` of several functions with one name, and of a function that
    is nowhere itself, every copy of it in others. A function of C by its name is meant behind the code that makes its
    frame, as in gdb, so that its variables are known (:mod:`.prologue`); ``*helper`` and ``helper+0`` are its very
    first instruction. :class:`UsageError` for what is no place, :class:`SymbolNotFound` for a label that nobody
    defines.
    """
    if isinstance(place, int) and not isinstance(place, bool):
        return (int(place),)
    if not isinstance(place, str):
        raise UsageError(f"a place in the code is an address or a text, not {place!r}")
    text = place.strip()
    number, line, label = _NUMBER.fullmatch(text), _LINE.fullmatch(text), _LABEL.fullmatch(text)
    if number:
        return (int(number[1].replace("_", ""), 0),)
    if line:
        return _line(symbols, line["file"], int(line["line"]))
    if label and not label["sign"] and label["label"] not in symbols and (copies := _copies(symbols, label["label"])):
        return copies
    if label and not label["sign"] and not label["entry"]:
        return (behind_prologue(symbols, int(symbols[label["label"]])),)
    if label:
        return (_labelled(symbols, label),)
    raise UsageError(f"{text!r} is no place in the code: write an address, a label, label+0x12 or file.asm:120")


def address_of(symbols: Symbols, place: int | str) -> int:
    """The one address that a number, a label, or a label and an offset mean, of code or of data.

    :class:`UsageError` for what is no such thing, :class:`SymbolNotFound` for a label that nobody defines.
    """
    if isinstance(place, str) and _LINE.fullmatch(place.strip()):
        raise UsageError(f"an address is a number or a label, not {place!r}")
    label = _LABEL.fullmatch(place.strip()) if isinstance(place, str) else None
    if label and (label["label"] in symbols or label["sign"]):
        address: int | str = _labelled(symbols, label)
    else:
        address = addresses(symbols, place)[0] if isinstance(place, str) else place
    check_address(address)
    return int(address)


def _labelled(symbols: Symbols, label: re.Match[str]) -> int:
    """A label and an offset."""
    offset = int(label["offset"] or "0", 0)
    return int(symbols[label["label"]]) + (-offset if label["sign"] == "-" else offset)


def _line(symbols: Symbols, file: str, number: int) -> tuple[int, ...]:
    files = {name for image in symbols.images for name in image.files if name == file or name.endswith(f"/{file}")}
    if not files:
        known = sorted({name.rsplit("/", 1)[-1] for image in symbols.images for name in image.files})
        near = get_close_matches(file.rsplit("/", 1)[-1], known, 3)
        raise UsageError(f"no source file is called {file!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    lines = [line for name in sorted(files) for line in _lines_with_code(symbols, name) if line[1] >= number]
    if not lines:
        raise UsageError(f"{file} has no code at line {number} or behind it")
    chosen = min(line for _, line, _ in lines)
    return _one_of_each_function(symbols, sorted({start for _, line, start in lines if line == chosen}))


def _copies(symbols: Symbols, name: str) -> tuple[int, ...]:
    """Where the copies of a function of C begin that compilers have put into others."""
    every = (symbols.variables(image.base) for image in symbols.images)
    return tuple(start for variables in every if variables is not None for start in variables.copies(name))


def _one_of_each_function(symbols: Symbols, starts: Iterable[int]) -> tuple[int, ...]:
    """Of the pieces of code that a line of C became the first in each function, and in each copy of one that a
    compiler has put into another, as gdb has it: a loop is begun there, and not every time it goes round."""
    found: dict[tuple[int, int | None], int] = {}
    for start in starts:
        variables = symbols.variables(start)
        function = None if variables is None else variables.function(start)
        found.setdefault((start, None) if function is None else (id(variables), function), start)
    return tuple(found.values())


def asked_line(place: str) -> int | None:
    """The number of the line that a text asks for; None for any other place."""
    line = _LINE.fullmatch(place.strip())
    return int(line["line"]) if line else None


def _lines_with_code(symbols: Symbols, file: str) -> Iterator[tuple[str, int, int]]:
    """(file, line, address) of each stretch of code of one line: where a line begins that is not that before it."""
    for image in symbols.images:
        before: tuple[str, int] | None = None
        for address in sorted(image.lines):
            here = image.lines[address]
            if here[0] == file and here != before and symbols.in_text(address) and image.data_end(address) is None:
                yield here[0], here[1], address
            before = here
