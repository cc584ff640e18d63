"""The lives of an address: each time that somebody was given the memory there, until it was taken back.

A life is what a caller has: one for each outermost call, whatever that did in deeper layers. An object that
``krealloc`` leaves in its place lives on; one that it moves has two lives, at two addresses. Pages that the allocator
takes for itself (a slab, a large ``kmalloc``) are no lives of their own; ``slab`` is the event that made the slab.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..abi import ZERO_SIZE_PTR
from ..trace.events import Event
from ..trace.functions import Kind
from ..trace.ledger import changes

_ALLOC, _FREE, _REALLOC = Kind.ALLOC.value, Kind.FREE.value, Kind.REALLOC.value
_PAGE_ALLOC, _PAGE_FREE, _SLAB_CREATE = Kind.PAGE_ALLOC.value, Kind.PAGE_FREE.value, Kind.SLAB_CREATE.value
_PAGES = frozenset((_PAGE_ALLOC, _PAGE_FREE))
_HOLDING = _PAGES | {_ALLOC, _FREE}
_NULLS = (0, ZERO_SIZE_PTR)
MOST = 1_000
"""Lives that are told, unless it is asked for more."""
_FRAMES = 3
"""Callers of a call that the text has."""


@dataclass(frozen=True)
class Life:
    """From one allocation to its free.

    ``address`` and ``size`` are of the whole allocation; ``cache`` is its cache, None for whole pages. ``allocated`` is
    None for what was held before the trace began, ``freed`` for what is still held. ``resized`` are calls of
    ``krealloc`` that left it in place, ``again`` frees of it after it was free already, ``slab`` the event that made
    the slab it lies in, where the trace has that.
    """

    address: int
    size: int
    cache: str | None
    allocated: Event | None
    freed: Event | None = None
    resized: tuple[Event, ...] = ()
    again: tuple[Event, ...] = ()
    slab: Event | None = None

    @property
    def began(self) -> int | None:
        """The instruction count at which the caller had it, None before the trace began."""
        return None if self.allocated is None else self.allocated.instruction

    @property
    def ended(self) -> int | None:
        """The instruction count at which it was given back, None while it is held."""
        return None if self.freed is None else self.freed.entered

    def __str__(self) -> str:
        what = f"{self.size:,} bytes of {self.cache}" if self.cache else f"{self.size:,} bytes in pages"
        lines = [f"0x{self.address:016x}, {what}"]
        lines.append(_line("allocated", self.allocated) if self.allocated else "  held before the trace began")
        lines += [_line("resized", event) for event in self.resized]
        lines.append(_line("freed", self.freed) if self.freed else "  still held")
        lines += [_line("freed again", event) for event in self.again]
        return "\n".join(lines)


def _line(what: str, event: Event) -> str:
    """``  allocated  @108,904 kmalloc(40)`` with the callers below it."""
    asked = f"({event.bytes_req:,})" if event.kind != _FREE and event.bytes_req else ""
    frames = [f"      {frame}" for frame in event.stack[:_FRAMES]]
    return "\n".join([f"  {what} @{event.entered:,} {event.function}{asked}", *frames])


@dataclass(slots=True)
class _Open:
    """A life that goes on while the events are read: the count at which the caller had it, -1 before the trace began;
    the event that says what it is; and the calls."""

    began: int
    event: Event
    allocated: Event | None
    freed: Event | None
    slab: Event | None = None
    others: list[tuple[bool, Event]] | None = None       # few lives have any: whether it was resized, or freed again

    def also(self, resized: bool, event: Event) -> None:
        """A call that left it in its place, or came too late."""
        if self.others is None:
            self.others = []
        self.others.append((resized, event))

    def closed(self) -> Life:
        """As a record."""
        event = self.event
        resized, again = (tuple(event for kind, event in self.others or () if kind is which) for which in (True, False))
        return Life(event.address, max(event.bytes_alloc, 1), event.cache, self.allocated, self.freed, resized, again,
                    self.slab)


class Lives(list[Life]):
    """Some of the lives of an address, in order of time: ``earlier`` ones and ``later`` ones are left out."""

    def __init__(self, lives: Iterable[Life] = (), earlier: int = 0, later: int = 0) -> None:
        super().__init__(lives)
        self.earlier, self.later = earlier, later

    @property
    def every(self) -> int:
        """How many there are, those that are left out among them."""
        return self.earlier + len(self) + self.later


def history(events: Iterable[Event], pointer: int, limit: int | None = MOST, around: int | None = None) -> Lives:
    """The lives of the memory at ``pointer``, which may lie inside of an allocation, in order of time.

    ``events`` are all events of a trace (``trace.walk()``), those of every depth. Of more than ``limit`` lives (None
    for all of them) it is the newest, or those around the instruction count ``around``.
    """
    found = _lives(list(events), pointer)
    if limit is None or len(found) <= limit:
        return Lives(life.closed() for life in found)
    first = len(found) - limit
    if around is not None:
        begun = sum(life.began <= around for life in found)
        first = max(min(begun - limit + 2, first), 0)
    return Lives((life.closed() for life in found[first : first + limit]), first, len(found) - first - limit)


def _lives(every: list[Event], pointer: int) -> list[_Open]:
    """All lives of the memory at ``pointer``. Most events are about other memory, and are passed over early."""
    touching = [event for event in every if event.address <= pointer < event.address + max(event.bytes_alloc, 1)]
    starts = {event.address for event in touching if event.kind in _HOLDING}.difference(_NULLS)
    if not starts:
        return []
    by_number = {event.sequence: event for event in every}
    slabs = _Slabs(event for event in every if event.kind == _SLAB_CREATE and event.slab is not None
                   and event.slab <= pointer < event.slab + event.bytes_alloc)
    found: list[_Open] = []
    for at, event in _moments(every, by_number, starts):
        size = max(event.bytes_alloc, 1)
        holding = found[-1] if found and event.address == found[-1].event.address else None
        caller = _outermost(event, by_number)
        if event.kind in (_ALLOC, _PAGE_ALLOC):
            if event.address <= pointer < event.address + size:
                found.append(_Open(at, event, caller, None, slab=slabs.around(event)))
        elif event.kind == _REALLOC:
            if holding is not None and holding.freed is None:
                holding.also(True, event)
        elif holding is not None:
            if holding.freed is None:
                holding.freed = caller
            else:
                holding.also(False, caller)
        elif event.address <= pointer < event.address + size:
            found.append(_Open(-1, event, None, caller))
    return found


class _Slabs:
    """The events that made slabs around one pointer, by address and time."""

    def __init__(self, made: Iterable[Event]) -> None:
        self._made: dict[int | None, list[Event]] = {}
        for event in made:
            self._made.setdefault(event.slab, []).append(event)

    def around(self, event: Event) -> Event | None:
        """The last one before an allocation that made the slab of its object."""
        made = self._made.get(event.slab, [])
        at = bisect_right(made, event.instruction, key=lambda slab: slab.instruction)
        return made[at - 1] if at else None


def _moments(every: list[Event], by_number: Mapping[int, Event], starts: Collection[int]) -> list[tuple[int, Event]]:
    """What changed who holds memory that begins at one of ``starts``, in order: objects, pages, and reallocations that
    moved nothing."""
    found = changes(every, starts)
    for event in every:
        if event.address not in starts or event.failed or event.unfinished:
            continue
        if event.kind in _PAGES and _pages_of_callers(event, by_number):
            found.append((event.instruction if event.kind == _PAGE_ALLOC else event.entered, event))
        elif event.kind == _REALLOC and not event.foreign and not _moved(event):
            found.append((event.instruction, event))
    return sorted(found, key=lambda moment: (moment[0], moment[1].sequence))


def _pages_of_callers(event: Event, by_number: Mapping[int, Event]) -> bool:
    """Whether no part of the allocator took these pages for something else."""
    parent = by_number.get(event.parent) if event.parent is not None else None
    while parent is not None:
        if parent.kind not in _PAGES:
            return False
        parent = by_number.get(parent.parent) if parent.parent is not None else None
    return True


def _moved(event: Event) -> bool:
    """Whether a reallocation took other memory."""
    return any(child.kind == _ALLOC for below in event.children for child in below.walk())


def _outermost(event: Event, by_number: Mapping[int, Event]) -> Event:
    """The call that an allocation or a free was made for: itself, or a ``krealloc`` around it."""
    above: Event | None = event
    while above is not None:
        if above.kind == _REALLOC:
            return above
        above = by_number.get(above.parent) if above.parent is not None else None
    return event
