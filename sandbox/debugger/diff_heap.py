"""The heap's part of a comparison: counts, slabs and magazines of each cache."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import GuestMemoryError, HeapCorruption, UsageError
from ..heap.caches import KmemCache
from ..heap.views import Heap


@dataclass(frozen=True)
class CacheCounts:
    """A cache at one moment: objects that callers hold, in magazines, and free; its slabs by address; how many
    objects are in each of its magazines (``loaded``, ``previous``, ``depot full``, ...), in that order."""

    inuse: int
    cached: int
    free: int
    slabs: frozenset[int]
    magazines: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CacheChange:
    """A cache that differs; ``before`` or ``after`` is None when it did not exist then."""

    name: str
    before: CacheCounts | None
    after: CacheCounts | None

    @property
    def slabs_created(self) -> tuple[int, ...]:
        """The addresses of slabs that are new, ascending."""
        return tuple(sorted(_slabs(self.after) - _slabs(self.before)))

    @property
    def slabs_destroyed(self) -> tuple[int, ...]:
        """The addresses of slabs that are gone, ascending."""
        return tuple(sorted(_slabs(self.before) - _slabs(self.after)))


def _slabs(counts: CacheCounts | None) -> frozenset[int]:
    return frozenset() if counts is None else counts.slabs


def cache_changes(before: Heap, after: Heap) -> tuple[tuple[CacheChange, ...], str]:
    """The caches that differ, in the order of ``slab_caches``, and why a heap or a cache could not be read."""
    wrong: list[str] = []
    old, new = _counts(before, "before", wrong), _counts(after, "after", wrong)
    names = list(dict.fromkeys([*new, *old]))
    changed = tuple(CacheChange(name, old.get(name), new.get(name)) for name in names
                    if old.get(name) != new.get(name))
    return changed, "; ".join(wrong)


def _counts(heap: Heap, when: str, wrong: list[str]) -> dict[str, CacheCounts]:
    found = {}
    try:
        for cache in heap.caches:
            try:
                found[cache.name] = _of(cache)
            except HeapCorruption as error:
                wrong.append(f"{cache.name} cannot be counted {when}: {error}")
    except (HeapCorruption, GuestMemoryError, UsageError) as error:
        wrong.append(f"the caches cannot be listed {when}: {error}")
    return found


def _of(cache: KmemCache) -> CacheCounts:
    return CacheCounts(cache.inuse, cache.cached, cache.free, frozenset(slab.address for slab in cache.slabs),
                       tuple((held.role, len(held.objects)) for held in cache.magazines))
