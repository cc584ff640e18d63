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

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ..address import check_address
from ..errors import GuestPanic, ShadowError, UsageError
from ..guest.outcome import RunResult
from ..guest.travel import Kept
from ..trace.accesses import AccessLog
from ..trace.events import Event
from ..trace.shadow_instruction import Examiner
from ..trace.trace import Trace
from ..trace.tracer import Tracer
from .diff import Diff, compare
from .explain import Explanation, explain
from .journey import MEMORY_BUDGET, G, Journey
from .line_stepping import LineStepping
from .lives import MOST, Lives, history
from .moment import Access, Moment, moment
from .places import address_of, addresses
from .record import record_of, write
from .search import Found, Hit, Piece, Search, Watch, pieces
from .state import capture
from .stepping import Stepping

PREDICATE_LIMIT = 1_000_000
"""Instructions that are looked at one by one for a predicate: some ten seconds."""


class Timeline(Journey[G]):
    """The moments of one guest and what can be asked of them. ``result`` is what came of a program's run, ``notes`` are
    sentences about a record that was opened. In a ``with`` block it closes a kernel that it has booted itself.

    With ``accesses`` every instruction and every access is kept in :attr:`accesses`, as soon as one asks for one.
    """

    def __init__(self, kernel: G, tracer: Tracer, origin: Kept, *, budget: int = MEMORY_BUDGET,
                 accesses: bool = False) -> None:
        super().__init__(kernel, origin, budget)
        self.owns_kernel = False
        self.result: RunResult | None = None
        self.notes: tuple[str, ...] = ()
        self._tracer = tracer
        self._trace: tuple[Trace, int] | None = None     # and the length of the run when it was made
        self._log: AccessLog | None = None
        self._logged = (-1, 0)                           # the length of the run and of its journal, as they are in it
        self._logs = accesses
        machine, registers = kernel.machine, kernel.machine.cpu
        self._search = Search(self._travel, self._moments, Examiner(
            machine.virtual, kernel.symbols, lambda: registers["gs_base"]))
        self._stepping = Stepping(self._travel, self._search, kernel.symbols, machine.virtual, kernel.registers,
                                  self._move)
        self._lines = LineStepping(self._travel, self._search, kernel.symbols, machine.virtual, kernel.registers)

    def __enter__(self) -> Timeline[G]:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.owns_kernel:
            self.kernel.close()

    def forget(self) -> None:
        """The run is another one: its trace and its accesses have to be made again."""
        self._trace = self._log = None
        self._logged = (-1, 0)

    # -- stepping ---------------------------------------------------------------------------------------------
    def next(self) -> Moment:
        """The next instruction of this function: calls, interrupts and every turn of a ``rep`` are passed over."""
        return self._stepped(1, self._stepping.next)

    def finish(self) -> Moment:
        """Where this function's caller goes on, or the code that it interrupted. ``UsageError`` where there is none."""
        return self._stepped(1, self._stepping.finish)

    def reverse_next(self) -> Moment:
        """The last instruction of this function before the present one; before its first, the call of it."""
        return self._stepped(-1, self._stepping.reverse_next)

    def reverse_finish(self) -> Moment:
        """The call that entered this function, about to run. ``UsageError`` where there is none."""
        return self._stepped(-1, self._stepping.reverse_finish)

    def step_line(self) -> Moment:
        """Where the next source line begins, in this function or in one that it calls or returns to; see
        :mod:`~sandbox.debugger.line_stepping`. The C library and, outside of it, the kernel are passed over."""
        return self._stepped(1, lambda: self._lines.forwards(over=False))

    def next_line(self) -> Moment:
        """The same, with calls passed over: the next line of this function, or of a caller."""
        return self._stepped(1, lambda: self._lines.forwards(over=True))

    def reverse_step_line(self) -> Moment:
        """Where the last source line before now began, also one of a function that was called.
        ``UsageError`` where no line ran before."""
        return self._stepped(-1, lambda: self._lines.backwards(over=False))

    def reverse_next_line(self) -> Moment:
        """The same, with calls passed over: of this function; from its first line, of its caller."""
        return self._stepped(-1, lambda: self._lines.backwards(over=True))

    def _stepped(self, direction: int, find: Callable[[], int]) -> Moment:
        """Go to the moment that ``find`` finds, or stay where it finds none."""
        self._require(self.position + direction)
        with self._errand() as errand:
            errand.goal, errand.stands = find(), True
        return self.moment

    # -- looking for moments ----------------------------------------------------------------------------------
    def search(self, forward: bool, addresses: Collection[int] = (), watches: Collection[Watch] = (),
               limit: int | None = None, here: bool = False) -> Hit | None:
        """The nearest moment at which an instruction at one of ``addresses`` is about to run, or one that accesses a
        watch; None where there is none, or none within ``limit`` instructions. The position stays.

        The present moment is not looked at; with ``here``, forwards, the accesses of its instruction are.
        """
        with self._errand() as errand:
            found = self._found(forward, errand.position, addresses, watches, limit, here)
            return None if found is None else self._hit(found)

    def _found(self, forward: bool, position: int, addresses: Collection[int], watches: Collection[Watch],
               limit: int | None, here: bool = False) -> Found | None:
        watched = pieces(watches, self.kernel.memory.translate)
        if not forward:
            earliest = 0 if limit is None else position - limit
            found = self._search.backwards(position, addresses, watched, earliest=earliest)
            return None if found is None or found.instruction < earliest else found
        if position == self.length:
            return None
        end = self.length if limit is None else min(position + limit, self.length)
        return self._search.forwards(end, addresses, watched, here=here)

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
        ``"slab.asm:120"``, a function of C behind the code that makes its frame (``"*name"``: its first instruction),
        an event, or ``predicate(kernel)``, which is asked before each of the next ``limit`` instructions (a million,
        unless told otherwise). None, and the position stays, when it does not come.
        """
        return self._to(True, target, limit)

    def back_to(self, target: int | str | Event | Callable[[G], bool], limit: int | None = None) -> Moment | None:
        """Backwards to the last time before now that ``target`` was about to run; see :meth:`run_to`. A name means the
        same place in both directions: ``"*name"`` goes back to where a function of C was entered."""
        return self._to(False, target, limit)

    def _to(self, forward: bool, target: int | str | Event | Callable[[G], bool], limit: int | None) -> Moment | None:
        if limit is not None and (type(limit) is not int or limit < 0):
            raise UsageError(f"a limit is a number of instructions, not {limit!r}")
        if isinstance(target, Event):
            ahead = target.entered > self.position
            return self.at(target) if ahead == forward and target.entered != self.position else None
        if callable(target):
            return self._by_predicate(forward, target, PREDICATE_LIMIT if limit is None else limit)
        places = addresses(self.kernel.symbols, target)
        for place in places:
            check_address(place)
        with self._errand() as errand:
            found = self._found(forward, errand.position, places, (), limit)
            errand.stands = True
            if found is None:
                return None
            errand.goal = found.instruction
        return self.moment

    def _by_predicate(self, forward: bool, predicate: Callable[[G], bool], limit: int) -> Moment | None:
        """One instruction after the other, as only the predicate knows what it wants."""
        with self._errand() as errand:
            found, position = None, errand.position
            if forward:
                moments = range(position + 1, min(position + limit, self.length) + 1)
                found = next((count for count in moments if self._holds(predicate, count)), None)
            else:
                start = max(position - limit, self.start)
                for count in range(start, position):
                    found = count if self._holds(predicate, count) else found
            errand.stands = True
            if found is None:
                return None
            errand.goal = found
        return self.moment

    def _holds(self, predicate: Callable[[G], bool], count: int) -> bool:
        self._move(count)
        return bool(predicate(self.kernel))

    def who_wrote(self, address: int | str, size: int = 1, before: int | None = None) -> Access | None:
        """The last store to any of ``size`` bytes before the present moment, or before the moment ``before``; None when
        there was none since ``start``. An address may be a label, also with an offset. The bytes are those that lie
        there at that moment, wherever they were mapped earlier."""
        return self._who("write", address, size, before)

    def who_read(self, address: int | str, size: int = 1, before: int | None = None) -> Access | None:
        """The last load from any of ``size`` bytes; see :meth:`who_wrote`."""
        return self._who("read", address, size, before)

    def _who(self, kind: str, address: int | str, size: int, before: int | None) -> Access | None:
        if not isinstance(size, int) or size <= 0:
            raise UsageError(f"a size is a positive number of bytes, not {size!r}")
        if self._logs:
            self._record_accesses()
        with self._errand() as errand:
            position = errand.position
            if before is not None and before != position:
                position = self.goto(before).instruction
            watch = Watch(address_of(self.kernel.symbols, address), size, read=kind == "read", write=kind == "write")
            watched = pieces((watch,), self.kernel.memory.translate)
            if self._log is not None and position <= self._log.complete_until:
                errand.stands = True
                found = _look_up(self._log, kind, watched, position)
            else:
                found = self._search.backwards(position, (), watched)
            return None if found is None else self._access(found)

    # -- every access -----------------------------------------------------------------------------------------
    @property
    def accesses(self) -> AccessLog:
        """Every start and every access of the run so far, in arrays. Some 10 to 20 bytes for an instruction: where
        ``limit_bytes`` are reached, ``complete_until`` says so, and questions about later moments run the past again.
        """
        self.keep_accesses()
        return self._record_accesses()

    def keep_accesses(self) -> None:
        """From now on questions about loads and stores are answered from :attr:`accesses`."""
        self._logs = True

    def _record_accesses(self) -> AccessLog:
        """The log, up to the end of the run."""
        self._synchronize()
        log = self._log
        if log is None:
            log = self._log = AccessLog(self.kernel.machine, replayed=True)
        reached = self.length, len(self.kernel.journal)
        if log.complete and self._logged != reached:
            self._logged = reached
            with self._errand():
                self._move(max(log.end - 1, self.start))         # what Python wrote at its end comes too
                log.start()
                try:
                    self._walk(self.length)
                finally:
                    log.stop()
        return log

    # -- the trace --------------------------------------------------------------------------------------------
    def adopt(self, trace: Trace) -> None:
        """``trace`` has recorded all of the run since the kernel was ready: it need not be made again."""
        self._trace = trace, self.length

    @property
    def trace(self) -> Trace:
        """Everything that the allocator did since the kernel was ready, wherever the position is."""
        self._synchronize()
        if self._trace is None or self._trace[1] != self.length:
            self._trace = self._traced(), self.length
        return self._trace[0]

    def _traced(self) -> Trace:
        """The run once more, with the allocator's hooks."""
        with self._errand():
            history = self._travel.history
            self._move(history.first.machine.instructions)
            trace = self._tracer.trace(replayed=True)
            try:
                self._walk(self.length)
            finally:
                trace.stop()
            return trace

    def events_until(self, instruction: int) -> list[Event]:
        """The events of every depth that began before a moment, in order."""
        return [event for event in self.trace.walk() if event.entered < instruction]

    # -- in words ---------------------------------------------------------------------------------------------
    def history(self, pointer: int | str, limit: int = MOST) -> Lives:
        """Every allocation and every free of the memory at ``pointer``, in order of time, wherever the position is: the
        newest ``limit`` lives, and how many came before as ``.earlier``."""
        return history(self.trace.walk(), address_of(self.kernel.symbols, pointer), limit)

    def guilty(self) -> Moment | None:
        """The instruction that the run's failure accuses, right before it ran the last time: the one that faulted, the
        call of ``panic``, the wrong access under a shadow. None for a run that did not fail."""
        with self._errand() as errand:
            self._move(self.length)
            failure = self.kernel.failure
            errand.stands = True
            if failure is None or not failure.rip:
                return None
            if isinstance(failure, ShadowError):
                return self._here()
            panicked = isinstance(failure, GuestPanic)
            place = int(self.kernel.symbols["panic"]) if panicked else failure.rip
            found = self._search.backwards(self.length, (place,), ())
            if found is None:
                return None
            self._move(found.instruction - panicked)     # the call is the instruction before
            return self._here()

    def diff(self, before: int, after: int) -> Diff:
        """What differs between two moments: registers, memory by structure and field, the heap."""
        with self._errand() as errand:
            self.goto(before)
            first = capture(self.kernel)
            self.goto(after)
            errand.stands = True
            return compare(first, capture(self.kernel))

    def explain(self) -> Explanation:
        """The instruction that is about to run, in words: what it reads and, as the future is known, what it writes."""
        present = explain(self.kernel)
        if self.position == self.length or self.diverted:
            return present
        with self._errand() as errand:
            here = self._travel.keep_here()              # the way back is short
            self._walk(errand.position + 1)
            explained = present.completed(self.kernel)
            self._travel.go(here, errand.position)
            errand.stands = True
            return explained

    def save(self, path: str | Path) -> None:
        """Write the run to a file that :func:`sandbox.open_record` reads: its inputs, so it is small.
        :class:`~sandbox.errors.RecordError` where it cannot be written."""
        with self._errand() as errand:
            self._move(self.length)
            record = record_of(self.kernel, errand.position)
        write(path, record)

    def __repr__(self) -> str:
        return f"<Timeline from {self.start:,} to {self.length:,}, at {self.position:,}>"


def _look_up(log: AccessLog, kind: str, watched: Sequence[Piece], moment: int) -> Found | None:
    """The last access to one of several pieces before a moment."""
    last = log.last_write if kind == "write" else log.last_read
    found = [(record, piece) for piece in watched
             if (record := last(piece.physical, piece.size, moment)) is not None]
    if not found:
        return None
    record, piece = max(found, key=lambda one: one[0].moment)
    return Found(record.stamp, record.rip or 0, piece, record.kind, record.physical, record.size, record.value,
                 str(record.by))
