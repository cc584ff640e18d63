"""The heap from outside: caches, slabs, objects, frames, and what lies at an address.

Everything is computed from guest bytes at the moment of the question, by code that shares nothing with the
allocator or with the trace. Walks are bounded; bytes that cannot be what they should be raise
:class:`~sandbox.errors.HeapCorruption` with their address, and are never taken for the end of a list. Reading
is not judging: whether counters agree with walks is for the validation to say.

::

    heap.cache("kmalloc-64").inuse          # objects that callers hold
    found = heap.find(pointer)              # HeapObject, LargeAllocation, or NotHeap (which is false)
    found.cache.name, found.slab, found.index, found.state
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ..abi import DIRECT_MAP, PAGE_SHIFT, PAGE_SIZE, ZERO_SIZE_PTR, PageFlag, kmem_cache, page
from ..address import check_address
from ..errors import HeapCorruption, UsageError
from ..layout import Writable
from .caches import KmemCache
from .frames import PageFrames
from .leaks import Leak, Running, find_leaks
from .reader import GuestReader, Readable, symbol, walk_list, word
from .slabs import HeapObject, LargeAllocation, NotHeap, ObjectState, Slab
from .validate import Violation, validate

__all__ = ["Heap", "HeapObject", "KmemCache", "LargeAllocation", "NotHeap", "ObjectState", "PageFrames", "Slab"]

_MANY_CACHES = 4096
"""More caches than any guest can have: each takes a percpu slot or a cache object of 300 bytes."""


@dataclass(frozen=True)
class Source:
    """The two parts of a guest that the judges read: less than a kernel, so that the heap keeps none alive."""

    memory: Writable
    symbols: Mapping[str, int]


class Heap:
    """The allocator's state in one guest."""

    def __init__(self, guest: Readable, running: Running | None = None) -> None:
        self._source = Source(guest.memory, guest.symbols)
        self._running = running
        self._guest = GuestReader(guest)
        self.pages = PageFrames(self._guest)

    def validate(self, first: bool = False, live: Iterable[int] = ()) -> list[Violation]:
        """What is wrong with the heap, causes first; empty when nothing is. See :mod:`sandbox.heap.validate`."""
        return validate(self._source, first, live)

    def leaks(self, holding: Iterable[int] = ()) -> list[Leak]:
        """Everything that is allocated and that nothing in the guest leads to (:mod:`sandbox.heap.leaks`).

        What a script has allocated with ``kernel.call`` is known to it alone: ``holding`` are the addresses that it
        still wants. Those that only an old free pointer may lead to are listed too, with ``certain`` False.
        :class:`UsageError` for bytes without a processor.
        """
        if self._running is None:
            raise UsageError("leaks need a processor's registers: ask the heap of a booted kernel")
        return find_leaks(self._source, self._running, holding)

    @property
    def caches(self) -> tuple[KmemCache, ...]:
        """Every cache, in the order of ``slab_caches``; none before ``slab_init``."""
        head = symbol(self._guest, "slab_caches")
        if word(self._guest, head, "slab_caches") == 0:
            return ()
        return tuple(KmemCache(self._guest, self.pages, at) for at in
                     walk_list(self._guest, head, kmem_cache.list, _MANY_CACHES, "slab_caches"))

    def cache(self, name: str) -> KmemCache:
        """The cache called ``name``; :class:`UsageError` with the nearest names when there is none."""
        caches = self.caches
        for cache in caches:
            if cache.name == name:
                return cache
        names = [cache.name for cache in caches]
        near = get_close_matches(name, names, 3) or [known for known in names if known.startswith(name[:4])][:3]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"no cache is called {name!r}{hint}")

    def find(self, address: int) -> HeapObject | LargeAllocation | NotHeap:
        """What the allocator has at ``address``, interior pointers included, without a search.

        An object of a slab, whoever has it; a large allocation; or a :class:`NotHeap`, which is false and says
        why. :class:`HeapCorruption` when the ``struct page`` there contradicts itself, :class:`UsageError` for what is
        no number of 64 bits.
        """
        check_address(address)
        if address in (0, ZERO_SIZE_PTR):
            return NotHeap(address, "the null pointer" if address == 0 else "ZERO_SIZE_PTR, what kmalloc(0) returns")
        pfn = self.pages.pfn(address)
        if pfn is None:
            return NotHeap(address, "it does not lie in the direct map of RAM")
        info = self.pages.struct_page(pfn)
        flags = info.flags
        if flags & PageFlag.PG_SLAB:
            return self._in_slab(address, self._slab_at(info))
        if flags & PageFlag.PG_LARGE:
            head, first = self._head(info)
            return LargeAllocation(self._guest, head, first, address - DIRECT_MAP - (first << PAGE_SHIFT))
        return NotHeap(address, f"its page frame {pfn} is no slab and no large allocation")

    def slab_at(self, address: int) -> Slab | None:
        """The slab that an address lies in."""
        check_address(address)
        pfn = self.pages.pfn(address)
        if pfn is None:
            return None
        info = self.pages.struct_page(pfn)
        return self._slab_at(info) if info.flags & PageFlag.PG_SLAB else None

    def _in_slab(self, address: int, slab: Slab) -> HeapObject | NotHeap:
        index = slab.index_of(address)
        if index is None:
            where = f"it lies in {slab.layout_of(address)} of {slab.cache.name}'s slab at 0x{slab.address:x}"
            return NotHeap(address, where, slab)
        return HeapObject(slab, index, address - slab.object_address(index))

    def _slab_at(self, info: page) -> Slab:
        head, pfn = self._head(info)
        owner = info.cache
        if not owner:
            raise HeapCorruption(info.address + page.cache.offset, "a frame of a slab without a cache")
        return Slab(self._guest, KmemCache(self._guest, self.pages, owner), head, pfn)

    def _head(self, info: page) -> tuple[int, int]:
        """The ``struct page`` of the first frame of a block, and its number."""
        where = info.address + page.head.offset
        head = info.head
        first = self.pages.pfn_of_page(head, f"page.head at 0x{where:x}")
        own = self.pages.pfn_of_page(info.address, "a frame")
        order = self.pages.struct_page(first).order
        if not first <= own < first + (1 << min(order, 32)):
            raise HeapCorruption(where, f"page.head leads to frame {first} of order {order}, a block without "
                                        f"frame {own}")
        return head, first

    @property
    def large_allocations(self) -> tuple[LargeAllocation, ...]:
        """Every large ``kmalloc``, in order of address."""
        pages = self.pages.array()
        both = int(PageFlag.PG_LARGE | PageFlag.PG_HEAD)
        base = self.pages.mem_map
        return tuple(LargeAllocation(self._guest, base + int(pfn) * page.size, int(pfn))
                     for pfn in (pages["flags"] & both == both).nonzero()[0])

    def allocated(self) -> dict[int, int]:
        """The address and usable size of everything that callers hold, in order of address: the second reading
        that the trace's account is compared with."""
        held = {}
        for cache in self.caches:
            cached = cache.cached_objects()
            size = cache.object_size
            for slab in cache.slabs:
                out = set(slab.freelist) | cached
                first, step = slab.object_address(0), cache.size
                held.update({at: size for at in range(first, first + slab.count * step, step) if at not in out}
                            if step else {})
        held.update({large.address: large.size for large in self.large_allocations})
        return dict(sorted(held.items()))

    @property
    def reserved_bytes(self) -> int:
        """Bytes of RAM in slabs and large allocations."""
        counts = self.pages.counts()
        return (counts.slab + counts.large) * PAGE_SIZE
