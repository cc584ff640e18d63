"""Collapsed stacks: ``main;do_work;kmalloc 4096`` for each distinct stack, as Brendan Gregg's flame graphs read them.

https://github.com/brendangregg/FlameGraph (stackcollapse): frames from the outermost to the innermost, joined by
semicolons, then a space and a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ...errors import UsageError
from ..events import Event

WEIGHTS = ("bytes", "calls", "instructions")


def lines(events: Iterable[Event], weight: str = "bytes", kind: str = "alloc") -> list[str]:
    """One line for each distinct stack of the events of ``kind``, sorted.

    ``weight`` is ``bytes`` (``bytes_alloc``), ``calls`` or ``instructions``. An allocation inside another one of the
    same kind is left out: its bytes are counted there.
    """
    if weight not in WEIGHTS:
        raise UsageError(f"stacks are weighed by {', '.join(WEIGHTS)}, not by {weight!r}")
    every = list(events)
    kinds = {event.sequence: event.kind for event in every}
    total: Counter[str] = Counter()
    for event in every:
        if event.kind != kind or event.failed or (event.parent is not None and kinds.get(event.parent) == kind):
            continue
        frames = [frame.split(" ")[0].split("+")[0] for frame in reversed(event.stack)]
        amount = {"bytes": event.bytes_alloc, "calls": 1, "instructions": event.instructions}[weight]
        total[";".join([*frames, event.function])] += amount
    return [f"{stack} {amount}" for stack, amount in sorted(total.items()) if amount]
