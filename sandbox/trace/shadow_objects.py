"""The heap as the shadow knows it: slabs, objects, who holds them, and the state of each of their bytes.

Everything is by physical address, because that is what memory hooks report. Records are immutable, so that keeping
the whole of it is a matter of copying a few dictionaries and the frames that have ever been given out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..address import PAGE_SHIFT, PAGE_SIZE
from .shadow_states import PLAIN, ShadowKind, State

_UNWRITTEN, _METADATA, _PADDING = int(State.UNWRITTEN), int(State.METADATA), int(State.PADDING)
_OUTSIDE, _FREE = int(State.OUTSIDE), int(State.FREE)
ROW = 512
_ROWS = {state: bytes([state]) * ROW for state in (PLAIN, _UNWRITTEN, _PADDING, _FREE)}


class Cause(NamedTuple):
    """A call of the allocator: the function's address, the instruction count at its entry, the return addresses."""

    function: int
    instruction: int
    stack: tuple[int, ...]


class Span(NamedTuple):
    """A slab, or, with one object and no cache, a large allocation."""

    start: int
    size: int
    first: int                           # the physical address of its first object
    step: int                            # bytes from one object to the next
    objects: int
    given: int                           # bytes of an object that a caller may have
    cache: int                           # the virtual address of its struct kmem_cache, 0 for a large allocation
    name: str                            # the name of that cache
    constructed: bool = False            # what is written to an object stays written when it is freed


class Held(NamedTuple):
    """An object that was handed out at least once. ``own``: the allocator keeps its own data in it."""

    asked: int
    given: int
    live: bool
    own: bool
    allocated: Cause | None              # None for what was there before the shadow
    freed: Cause | None = None


class TableState(NamedTuple):
    """All of an :class:`ObjectTable`, as values."""

    frames: dict[int, Span]
    objects: dict[int, Held]
    kept: dict[int, npt.NDArray[np.uint8]]
    pages: dict[int, Cause]
    touched: npt.NDArray[np.intp]
    rows: npt.NDArray[np.uint8]


class ObjectTable:
    """The states of all bytes of RAM, and the objects behind them.

    ``frames`` finds a span by frame number, also one that is gone, until its frame is given out again; ``objects``
    finds an object by its first byte; ``pages`` knows who gave back a frame that is free now.
    """

    def __init__(self, size: int) -> None:
        self.shadow: npt.NDArray[np.uint8] = np.zeros(size, np.uint8)
        self._view = self.shadow.data
        self.frames: dict[int, Span] = {}
        self.objects: dict[int, Held] = {}
        self.kept: dict[int, npt.NDArray[np.uint8]] = {}
        self.pages: dict[int, Cause] = {}
        self.touched: set[int] = set()

    def clear(self) -> None:
        """Forget everything."""
        self.shadow[:] = PLAIN
        for known in (self.frames, self.objects, self.kept, self.pages, self.touched):
            known.clear()

    # -- finding ----------------------------------------------------------------------------------------------
    def span(self, address: int) -> Span | None:
        """The slab or large allocation whose memory ``address`` is, or was when it was last given back."""
        return self.frames.get(address >> PAGE_SHIFT)

    def is_gone(self, address: int) -> bool:
        """Whether the page of ``address`` was given back, and not given out since."""
        return address >> PAGE_SHIFT in self.pages

    def wrong_free(self, start: int, cache: int | None) -> ShadowKind | None:
        """What is wrong with freeing ``start``, into ``cache`` where one is named."""
        held = self.objects.get(start)
        if held is None:
            return ShadowKind.INVALID_FREE
        if not held.live:
            return ShadowKind.DOUBLE_FREE
        if held.own:
            return ShadowKind.INVALID_FREE
        if cache is not None and self.frames[start >> PAGE_SHIFT].cache != cache:
            return ShadowKind.WRONG_CACHE
        return None

    # -- pages and slabs --------------------------------------------------------------------------------------
    def pages_given(self, start: int, size: int, written: bool) -> None:
        """The page allocator has handed out pages."""
        for frame in range(start >> PAGE_SHIFT, (start + size) >> PAGE_SHIFT):
            span = self.frames.pop(frame, None)
            if span is not None:
                self._forget(span, frame << PAGE_SHIFT)
            self.pages.pop(frame, None)
            self.touched.add(frame)
        self.shadow[start : start + size] = PLAIN if written else _UNWRITTEN

    def pages_taken(self, start: int, size: int, cause: Cause) -> None:
        """Pages go back to the page allocator: from now on nobody has them."""
        for frame in range(start >> PAGE_SHIFT, (start + size) >> PAGE_SHIFT):
            self.pages[frame] = cause
        span = self.frames.get(start >> PAGE_SHIFT)
        if span is not None:
            self.kept.pop(span.start, None)
        self.shadow[start : start + size] = _FREE

    def add(self, span: Span) -> None:
        """A slab was made, or a large allocation; no object of it is out."""
        for frame in range(span.start >> PAGE_SHIFT, (span.start + span.size) >> PAGE_SHIFT):
            self.frames[frame] = span
            self.pages.pop(frame, None)
            self.touched.add(frame)
        states = self.shadow[span.start : span.start + span.size]
        if span.constructed:
            self.kept[span.start] = states.copy()
        states[:] = _OUTSIDE
        first = span.first - span.start
        for at in range(first, first + span.step * span.objects, span.step):
            states[at : at + span.given] = _FREE

    def _forget(self, span: Span, frame: int) -> None:
        """One frame of a span that is gone is somebody else's now; its other frames may have been for long."""
        before = max(frame - span.first + span.step - 1, 0) // span.step      # objects that begin before the frame
        for index in range(before, span.objects):
            start = span.first + index * span.step
            if start >= frame + PAGE_SIZE:
                break
            self.objects.pop(start, None)

    # -- objects ----------------------------------------------------------------------------------------------
    def handed_out(self, start: int, asked: int, written: bool, own: bool, cause: Cause | None) -> None:
        """The object at ``start`` belongs to a caller, who asked for its first ``asked`` bytes."""
        span = self.frames[start >> PAGE_SHIFT]
        given = span.given
        if own:
            self.shadow[start : start + given] = _METADATA
        elif span.constructed:
            at = start - span.start
            self.shadow[start : start + given] = self.kept[span.start][at : at + given]
        else:
            self._fill(start, asked, PLAIN if written else _UNWRITTEN)
            if asked < given:
                self._fill(start + asked, given - asked, _PADDING)
        self.objects[start] = Held(asked, given, True, own, cause)

    def given_back(self, start: int, cause: Cause) -> None:
        """The object at ``start`` is free; nothing happens when nobody holds it."""
        held = self.objects.get(start)
        if held is None or not held[2]:
            return
        asked, given, _, own, allocated, _ = held
        span = self.frames[start >> PAGE_SHIFT]
        if span.constructed:
            at = start - span.start
            self.kept[span.start][at : at + given] = self.shadow[start : start + given]
        self._fill(start, given, _FREE)
        self.objects[start] = Held(asked, given, False, own, allocated, cause)

    def _fill(self, start: int, size: int, state: int) -> None:
        """One state for some bytes; a copy out of a row of them is quicker than numpy where they are few."""
        if size <= ROW:
            self._view[start : start + size] = _ROWS[state][:size]
        else:
            self.shadow[start : start + size] = state

    def resized(self, start: int, asked: int, written: bool, cause: Cause | None) -> None:
        """The caller of the object at ``start`` has ``asked`` bytes from now on; those new to it are as ``written``
        says."""
        held = self.objects[start]
        if asked > held.asked:
            self.shadow[start + held.asked : start + asked] = PLAIN if written else _UNWRITTEN
        self.shadow[start + asked : start + held.given] = _PADDING
        self.objects[start] = held._replace(asked=asked, allocated=cause or held.allocated)

    # -- as a value -------------------------------------------------------------------------------------------
    def state(self) -> TableState:
        """All of it; frames that were never given out need not be told."""
        touched = np.fromiter(sorted(self.touched), np.intp, len(self.touched))
        return TableState(dict(self.frames), dict(self.objects),
                          {start: states.copy() for start, states in self.kept.items()}, dict(self.pages), touched,
                          self.shadow.reshape(-1, PAGE_SIZE)[touched])

    def load(self, state: TableState) -> None:
        """Become what :meth:`state` said."""
        rows = self.shadow.reshape(-1, PAGE_SIZE)
        later = self.touched.difference(state.touched.tolist())
        rows[sorted(later)] = _FREE
        rows[state.touched] = state.rows
        self.frames, self.objects = dict(state.frames), dict(state.objects)
        self.kept = {start: states.copy() for start, states in state.kept.items()}
        self.pages, self.touched = dict(state.pages), set(state.touched.tolist())
