"""A slab and its objects, read from its ``struct page`` and its bytes.

::

    slab.address
    | colour | red_left_pad | object 0 ... | red_left_pad | object 1 ... |   ...   | left over |
             |<---------- cache.size ----->|

The objects that are in the slab are chained from ``page.freelist`` through a pointer at ``kmem_cache.offset`` of
each. With ``freelist_hardened`` it is stored as ``pointer ^ cache.random ^ byteswap(address of the pointer)``
(Linux: ``freelist_ptr_encode``); a secret of 0 means plain pointers.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from ..abi import DIRECT_MAP, PAGE_SIZE, SlabList, page
from ..errors import HeapCorruption
from .reader import GuestReader, byteswap

if TYPE_CHECKING:
    from .caches import KmemCache


class ObjectState(str, Enum):
    """Who has an object: its caller, its slab, or a magazine."""

    ALLOCATED = "allocated"
    FREE = "free in slab"
    CACHED = "free in magazine"

    def __str__(self) -> str:
        return self.value


class Slab:
    """2^order frames that a cache cut into objects; everything is read when it is asked for."""

    def __init__(self, guest: GuestReader, cache: KmemCache, struct_page: int, pfn: int) -> None:
        self._guest = guest
        self.cache = cache
        self.page = page(guest, struct_page)
        self.pfn = pfn
        self.address = DIRECT_MAP + pfn * PAGE_SIZE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slab) and self.address == other.address

    def __hash__(self) -> int:
        return hash(("slab", self.address))

    def __repr__(self) -> str:
        return f"<Slab of {self.cache.name} at 0x{self.address:x}>"

    @property
    def size(self) -> int:
        """Bytes, the unused ones at its end counted in."""
        return PAGE_SIZE << self.cache.order

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.address + self.size

    @property
    def count(self) -> int:
        """How many objects it was cut into."""
        return int(self.page.objects)

    @property
    def inuse(self) -> int:
        """Objects that are out of the slab, those in magazines included (slabinfo's active_objs).

        :class:`HeapCorruption` with the address of the ``struct page`` when they are more than the slab has.
        """
        inuse, count = int(self.page.inuse), self.count
        if inuse > count:
            raise HeapCorruption(self.page.address, f"{inuse} objects are out of {self.cache.name}'s slab at "
                                                    f"0x{self.address:x}, says page.inuse, and it has {count}")
        return inuse

    @property
    def list(self) -> SlabList:
        """The list of its cache that it says it is on."""
        value = self.page.list
        try:
            return SlabList(value)
        except ValueError:
            raise HeapCorruption(self.page.address + page.list.offset, f"page.list is {value}, and no list") from None

    @property
    def colour(self) -> int:
        """Bytes before the first object's slot."""
        return int(self.page.colour)

    @property
    def objects(self) -> tuple[HeapObject, ...]:
        """All its objects, in order of address."""
        return tuple(HeapObject(self, index) for index in range(self.count))

    def object_address(self, index: int) -> int:
        """The address that a caller gets for object ``index``."""
        return self.address + self.colour + self.cache.red_left_pad + index * self.cache.size

    def index_of(self, address: int) -> int | None:
        """The object in whose slot (red zones and padding included) ``address`` lies; None for the colouring
        before the first and the bytes behind the last."""
        index = (address - self.address - self.colour) // max(self.cache.size, 1)
        return index if 0 <= index < self.count else None

    @property
    def freelist(self) -> tuple[int, ...]:
        """The addresses of the objects in the slab, in the order in which they would be taken.

        :class:`HeapCorruption` with the address of the pointer that leads out of the slab, between its objects
        or back to an object that was visited.
        """
        cache, info, base = self.cache, self.page, self.address
        data = self._guest.read(base, self.size, "a slab")
        step, count, offset, secret = cache.size, int(info.objects), cache.offset, cache.random
        first = int(info.colour) + cache.red_left_pad
        came_from, at = info.address + page.freelist.offset, int(info.freelist)
        chain: dict[int, None] = {}
        while at:
            index, odd = divmod(at - base - first, step) if step else (0, 1)
            if odd or not 0 <= index < count:
                raise HeapCorruption(came_from, f"the free pointer here holds 0x{at:x}, which is no object of "
                                                f"{cache.name}'s slab at 0x{base:x}")
            if at in chain:
                raise HeapCorruption(came_from, f"the free pointer here leads back to 0x{at:x}: the free list of "
                                                f"{cache.name}'s slab at 0x{base:x} is a cycle")
            chain[at] = None
            came_from = at + offset
            stored = int.from_bytes(data[came_from - base : came_from - base + 8], "little")
            at = stored ^ secret ^ byteswap(came_from) if secret else stored
        return tuple(chain)

    @property
    def free(self) -> int:
        """Objects in the slab, by walking its free list."""
        return len(self.freelist)

    @property
    def cached(self) -> int:
        """Its objects that are in magazines."""
        return sum(state is ObjectState.CACHED for state in self.states())

    def states(self) -> tuple[ObjectState, ...]:
        """The state of every object, in order of address, from one walk of the free list and the magazines."""
        free = set(self.freelist)
        cached = self.cache.cached_objects()
        first, step = self.object_address(0), self.cache.size
        return tuple(_state(first + index * step, free, cached) for index in range(self.count))

    def layout_of(self, address: int) -> str:
        """Which part of the slab an address without an object lies in, in words."""
        return "the colouring before the first object" if address < self.address + self.colour \
            else "the left-over bytes behind the last object"


def _state(address: int, free: set[int], cached: frozenset[int] | set[int]) -> ObjectState:
    """An object both in its slab and in a magazine is corrupt; it reads as what can be handed out first."""
    if address in cached:
        return ObjectState.CACHED
    return ObjectState.FREE if address in free else ObjectState.ALLOCATED


class HeapObject:
    """An object of a slab, found by index or by any address in its slot.

    ``offset`` is where the address that was asked for lies, from the object's first byte: negative in a left red
    zone, ``cache.object_size`` and above behind the object.
    """

    kind = "object"

    def __init__(self, slab: Slab, index: int, offset: int = 0) -> None:
        self.slab = slab
        self.index = index
        self.offset = offset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeapObject) and self.address == other.address

    def __hash__(self) -> int:
        return hash(("object", self.address))

    def __repr__(self) -> str:
        return f"<HeapObject {self}>"

    def __str__(self) -> str:
        inside = f"byte {self.offset} of " if self.offset else ""
        return (f"{inside}object {self.index} of {self.cache.name}'s slab at 0x{self.slab.address:x}, {self.state}")

    @property
    def cache(self) -> KmemCache:
        """The cache that it belongs to."""
        return self.slab.cache

    @cached_property
    def address(self) -> int:
        """Its first byte, what a caller gets."""
        return self.slab.object_address(self.index)

    @property
    def size(self) -> int:
        """Bytes that a caller may use."""
        return self.cache.object_size

    @property
    def state(self) -> ObjectState:
        """Who has it now."""
        cached = self.cache.cached_objects()
        return _state(self.address, set() if self.address in cached else set(self.slab.freelist), cached)

    @property
    def bytes(self) -> bytes:
        """Its ``cache.object_size`` bytes now."""
        return self.cache.reader.read(self.address, self.size)


class LargeAllocation:
    """A ``kmalloc`` that was too large for the caches: whole pages, ``PG_LARGE``."""

    kind = "large"

    def __init__(self, guest: GuestReader, struct_page: int, pfn: int, offset: int = 0) -> None:
        self._guest = guest
        self.page = page(guest, struct_page)
        self.pfn = pfn
        self.address = DIRECT_MAP + pfn * PAGE_SIZE
        self.offset = offset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LargeAllocation) and self.address == other.address

    def __hash__(self) -> int:
        return hash(("large", self.address))

    def __repr__(self) -> str:
        return f"<LargeAllocation {self}>"

    def __str__(self) -> str:
        inside = f"byte {self.offset} of " if self.offset else ""
        return f"{inside}a large allocation of {self.requested} bytes in {self.size // PAGE_SIZE} pages"

    state = ObjectState.ALLOCATED

    @property
    def order(self) -> int:
        """log2 of its frames."""
        return int(self.page.order)

    @property
    def size(self) -> int:
        """Bytes of all its pages."""
        return PAGE_SIZE << self.order

    @property
    def requested(self) -> int:
        """The bytes that were asked for."""
        return int(self.page.private)

    @property
    def bytes(self) -> bytes:
        """The bytes of its pages now."""
        return self._guest.read(self.address, self.size)


class NotHeap:
    """The answer for an address where no object is; it is false, and ``reason`` says why."""

    kind = "not heap"

    def __init__(self, address: int, reason: str, slab: Slab | None = None) -> None:
        self.address = address
        self.reason = reason
        self.slab = slab

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"0x{self.address:016x} is not heap: {self.reason}"

    def __repr__(self) -> str:
        return f"<NotHeap {self}>"
