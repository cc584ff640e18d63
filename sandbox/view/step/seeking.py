"""Commands that look for something in the whole run: events, and who accessed or owned some memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ...debugger.expressions import is_bare_address
from ...debugger.lives import history as lives_of
from ...debugger.moment import Access
from ...errors import UsageError
from ...trace.callers import caller_of
from ...trace.events import SCHEMA, Event
from ...trace.functions import KINDS
from ..live import COUNT_WIDTH
from .command import Command
from .moving import moment_of
from .told import here

if TYPE_CHECKING:
    from .session import Session

_TEST = re.compile(r"(?P<name>[a-z_]+)(?P<operator>>=|<=|!=|=|>|<)(?P<value>.+)")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right, "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right, "<": lambda left, right: left < right,
    ">=": lambda left, right: left >= right, "<=": lambda left, right: left <= right,
}
_NUMBERS = frozenset(("sequence", "entered", "instruction", "address", "bytes_req", "bytes_alloc", "slab", "cpu",
                      "parent"))
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_OTHER_NAMES = {"size": "bytes_req", "asked": "bytes_req", "given": "bytes_alloc", "number": "sequence"}
Test = Callable[[Event], bool]
LIVES = 12
"""Lives that a history tells, around this moment; the others are counted."""


# -- which events -----------------------------------------------------------------------------------------------
def wanted(session: Session, text: str) -> Test:
    """What ``text`` asks of an event: ``kind=alloc cache=kmalloc-64 bytes_req>100``, or bare words.

    A word is a kind, a cache, the function, the one that called it, or the ``file:line`` of the call; a number is an
    address inside its memory. All of them must hold. :class:`UsageError` for a name that events do not have.
    """
    tests = [_test(session, word) for word in text.split()]
    return lambda event: all(test(event) for test in tests)


def _test(session: Session, word: str) -> Test:
    found = _TEST.fullmatch(word)
    if found is None:
        return _word(session, word)
    name = _OTHER_NAMES.get(found["name"], found["name"])
    if name not in SCHEMA:
        near = get_close_matches(name, SCHEMA, n=3) or SCHEMA
        raise UsageError(f"events have no {name!r}; they have {', '.join(near)}")
    compare, value = _OPERATORS[found["operator"]], _value(session, name, found["value"])
    if found["operator"] in ("=", "!=") or name in _NUMBERS:
        return lambda event: getattr(event, name) is not None and compare(getattr(event, name), value)
    raise UsageError(f"{name} is no number: compare it with = or !=")


def _value(session: Session, name: str, text: str) -> Any:
    if name in _NUMBERS:
        return session.expressions.value(text)
    if name in ("failed", "unfinished"):
        if text not in _TRUTHS:
            raise UsageError(f"{name} is true or false, not {text!r}")
        return _TRUTHS[text]
    if name == "kind" and text not in KINDS:
        raise UsageError(f"no event is of kind {text!r}; there are {', '.join(KINDS)}")
    return text


def _word(session: Session, word: str) -> Test:
    if word[0].isdigit() or word[0] in "$[" or is_bare_address(word):
        address = session.expressions.value(word)
        return lambda event: event.address <= address < event.address + max(event.bytes_alloc, 1)
    return lambda event: word in (event.kind, event.cache, event.function, *_callers(event)) or \
        (":" in word and any(line.endswith(word) for line in _lines(event)))


def _callers(event: Event) -> tuple[str, str]:
    """The function that called, and the one that asked for it."""
    return event.call_site.partition("+")[0], caller_of(event).function


def _lines(event: Event) -> tuple[str, str]:
    """Their lines."""
    asked = caller_of(event)
    return event.line, f"{asked.file}:{asked.line}" if asked.file else ""


# -- events -----------------------------------------------------------------------------------------------------
def told(session: Session, event: Event) -> str:
    """One event on a line, its number in front."""
    depth = session.run.events.depths[event.sequence]
    return f"#{event.sequence:<4}{event.entered:>{COUNT_WIDTH},}  {session.run.event_lines.told(event, depth)}"


def events(session: Session, argument: str) -> Iterator[str]:
    """The events that are as asked."""
    found = list(filter(wanted(session, argument), session.run.events.every))
    yield from (told(session, event) for event in found)
    if not found:
        yield "no event is like that" if argument else "the allocator was not called"


def search(session: Session, argument: str, forwards: bool = True) -> Iterator[str]:
    """To the next event that is as asked; without a question the last one again."""
    if argument:
        session.sought = argument
    elif not session.sought:
        raise UsageError("what is looked for? search kind=free, search kmalloc-64, search 0xffff...")
    test, now = wanted(session, session.sought), session.timeline.position
    yield from _nearest(session, test, forwards, now, f"no {'later' if forwards else 'earlier'} event is like "
                                                      f"{session.sought!r}")


def _nearest(session: Session, test: Test, forwards: bool, now: int, nothing: str) -> Iterator[str]:
    every = session.run.events.every
    candidates = (event for event in (every if forwards else reversed(every))
                  if (event.entered > now if forwards else event.entered < now) and test(event))
    event = next(candidates, None)
    if event is None:
        raise UsageError(nothing)
    session.timeline.goto(event.entered)
    yield told(session, event)
    yield from here(session)


def next_event(session: Session, argument: str) -> Iterator[str]:
    """To the event after this moment."""
    yield from _nearest(session, wanted(session, argument), True, session.timeline.position, "no event comes after")


def previous_event(session: Session, argument: str) -> Iterator[str]:
    """To the event before this moment."""
    yield from _nearest(session, wanted(session, argument), False, session.timeline.position, "no event comes before")


# -- memory -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Bytes:
    """Some bytes of virtual memory."""

    address: int
    size: int


def bytes_of(session: Session, text: str) -> Bytes:
    """``ADDRESS [SIZE]``; without a size all of what has a name there: a field, or a word."""
    address_text, _, size_text = text.rpartition(" ")
    if address_text and re.fullmatch(r"[0-9]+", size_text) and address_text.rstrip()[-1:] not in "+-*":
        return Bytes(session.value(address_text), session.count(size_text))
    variable = session.variable(text)
    if variable is not None:
        return Bytes(*variable)
    address = session.value(text)
    name = session.scene.names.name(address)
    fits = name.at <= address and 0 < name.width <= 8
    return Bytes(name.at, name.width) if fits else Bytes(address, 8)


def who(session: Session, argument: str, wrote: bool) -> Iterator[str]:
    """The last access to some bytes before this moment."""
    found = accessed(session, argument, wrote)
    place = bytes_of(session, argument)
    if found is None:
        yield f"nobody has {'written' if wrote else 'read'} the {place.size} bytes at 0x{place.address:016x} before"
        return
    yield str(found)
    line = session.timeline.kernel.line(found.rip) if found.by == "instruction" else None
    if line is not None:
        yield f"{line.number:>6}  {line.text.strip()}"


def accessed(session: Session, argument: str, wrote: bool) -> Access | None:
    """The same, for a program: the access, None where there was none."""
    place = bytes_of(session, argument)
    session.timeline.kernel.memory.read(place.address, place.size)
    ask = session.timeline.who_wrote if wrote else session.timeline.who_read
    return ask(place.address, place.size)


def history(session: Session, argument: str) -> Iterator[str]:
    """The lives of the memory at a pointer, those around now."""
    pointer = session.value(argument)
    now = session.timeline.position
    lives = lives_of(session.run.events.every, pointer, LIVES, around=now)
    yield f"0x{pointer:016x}: {lives.every:,} {'life' if lives.every == 1 else 'lives'}"
    if lives.earlier:
        yield f"and {lives.earlier:,} before these"
    for number, life in enumerate(lives, lives.earlier + 1):
        head, *others = str(life).splitlines()
        yield f"{number:,}. {head}{'  (to come)' if life.began is not None and life.began > now else ''}"
        yield from others
    if lives.later:
        yield f"and {lives.later:,} after these"


def diff(session: Session, argument: str) -> Iterator[str]:
    """What differs between two moments."""
    pieces = argument.split()
    if len(pieces) != 2:
        raise UsageError("diff compares two moments: diff 108,904 . (the dot is here)")
    before, after = (moment_of(session, piece) for piece in pieces)
    yield from str(session.timeline.diff(before, after)).splitlines()


SEEKING = (
    Command("events", (), "[TEST...]", "the events that are as asked: kind=alloc cache=kmalloc-64 size>100", events),
    Command("search", ("/",), "[TEST...]", "to the next event that is as asked; alone: the same again", search, True),
    Command("search-back", (), "[TEST...]", "to the previous one",
            lambda session, argument: search(session, argument, forwards=False), True),
    Command("next-event", ("e", "]"), "[TEST...]", "to the next event", next_event, True),
    Command("previous-event", ("E", "["), "[TEST...]", "to the previous event", previous_event, True),
    Command("who-wrote", ("w",), "ADDRESS [SIZE]", "the last store to memory before now",
            lambda session, argument: who(session, argument, wrote=True)),
    Command("who-read", ("r",), "ADDRESS [SIZE]", "the last load",
            lambda session, argument: who(session, argument, wrote=False)),
    Command("history", (), "ADDRESS", "the lives of the memory at a pointer, those around now", history),
    Command("diff", (), "MOMENT MOMENT", "what differs between two moments", diff),
)
