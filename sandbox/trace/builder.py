"""From raw records to events: names, lines, sizes and the tree."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from ..guest.symbols import Symbols
from .capture import is_failure
from .events import Event
from .functions import Kind, Traced
from .ram import NOTHING, Thing
from .recorder import Entry, Exit, Recorder

PYTHON = "Python"
"""The call site of a function that was called from outside the guest."""


class Names:
    """Return addresses in words; each is looked up once, because the text of a guest does not move."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._outside = symbols.get("call_return", -1)
        self.call_site: Callable[[int], tuple[str, str]] = lru_cache(maxsize=65536)(self._call_site)
        self.stack: Callable[[tuple[int, ...]], tuple[str, ...]] = lru_cache(maxsize=65536)(self._stack)

    @staticmethod
    def cache(name: bytes | None) -> str | None:
        """``char name[]`` as text."""
        return None if name is None else name.split(b"\0", 1)[0].decode("latin-1")

    def _call_site(self, address: int) -> tuple[str, str]:
        """``function+0x12`` for a return address, and ``file:line`` of the call before it."""
        if address == self._outside:
            return PYTHON, ""
        at = self._symbols.locate(address - 1)
        if not at.symbol:
            return f"0x{address:016x}", ""
        return f"{at.symbol}+{at.offset + 1:#x}", str(at.source or "")

    def _stack(self, addresses: tuple[int, ...]) -> tuple[str, ...]:
        """Callers, innermost first, as far as they are code."""
        found = []
        for depth, address in enumerate(addresses):
            if depth and address != self._outside and not self._symbols.in_text(address - 1):
                break
            site, line = self.call_site(address)
            found.append(f"{site} ({line})" if line else site)
            if address == self._outside:
                break
        return tuple(found)


class _Part(NamedTuple):
    """What tells the events of one call apart: one for each object."""

    address: int
    asked: int
    given: int
    cache: bytes | None
    slab: int
    failed: bool
    old: int = 0


def build(names: Names, recorder: Recorder, first: int, end: int, sequence: int, clock: int) -> list[Event]:
    """The events of the recorder's records ``first`` up to ``end``, numbered from ``sequence`` on, in order.

    The records must be whole trees. A record without an exit is a frame that is still open; it gets ``clock``.
    """
    entries, exits, functions = recorder.entries, recorder.exits, recorder.functions
    numbers: list[int] = []
    parts: list[tuple[_Part, ...]] = []
    below: dict[int, list[Event]] = {}
    for record in range(first, end):
        parts.append(_parts(functions[entries[record][0]], entries[record], exits[record]))
        numbers.append(sequence)
        sequence += len(parts[-1])
    built: list[Event] = []
    for record in range(end - 1, first - 1, -1):
        address, entered, above, cpu, stack, _, _, _ = entries[record]
        function = functions[address]
        left = exits[record]
        site, line = names.call_site(stack[0]) if stack else ("", "")
        own = [Event(
            sequence=numbers[record - first] + index, entered=entered,
            instruction=left[0] if left is not None else max(clock, entered),
            kind=function.kind.value, function=function.name, address=part.address, bytes_req=part.asked,
            bytes_alloc=part.given, cache=names.cache(part.cache), slab=part.slab or None, call_site=site, line=line,
            stack=names.stack(stack), cpu=cpu, failed=part.failed,
            unfinished=left is None or left[1] is None,
            parent=numbers[above - first] if above >= first else None,
            old=part.old, foreign=function.foreign,
            children=tuple(reversed(below.pop(record, ()))) if index == 0 else ())
            for index, part in enumerate(parts[record - first])]
        if above >= first:
            below.setdefault(above, []).extend(reversed(own))
        built.extend(reversed(own))
    built.reverse()
    return built


def _parts(function: Traced, entry: Entry, left: Exit | None) -> tuple[_Part, ...]:
    """The objects of one call; exactly one part for all but bulk calls."""
    _, _, _, _, _, arguments, before, _ = entry
    if function.array is not None:
        return _bulk(function, entry, left)
    if function.foreign:
        return (_foreign(function, entry, left),)
    result = None if left is None else left[1]
    after: Thing = NOTHING if left is None else left[2]
    name, given, asked, slab = before
    kind = function.kind
    failed = result is not None and is_failure(result)
    address = 0 if failed or result is None else result
    if kind is Kind.FREE or kind is Kind.PAGE_FREE:
        return (_Part(arguments[function.object or 0], asked, given, name, slab, False),)
    if kind is Kind.ALLOC or kind is Kind.REALLOC:
        wanted = asked if function.size is None else arguments[function.size]
        old = 0 if function.object is None else arguments[function.object]
        cache = after[0] if kind is Kind.REALLOC or after is not NOTHING else name
        return (_Part(address, wanted, after[1], cache, after[3], failed and (kind is Kind.ALLOC or wanted > 0), old),)
    if kind is Kind.CACHE_CREATE:
        return (_Part(address, asked, after[1], after[0] or name, 0, failed),)
    if kind is Kind.CACHE_DESTROY:
        return (_Part(arguments[0], asked, given, name, 0, _is_errno(result)),)
    if kind is Kind.SLAB_CREATE:
        return (_Part(after[3], asked, given if after[3] else 0, name, after[3], failed),)
    if kind is Kind.SLAB_DESTROY:
        return (_Part(slab, asked, given, name, slab, False),)
    return (_Part(address, asked, given if address else 0, None, 0, failed),)


def _foreign(function: Traced, entry: Entry, left: Exit | None) -> _Part:
    """The chunk of one call of somebody else's allocator: its arguments and its result say all that is known."""
    arguments = entry[5]
    wanted = function.asked(arguments) or 0
    old = 0 if function.object is None else arguments[function.object]
    result = None if left is None else left[1]
    if function.kind is Kind.FREE:
        return _Part(old, 0, 0, None, 0, bool(old) and result in function.refused)
    if function.out is not None and left is not None and left[3]:
        result = left[3][0][0]
    failed = result is not None and is_failure(result)
    address = 0 if failed or result is None else result
    freed = function.kind is Kind.REALLOC and old and not wanted
    return _Part(address, wanted, wanted if address else 0, None, 0, failed and not freed, old)


def _bulk(function: Traced, entry: Entry, left: Exit | None) -> tuple[_Part, ...]:
    """One part for each object; one alone for a call that failed, or whose array could not be read."""
    _, _, _, _, _, arguments, before, given_back = entry
    objects = given_back if function.kind is Kind.FREE else left[3] if left is not None else ()
    if objects:
        return tuple(_Part(at, asked, given, name or before[0], slab, False)
                     for at, (name, given, asked, slab) in objects)
    result = None if left is None else left[1]
    failed = function.returns and result is not None and is_failure(result) and arguments[function.count or 0] > 0
    return (_Part(0, before[2], 0, before[0], 0, failed),)


def _is_errno(result: int | None) -> bool:
    """Whether an int result, of which RAX's upper half may be anything, is negative."""
    return result is not None and -4095 <= (result & 0xFFFF_FFFF) - (1 << 32) < 0
