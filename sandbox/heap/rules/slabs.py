"""Judging a slab's numbers and its free list, and so which of its objects are free."""

from __future__ import annotations

import numpy as np

from ...abi import SLUB_RED_ACTIVE, SLUB_RED_INACTIVE, page
from .evidence import FREE, LIVE, UNKNOWN, Evidence, Slab, colour_fault
from .geometry import RED_ZONE
from .record import Record
from .violation import Report

_FREELIST, _INUSE = page.freelist.offset, page.inuse.offset
_OBJECTS, _COLOUR = page.objects.offset, page.colour.offset


def judge_slab(slab: Slab, report: Report) -> None:
    """Its numbers, then the chain of its free objects. Sets ``slab.state``, as far as it can be known."""
    cache, info, name = slab.cache, slab.info, slab.cache.name
    if cache.wrong or slab.broken:
        return
    fault = colour_fault(slab)
    if fault:
        report.add("colour", slab.page + _COLOUR, f"{where(slab)}: {fault}", name)
        slab.broken = True
        return
    numbers = judge_numbers(slab, info, report)
    if slab.data is None:
        return
    zones = zone_states(slab)
    if not judge_chain(slab, zones, report):
        slab.broken = True
        slab.state = zones or slab.state
        return
    if zones and leaves_one_out(slab, zones, report):
        slab.state = zones
    free = slab.state.count(FREE)
    if numbers and info.inuse != len(slab.state) - free:
        report.add("object-count", slab.page + _INUSE, f"{where(slab)}: the counter says that {info.inuse} objects are "
                   f"out, and {len(slab.state) - free} are", name)
        slab.broken = True


def where(slab: Slab) -> str:
    """How a message names a slab."""
    return f"{slab.cache.name}'s slab at 0x{slab.address:x}"


def judge_numbers(slab: Slab, info: Record, report: Report) -> bool:
    """``page.objects`` and ``page.inuse`` against what the cache allows; whether inuse may be compared with a walk."""
    right, at, name = int(slab.cache.fields.objects), slab.page + _OBJECTS, slab.cache.name
    if info.objects > right:
        report.add("objects-above-maximum", at, f"{where(slab)} says that it has {info.objects} objects, and {right} "
                   "fit", name)
    elif info.objects != right:
        report.add("object-number", at, f"{where(slab)} says that it has {info.objects} objects, and was cut into "
                   f"{right}", name)
    if info.inuse > right:
        report.add("inuse-above-objects", slab.page + _INUSE, f"{where(slab)} says that {info.inuse} of its {right} "
                   "objects are out", name)
    return bool(info.inuse <= right)


def judge_chain(slab: Slab, zones: list[int] | None, report: Report) -> bool:
    """Walk the free list, marking what it reaches; whether it came to its end, and led to no object whose two red
    zones say that it is live."""
    name, links, head = slab.cache.name, slab.links, int(slab.info.freelist)
    first = -1 if head == 0 else slab.index(head)
    if first is None:
        report.add("free-pointer", slab.page + _FREELIST, f"{where(slab)}: page.freelist is 0x{head:x}, which is no "
                   "object of it", name)
        return False
    state = [LIVE] * len(links)
    at, came_from = first, -1
    while at >= 0:
        if state[at] == FREE:
            report.add("free-list-cycle", slab.pointer_at(came_from), f"{where(slab)}: the free list leads back to "
                       f"0x{slab.object(at):x}", name, None if came_from < 0 else slab.object(came_from))
            break
        if zones and zones[at] == LIVE and slab.agreed[at]:
            report.add("free-chain", slab.pointer_at(came_from), f"{where(slab)}: the free list leads to "
                       f"0x{slab.object(at):x}, which is live by its red zones", name,
                       None if came_from < 0 else slab.object(came_from))
            break
        state[at] = FREE
        came_from, at = at, links[at]
    if at == -1:
        slab.state = state
        return True
    if at == -2:
        place = slab.pointer_at(came_from)
        report.add("free-pointer", place,
                   f"{where(slab)}: the free pointer of the object at 0x{slab.object(came_from):x}"
                   f" holds {stored(slab, place)}, and leads to no object of it", name, slab.object(came_from))
    slab.state = [known if known == FREE else UNKNOWN for known in state]
    return False


def stored(slab: Slab, place: int) -> str:
    """The free pointer at an address of the slab, as it is kept there."""
    data = slab.data or b""
    value = int.from_bytes(data[place - slab.address : place - slab.address + 8], "little")
    return f"0x{value:x}" + (" (encoded)" if slab.cache.fields.random else "")


def zone_states(slab: Slab) -> list[int] | None:
    """What the red zones say of each object: both zones of a free one are 0xbb, those of a live one 0xcc. None
    without red zones; an object whose zones disagree, or are damaged, is what its left one says, if that is whole."""
    fields = slab.cache.fields
    if not slab.cache.flags & RED_ZONE or slab.data is None:
        return None
    slots = np.ndarray((fields.objects, fields.size), np.uint8, slab.data, int(slab.info.colour))
    pad = int(fields.red_left_pad)
    sides = (slots[:, :pad], slots[:, pad + fields.object_size : pad + fields.metadata])
    found = np.full(len(slots), UNKNOWN)
    for side in reversed(sides):
        found[(side == SLUB_RED_ACTIVE).all(1)] = LIVE
        found[(side == SLUB_RED_INACTIVE).all(1)] = FREE
    clear = [(side[:, :1] == side).all(1) for side in sides]
    both = clear[0] & clear[1] & (sides[0][:, 0] == sides[1][:, 0])
    slab.agreed = both.tolist()
    return [int(state) for state in found]


def leaves_one_out(slab: Slab, zones: list[int], report: Report) -> bool:
    """Whether a free list that came to its end has gone past an object whose two red zones say that it is free."""
    missing = [index for index, (chained, zone, agreed) in enumerate(zip(slab.state, zones, slab.agreed, strict=True))
               if agreed and zone == FREE and chained != FREE]
    if not missing:
        return False
    order = chain(slab)
    last = order[-1] if order else -1
    report.add("free-chain", slab.pointer_at(last), f"{where(slab)}: the free list ends without the object at "
               f"0x{slab.object(missing[0]):x}, which is free by its red zones", slab.cache.name,
               None if last < 0 else slab.object(last))
    return True


def chain(slab: Slab) -> list[int]:
    """The indices of the objects on the free list, in its order; the list is known to end."""
    head = int(slab.info.freelist)
    at = -1 if head == 0 else slab.index(head)
    order: list[int] = []
    while at is not None and at >= 0 and len(order) <= len(slab.links):
        order.append(at)
        at = slab.links[at]
    return order


def judge_slabs(evidence: Evidence, report: Report) -> None:
    """Every slab of every cache."""
    for slab in evidence.slabs.values():
        judge_slab(slab, report)
