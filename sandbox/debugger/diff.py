"""What differs between two moments: registers, memory by structure, and the heap.

::

    before = capture(kernel)
    kernel.call("kmalloc", 40)
    print(compare(before, capture(kernel)))

Each changed byte belongs to a named thing. A field is one change, with its value before and after; so are consecutive
words of an object or of anything else without fields. Accessed and dirty bits, which the processor sets on its own,
stand apart, and stacks are summed up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

import numpy as np
import numpy.typing as npt

from ..address import PAGE_SHIFT, PAGE_SIZE, PhysAddr
from ..machine.ram_pages import RamPages
from ..x86 import PageTableEntry
from .diff_heap import cache_changes
from .differences import NOBODY, Change, Diff, RegisterChange, StackChange
from .name import Name
from .names import Names
from .state import CONTROL, State, capture

__all__ = ["Change", "Diff", "State", "capture", "compare"]

LIMIT = 300
"""Changes that are kept with their names, unless told otherwise; the bytes of the rest are counted."""
_ACCESSED_DIRTY = PageTableEntry.A.mask | PageTableEntry.D.mask
_WORD = 8


def compare(before: State, after: State, limit: int = LIMIT) -> Diff:
    """What became different from ``before`` to ``after``, two states of one guest; at most ``limit`` changes of memory
    are told one by one."""
    old, new = Names(before), Names(after)
    memory = _Memory(before.ram, after.ram, old, new, limit)
    memory.run()
    caches, corrupt = cache_changes(before.heap, after.heap)
    return Diff(before.instruction, after.instruction, tuple(_registers(before, after, new)), tuple(memory.changes),
                tuple(memory.accessed), tuple(memory.stack_changes()), dict(memory.omitted), caches, corrupt)


def _registers(before: State, after: State, names: Names) -> Iterator[RegisterChange]:
    pairs = chain(((name, before.registers[name], value) for name, value in after.registers.items()),
                  ((name, before.control[name], after.control[name]) for name in CONTROL))
    for name, old, new in pairs:
        if old != new:
            yield RegisterChange(name, old, new, names.value(new))


class _Memory:
    """The comparison of two RAMs."""

    def __init__(self, before: RamPages, after: RamPages, old: Names, new: Names, limit: int) -> None:
        self.changes: list[Change] = []
        self.accessed: list[Change] = []
        self.omitted: Counter[int] = Counter()
        self._stacks: dict[str, tuple[int, list[int]]] = {}     # the top, and the addresses of words
        self._before, self._after = before, after
        self._old, self._new = old, new
        self._limit = limit

    def run(self) -> None:
        """Go through all pages that the two moments do not share."""
        done = 0                                                # physical: all below was dealt with
        for frame, (left, right) in enumerate(zip(self._before.pages, self._after.pages, strict=True)):
            if left is right:
                continue
            for offset in _differing(left, right).tolist():
                at = frame * PAGE_SIZE + offset
                if at >= done:
                    done = self._piece(at)

    def _piece(self, at: int) -> int:
        """Deal with what the byte at physical ``at`` belongs to; where to go on."""
        if len(self.changes) + len(self.accessed) >= self._limit:
            frame = at >> PAGE_SHIFT
            rest = _differing(self._before.pages[frame], self._after.pages[frame])
            self.omitted[frame] += int((rest >= at % PAGE_SIZE).sum())
            return (frame + 1) * PAGE_SIZE
        new, old = self._new.name(PhysAddr(at)), self._old.name(PhysAddr(at))
        mine = self._old if new.structure in NOBODY and old.structure not in NOBODY else self._new
        name = old if mine is self._old else new
        if name.structure == "stack":
            return self._stack(at, name)
        start, end = self._extent(at, name)
        if start != at:
            new, old = self._new.name(PhysAddr(start)), self._old.name(PhysAddr(start))
            name = old if mine is self._old else new
        before, after = _slice(self._before, start, end), _slice(self._after, start, end)
        was = None if new.text == old.text else old
        change = Change(name, start, before, after, was, self._words(name, was, before, after))
        (self.accessed if _only_accessed(name, before, after) else self.changes).append(change)
        return end

    def _extent(self, at: int, name: Name) -> tuple[int, int]:
        """The physical bytes of the field; in a thing without fields, the changed words in a row."""
        start, end = at - (name.address - name.at), at + name.at + name.width - name.address
        if 0 < name.width <= _WORD:
            return max(start, at & -PAGE_SIZE), min(end, (at & -PAGE_SIZE) + PAGE_SIZE)
        end = min(end, (at & -PAGE_SIZE) + PAGE_SIZE)
        first = max(at & -_WORD, start)
        stop = min((at & -_WORD) + _WORD, end)
        while stop < end:
            following = min(stop + _WORD, end)
            if _slice(self._before, stop, following) == _slice(self._after, stop, following):
                break
            stop = following
        return first, stop

    def _words(self, name: Name, was: Name | None, before: bytes, after: bytes) -> tuple[str, str]:
        """Both values in words, each as of its own moment."""
        if len(before) > _WORD or name.width > _WORD:
            return "", ""
        return (self._old.value(int.from_bytes(before, "little"), len(before), was or name),
                self._new.value(int.from_bytes(after, "little"), len(after), name))

    def _stack(self, at: int, name: Name) -> int:
        top = name.start + name.size
        self._stacks.setdefault(name.whole, (top, []))[1].append(name.at)
        return at - (name.address - name.at) + _WORD

    def stack_changes(self) -> Iterator[StackChange]:
        """Each stack of which something changed."""
        for stack, (top, words) in self._stacks.items():
            yield StackChange(stack, len(words), min(words), max(words) + _WORD, top)


def _differing(left: bytes, right: bytes) -> npt.NDArray[np.intp]:
    """The offsets at which two pages differ."""
    return np.flatnonzero(np.frombuffer(left, np.uint8) != np.frombuffer(right, np.uint8))


def _slice(ram: RamPages, start: int, end: int) -> bytes:
    """Bytes of one page."""
    base = start & -PAGE_SIZE
    return ram.pages[start >> PAGE_SHIFT][start - base : end - base]


def _only_accessed(name: Name, before: bytes, after: bytes) -> bool:
    """Whether this is a page-table entry in which only accessed and dirty bits differ."""
    if name.structure != "page-table":
        return False
    changed = int.from_bytes(before, "little") ^ int.from_bytes(after, "little")
    return not changed & ~_ACCESSED_DIRTY
