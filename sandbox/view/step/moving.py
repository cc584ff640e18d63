"""Commands that go somewhere in a run: by instructions and calls, by lines, to places, by the clock.

Each ends by saying where it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ...debugger.moment import Moment
from ...debugger.places import addresses
from ...errors import PositionError, UsageError
from .command import Command
from .told import ending, here

if TYPE_CHECKING:
    from .session import Session

_LINE = re.compile(r"[0-9]{1,6}")
_LIMIT = 100_000
"""Returns to deeper frames that ``until`` passes over, a recursion of that depth."""


# -- by instructions and calls ----------------------------------------------------------------------------------
def step(session: Session, argument: str) -> Iterator[str]:
    """Instructions forwards."""
    timeline, count = session.timeline, session.count(argument)
    not_at_the_end(session)
    timeline.goto(min(timeline.position + count, timeline.length))
    yield from here(session)


def back(session: Session, argument: str) -> Iterator[str]:
    """Instructions backwards."""
    timeline, count = session.timeline, session.count(argument)
    not_at_the_start(session)
    timeline.goto(max(timeline.position - count, timeline.start))
    yield from here(session)


def following(session: Session, argument: str) -> Iterator[str]:
    """Instructions forwards, calls as one."""
    yield from _times(session, argument, session.timeline.next, not_at_the_end)


def reverse_next(session: Session, argument: str) -> Iterator[str]:
    """Instructions backwards, calls as one."""
    yield from _times(session, argument, session.timeline.reverse_next, not_at_the_start)


def finish(session: Session, argument: str) -> Iterator[str]:
    """To the return of this function."""
    yield from _times(session, argument, session.timeline.finish, not_at_the_end)


def reverse_finish(session: Session, argument: str) -> Iterator[str]:
    """To the call of this function."""
    yield from _times(session, argument, session.timeline.reverse_finish, not_at_the_start)


def _times(session: Session, argument: str, move: Callable[[], Moment], possible: Callable[[Session], None]
           ) -> Iterator[str]:
    """A move again and again; where it cannot go on, it stays at what it has reached."""
    possible(session)
    start = session.timeline.position
    for _ in range(session.count(argument)):
        before = session.timeline.position
        try:
            move()
        except (PositionError, UsageError):
            if before == start:
                raise
            break
        if session.timeline.position == before:
            break
    yield from here(session)


def not_at_the_end(session: Session) -> None:
    """:class:`UsageError` where nothing comes any more."""
    if session.timeline.position == session.timeline.length:
        raise UsageError(f"this is {ending(session.scene)}")


def not_at_the_start(session: Session) -> None:
    """:class:`UsageError` where nothing was before."""
    if session.timeline.position == session.timeline.start:
        raise UsageError("this is the start of the run")


def step_line(session: Session, argument: str) -> Iterator[str]:
    """Source lines forwards."""
    yield from _times(session, argument, session.timeline.step_line, not_at_the_end)


def reverse_step_line(session: Session, argument: str) -> Iterator[str]:
    """Source lines backwards."""
    yield from _times(session, argument, session.timeline.reverse_step_line, not_at_the_start)


def next_line(session: Session, argument: str) -> Iterator[str]:
    """Source lines forwards, calls as part of them."""
    yield from _times(session, argument, session.timeline.next_line, not_at_the_end)


def reverse_next_line(session: Session, argument: str) -> Iterator[str]:
    """Source lines backwards, calls as part of them."""
    yield from _times(session, argument, session.timeline.reverse_next_line, not_at_the_start)


# -- by lines and places ----------------------------------------------------------------------------------------
def until(session: Session, argument: str) -> Iterator[str]:
    """To a place; without one to a later line of this function, past its loops, or to where it returns."""
    if argument:
        yield from _to_place(session, argument, forwards=True)
        return
    not_at_the_end(session)
    yield from _other_line(session, forwards=True)


def reverse_until(session: Session, argument: str) -> Iterator[str]:
    """Back to a place; without one to an earlier line of this function, or to its call."""
    if argument:
        yield from _to_place(session, argument, forwards=False)
        return
    not_at_the_start(session)
    yield from _other_line(session, forwards=False)


def _other_line(session: Session, forwards: bool) -> Iterator[str]:
    scene, timeline = session.scene, session.timeline
    wanted, depth, start = _lines(session, forwards), len(scene.frames), timeline.position
    for _ in range(_LIMIT):
        hit = timeline.search(forwards, wanted) if wanted else None
        if hit is None:
            break
        timeline.goto(hit.instruction)
        if len(session.scene.frames) <= depth:
            yield from here(session)
            return
    timeline.goto(start)
    yield from finish(session, "") if forwards else reverse_finish(session, "")


def _lines(session: Session, forwards: bool) -> frozenset[int]:
    """Where later or earlier lines of this function begin, and, forwards, where its caller goes on."""
    scene = session.scene
    body = session.run.body(scene.moment.rip)
    if scene.image is None or scene.line is None or not body:
        raise UsageError("no source line is known here: step by instructions")
    number = scene.line.number
    found = {address for address, (file, line) in scene.image.lines.items() if address in body
             and file == scene.line.file and (line > number if forwards else 0 < line < number)}
    callers = [frame.partition(" ")[0] for frame in scene.frames[1:2]]
    return frozenset(found.union(*(addresses(session.timeline.kernel.symbols, f"*{caller}") for caller in callers))
                     if forwards else found)


def _to_place(session: Session, argument: str, forwards: bool) -> Iterator[str]:
    hit = session.timeline.search(forwards, place(session, argument))
    if hit is None:
        raise UsageError(f"{argument} is not reached {'after' if forwards else 'before'} this moment")
    session.timeline.goto(hit.instruction)
    yield from here(session)


def place(session: Session, text: str) -> tuple[int, ...]:
    """The addresses of a place in the code; a bare number is a line of the present file, as in gdb."""
    if not text:
        return (session.scene.moment.rip,)
    if _LINE.fullmatch(text):
        if session.scene.line is None:
            raise UsageError(f"{text} is a line of which file? Write file.asm:{text}, or an address as *0x...")
        text = f"{session.scene.line.file}:{text}"
    return addresses(session.timeline.kernel.symbols, text)


# -- by the clock -----------------------------------------------------------------------------------------------
def goto(session: Session, argument: str) -> Iterator[str]:
    """To an instruction of the run."""
    session.timeline.goto(moment_of(session, argument))
    yield from here(session)


def moment_of(session: Session, text: str) -> int:
    """``23,117``, ``@23,117``, ``50%``, ``+100``, ``-100``, ``#7`` (an event), ``start``, ``end``, ``.`` (here)."""
    timeline, text = session.timeline, text.strip().removeprefix("@")
    words = {"start": timeline.start, "<": timeline.start, "end": timeline.length, ">": timeline.length,
             ".": timeline.position}
    if not text:
        raise UsageError("which instruction? A number, +N, -N, 50%, #EVENT, start or end")
    if text in words:
        return words[text]
    if text.endswith("%"):
        return timeline.start + (timeline.length - timeline.start) * _percent(text[:-1]) // 10_000
    if text.startswith("#"):
        return session.event(text).entered
    if text[0] in "+-":
        distance = session.count(text[1:])
        return timeline.position + (distance if text[0] == "+" else -distance)
    return session.expressions.value(text)


def _percent(text: str) -> int:
    """Hundredths of a percent."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise UsageError(f"{text}% is no part of a run: write 0% to 100%")
    return round(value * 100)


MOVING = (
    Command("step", ("s", "si", "stepi"), "[N]", "one instruction forwards, or N", step, True),
    Command("back", ("S", "rsi", "reverse-step", "reverse-stepi", "rs"), "[N]", "one instruction backwards, or N",
            back, True),
    Command("next", ("n", "ni", "nexti"), "[N]", "the same forwards, over calls and interrupts", following, True),
    Command("reverse-next", ("N", "rn", "rni", "reverse-nexti"), "[N]", "the same backwards, over calls and interrupts",
            reverse_next, True),
    Command("next-line", ("nl",), "[N]", "one source line forwards, or N, over calls", next_line, True),
    Command("reverse-next-line", ("rnl",), "[N]", "one source line backwards, over calls", reverse_next_line, True),
    Command("step-line", ("sl",), "[N]", "one source line forwards, into the program's own functions", step_line, True),
    Command("reverse-step-line", ("rsl",), "[N]", "one source line backwards, into them", reverse_step_line, True),
    Command("finish", ("f", "fin"), "[N]", "to the return of this function", finish, True),
    Command("reverse-finish", ("F",), "[N]", "back to the call of this function", reverse_finish, True),
    Command("until", ("u", "advance"), "[PLACE]", "to a later line of this function, past its loops; or to PLACE",
            until, True),
    Command("reverse-until", ("U", "back-to"), "[PLACE]", "back to an earlier line of this function; or to PLACE",
            reverse_until, True),
    Command("goto", ("g",), "MOMENT", "to an instruction: 23117, +10, -10, 50%, #EVENT, start, end", goto),
)
