"""Breakpoints and watchpoints, and the commands that run from one to the next, in either direction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...debugger.places import asked_line
from ...debugger.search import Hit, Watch
from .command import Command
from .moving import not_at_the_end, not_at_the_start, place
from .told import here

if TYPE_CHECKING:
    from .session import Session


def onwards(session: Session, argument: str) -> Iterator[str]:
    """To the next breakpoint, or to the end of the run."""
    not_at_the_end(session)
    yield from _to_breakpoint(session, argument, forwards=True)


def reverse_continue(session: Session, argument: str) -> Iterator[str]:
    """To the previous breakpoint, or to the start of the run."""
    not_at_the_start(session)
    yield from _to_breakpoint(session, argument, forwards=False)


def _to_breakpoint(session: Session, argument: str, forwards: bool) -> Iterator[str]:
    timeline, points = session.timeline, session.breakpoints
    hit: Hit | None = None
    for _ in range(session.count(argument)):
        hit = timeline.search(forwards, points.addresses, points.watches) if len(points) else None
        timeline.goto(hit.instruction if hit is not None else timeline.length if forwards else timeline.start)
        if hit is None:
            break
    yield from _stopped(session, hit)
    yield from here(session)


def _stopped(session: Session, hit: Hit | None) -> Iterator[str]:
    """At which breakpoints it stopped."""
    if hit is None:
        return
    for known in session.breakpoints.at(hit.rip) if hit.watch is None else session.breakpoints.of(hit.watch):
        yield f"{known.kind} {known.number}, {known.text}"
    if hit.access is not None:
        yield str(hit.access)


def break_at(session: Session, argument: str) -> Iterator[str]:
    """Stop whenever a place is reached."""
    found = place(session, argument)
    text = argument or session.scene.moment.location.partition(" ")[0]
    added = session.breakpoints.add(text, found)
    where = ", ".join(str(session.timeline.kernel.symbolize(address)) for address in found)
    yield f"breakpoint {added.number}: {where}"
    line, there = asked_line(text), session.timeline.kernel.line(found[0])
    line = int(text) if line is None and text.isdecimal() else line
    if line is not None and there is not None and there.number != line:
        yield f"line {line} has no code; the next that has is {there.number}"


def watch(session: Session, argument: str, read: bool = False, write: bool = True) -> Iterator[str]:
    """Stop whenever memory is accessed."""
    text, _, size = argument.partition(",")
    variable = None if size else session.variable(text.strip())
    address, length = variable or (session.value(text), session.count(size) if size else 8)
    session.timeline.kernel.memory.read(address, length)         # what is not mapped cannot be watched
    added = session.breakpoints.add(text.strip(), (), Watch(address, length, read, write))
    yield f"{added.kind} {added.number}: {length} byte{'' if length == 1 else 's'} at 0x{address:016x}, " \
          f"{session.scene.locals.name(address) or session.scene.names.name(address)}"


def delete(session: Session, argument: str) -> Iterator[str]:
    """Take breakpoints away."""
    if not argument:
        yield f"{session.breakpoints.clear()} deleted"
        return
    for number in argument.split():
        gone = session.breakpoints.delete(session.count(number))
        yield f"deleted {gone.kind} {gone.number}, {gone.text}"


STOPPING = (
    Command("break", ("b",), "[PLACE]", "stop at PLACE: kmalloc, slab.asm:120, a line of this file, *0x...", break_at),
    Command("watch", (), "ADDRESS[,SIZE]", "stop before bytes are written (8, or a C variable's own)", watch),
    Command("rwatch", (), "ADDRESS[,SIZE]", "stop before bytes are read",
            lambda session, argument: watch(session, argument, read=True, write=False)),
    Command("awatch", (), "ADDRESS[,SIZE]", "stop before bytes are read or written",
            lambda session, argument: watch(session, argument, read=True, write=True)),
    Command("delete", ("d",), "[NUMBER...]", "take breakpoints away, all of them when none is named", delete),
    Command("continue", ("c",), "[N]", "to the next breakpoint, or to the end", onwards, True),
    Command("reverse-continue", ("C", "rc"), "[N]", "to the previous breakpoint, or to the start", reverse_continue,
            True),
)
