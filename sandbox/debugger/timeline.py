"""The timeline: every moment of a run, forwards and backwards.

::

    timeline = sandbox.record("examples/14_overflow.asm")
    timeline.goto(timeline.length)                  # where it ended
    store = timeline.who_wrote(address)             # who was it?
    timeline.goto(store.instruction)                # there, about to happen
    timeline.kernel.registers["rdi"], timeline.kernel.heap, ...

A run is a function of its inputs, and time is the instruction count. So a past moment is a snapshot before it, and the
instructions between executed once more (:mod:`sandbox.guest.replay`). The moment ``t`` is the state right before start
``t + 1``. Other debuggers that go back so: rr, UndoDB, QEMU's record and replay, Simics.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from ..errors import PositionError, UsageError
from ..guest.journal import Journal
from ..guest.memory import VirtualMemory
from ..guest.outcome import RunResult
from ..guest.registers import Registers
from ..guest.symbols import Symbols
from ..guest.travel import Kept, Travel
from ..heap.views import Heap
from ..machine.machine import Machine
from ..trace.events import Event
from ..trace.shadow_instruction import Examiner
from ..trace.trace import Trace
from ..trace.tracer import Tracer
from .moment import Access, Moment, moment
from .moments import Moments
from .places import addresses
from .search import Found, Hit, Search, Watch, pieces

MEMORY_BUDGET = 256 << 20
"""Bytes that the snapshots of a timeline may take, unless it is told otherwise."""
PREDICATE_LIMIT = 1_000_000
"""Instructions that are looked at one by one for a predicate: some ten seconds."""


class Debuggee(Protocol):
    """What a timeline needs of a guest whose heap can be read; ``sandbox.Kernel`` is one."""

    machine: Machine
    symbols: Symbols
    memory: VirtualMemory
    registers: Registers
    travel: Travel
    heap: Heap

    @property
    def journal(self) -> Journal:
        """Everything that came from outside since boot."""
        ...


G = TypeVar("G", bound=Debuggee)


class Timeline(Generic[G]):
    """The moments of one guest, from ``origin`` on.

    ``kernel`` is the guest, at the present moment. What is done to it at the end goes on with the run; what is done to
    it in the past is a diversion, which the next move leaves behind.
    """

    def __init__(self, kernel: G, tracer: Tracer, origin: Kept, *, budget: int = MEMORY_BUDGET) -> None:
        self.kernel = kernel
        self.result: RunResult | None = None
        self._travel = kernel.travel
        self._tracer = tracer
        self._moments = Moments(origin, budget)
        self._version = kernel.journal.version
        self._at = 0
        self._trace: tuple[Trace, int] | None = None     # and the length of the run when it was made
        machine, registers = kernel.machine, kernel.machine.cpu
        self._search = Search(self._travel, self._moments, Examiner(
            machine.virtual, kernel.symbols, lambda: registers["gs_base"]))
        itself = weakref.ref(self)                       # the machine must not keep its timeline alive

        def passed() -> None:
            timeline = itself()
            if timeline is not None:
                timeline._keep()

        def come_back() -> None:
            timeline = itself()
            if timeline is not None:
                timeline._move(timeline._at)

        machine.at_period = passed
        kernel.travel.history.come_back = come_back

    def _keep(self) -> None:
        """The clock is at one of the counts at which a snapshot changes nothing."""
        self._moments.add(self._travel.keep_here() if self._travel.away else self._travel.keep())

    def keep(self, kept: Kept) -> None:
        """A snapshot of this run that somebody has: moves can begin there."""
        self._moments.add(kept)

    def adopt(self, trace: Trace) -> None:
        """``trace`` has recorded all of the run since the kernel was ready: it need not be made again."""
        self._trace = trace, self.length

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
        if not self.start <= instruction <= self.length:
            raise PositionError(instruction, self.start, self.length)
        self._move(int(instruction))
        return self.moment

    def step(self, count: int = 1) -> Moment:
        """``count`` instructions on; each turn of a ``rep`` is one, and so is the last look at its counter."""
        return self.goto(self.position + count)

    def back(self, count: int = 1) -> Moment:
        """``count`` instructions back."""
        return self.goto(self.position - count)

    def at(self, event: Event) -> Moment:
        """Where an event begins: its function's first instruction is next."""
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

    def _synchronize(self) -> None:
        """Forget what was learned of a past that is none any more: the guest was rewound, or restored."""
        if self._version != self.kernel.journal.version:
            self._version = self.kernel.journal.version
            self._moments.clear()
            self._trace = None

    @contextmanager
    def _staying(self) -> Iterator[int]:
        """Whatever is run meanwhile, the present moment is the present one afterwards."""
        self._synchronize()
        position = self.position
        if self.diverted:
            self._move(position)
        try:
            yield position
        finally:
            self._travel.history.diverted = True         # the machine stands anywhere
            self._move(position)

    # -- looking for moments ----------------------------------------------------------------------------------
    def search(self, forward: bool, addresses: Collection[int] = (), watches: Collection[Watch] = (),
               limit: int | None = None, here: bool = False) -> Hit | None:
        """The nearest moment at which an instruction at one of ``addresses`` is about to run, or one that accesses a
        watch; None where there is none, or none within ``limit`` instructions. The position stays.

        The present moment is not looked at; with ``here``, forwards, the accesses of its instruction are.
        """
        with self._staying() as position:
            found = self._found(forward, position, addresses, watches, limit, here)
            return None if found is None else self._hit(found)

    def _found(self, forward: bool, position: int, addresses: Collection[int], watches: Collection[Watch],
               limit: int | None, here: bool = False) -> Found | None:
        watched = pieces(watches, self.kernel.memory.translate)
        if not forward:
            found = self._search.backwards(position, addresses, watched)
            return None if found is None or (limit is not None and found.instruction < position - limit) else found
        if position == self.length:
            return None
        end = self.length if limit is None else min(position + limit, self.length)
        return self._search.forwards(end, addresses, watched, here)

    def _hit(self, found: Found) -> Hit:
        """What a hook saw, in words."""
        access = None
        if found.piece is not None:
            access = self._access(found)
        watch = None if found.piece is None else found.piece.watch
        return Hit(found.instruction, found.rip, watch, access)

    def _access(self, found: Found) -> Access:
        piece = found.piece
        assert piece is not None
        here = moment(self.kernel.symbols, found.instruction, found.rip)
        address = piece.address + found.physical - piece.physical
        return Access(here.instruction, here.rip, here.location, here.line, found.kind, address, found.physical,
                      found.size, found.value, found.by)

    def run_to(self, target: int | str | Event | Callable[[G], bool], limit: int | None = None) -> Moment | None:
        """Forwards to the next time that ``target`` is about to run: an address, ``"kmalloc"``, ``"kmalloc+0x12"``,
        ``"slab.asm:120"``, an event, or ``predicate(kernel)``, which is asked before each of the next
        ``limit`` instructions (a million, unless told otherwise). None, and the position stays, when it does not come.
        """
        return self._to(True, target, limit)

    def back_to(self, target: int | str | Event | Callable[[G], bool], limit: int | None = None) -> Moment | None:
        """Backwards to the last time before now that ``target`` was about to run; see :meth:`run_to`."""
        return self._to(False, target, limit)

    def _to(self, forward: bool, target: int | str | Event | Callable[[G], bool], limit: int | None) -> Moment | None:
        if isinstance(target, Event):
            ahead = target.entered > self.position
            return self.at(target) if ahead == forward and target.entered != self.position else None
        if callable(target):
            return self._by_predicate(forward, target, PREDICATE_LIMIT if limit is None else limit)
        hit = self.search(forward, addresses(self.kernel.symbols, target), limit=limit)
        return None if hit is None else self.goto(hit.instruction)

    def _by_predicate(self, forward: bool, predicate: Callable[[G], bool], limit: int) -> Moment | None:
        """One instruction after the other, as only the predicate knows what it wants."""
        with self._staying() as position:
            found = None
            if forward:
                moments = range(position + 1, min(position + limit, self.length) + 1)
                found = next((count for count in moments if self._holds(predicate, count)), None)
            else:
                start = max(position - limit, self.start)
                for count in range(start, position):
                    found = count if self._holds(predicate, count) else found
        return None if found is None else self.goto(found)

    def _holds(self, predicate: Callable[[G], bool], count: int) -> bool:
        self._move(count)
        return bool(predicate(self.kernel))

    def who_wrote(self, address: int, size: int = 1, before: int | None = None) -> Access | None:
        """The last store to any of ``size`` bytes before the present moment, or before the moment ``before``; None when
        there was none since ``start``. What is stored there then counts, wherever it was mapped earlier."""
        return self._who("write", address, size, before)

    def who_read(self, address: int, size: int = 1, before: int | None = None) -> Access | None:
        """The last load from any of ``size`` bytes; see :meth:`who_wrote`."""
        return self._who("read", address, size, before)

    def _who(self, kind: str, address: int, size: int, before: int | None) -> Access | None:
        if not isinstance(size, int) or size <= 0:
            raise UsageError(f"a size is a positive number of bytes, not {size!r}")
        with self._staying() as position:
            if before is not None and before != position:
                position = self.goto(before).instruction
            watch = Watch(address, size, read=kind == "read", write=kind == "write")
            found = self._search.backwards(position, (), pieces((watch,), self.kernel.memory.translate))
            return None if found is None else self._access(found)

    # -- the trace --------------------------------------------------------------------------------------------
    @property
    def trace(self) -> Trace:
        """Everything that the allocator did since the kernel was ready, wherever the position is."""
        self._synchronize()
        if self._trace is None or self._trace[1] != self.length:
            self._trace = self._traced(), self.length
        return self._trace[0]

    def _traced(self) -> Trace:
        """The run once more, with the allocator's hooks."""
        with self._staying():
            history = self._travel.history
            self._move(history.first.machine.instructions)
            trace = self._tracer.trace(replayed=True)
            try:
                self._move(self.length)
            finally:
                trace.stop()
            return trace

    def events_until(self, instruction: int) -> list[Event]:
        """The events that began before a moment, in order."""
        return [event for event in self.trace.walk() if event.entered < instruction]

    def __repr__(self) -> str:
        return f"<Timeline from {self.start:,} to {self.length:,}, at {self.position:,}>"
