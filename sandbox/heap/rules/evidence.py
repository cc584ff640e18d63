"""Reading: everything that the judges look at, taken from guest bytes in one go. Nothing here has an opinion.

Slabs are found twice, in two places that must agree: through the lists of their caches, and in ``mem_map``, whose
frames say of themselves what they are. So a broken list hides no slab from the judges of objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...abi import (
    BOOT_MAGIC,
    DIRECT_MAP,
    MAX_ORDER,
    MAXIMUM_RAM,
    PAGE_SHIFT,
    STRUCT_PAGE_SHIFT,
    PageFlag,
    SlabList,
    boot_info,
    free_area,
    kmem_cache,
    page,
)
from ..reader import Readable
from .geometry import disagreement
from .record import FRAME, Bytes, Record, blocks, decoder
from .rings import Ring, walk

LIVE, FREE, CACHED, UNKNOWN = range(4)
"""What an object is: with a caller, in its slab, in a magazine; or its slab's free list cannot be walked."""
MANY_CACHES = 4096
LISTS = {SlabList.SLAB_LIST_PARTIAL: ("partial", "nr_partial"), SlabList.SLAB_LIST_FULL: ("full", "nr_full"),
         SlabList.SLAB_LIST_EMPTY: ("empty", "nr_empty")}
_LINK = page.next.offset
_cache_record = decoder(kmem_cache)
_boot_record = decoder(boot_info)


@dataclass(eq=False)
class Cache:
    """A ``struct kmem_cache``: its fields, what is wrong with them, and its three lists."""

    address: int
    fields: Record
    wrong: tuple[str, str] | None
    rings: dict[SlabList, Ring] = field(default_factory=dict)
    slabs: list[Slab] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name, as its bytes have it."""
        return str(self.fields.name)

    @property
    def flags(self) -> int:
        """``SLAB_*``."""
        return int(self.fields.flags)


@dataclass(eq=False)
class Slab:
    """A slab, by its first frame.

    ``data`` are its bytes, None when they are not to be judged; ``links`` holds for each object the index of the next
    free one (-1: the end, -2: no object). The judges fill in the rest: the ``state`` of each object, whether its red
    zones ``agreed``, and whether the slab is ``broken``: then what follows from it is held against nobody.
    """

    cache: Cache
    pfn: int
    page: int
    info: Record
    data: bytes | None = None
    links: list[int] = field(default_factory=list)
    state: list[int] = field(default_factory=list)
    on: list[tuple[Cache, SlabList]] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)
    broken: bool = False

    @property
    def address(self) -> int:
        """Its first byte."""
        return DIRECT_MAP + (self.pfn << PAGE_SHIFT)

    @property
    def first(self) -> int:
        """The address of object 0."""
        return self.address + int(self.info.colour) + int(self.cache.fields.red_left_pad)

    def object(self, index: int) -> int:
        """The address of an object."""
        return self.first + index * int(self.cache.fields.size)

    def index(self, address: int) -> int | None:
        """The number of the object that begins at an address, None when none does, or the slab is not judged."""
        if not self.state:
            return None
        index, odd = divmod(address - self.first, int(self.cache.fields.size))
        return index if not odd and 0 <= index < len(self.state) else None

    def pointer_at(self, index: int) -> int:
        """Where object ``index`` keeps its free pointer; -1 stands for the slab's ``page.freelist``."""
        return self.page + page.freelist.offset if index < 0 else self.object(index) + int(self.cache.fields.offset)


class Evidence:
    """The allocator's whole state at one moment, read and not judged."""

    def __init__(self, guest: Readable) -> None:
        self.memory = Bytes(guest)
        self.mem_map = self.memory.variable("mem_map") or 0
        self.max_pfn = self.memory.variable("max_pfn") or 0
        self.up = bool(self.mem_map or self.max_pfn)
        """Whether the page allocator has been initialised."""
        self.boot = self._boot_info()
        self.frames: npt.NDArray[Any] = np.zeros(0, FRAME)
        self.caches: dict[int, Cache] = {}
        self.cache_ring: Ring | None = None
        self.slabs: dict[int, Slab] = {}
        self._slab_frames: dict[int, Slab] = {}
        self.contested: set[int] = set()
        """The caches, by address, that quarrel about a slab: one has it on a list, another or none is in its frames."""
        self.areas: list[Ring] = []
        self.wrong_map = self._wrong_map()
        if self.up and self.wrong_map is None:
            self._read_frames()
            self._read_caches()
            self._read_slabs()

    # -- pages ------------------------------------------------------------------------------------------------
    def _boot_info(self) -> Record | None:
        at = self.memory.variable("boot_params")
        data = None if at is None else self.memory.read(at, boot_info.size)
        record = None if data is None else _boot_record(data)
        return record if record is not None and record.magic == BOOT_MAGIC else None

    def _wrong_map(self) -> tuple[int, str] | None:
        """Which of mem_map and max_pfn cannot be, and why."""
        at, count_at = self.memory.symbol("mem_map") or 0, self.memory.symbol("max_pfn") or 0
        boot = self.boot
        if boot is not None and self.up and self.mem_map != DIRECT_MAP + boot.loader_end:
            return at, f"mem_map is 0x{self.mem_map:x}, and lies at 0x{DIRECT_MAP + boot.loader_end:x}"
        if self.mem_map % page.alignment or (self.up and not self._in_direct_map(self.mem_map)):
            return at, f"mem_map is 0x{self.mem_map:x}, where no array of struct page can be"
        if self.up and boot is not None and self.max_pfn != boot.ram_size >> PAGE_SHIFT:
            return count_at, f"max_pfn is {self.max_pfn}, and RAM has {boot.ram_size >> PAGE_SHIFT} frames"
        if self.max_pfn > MAXIMUM_RAM >> PAGE_SHIFT:
            return count_at, f"max_pfn is {self.max_pfn}, more frames than any machine has"
        return None

    @staticmethod
    def _in_direct_map(address: int) -> bool:
        return DIRECT_MAP <= address < DIRECT_MAP + MAXIMUM_RAM

    def _read_frames(self) -> None:
        data = self.memory.read(self.mem_map, self.max_pfn << STRUCT_PAGE_SHIFT)
        if data is None:
            at = self.memory.symbol("mem_map") or 0
            self.wrong_map = at, f"mem_map: not all of the {self.max_pfn} struct page at 0x{self.mem_map:x} are memory"
            return
        self.frames = np.frombuffer(data, FRAME)
        self._next, self._prev = self.frames["next"], self.frames["prev"]
        areas = self.memory.symbol("free_areas")
        if areas is not None:
            heads = [areas + order * free_area.size + free_area.list.offset for order in range(MAX_ORDER + 1)]
            self.areas = [self.ring(head) for head in heads]

    def page_of(self, pfn: int) -> int:
        """The address of a frame's ``struct page``."""
        return self.mem_map + (pfn << STRUCT_PAGE_SHIFT)

    def pfn_of_page(self, address: int) -> int | None:
        """The frame whose ``struct page`` begins at ``address``."""
        pfn, odd = divmod(address - self.mem_map, page.size)
        return pfn if not odd and 0 <= pfn < len(self.frames) else None

    def pfn_of(self, address: int) -> int | None:
        """The frame that an address of the direct map lies in."""
        pfn = (address - DIRECT_MAP) >> PAGE_SHIFT
        return pfn if 0 <= pfn < len(self.frames) else None

    def ring(self, head: int) -> Ring:
        """A list whose links lie in ``struct page``."""
        return walk(partial(self._page_links, head), head, len(self.frames))

    def _page_links(self, head: int, at: int) -> tuple[int, int] | None:
        if at == head:
            return self._links(at)
        pfn = self.pfn_of_page(at - _LINK)
        return None if pfn is None else (int(self._next[pfn]), int(self._prev[pfn]))

    def _links(self, at: int) -> tuple[int, int] | None:
        data = None if at % 8 else self.memory.read(at, 16)
        return None if data is None else (int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little"))

    # -- caches and slabs -------------------------------------------------------------------------------------
    def _read_caches(self) -> None:
        head = self.memory.symbol("slab_caches")
        if head is None or not (self.memory.word(head) or self.memory.word(head + 8)):
            return                                           # before slab_init
        self.cache_ring = walk(self._links, head, MANY_CACHES)
        for at in self.cache_ring.entries:
            address = at - kmem_cache.list.offset
            data = self.memory.read(address, kmem_cache.size)
            if data is not None:
                record = _cache_record(data)
                self.caches[address] = Cache(address, record, disagreement(record) or self._wrong_secret(record), {
                    which: self.ring(address + kmem_cache.partial.offset + 16 * (which - 1)) for which in LISTS})

    def _wrong_secret(self, cache: Record) -> tuple[str, str] | None:
        """A cache has a secret in a kernel with freelist_hardened, and in no other."""
        if self.boot is None or bool(cache.random) == bool(self.boot.freelist_hardened):
            return None
        without = "with" if self.boot.freelist_hardened else "without"
        return "random", f"random is 0x{cache.random:x} in a kernel {without} freelist_hardened"

    def _read_slabs(self) -> None:
        both = int(PageFlag.PG_SLAB | PageFlag.PG_HEAD)
        record = decoder(page)
        raw = self.frames.view(np.uint8).reshape(len(self.frames), page.size) if len(self.frames) else None
        for pfn in np.flatnonzero(self.frames["flags"] & both == both).tolist():
            info = record(raw[pfn].tobytes()) if raw is not None else None
            cache = None if info is None else self.caches.get(info.cache)
            if cache is None or info is None:
                continue                                     # a slab of no cache: the judge of pages sees it
            slab = self.slabs[pfn] = Slab(cache, pfn, self.page_of(pfn), info)
            cache.slabs.append(slab)
        for cache in self.caches.values():
            for which, ring in cache.rings.items():
                for at in ring.entries:
                    entry = self.pfn_of_page(at - _LINK)
                    if entry is not None and entry in self.slabs:
                        self._put_on_list(self.slabs[entry], cache, which)
                    else:
                        self.contested.add(cache.address)
        for slab in self.slabs.values():
            self._read_objects(slab)

    def _put_on_list(self, slab: Slab, cache: Cache, which: SlabList) -> None:
        slab.on.append((cache, which))
        if cache is not slab.cache:
            slab.broken = True
            self.contested |= {cache.address, slab.cache.address}

    def _read_objects(self, slab: Slab) -> None:
        """The slab's bytes, and where each object's free pointer leads."""
        fields = slab.cache.fields
        if slab.broken or slab.cache.wrong or colour_fault(slab) or slab.pfn + (1 << fields.order) > len(self.frames):
            return
        slab.data = self.memory.read(slab.address, blocks(fields.order))
        if slab.data is None:
            return
        count = int(fields.objects)
        slab.state = [UNKNOWN] * count
        self._slab_frames.update(dict.fromkeys(range(slab.pfn, slab.pfn + (1 << fields.order)), slab))
        places = np.arange(count, dtype=np.uint64) * np.uint64(fields.size) + np.uint64(slab.pointer_at(0))
        stored = np.ndarray((count,), np.dtype("<u8"), slab.data, slab.pointer_at(0) - slab.address, (fields.size,))
        pointers = stored ^ places.byteswap() ^ np.uint64(fields.random) if fields.random else stored
        index, odd = np.divmod(pointers - np.uint64(slab.first), np.uint64(fields.size))
        valid = (odd == 0) & (index < count)
        slab.links = np.where(pointers == 0, -1, np.where(valid, index.astype(np.int64), -2)).tolist()

    def slab_of(self, address: int) -> Slab | None:
        """The slab that an address lies in, among those that are judged."""
        return self._slab_frames.get((address - DIRECT_MAP) >> PAGE_SHIFT)

    def find(self, address: int) -> tuple[Slab, int] | None:
        """The slab and the number of the object that begins at an address."""
        slab = self.slab_of(address)
        index = None if slab is None else slab.index(address)
        return None if slab is None or index is None else (slab, index)


def colour_fault(slab: Slab) -> str | None:
    """Why ``page.colour`` cannot be, None when it can."""
    fields, colour = slab.cache.fields, int(slab.info.colour)
    largest = (fields.colour - 1) * fields.colour_step
    if colour % max(fields.colour_step, 1) or colour > largest:
        return f"the first object lies {colour} bytes behind the slab's beginning, and colours are the multiples of " \
               f"{fields.colour_step} up to {largest}"
    return None
