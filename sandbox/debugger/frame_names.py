"""Names for page frames and what describes them: struct page, page tables, blocks of the page allocator."""

from __future__ import annotations

from functools import cached_property
from itertools import islice

from ..abi import DIRECT_MAP, PAGE_SHIFT, PAGE_SIZE, PageFlag, page
from ..address import LARGE_PAGE_SIZE, canonical
from ..heap.slabs import LargeAllocation
from ..heap.whatis import Table, tables
from ..machine.paging import LEVELS, MAPPINGS_TABLES
from .name import Name, blob, field_of
from .reading import Reading

_ENTRY = {"PML4": "PML4E", "PDPT": "PDPTE", "PD": "PDE", "PT": "PTE"}
_SHIFT = {level.name: level.shift for level in LEVELS}


class FrameNames:
    """Names for addresses of the direct map by their frame, for one moment."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._heap = reading.heap
        self._paging = reading.paging

    @cached_property
    def _tables(self) -> dict[int, Table]:
        """The page tables in force by frame; not all of them where they map one another without end."""
        most = MAPPINGS_TABLES + self._paging.memory.size // LARGE_PAGE_SIZE
        return {table.physical >> PAGE_SHIFT: table for table in reversed(list(islice(tables(self._paging), most)))}

    def struct_page(self, address: int) -> Name | None:
        """A byte of the array of struct page; None outside of it."""
        bounds = self.array
        pfn, inside = divmod(address - bounds.start, page.size)
        if not 0 <= pfn < len(bounds) // page.size:
            return None
        return field_of(page, address, address - inside, f"page[{pfn}]", "page", detail=self.use(pfn))

    @cached_property
    def array(self) -> range:
        """The virtual addresses of ``mem_map``; empty before there is one."""
        pages = self._heap.pages
        base, count = self._reading.attempt(lambda: (pages.mem_map, pages.max_pfn)) or (0, 0)
        return range(base, base + count * page.size)

    def use(self, pfn: int) -> str:
        """What a frame is used for, in a few words; empty before anybody knows."""
        info = self._reading.attempt(lambda: self._heap.pages.struct_page(pfn))
        if info is None:
            return ""
        flags = PageFlag(info.flags)
        if flags & PageFlag.PG_SLAB:
            owner = self._reading.cache_at(info.cache)
            return f"slab of {owner.name}" if owner else "slab of no cache"
        for flag, use in ((PageFlag.PG_RESERVED, "reserved"), (PageFlag.PG_LARGE, "large allocation"),
                          (PageFlag.PG_TABLE, "page table"), (PageFlag.PG_BUDDY, f"free block of order {info.order}")):
            if flags & flag:
                return use
        block = self._reading.attempt(lambda: self._heap.pages.free_block_of(pfn))
        return f"in a free block of order {block.order}" if block else "allocated" if info.head else "nobody's"

    def table_entry(self, address: int, physical: int) -> Name | None:
        """A byte of a page table that is in force; None for any other."""
        table = self._tables.get(physical >> PAGE_SHIFT)
        if table is None:
            return None
        index = (physical - table.physical) // 8
        translates = canonical(table.covers | index << _SHIFT[table.level])
        text = f"{_ENTRY[table.level]} of 0x{translates:016x}" + (f"+{physical % 8}" if physical % 8 else "")
        return Name(address, text, "page-table", address & -PAGE_SIZE, PAGE_SIZE, f"[{index}]", address & ~7, 8,
                    f"entry {index} of the {table.level} at physical 0x{table.physical:x}",
                    f"{table.level} at physical 0x{table.physical:x}", None, table)

    def block(self, address: int, physical: int) -> Name:
        """A byte that only the page allocator has something to say about."""
        pages, pfn = self._heap.pages, physical >> PAGE_SHIFT
        start = address & -PAGE_SIZE
        info = self._reading.attempt(lambda: pages.struct_page(pfn))
        if info is None:
            return blob(address, f"frame {pfn}", "frame", start, PAGE_SIZE)
        if info.flags & PageFlag.PG_LARGE:
            found = self._reading.attempt(lambda: self._heap.find(address))
            if isinstance(found, LargeAllocation):
                return blob(address, f"large allocation of {found.requested:,} bytes at 0x{found.address:x}", "large",
                            found.address, found.size, owner=found)
        block = self._reading.attempt(lambda: pages.free_block_of(pfn))
        if block is not None:
            return blob(address, f"free block of order {block.order} at 0x{block.address:x}", "free-block",
                        block.address, PAGE_SIZE << block.order, owner=block)
        use = self.use(pfn)
        if use == "allocated":
            first = self._reading.attempt(lambda: pages.pfn_of_page(info.head, "page.head"))
            order = self._reading.attempt(lambda: pages.struct_page(pfn if first is None else first).order) or 0
            if first is not None and first <= pfn < first + (1 << min(order, 32)):
                at = DIRECT_MAP + (first << PAGE_SHIFT)
                return blob(address, f"pages of order {order} at 0x{at:x}", "block", at, PAGE_SIZE << order)
        return blob(address, f"frame {pfn}", "reserved" if use == "reserved" else "frame", start, PAGE_SIZE, detail=use)
