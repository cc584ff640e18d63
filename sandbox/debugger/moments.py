"""The moments that a timeline starts from: snapshots along a run, thinned out with distance within a budget of memory.

A journey begins at the latest snapshot before its goal and executes the rest, so the gaps between snapshots are what
it costs. When memory runs short, the one is given up whose loss makes the smallest gap in proportion to its distance
from where one looks: while a run is recorded that is its end, later the present moment. So what is near stays quick
to reach, what is far takes longer, and nothing is ever out of reach. (Exponential checkpoint thinning, as in Boothe's
"Efficient algorithms for bidirectional debugging", PLDI 2000, and in UndoDB.)
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from operator import attrgetter

from ..guest.travel import Kept

_COUNT = attrgetter("instruction")
_TABLE_ENTRY = 8
"""Bytes that a snapshot takes for each page that it shares."""


class Moments:
    """Snapshots in order of time. The first is always kept; the others share ``budget`` bytes."""

    def __init__(self, first: Kept, budget: int) -> None:
        self.budget = budget
        self._kept = [first]
        self.focus = first.instruction
        self._sizes: dict[int, int] = {}
        self.bytes = 0

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def first(self) -> Kept:
        """The beginning of the run."""
        return self._kept[0]

    def before(self, instruction: int) -> Kept:
        """The latest snapshot that is not behind ``instruction``."""
        return self._kept[bisect_right(self._kept, instruction, key=_COUNT) - 1]

    def have(self, instruction: int) -> bool:
        """Whether there is a snapshot of exactly this moment."""
        return self.before(instruction).instruction == instruction

    def add(self, kept: Kept) -> None:
        """One more snapshot; older ones give way to it when the budget is used up."""
        if self.have(kept.instruction):
            return
        if kept.instruction > self._kept[-1].instruction:
            self.focus = kept.instruction
        insort(self._kept, kept, key=_COUNT)
        at = bisect_right(self._kept, kept.instruction, key=_COUNT) - 1
        self._weigh(at)
        self._weigh(at + 1)
        while self.bytes > self.budget and len(self._kept) > 2:
            self._drop(self._least())

    def clear(self) -> None:
        """Keep the first alone: the rest is of a past that is none any more."""
        del self._kept[1:]
        self._sizes.clear()
        self.bytes = 0

    def _weigh(self, at: int) -> None:
        """Count what a snapshot has that the one before it has not."""
        if 0 < at < len(self._kept):
            here, before = self._kept[at], self._kept[at - 1]
            size = here.machine.ram.beyond(before.machine.ram) + _TABLE_ENTRY * len(here.machine.ram.pages)
            size += sum(len(value) for state in here.machine.devices for value in state.values()
                        if isinstance(value, bytes))     # the console's text
            self.bytes += size - self._sizes.get(here.instruction, 0)
            self._sizes[here.instruction] = size

    def _least(self) -> int:
        """The index of the snapshot whose loss is felt least; the first is never given up."""
        counts = [kept.instruction for kept in self._kept]
        counts.append(counts[-1] + (counts[-1] - counts[-2]))
        return min(range(1, len(self._kept)),
                   key=lambda at: (counts[at + 1] - counts[at - 1]) / (abs(self.focus - counts[at]) + 1))

    def _drop(self, at: int) -> None:
        gone = self._kept.pop(at)
        self.bytes -= self._sizes.pop(gone.instruction)
        self._weigh(at)
