"""Who asked: of the frames of a call, the innermost one that is not in our C library.

A program's ``malloc`` is a function of the library that calls ``kmalloc``; what its reader wants to know is the line
of his own that called ``malloc``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .events import Event

LIBRARY = "libc/"
"""How the names of the C library's sources begin."""
_FRAME = re.compile(r"(?P<site>\S+)(?: \((?P<file>.+):(?P<line>\d+)\))?")


class Caller(NamedTuple):
    """A frame: ``site`` is ``function+0x12``; ``file`` is empty and ``line`` 0 where no source is known."""

    site: str
    file: str = ""
    line: int = 0

    @property
    def function(self) -> str:
        """The function alone."""
        return self.site.partition("+")[0]

    def __str__(self) -> str:
        return f"{self.site} ({self.file}:{self.line})" if self.file else self.site


def caller(stack: Sequence[str]) -> Caller:
    """Of ``function+0x12 (file:line)``, innermost first, the first outside of the library; the first where all are
    inside."""
    every = [_parsed(frame) for frame in stack]
    return next((frame for frame in every if not frame.file.startswith(LIBRARY)), every[0] if every else Caller(""))


def caller_of(event: Event) -> Caller:
    """Who asked for an event."""
    return caller(event.stack) if event.stack else Caller(event.call_site)


def _parsed(frame: str) -> Caller:
    found = _FRAME.fullmatch(frame)
    return Caller(frame) if found is None else Caller(found["site"], found["file"] or "", int(found["line"] or 0))
