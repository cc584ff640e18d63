"""How a cache's slabs must be cut, computed once more from what its maker asked for.

An account of ``slab_layout`` (kernel_asm/slab_layout.asm) in other words, after ``calculate_sizes()`` and
``calculate_order()`` of Linux's mm/slub.c: everything follows from object_size, align, flags and ctor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ...abi import (
    CACHE_LINE,
    MAGAZINE_ROUNDS,
    PAGE_SIZE,
    SLAB_DEBUG_FLAGS,
    SLAB_MAX_OBJECT,
    SlabFlag,
    track,
)
from ...address import align_up
from .record import Record

# As plain ints: an IntFlag's operators take a microsecond each, and the judges use them for every slab.
RED_ZONE, POISON, OWNERS = int(SlabFlag.SLAB_RED_ZONE), int(SlabFlag.SLAB_POISON), int(SlabFlag.SLAB_STORE_USER)
OBJECT_POISON, _KMALLOC = int(SlabFlag.SLAB_OBJECT_POISON), int(SlabFlag.SLAB_KMALLOC)
_KNOWN_FLAGS = 0
for _flag in SlabFlag:
    _KNOWN_FLAGS |= int(_flag)
_ROUNDS = ((256, MAGAZINE_ROUNDS), (1024, 15), (4096, 7), (1 << 32, 3))


@dataclass(frozen=True)
class Geometry:
    """The fields of a ``struct kmem_cache`` that follow from the others, by the structure's own names."""

    size: int
    metadata: int
    offset: int
    red_left_pad: int
    order: int
    objects: int
    colour: int
    colour_step: int
    rounds: int


def keeps_size(flags: int) -> bool:
    """Whether the cache keeps how many bytes were asked for (Linux: ``slub_debug_orig_size``)."""
    return flags & (OWNERS | _KMALLOC) == OWNERS | _KMALLOC


def tracks_at(metadata: int, offset: int) -> int:
    """Where an object's two ``struct track`` lie: behind its red zone and a free pointer that lies outside."""
    return metadata + 8 if offset >= metadata else metadata


def padding_at(metadata: int, offset: int, flags: int) -> int:
    """Where an object's padding begins: behind everything else."""
    at = tracks_at(metadata, offset)
    if flags & OWNERS:
        at += 2 * track.size + (4 if keeps_size(flags) else 0)
    return at


@lru_cache(maxsize=256)
def layout(object_size: int, align: int, flags: int, constructor: bool) -> Geometry:
    """What ``slab_layout`` must make of these."""
    metadata = align_up(object_size, 8)
    if flags & RED_ZONE and metadata == object_size:
        metadata += 8
    hides_size = flags & RED_ZONE and (object_size < 8 or keeps_size(flags))
    outside = constructor or flags & POISON or hides_size
    offset = metadata if outside else object_size // 2 & ~7
    end = padding_at(metadata, offset, flags)
    red_left_pad = align if flags & RED_ZONE else 0
    size = align_up(end + red_left_pad + (8 if red_left_pad else 0), align)
    order = 0
    while size > PAGE_SIZE << order or (PAGE_SIZE << order) % size > (PAGE_SIZE << order) // 8:
        order += 1
    left_over = 0 if flags & SLAB_DEBUG_FLAGS else (PAGE_SIZE << order) % size
    step = max(align, CACHE_LINE)
    return Geometry(size, metadata, offset, red_left_pad, order, (PAGE_SIZE << order) // size, left_over // step + 1,
                    step, next(rounds for largest, rounds in _ROUNDS if size <= largest))


def disagreement(cache: Record) -> tuple[str, str] | None:
    """The name of a field that cannot be, and a clause that says why; None when all fit together."""
    if not 1 <= cache.object_size <= SLAB_MAX_OBJECT:
        return "object_size", f"object_size is {cache.object_size}, and 1 to {SLAB_MAX_OBJECT} can be"
    if not 8 <= cache.align <= PAGE_SIZE or cache.align & (cache.align - 1):
        return "align", f"align is {cache.align}, and a power of two from 8 to {PAGE_SIZE} can be"
    if cache.flags & ~_KNOWN_FLAGS:
        return "flags", f"flags are {cache.flags:#x}, with bits that no flag has"
    poisons = bool(cache.flags & POISON) and not cache.ctor
    if bool(cache.flags & OBJECT_POISON) != poisons:
        return "flags", f"flags are {cache.flags:#x}, and objects are{'' if poisons else ' not'} to be poisoned"
    right = layout(cache.object_size, cache.align, cache.flags, bool(cache.ctor))
    wrong = [name for name, value in vars(right).items() if getattr(cache, name) != value]
    if not wrong:
        return None
    name = wrong[0]
    more = f"; wrong are also {', '.join(wrong[1:])}" if len(wrong) > 1 else ""
    return name, f"{name} is {getattr(cache, name)}, and {getattr(right, name)} follows from the others{more}"
