"""Assertions about a whole trace: what always holds, what never happens, what happens at some time.

::

    kernel.trace.never(kind="free", cache="kmalloc-64")
    first = kernel.trace.eventually(kind="slab_create")
    kernel.trace.always(lambda event: event.instructions < 2000, kind="alloc", after=first)

What is wanted is said by the fields of events, as for :meth:`~sandbox.trace.trace.Trace.events`, by a function of an
event, or by both. The three words are those of temporal logic (Pnueli, "The temporal logic of programs", 1977).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import getsource
from typing import Any

from ..errors import UsageError
from .events import SCHEMA, Event
from .functions import KINDS

Claim = Callable[[Event], bool] | Mapping[str, Any]
"""A function of an event, or the fields that it must have."""


class ClaimError(AssertionError):
    """A trace is not as somebody said it is: ``event`` is the one that shows it, None where one is missing."""

    def __init__(self, message: str, event: Event | None = None) -> None:
        self.event = event
        super().__init__(message)


class Claims(ABC):
    """What can be claimed of the events of a trace. ``after`` and ``before`` are instruction counts or events: what
    began before the end of the one, or after the beginning of the other, is not looked at. Of a trace that dropped
    events nothing is claimed that they could refute: :class:`UsageError`."""

    dropped: int

    @abstractmethod
    def events(self, **wanted: Any) -> list[Event]:
        """The events, of every depth and in order of entry, whose attributes are as given."""

    def always(self, claim: Claim | None = None, /, *, after: int | Event | None = None,
               before: int | Event | None = None, **fields: Any) -> None:
        """Every event is as claimed. With a claim, ``fields`` choose the events that it is about; alone they are it::

            trace.always({"cache": "kmalloc-64"}, kind="alloc")      # every allocation is of that cache
            trace.always(lambda event: event.bytes_req <= 512, kind="alloc")
            trace.always(failed=False)                               # no call failed

        :class:`ClaimError` names the first event that is not.
        """
        __tracebackhide__ = True
        about, wanted = ({}, fields) if claim is None else (fields, claim)
        _require_something(wanted)
        for event in self._within(after, before, about):
            if not _holds(wanted, event):
                of = f" of the events with {_told(about)}" if about else ""
                raise ClaimError(f"always {_told(wanted)}{of}, but not here:\n{_event(event)}", event)
        self._require_all()

    def never(self, claim: Claim | None = None, /, *, after: int | Event | None = None,
              before: int | Event | None = None, **fields: Any) -> None:
        """No event has these fields, and is as claimed::

            trace.never(kind="free", after=allocation)               # it was not freed again
            trace.never(lambda event: event.bytes_alloc > 2 * event.bytes_req, kind="alloc")

        :class:`ClaimError` names the first event that has and is.
        """
        __tracebackhide__ = True
        for event in self._found(claim, after, before, fields):
            raise ClaimError(f"never {_both(claim, fields)}, but here:\n{_event(event)}", event)
        self._require_all()

    def eventually(self, claim: Claim | None = None, /, *, after: int | Event | None = None,
                   before: int | Event | None = None, **fields: Any) -> Event:
        """Some event has these fields, and is as claimed; returns the first::

            slab = trace.eventually(kind="slab_create", cache="kmalloc-64")
            trace.eventually(kind="free", address=pointer, after=slab)

        :class:`ClaimError` tells the last event that there was instead.
        """
        __tracebackhide__ = True
        found = self._found(claim, after, before, fields)
        if found:
            return found[0]
        self._require_all()
        seen = self._within(after, before, {})
        last = seen[-1] if seen else None
        instead = f"none of {len(seen):,} events is; the last:\n{_event(last)}" if last else "there is no event at all"
        raise ClaimError(f"eventually {_both(claim, fields)}, but {instead}", None)

    def _require_all(self) -> None:
        if self.dropped:
            raise UsageError(f"the trace dropped {self.dropped:,} events, so nothing can be said of all of them")

    def _found(self, claim: Claim | None, after: int | Event | None, before: int | Event | None,
               fields: Mapping[str, Any]) -> list[Event]:
        _require_something(fields if claim is None else claim)
        return [event for event in self._within(after, before, fields) if claim is None or _holds(claim, event)]

    def _within(self, after: int | Event | None, before: int | Event | None,
                fields: Mapping[str, Any]) -> list[Event]:
        first = after.instruction if isinstance(after, Event) else after
        last = before.entered if isinstance(before, Event) else before
        return [event for event in self.events(**fields)
                if (first is None or event.entered >= first) and (last is None or event.entered < last)]


def check_fields(wanted: Mapping[str, Any]) -> None:
    """Refuse names that events do not have, and kinds that do not exist, with a :class:`UsageError`."""
    for name in wanted:
        if name not in SCHEMA:
            close = get_close_matches(str(name), SCHEMA, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UsageError(f"events have no {name!r}{hint}; they have {', '.join(SCHEMA)}")
    kind = wanted.get("kind")
    if isinstance(kind, str) and kind not in KINDS:
        raise UsageError(f"no event is of kind {kind!r}; there are {', '.join(KINDS)}")


def matches(event: Event, wanted: Mapping[str, Any]) -> bool:
    """Whether an event's attributes are as given: a value is compared, a function called."""
    return all(test(getattr(event, name)) if callable(test) else getattr(event, name) == test
               for name, test in wanted.items())


def _require_something(claim: Claim) -> None:
    if isinstance(claim, Mapping):
        check_fields(claim)
    elif not callable(claim):
        raise UsageError(f"a claim is a function of an event, or a mapping of its fields, not {claim!r}")
    if not claim:
        raise UsageError("nothing is claimed: give fields of events, or a function of one")


def _holds(claim: Claim, event: Event) -> bool:
    return matches(event, claim) if isinstance(claim, Mapping) else bool(claim(event))


# -- in words -------------------------------------------------------------------------------------------------------
def _both(claim: Claim | None, fields: Mapping[str, Any]) -> str:
    return " and ".join(_told(part) for part in (fields, claim) if part)


def _told(claim: Claim) -> str:
    """A claim as it was written."""
    if isinstance(claim, Mapping):
        return ", ".join(f"{name}={_value(value)}" for name, value in claim.items())
    return _value(claim)


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0xFFFF:
        return f"0x{value:x}"
    if not callable(value):
        return repr(value)
    name = getattr(value, "__name__", "") or repr(value)
    if name != "<lambda>":
        return str(name)
    try:
        return f"({' '.join(getsource(value).split())})"
    except (OSError, TypeError):
        return "(a lambda)"


def _event(event: Event) -> str:
    """An event and its callers."""
    what = ", ".join(filter(None, (
        f"0x{event.address:x}" if event.address else "", event.cache, f"{event.bytes_req:,} bytes asked for",
        "failed" if event.failed else "", "never returned" if event.unfinished else "")))
    frames = [f"    {frame}" for frame in event.stack]
    return "\n".join([f"  #{event.sequence} @{event.entered:,} {event.kind} by {event.function}: {what}", *frames])
