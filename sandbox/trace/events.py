"""Events: frozen records of what the allocator did, one schema for Python and for JSON.

A call of a traced function is one event; a bulk call is one event for each object, with the same counts, and what
the call did in deeper layers lies below the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

VERSION = 1
"""Of the schema: raised when a key changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that the allocator did.

    ========== ===================================================================================================
    sequence   its number, in the order of entry, from 0
    entered    the instruction count at the call: instructions started before the function's first
    instruction the count at the return: instructions started, its ``ret`` included. For an unfinished event, the
               count at which it was given up
    kind       page_alloc page_free cache_create cache_destroy slab_create slab_destroy alloc free realloc
    function   the function that was called
    address    of the object, the pages, the slab or the cache; 0 when the call failed
    bytes_req  bytes asked for; for what is taken away, what the allocator still knows of that
    bytes_alloc bytes given or taken away: the object's size, or whole pages
    cache      the name of the cache, None for whole pages and the null pointer
    slab       the address of the slab, None where there is none or its object failed
    call_site  ``function+0x12`` behind the call
    line       ``file:line`` of the call, "" where no source is known
    stack      ``function+0x12 (file:line)`` for each caller, innermost first
    cpu        the number of the CPU
    failed     whether the function said that it could not do it
    unfinished whether it never returned: a fault, a panic, or a trace that ended in the middle
    parent     the sequence number of the event that it happened in, None for a root
    old        of a realloc, the address that it was given; 0 for all else
    foreign    whether the function is of somebody else's allocator
    ========== ===================================================================================================
    """

    sequence: int
    entered: int
    instruction: int
    kind: str
    function: str
    address: int
    bytes_req: int
    bytes_alloc: int
    cache: str | None
    slab: int | None
    call_site: str
    line: str
    stack: tuple[str, ...]
    cpu: int
    failed: bool
    unfinished: bool
    parent: int | None
    old: int = 0
    foreign: bool = False
    children: tuple[Event, ...] = field(default=(), repr=False, compare=False)

    @property
    def instructions(self) -> int:
        """Instructions from the call to the return, all that happened in between included."""
        return self.instruction - self.entered

    def walk(self) -> Iterator[Event]:
        """This event and all below it, in order of entry."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON has it: the attributes but ``children``, which ``parent`` tells."""
        return {name: list(self.stack) if name == "stack" else getattr(self, name) for name in SCHEMA}


SCHEMA: tuple[str, ...] = tuple(item.name for item in fields(Event) if item.name != "children")
"""The keys of an event, in order."""
