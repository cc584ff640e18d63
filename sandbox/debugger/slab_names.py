"""Names for the bytes of slabs: objects, what debugging keeps around them, and the allocator's own objects.

A slot of a slab, as :mod:`sandbox.heap.rules.objects` draws it::

    red_left_pad | object_size | to metadata | free pointer | two tracks, size | up to size - red_left_pad

The free pointer may also lie inside the object, at ``kmem_cache.offset``; it is one while the object is in its slab.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..abi import DIRECT_MAP, PAGE_SHIFT, PAGE_SIZE, SlabFlag, kmem_cache, magazine, track
from ..heap.rules.geometry import keeps_size, padding_at, tracks_at
from ..heap.slabs import HeapObject, NotHeap, Slab
from .frame_names import FrameNames
from .name import Name, blob, field_of
from .reading import Reading

_TRACKS = ("allocation", "last free")


@dataclass(frozen=True)
class _Known:
    """A slab whose structures were read once: where its slots are, and which objects are in it or in magazines.
    ``unfinished`` tells one that ``slab_create`` has not returned yet."""

    slab: Slab
    cache: str
    first: int
    step: int
    count: int
    object_size: int
    offset: int
    metadata: int
    red_left_pad: int
    flags: int
    free: frozenset[int]
    cached: frozenset[int]
    wrong: str
    unfinished: bool

    def state(self, address: int) -> str:
        """Who has the object at ``address``, as far as the lists say."""
        if address in self.cached:
            return "free in magazine"
        if address in self.free:
            return "free in slab"
        if self.wrong:
            return "its slab's lists are broken"
        return "in a slab that is being made" if self.unfinished else "allocated"


class SlabNames:
    """Names for addresses in slabs, for one moment."""

    def __init__(self, reading: Reading, frames: FrameNames) -> None:
        self._reading = reading
        self._frames = frames
        self._heap = reading.heap
        self._symbols = reading.symbols
        self._by_frame: dict[int, _Known | None] = {}

    def name(self, address: int) -> Name | None:
        """What lies at an address of the direct map; None where no slab is."""
        known = self.known(address)
        if known is None:
            return None
        left = known.red_left_pad
        index, inside = divmod(address - (known.first - left), known.step)
        if not 0 <= index < known.count:
            return self._around(address, known)
        start = known.first + index * known.step
        offset = inside - left
        if 0 <= offset < known.object_size and start not in known.free:
            own = self._own(address, start, known)
            if own is not None:
                return own
        return self._in_slot(address, start, index, offset, known)

    def known(self, address: int) -> _Known | None:
        """The slab around an address of the direct map, None where none is."""
        frame = address >> PAGE_SHIFT
        if frame not in self._by_frame:
            slab = self._reading.attempt(lambda: self._heap.slab_at(address))
            self._by_frame[frame] = None if slab is None else self._reading.attempt(lambda: self._read(slab))
        return self._by_frame[frame]

    def _read(self, slab: Slab) -> _Known:
        cache, attempt = slab.cache, self._reading.attempt
        free, cached = attempt(lambda: slab.freelist), attempt(cache.cached_objects)
        return _Known(slab, cache.name, slab.object_address(0), max(cache.size, 1), min(slab.count, PAGE_SIZE),
                      cache.object_size, cache.offset, cache.metadata, cache.red_left_pad, int(cache.flags),
                      frozenset(free or ()), frozenset(cached or ()), "broken" if None in (free, cached) else "",
                      not (slab.page.list or slab.page.inuse or slab.page.freelist))

    def _around(self, address: int, known: _Known) -> Name:
        """The bytes before the first slot and behind the last one."""
        slab = known.slab
        before = address < known.first
        start = slab.address if before else known.first - known.red_left_pad + known.count * known.step
        size = (known.first - known.red_left_pad if before else slab.end) - start
        what = "colouring of" if before else "left over in"
        return blob(address, f"{what} slab 0x{slab.address:x} of {known.cache}", "padding", start, size, owner=slab)

    def _own(self, address: int, start: int, known: _Known) -> Name | None:
        """The allocator's own objects: caches and magazines."""
        owner = known.slab.cache.address
        if owner == self._symbols.get("kmem_cache_cache") and address < start + kmem_cache.size:
            return self._reading.cache_field(address, start)
        if owner == self._symbols.get("magazine_cache") and address < start + magazine.size:
            return self._reading.magazine_field(address, start)
        return None

    def _in_slot(self, address: int, start: int, index: int, offset: int, known: _Known) -> Name:
        whole = f"object {index} of {known.cache}"
        state = known.state(start)
        detail = f"{state}, in slab 0x{known.slab.address:x}"
        owner = HeapObject(known.slab, index, offset)
        behind = known.metadata
        if known.offset <= offset < known.offset + 8 and (start in known.free or known.offset >= behind):
            at = start + known.offset
            text = f"free pointer of {whole}" + (f"+{address - at}" if address > at else "")
            return Name(address, text, "free-pointer", start, known.object_size, "", at, 8, detail, whole, None, owner)
        if 0 <= offset < known.object_size:
            return self._body(address, start, whole, offset, known, detail, owner)
        if offset < 0:
            return blob(address, f"left red zone of {whole}", "red-zone", start - known.red_left_pad,
                        known.red_left_pad, detail=detail, owner=owner)
        if offset < behind:
            red = known.flags & SlabFlag.SLAB_RED_ZONE
            return blob(address, f"{'red zone' if red else 'padding'} behind {whole}", "red-zone" if red else "padding",
                        start + known.object_size, behind - known.object_size, detail=detail, owner=owner)
        return self._behind(address, start, whole, known, detail, owner)

    @staticmethod
    def _body(address: int, start: int, whole: str, offset: int, known: _Known, detail: str,
              owner: HeapObject) -> Name:
        """The object's own bytes; a free pointer that lies in them splits them."""
        at, end = 0, known.object_size
        if start in known.free and known.offset < known.metadata:
            at, end = (0, known.offset) if offset < known.offset else (known.offset + 8, end)
        named = blob(address, whole, "object", start, known.object_size, detail=detail, owner=owner)
        return Name(address, named.text, "object", start, known.object_size, "", start + at, end - at, detail, whole,
                    None, owner)

    @staticmethod
    def _behind(address: int, start: int, whole: str, known: _Known, detail: str, owner: HeapObject) -> Name:
        """Owners, the size that was asked for, and padding."""
        tracks = start + tracks_at(known.metadata, known.offset)
        end = start + padding_at(known.metadata, known.offset, known.flags)
        which = (address - tracks) // track.size
        if address < end and 0 <= which < len(_TRACKS):
            return field_of(track, address, tracks + which * track.size, f"{_TRACKS[which]} track of {whole}", "track",
                            detail=detail, owner=owner)
        if address < end and keeps_size(known.flags):
            at = tracks + len(_TRACKS) * track.size
            text = f"size asked for {whole}" + (f"+{address - at}" if address > at else "")
            return Name(address, text, "track", at, 4, "", at, 4, detail, whole, None, owner)
        return blob(address, f"padding behind {whole}", "padding", end, start - known.red_left_pad + known.step - end,
                    detail=detail, owner=owner)

    def target(self, value: int) -> str:
        """What a pointer into a slab, or to its ``struct page``, leads to, in words; empty for any other."""
        array = self._frames.array
        if value in array:
            known = self.known(DIRECT_MAP + ((value - array.start) // 64 << PAGE_SHIFT))
            return self.summary(known.slab) if known else ""
        found = self._reading.attempt(lambda: self._heap.find(value))
        if isinstance(found, NotHeap) and found.slab is not None:
            return self.summary(found.slab)
        return ""

    def summary(self, slab: Slab) -> str:
        """``slab 0x… of kmalloc-64, 3 of 64 in use``."""
        return f"slab 0x{slab.address:x} of {slab.cache.name}, {slab.page.inuse} of {slab.count} in use"
