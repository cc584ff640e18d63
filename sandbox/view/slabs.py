"""The heap as text: slabinfo's table, and each slab as a row of cells.

::

    kmalloc-64: 64 bytes, 64 in a slab; 3 in use, 28 in magazines, 33 free
      0xffff888000712000 partial  ###oooooooooooooooooooooooooooo.................................

``#`` is an object that a caller holds, ``o`` one in a magazine, ``.`` one in its slab.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..abi import DEPOT_LIMIT, SlabList
from ..heap.caches import KmemCache
from ..heap.slabs import ObjectState, Slab
from ..heap.views import Heap

CELLS = {ObjectState.ALLOCATED: "#", ObjectState.CACHED: "o", ObjectState.FREE: "."}
LEGEND = "# in use   o in a magazine   . free"
WIDTH = 64
"""Cells on one line."""

HEADER = ("# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
          " : tunables <limit> <batchcount> <sharedfactor>"
          " : slabdata <active_slabs> <num_slabs> <sharedavail>")
_LISTS = {SlabList.SLAB_LIST_NONE: "on no list", SlabList.SLAB_LIST_PARTIAL: "partial",
          SlabList.SLAB_LIST_FULL: "full", SlabList.SLAB_LIST_EMPTY: "empty"}


def slabinfo(heap: Heap) -> str:
    """What the guest's own ``slabinfo()`` prints, in the columns of Linux's ``/proc/slabinfo`` (version 2.1), from
    the views: objects in magazines are active, because they are out of their slabs."""
    return "\n".join(["slabinfo - version: 2.1", HEADER, *map(_slabinfo_line, heap.caches)]) + "\n"


def _slabinfo_line(cache: KmemCache) -> str:
    partial, full, empty = cache.partial, cache.full, cache.empty
    active = sum(slab.inuse for slab in (*partial, *full))
    slabs = len(partial) + len(full) + len(empty)
    rounds, depot = (cache.rounds, DEPOT_LIMIT) if cache.wants_magazines else (0, 0)
    return (f"{cache.name:<17} {active:6} {slabs * cache.objects_per_slab:6} {cache.size:6} "
            f"{cache.objects_per_slab:4} {1 << cache.order:4} : tunables {2 * rounds:4} {rounds:4} {depot:4}"
            f" : slabdata {len(partial) + len(full):6} {slabs:6} {cache.nr_depot_full * cache.rounds:6}")


def cells(slab: Slab, width: int = WIDTH) -> list[str]:
    """The slab's objects in order of address, one character each, ``width`` on a line."""
    row = "".join(CELLS[state] for state in slab.states())
    return [row[at : at + width] for at in range(0, len(row), width)]


def slab_rows(cache: KmemCache, width: int = WIDTH) -> Iterator[str]:
    """One cache: a line of counts, then its slabs."""
    yield (f"{cache.name}: {cache.object_size:,} bytes, {cache.objects_per_slab} in a slab; {cache.inuse} in use, "
           f"{cache.cached} in magazines, {cache.free} free")
    for slab in cache.slabs:
        first, *more = cells(slab, width) or [""]
        label = f"  0x{slab.address:016x} {_LISTS[slab.list]:<8} "
        yield label + first
        yield from (" " * len(label) + row for row in more)


def page_summary(heap: Heap) -> str:
    """What the frames of RAM are used for, and the free blocks of each order."""
    counts = heap.pages.counts()
    used = [f"{number} {word}" for number, word in (
        (counts.free, "free"), (counts.slab, "in slabs"), (counts.large, "large allocations"),
        (counts.table, "page tables"), (counts.allocated, "allocated"), (counts.reserved, "reserved"),
        (counts.lost, "LOST")) if number]
    blocks = " ".join(f"{number}*{4 << order}K" for order, number in enumerate(heap.pages.free_by_order) if number)
    return f"{counts.total} frames: {', '.join(used)}\nfree blocks: {blocks or 'none'}\n"
