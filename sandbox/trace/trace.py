"""A trace: the events of one recording, as trees.

Iterating yields the roots, what the guest asked for; ``event.children`` is what the allocator did for it::

    for event in trace:
        print(event.kind, event.address, [child.kind for child in event.children])
    trace.events(kind="alloc", cache="kmalloc-64")       # of all depths, in order of entry
    trace.never(kind="free", failed=True)                # assertions: sandbox.trace.claims
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from ..errors import UsageError
from .builder import Names, build
from .claims import Claims, check_fields, matches
from .events import Event
from .recorder import Recorder

KEPT = 1_000_000
"""Events that a trace keeps, unless it is told otherwise: some hundred megabytes."""


class Trace(Sequence[Event], Claims):
    """What a recording has so far. It can be read while the recording goes on; a frame that is open then shows as
    an unfinished event, and its number may still move when it is a bulk call that has not returned.

    A guest may go on for ever, and memory does not: the first ``keep`` events are kept, whole trees of them, and
    ``dropped`` counts those behind them.
    """

    def __init__(self, recorder: Recorder, names: Names, clock: Callable[[], int], keep: int = KEPT) -> None:
        self.dropped = 0
        self._recorder = recorder
        self._names = names
        self._clock = clock
        self._keep = keep
        self._done: list[Event] = []
        self._roots: list[Event] = []
        self._records = 0                               # of the recorder's present records: those that are in _done

    def forget(self) -> None:
        """Become empty; the records of the recorder are another matter."""
        self.dropped = self._records = 0
        self._done, self._roots = [], []

    def settle(self) -> list[Event]:
        """Make events of the records that are complete; returns those that are new."""
        recorder = self._recorder
        end = recorder.complete
        new = build(self._names, recorder, self._records, end, len(self._done) + self.dropped, 0)
        self._records = end if recorder.discard() else 0
        if len(self._done) < self._keep:
            self._done += new
            self._roots += [event for event in new if event.parent is None]
        else:
            self.dropped += len(new)
        return new

    def _open(self) -> list[Event]:
        """The events from the first open frame on, as far as they are known."""
        self.settle()
        count = len(self._recorder.entries)
        sequence = len(self._done) + self.dropped
        return build(self._names, self._recorder, self._records, count, sequence, self._clock())

    # -- the roots --------------------------------------------------------------------------------------------
    def _now(self) -> list[Event]:
        """The roots; not to be changed."""
        more = [event for event in self._open() if event.parent is None]
        return self._roots + more if more else self._roots

    def roots(self) -> list[Event]:
        """The events that happened in no other."""
        return list(self._now())

    def __iter__(self) -> Iterator[Event]:
        return iter(self.roots())

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._now()[index]

    def __repr__(self) -> str:
        more = f", {self.dropped} more were dropped" if self.dropped else ""
        return f"<Trace of {len(self._all())} events, {len(self)} of them roots{more}>"

    # -- every event ------------------------------------------------------------------------------------------
    def walk(self) -> Iterator[Event]:
        """Every event of every depth, in order of entry."""
        return iter(self.events())

    def events(self, **wanted: Any) -> list[Event]:
        """The events, of every depth and in order of entry, whose attributes are as given.

        A value is compared, or called when it is a function: ``trace.events(kind="alloc", bytes_req=lambda n: n >
        100)``. :class:`UsageError` for a name that events do not have or a kind that does not exist.
        """
        check_fields(wanted)
        return [event for event in self._all() if matches(event, wanted)]

    def _all(self) -> list[Event]:
        tail = self._open()
        return self._done + tail

    def find(self, **wanted: Any) -> Event | None:
        """The first event that :meth:`events` would give, None when there is none."""
        found = self.events(**wanted)
        return found[0] if found else None

    def at(self, address: int) -> list[Event]:
        """All that happened to an address: events whose memory begins at it, in order of entry."""
        return self.events(address=address)

    def by_sequence(self, sequence: int) -> Event:
        """The event with a number; :class:`UsageError` when there is none."""
        every = self._all()
        if 0 <= sequence < len(self._done):
            return every[sequence]
        for event in every[len(self._done) :]:
            if event.sequence == sequence:
                return event
        raise UsageError(f"no event has the number {sequence}: there are {len(every)}")
