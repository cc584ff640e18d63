"""Rows of text whose parts have a meaning: what panes are made of, before any terminal or colour.

A :class:`Row` is a line of text with marks, each a range of it and the name of a style (:data:`STYLES`). What matters
is in the text itself; a style only helps the eye, so that a screen without colour says the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len, set_cell_size

STYLES = ("title", "focus", "place", "count", "address", "function", "comment", "label", "current", "changed", "used",
          "cached", "free", "unknown", "cursor", "dim", "good", "bad", "key")
"""What a part of a row can be."""
ELLIPSIS = "…"


@dataclass(frozen=True)
class Mark:
    """The characters from ``start`` up to ``end`` have ``style``."""

    start: int
    end: int
    style: str


@dataclass(frozen=True)
class Row:
    """One line on a screen; its width is in terminal cells."""

    text: str = ""
    marks: tuple[Mark, ...] = ()

    @classmethod
    def of(cls, *parts: str | tuple[str, str]) -> Row:
        """A row of its parts, each a text or a pair of text and style."""
        text, marks = "", []
        for part in parts:
            piece, style = (part, "") if isinstance(part, str) else part
            if style and piece:
                marks.append(Mark(len(text), len(text) + len(piece), style))
            text += piece
        return cls(text, tuple(marks))

    @property
    def width(self) -> int:
        """Terminal cells that the text takes."""
        return len(self.text) if self.text.isascii() else cell_len(self.text)

    def fit(self, width: int) -> Row:
        """Exactly ``width`` cells: filled up with blanks, or cut, with an ellipsis where something is missing."""
        if self.width <= width:
            return Row(self.text + " " * (width - self.width), self.marks)
        cut = set_cell_size(self.text, max(width - 1, 0)) + ELLIPSIS[:width]
        return Row(cut, tuple(Mark(mark.start, min(mark.end, len(cut)), mark.style) for mark in self.marks
                              if mark.start < len(cut)))

    def styled(self, style: str) -> Row:
        """The same, the whole of it in ``style`` below the marks that it has."""
        return Row(self.text, (Mark(0, len(self.text), style), *self.marks))

    def __add__(self, other: Row) -> Row:
        shift = len(self.text)
        return Row(self.text + other.text, (*self.marks, *(Mark(mark.start + shift, mark.end + shift, mark.style)
                                                           for mark in other.marks)))


def block(rows: Iterable[Row], width: int, height: int) -> list[Row]:
    """Exactly ``height`` rows of exactly ``width`` cells."""
    shown = [row.fit(width) for row, _ in zip(rows, range(height), strict=False)]
    return shown + [Row(" " * width)] * (height - len(shown))


def wrapped(text: str, width: int, height: int, indent: str = "") -> list[Row]:
    """A sentence on at most ``height`` rows; the last one ends in an ellipsis where it is not the end."""
    lines = wrap(text, max(width, 1), subsequent_indent=indent, break_on_hyphens=False) or [""]
    if len(lines) > height:
        lines[height - 1] = f"{lines[height - 1]} {lines[height].strip()}"
    return [Row(line).fit(width) for line in lines[:height]]


def window(count: int, height: int, at: int) -> range:
    """Which of ``count`` rows ``height`` of them show, with row ``at`` among them and near the middle."""
    first = max(0, min(at - height // 2, count - height))
    return range(first, min(first + height, count))


NARROW = 60
"""Below this width addresses are written without the digits that are the same in all of RAM (:func:`short_address`)."""


def short_address(address: int) -> str:
    """The nine digits that tell places in RAM apart, behind an ellipsis."""
    return f"{ELLIPSIS}{address & 0xF_FFFF_FFFF:09x}"


def harmless(text: str) -> str:
    """Without what a terminal would obey: a guest's escape sequences are shown, not carried out."""
    return "".join(character if character.isprintable() else "    " if character == "\t" else
                   f"\\x{ord(character):02x}" for character in text)
