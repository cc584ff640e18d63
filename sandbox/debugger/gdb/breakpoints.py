"""What gdb asked to stop at. Nothing is written into guest memory: a breakpoint is an address that time stops at.

The kinds are those of the ``Z`` packet (GDB manual, appendix E.2): 0 software and 1 hardware breakpoints, 2 write,
3 read and 4 access watchpoints.
"""

from __future__ import annotations

from ..search import Watch

SOFTWARE, HARDWARE, WRITE, READ, ACCESS = range(5)
_REASONS = {SOFTWARE: "swbreak", HARDWARE: "hwbreak", WRITE: "watch", READ: "rwatch", ACCESS: "awatch"}
MOST = 4096
"""So many may be set."""
LARGEST = 1 << 20
"""Bytes that one watchpoint may cover."""


class Breakpoints:
    """The breakpoints and watchpoints of one connection."""

    def __init__(self) -> None:
        self._places: set[tuple[int, int]] = set()       # (kind, address)
        self._watched: dict[tuple[int, int, int], Watch] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._places.clear()
        self._watched.clear()

    def insert(self, kind: int, address: int, size: int) -> bool:
        """Add one; a second time it is the same one. False for what cannot be: too large, or too many."""
        if len(self._places) + len(self._watched) >= MOST:
            return False
        if kind in (SOFTWARE, HARDWARE):
            self._places.add((kind, address))
        elif 0 < size <= min(LARGEST, (1 << 64) - address):
            self._watched[kind, address, size] = Watch(address, size, read=kind != WRITE, write=kind != READ)
        else:
            return False
        return True

    def remove(self, kind: int, address: int, size: int) -> None:
        """Take one away, if it is there."""
        self._places.discard((kind, address))
        self._watched.pop((kind, address, size), None)

    @property
    def addresses(self) -> frozenset[int]:
        """Where execution stops."""
        return frozenset(address for _, address in self._places)

    @property
    def watches(self) -> tuple[Watch, ...]:
        """The watchpoints."""
        return tuple(self._watched.values())

    def has(self, watch: Watch) -> bool:
        """Whether it is one of the watchpoints."""
        return watch in self._watched.values()

    def at(self, address: int) -> str:
        """Why execution stops at an address, as a stop reply names it: ``swbreak`` or ``hwbreak``, or nothing."""
        for kind in (SOFTWARE, HARDWARE):
            if (kind, address) in self._places:
                return _REASONS[kind]
        return ""

    def accessed(self, watch: Watch) -> str:
        """Why an access to what is watched stops: ``watch``, ``rwatch`` or ``awatch``."""
        return next(_REASONS[kind] for (kind, _, _), known in self._watched.items() if known == watch)
