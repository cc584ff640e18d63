"""Going: the moments of a run, and how to get from one to another.

A past moment is a snapshot before it, and the instructions between executed once more (:mod:`sandbox.guest.replay`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..errors import GuestError, PositionError, UsageError
from ..guest.journal import Journal
from ..guest.memory import VirtualMemory
from ..guest.registers import Registers
from ..guest.symbols import Symbols
from ..guest.travel import Kept
from ..heap.views import Heap
from ..trace.events import Event
from .moment import Moment, moment
from .moments import Moments
from .record import Recorded

MEMORY_BUDGET = 256 << 20
"""Bytes that the snapshots of a timeline may take, unless it is told otherwise."""


RAM_PER_INSTRUCTION = 128
"""Bytes of RAM for which there is to be one instruction between two snapshots: 2 million of them in 256 MiB."""


class Debuggee(Recorded, Protocol):
    """What a timeline needs of a guest whose heap can be read; ``sandbox.Kernel`` is one."""

    symbols: Symbols
    memory: VirtualMemory
    registers: Registers
    heap: Heap

    @property
    def journal(self) -> Journal:
        """Everything that came from outside since boot."""
        ...

    @property
    def failure(self) -> GuestError | None:
        """The error of the last call or run."""
        ...

    def close(self) -> None:
        """Give the emulator back."""


G = TypeVar("G", bound=Debuggee)


@dataclass
class Errand:
    """Running the guest for an answer: where it began, where to be afterwards, and whether the machine ``stands`` at
    the moment of its clock, or anywhere."""

    position: int
    goal: int
    stands: bool = False


class Journey(Generic[G]):
    """Where one guest stands on its run, which begins at ``origin``; :class:`~sandbox.debugger.timeline.Timeline` is
    what asks questions on the way.

    ``kernel`` is the guest, at the present moment. What is done to it at the end goes on with the run; what is done to
    it in the past is a diversion, which the next move leaves behind.
    """

    def __init__(self, kernel: G, origin: Kept, budget: int) -> None:
        self.kernel = kernel
        self._travel = kernel.travel
        self._moments = Moments(origin, budget)
        self._version = kernel.journal.version
        self._at = kernel.machine.instructions
        if self._travel.away:                            # somebody left it at a moment of the past
            self._travel.history.diverted = True
        itself = weakref.ref(self)                       # the machine must not keep its timeline alive
        self._travel.traveller = itself

        def passed() -> None:
            timeline = itself()
            if timeline is not None:
                timeline._keep()

        def come_back() -> None:
            timeline = itself()
            if timeline is not None:
                timeline._move(timeline._at)

        kernel.machine.at_period = passed
        kernel.travel.history.come_back = come_back

    def _keep(self) -> None:
        """The clock is at one of the counts at which a snapshot changes nothing. In a large RAM it takes as long as
        many instructions, and waits for these."""
        self._synchronize()
        clock = self.kernel.machine.instructions
        if clock - self._moments.before(clock).instruction < len(self.kernel.machine.memory) // RAM_PER_INSTRUCTION:
            return
        self._moments.add(self._travel.keep_here() if self._travel.away else self._travel.keep())

    def keep(self, kept: Kept) -> None:
        """A snapshot of this run that somebody has: moves can begin there."""
        self._moments.add(kept)

    # -- where ------------------------------------------------------------------------------------------------
    @property
    def start(self) -> int:
        """The first moment: 0, when the machine was switched on, or, under a shadow, when that began."""
        return self._moments.first.instruction

    @property
    def length(self) -> int:
        """The last moment: everything that was done is done then."""
        return self._travel.history.end

    @property
    def position(self) -> int:
        """The present moment."""
        return self._at if self._travel.away else self.length

    @property
    def diverted(self) -> bool:
        """Whether the guest was changed at this past moment: the next move leaves that behind."""
        return self._travel.history.diverted

    @property
    def moment(self) -> Moment:
        """The present moment in words."""
        return moment(self.kernel.symbols, self.position, self.kernel.registers["rip"])

    def _here(self) -> Moment:
        """The moment at which the machine stands, which on an errand is not the present one."""
        return moment(self.kernel.symbols, self.kernel.machine.instructions, self.kernel.registers["rip"])

    @property
    def snapshots(self) -> tuple[int, ...]:
        """The instruction counts of the snapshots that moves begin at; they take :attr:`memory` bytes."""
        return tuple(kept.instruction for kept in self._moments)

    @property
    def memory(self) -> int:
        """The bytes that the snapshots take, those of the first not counted."""
        return self._moments.bytes

    # -- going ------------------------------------------------------------------------------------------------
    def goto(self, instruction: int) -> Moment:
        """Go to a moment. :class:`~sandbox.errors.PositionError` for one outside ``start`` to ``length``."""
        self._synchronize()
        if not isinstance(instruction, int) or isinstance(instruction, bool):
            raise UsageError(f"a moment is an instruction count, not {instruction!r}")
        self._require(int(instruction))
        self._move(int(instruction))
        return self.moment

    def _require(self, instruction: int) -> None:
        if not self.start <= instruction <= self.length:
            raise PositionError(instruction, self.start, self.length)

    def settle(self) -> None:
        """Stand at the present moment to the last byte. After a shadow's error the machine may not: the call that was
        undone has left its return address below the stack."""
        self._travel.history.diverted = True
        self._move(self.position)

    def step(self, count: int = 1) -> Moment:
        """``count`` instructions on; each turn of a ``rep`` is one, and so is the last look at its counter."""
        return self.goto(self.position + _count(count))

    def back(self, count: int = 1) -> Moment:
        """``count`` instructions back."""
        return self.goto(self.position - _count(count))

    def at(self, event: Event) -> Moment:
        """Where an event begins: its function's first instruction is next."""
        if not isinstance(event, Event):
            raise UsageError(f"an event is one of a trace, not {event!r}")
        return self.goto(event.entered)

    def _move(self, instruction: int) -> None:
        """Go to a moment of the run."""
        travel = self._travel
        stands = None if travel.history.diverted else self._at if travel.away else self.length
        if stands == instruction:
            return
        self._moments.focus = instruction
        start: Kept | None = self._moments.before(instruction)
        if travel.away and stands is not None and start is not None and start.instruction <= stands < instruction:
            start = None                                 # from here it is nearer
        travel.go(start, instruction)
        self._at = instruction

    def _walk(self, instruction: int) -> None:
        """Go on to a later moment, through every one in between."""
        self._travel.go(None, instruction)
        self._at = instruction

    def _synchronize(self) -> None:
        """Forget what was learned of a past that is none any more: the guest was rewound, or restored."""
        if self._version != self.kernel.journal.version:
            self._version = self.kernel.journal.version
            self._moments.clear()
            self.forget()

    def forget(self) -> None:
        """The run is another one: nothing that was learned of it holds."""

    @contextmanager
    def _errand(self) -> Iterator[Errand]:
        """Whatever is run meanwhile, the present moment is afterwards the errand's ``goal``, which is the one that it
        began at unless it says otherwise."""
        self._synchronize()
        errand = Errand(self.position, self.position)
        if self.diverted:
            self._move(errand.position)
        try:
            yield errand
        except BaseException:
            errand.goal, errand.stands = errand.position, False
            raise
        finally:
            if errand.stands:
                self._at = self.kernel.machine.instructions
            else:
                self._travel.history.diverted = True
            self._move(errand.goal)


def _count(count: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool):
        raise UsageError(f"a number of instructions is an int, not {count!r}")
    return count
