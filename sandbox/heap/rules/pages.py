"""Judging the frames: each belongs to one block, and each block to one owner."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...abi import DIRECT_MAP, MAX_ORDER, PAGE_SHIFT, PageFlag, free_area, page
from .evidence import Evidence
from .record import blocks
from .violation import Report

_ORDER, _HEAD, _CACHE, _PRIVATE, _LINK = (getattr(page, name).offset for name in
                                          ("order", "head", "cache", "private", "next"))
_USES = int(PageFlag.PG_SLAB | PageFlag.PG_LARGE | PageFlag.PG_TABLE)
_Cover = npt.NDArray[np.int32]
_Mask = npt.NDArray[np.bool_]


def judge_pages(evidence: Evidence, report: Report) -> None:
    """Every frame of RAM, and the lists of free blocks."""
    if not len(evidence.frames):
        return
    flags = evidence.frames["flags"]
    free_heads = _heads(evidence, flags & int(PageFlag.PG_BUDDY) != 0, "buddy-block", "free block", report)
    held_heads = _heads(evidence, flags & int(PageFlag.PG_HEAD) != 0, "block-frames", "allocated block", report)
    free, held = _cover(evidence, free_heads), _cover(evidence, held_heads)
    known = len(free_heads) + len(held_heads) == np.count_nonzero(flags & int(PageFlag.PG_BUDDY | PageFlag.PG_HEAD))
    _judge_overlaps(evidence, free, held, report)
    if known:
        _report_runs(evidence, "lost-page", (free == 0) & (held == 0) & (flags & int(PageFlag.PG_RESERVED) == 0),
                     "neither free nor in an allocated block", report)
    _judge_held(evidence, held_heads, held, report)
    _judge_free_lists(evidence, free_heads, report)
    _judge_unmerged(evidence, free_heads, report)


def _heads(evidence: Evidence, wanted: _Mask, rule: str, what: str, report: Report) -> npt.NDArray[np.int64]:
    """The first frames of blocks whose order is one; the others are reported."""
    first = np.flatnonzero(wanted)
    orders = evidence.frames["order"][first].astype(np.int64)
    spans = np.int64(1) << np.minimum(orders, 62)
    right = (orders <= MAX_ORDER) & (first % spans == 0) & (first + spans <= len(evidence.frames))
    for pfn in first[~right].tolist():
        order = int(evidence.frames["order"][pfn])
        report.add(rule, evidence.page_of(pfn) + _ORDER, f"frame {pfn} begins no {what} of order {order}: the order is "
                   "too large, or the block would not be aligned")
    heads: npt.NDArray[np.int64] = first[right]
    return heads


def _cover(evidence: Evidence, first: npt.NDArray[np.int64]) -> _Cover:
    """How many of these blocks each frame lies in."""
    steps = np.zeros(len(evidence.frames) + 1, np.int32)
    ends = first + (np.int64(1) << evidence.frames["order"][first].astype(np.int64))
    np.add.at(steps, first, 1)
    np.subtract.at(steps, ends, 1)
    cover: _Cover = np.cumsum(steps[:-1], dtype=np.int32)
    return cover


def _runs(mask: _Mask) -> list[tuple[int, int]]:
    """First frame and length of each run of frames."""
    frames = np.flatnonzero(mask)
    if not len(frames):
        return []
    cuts = np.flatnonzero(np.diff(frames) > 1) + 1
    return [(int(run[0]), len(run)) for run in np.split(frames, cuts)]


def _judge_overlaps(evidence: Evidence, free: _Cover, held: _Cover, report: Report) -> None:
    flags = evidence.frames["flags"]
    reserved = flags & int(PageFlag.PG_RESERVED) != 0

    def each(rule: str, mask: _Mask, message: str) -> None:
        _report_runs(evidence, rule, mask, message, report)

    each("buddy-overlap", free > 1, "in two free blocks")
    each("page-two-owners", held > 1, "in two allocated blocks")
    each("page-two-owners", (free > 0) & (held > 0), "both in a free and in an allocated block")
    each("page-two-owners", reserved & ((free > 0) | (held > 0)), "reserved, and in a block of the page allocator")
    each("page-two-owners", (free > 0) & (held == 0) & (flags & _USES != 0), "free, and has a use")


def _report_runs(evidence: Evidence, rule: str, mask: _Mask, message: str, report: Report) -> None:
    """A violation for each run of frames."""
    for pfn, count in _runs(mask):
        frames = f"frame {pfn}" if count == 1 else f"frames {pfn} to {pfn + count - 1}"
        verb = "is" if count == 1 else "are"
        report.add(rule, evidence.page_of(pfn), f"{frames} (physical 0x{pfn << PAGE_SHIFT:x}) {verb} {message}")


def _judge_held(evidence: Evidence, first: npt.NDArray[np.int64], held: _Cover, report: Report) -> None:
    """Inside an allocated block, every frame points at the first one and has its use and its cache."""
    frames = evidence.frames
    inside = np.flatnonzero(held == 1)
    if not len(inside) or not len(first):
        return
    begins = np.zeros(len(frames), np.int64)
    begins[first] = first
    head = np.maximum.accumulate(begins)[inside]

    def each(rule: str, column: str, offset: int, wrong: _Mask, message: str) -> None:
        once: dict[int, int] = {}
        for pfn, begin in zip(inside[wrong].tolist(), head[wrong].tolist(), strict=True):
            once.setdefault(begin, pfn)
        for begin, pfn in once.items():
            cache = evidence.caches.get(int(frames["cache"][begin]))
            report.add(rule, evidence.page_of(pfn) + offset, f"frame {pfn} of the block at 0x{_address(begin):x}: page."
                       f"{column} is 0x{int(frames[column][pfn]):x}, {message}", cache.name if cache else None)

    pages = np.uint64(evidence.mem_map) + head.astype(np.uint64) * np.uint64(page.size)
    each("block-frames", "head", _HEAD, frames["head"][inside] != pages, "and not the block's first frame")
    uses = frames["flags"] & _USES
    each("block-frames", "flags", 0, uses[inside] != uses[head], "another use than the block's first frame has")
    slab = uses[head] == int(PageFlag.PG_SLAB)
    each("page-two-owners", "cache", _CACHE, slab & (frames["cache"][inside] != frames["cache"][head]),
         "another cache than the slab's first frame has")
    for pfn in first.tolist():
        _judge_block(evidence, pfn, report)


def _judge_block(evidence: Evidence, pfn: int, report: Report) -> None:
    """What the first frame of a block says of the whole."""
    frames = evidence.frames
    flags, order = int(frames["flags"][pfn]), int(frames["order"][pfn])
    if flags & PageFlag.PG_SLAB:
        cache = evidence.caches.get(int(frames["cache"][pfn]))
        if cache is None and evidence.cache_ring is not None and evidence.cache_ring.sound:
            report.add("page-two-owners", evidence.page_of(pfn) + _CACHE, f"the slab at 0x{_address(pfn):x} belongs to "
                       f"0x{int(frames['cache'][pfn]):x}, which is no cache")
        elif cache is not None and not cache.wrong and order != cache.fields.order:
            report.add("block-frames", evidence.page_of(pfn) + _ORDER,
                       f"{cache.name}'s slab at 0x{_address(pfn):x} is a "
                       f"block of order {order}, and its slabs are of order {cache.fields.order}", cache.name)
    elif flags & PageFlag.PG_LARGE and int(frames["private"][pfn]) > blocks(order):
        report.add("requested-size", evidence.page_of(pfn) + _PRIVATE,
                   f"the large allocation at 0x{_address(pfn):x} has "
                   f"{blocks(order)} bytes, and {int(frames['private'][pfn])} were asked for")


def _address(pfn: int) -> int:
    return DIRECT_MAP + (pfn << PAGE_SHIFT)


# -- the lists of free blocks --------------------------------------------------------------------------------------
def _judge_free_lists(evidence: Evidence, first: npt.NDArray[np.int64], report: Report) -> None:
    """Every free block is on the list of its order, once, and the counters agree."""
    listed: dict[int, int] = {}
    heads = set(first.tolist())
    for order, ring in enumerate(evidence.areas):
        if ring.wrong:
            report.add("list-links", ring.wrong[0], f"free_areas[{order}]: {ring.wrong[1]}")
        for at in ring.entries:
            pfn = evidence.pfn_of_page(at - _LINK)
            assert pfn is not None
            info: Any = evidence.frames[pfn]
            wrong_order = int(info["order"]) != order and pfn in heads
            if not int(info["flags"]) & PageFlag.PG_BUDDY or wrong_order:
                report.add("buddy-block", evidence.page_of(pfn),
                           f"free_areas[{order}]: frame {pfn} is on the list, and "
                           f"begins no free block of order {order}")
            listed[pfn] = order
        counter = ring.head - free_area.list.offset + free_area.nr_free.offset
        says = evidence.memory.word(counter)
        if ring.sound and says != len(ring.entries):
            report.add("counters", counter,
                       f"free_areas[{order}]: nr_free is {says}, and {len(ring.entries)} blocks are "
                       "on the list")
    if all(ring.sound for ring in evidence.areas):
        for pfn in heads:
            if pfn not in listed:
                report.add("lost-page", evidence.page_of(pfn) + _LINK, f"frame {pfn} begins a free block of order "
                           f"{int(evidence.frames['order'][pfn])}, and is on no list")


def _judge_unmerged(evidence: Evidence, first: npt.NDArray[np.int64], report: Report) -> None:
    """Two free buddies of the same order are one block of the next."""
    blocks_free = {(pfn, int(evidence.frames["order"][pfn])) for pfn in first.tolist()}
    for pfn, order in sorted(blocks_free):
        if order < MAX_ORDER and not pfn & 1 << order and (pfn | 1 << order, order) in blocks_free:
            report.add("buddy-unmerged", evidence.page_of(pfn),
                       f"frame {pfn} and frame {pfn | 1 << order} begin free blocks "
                       f"of order {order}: the two are buddies, and were not merged")
