"""Magazines: the stacks of free objects between a cache's slabs and its callers.

Each CPU has a loaded and a previous magazine for each cache, in the ``slots`` of its ``struct percpu``; the cache
has a depot of full and of empty ones (Bonwick and Adams, "Magazines and Vmem", USENIX 2001). What a loaded
magazine holds is told by ``top`` alone; ``rounds`` counts for all the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..abi import MAGAZINE_ROUNDS, kmem_cache, kmem_cache_cpu, magazine, percpu
from ..errors import HeapCorruption
from .reader import GuestReader, structure, symbol

_FIRST_SLOT = percpu.slots.offset
_OBJECTS = magazine.objects.offset
_DEPOT_WALK = 1 << 16


@dataclass(frozen=True)
class Magazine:
    """One magazine as it was read: ``role`` is ``loaded``, ``previous``, ``depot full`` or ``depot empty``;
    ``cpu`` is the CPU that has it, -1 in the depot; ``objects`` are addresses, the next to be taken last."""

    address: int
    role: str
    cpu: int
    objects: tuple[int, ...]

    def slot(self, index: int) -> int:
        """The address of the slot that ``objects[index]`` was read from."""
        return self.address + _OBJECTS + 8 * index


@dataclass(frozen=True)
class CpuFront:
    """One CPU's ``struct kmem_cache_cpu`` for one cache: where it lies and what it has counted."""

    cpu: int
    address: int
    enabled: bool
    alloc_fastpath: int
    free_fastpath: int
    magazines: tuple[Magazine, ...]


def cpus(guest: GuestReader) -> tuple[percpu, ...]:
    """Every CPU's ``struct percpu``."""
    return (structure(guest, percpu, symbol(guest, "boot_cpu"), "boot_cpu"),)


def fronts(guest: GuestReader, cache: kmem_cache) -> tuple[CpuFront, ...]:
    """The cache's front of every CPU. A cache without magazines shares slot 0, which nobody counts in."""
    offset = cache.cpu
    slot, odd = divmod(offset - _FIRST_SLOT, kmem_cache_cpu.size)
    if odd or not 0 <= slot < percpu.slots.count:
        if offset == 0:
            return ()                                        # not set up yet
        raise HeapCorruption(cache.address + kmem_cache.cpu.offset, f"kmem_cache.cpu is 0x{offset:x}, and no slot")
    found = []
    for area in cpus(guest):
        front = kmem_cache_cpu(guest, area.address + offset)
        enabled = slot != 0 and front.loaded != 0
        held = tuple(_of_cpu(guest, cache, front, int(area.cpu))) if enabled else ()
        found.append(CpuFront(int(area.cpu), front.address, enabled, front.alloc_fastpath if slot else 0,
                              front.free_fastpath if slot else 0, held))
    return tuple(found)


def _of_cpu(guest: GuestReader, cache: kmem_cache, front: kmem_cache_cpu, cpu: int) -> Iterator[Magazine]:
    """The loaded and the previous magazine of one CPU."""
    loaded = structure(guest, magazine, front.loaded, "kmem_cache_cpu.loaded")
    count, odd = divmod(front.top - (loaded.address + _OBJECTS), 8)
    if odd or not 0 <= count <= _capacity(cache):
        raise HeapCorruption(front.address, f"top is 0x{front.top:x}, outside the loaded magazine "
                                            f"at 0x{loaded.address:x}")
    yield _contents(loaded, "loaded", cpu, count)
    if front.previous:
        previous = structure(guest, magazine, front.previous, "kmem_cache_cpu.previous")
        yield _contents(previous, "previous", cpu, _rounds(cache, previous))


def depot(guest: GuestReader, cache: kmem_cache) -> Iterator[Magazine]:
    """The magazines in the cache's depot, full ones first."""
    for role, field in (("depot full", kmem_cache.depot_full), ("depot empty", kmem_cache.depot_empty)):
        came_from = cache.address + field.offset
        at = getattr(cache, field.name)
        seen: set[int] = set()
        while at:
            if at in seen or len(seen) >= _DEPOT_WALK:
                raise HeapCorruption(came_from, f"the depot's list leads back to 0x{at:x}")
            seen.add(at)
            held = structure(guest, magazine, at, f"{role} magazine")
            yield _contents(held, role, -1, _rounds(cache, held))
            came_from, at = at, held.next


def _capacity(cache: kmem_cache) -> int:
    rounds: int = cache.rounds
    if rounds > MAGAZINE_ROUNDS:
        raise HeapCorruption(cache.address + kmem_cache.rounds.offset,
                             f"magazines of {rounds} objects, and {MAGAZINE_ROUNDS} fit")
    return rounds


def _rounds(cache: kmem_cache, held: magazine) -> int:
    rounds: int = held.rounds
    if rounds > _capacity(cache):
        raise HeapCorruption(held.address + magazine.rounds.offset, f"a magazine says that it holds {rounds} objects")
    return rounds


def _contents(held: magazine, role: str, cpu: int, count: int) -> Magazine:
    return Magazine(held.address, role, cpu, tuple(held.objects[:count]))


def magazines(guest: GuestReader, cache: kmem_cache) -> Iterator[Magazine]:
    """Every magazine that holds, or could hold, objects of the cache."""
    for front in fronts(guest, cache):
        yield from front.magazines
    yield from depot(guest, cache)
