"""Judging bytes: red zones, poison, padding, and free pointers that lie outside of objects.

::

    red_left_pad | object_size | to metadata | free pointer | two tracks, size | up to size - red_left_pad
    left zone      poison        right zone    if outside     owners             object padding

    zones: 0xbb beside a free object, 0xcc beside a live one; poison: 0x6b ... 0x6b 0xa5; padding: 0x5a
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...abi import POISON_END, POISON_FREE, POISON_INUSE, SLUB_RED_ACTIVE, SLUB_RED_INACTIVE, track
from .evidence import FREE, LIVE, UNKNOWN, Evidence, Slab
from .geometry import OBJECT_POISON, POISON, RED_ZONE, keeps_size, padding_at, tracks_at
from .record import blocks
from .slabs import stored, where
from .violation import Report

_Bytes = npt.NDArray[np.uint8]


def judge_objects(evidence: Evidence, report: Report) -> None:
    """The bytes around and inside every object, wherever they must have one value."""
    for slab in evidence.slabs.values():
        if slab.data is None:
            continue
        if slab.cache.flags & (RED_ZONE | POISON):
            judge_bytes(slab, report)
        if slab.cache.fields.offset >= slab.cache.fields.metadata:
            judge_outside_pointers(slab, report)


def judge_bytes(slab: Slab, report: Report) -> None:
    """One slab: each region is a column of the table that its objects are rows of."""
    assert slab.data is not None
    fields, flags = slab.cache.fields, slab.cache.flags
    pad, size = int(fields.red_left_pad), int(fields.size)
    slots = np.ndarray((fields.objects, size), np.uint8, slab.data, int(slab.info.colour))
    state = np.array(slab.state)
    known = state != UNKNOWN
    zone = np.where(state == FREE, SLUB_RED_INACTIVE, SLUB_RED_ACTIVE).astype(np.uint8)[:, None]
    end, behind = pad + int(fields.object_size), pad + int(fields.metadata)

    def column(rule: str, start: int, stop: int, value: npt.ArrayLike, rows: npt.NDArray[np.bool_]) -> None:
        wrong = (slots[:, start:stop] != value) & rows[:, None]
        if wrong.any():
            _report_rows(slab, report, rule, start - pad, slots[:, start:stop], wrong, np.asarray(value, np.uint8))

    if flags & RED_ZONE:
        column("left-red-zone", 0, pad, zone, known)
        column("right-red-zone", end, behind, zone, known)
        if keeps_size(flags):
            _judge_requested(slab, slots, state == LIVE, report)
    elif flags & POISON:
        column("alignment-padding", end, behind, POISON_INUSE, np.ones(len(slots), bool))
    if flags & OBJECT_POISON:
        column("poison", pad, end - 1, POISON_FREE, state == FREE)
        column("end-poison", end - 1, end, POISON_END, state == FREE)
    if flags & POISON:
        start = pad + padding_at(fields.metadata, fields.offset, flags)
        column("object-padding", start, size, POISON_INUSE, np.ones(len(slots), bool))
        _judge_rest(slab, int(slab.info.colour) + size * int(fields.objects), report)


def _judge_requested(slab: Slab, slots: _Bytes, live: npt.NDArray[np.bool_], report: Report) -> None:
    """A live object's red zone begins behind the bytes that were asked for."""
    fields, name = slab.cache.fields, slab.cache.name
    pad, size = int(fields.red_left_pad), int(fields.object_size)
    at = tracks_at(fields.metadata, fields.offset) + 2 * track.size
    asked = np.ndarray((fields.objects,), np.dtype("<u4"), slab.data, int(slab.info.colour) + pad + at, (fields.size,))
    for index in np.flatnonzero(asked > size).tolist():
        start = slab.object(index)
        report.add("requested-size", start + at, f"the object at 0x{start:x} of {name} has {size} bytes, and "
                   f"{int(asked[index])} were asked for", name, start)
    zone = slots[:, pad : pad + size]
    wrong = (zone != SLUB_RED_ACTIVE) & (np.arange(size) >= asked[:, None]) & live[:, None]
    if wrong.any():
        _report_rows(slab, report, "kmalloc-red-zone", 0, zone, wrong, np.asarray(SLUB_RED_ACTIVE, np.uint8))


def _judge_rest(slab: Slab, start: int, report: Report) -> None:
    """The bytes behind the last object belong to nobody."""
    assert slab.data is not None
    rest = np.frombuffer(slab.data, np.uint8)[start : blocks(slab.cache.fields.order)]
    wrong = np.flatnonzero(rest != POISON_INUSE)
    if len(wrong):
        report.add("slab-padding", slab.address + start + int(wrong[0]), f"{where(slab)}: behind its last object "
                   + _span(slab.address + start, rest, wrong, POISON_INUSE), slab.cache.name)


def _report_rows(slab: Slab, report: Report, rule: str, offset: int, region: _Bytes, wrong: npt.NDArray[np.bool_],
                 value: npt.NDArray[np.uint8]) -> None:
    """A violation for each object with a wrong byte in a region that begins ``offset`` bytes from the object."""
    values = np.broadcast_to(value, region.shape)
    for index in np.flatnonzero(wrong.any(1)).tolist():
        start, bytes_wrong = slab.object(index), np.flatnonzero(wrong[index])
        first = int(bytes_wrong[0])
        report.add(rule, start + offset + first, f"{_who(slab, index)}: "
                   + _span(start + offset, region[index], bytes_wrong, int(values[index, first])),
                   slab.cache.name, start)


def _who(slab: Slab, index: int) -> str:
    state = {LIVE: "live ", FREE: "free "}.get(slab.state[index], "")
    return f"{slab.cache.name}'s {state}object at 0x{slab.object(index):x}"


def _span(base: int, region: _Bytes, wrong: npt.NDArray[Any], value: int) -> str:
    first, last = int(wrong[0]), int(wrong[-1])
    span = f"0x{base + first:x}-0x{base + last:x}" if last > first else f"0x{base + first:x}"
    return f"{span} overwritten, first byte {region[first]:#x} instead of {value:#x}"


def judge_outside_pointers(slab: Slab, report: Report) -> None:
    """A free pointer that lies outside is the allocator's even while the object is live, and still leads into the
    slab. Those on the free list have been judged by the walk."""
    if -2 not in slab.links:
        return
    known = {found.address for found in report.found if found.rule == "free-pointer"}
    for index, leads_to in enumerate(slab.links):
        place, start = slab.pointer_at(index), slab.object(index)
        if leads_to == -2 and place not in known:
            report.add("free-pointer", place, f"{_who(slab, index)}: the free pointer behind it holds "
                       f"{stored(slab, place)}, and leads to no object of its slab", slab.cache.name, start)
