"""The chunks of somebody else's allocator, the states of their bytes, and the memory that they are cut from.

A chunk is known by the pointer that its owner was given. Its bytes are pieces of RAM, one or many: pages that lie side
by side in virtual memory need not do so in RAM. The allocator's *ground* is its arena, the writable data of its image,
and the pages that it took from the page allocator, until it gives them back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..abi import ARENA_BASE
from ..address import PAGE_SHIFT, PAGE_SIZE, align_up
from .ram import Ram
from .shadow_objects import Cause, Held, ObjectTable
from .shadow_report import Owner
from .shadow_states import State

_METADATA, _UNWRITTEN, _PADDING = int(State.METADATA), int(State.UNWRITTEN), int(State.PADDING)
_FREE, _OUTSIDE = int(State.FREE), int(State.OUTSIDE)
READ, WRITTEN = 1, 2
NEAR = 1 << 20
"""How far behind a chunk a byte of the same pages may lie to be told as one behind it."""

Pieces = tuple[tuple[int, int], ...]
"""Physical address and size, in the order of the chunk's bytes."""
Region = Callable[[int], "tuple[int, int]"]
"""For a virtual address the range of the variable that it lies in; ``(0, 0)`` where it is in none."""


class Chunk(NamedTuple):
    """What was handed out at least once: who has it, and where it lies, its padding included."""

    held: Held
    pieces: Pieces


class ChunksState(NamedTuple):
    """All of a :class:`Chunks`, as a value."""

    chunks: dict[int, Chunk]
    once: npt.NDArray[np.intp]
    seen: tuple[tuple[int, int, bool], ...]
    pages: frozenset[int]
    pools: frozenset[int]


class Chunks:
    """The chunks by pointer; ``shadow`` of ``table`` has the states.

    ``data`` are the physical ranges of its variables, ``exempt`` those in them that are not its own; ``region`` tells
    variables apart.
    """

    def __init__(self, table: ObjectTable, ram: Ram, arena: range, data: list[tuple[int, int]],
                 exempt: list[tuple[int, int]], region: Region) -> None:
        size = len(table.shadow)
        self.known: dict[int, Chunk] = {}
        self.pages: set[int] = set()                                   # frames that it took from the page allocator
        self._table = table
        self._ram = ram
        self._arena = arena
        self._exempt = exempt
        self._region = region
        self._pools: set[int] = set()                                  # variables that chunks are cut from, 0: others
        self._once: npt.NDArray[np.uint8] = np.zeros(size, np.uint8)   # 1: was part of a chunk
        self._taken: npt.NDArray[np.uint8] = np.zeros(size, np.uint8)  # 1: is, or was not long ago, of a live one
        self._marks = bytearray(size)                                  # what the present call has read or written
        self._marked: npt.NDArray[np.uint8] = np.frombuffer(self._marks, np.uint8)
        self._seen: list[tuple[int, int, bool]] = []
        self._ground = bytearray(-(-size // PAGE_SIZE))
        for start, end in [(arena.start, arena.stop), *data] if arena else data:
            frames = range(start >> PAGE_SHIFT, -(-end // PAGE_SIZE))
            self._ground[frames.start : frames.stop] = bytes([1]) * len(frames)
            table.touched.update(frames)
        self._begin_ground()

    # -- the present call -------------------------------------------------------------------------------------
    def begin_call(self) -> None:
        """Nothing was touched yet."""
        for address, size, _ in self._seen:
            self._marks[address : address + size] = bytes(size)
        self._seen.clear()

    def touched(self, address: int, size: int, write: bool) -> None:
        """The allocator reads or writes: what it writes on its ground is its own, unless it was a chunk's."""
        self._seen.append((address, size, write))
        end = address + size
        if not write:
            self._marks[address:end] = self._marks[address:end].replace(b"\0", b"\1")
            return
        self._marks[address:end] = bytes([WRITTEN]) * size
        states = self._table.shadow[address:end]
        if self._ground[address >> PAGE_SHIFT]:
            states[self._once[address:end] == 0] = _METADATA
        else:
            states &= ~_UNWRITTEN & 0xFF

    # -- chunks -----------------------------------------------------------------------------------------------
    def pieces(self, pointer: int, size: int, cr3: int) -> Pieces:
        """Where the bytes from ``pointer`` on lie, up to the first that is no RAM."""
        found: list[tuple[int, int]] = []
        while size > 0:
            at = self._ram.translate(pointer, cr3)
            if at < 0:
                break
            length = min(size, PAGE_SIZE - pointer % PAGE_SIZE)
            if found and sum(found[-1]) == at:
                found[-1] = found[-1][0], found[-1][1] + length
            else:
                found.append((at, length))
            pointer, size = pointer + length, size - length
        return tuple(found)

    def written(self, pointer: int) -> bytes:
        """For each byte of a chunk whether its owner has not written it: its state, as far as it is that."""
        chunk = self.known[pointer]
        states = b"".join((self._table.shadow[start : start + size] & _UNWRITTEN).tobytes()
                          for start, size in chunk.pieces)
        return states[: chunk.held.asked]

    def handed_out(self, pointer: int, asked: int, cr3: int, cause: Cause | None, *, zeroed: bool = False,
                   kept: bytes = b"", grown: bool = False) -> None:
        """The bytes from ``pointer`` on have an owner. ``kept`` are the states of the first ones; the others are
        written when ``zeroed``, or when the present call wrote them, unless it copied what was there (``grown``)."""
        pieces = self.pieces(pointer, align_up(asked, 8), cr3)
        shadow, at, sound = self._table.shadow, 0, True
        for start, size in pieces:
            inside = min(max(asked - at, 0), size)
            states, marks = shadow[start : start + inside], self._marked[start : start + inside]
            blank = 0 if zeroed else _UNWRITTEN
            new = np.where(marks == WRITTEN, blank if grown else 0, blank).astype(np.uint8)
            carried = np.frombuffer(kept[at : at + inside], np.uint8)
            new[: len(carried)] = carried
            stale = ((states & _METADATA) != 0) & (marks == 0)
            if stale.any():
                sound = not self._tables(pointer + at, stale, new) and sound
            states[:] = new
            self._once[start : start + inside] = 1
            self._taken[start : start + inside] = 1
            padding = shadow[start + inside : start + size]
            padding[(padding == 0) | (padding == _FREE) | (padding == _OUTSIDE)] = _PADDING
            at += size
        if sound:
            self._pools.add(self._region(pointer)[0])
        self.known[pointer] = Chunk(Held(asked, asked, True, False, cause), pieces)

    def overlapped(self, pointer: int, asked: int, cr3: int) -> Owner | None:
        """A live chunk with which the one that is about to be handed out shares a byte."""
        pieces = self.pieces(pointer, asked, cr3)
        if not any(self._taken[start : start + size].any() for start, size in pieces):
            return None                          # almost always, whatever the number of chunks
        return next((self._owner(other, pieces[0][0], pointer) for other, chunk in self.known.items() if chunk.held.live
                     for first, length in _of_owner(chunk) for start, size in pieces
                     if first < start + size and start < first + length), None)

    def _tables(self, pointer: int, stale: npt.NDArray[np.bool_], new: npt.NDArray[np.uint8]) -> bool:
        """Keep what is the allocator's data of a new chunk's bytes; whether some is.

        What it wrote there once, and has not touched in this call, is a header of a chunk that was merged with this
        one, and of no use any more; but not in a variable from which no chunk has come, while others gave some.
        """
        found, at, offsets = False, 0, np.flatnonzero(stale)
        while at < len(offsets):
            address = pointer + int(offsets[at])
            first, end = self._region(address)
            behind = int(np.searchsorted(offsets, (end or (address | PAGE_SIZE - 1) + 1) - pointer))
            if first and self._pools and first not in self._pools:
                new[offsets[at:behind]] = _METADATA
                found = True
            at = max(behind, at + 1)
        return found

    def taken_back(self, pointer: int, cause: Cause) -> None:
        """A chunk has no owner any more; nothing happens when it has none."""
        chunk = self.known.get(pointer)
        if chunk is None or not chunk.held.live:
            return
        for start, size in chunk.pieces:
            states = self._table.shadow[start : start + size]
            states[states != _METADATA] = _FREE
            self._taken[start : start + size] = 0
        self.known[pointer] = chunk._replace(held=chunk.held._replace(live=False, freed=cause))

    def unjudged(self, pointer: int, cr3: int) -> None:
        """A function of which nothing is known returned this: if it is memory of the ground, it may be somebody's, up
        to the next chunk that is held."""
        at = self._ram.translate(pointer, cr3)
        chunk = self.known.get(pointer)
        if at < 0 or not self._ground[at >> PAGE_SHIFT] or (chunk is not None and chunk.held.live):
            return
        end = min((other for other, chunk in self.known.items() if other > pointer and chunk.held.live),
                  default=pointer + NEAR)
        for start, size in self.pieces(pointer, min(end - pointer, NEAR), cr3):
            first = start
            while first < start + size:
                stop = min(start + size, (first | PAGE_SIZE - 1) + 1)
                if self._ground[first >> PAGE_SHIFT]:
                    self._table.shadow[first:stop] = 0
                first = stop

    def unguard(self) -> None:
        """From now on nothing is known of memory that was in no chunk yet."""
        shadow = self._table.shadow
        for start, end in [(self._arena.start, self._arena.stop), *((frame << PAGE_SHIFT, frame + 1 << PAGE_SHIFT)
                                                                    for frame in self.pages)]:
            states = shadow[start:end]
            states[states == _OUTSIDE] = 0

    # -- the ground -------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Nobody holds anything, and nothing is known to be the allocator's."""
        self._table.shadow[self._once != 0] = 0
        for chunk in self.known.values():
            for start, size in chunk.pieces:
                self._table.shadow[start : start + size] = 0
        self.known.clear()
        self._pools.clear()
        self._begin_ground()

    def _begin_ground(self) -> None:
        """Nothing of it is in a chunk."""
        self._once[:] = 0
        self._taken[:] = 0
        for start, end in self._exempt:
            self._once[start:end] = 1
        self._table.shadow[self._arena.start : self._arena.stop] = _OUTSIDE
        for frame in self.pages:
            self._table.shadow[frame << PAGE_SHIFT : frame + 1 << PAGE_SHIFT] = _OUTSIDE

    def pages_given(self, start: int, size: int) -> None:
        """The allocator took pages: they are its ground, and in no chunk."""
        frames = range(start >> PAGE_SHIFT, (start + size) >> PAGE_SHIFT)
        self.pages.update(frames)
        self._ground[frames.start : frames.stop] = bytes([1]) * len(frames)
        self._once[start : start + size] = 0
        self._marks[start : start + size] = bytes(size)
        self._table.shadow[start : start + size] = _OUTSIDE

    def pages_taken(self, start: int, size: int) -> None:
        """It gave pages back: no chunk lies there any more."""
        frames = set(range(start >> PAGE_SHIFT, (start + size) >> PAGE_SHIFT)) & self.pages
        if not frames:
            return
        self.pages -= frames
        for frame in frames:
            self._ground[frame] = 0
        self._once[start : start + size] = 0
        end = start + size
        for pointer, chunk in self.known.items():
            if any(first < end and start < first + length for first, length in chunk.pieces):
                rest = [part for first, length in chunk.pieces
                        for part in ((first, min(first + length, start) - first),
                                     (max(first, end), first + length - max(first, end))) if part[1] > 0]
                self.known[pointer] = chunk._replace(pieces=tuple(rest))

    # -- finding ----------------------------------------------------------------------------------------------
    def find(self, address: int) -> Owner | None:
        """The chunk that a physical address lies in; in the arena, and in pages that it took, the last one before it
        where none does."""
        inside = None
        virtual = ARENA_BASE + address - self._arena.start if address in self._arena else 0
        for pointer, chunk in self.known.items():
            at = pointer
            for start, size in chunk.pieces:
                if start <= address < start + size:
                    inside = self._owner(pointer, address, at + address - start)
                    if chunk.held.live:
                        return inside
                if start >> PAGE_SHIFT <= address >> PAGE_SHIFT <= (start + size - 1) >> PAGE_SHIFT:
                    virtual = virtual or at + address - start
                at += size
        if inside is not None or not virtual or not (address in self._arena or address >> PAGE_SHIFT in self.pages):
            return inside
        before = max((pointer for pointer in self.known if virtual - NEAR < pointer <= virtual), default=None)
        return None if before is None else self._owner(before, address, virtual)

    def _owner(self, pointer: int, physical: int, virtual: int) -> Owner:
        """The chunk at ``pointer``, as if all of it lay where the byte at ``physical`` does."""
        held = self.known[pointer].held
        return Owner(None, 0, physical - (virtual - pointer), held.asked, held, pointer)

    # -- as a value -------------------------------------------------------------------------------------------
    def state(self) -> ChunksState:
        """All of it."""
        return ChunksState(dict(self.known), np.flatnonzero(self._once), tuple(self._seen), frozenset(self.pages),
                           frozenset(self._pools))

    def load(self, state: ChunksState | None) -> None:
        """Become what :meth:`state` said; without one, nothing is known of the allocator."""
        self.begin_call()
        for frame in self.pages:
            self._ground[frame] = 0
        if state is None:
            self.known, self.pages, self._pools = {}, set(), set()
            self._begin_ground()
            return
        self.known, self.pages, self._pools = dict(state.chunks), set(state.pages), set(state.pools)
        for frame in self.pages:
            self._ground[frame] = 1
        self._once[:] = 0
        self._once[state.once] = 1
        self._taken[:] = self._once
        for address, size, write in state.seen:
            self._seen.append((address, size, write))
            mark = bytes([WRITTEN if write else READ]) * size
            self._marks[address : address + size] = bytes(map(max, mark, self._marks[address : address + size]))


def _of_owner(chunk: Chunk) -> list[tuple[int, int]]:
    """The pieces of a chunk without its padding."""
    pieces, left = [], chunk.held.asked
    for start, size in chunk.pieces:
        pieces.append((start, min(size, left)))
        left -= pieces[-1][1]
    return pieces
