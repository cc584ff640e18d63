"""Breakpoints and watchpoints by number: where a run is to stop, in either direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UsageError
from .search import Watch


@dataclass(frozen=True)
class Breakpoint:
    """One of them: ``addresses`` of code, or a ``watch`` on memory; ``text`` is how it was asked for."""

    number: int
    text: str
    addresses: tuple[int, ...] = ()
    watch: Watch | None = None

    @property
    def kind(self) -> str:
        """``breakpoint``, or ``watch``, ``rwatch`` and ``awatch`` as gdb has them."""
        if self.watch is None:
            return "breakpoint"
        return "awatch" if self.watch.read and self.watch.write else "rwatch" if self.watch.read else "watch"


class Breakpoints:
    """The breakpoints of a session, numbered from 1; a number is not used again."""

    def __init__(self) -> None:
        self._known: dict[int, Breakpoint] = {}
        self._next = 1

    def __iter__(self) -> Iterator[Breakpoint]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    @property
    def addresses(self) -> frozenset[int]:
        """Every address of code that has one."""
        return frozenset(address for known in self for address in known.addresses)

    @property
    def watches(self) -> tuple[Watch, ...]:
        """Every watch."""
        return tuple(known.watch for known in self if known.watch is not None)

    def add(self, text: str, addresses: tuple[int, ...] = (), watch: Watch | None = None) -> Breakpoint:
        """One more."""
        added = self._known[self._next] = Breakpoint(self._next, text, addresses, watch)
        self._next += 1
        return added

    def delete(self, number: int) -> Breakpoint:
        """Take one away; :class:`UsageError` when there is none of that number."""
        if number not in self._known:
            known = f"there are {', '.join(map(str, self._known))}" if self._known else "there is none"
            raise UsageError(f"no breakpoint has the number {number}; {known}")
        return self._known.pop(number)

    def clear(self) -> int:
        """Take all away; returns how many."""
        count = len(self._known)
        self._known.clear()
        return count

    def at(self, address: int) -> tuple[Breakpoint, ...]:
        """Those on an address of code."""
        return tuple(known for known in self if address in known.addresses)

    def of(self, watch: Watch) -> tuple[Breakpoint, ...]:
        """Those of a watch."""
        return tuple(known for known in self if known.watch == watch)
