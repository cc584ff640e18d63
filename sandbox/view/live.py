"""Events as they happen: a line for each, to stand between the lines that the guest prints.

::

         5,310  kmalloc(40) = 0xffff888000713000  kmalloc-64  main, line 17
         5,355    kmem_cache_alloc(kmalloc-64) = 0xffff888000713000
    asked for 40 bytes, got 0xffff888000713000 with room for 64

The number is the instruction count at the call; what a call did in deeper layers is indented below it. The guest's
own lines begin at the margin.
"""

from __future__ import annotations

from ..trace.callers import Caller, caller_of
from ..trace.events import Event
from .trace import call

COUNT_WIDTH = 10
KERNEL_SOURCES = "kernel_asm/"


class EventLines:
    """Turns events, given in order of entry, into lines. ``program`` is the name of the program's source file, whose
    lines are told by their number alone."""

    def __init__(self, program: str = "") -> None:
        self._program = program
        self._depths: dict[int, int] = {}

    def line(self, event: Event) -> str:
        """The line of one event; its parent was given before."""
        if event.parent is None:
            self._depths.clear()
        depth = 0 if event.parent is None else self._depths.get(event.parent, -1) + 1
        self._depths[event.sequence] = depth
        return f"{event.entered:>{COUNT_WIDTH},}  {self.told(event, depth)}"

    def told(self, event: Event, depth: int) -> str:
        """An event without its count, ``depth`` levels below its root."""
        parts = [f"{'  ' * depth}{call(event)}", self._detail(event)]
        if depth == 0:
            parts.append(where(event, self._program))
        return "  ".join(filter(None, parts))

    def _detail(self, event: Event) -> str:
        """The cache where the call does not name it, and an end that was none."""
        parts = []
        named = event.function.startswith("kmem_cache") and event.kind in ("alloc", "cache_create", "cache_destroy")
        if event.cache and not named and event.kind in ("alloc", "free", "realloc"):
            parts.append(event.cache)
        if event.kind in ("slab_create", "slab_destroy", "page_free") and event.bytes_alloc:
            parts.append(f"{event.bytes_alloc:,} bytes")
        if event.kind in ("alloc", "realloc") and event.cache is None and event.bytes_alloc:
            parts.append(f"{event.bytes_alloc:,} bytes")
        if event.unfinished:
            parts.append("never returned")
        return ", ".join(parts)


def where(event: Event, program: str) -> str:
    """Who asked for it, outside of the C library: ``main, line 17`` in the program's own file, ``insert, more.c:7`` in
    another one, ``slab_create`` in the kernel."""
    return place(caller_of(event), program)


def place(caller: Caller, program: str) -> str:
    """A frame in a few words; of the kernel's own the function alone."""
    if not caller.file or caller.file.startswith(KERNEL_SOURCES):
        return caller.function
    line = f"line {caller.line}" if caller.file == program else f"{caller.file}:{caller.line}"
    return f"{caller.function}, {line}"
