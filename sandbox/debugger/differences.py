"""What differs between two moments, as a record and as text in 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from ..x86 import PageTableEntry
from .diff_heap import CacheChange, CacheCounts
from .name import Name
from .wrap import wrapped

NOBODY = frozenset(("free-block", "block", "frame", "reserved", "padding", "unmapped"))
"""Kinds of names for bytes that belong to no structure."""
FOLDED = 3
"""So many changes that are like the one before them become one line."""
BYTES = 16
"""Bytes of a change that the text has."""


@dataclass(frozen=True)
class RegisterChange:
    """A register with its value before and after, and the new value in words where it has some."""

    name: str
    before: int
    after: int
    words: str = ""


@dataclass(frozen=True)
class Change:
    """Bytes that differ, from ``name.address`` on.

    ``physical`` is where they lie in RAM; ``before`` and ``after`` are the bytes of the whole field, or of the words
    that changed. ``was`` is the name that the place had before, None when it is the same; ``words`` tell both values,
    empty where they are mere bytes.
    """

    name: Name
    physical: int
    before: bytes
    after: bytes
    was: Name | None = None
    words: tuple[str, str] = ("", "")

    @property
    def address(self) -> int:
        """The virtual address of the first byte."""
        return self.name.address

    @property
    def differing(self) -> list[int]:
        """The physical addresses of the bytes that differ."""
        pairs = zip(self.before, self.after, strict=True)
        return [self.physical + index for index, (old, new) in enumerate(pairs) if old != new]


@dataclass(frozen=True)
class StackChange:
    """The words of one stack that differ: how many, and the range of them as virtual addresses."""

    stack: str
    words: int
    start: int
    end: int
    top: int


@dataclass(frozen=True)
class Diff:
    """The differences; ``str()`` tells them, false when there are none.

    ``changes`` are the changes of memory in order of physical address, with ``accessed`` those of page-table entries in
    accessed and dirty bits alone, ``stacks`` the sums of stacks, and ``omitted`` how many bytes more differ, by page of
    RAM, that are in none of these. ``caches`` are the caches of the heap that differ, and ``corrupt`` why one of the
    heaps could not be read, empty when both could.
    """

    before: int
    after: int
    registers: tuple[RegisterChange, ...]
    changes: tuple[Change, ...]
    accessed: tuple[Change, ...]
    stacks: tuple[StackChange, ...]
    omitted: Mapping[int, int]
    caches: tuple[CacheChange, ...]
    corrupt: str = ""

    def __bool__(self) -> bool:
        return bool(self.registers or self.changes or self.accessed or self.stacks or self.omitted or self.caches)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


# -- the text ----------------------------------------------------------------------------------------------------
def _lines(diff: Diff) -> Iterator[str]:
    """The text, one line after the other."""
    step = diff.after - diff.before
    yield f"from {diff.before:,} to {diff.after:,}, {abs(step):,} instruction{'' if abs(step) == 1 else 's'}" \
          f"{' back' if step < 0 else ''}"
    if not diff:
        yield "nothing differs"
    if diff.registers:
        yield "registers"
    for register in diff.registers:
        bare = f"{register.after:#x}" in register.words or register.words in ("", str(register.after))
        words = "" if bare else f", {register.words}"
        yield from _wrapped(f"{register.name} {register.before:#x} -> {register.after:#x}{words}")
    yield from _memory(diff)
    if diff.accessed:
        yield "accessed and dirty bits"
    for change, alike in _folded(diff.accessed):
        yield from _wrapped(f"{change.name.text}: {_bits(change)}")
        if alike:
            yield from _wrapped(f"and {len(alike):,} like it, up to {alike[-1].name.text}")
    yield from _heap(diff)


def _wrapped(text: str) -> Iterator[str]:
    yield from wrapped(text, "  ", "      ")


def _memory(diff: Diff) -> Iterator[str]:
    if diff.changes or diff.stacks or diff.omitted:
        yield "memory"
    for change, alike in _folded(diff.changes):
        yield from _wrapped(_change(change))
        if alike:
            yield from _wrapped(f"and {len(alike):,} like it, up to {alike[-1].name.text}")
    for stack in diff.stacks:
        words = f"{stack.words:,} word{'' if stack.words == 1 else 's'}"
        yield f"  {stack.stack}: {words}, {stack.top - stack.end:#x} to {stack.top - stack.start:#x} below the top"
    if diff.omitted:
        yield f"  and {sum(diff.omitted.values()):,} bytes more, in {len(diff.omitted):,} pages"


def _folded(changes: tuple[Change, ...]) -> Iterator[tuple[Change, list[Change]]]:
    """The changes, of those in a row whose names differ in numbers alone the first one with the others."""
    for _, group in groupby(changes, key=lambda change: re.sub(r"0x[0-9a-f]+|\d+", "#", change.name.text)):
        first, *others = group
        if len(others) >= FOLDED:
            yield first, others
        else:
            yield from ((change, []) for change in (first, *others))


def _change(change: Change) -> str:
    before = change.was
    named = before is not None and before.structure not in NOBODY and before is not change.name
    was = f" (before: {before.text})" if named and before is not None else ""
    if any(change.words):
        return f"{change.name.text}{was}: {change.words[0]} -> {change.words[1]}"
    return f"{change.name.text}{was}: {_hex(change.before)} -> {_hex(change.after)}"


def _hex(data: bytes) -> str:
    more = f" (and {len(data) - BYTES} more)" if len(data) > BYTES else ""
    return data[:BYTES].hex(" ") + more


def _bits(change: Change) -> str:
    """``A 0 -> 1, D 0 -> 1``."""
    before, after = (PageTableEntry(int.from_bytes(data, "little")) for data in (change.before, change.after))
    return ", ".join(f"{name} {old} -> {new}" for name, old, new in (("A", before.A, after.A), ("D", before.D, after.D))
                     if old != new)


def _heap(diff: Diff) -> Iterator[str]:
    if diff.caches or diff.corrupt:
        yield "heap"
    for cache in diff.caches:
        yield from _wrapped(_cache(cache))
    if diff.corrupt:
        yield from _wrapped(diff.corrupt)


def _cache(change: CacheChange) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        there = after or before
        assert there is not None
        verb = "created" if before is None else "destroyed"
        return f"{change.name}: {verb}, {there.inuse} in use, {there.cached} in magazines, {there.free} free"
    counts = [f"{label} {getattr(before, name)} -> {getattr(after, name)}"
              for name, label in (("inuse", "in use"), ("cached", "in magazines"), ("free", "free"))
              if getattr(before, name) != getattr(after, name)]
    counts += [f"slab 0x{address:x} created" for address in change.slabs_created]
    counts += [f"slab 0x{address:x} destroyed" for address in change.slabs_destroyed]
    return f"{change.name}: " + ", ".join([*counts, *_magazines(before, after)])


def _magazines(before: CacheCounts, after: CacheCounts) -> Iterator[str]:
    """The magazines whose contents are of another number."""
    for role in dict.fromkeys(role for role, _ in (*before.magazines, *after.magazines)):
        old, new = ([count for name, count in counts.magazines if name == role] for counts in (before, after))
        if old != new:
            yield f"{role} {_rounds(old)} -> {_rounds(new)}"


def _rounds(counts: list[int]) -> str:
    return " + ".join(map(str, counts)) or "none"
