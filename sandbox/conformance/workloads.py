"""Workloads: what programs do to an allocator, each as a seeded list of operations.

The same seed and the same largest size give the same list, on every host. Sizes are those that the allocator serves:
from 1 byte to ``largest``.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .operations import Operation, Script

LENGTH = 180
"""Operations of a workload, about."""
_PARETO = 1.16                           # the shape at which a fifth of the requests asks for four fifths of the bytes



class Heap:
    """Writes a list: ``rng`` chooses, ``held`` are the chunks that a program has."""

    def __init__(self, seed: str, largest: int) -> None:
        self.rng = random.Random(seed)
        self.largest = largest
        self.held: list[int] = []
        self.operations: list[Operation] = []
        self._next = 0

    def size(self) -> int:
        """Small ones mostly, and often one at, before or behind a power of two."""
        power = 1 << self.rng.randrange(max(self.largest.bit_length(), 1))
        chosen = self.rng.choice((power, power - 1, power + 1, self.rng.randint(1, self.largest)))
        return min(max(chosen, 1), self.largest)

    def allocate(self, size: int | None = None) -> int:
        """One more chunk is held."""
        number, self._next = self._next, self._next + 1
        self.operations.append(("allocate", number, self.size() if size is None else size))
        self.held.append(number)
        return number

    def free(self, index: int = -1) -> None:
        """Free the chunk at ``index`` of those that are held, the latest one by default."""
        self.operations.append(("free", self.held.pop(index)))

    def free_any(self) -> None:
        """Free any of them."""
        self.free(self.rng.randrange(len(self.held)))


def ping_pong(heap: Heap) -> None:
    """One chunk at a time: allocated, freed, allocated."""
    while len(heap.operations) < LENGTH:
        heap.allocate()
        heap.free()


def batch(heap: Heap) -> None:
    """A batch of chunks, and all of them freed in the same order."""
    while len(heap.operations) < LENGTH:
        for _ in range(heap.rng.randint(8, 30)):
            heap.allocate()
        while heap.held:
            heap.free(0)


def lifo(heap: Heap) -> None:
    """A stack that grows and shrinks."""
    while len(heap.operations) < LENGTH:
        if heap.held and (len(heap.held) >= 40 or heap.rng.random() < 0.48):
            heap.free()
        else:
            heap.allocate()


def fifo(heap: Heap) -> None:
    """A queue: what has waited longest is freed."""
    while len(heap.operations) < LENGTH:
        heap.allocate()
        if len(heap.held) > 16:
            heap.free(0)


def anything(heap: Heap) -> None:
    """Any chunk may be the next to be freed."""
    while len(heap.operations) < LENGTH:
        if heap.held and (len(heap.held) >= 40 or heap.rng.random() < 0.45):
            heap.free_any()
        else:
            heap.allocate()


def two_two(heap: Heap) -> None:
    """Two allocations, two frees, at every fill: what one magazine alone handles badly."""
    while len(heap.operations) < LENGTH:
        size = heap.size()
        for _ in range(4):
            heap.allocate(size)
            heap.allocate(size)
            heap.free()
            heap.free()
        heap.allocate(size)


def pareto(heap: Heap) -> None:
    """Many small sizes and a few very large ones."""
    while len(heap.operations) < LENGTH:
        if heap.held and (len(heap.held) >= 30 or heap.rng.random() < 0.4):
            heap.free_any()
        else:
            heap.allocate(min(int(8 * heap.rng.paretovariate(_PARETO)), heap.largest))


def larson(heap: Heap) -> None:
    """Slots whose chunks are replaced at random: a server, after Larson and Krishnan (ISMM 1998)."""
    for _ in range(32):
        heap.allocate()
    while len(heap.operations) < LENGTH:
        heap.free_any()
        heap.allocate()


def spike(heap: Heap) -> None:
    """A few chunks that stay, a spike, and its drain."""
    while len(heap.operations) < LENGTH:
        while len(heap.held) < 45:
            heap.allocate()
        while len(heap.held) > 5:
            heap.free_any()


def survivor(heap: Heap) -> None:
    """Of each run of chunks one survives, and keeps the pages of all; then come other sizes."""
    while len(heap.operations) < LENGTH:
        size = max(heap.size(), heap.largest // 4)
        run = [heap.allocate(size) for _ in range(32)]
        for number in run:
            if number % 8:
                heap.free(heap.held.index(number))


def sawtooth(heap: Heap) -> None:
    """Up and down to nothing, higher each time."""
    peak = 4
    while len(heap.operations) < LENGTH:
        size = heap.size()
        while len(heap.held) < peak:
            heap.allocate(size)
        while heap.held:
            heap.free()
        peak += 6


WORKLOADS: dict[str, Callable[[Heap], None]] = {
    "ping_pong": ping_pong, "batch": batch, "lifo": lifo, "fifo": fifo, "random": anything, "two_two": two_two,
    "pareto": pareto, "larson": larson, "spike": spike, "survivor": survivor, "sawtooth": sawtooth,
}


def workload(name: str, seed: int, largest: int) -> Script:
    """The list of a workload for a seed."""
    heap = Heap(f"{name} {seed}", largest)
    WORKLOADS[name](heap)
    return Script(name, tuple(heap.operations))
