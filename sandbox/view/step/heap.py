"""The heap as rows of cells, one for each object, and the object under a cursor in words.

::

    kmalloc-64  64 bytes  1 in use, 28 in magazines, 35 free
     ffff88800025e000 #ooooooooooooooooooooooooooooo..................................
    object 0 of kmalloc-64's slab at 0xffff88800025e000, allocated
    40 of 64 bytes @108,904 by main, line 15

``#`` is in use, ``o`` in a magazine, ``.`` free, ``?`` what a corrupt slab does not tell. The caches that the program
has touched come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...errors import GuestMemoryError, HeapCorruption, SandboxError
from ...heap.caches import KmemCache
from ...heap.slabs import HeapObject, LargeAllocation, Slab
from ..live import where
from ..slabs import CELLS, LEGEND
from .rows import NARROW, Row, block, short_address, window, wrapped
from .scene import Scene

UNKNOWN = "?"
WORDS = 3
"""Rows for the object under the cursor."""
WHOLE_ADDRESS, SHORT_ADDRESS = 18, 12
_STYLES = {"#": "used", "o": "cached", ".": "free", UNKNOWN: "unknown"}
_ROWS_OF_CELLS = (64, 48, 32, 16, 8)
_INTERNAL = ("kmem_cache", "magazine")


@dataclass(frozen=True)
class CellRow:
    """Objects ``first`` up to ``end`` of a slab, on one row."""

    slab: Slab
    first: int
    end: int

    def index_of(self, address: int) -> int | None:
        """Which of them begins at ``address``."""
        index = self.slab.index_of(address)
        return index if index is not None and self.first <= index < self.end else None


Line = Row | CellRow


class HeapMap:
    """The heap at one moment, ``width`` cells wide: rows in order, and a way over its cells."""

    def __init__(self, scene: Scene, width: int) -> None:
        self._scene = scene
        self.width = width
        self.short = width < NARROW
        self.margin = SHORT_ADDRESS if self.short else WHOLE_ADDRESS
        self._cells = next((count for count in _ROWS_OF_CELLS if count + self.margin <= width), _ROWS_OF_CELLS[-1])
        self._known: dict[int, str] = {}

    @cached_property
    def lines(self) -> list[Line]:
        """Every row: a heading for each cache that has slabs, then its cells."""
        try:
            caches = self._scene.kernel.heap.caches
        except SandboxError as error:
            return [_sentence(error)]
        if not caches:
            return [Row.of(("there is no heap yet: slab_init has not run", "dim"))]
        touched = self._scene.run.caches
        order = {name: number for number, name in enumerate(touched)}
        ordered = sorted(caches, key=lambda cache: order.get(cache.name, len(order)))
        rows = {internal: [line for cache in ordered if (cache.name in _INTERNAL) is internal
                           for line in self._cache(cache)] for internal in (False, True)}
        return [*rows[False], *self._large(), *rows[True]]

    def _large(self) -> list[Row]:
        """Allocations that no cache has: whole pages, a row for each."""
        try:
            found = [(at.address, at.requested, at.size) for at in self._scene.kernel.heap.large_allocations]
        except SandboxError as error:
            return [_sentence(error)]
        rows = [Row.of((f" {self.address(at)} ", "address"), ("#", "used"), f" {asked:,} of {size:,} bytes")
                for at, asked, size in found]
        return [Row.of(("large allocations", "label")), *rows] if rows else []

    def address(self, address: int) -> str:
        """An address as there is room for it."""
        return short_address(address) if self.short else f"{address:016x}"

    def _cache(self, cache: KmemCache) -> list[Line]:
        try:
            slabs = cache.slabs
        except HeapCorruption as error:
            return [Row.of((cache.name, "label")), _sentence(error)]
        if not slabs:
            return []
        found: list[Line] = [_heading(cache, self.short)]
        for slab in slabs:
            count = slab.count
            found += [CellRow(slab, at, min(at + self._cells, count)) for at in range(0, count, self._cells)]
        return found

    @cached_property
    def objects(self) -> list[CellRow]:
        """The rows that have cells."""
        return [line for line in self.lines if isinstance(line, CellRow)]

    def cells(self, slab: Slab) -> str:
        """A character for each object of a slab."""
        if slab.address not in self._known:
            try:
                self._known[slab.address] = "".join(CELLS[state] for state in slab.states())
            except (HeapCorruption, GuestMemoryError):
                self._known[slab.address] = UNKNOWN * slab.count
        return self._known[slab.address]

    # -- the cursor -------------------------------------------------------------------------------------------
    def line_of(self, address: int | None) -> int | None:
        """The row on which the object at ``address`` is."""
        if address is None:
            return None
        return next((number for number, line in enumerate(self.lines)
                     if isinstance(line, CellRow) and line.index_of(address) is not None), None)

    def moved(self, address: int | None, columns: int, rows: int) -> int | None:
        """The object that lies so far from the one at ``address``; the first of all where none is chosen."""
        cells = self.objects
        if not cells:
            return None
        at = next((number for number, row in enumerate(cells)
                   if address is not None and row.index_of(address) is not None), None)
        if at is None or address is None:
            return cells[0].slab.object_address(cells[0].first)
        column = (cells[at].index_of(address) or 0) - cells[at].first + columns
        while column < 0 and at > 0:
            at -= 1
            column += cells[at].end - cells[at].first
        while column >= cells[at].end - cells[at].first and columns and at + 1 < len(cells):
            column -= cells[at].end - cells[at].first
            at += 1
        row = cells[min(max(at + rows, 0), len(cells) - 1)]
        index = row.first + min(max(column, 0), row.end - row.first - 1)
        return row.slab.object_address(index)


def _heading(cache: KmemCache, short: bool) -> Row:
    try:
        counts = f"{cache.inuse}#  {cache.cached}o  {cache.free}." if short else \
            f"{cache.inuse} in use, {cache.cached} in magazines, {cache.free} free"
    except HeapCorruption as error:
        return Row.of((cache.name, "label"), "  ", (f"corrupt: {error}", "bad"))
    return Row.of((cache.name, "label"), (f"  {cache.object_size:,} bytes  ", "count"), counts)


def _sentence(error: SandboxError) -> Row:
    return Row.of((f"corrupt: {error}", "bad"))


def title(scene: Scene) -> str:
    """What the cells mean."""
    return LEGEND


def rows(scene: Scene, width: int, height: int, cursor: int | None = None, words: int = WORDS) -> list[Row]:
    """The pane; ``cursor`` is the address of the chosen object, None for the one that the last event was about."""
    heap = HeapMap(scene, width)
    chosen = cursor if cursor is not None else latest(scene)
    words = min(words, max(height - 2, 0))
    at = heap.line_of(chosen)
    shown = window(len(heap.lines), height - words, at if at is not None else 0)
    cells = [_shown(heap, heap.lines[number], chosen) for number in shown]
    told = _words(scene, chosen, bool(heap.objects), width, words)
    return block(cells, width, height - words) + block(told, width, words)


def latest(scene: Scene) -> int | None:
    """The object that was given or taken away last; None before there is any."""
    change = scene.run.last_change(scene.moment.instruction)
    return None if change is None else change.address


def _shown(heap: HeapMap, line: Line, cursor: int | None) -> Row:
    if isinstance(line, Row):
        return line
    text = heap.cells(line.slab)[line.first : line.end]
    chosen = None if cursor is None else line.index_of(cursor)
    head = f" {heap.address(line.slab.address)} " if line.first == 0 else " " * heap.margin
    pieces: list[tuple[str, str]] = [(head, "address")]
    for index, cell in enumerate(text, line.first):
        style = "cursor" if index == chosen else _STYLES[cell]
        if pieces[-1][1] == style:
            pieces[-1] = (pieces[-1][0] + cell, style)
        else:
            pieces.append((cell, style))
    return Row.of(*pieces)


# -- the object under the cursor ------------------------------------------------------------------------------------
def _words(scene: Scene, address: int | None, any_object: bool, width: int, height: int) -> list[Row]:
    if address is None:
        return wrapped("no object is chosen: the arrows choose one", width, height) if any_object else []
    found = [_told(scene, address, width < NARROW), *_story(scene, address)]
    return [row for line in found for row in wrapped(line, width, 2, " ")][:height]


def _told(scene: Scene, address: int, short: bool) -> str:
    """An object in a sentence: which it is, in which state."""
    try:
        found = scene.kernel.heap.find(address)
        if isinstance(found, HeapObject) and short:
            return f"{short_address(address)}: {found.cache.name}[{found.index}], {found.state}"
        if isinstance(found, HeapObject):
            return f"0x{address:x}: object {found.index} of {found.cache.name}, {found.state}"
        if isinstance(found, LargeAllocation):
            return f"0x{address:x}: {found}"
    except SandboxError as error:
        return f"0x{address:x}: {error}"
    return str(scene.kernel.whatis(address))


def _story(scene: Scene, address: int) -> list[str]:
    """The last allocation of an object and what became of it, by the trace until now."""
    owned = scene.run.owned(address, scene.moment.instruction)
    if owned is None or owned.taken is None:
        return ["no allocation of it is known until now"]
    taken, freed = owned.taken, owned.freed
    times = f"; life {owned.lives:,}" if owned.lives > 1 else ""
    found = [f"{taken.bytes_req:,} of {taken.bytes_alloc:,} bytes @{taken.entered:,} by "
             f"{where(taken, scene.run.program)}{times}"]
    if freed is not None:
        found.append(f"freed @{freed.entered:,} by {where(freed, scene.run.program)}")
    return found
