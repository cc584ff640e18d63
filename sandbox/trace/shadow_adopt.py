"""A heap that is older than its shadow: what the bytes say of it becomes the shadow's first state.

Whatever is held counts as written, and as asked for whole. What the kernel itself allocated while it came up belongs
to the allocator, and so does its data.
"""

from __future__ import annotations

import numpy as np

from ..abi import DIRECT_MAP, PAGE_SHIFT, PAGE_SIZE, PageFlag, page, percpu
from ..errors import HeapCorruption
from ..guest.symbols import Symbols
from ..heap.slabs import ObjectState, Slab
from ..heap.views import Heap
from ..machine.paging import Paging
from .ram import Ram
from .shadow_code import data_of
from .shadow_objects import ObjectTable, Span
from .shadow_states import ALLOCATOR_DATA, State

OWN_CACHES = frozenset(("kmem_cache", "magazine"))
"""Caches whose objects are the allocator's own."""

_STRUCT_PAGE = np.dtype({"names": ["flags", "order"], "formats": ["<u4", "u1"],
                         "offsets": [page.flags.offset, page.order.offset], "itemsize": page.size})


def adopt(table: ObjectTable, heap: Heap, ram: Ram, symbols: Symbols, paging: Paging, *, own: bool) -> None:
    """Fill an empty table from the guest's bytes. ``own``: what is held now is the allocator's own.

    A slab that the bytes do not describe soundly keeps the state of plain memory.
    """
    _guard_data(table, symbols, paging)
    _free_pages(table, ram, symbols, paging)
    for cache in heap.caches:
        try:
            slabs = cache.slabs
        except HeapCorruption:
            continue
        for slab in slabs:
            _adopt_slab(table, slab, own or cache.name in OWN_CACHES)
    for large in heap.large_allocations:
        start = large.address - DIRECT_MAP
        table.add(Span(start, large.size, start, large.size, 1, large.size, 0, ""))
        table.handed_out(start, large.requested, True, own, None)
    for first, end in heap_frames(ram, symbols, paging):
        rows = table.shadow[first:end].reshape(-1, PAGE_SIZE)
        table.touched.update((np.flatnonzero(rows[:, 0] != int(State.FREE)) + (first >> PAGE_SHIFT)).tolist())


def _adopt_slab(table: ObjectTable, slab: Slab, own: bool) -> None:
    cache = slab.cache
    try:
        states = slab.states()
    except HeapCorruption:
        return
    table.add(Span(slab.address - DIRECT_MAP, slab.size, slab.object_address(0) - DIRECT_MAP, cache.size, slab.count,
                   cache.object_size, cache.address, cache.name, bool(cache.ctor)))
    if cache.ctor:
        table.kept[slab.address - DIRECT_MAP][:] = 0
    for index, state in enumerate(states):
        if state is ObjectState.ALLOCATED:
            table.handed_out(slab.object_address(index) - DIRECT_MAP, cache.object_size, True, own, None)


def _free_pages(table: ObjectTable, ram: Ram, symbols: Symbols, paging: Paging) -> None:
    """Every frame in a free block of the page allocator, and mem_map itself."""
    mem_map = ram.words[paging.translate(symbols["mem_map"]) >> 3] - DIRECT_MAP
    count = ram.words[paging.translate(symbols["max_pfn"]) >> 3]
    table.shadow[mem_map : mem_map + count * page.size] = int(State.METADATA)
    pages = np.frombuffer(ram.bytes, _STRUCT_PAGE, count, mem_map)
    for pfn in np.flatnonzero(pages["flags"] & int(PageFlag.PG_BUDDY)):
        start = int(pfn) << PAGE_SHIFT
        table.shadow[start : start + (PAGE_SIZE << int(pages["order"][pfn]))] = int(State.FREE)


def _guard_data(table: ObjectTable, symbols: Symbols, paging: Paging) -> None:
    """The allocator's variables, and its part of the CPU's own data."""
    cpu = symbols["boot_cpu"]
    ranges = [*data_of(symbols, ALLOCATOR_DATA), (cpu + percpu.slots.offset, cpu + percpu.size)]
    for start, end in ranges:
        for at in range(start, end, PAGE_SIZE):
            length = min(PAGE_SIZE, end - at)
            edge = min(length, PAGE_SIZE - at % PAGE_SIZE)
            for first, size in ((at, edge), (at + edge, length - edge)):
                if size:
                    physical = int(paging.translate(first))
                    table.shadow[physical : physical + size] = int(State.METADATA)


def heap_frames(ram: Ram, symbols: Symbols, paging: Paging) -> list[tuple[int, int]]:
    """The physical ranges that the page allocator may give out: its free and allocated frames, none reserved."""
    mem_map = ram.words[paging.translate(symbols["mem_map"]) >> 3] - DIRECT_MAP
    count = ram.words[paging.translate(symbols["max_pfn"]) >> 3]
    reserved = np.frombuffer(ram.bytes, _STRUCT_PAGE, count, mem_map)["flags"] & int(PageFlag.PG_RESERVED)
    edges = np.flatnonzero(np.diff(np.concatenate(([1], reserved, [1]))))
    return [(int(first) << PAGE_SHIFT, int(end) << PAGE_SHIFT) for first, end in edges.reshape(-1, 2)]
