"""The lists that are played besides the workloads: each looks for one thing."""

from __future__ import annotations

import random

from ..address import U64
from .operations import PLACES, Operation, Script
from .player import play
from .subject import Subject
from .workloads import Heap, anything

LADDER = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BEYOND = 16
"""Allocations that are asked for when there is nothing left."""
SHORT = 90
"""Operations of a list for one function."""
MOST = 1024
"""Allocations of one list at most."""
ROOM = 5
"""Random sizes are more than one in so many of the largest, taken all together."""


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


def resizes(seed: int, largest: int) -> Script:
    """Chunks grow and shrink, also to more than there is."""
    heap = Heap(f"reallocate {seed}", largest)
    while len(heap.operations) < SHORT:
        if heap.held and heap.rng.random() < 0.5:
            beyond = heap.rng.random() < 0.1
            heap.operations.append(("resize", heap.rng.choice(heap.held), 1 << 40 if beyond else heap.size()))
        elif heap.held and heap.rng.random() < 0.4:
            heap.free_any()
        else:
            heap.allocate()
    return Script("resizes", tuple(heap.operations))


def zeroes(seed: int, largest: int) -> Script:
    """Zeroed memory from what others have used; and counts and sizes whose product has more than 64 bits."""
    heap = Heap(f"allocate_zeroed {seed}", largest)
    while len(heap.operations) < SHORT:
        if len(heap.held) > 4 and heap.rng.random() < 0.6:
            heap.free_any()
            count = heap.rng.randint(1, 16)
            number = heap.allocate()
            heap.operations[-1] = "zeroed", number, count, max(heap.size() // count, 1)
        else:
            heap.allocate()
    for count, size in ((1 << 33, 1 << 33), ((1 << 61) + 1, 8), (U64, 2), (3, U64)):
        heap.operations.append(("zeroed", heap.allocate(), count, size))
        del heap.operations[-2]
    return Script("zeroes", tuple(heap.operations))


def alignments(seed: int, largest: int) -> Script:
    """Every power of two that leaves room for it, with sizes that are multiples, as C wants them."""
    heap = Heap(f"allocate_aligned {seed}", largest)
    powers = [1 << power for power in range(4, max(largest.bit_length(), 5)) if 4 << power <= largest] or [16]
    while len(heap.operations) < SHORT:
        if len(heap.held) > 6 and heap.rng.random() < 0.5:
            heap.free_any()
        elif heap.rng.random() < 0.6:
            align, number = heap.rng.choice(powers), heap.allocate()
            heap.operations[-1] = "aligned", number, align, align * heap.rng.randint(1, 2)
        else:
            heap.allocate()
    return Script("alignments", tuple(heap.operations))


def accounts(seed: int, largest: int) -> Script:
    """Its own account is asked for after every operation."""
    heap = Heap(f"stats {seed}", largest)
    anything(heap)
    asked: list[Operation] = [("stats",)]
    for operation in heap.operations[:50]:
        asked += [operation, ("stats",)]
    return Script("stats", tuple(asked))


def sizes(subject: Subject, seed: int, largest: int) -> Script:
    """Size 0, sizes that no memory has, and the null pointer, at random while others are held."""
    rng, beyond = random.Random(f"sizes {seed}"), subject.places.size
    huge = (beyond + 1, 2 * beyond, (1 << 31) + 8, (1 << 32) + 16, 1 << 63, U64 - 4095, U64 - 15, U64 - 7, U64,
            rng.randrange(beyond + 1, 1 << 63), (rng.randrange(1, 1 << 31) << 32) + rng.randint(1, largest))
    wanted = [1, 0, 0, *huge, largest]
    rng.shuffle(wanted)
    operations: list[Operation] = [("allocate", number, size) for number, size in enumerate([largest, *wanted])]
    for _ in range(2):
        operations.insert(rng.randrange(len(operations) + 1), ("null",))
    return Script("sizes", tuple(operations))


def fill_size(subject: Subject, largest: int) -> int:
    """The largest size of a list that fills the memory: where :data:`MOST` random sizes up to ``largest`` do not, a
    power of two with which they do, as far as the allocator serves it."""
    size = largest
    while size * MOST < ROOM * subject.places.size:
        size *= 2
    while size > largest and not any(play(subject, Script("ladder", (("allocate", 0, size),))).served):
        size //= 2
    return size


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


def double_frees(subject: Subject, seed: int, largest: int) -> list[Script]:
    """A chunk is freed twice: at once, with other frees in between, and when nothing else is held."""
    found = []
    for number, between in enumerate((0, 1, MOST)):
        heap = Heap(f"double_free {seed} {number}", min(largest, 64))
        victim, size = _victim(subject, heap)
        heap.free(heap.held.index(victim))
        for _ in range(min(len(heap.held), between * heap.rng.randint(1, 2))):
            heap.free_any()
        heap.operations.append(("again", victim))
        found.append(_and_more("double_free", heap, size))
    return found


def wild_frees(subject: Subject, seed: int, largest: int) -> list[Script]:
    """A pointer into a chunk, or to what no allocator gives, is freed."""
    found = []
    for place in (1, 8, 16, 32, 0, *PLACES):
        heap = Heap(f"wild_free {seed} {place}", min(largest, 64))
        victim, size = _victim(subject, heap)
        if isinstance(place, str):
            heap.operations.append(("wild", place, heap.rng.randrange(0, 64, 8)))
        elif place < size > 1:
            heap.operations.append(("wild", victim, place or heap.rng.randrange(1, size)))
        else:
            continue
        found.append(_and_more("wild_free", heap, size))
    return found


def _victim(subject: Subject, heap: Heap) -> tuple[int, int]:
    """Write a random list without fault, and choose one of the chunks that are held then, with its size."""
    rng = heap.rng
    for _ in range(rng.randint(0, 12)):
        if len(heap.held) > 2 and rng.random() < 0.6:
            heap.free_any()
        else:
            heap.allocate()
    for _ in range(rng.randint(2, 4)):
        heap.allocate(rng.randint(max(heap.largest // 2, 1), heap.largest))
    if rng.random() < 0.5:
        heap.free_any()
    sizes = {int(operation[1]): (index, int(operation[2])) for index, operation in enumerate(heap.operations)
             if operation[0] == "allocate"}
    played = play(subject, Script("prefix", tuple(heap.operations)))
    served = played.served[0] if played.served else {}
    large = [number for number in heap.held if sizes[number][1] >= heap.largest // 2]
    victim = rng.choice([number for number in large if sizes[number][0] in served] or large)
    return victim, sizes[victim][1]


def _and_more(name: str, heap: Heap, size: int) -> Script:
    """Then as much as the victim was is allocated again, some times: nobody may be given what another one holds."""
    for _ in range(heap.rng.randint(4, 6)):
        heap.allocate(size)
    return Script(name, tuple(heap.operations))
