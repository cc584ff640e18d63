"""What callers asked for against what was taken for it, at the moment when most pages were held.

Computed from a trace alone. What the allocator takes for itself (magazines, caches) nobody asked for. Memory that was
held before the trace began is on neither side, so a heap that had room may serve what takes no page: then nothing is
wasted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..address import PAGE_SHIFT
from .events import Event
from .functions import Kind
from .ledger import changes

PAGES = "whole pages"
"""The owner of pages that somebody took by themselves, and of large allocations."""


@dataclass(frozen=True)
class Usage:
    """One moment: ``taken`` bytes in pages, and ``asked`` for by callers; both by cache, too. ``instruction`` is the
    count at which the moment began."""

    taken: int = 0
    asked: int = 0
    instruction: int = 0
    taken_by: Mapping[str, int] = field(default_factory=dict)
    asked_by: Mapping[str, int] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """Pages of 4 KiB."""
        return self.taken >> PAGE_SHIFT

    @property
    def waste(self) -> float:
        """The percentage of the taken bytes that nobody asked for."""
        return max(100.0 * (self.taken - self.asked) / self.taken, 0.0) if self.taken else 0.0


def peak(events: Iterable[Event]) -> Usage:
    """The moment of most pages, and of those the one at which most was asked for. ``events`` are all of a trace,
    without those that were undone (:func:`~sandbox.trace.ledger.lasting`)."""
    best = Usage()
    taken: dict[int, tuple[str, int]] = {}
    asked: dict[int, tuple[str, int]] = {}
    pages = wanted = 0
    for instruction, _, account, address, entry in sorted(_changes(list(events)), key=lambda change: change[:2]):
        book = taken if account == "taken" else asked
        before = book.pop(address, None)
        if entry is not None:
            book[address] = entry
        change = (entry[1] if entry else 0) - (before[1] if before else 0)
        pages, wanted = (pages + change, wanted) if account == "taken" else (pages, wanted + change)
        if (pages, wanted) > (best.taken, best.asked):
            best = Usage(pages, wanted, instruction, _sums(taken), _sums(asked))
    return best


def _sums(book: Mapping[int, tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for owner, size in book.values():
        found[owner] += size
    return dict(found)


_Change = tuple[int, int, str, int, "tuple[str, int] | None"]


def _changes(events: list[Event]) -> Iterator[_Change]:
    """Every change of either account: count, sequence, account, address, and the owner and size, None for a free."""
    by_number = {event.sequence: event for event in events}
    for instruction, event in changes(events):
        if event.kind == Kind.ALLOC.value and not _for_a_caller(event, by_number):
            continue
        entry = (event.cache or PAGES, event.bytes_req) if event.kind == Kind.ALLOC.value else None
        yield instruction, event.sequence, "asked", event.address, entry
    for event in events:
        if event.failed or event.unfinished:
            continue
        above = by_number.get(event.parent) if event.parent is not None else None
        if event.kind == Kind.PAGE_ALLOC.value:
            owner = above.cache if above is not None and above.kind == Kind.SLAB_CREATE.value and above.cache else PAGES
            yield event.instruction, event.sequence, "taken", event.address, (owner, event.bytes_alloc)
            if above is None:
                yield event.instruction, event.sequence, "asked", event.address, (PAGES, event.bytes_req)
        elif event.kind == Kind.PAGE_FREE.value:
            yield event.entered, event.sequence, "taken", event.address, None
            if above is None:
                yield event.entered, event.sequence, "asked", event.address, None
        elif event.kind == Kind.REALLOC.value and not event.foreign and not any(
                child.kind == Kind.ALLOC.value for child in event.children):
            yield event.instruction, event.sequence, "asked", event.address, (event.cache or PAGES, event.bytes_req)


def _for_a_caller(event: Event, by_number: Mapping[int, Event]) -> bool:
    """Whether an allocation is no part of something that the allocator does, but for a reallocation."""
    above = by_number.get(event.parent) if event.parent is not None else None
    return above is None or (above.kind == Kind.REALLOC.value and not above.foreign
                             and _for_a_caller(above, by_number))
