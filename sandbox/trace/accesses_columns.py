"""The arrays of a log: a slot for each start, a row for each access, and no more bytes than were granted.

Slot ``n`` of ``rips`` holds the lower half of the address of one instruction; the upper half changes so seldom that
only its changes are kept. A start has its slot by its number, so what is told twice, or of an instruction that then
does not start, is simply overwritten.

A row has a *key*: the slot behind that of its instruction. So the rows with ``key <= slot of t`` are exactly what had
happened at the moment ``t``, and a write from outside, which belongs to no start, has the slot of its moment as key.

=========  =====  ==================================================================================
rips       4      the start's RIP, lower half
keys       4      as above
physical   4      the first byte's physical address (a PC's RAM ends below 3 GiB)
values     8      what was read or written, as an unsigned number
kinds      1      size in bytes (1 to 8) in bits 0-3, written in bit 4, by whom in bits 5-6
=========  =====  ==================================================================================

The arrays are reserved in full at the beginning; the host gives memory to what is touched, and rooms grow by grants.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from contextlib import suppress
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .accesses_native import LARGEST, State

START_BYTES, ROW_BYTES = 4, 17
SMALLEST_LIMIT, LARGEST_LIMIT = 1 << 12, START_BYTES << 31
WRITTEN, BY_SHIFT, SIZE_MASK = 1 << 4, 5, 0xF
_LARGEST_GRANT, _GRANTS = 4 << 20, 64
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux
_LOW, _NO_HALF = 0xFFFF_FFFF, 1 << 32


class By(IntEnum):
    """Who made an access."""

    INSTRUCTION = 0
    PROCESSOR = 1
    PYTHON = 2

    def __str__(self) -> str:
        return self.name.lower()


class Span(NamedTuple):
    """Starts that follow one another: the first one's stamp, and its slot."""

    begin: int
    slot: int


class Columns:
    """Storage of at most ``limit`` bytes; ``state`` is what native code sees of it.

    ``end`` is the number of slots in use, and ``spans`` say which starts they belong to. Between two spans one slot
    is left out, so that the moment behind the one and the moment before the other have different slots.
    """

    def __init__(self, limit: int) -> None:
        if type(limit) is not int or not SMALLEST_LIMIT <= limit <= LARGEST_LIMIT:
            raise UsageError(f"a limit for the log of accesses is a number of bytes from {SMALLEST_LIMIT:,} to "
                             f"{LARGEST_LIMIT:,}, not {limit!r}")
        self.limit = limit
        starts, rows = limit // START_BYTES, limit // ROW_BYTES
        try:
            self.rips: npt.NDArray[np.uint32] = _reserve(starts, np.uint32)
            self.keys: npt.NDArray[np.uint32] = _reserve(rows, np.uint32)
            self.physical: npt.NDArray[np.uint32] = _reserve(rows, np.uint32)
            self.values: npt.NDArray[np.uint64] = _reserve(rows, np.uint64)
            self.kinds: npt.NDArray[np.uint8] = _reserve(rows, np.uint8)
        except (MemoryError, OSError):
            raise UsageError(f"this host reserves no {limit:,} bytes for the log of accesses: give it a smaller "
                             "limit_bytes") from None
        self.state = State(
            high=_NO_HALF, rips=self.rips.ctypes.data, keys=self.keys.ctypes.data, physical=self.physical.ctypes.data,
            values=self.values.ctypes.data, kinds=self.kinds.ctypes.data,
            masks=(ctypes.c_uint64 * (LARGEST + 1))(*((1 << 8 * size) - 1 for size in range(LARGEST + 1))))
        self.end = 0
        self.spans: list[Span] = []
        self.full = False
        # What Python fills one by one, it fills through these: they are faster than arrays.
        self._places = (self.keys.data, self.physical.data, self.values.data, self.kinds.data)
        self._halves = self.rips.data
        self._high = _NO_HALF
        self._highs: list[tuple[int, int]] = []          # (slot, upper half from there on)
        self._slots = self._rows = 0                     # granted
        self._is_open = False
        self._grant = min(_LARGEST_GRANT, limit // _GRANTS)

    # -- places -----------------------------------------------------------------------------------------------
    @property
    def count(self) -> int:
        """Rows in use."""
        return int(self.state.count)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return START_BYTES * self.end + ROW_BYTES * self.count

    @property
    def now(self) -> int:
        """The moment at the end."""
        return self.spans[-1].begin + self.end - self.spans[-1].slot if self.spans else 0

    def slot(self, moment: int) -> int:
        """The slot of a moment in the last span."""
        return moment - self.spans[-1].begin + self.spans[-1].slot

    def span(self, slot: int) -> Span:
        """The span that a slot lies in."""
        return self.spans[bisect_right([span.slot for span in self.spans], slot) - 1]

    def stamps(self, slots: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """The stamps of slots."""
        first = np.array([span.slot for span in self.spans], np.int64)
        shift = np.array([span.begin - span.slot for span in self.spans], np.int64)
        places = slots.astype(np.int64)
        return (places + shift[np.searchsorted(first, places, "right") - 1]).astype(np.uint64)

    def addresses(self, slots: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """The RIPs in slots."""
        first = np.array([slot for slot, _ in self._highs], np.int64)
        highs = np.array([high << 32 for _, high in self._highs], np.uint64)
        found: npt.NDArray[np.uint64] = self.rips[slots].astype(np.uint64)
        if len(slots):
            found |= highs[np.searchsorted(first, slots.astype(np.int64), "right") - 1]
        return found

    # -- where the machine stands ------------------------------------------------------------------------------
    def stand_at(self, moment: int) -> None:
        """Go on from a moment: what was recorded behind it is forgotten, and what lies between is a gap."""
        self.cut(moment)
        if not self.spans or moment > self.now:
            slot = self.end + 1 if self.spans else 0
            self.spans.append(Span(moment, slot))
            self.end = slot

    def cut(self, moment: int) -> None:
        """Forget what happened behind a moment."""
        if moment < self.now:
            self.full = False
        while self.spans and self.spans[-1].begin > moment:
            self.end = max(self.spans.pop().slot - 1, 0)
        if self.spans and moment < self.now:
            self.end = self.slot(moment)
        self._trim()

    def end_at(self, moment: int) -> None:
        """The last span goes up to this moment."""
        self.end = self.slot(moment)
        self._trim()

    def _trim(self) -> None:
        """Forget what is behind the end."""
        state, count = self.state, self.count
        if not self.spans:
            state.count = 0
        elif count and self.keys[count - 1] > self.end:
            state.count = int(np.searchsorted(self.keys[:count], np.uint32(self.end), "right"))
        while self._highs and self._highs[-1][0] >= self.end:
            self._highs.pop()
            state.high = self._high = self._highs[-1][1] if self._highs else _NO_HALF

    def open(self, is_open: bool) -> None:
        """Show native code the room that there is, or none."""
        self._is_open = is_open
        self.state.room, self.state.access_room = (self._slots, self._rows) if is_open else (0, 0)

    def row(self, at: int) -> tuple[int, int, int]:
        """Physical address, value and kind of an access."""
        return int(self.physical[at]), int(self.values[at]), int(self.kinds[at])

    # -- filling ----------------------------------------------------------------------------------------------
    def put_start(self, slot: int, address: int) -> bool:
        """Fill a slot; False when there is no room any more."""
        if slot >= self._slots and not self._more_slots(slot):
            self.stop_filling(slot)
            return False
        if address >> 32 != self._high:
            self._change_high(slot, address >> 32)
        self._halves[slot] = address & _LOW
        return True

    def put_row(self, key: int, physical: int, size: int, value: int, kind: int) -> bool:
        """Append an access; ``kind`` are the upper bits of that."""
        at = self.state.count
        if at >= self._rows and not self._more_rows(1):
            self.stop_filling(key - 1)
            return False
        keys, places, values, kinds = self._places
        keys[at], places[at], values[at], kinds[at] = key, physical, value, kind | size
        self.state.count = at + 1
        return True

    def put_bytes(self, key: int, physical: int, data: bytes, by: By) -> bool:
        """Append a write of any number of bytes, as writes of at most 8."""
        rows, at = -(-len(data) // LARGEST), self.count
        if at + rows > self._rows and not self._more_rows(at + rows - self._rows):
            self.stop_filling(key - 1)
            return False
        new = slice(at, at + rows)
        self.keys[new] = key
        self.physical[new] = int(physical) + LARGEST * np.arange(rows, dtype=np.uint32)
        self.values[new] = np.frombuffer(data.ljust(LARGEST * rows, b"\0"), np.uint64)
        self.kinds[new] = by << BY_SHIFT | WRITTEN | LARGEST
        if len(data) % LARGEST:
            self.kinds[at + rows - 1] = by << BY_SHIFT | WRITTEN | len(data) % LARGEST
        self.state.count = at + rows
        return True

    def drop_rows(self, doomed: list[int]) -> None:
        """Take rows out, given in ascending order."""
        first, count = doomed[0], self.count
        kept = np.delete(np.arange(first, count), np.array(doomed) - first)
        for column in (self.keys, self.physical, self.values, self.kinds):
            column[first : first + len(kept)] = column[kept]
        self.state.count = first + len(kept)

    def stop_filling(self, slot: int) -> None:
        """There is no room for all of the start in this slot: the log ends before it."""
        self.end = max(slot, self.spans[-1].slot)
        self._trim()
        self.full = True

    def _more_slots(self, slot: int) -> bool:
        more = max(self._grant // START_BYTES, slot + 1 - self._slots)
        if START_BYTES * (self._slots + more) + ROW_BYTES * self._rows > self.limit:
            return False
        _back(self.rips, self._slots, self._slots + more)
        self._slots += more
        self.open(self._is_open)
        return True

    def _more_rows(self, needed: int) -> bool:
        more = max(self._grant // ROW_BYTES, needed)
        if START_BYTES * self._slots + ROW_BYTES * (self._rows + more) > self.limit:
            return False
        for column in (self.keys, self.physical, self.values, self.kinds):
            _back(column, self._rows, self._rows + more)
        self._rows += more
        self.open(self._is_open)
        return True

    def _change_high(self, slot: int, high: int) -> None:
        """From this slot on, RIP has another upper half."""
        while self._highs and self._highs[-1][0] >= slot:
            self._highs.pop()
        if not self._highs or self._highs[-1][1] != high:
            self._highs.append((slot, high))
        self.state.high = self._high = high


def _reserve(count: int, kind: type[Any]) -> npt.NDArray[Any]:
    """An array that the host backs page by page. numpy's own would ask for huge pages: to clear one of those throws
    out of the caches what the engine needs (measured: a sixth slower)."""
    size = count * np.dtype(kind).itemsize
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return np.frombuffer(mmap.mmap(-1, size, **private), kind, count)


def _back(column: npt.NDArray[Any], first: int, end: int) -> None:
    """Let the host give these places of a reserved column their memory at once: that takes half the time of a fault
    for each page. Hosts that cannot do it when they are touched."""
    memory = getattr(column.base, "obj", None)
    if sys.platform != "linux" or not isinstance(memory, mmap.mmap):
        return
    start, stop = (-(-place * column.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE for place in (first, end))
    with suppress(OSError):                              # Linux before 5.14
        if start < min(stop, len(memory)):
            memory.madvise(_POPULATE_WRITE, start, min(stop, len(memory)) - start)
