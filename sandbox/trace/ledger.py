"""The trace's account of what callers hold: the first of the two readings, to be compared with the views.

Every event below another that already took or gave the same memory is an echo (``kmalloc`` reaching
``kmem_cache_alloc``), and counts once. A free takes effect when it is called, an allocation when it returns.

Of somebody else's allocator the outermost call alone counts, for its caller gets that one's pointer. What a
reallocation of it did is seen from its pointers: a free of the one that it was given and an allocation of the one that
it returned, when it returns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from ..abi import ZERO_SIZE_PTR
from .events import Event
from .functions import Kind

_NULLS = (0, ZERO_SIZE_PTR)
_ALLOC, _FREE, _REALLOC = Kind.ALLOC.value, Kind.FREE.value, Kind.REALLOC.value


class Disagreement(ValueError):
    """An event that the account cannot follow: what was freed was not held, what was given was held already."""

    def __init__(self, event: Event, reason: str) -> None:
        self.event = event
        super().__init__(f"event {event.sequence}, {event.function} at instruction {event.instruction}: {reason}")


def changes(events: Iterable[Event], addresses: Collection[int] | None = None) -> list[tuple[int, Event]]:
    """The allocations and frees that changed who holds what, with the instruction count at which they did, in order.

    ``events`` are all events of a trace (``trace.walk()``); with ``addresses``, what is not about memory that begins at
    one of them is passed over. Left out are echoes, null pointers, and calls that failed or never returned. All that is
    returned is of the kinds ``alloc`` and ``free``.
    """
    every = list(events)
    by_number = {event.sequence: event for event in every}
    found = []
    for known in every:
        for event in _taken_apart(known):
            if addresses is not None and event.address not in addresses:
                continue
            if event.kind not in (_ALLOC, _FREE) or event.failed or event.unfinished:
                continue
            if event.address not in _NULLS and not _is_echo(event, by_number):
                at_return = event.kind == _ALLOC or known.kind == _REALLOC
                found.append((event.instruction if at_return else event.entered, event))
    return sorted(found, key=lambda change: (change[0], change[1].sequence))


def held(events: Iterable[Event], before: Mapping[int, int] | None = None, *, strict: bool = True) -> dict[int, int]:
    """The address and usable size of everything that is held after these events, in order of address.

    ``before`` is what was held when the trace began (what ``heap.allocated()`` gave). With ``strict``, an event that
    contradicts the account raises :class:`Disagreement`; without, a double free is ignored.
    """
    account = dict(before or {})
    for _, event in changes(events):
        if event.kind == _ALLOC:
            if strict and event.address in account:
                raise Disagreement(event, f"0x{event.address:x} was handed out, and somebody holds it")
            account[event.address] = event.bytes_alloc
        elif event.address in account:
            del account[event.address]
        elif strict:
            raise Disagreement(event, f"0x{event.address:x} was freed, and nobody held it")
    return dict(sorted(account.items()))


def lasting(events: Iterable[Event], now: int) -> list[Event]:
    """The events that were not undone, when the guest was taken back in between, and its clock is ``now``.

    A trace keeps everything that happened. Whoever goes back goes to a moment between two calls from outside, so that
    an outermost call was undone when a later one began no later than it did.
    """
    every = list(events)
    limit, last, kept = now, None, set[int]()
    for event in reversed(every):
        if event.parent is not None:
            continue
        same = last is not None and (event.entered, event.function, event.instruction) == last
        if event.entered < limit or same:
            kept.add(event.sequence)
            limit, last = event.entered, (event.entered, event.function, event.instruction)
    roots: dict[int, int] = {}
    for event in every:
        roots[event.sequence] = event.sequence if event.parent is None else roots.get(event.parent, event.parent)
    return [event for event in every if roots[event.sequence] in kept]


def _taken_apart(event: Event) -> Iterator[Event]:
    """The event; a foreign reallocation as the free and the allocation that it comes to."""
    if event.kind != _REALLOC or not event.foreign:
        yield event
    else:
        yield replace(event, kind=_FREE, address=event.old, bytes_req=0, bytes_alloc=0)
        yield replace(event, kind=_ALLOC)


def _is_echo(event: Event, by_number: Mapping[int, Event]) -> bool:
    """Whether a caller of the same kind did the same to the same memory, or both are of somebody else's allocator. The
    objects of a bulk call are siblings with one entry, and what the call did lies below the first of them."""
    parent = event.parent
    while parent is not None:
        above = by_number.get(parent)
        if above is None:
            return False
        if event.foreign and above.foreign:
            return True
        if above.kind == event.kind and (above.address == event.address or _bulk_has(above, event.address, by_number)):
            return True
        parent = above.parent
    return False


def _bulk_has(first: Event, address: int, by_number: Mapping[int, Event]) -> bool:
    number = first.sequence
    while (other := by_number.get(number)) is not None and (other.entered, other.function) == (first.entered,
                                                                                             first.function):
        if other.address == address:
            return True
        number += 1
    return False
