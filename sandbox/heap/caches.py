"""Object caches, as their ``struct kmem_cache`` describes them."""

from __future__ import annotations

from collections.abc import Iterator

from ..abi import DIRECT_MAP, PAGE_SHIFT, PageFlag, SlabFlag, SlabList, kmem_cache, page, percpu
from ..errors import HeapCorruption
from ..layout import Field
from .frames import PageFrames
from .magazines import CpuFront, Magazine, depot, fronts, magazines
from .reader import GuestReader, structure, walk_list
from .slabs import Slab


class _Number:
    """One integer field of ``struct kmem_cache``, read when it is asked for."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.__doc__ = field.note

    def __get__(self, instance: KmemCache, owner: type[KmemCache]) -> int:
        return int(self._field.__get__(instance.struct, kmem_cache))


class KmemCache:
    """A ``struct kmem_cache``, its slabs and its magazines. Nothing is remembered between two questions.

    Three counts are never mixed: ``inuse`` (objects that callers hold), ``cached`` (in magazines and the depot)
    and ``free`` (in slabs). Their sum is ``total``.
    """

    object_size = _Number(kmem_cache.object_size)
    size = _Number(kmem_cache.size_)
    align = _Number(kmem_cache.align)
    offset = _Number(kmem_cache.offset)
    metadata = _Number(kmem_cache.metadata)
    red_left_pad = _Number(kmem_cache.red_left_pad)
    order = _Number(kmem_cache.order)
    objects_per_slab = _Number(kmem_cache.objects)
    colours = _Number(kmem_cache.colour)
    colour_step = _Number(kmem_cache.colour_step)
    colour_next = _Number(kmem_cache.colour_next)
    empty_limit = _Number(kmem_cache.empty_limit)
    ctor = _Number(kmem_cache.ctor)
    random = _Number(kmem_cache.random)
    nr_partial = _Number(kmem_cache.nr_partial)
    nr_full = _Number(kmem_cache.nr_full)
    nr_empty = _Number(kmem_cache.nr_empty)
    rounds = _Number(kmem_cache.rounds)
    nr_depot_full = _Number(kmem_cache.nr_depot_full)
    nr_depot_empty = _Number(kmem_cache.nr_depot_empty)
    alloc_slowpath = _Number(kmem_cache.alloc_slowpath)
    free_slowpath = _Number(kmem_cache.free_slowpath)
    alloc_slab = _Number(kmem_cache.alloc_slab)
    free_slab = _Number(kmem_cache.free_slab)
    failed = _Number(kmem_cache.failed)
    exchanges = _Number(kmem_cache.exchanges)
    reports = _Number(kmem_cache.reports)
    fixes = _Number(kmem_cache.fixes)

    def __init__(self, guest: GuestReader, frames: PageFrames, address: int) -> None:
        self.reader = guest
        self.struct = structure(guest, kmem_cache, address, "a cache")
        self.address = address
        self._frames = frames

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KmemCache) and self.address == other.address

    def __hash__(self) -> int:
        return hash(("cache", self.address))

    def __repr__(self) -> str:
        return f"<KmemCache {self.name} at 0x{self.address:x}>"

    @property
    def name(self) -> str:
        """Its name, as ``kmem_cache_create`` was given it."""
        return str(self.struct.name)

    @property
    def flags(self) -> SlabFlag:
        """``SLAB_*``."""
        return SlabFlag(self.struct.flags)

    # -- slabs ------------------------------------------------------------------------------------------------
    @property
    def slabs(self) -> tuple[Slab, ...]:
        """Every slab: partial ones first, then full ones, then empty ones."""
        return (*self.partial, *self.full, *self.empty)

    @property
    def partial(self) -> tuple[Slab, ...]:
        """Slabs with objects in and out, the next to be used first."""
        return tuple(self._on(SlabList.SLAB_LIST_PARTIAL))

    @property
    def full(self) -> tuple[Slab, ...]:
        """Slabs with every object out."""
        return tuple(self._on(SlabList.SLAB_LIST_FULL))

    @property
    def empty(self) -> tuple[Slab, ...]:
        """Slabs with every object in."""
        return tuple(self._on(SlabList.SLAB_LIST_EMPTY))

    def _on(self, which: SlabList) -> Iterator[Slab]:
        """The slabs on one of the three lists. Each entry must be the first frame of a slab of this cache: that
        its own ``page.list`` agrees is for the validation to judge."""
        field = {SlabList.SLAB_LIST_PARTIAL: kmem_cache.partial, SlabList.SLAB_LIST_FULL: kmem_cache.full,
                 SlabList.SLAB_LIST_EMPTY: kmem_cache.empty}[which]
        what = f"{self.name}'s {field.name} list"
        frames = self._frames
        for at in walk_list(self.reader, self.address + field.offset, page.next, frames.max_pfn, what):
            pfn = frames.pfn_of_page(at, what)
            data = self.reader.read(at, page.size, what)
            owner = int.from_bytes(data[page.cache.offset : page.cache.offset + 8], "little")
            if not page.flags.decode(data[:4]) & PageFlag.PG_SLAB or owner != self.address:
                raise HeapCorruption(at, f"{what}: frame {pfn} is on the list, but is no slab of this cache")
            yield Slab(self.reader, self, at, pfn)

    # -- magazines --------------------------------------------------------------------------------------------
    @property
    def fronts(self) -> tuple[CpuFront, ...]:
        """Each CPU's front: its magazines and how often it served a call by itself."""
        return fronts(self.reader, self.struct)

    @property
    def magazines(self) -> tuple[Magazine, ...]:
        """Loaded and previous of every CPU, then the depot's full and empty ones."""
        return tuple(magazines(self.reader, self.struct))

    @property
    def depot(self) -> tuple[Magazine, ...]:
        """The depot's magazines, full ones first."""
        return tuple(depot(self.reader, self.struct))

    @property
    def has_magazines(self) -> bool:
        """Whether any CPU's front is in service."""
        return any(front.enabled for front in self.fronts)

    @property
    def wants_magazines(self) -> bool:
        """Whether it has slots of its own for magazines, made or still to be made."""
        return bool(self.struct.cpu != percpu.slots.offset)

    def cached_objects(self) -> frozenset[int]:
        """The addresses of all objects in magazines."""
        return frozenset(at for held in magazines(self.reader, self.struct) for at in held.objects)

    @property
    def alloc_fastpath(self) -> int:
        """Allocations that loaded magazines served, over all CPUs."""
        return sum(front.alloc_fastpath for front in self.fronts)

    @property
    def free_fastpath(self) -> int:
        """Frees that loaded magazines took, over all CPUs."""
        return sum(front.free_fastpath for front in self.fronts)

    # -- counts -----------------------------------------------------------------------------------------------
    @property
    def total(self) -> int:
        """Objects in all slabs, whoever has them."""
        return sum(slab.count for slab in self.slabs)

    @property
    def free(self) -> int:
        """Objects in their slabs, by the slabs' own counts."""
        return sum(slab.count - slab.inuse for slab in self.slabs)

    @property
    def cached(self) -> int:
        """Objects in magazines, loaded, previous and in the depot.

        :class:`HeapCorruption` with the address of the slot that holds no object of this cache, or one that another
        slot holds too.
        """
        return len(self._checked_rounds())

    def _checked_rounds(self) -> dict[int, int]:
        """Each object in a magazine, and the address of its slot. A frame's ``struct page`` is read once."""
        base, count = self._frames.mem_map, self._frames.max_pfn
        slabs: dict[int, range] = {}
        found: dict[int, int] = {}
        for held in magazines(self.reader, self.struct):
            for index, at in enumerate(held.objects):
                slot, pfn = held.slot(index), (at - DIRECT_MAP) >> PAGE_SHIFT
                if pfn not in slabs:
                    slabs[pfn] = self._objects_around(base + pfn * page.size) if 0 <= pfn < count else range(0)
                if at not in slabs[pfn]:
                    raise HeapCorruption(slot, f"the slot here of a magazine of {self.name} holds 0x{at:x}, which is "
                                               "no object of that cache")
                if at in found:
                    raise HeapCorruption(slot, f"the object 0x{at:x} of {self.name} is in magazines twice, here and at "
                                               f"0x{found[at]:x}")
                found[at] = slot
        return found

    def _objects_around(self, struct_page: int) -> range:
        """The addresses of the objects of the slab that a frame belongs to; none where it is no slab of this cache."""
        frame = page(self.reader, struct_page)
        if not frame.flags & PageFlag.PG_SLAB or frame.cache != self.address:
            return range(0)
        head = int(frame.head)
        slab = Slab(self.reader, self, head, self._frames.pfn_of_page(head, f"page.head at 0x{struct_page:x}"))
        first = slab.object_address(0)
        return range(first, first + slab.count * self.size, max(self.size, 1))

    @property
    def inuse(self) -> int:
        """Objects that callers hold: those out of the slabs and in no magazine."""
        out = sum(slab.inuse for slab in self.slabs)
        rounds = self._checked_rounds()
        cached = len(rounds)
        if cached > out:
            for at in (at for slab in self.slabs for at in slab.freelist if at in rounds):
                raise HeapCorruption(rounds[at], f"the object 0x{at:x} of {self.name} is in a magazine, and on "
                                                 "the free list of its slab")
            raise HeapCorruption(self.address, f"{self.name} has {cached} objects in magazines, and only {out} are "
                                               "out of its slabs")
        return out - cached
