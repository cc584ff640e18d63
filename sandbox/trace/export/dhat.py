"""DHAT: Valgrind's heap profile, which ``dhat/dh_view.html`` shows.

The file format, version 2, is described in Valgrind's ``dhat/dh_main.c``. A program point is a call stack; for each,
totals (``tb`` bytes, ``tbk`` blocks, ``tl`` lifetimes in instructions), its maximum (``mb``, ``mbk``), and what it
held when the whole heap was largest (``gb``, ``gbk``) and at the end (``eb``, ``ebk``). Time is the instruction count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..events import Event
from ..ledger import changes


@dataclass
class _Point:
    """What one call stack allocated."""

    total_bytes: int = 0
    total_blocks: int = 0
    lifetimes: int = 0
    bytes: int = 0
    blocks: int = 0
    most_bytes: int = 0
    most_blocks: int = 0
    peak_bytes: int = 0
    peak_blocks: int = 0

    def gain(self, size: int) -> None:
        """A block was allocated."""
        self.total_bytes += size
        self.total_blocks += 1
        self.bytes += size
        self.blocks += 1
        if self.bytes > self.most_bytes:
            self.most_bytes, self.most_blocks = self.bytes, self.blocks

    def lose(self, size: int, lifetime: int) -> None:
        """One of its blocks was freed."""
        self.bytes -= size
        self.blocks -= 1
        self.lifetimes += lifetime


def document(events: Iterable[Event], program: str = "guest") -> dict[str, Any]:
    """The profile as an object that ``json.dumps`` writes. ``events`` are all of a trace (``trace.walk()``)."""
    every = list(events)
    end = max((event.instruction for event in every), default=0)
    steps = changes(every)
    peak = _peak(steps)
    points: dict[tuple[str, ...], _Point] = {}
    held: dict[int, tuple[_Point, int, int]] = {}
    for index, (at, event) in enumerate(steps):
        if event.address in held:
            point, size, since = held.pop(event.address)
            point.lose(size, at - since)
        if event.kind == "alloc":
            point = points.setdefault((event.function, *event.stack), _Point())
            point.gain(event.bytes_alloc)
            held[event.address] = point, event.bytes_alloc, at
        if index == peak:
            for point in points.values():
                point.peak_bytes, point.peak_blocks = point.bytes, point.blocks
    for point, _, since in held.values():
        point.lifetimes += end - since
    frames = ["[root]", *sorted({frame for stack in points for frame in stack})]
    number = {frame: index for index, frame in enumerate(frames)}
    return {
        "dhatFileVersion": 2, "mode": "heap", "verb": "Allocated", "bklt": True, "bkacc": False, "tu": "instrs",
        "Mtu": "Minstr", "tuth": 500, "cmd": program, "pid": 1, "tg": steps[peak][0] if steps else 0, "te": end,
        "pps": [{"tb": point.total_bytes, "tbk": point.total_blocks, "tl": point.lifetimes, "mb": point.most_bytes,
                 "mbk": point.most_blocks, "gb": point.peak_bytes, "gbk": point.peak_blocks, "eb": point.bytes,
                 "ebk": point.blocks, "fs": [number[frame] for frame in stack]} for stack, point in points.items()],
        "ftbl": frames}


def _peak(steps: Sequence[tuple[int, Event]]) -> int:
    """The number of the step after which most bytes were in use."""
    sizes: dict[int, int] = {}
    in_use = most = peak = 0
    for index, (_, event) in enumerate(steps):
        in_use -= sizes.pop(event.address, 0)
        if event.kind == "alloc":
            sizes[event.address] = event.bytes_alloc
            in_use += event.bytes_alloc
        if in_use > most:
            most, peak = in_use, index
    return peak


def text(events: Iterable[Event], program: str = "guest") -> str:
    """The file's contents."""
    return json.dumps(document(events, program))
