"""Source text: files, lines without their comments, and the statements on them.

One text serves every assembler: Intel syntax, ``#`` comments anywhere outside quotes, ``label:`` before a statement,
and one statement a line. Comments are taken away here (Keystone knows none after an instruction), and what no
assembler agrees on (``;``, text that is not ASCII, a quote without its partner) is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AssemblyError, ProgramError

MAX_SOURCE_BYTES = 1 << 20
"""The largest file that is read as source, or by ``.incbin``: far beyond any program of a course."""

NAME = r"[A-Za-z_.][A-Za-z0-9_.]*"
_LABEL = re.compile(rf"({NAME})\s*:")
_NUMERIC_LABEL = re.compile(r"(\d+)\s*:")
_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "\\": 92, '"': 34, "'": 39}


def is_c(file: str) -> bool:
    """Whether a source file is C, by its name."""
    return file.rpartition(".")[2] in ("c", "h")


def parts(file: str, text: str) -> tuple[str, str]:
    """Code and comment of one line of a file, for readers; what stands in quotes begins no comment."""
    begins = ("//", "/*") if is_c(file) else ("#",)
    quoted = False
    for at, character in enumerate(text):
        quoted ^= character == '"' and text[at - 1 : at] != "\\"
        if not quoted and text.startswith(begins, at):
            return text[:at].rstrip() or text[:at], text[at:]
    return text, ""


@dataclass(frozen=True)
class SourceLine:
    """A line of a file, numbered from 1, as it was written."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def is_c(self) -> bool:
        """Whether it is C, and no assembly."""
        return is_c(self.file)

    @property
    def code(self) -> str:
        """What a reader takes for the code of it: no comment, no blanks around it."""
        return parts(self.file, self.text)[0].strip()

    def error(self, reason: str) -> AssemblyError:
        """The error that blames this line."""
        return AssemblyError(self.file, self.number, reason, self.text)


@dataclass(frozen=True)
class Source:
    """One file: the name it is called by in messages, its text, and the directory that its includes start from."""

    name: str
    text: str
    directory: Path

    @classmethod
    def read(cls, path: Path | str, name: str | None = None) -> Source:
        """The file at ``path``; :class:`ProgramError` when it is missing, too large, or not UTF-8 text."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SOURCE_BYTES + 1)
        except FileNotFoundError:
            raise ProgramError(path, "no such file") from None
        except (OSError, ValueError) as error:
            raise ProgramError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if len(data) > MAX_SOURCE_BYTES:
            raise ProgramError(path, f"larger than {MAX_SOURCE_BYTES >> 20} MiB")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise ProgramError(path, "not a text file (UTF-8)")
        return cls(name or str(path), text, path.parent)

    def lines(self) -> Iterator[SourceLine]:
        """Every line, in order."""
        for number, text in enumerate(self.text.split("\n"), 1):
            yield SourceLine(self.name, number, text.rstrip("\r"))


def strip_comment(line: SourceLine) -> str:
    """The line's text before its ``#`` comment; :class:`AssemblyError` for what no dialect agrees on."""
    text, at, end = line.text, 0, len(line.text)
    while at < end:
        character = text[at]
        if character == "#":
            return text[:at].strip()
        if character == '"':
            at = _end_of_string(text, at)
            if at < 0:
                raise line.error('a quotation mark (") has no partner on this line')
            continue
        if character == "'":
            at += 3 if text[at + 1 : at + 2] == "\\" else 2
            if text[at : at + 1] != "'":
                raise line.error("a character constant is one character between two ' marks")
        elif character == ";":
            raise line.error("';' separates statements for an assembler: write comments with '#', "
                             "and one statement a line")
        elif not (character.isascii() and (character.isprintable() or character == "\t")):
            raise line.error(f"{character!a} is not ASCII text: only comments may hold it")
        at += 1
    return text.strip()


def _end_of_string(text: str, start: int) -> int:
    """The index just past the string that opens at ``start``, or -1 when it never closes."""
    at = start + 1
    while at < len(text):
        if text[at] == '"':
            return at + 1
        at += 2 if text[at] == "\\" else 1
    return -1


def split_labels(text: str, line: SourceLine) -> tuple[list[str], str]:
    """The labels at the start of a stripped line, and the statement behind them."""
    labels = []
    while True:
        if found := _LABEL.match(text):
            labels.append(found.group(1))
        elif _NUMERIC_LABEL.match(text):
            raise line.error("numeric labels (1: ... 1b) are not understood: write .Lfunction_step")
        else:
            return labels, text
        text = text[found.end():].lstrip()


def split_operands(text: str) -> list[str]:
    """Split at the commas that lie outside quotes and brackets; no text at all is no operand."""
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        character = text[at]
        if character == '"':
            end = _end_of_string(text, at)
            at = end if end > 0 else len(text)
            continue
        if character == "'":
            at += 3 if text[at + 1 : at + 2] == "\\" else 2
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    last = text[start:].strip()
    return [*parts, last] if parts or last else []


def string_bytes(literal: str, line: SourceLine) -> bytes:
    """The bytes of a quoted string: ASCII, with the escapes that GNU as and LLVM share."""
    literal = literal.strip()
    if not literal.startswith('"') or _end_of_string(literal, 0) != len(literal):
        raise line.error(f"expected a string in quotation marks, not {literal!r}")
    body, result, at = literal[1:-1], bytearray(), 0
    while at < len(body):
        if body[at] != "\\":
            result.append(ord(body[at]))
            at += 1
        elif octal := re.match(r"[0-7]{1,3}", body[at + 1:]):
            value = int(octal.group(), 8)
            if value > 0xFF:
                raise line.error(f"\\{octal.group()} is more than a byte")
            result.append(value)
            at += 1 + octal.end()
        elif body[at + 1] in _ESCAPES:
            result.append(_ESCAPES[body[at + 1]])
            at += 2
        else:
            raise line.error(f"unknown escape \\{body[at + 1]} in a string "
                             "(known: \\n \\t \\r \\b \\f \\\\ \\\" and up to three octal digits)")
    return bytes(result)


def character_value(literal: str) -> int:
    """The value of a character constant with both its quotes; KeyError for an unknown escape."""
    body = literal[1:-1]
    return _ESCAPES[body[1]] if body.startswith("\\") else ord(body)
