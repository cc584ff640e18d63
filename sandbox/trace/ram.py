"""Reading guest RAM from inside a hook: no copies, no exceptions, no calls into the engine.

A hook runs hundreds of thousands of times a second, so it reads RAM as one array of 64-bit words and walks the
page tables itself. Of a walk it remembers where the last entry lies and what it said, and looks at that again each
time; structures of the allocator are read anew, because nothing else tells when the guest changed them.
"""

from __future__ import annotations

from ..abi import (
    DIRECT_MAP,
    HOLE_END,
    HOLE_START,
    MAX_ORDER,
    PAGE_SHIFT,
    PAGE_SIZE,
    STRUCT_PAGE_SHIFT,
    PageFlag,
    kmem_cache,
    page,
)
from ..layout import Field
from ..x86 import PageTableEntry

_P = PageTableEntry.P.mask
_PS = PageTableEntry.PS.mask
_IN_PAGE = PAGE_SIZE - 1
_ADDRESS = PageTableEntry.ADDRESS_MASK
_SLAB = int(PageFlag.PG_SLAB)
_LARGE = int(PageFlag.PG_LARGE)
_PAGE_CACHE = page.cache.offset >> 3
_PAGE_HEAD = page.head.offset >> 3
_PAGE_PRIVATE = page.private.offset >> 3
_ORDER_SHIFT = 8 * page.order.offset
_NAME = kmem_cache.name.offset
_NAME_END = _NAME + kmem_cache.name.size


Thing = tuple[bytes | None, int, int, int]
"""What the allocator's structures say of an address at one moment: the name of its cache (the raw bytes of ``char
name[]``, None for whole pages), the bytes given, the bytes asked for, the address of its slab or 0."""

NOTHING: Thing = (None, 0, 0, 0)
_MOST_PAGES = 1024


def half(field: Field) -> tuple[int, int]:
    """The word of a structure that a field of at most 32 bits lies in, and how far to shift it down."""
    return field.offset >> 3, 8 * (field.offset & 7)


_OBJECT_SIZE, _OBJECT_SIZE_SHIFT = half(kmem_cache.object_size)
_CACHE_ORDER, _CACHE_ORDER_SHIFT = half(kmem_cache.order)


class Ram:
    """Guest RAM by 64-bit words; ``mem_map`` and ``max_pfn`` are the physical addresses of those variables."""

    def __init__(self, ram: memoryview, mem_map: int, max_pfn: int) -> None:
        self.bytes = ram
        self.words = ram.cast("Q")
        self.size = len(ram)
        self._last_page = (self.size - page.size) >> 3
        self._last_cache = self.size - kmem_cache.size
        self._mem_map = mem_map >> 3
        self._max_pfn = max_pfn >> 3
        self.walked: dict[int, tuple[int, int, int, int]] = {}      # page: last entry, its value, CR3, frame

    def translate(self, virtual: int, cr3: int) -> int:
        """The physical address behind a virtual one, -1 where no RAM is."""
        physical = virtual - DIRECT_MAP
        if 0 <= physical < self.size:
            return physical if not HOLE_START <= physical < HOLE_END else -1
        known = self.walked.get(virtual >> PAGE_SHIFT)
        if known is not None and self.words[known[0]] == known[1] and known[2] == cr3:
            return known[3] | virtual & _IN_PAGE
        return self._walk(virtual, cr3)

    def _walk(self, virtual: int, cr3: int) -> int:
        words = self.words
        table = cr3 & _ADDRESS
        for shift in (39, 30, 21, 12):
            if table >= self.size:
                return -1
            at = (table >> 3) + (virtual >> shift & 511)
            entry = words[at]
            if not entry & _P:
                return -1
            table = entry & _ADDRESS
            if shift == 12 or (entry & _PS and shift < 39):
                break
        physical = (table & -(1 << shift)) | virtual & ((1 << shift) - 1)
        if physical >= self.size or HOLE_START <= physical < HOLE_END:
            return -1
        if len(self.walked) >= _MOST_PAGES:
            self.walked.clear()
        self.walked[virtual >> PAGE_SHIFT] = at, entry, cr3, physical & ~_IN_PAGE
        return physical

    def word(self, virtual: int, cr3: int) -> int:
        """The aligned 64-bit word at a virtual address, 0 where no RAM is."""
        physical = self.translate(virtual, cr3)
        return 0 if physical < 0 or physical & 7 else self.words[physical >> 3]

    def block(self, virtual: int, size: int, cr3: int) -> bytes:
        """Bytes by virtual address, up to the first that is not RAM."""
        found = b""
        while size > 0:
            physical = self.translate(virtual, cr3)
            if physical < 0:
                break
            length = min(size, PAGE_SIZE - (virtual & (PAGE_SIZE - 1)))
            found += bytes(self.bytes[physical : physical + length])
            virtual, size = virtual + length, size - length
        return found

    def text(self, virtual: int, limit: int, cr3: int) -> bytes:
        """A NUL-terminated string of at most ``limit`` bytes."""
        return self.block(virtual, limit, cr3).split(b"\0", 1)[0]

    def cache(self, cache: int, cr3: int) -> Thing:
        """A cache as it is: its name, and the size of its objects."""
        physical = self.translate(cache, cr3)
        if physical < 0 or physical & 7 or physical + kmem_cache.size > self.size:
            return NOTHING
        size = self.words[(physical >> 3) + _OBJECT_SIZE] >> _OBJECT_SIZE_SHIFT & 0xFFFF_FFFF
        return bytes(self.bytes[physical + _NAME : physical + _NAME_END]), size, size, 0

    def slab_bytes(self, cache: int, cr3: int) -> int:
        """The size of a cache's slabs, 0 for what is no cache."""
        physical = self.translate(cache, cr3)
        if physical < 0 or physical & 7 or physical + kmem_cache.size > self.size:
            return 0
        order = self.words[(physical >> 3) + _CACHE_ORDER] >> _CACHE_ORDER_SHIFT & 0xFFFF_FFFF
        return PAGE_SIZE << order if order <= MAX_ORDER else 0

    def frame_of(self, struct_page: int) -> int:
        """The direct-map address of the frame that a ``struct page *`` describes, 0 for any other pointer."""
        pfn, odd = divmod(struct_page - self.words[self._mem_map], page.size)
        return 0 if odd or not 0 <= pfn < self.words[self._max_pfn] else DIRECT_MAP + (pfn << PAGE_SHIFT)

    def thing(self, address: int, cr3: int) -> Thing:
        """What the allocator has at an address: an object of a cache, a large allocation, or nothing.

        The most frequent question of all, so :meth:`cache` is written out here.
        """
        physical = address - DIRECT_MAP
        if not 0 <= physical < self.size:
            return NOTHING
        words = self.words
        first = (words[self._mem_map] - DIRECT_MAP) >> 3                # numbers of words
        info = first + (physical >> PAGE_SHIFT << STRUCT_PAGE_SHIFT - 3)
        if not 0 <= info < self._last_page:
            return NOTHING
        flags = words[info]
        if flags & _SLAB:
            at = words[info + _PAGE_CACHE] - DIRECT_MAP
            if at & 7 or not 0 <= at < self._last_cache:
                at = self.translate(at + DIRECT_MAP, cr3)
                if at & 7 or not 0 <= at < self._last_cache:            # -1 & 7 is 7
                    return NOTHING
            size = words[(at >> 3) + _OBJECT_SIZE] >> _OBJECT_SIZE_SHIFT & 0xFFFF_FFFF
            head = ((words[info + _PAGE_HEAD] - DIRECT_MAP) >> 3) - first
            return (bytes(self.bytes[at + _NAME : at + _NAME_END]), size, size,
                    DIRECT_MAP + (head >> STRUCT_PAGE_SHIFT - 3 << PAGE_SHIFT))
        if flags & _LARGE:
            head = (words[info + _PAGE_HEAD] - DIRECT_MAP) >> 3
            if 0 <= head < self._last_page:
                order = words[head] >> _ORDER_SHIFT & 0xFF
                return None, PAGE_SIZE << min(order, MAX_ORDER), words[head + _PAGE_PRIVATE], 0
        return NOTHING
