"""One run of the engine: what its hooks have to say, and how it is stopped at an exact instruction.

Measured on Unicorn 2.1:

- before an instruction, from a CODE hook: stop the engine; it has already counted the instruction;
- after an instruction, from a memory or port hook: set the limit of the run to what is counted so far, so that the
  next start is one too many (stopping the engine would leave RIP on a store that is done);
- at an exception: the hook's counter is exact, and so is RIP.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_uint64
from enum import Enum
from typing import Any, NamedTuple, Protocol

from ..address import PAGE_SIZE
from .context import ContextLayout


class EventKind(Enum):
    """Why a slice ended before its count."""

    NONE = "the count was reached"
    HALT = "hlt"
    BUS_ERROR = "no memory"
    BREAKPOINT = "breakpoint"
    ENABLING = "before an instruction that may allow interrupts"
    RESCHEDULE = "a device changed its mind"
    REQUESTED = "requested"


class Slice(NamedTuple):
    """What a slice did: ``vector`` is that of an exception which waits for delivery, -1 for none."""

    starts: int
    kind: EventKind
    vector: int
    address: int  # the physical address of a bus error
    reason: str


class Recorder(Protocol):
    """Who keeps every start and every access, and so must know which of those that the hooks tell of are counted."""

    def begin(self, done: int) -> None:
        """The engine is going to start, ``done`` starts into the present slice."""

    def end(self, starts: int) -> None:
        """The slice is over; these of its starts count."""

    def started_twice(self) -> None:
        """What was just counted is the second start of an instruction for which one counts; it is no longer."""

    def faulted(self, vector: int) -> None:
        """The present instruction raised an exception."""


class Run:
    """What the hooks of one slice have to say. It holds no reference to the CPU, so that hooks make no cycles."""

    def __init__(self, engine: int, layout: ContextLayout, stop_engine: Callable[[], object]) -> None:
        self._stop_engine = stop_engine
        self.counter = c_uint64.from_address(engine + layout.emu_counter)
        self.limit = c_uint64.from_address(engine + layout.emu_counter + 8)
        self.active = False
        self.done = 0  # starts of the present slice before the engine was last started
        self.recorder: Recorder | None = None
        self.silent = False  # hooks of others are passed over: what runs has run before
        self.access = 0  # 1 inside a memory or port hook: the instruction has started
        self.kind = EventKind.NONE
        self.starts = -1  # exact starts at the stop, where a hook knows them
        self.vector = -1
        self.address = 0
        self.address_of_syscall: int | None = None
        self.reason = ""
        self.error: BaseException | None = None
        self.undo: Callable[[], None] | None = None  # what takes back the instruction that a hook refuses
        self.undone = 0  # and how many of the counted starts these are
        self.between: Callable[[], None] | None = None  # to be called before the next slice
        self.exempt = self.exempt_site = False  # the first instruction of the slice passes breakpoints, sites
        self.handlers: dict[int, list[Callable[[int], None]]] = {}  # by address: our own, then those of others
        self.followers: dict[int, list[Callable[[int], None]]] = {}  # of others that also hear a replay
        self.callbacks: dict[int, list[Callable[[int], None]]] = {}
        self.learned: set[tuple[int, int]] = set()  # (virtual page, frame) of the code that was looked through
        self.code_pages: set[int] = set()
        self.called = False  # the callbacks at the first instruction of the slice were called at the end of the last
        self.called_at = -1  # the address at which callbacks stopped the last slice
        self.granted = False  # the slice has one start more than was asked for, for a store's restart
        self.store_count = -1  # the counter at the last store into a frame with code
        self.store_state = b""  # the general registers and RIP before it
        self.flush_tlb = self.flush_code = False
        self.retired: list[Any] = []  # callbacks of removed hooks, which the engine may still name

    def begin(self, exempt: bool, exempt_site: bool, done: int = 0) -> None:
        """The engine is going to start, ``done`` starts into the present slice."""
        self.done = done
        if self.recorder is not None:
            self.recorder.begin(done)
        self.kind, self.starts, self.vector = EventKind.NONE, -1, -1
        self.address_of_syscall = None
        self.reason = ""
        self.access = 0
        self.exempt, self.exempt_site = exempt, exempt_site
        self.granted = False
        self.store_done()

    def store_done(self) -> None:
        """No store is between its two starts."""
        self.store_count, self.store_state = -1, b""

    def stored_code(self, address: int, size: int) -> None:
        """The guest stores into frames with code: what was learned of them may be wrong."""
        frames = (address // PAGE_SIZE * PAGE_SIZE, (address + size - 1) // PAGE_SIZE * PAGE_SIZE)
        self.learned = {entry for entry in self.learned if entry[1] not in frames}

    def memory_changed(self, start: int, end: int) -> None:
        """Python writes physical bytes: what the engine remembers of them may be wrong now."""
        self.flush_tlb = True
        self.memory_stored(start, end)

    def memory_stored(self, start: int, end: int) -> None:
        """The processor itself writes physical bytes, in Python."""
        if not self.flush_code:
            pages = range(start // PAGE_SIZE, (end + PAGE_SIZE - 1) // PAGE_SIZE)
            self.flush_code = not self.code_pages.isdisjoint(pages)

    def exception(self, vector: int) -> None:
        """The present instruction raised an exception."""
        self.vector = vector
        self.starts = self.counter.value
        self._stop_engine()
        if self.recorder is not None:
            self.recorder.faulted(vector)

    def started_twice(self) -> None:
        """The start that was just counted is the second of an instruction for which one counts."""
        self.counter.value -= 1
        if self.recorder is not None:
            self.recorder.started_twice()

    def reschedule(self) -> None:
        """From the report of a new block: go back to the caller before the block runs."""
        self.starts = self.counter.value
        if self.kind is EventKind.NONE:
            self.kind = EventKind.RESCHEDULE
        self._stop_engine()

    def stop_soon(self) -> None:
        """From anywhere in a slice: after the instruction that is the last to have started."""
        self.limit.value = self.counter.value

    def at_breakpoint(self, address: int) -> None:
        """The next instruction has a breakpoint."""
        if not (self.exempt and self.counter.value == 1):
            self.stop_before(EventKind.BREAKPOINT)

    def at_site(self, address: int) -> None:
        """The next instruction may set IF, and an interrupt waits for that."""
        if not (self.exempt_site and self.counter.value == 1):
            self.stop_before(EventKind.ENABLING)

    def stop_before(self, kind: EventKind) -> None:
        """From a CODE hook: the present instruction does not start."""
        if self.kind is EventKind.NONE:
            self.kind = kind
        self.starts = self.counter.value - 1
        self._stop_engine()

    def stop_after(self, kind: EventKind) -> None:
        """From a memory or port hook: the present instruction is the last."""
        if self.kind is EventKind.NONE:
            self.kind = kind
        self.stop_soon()

    def stop(self, kind: EventKind) -> None:
        """From any hook."""
        if self.access:
            self.stop_after(kind)
        else:
            self.stop_before(kind)

    def refuse(self, error: BaseException, undo: Callable[[], None], starts: int) -> None:
        """An exception in a hook: the present instruction, or one ``starts`` before, is undone at the end of it."""
        if self.error is None:
            self.undo, self.undone = undo, starts
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        """An exception in a hook: keep the first, stop."""
        if self.error is None:
            self.error = error
        self.stop(EventKind.REQUESTED)
