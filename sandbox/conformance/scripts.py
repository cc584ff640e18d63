"""The lists that are played besides the workloads: each looks for one thing."""

from __future__ import annotations

from ..address import U64
from .operations import PLACES, Operation, Script
from .player import play
from .subject import Subject
from .workloads import Heap, anything

LADDER = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BEYOND = 16
"""Allocations that are asked for when there is nothing left."""
MOST = 1024
"""Allocations of one list at most."""


def largest_served(subject: Subject) -> int:
    """The largest size of the ladder that a fresh allocator serves, 0 for none."""
    served = 0
    for size in LADDER:
        found = play(subject, Script("ladder", (("allocate", 0, size),)))
        if found.served and found.served[0]:
            served = size
        if found.fatal is not None:
            break
    return served


def mixed(seed: int, largest: int) -> Script:
    """Everything at random, every size of the ladder among it."""
    heap = Heap(f"mixed {seed}", largest)
    for size in LADDER:
        if size <= largest:
            heap.allocate(size)
            heap.allocate(size - 1)
    anything(heap)
    return Script("mixed", tuple(heap.operations))


def churn(seed: int, largest: int) -> Script:
    """A short random list, three times: what was freed must be there again."""
    heap = Heap(f"churn {seed}", largest)
    anything(heap)
    return Script("churn", tuple(heap.operations[:60]), rounds=3)


def accounts(seed: int, largest: int) -> Script:
    """Its own account is asked for after every operation."""
    heap = Heap(f"stats {seed}", largest)
    anything(heap)
    asked: list[Operation] = [("stats",)]
    for operation in heap.operations[:50]:
        asked += [operation, ("stats",)]
    return Script("stats", tuple(asked))


def sizes(subject: Subject, largest: int) -> Script:
    """Size 0, sizes that no memory has, and the null pointer, while others are held."""
    beyond = subject.places.size
    huge = (beyond + 1, 2 * beyond, (1 << 31) + 8, (1 << 32) + 16, 1 << 63, U64 - 4095, U64 - 15, U64 - 7, U64)
    wanted = [largest, 1, 0, *huge, largest, 0]
    operations: list[Operation] = [("null",), *(("allocate", number, size) for number, size in enumerate(wanted)),
                                   ("null",)]
    return Script("sizes", tuple(operations))


def fill(subject: Subject, name: str, size: int) -> Script:
    """Allocate one size until there is no more, and ask some more times; twice."""
    most = min(subject.places.size // size + BEYOND, MOST)
    everything: tuple[Operation, ...] = tuple(("allocate", number, size) for number in range(most))
    found = play(subject, Script(name, everything))
    served = found.served[0] if found.served else {}
    end = next((number for number in range(most) if number not in served), most)
    return Script(name, (("stats",), *everything[: end + BEYOND]), rounds=2)


def fill_mixed(subject: Subject, seed: int, largest: int) -> Script:
    """Allocate sizes at random until there is no more; twice."""
    heap = Heap(f"fill {seed}", largest)
    asked = 0
    while len(heap.operations) < MOST and asked <= subject.places.size:
        heap.allocate(size := heap.size())
        asked += size
    everything = tuple(heap.operations)
    found = play(subject, Script("fill_mixed", everything))
    served = found.served[0] if found.served else {}
    end = next((number for number in range(len(everything)) if number not in served), len(everything))
    return Script("fill_mixed", everything[: end + BEYOND], rounds=2)


def small_size(subject: Subject, largest: int) -> int:
    """The smallest size of the ladder of which the memory holds no more than 256."""
    return next((size for size in LADDER if size <= largest and subject.places.size // size <= 1 << 8), largest)


def double_frees(largest: int) -> list[Script]:
    """A chunk is freed twice: at once, with another free in between, and when nothing else is held."""
    size = min(largest, 64)
    three: list[Operation] = [("allocate", number, size) for number in range(3)]
    more: list[Operation] = [("allocate", number, size) for number in range(3, 7)]
    return [Script("double_free", tuple(operations)) for operations in (
        [*three, ("free", 1), ("again", 1), *more],
        [*three, ("free", 1), ("free", 0), ("again", 1), *more],
        [three[0], ("free", 0), ("again", 0), *more],
    )]


def wild_frees(largest: int) -> list[Script]:
    """A pointer into a chunk, or to what no allocator gives, is freed."""
    size = min(largest, 64)
    four: list[Operation] = [("allocate", number, size) for number in range(4)]
    more: list[Operation] = [("allocate", number, size) for number in range(4, 8)]
    wild: list[Operation] = [("wild", 1, offset) for offset in (1, 8, 16, 32) if offset < size]
    wild += [("wild", place, 0) for place in PLACES]
    return [Script("wild_free", (*four, ("free", 2), operation, *more)) for operation in wild]
