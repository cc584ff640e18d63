"""Carrying out faults on purpose, from outside: the guest has no part in it and notices nothing but the fault.

An allocation that is to fail is let in and sent back: its first instruction runs, so that traces and breakpoints see
the call, and in place of the second RAX becomes 0, RSP what it was, and RIP a ``ret`` of the same function. A bit is
flipped between two instructions. All of it belongs to the machine's state: snapshots have it, and a replay from the
journal repeats it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from ..abi import KMALLOC_MAX_CACHE, kmem_cache
from ..errors import GuestMemoryError, UsageError
from ..machine.machine import Machine
from ..toolchain.disassembler import Disassembler
from .faults import Failure, Fault, Flip
from .symbols import Symbols

PAGES = ("get_free_pages",)
CACHES = ("kmem_cache_alloc", "kmem_cache_alloc_sized", "kmem_cache_alloc_bulk", "kmalloc")
_NAME = kmem_cache.name


class Place(NamedTuple):
    """A function that can be made to fail: its name, its second instruction, and one of its ``ret``s."""

    name: str
    second: int
    ret: int


@dataclass(frozen=True)
class Armed:
    """A fault that was asked for: how many calls it has looked at, and how often it struck."""

    fault: Failure | Flip
    calls: int = 0
    struck: int = 0


class Injector:
    """The faults that wait in one machine; it is its :class:`~sandbox.machine.machine.Interventions`."""

    def __init__(self, machine: Machine, symbols: Symbols) -> None:
        self._machine = weakref.ref(machine)             # the machine has this, not the other way round
        self._symbols = symbols
        self._armed: tuple[Armed, ...] = ()
        self._waiting: tuple[tuple[int, int], ...] = ()  # (second instruction, RSP at the entry) of calls to send back
        self._visited = -1                               # the clock at the last entry that was looked at
        self._due: int | None = None
        self.addresses: frozenset[int] = frozenset()

    @property
    def armed(self) -> tuple[Armed, ...]:
        """What was asked for, in order, with what has come of it."""
        return self._armed

    # -- asking -----------------------------------------------------------------------------------------------
    def arm(self, faults: tuple[Fault, ...]) -> None:
        """Add faults; no fault at all takes all of them away."""
        machine = self._guest()
        for fault in faults:
            if isinstance(fault, Flip) and fault.instruction < machine.instructions:
                raise UsageError(f"{fault}: instruction {fault.instruction} is past, the clock is at "
                                 f"{machine.instructions}")
        new = tuple(Armed(fault) for fault in faults if isinstance(fault, (Failure, Flip)))
        self._set((*self._armed, *new) if faults else ())

    def _set(self, armed: tuple[Armed, ...]) -> None:
        self._armed = armed
        failures = [one.fault for one in armed if isinstance(one.fault, Failure)]
        names = (PAGES if any(not failure.cache for failure in failures) else ()) + (
            CACHES if any(failure.cache for failure in failures) else ())
        self.addresses = frozenset(at for entry, place in self._places.items() if place.name in names
                                   for at in (entry, place.second))
        flips = [one.fault.instruction for one in armed if isinstance(one.fault, Flip) and not one.calls]
        self._due = min(flips, default=None)
        machine = self._guest()
        machine.interventions = self if armed else None

    def _guest(self) -> Machine:
        machine = self._machine()
        if machine is None:
            raise UsageError("the machine is gone")
        return machine

    @cached_property
    def _places(self) -> dict[int, Place]:
        """The functions that can fail, by address."""
        image, disassembler = self._symbols.images[0], Disassembler()
        found = {}
        for name in (*PAGES, *CACHES):
            if name in image.functions:
                start, end = image.functions[name]
                first = next(disassembler.code(image, start, end))
                found[start] = Place(name, first.end, disassembler.rets(image, name)[0])
        return found

    # -- the machine's interventions -------------------------------------------------------------------------
    def due(self) -> int | None:
        """When the next bit flips."""
        return self._due

    def pass_time(self, clock: int) -> None:
        """Flip the bits whose time has come."""
        if self._due is None or clock < self._due:
            return
        self._set(tuple(self._flip(one, one.fault) if isinstance(one.fault, Flip) and not one.calls
                        and one.fault.instruction <= clock else one for one in self._armed))

    def _flip(self, one: Armed, flip: Flip) -> Armed:
        machine = self._guest()
        try:
            physical = flip.address if flip.physical else int(machine.paging.translate(flip.address))
            byte = machine.memory.read(physical, 1)[0] ^ 1 << flip.bit
            machine.memory.write(physical, bytes((byte,)))
        except GuestMemoryError:
            return replace(one, calls=1)                     # there is nothing to flip
        return replace(one, calls=1, struck=1)

    def reach(self, address: int, clock: int) -> bool:
        """At an entry: count, and decide. At a second instruction: send the call back, if that was decided."""
        view = self._guest().cpu.view
        place = self._places.get(address)
        if place is None:
            return self._send_back(address, view.rsp)
        if clock == self._visited:
            return False
        self._visited = clock
        cache = "" if place.name in PAGES else self._cache(place)
        if cache is not None and self._decide(place, cache):
            self._waiting = (*self._waiting, (place.second, view.rsp))
        return False

    def _decide(self, place: Place, cache: str) -> bool:
        """Count this call with every failure that means it; whether one of them strikes."""
        fails = False
        counted = []
        for one in self._armed:
            fault = one.fault
            if isinstance(fault, Failure) and (fault.matches(cache) if cache else not fault.cache):
                strikes = fault.fails(one.calls + 1)
                fails = fails or strikes
                counted.append(replace(one, calls=one.calls + 1, struck=one.struck + strikes))
            else:
                counted.append(one)
        self._armed = tuple(counted)
        return fails

    def _send_back(self, address: int, rsp: int) -> bool:
        for second, entered in self._waiting:
            if second == address and entered - 8 <= rsp <= entered:
                self._waiting = tuple(call for call in self._waiting if call != (second, entered))
                view = self._guest().cpu.view
                view.set_general("rax", 0)
                view.rsp = entered
                view.rip = next(place.ret for place in self._places.values() if place.second == address)
                return True
        return False

    def _cache(self, place: Place) -> str | None:
        """The name of the cache that a call takes from, None for one that takes from none."""
        machine = self._guest()
        first = machine.cpu.view.general("rdi")
        try:
            if place.name == "kmalloc":
                if not 1 <= first <= KMALLOC_MAX_CACHE:
                    return None
                first = machine.virtual.u64(self._symbols["kmalloc_by_size"] + (first - 1 >> 3) * 8)
            name = machine.virtual.read(first + _NAME.offset, _NAME.size)
        except GuestMemoryError:
            return None
        return name.split(b"\0", 1)[0].decode("latin-1") or None

    # -- a companion of the machine --------------------------------------------------------------------------
    def state(self) -> object:
        """For snapshots."""
        return self._armed, self._waiting, self._visited

    def load(self, state: object | None) -> None:
        """Become what :meth:`state` said."""
        armed, self._waiting, self._visited = state if isinstance(state, tuple) else ((), (), -1)
        self._set(armed)
