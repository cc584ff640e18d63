"""The lives of an address: each time that somebody was given the memory there, until it was taken back.

A life is what a caller has: one for each outermost call, whatever that did in deeper layers. An object that
``krealloc`` leaves in its place lives on; one that it moves has two lives, at two addresses. Pages that the allocator
takes for itself (a slab, a large ``kmalloc``) are no lives of their own; ``slab`` is the event that made the slab.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..abi import ZERO_SIZE_PTR
from ..trace.events import Event
from ..trace.functions import Kind
from ..trace.ledger import changes

_PAGES = frozenset((Kind.PAGE_ALLOC.value, Kind.PAGE_FREE.value))
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
    asked = f"({event.bytes_req:,})" if event.kind != Kind.FREE.value and event.bytes_req else ""
    frames = [f"      {frame}" for frame in event.stack[:_FRAMES]]
    return "\n".join([f"  {what} @{event.entered:,} {event.function}{asked}", *frames])


@dataclass
class _Open:
    """A life that goes on while the events are read."""

    address: int
    size: int
    cache: str | None
    allocated: Event | None
    freed: Event | None
    resized: list[Event]
    again: list[Event]
    slab: Event | None

    def closed(self) -> Life:
        """As a record."""
        return Life(self.address, self.size, self.cache, self.allocated, self.freed, tuple(self.resized),
                    tuple(self.again), self.slab)


def history(events: Iterable[Event], pointer: int) -> list[Life]:
    """The lives of the memory at ``pointer``, which may lie inside of an allocation, in order of time.

    ``events`` are all events of a trace (``trace.walk()``), those of every depth.
    """
    every = list(events)
    by_number = {event.sequence: event for event in every}
    slabs = [event for event in every if event.kind == Kind.SLAB_CREATE.value and event.slab is not None
             and event.slab <= pointer < event.slab + event.bytes_alloc]
    found: list[_Open] = []
    for _, event in _moments(every, by_number):
        size = max(event.bytes_alloc, 1)
        holding = found[-1] if found and event.address == found[-1].address else None
        caller = _outermost(event, by_number)
        if event.kind in (Kind.ALLOC.value, Kind.PAGE_ALLOC.value):
            if event.address <= pointer < event.address + size:
                made = [slab for slab in slabs if slab.instruction <= event.instruction and slab.slab == event.slab]
                found.append(_Open(event.address, size, event.cache, caller, None, [], [], made[-1] if made else None))
        elif event.kind == Kind.REALLOC.value:
            if holding is not None and holding.freed is None:
                holding.resized.append(event)
        elif holding is not None:
            if holding.freed is None:
                holding.freed = caller
            else:
                holding.again.append(caller)
        elif event.address <= pointer < event.address + size:
            found.append(_Open(event.address, size, event.cache, None, caller, [], [], None))
    return [life.closed() for life in found]


def _moments(every: list[Event], by_number: Mapping[int, Event]) -> list[tuple[int, Event]]:
    """What changed who holds what, in order: objects, pages, and reallocations that moved nothing."""
    found = changes(every)
    for event in every:
        if event.failed or event.unfinished or event.address in (0, ZERO_SIZE_PTR):
            continue
        if event.kind in _PAGES and _pages_of_callers(event, by_number):
            found.append((event.instruction if event.kind == Kind.PAGE_ALLOC.value else event.entered, event))
        elif event.kind == Kind.REALLOC.value and not _moved(event):
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
    return any(child.kind == Kind.ALLOC.value for below in event.children for child in below.walk())


def _outermost(event: Event, by_number: Mapping[int, Event]) -> Event:
    """The call that an allocation or a free was made for: itself, or a ``krealloc`` around it."""
    above: Event | None = event
    while above is not None:
        if above.kind == Kind.REALLOC.value:
            return above
        above = by_number.get(above.parent) if above.parent is not None else None
    return event
