"""What the allocator does around now: the tree of events, the last one entered marked with ``>``.

::

      108,904 kmalloc(40) = 0xffff88800025e000  kmalloc-64  main, line 15
    > 108,946   kmem_cache_alloc(magazine) = 0xffff888000003000
      109,005     slab_create(magazine) = 0xffff888000003000  4,096 bytes

Events that are still to come are dim. A cursor can go over them.
"""

from __future__ import annotations

import re

from ...trace.events import Event
from .rows import Row, block, short_address, window
from .scene import Scene

WHOLE_ADDRESSES = 76
"""From this width on the addresses have all their digits."""
_ADDRESS = re.compile(r"\b0x[0-9a-f]{16}\b")


def title(scene: Scene) -> str:
    """How many of the events have begun."""
    return f"{scene.current_event + 1:,} of {len(scene.run.events.every):,} events"


def rows(scene: Scene, width: int, height: int, cursor: int | None = None) -> list[Row]:
    """The pane; ``cursor`` is the index of the chosen event, None for the current one."""
    events = scene.run.events
    if not events.every:
        return block([Row.of(("the allocator was not called", "dim"))], width, height)
    at = scene.current_event if cursor is None else cursor
    shown = window(len(events.every), height, max(at, 0))
    digits = max(len(f"{events.entered[-1]:,}"), 7)
    return block([_row(scene, index, digits, cursor, width < WHOLE_ADDRESSES) for index in shown], width, height)


def _row(scene: Scene, index: int, digits: int, cursor: int | None, narrow: bool) -> Row:
    event, now = scene.run.events.every[index], scene.current_event
    text = scene.run.event_lines.told(event, scene.run.events.depths[index])
    if narrow:
        text = _ADDRESS.sub(lambda found: short_address(int(found[0], 16)), text)
    sign = ">" if index == now else " "
    row = Row.of((sign, "current"), (f"{event.entered:>{digits},} ", "count"), (text, _style(event, index, now)))
    return row.styled("cursor") if index == cursor else row


def _style(event: Event, index: int, now: int) -> str:
    if index > now:
        return "dim"
    return "bad" if event.failed or event.unfinished else "current" if index == now else ""
