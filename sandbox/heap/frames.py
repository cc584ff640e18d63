"""Page frames and the buddy allocator: what every 4 KiB of RAM is used for.

``struct page`` is one array at ``mem_map``, 64 bytes for each of ``max_pfn`` frames; the frame of an address in
the direct map, and its ``struct page``, follow from each other by arithmetic (Linux: ``virt_to_page``). A free
block of 2^n frames is marked in its first frame (``PG_BUDDY``, ``order``) and hangs on ``free_areas[n]``; an
allocated one has ``PG_HEAD`` in its first frame and every frame's ``head`` pointing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..abi import (
    DIRECT_MAP,
    MAX_ORDER,
    MAXIMUM_RAM,
    PAGE_SHIFT,
    PAGE_SIZE,
    STRUCT_PAGE_SHIFT,
    PageFlag,
    free_area,
    page,
)
from ..errors import HeapCorruption
from .reader import GuestReader, symbol, walk_list, word

PAGE_DTYPE: npt.DTypeLike = np.dtype({
    "names": [field.name for field in page.fields],
    "formats": [f"<u{field.width}" for field in page.fields],
    "offsets": [field.offset for field in page.fields],
    "itemsize": page.size,
})
"""``struct page`` as numpy reads it."""


@dataclass(frozen=True)
class FrameCounts:
    """How many frames are what; each frame is counted once, so all but ``total`` add up to ``total``.

    ``lost`` frames belong to nobody: neither free nor inside an allocated block. A sound heap has none.
    """

    total: int
    free: int
    reserved: int
    slab: int
    large: int
    table: int
    allocated: int
    lost: int


@dataclass(frozen=True)
class FreeBlock:
    """2^order free frames from ``address`` (in the direct map) on."""

    address: int
    pfn: int
    order: int

    @property
    def frames(self) -> int:
        """How many frames the block has."""
        return 1 << self.order


class PageFrames:
    """Every frame of RAM, read when asked."""

    def __init__(self, guest: GuestReader) -> None:
        self._guest = guest

    @property
    def mem_map(self) -> int:
        """Virtual address of the array of ``struct page``."""
        return self._bounds()[0]

    @property
    def max_pfn(self) -> int:
        """How many frames there are, the PC's hole counted in."""
        return self._bounds()[1]

    def _bounds(self) -> tuple[int, int]:
        at = symbol(self._guest, "mem_map")
        base = word(self._guest, at, "mem_map")
        count_at = symbol(self._guest, "max_pfn")
        count = word(self._guest, count_at, "max_pfn")
        if base == 0:
            return 0, 0                                     # before page_alloc_init
        if base % page.size or not DIRECT_MAP <= base < DIRECT_MAP + MAXIMUM_RAM:
            raise HeapCorruption(at, f"mem_map is 0x{base:x}, where no array of struct page can be")
        if count > MAXIMUM_RAM >> PAGE_SHIFT:
            raise HeapCorruption(count_at, f"max_pfn is {count}, more frames than any machine has")
        return base, count

    def pfn(self, address: int) -> int | None:
        """The number of the frame that ``address`` (in the direct map) lies in; None where no RAM is."""
        pfn = (address - DIRECT_MAP) >> PAGE_SHIFT
        return pfn if 0 <= pfn < self.max_pfn else None

    def struct_page(self, pfn: int) -> page:
        """``struct page`` of a frame."""
        base, count = self._bounds()
        if not 0 <= pfn < count:
            raise HeapCorruption(base, f"frame {pfn} is none of the {count} frames of RAM")
        return page(self._guest, base + (pfn << STRUCT_PAGE_SHIFT))

    def pfn_of_page(self, address: int, what: str) -> int:
        """The frame whose ``struct page`` lies at ``address``; :class:`HeapCorruption` when none does."""
        base, count = self._bounds()
        pfn, odd = divmod(address - base, page.size)
        if odd or not 0 <= pfn < count:
            raise HeapCorruption(address, f"{what}: 0x{address:x} is no struct page")
        return pfn

    def array(self) -> npt.NDArray[Any]:
        """All of ``mem_map`` as it is now: a numpy array with ``struct page``'s field names, indexed by pfn."""
        base, count = self._bounds()
        return np.frombuffer(self._guest.read(base, count * page.size, "mem_map") if count else b"", PAGE_DTYPE)

    def counts(self) -> FrameCounts:
        """What the frames are used for.

        :class:`HeapCorruption` where two blocks overlap or a free frame has another use, with the address of the
        ``struct page``.
        """
        base = self.mem_map
        pages = self.array()
        flags = pages["flags"]
        free = self._covered(pages, PageFlag.PG_BUDDY, base)
        held = self._covered(pages, PageFlag.PG_HEAD, base)
        in_use = PageFlag.PG_RESERVED | PageFlag.PG_SLAB | PageFlag.PG_LARGE | PageFlag.PG_TABLE
        twice = np.flatnonzero(free & (held | (flags & int(in_use) != 0)))
        if len(twice):
            pfn = int(twice[0])
            raise HeapCorruption(base + pfn * page.size,
                                 f"frame {pfn} is free and also {PageFlag(int(flags[pfn]))!s}")
        left = ~free
        tally = {}
        for name, flag in (("reserved", PageFlag.PG_RESERVED), ("slab", PageFlag.PG_SLAB),
                           ("large", PageFlag.PG_LARGE), ("table", PageFlag.PG_TABLE)):
            mine = left & (flags & int(flag) != 0)
            tally[name] = int(mine.sum())
            left &= ~mine
        return FrameCounts(total=len(pages), free=int(free.sum()), **tally, allocated=int((left & held).sum()),
                           lost=int((left & ~held).sum()))

    @staticmethod
    def _covered(pages: npt.NDArray[Any], flag: PageFlag, base: int) -> npt.NDArray[np.bool_]:
        """Which frames lie in blocks whose first frame has ``flag``."""
        first = np.flatnonzero(pages["flags"] & int(flag))
        orders = pages["order"][first].astype(np.int64)
        ends = first + (np.int64(1) << np.minimum(orders, 62))
        wrong = np.flatnonzero((orders > MAX_ORDER) | (ends > len(pages)))
        if len(wrong):
            pfn = int(first[wrong[0]])
            raise HeapCorruption(base + pfn * page.size, f"frame {pfn} heads a block of order {pages['order'][pfn]}")
        overlap = np.flatnonzero(first[1:] < ends[:-1])
        if len(overlap):
            pfn = int(first[overlap[0] + 1])
            raise HeapCorruption(base + pfn * page.size, f"frame {pfn} heads a block and lies inside another")
        steps = np.zeros(len(pages) + 1, np.int32)
        steps[first] += 1
        np.subtract.at(steps, ends, 1)
        covered: npt.NDArray[np.bool_] = np.cumsum(steps[:-1]) > 0
        return covered

    def free_blocks(self, order: int) -> tuple[FreeBlock, ...]:
        """The blocks on ``free_areas[order]``, first to last."""
        if not 0 <= order <= MAX_ORDER:
            return ()
        count = self.max_pfn
        area = symbol(self._guest, "free_areas") + order * free_area.size
        what = f"free_areas[{order}]"
        found = []
        for at in walk_list(self._guest, area + free_area.list.offset, page.next, count, what):
            pfn = self.pfn_of_page(at, what)
            data = self._guest.read(at, page.size, what)
            flags, has = page.flags.decode(data[:4]), data[page.order.offset]
            if not flags & PageFlag.PG_BUDDY or has != order:
                raise HeapCorruption(at, f"{what}: frame {pfn} is on the list, but is no free block of order {order}")
            found.append(FreeBlock(DIRECT_MAP + pfn * PAGE_SIZE, pfn, order))
        return tuple(found)

    @property
    def free_by_order(self) -> tuple[int, ...]:
        """How many free blocks of each order there are, from walking the lists."""
        return tuple(len(self.free_blocks(order)) for order in range(MAX_ORDER + 1))

    @property
    def nr_free(self) -> tuple[int, ...]:
        """The same numbers as the allocator's own counters have them."""
        base = symbol(self._guest, "free_areas") + free_area.nr_free.offset
        return tuple(word(self._guest, base + order * free_area.size, f"free_areas[{order}].nr_free")
                     for order in range(MAX_ORDER + 1))

    @property
    def total(self) -> int:
        """Frames of RAM, the PC's hole counted in."""
        return self.max_pfn

    @property
    def free(self) -> int:
        """Free frames."""
        return self.counts().free

    def free_block_of(self, pfn: int) -> FreeBlock | None:
        """The free block that a frame lies in: its first frame is the frame with its low bits cleared."""
        for order in range(MAX_ORDER + 1):
            first = pfn & ~((1 << order) - 1)
            head = self.struct_page(first)
            if head.flags & PageFlag.PG_BUDDY and head.order >= order and first + (1 << head.order) > pfn:
                return FreeBlock(DIRECT_MAP + first * PAGE_SIZE, first, head.order)
        return None
