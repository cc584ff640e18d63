"""Questions to the columns of a log: the nearest access to some bytes, the nearest start of an instruction.

A column is looked through in blocks, from the moment of the question on, so that what is near is found at once; all
of ten million starts take some milliseconds. ``slot`` and ``row`` are places in the columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .accesses_columns import BY_SHIFT, SIZE_MASK, WRITTEN, By, Columns
from .accesses_native import LARGEST

FIRST_BLOCK, LAST_BLOCK = 1 << 13, 1 << 19

Places = npt.NDArray[np.intp]


def rows_up_to(columns: Columns, slot: int) -> int:
    """How many rows had happened at the moment with this slot."""
    return int(np.searchsorted(columns.keys[: columns.count], np.uint32(slot), "right"))


def rows_before(columns: Columns, slot: int) -> int:
    """How many rows have a smaller key."""
    return int(np.searchsorted(columns.keys[: columns.count], np.uint32(slot), "left"))


def touching(columns: Columns, low: int, high: int, physical: int, size: int, written: bool,
             by: By | None = None) -> Places:
    """Which of the rows from ``low`` up to ``high`` read or wrote any of these bytes, ascending."""
    first = max(physical - LARGEST + 1, 0)
    starts = columns.physical[low:high]
    near = np.flatnonzero(starts - np.uint32(first) < np.uint32(min(physical + size - first, 0xFFFF_FFFF)))
    kinds = columns.kinds[low:high][near]
    wanted = (kinds & WRITTEN != 0) == written
    wanted &= starts[near].astype(np.int64) + (kinds & SIZE_MASK) > physical
    if by is not None:
        wanted &= kinds >> BY_SHIFT == by
    found: Places = near[wanted] + low
    return found


def last_touching(columns: Columns, low: int, high: int, physical: int, size: int, written: bool,
                  by: By | None = None) -> int | None:
    """The last of them."""
    for first, end in _blocks_backwards(low, high):
        found = touching(columns, first, end, physical, size, written, by)
        if len(found):
            return int(found[-1])
    return None


def next_touching(columns: Columns, low: int, high: int, physical: int, size: int, written: bool,
                  by: By | None = None) -> int | None:
    """The first of them."""
    for first, end in _blocks(low, high):
        found = touching(columns, first, end, physical, size, written, by)
        if len(found):
            return int(found[0])
    return None


def slots_of(columns: Columns, low: int, high: int, address: int) -> Places:
    """Which of the slots from ``low`` up to ``high`` hold the RIP ``address``, ascending."""
    halves = np.flatnonzero(columns.rips[low:high] == np.uint32(address & 0xFFFF_FFFF)) + low
    found: Places = halves[columns.addresses(halves) == np.uint64(address)]
    return found


def last_slot(columns: Columns, low: int, high: int, address: int) -> int | None:
    """The last of them."""
    for first, end in _blocks_backwards(low, high):
        found = slots_of(columns, first, end, address)
        if len(found):
            return int(found[-1])
    return None


def next_slot(columns: Columns, low: int, high: int, address: int) -> int | None:
    """The first of them."""
    for first, end in _blocks(low, high):
        found = slots_of(columns, first, end, address)
        if len(found):
            return int(found[0])
    return None


def _blocks(low: int, high: int) -> Iterator[tuple[int, int]]:
    block = FIRST_BLOCK
    while low < high:
        yield low, min(low + block, high)
        low, block = low + block, min(2 * block, LAST_BLOCK)


def _blocks_backwards(low: int, high: int) -> Iterator[tuple[int, int]]:
    block = FIRST_BLOCK
    while low < high:
        yield max(high - block, low), high
        high, block = high - block, min(2 * block, LAST_BLOCK)
