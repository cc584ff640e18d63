"""An event told line by line, as a record and as text in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..trace.events import Event
from .wrap import WIDTH, wrapped

_EFFECT = 38
"""The column at which effects begin where the source leaves room."""


@dataclass(frozen=True)
class Line:
    """One row of a narration.

    ``kind`` is ``line`` (source lines: one, or a few that belong together), ``instruction`` (one of several that a line
    became), ``enter`` (a function begins), ``call`` (a call in one line), ``event`` (an event in one line),
    ``interrupt``, ``loop`` (the lines above ran ``times`` times more), or ``cut`` (the rest is not told).
    ``instruction`` is the count at which it began, ``instructions`` how many it took, ``depth`` how deep it lies;
    ``text`` is the source, the call or the function's name, ``effects`` what it did.
    """

    kind: str
    instruction: int
    depth: int
    text: str
    place: str = ""
    instructions: int = 1
    effects: tuple[str, ...] = ()
    times: int = 0
    event: Event | None = None


@dataclass(frozen=True)
class Narration:
    """One event, told; ``str()`` is the text in 80 columns."""

    event: Event
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        return "\n".join(_rows(self))


# -- the text ----------------------------------------------------------------------------------------------------
def _rows(narration: Narration) -> Iterator[str]:
    """The text, one line after the other."""
    event = narration.event
    yield from wrapped(f"event {event.sequence}: {_summary(event)}")
    yield from (f"  {frame}" for frame in event.stack[:2])
    yield f"  {event.instructions:,} instructions, from {event.entered:,} to {event.instruction:,}"
    width = len(f"{event.instruction:,}") + 2
    for line in narration.lines:
        yield from _row(line, width)


def _summary(event: Event) -> str:
    """``kmalloc(40) = 0xffff88800025e000``."""
    if event.kind in ("free", "page_free", "slab_destroy", "cache_destroy"):
        return f"{event.function}(0x{event.address:x})"
    asked = event.cache if event.function.startswith(("kmem_cache_alloc", "slab_create")) else f"{event.bytes_req:,}"
    result = "never returned" if event.unfinished else "0" if event.failed else f"0x{event.address:x}"
    return f"{event.function}({asked}) = {result}"


def _row(line: Line, width: int) -> Iterator[str]:
    """One line behind its instruction count, which has ``width`` columns."""
    indent = "  " * line.depth
    blank = f"{'':{width}}  {indent}"
    count = f"{line.instruction:>{width},}  {indent}"
    if line.kind == "enter":
        yield ""
        yield f"{blank}{line.text}" + (f"  {line.place}" if line.place else "")
    elif line.kind == "loop":
        times = "once more" if line.times == 1 else f"{line.times:,} times more"
        yield f"{blank}... {times}, {_many(line)}"
    elif line.kind == "cut":
        yield f"{count}... {_many(line)} more are not told"
    elif line.kind == "event" and line.event is not None:
        yield from _with(f"{count}call {_summary(line.event)}", (f"event {line.event.sequence}, {_many(line)}",), width)
    elif line.kind == "call":
        yield from _with(f"{count}call {line.text}", (_many(line), *line.effects), width)
    elif line.kind == "interrupt":
        yield from _with(f"{count}interrupted: {line.text}", (_many(line),), width)
    else:
        yield from _with(f"{count}{'  ' if line.kind == 'instruction' else ''}{line.text}", line.effects, width)


def _many(line: Line) -> str:
    return f"{line.instructions:,} instruction{'' if line.instructions == 1 else 's'}"


def _with(text: str, effects: tuple[str, ...], width: int) -> Iterator[str]:
    """A row, and what it did beside it, or below it where there is no room."""
    words = "; ".join(effects)
    beside = f"{text:<{_EFFECT}}  {words}".rstrip()
    if len(beside) <= WIDTH:
        yield beside
        return
    yield from wrapped(text, "", " " * (width + 4)) if len(text) > WIDTH else (text,)
    if words:
        below = " " * (width + 6)
        yield from wrapped(words, below, f"{below}  ")
