"""A trace as text: one line for each event, what happened inside a call indented below it.

::

    #12     5,310 kmalloc(100) = 0xffff888000713000   kmalloc-128, 128 bytes   main+0x1c (first.asm:14)
    #13     5,355   slab_create = 0xffff888000713000   kmalloc-128, 4,096 bytes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..address import PAGE_SHIFT
from ..trace.callers import caller_of
from ..trace.events import Event


def line(event: Event, depth: int = 0) -> str:
    """One event; ``depth`` is how deep it lies below its root."""
    where = f"   {caller_of(event)}" if depth == 0 else ""
    return f"#{event.sequence:<5} {event.entered:>11,} {'  ' * depth}{call(event)}{_detail(event)}{where}"


def call(event: Event) -> str:
    """The call as one would write it: ``kmalloc(100) = 0x...``, ``kfree(0x...)``."""
    name, at = event.function, f"0x{event.address:x}"
    if event.kind in ("free", "page_free", "slab_destroy"):
        return f"{name}({at})"
    if event.kind == "cache_destroy":
        return f"{name}({event.cache or at})" + (" failed" if event.failed else "")
    if event.kind == "alloc" and name.startswith("kmem_cache"):
        asked = str(event.cache or "?")
    elif event.kind == "cache_create":
        asked = f'"{event.cache}", {event.bytes_req}'
    elif event.kind == "slab_create":
        asked = str(event.cache or "?")
    else:
        asked = f"order {_order(event.bytes_req)}" if event.kind == "page_alloc" else f"{event.bytes_req}"
    if event.unfinished:
        return f"{name}({asked})"
    return f"{name}({asked}) = " + ("0, it failed" if event.failed else at)


def _order(size: int) -> int:
    """log2 of a number of bytes in pages."""
    return max(size >> PAGE_SHIFT, 1).bit_length() - 1


def _detail(event: Event) -> str:
    parts = []
    if event.kind in ("alloc", "realloc", "free") and event.cache is not None:
        parts.append(event.cache if event.kind != "alloc" or not event.function.startswith("kmem_cache") else "")
    if event.bytes_alloc and event.kind not in ("cache_create", "cache_destroy", "page_alloc"):
        parts.append(f"{event.bytes_alloc:,} bytes")
    if event.unfinished:
        parts.append("never returned")
    return "   " + ", ".join(filter(None, parts)) if any(parts) else ""


def lines(events: Iterable[Event]) -> Iterator[str]:
    """One line for each event, in order of entry; ``events`` are whole trees (``trace.walk()``)."""
    depths: dict[int, int] = {}
    for event in events:
        depth = 0 if event.parent is None else depths.get(event.parent, -1) + 1
        depths[event.sequence] = depth
        yield line(event, depth)

