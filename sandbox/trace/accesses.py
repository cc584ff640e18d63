"""Every instruction start and every memory access of a run, in arrays, and look-ups in them.

::

    log = AccessLog(kernel.machine)
    log.start()
    kernel.run()
    log.stop()
    log.last_write(physical, 8, before=log.end)      # Record(stamp=..., rip=..., value=...), or None

The idea is that of trace-based debuggers (Tenet's memory timelines, PANDA's and rr's replays, ``perf mem``): whoever
has all accesses need not run anything again to know who wrote. Addresses are physical, because two virtual ones may
name the same byte.

A *stamp* is the number of starts before an instruction, so that ``goto(stamp)`` shows it about to run, and a *moment*
is the machine before the start with that stamp. Beside the instructions' accesses there are writes from outside: the
processor's (the frame of an exception or interrupt, the accessed and dirty bits of delivery) and Python's. Their stamp
is the moment at which they had happened, and they are told in pieces of at most 8 bytes.

Not seen: what the processor reads in the course of a delivery, the accessed and dirty bits that the engine's own page
walks set, instruction fetches, and RAM that a snapshot restores. Accesses of more than 8 bytes are told as several. One
that goes over the edge of a page to a frame elsewhere is told as two.
"""

from __future__ import annotations

import weakref
from operator import index
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import EngineError, UsageError
from ..machine.machine import Machine
from . import accesses_search as search
from .accesses_columns import BY_SHIFT, SIZE_MASK, WRITTEN, By, Columns
from .accesses_recording import Recording

LIMIT_BYTES = 1 << 30
RECORDS = np.dtype([("stamp", np.uint64), ("rip", np.uint64), ("physical", np.uint64), ("value", np.uint64),
                    ("size", np.uint8), ("by", np.uint8), ("write", np.bool_)])
"""One access; ``rip`` is 0 for one from outside, ``by`` a :class:`By`."""


class Record(NamedTuple):
    """One access: when, by which instruction (None for one from outside), and what. ``str(by)`` is ``instruction``,
    ``processor`` or ``python``."""

    stamp: int
    rip: int | None
    kind: str  # "read" or "write"
    physical: int
    size: int
    value: int
    by: By

    @property
    def moment(self) -> int:
        """The first moment at which it had happened."""
        return self.stamp + (self.by is By.INSTRUCTION)


class AccessLog:
    """A log of one machine. It takes 4 bytes for each start and 17 for each access, at most ``limit_bytes``.

    With ``replayed``, runs under :meth:`Machine.silent` are recorded too. When the machine goes back while the log is
    on, what was recorded behind that moment is forgotten as soon as it runs again.
    """

    def __init__(self, machine: Machine, limit_bytes: int = LIMIT_BYTES, *, replayed: bool = False) -> None:
        self._machine = weakref.ref(machine)
        self._columns = Columns(limit_bytes)
        self._replayed = replayed
        self._recording: Recording | None = None

    # -- recording --------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Record from here on. :class:`UsageError` while the machine runs, is closed, or has another log on."""
        machine = self._machine()
        if machine is None:
            raise EngineError("this machine is gone")
        if machine.cpu.closed:
            raise UsageError("the machine is closed")
        if machine.cpu.running:
            raise UsageError("the machine is running: start and stop the log of accesses between runs")
        if machine.cpu.recorder is not None:
            raise UsageError("a log of accesses is already on in this machine")
        self._recording = Recording(machine, self._columns, self._replayed)

    def stop(self) -> None:
        """Record no more; a second call does nothing. What was recorded stays, and ``start`` goes on from it."""
        machine = self._machine()
        if machine is not None and machine.cpu.running:
            raise UsageError("the machine is running: start and stop the log of accesses between runs")
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.stop()

    def cut(self, moment: int) -> None:
        """Forget everything behind a moment; what had happened then stays."""
        machine = self._machine()
        if machine is not None and machine.cpu.running:
            raise UsageError("the machine is running: cut the log of accesses between runs")
        self._columns.cut(_natural(moment, "a moment"))

    @property
    def recording(self) -> bool:
        """Whether the log is on."""
        return self._recording is not None

    @property
    def native(self) -> bool:
        """Whether the log is on, and filled by native code."""
        return self._recording is not None and self._recording.native

    # -- extent -----------------------------------------------------------------------------------------------
    @property
    def begin(self) -> int:
        """The first moment of the log; 0 when nothing was recorded."""
        return self._columns.spans[0].begin if self._columns.spans else 0

    @property
    def end(self) -> int:
        """The last moment of the log: it has the starts before this one."""
        return self._columns.now

    @property
    def complete(self) -> bool:
        """Whether there was room for everything."""
        return not self._columns.full

    @property
    def complete_until(self) -> int:
        """The moment up to which everything is in the log: its end, or where ``limit_bytes`` was reached."""
        return self._columns.now

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The moments from which and up to which there are no gaps, in order."""
        return [(span.begin, self._last(number)) for number, span in enumerate(self._columns.spans)]

    @property
    def starts(self) -> int:
        """How many starts are in the log."""
        return sum(end - begin for begin, end in self.spans)

    @property
    def accesses(self) -> int:
        """How many accesses are in the log."""
        return self._columns.count

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self._columns.nbytes

    def __repr__(self) -> str:
        return (f"<AccessLog of {self.starts:,} starts and {self.accesses:,} accesses from {self.begin:,} to "
                f"{self.end:,}, {self.nbytes >> 20} MiB>")

    # -- accesses ---------------------------------------------------------------------------------------------
    def last_write(
        self, physical: int, size: int = 1, before: int | None = None, by: By | None = None
    ) -> Record | None:
        """The last write to any of these bytes that had happened at the moment ``before`` (the log's end): by an
        instruction with a smaller stamp, or from outside with that stamp or a smaller one. None when there is none
        since ``begin``. ``by`` asks for those of one kind alone.

        :class:`UsageError` for a moment outside the log, and when the answer may lie in a gap of it.
        """
        return self._last_access(physical, size, before, True, by)

    def last_read(self, physical: int, size: int = 1, before: int | None = None) -> Record | None:
        """The same for reads."""
        return self._last_access(physical, size, before, False, None)

    def next_write(
        self, physical: int, size: int = 1, after: int | None = None, by: By | None = None
    ) -> Record | None:
        """The first write to any of these bytes that had not happened at the moment ``after`` (the log's begin): by an
        instruction with that stamp or a larger one, or from outside with a larger one."""
        return self._next_access(physical, size, after, True, by)

    def next_read(self, physical: int, size: int = 1, after: int | None = None) -> Record | None:
        """The same for reads."""
        return self._next_access(physical, size, after, False, None)

    def writes(self, physical: int, size: int = 1) -> npt.NDArray[np.void]:
        """All writes to any of these bytes, in order, as an array of ``RECORDS``."""
        return self._all(physical, size, True)

    def reads(self, physical: int, size: int = 1) -> npt.NDArray[np.void]:
        """All reads of any of these bytes."""
        return self._all(physical, size, False)

    def records(self) -> npt.NDArray[np.void]:
        """All accesses of the log, in order, as an array of ``RECORDS``."""
        return self._records(np.arange(self._columns.count))

    # -- instructions -----------------------------------------------------------------------------------------
    def rip_at(self, stamp: int) -> int:
        """The address of the instruction that starts at a moment."""
        stamp = _natural(stamp, "a stamp")
        number = self._span_at(stamp)
        if stamp >= self._last(number):
            raise self._outside(stamp)
        return int(self._columns.addresses(np.array([self._slot(number, stamp)]))[0])

    def rips(self, begin: int, end: int) -> npt.NDArray[np.uint64]:
        """The addresses of the instructions with stamps from ``begin`` up to ``end``."""
        begin, end = _natural(begin, "a stamp"), _natural(end, "a stamp")
        number = self._span_at(begin)
        if not begin <= end <= self._last(number):
            raise self._outside(end)
        return self._columns.addresses(np.arange(self._slot(number, begin), self._slot(number, end)))

    def stamps_of(self, rip: int) -> npt.NDArray[np.uint64]:
        """The stamps of all starts of the instruction at an address, ascending."""
        columns = self._columns
        found = [search.slots_of(columns, span.slot, self._slot(number, self._last(number)), rip)
                 for number, span in enumerate(columns.spans)]
        return columns.stamps(np.concatenate(found)) if found else np.empty(0, np.uint64)

    def last_start(self, rip: int, before: int | None = None) -> int | None:
        """The largest stamp below ``before`` (the log's end) with which the instruction at ``rip`` started."""
        before = self.end if before is None else _natural(before, "a moment")
        number = self._span_at(before)
        span = self._columns.spans[number]
        slot = search.last_slot(self._columns, span.slot, self._slot(number, before), rip)
        if slot is None:
            self._require_no_gap_before(number)
            return None
        return slot - span.slot + span.begin

    def next_start(self, rip: int, after: int | None = None) -> int | None:
        """The smallest stamp from ``after`` (the log's begin) on with which the instruction at ``rip`` started."""
        after = self.begin if after is None else _natural(after, "a moment")
        number = self._span_at(after)
        span = self._columns.spans[number]
        slot = search.next_slot(self._columns, self._slot(number, after), self._slot(number, self._last(number)), rip)
        if slot is None:
            self._require_no_gap_behind(number)
            return None
        return slot - span.slot + span.begin

    # -- looking up -------------------------------------------------------------------------------------------
    def _last_access(self, physical: int, size: int, before: int | None, written: bool, by: By | None) -> Record | None:
        physical, size = _range(physical, size)
        before = self.end if before is None else _natural(before, "a moment")
        number = self._span_at(before)
        low = search.rows_before(self._columns, self._columns.spans[number].slot)
        high = search.rows_up_to(self._columns, self._slot(number, before))
        row = search.last_touching(self._columns, low, high, physical, size, written, by)
        if row is None:
            self._require_no_gap_before(number)
            return None
        return self._record(row)

    def _next_access(self, physical: int, size: int, after: int | None, written: bool, by: By | None) -> Record | None:
        physical, size = _range(physical, size)
        after = self.begin if after is None else _natural(after, "a moment")
        number = self._span_at(after)
        low = search.rows_up_to(self._columns, self._slot(number, after))
        high = search.rows_up_to(self._columns, self._slot(number, self._last(number)))
        row = search.next_touching(self._columns, low, high, physical, size, written, by)
        if row is None:
            self._require_no_gap_behind(number)
            return None
        return self._record(row)

    def _all(self, physical: int, size: int, written: bool) -> npt.NDArray[np.void]:
        physical, size = _range(physical, size)
        return self._records(search.touching(self._columns, 0, self._columns.count, physical, size, written))

    def _record(self, row: int) -> Record:
        found = self._records(np.array([row]))[0]
        by = By(int(found["by"]))
        return Record(int(found["stamp"]), int(found["rip"]) if by is By.INSTRUCTION else None,
                      "write" if found["write"] else "read", int(found["physical"]), int(found["size"]),
                      int(found["value"]), by)

    def _records(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.void]:
        columns, found = self._columns, np.zeros(len(rows), RECORDS)
        kinds, slots = columns.kinds[rows], columns.keys[rows].astype(np.int64)
        found["by"], found["size"], found["write"] = kinds >> BY_SHIFT, kinds & SIZE_MASK, kinds & WRITTEN != 0
        found["physical"], found["value"] = columns.physical[rows], columns.values[rows]
        own = found["by"] == By.INSTRUCTION
        slots[own] -= 1
        if len(rows):
            found["stamp"] = columns.stamps(slots)
            found["rip"][own] = columns.addresses(slots[own])
        return found

    def _slot(self, number: int, moment: int) -> int:
        span = self._columns.spans[number]
        return moment - span.begin + span.slot

    def _last(self, number: int) -> int:
        """The last moment of a span."""
        spans = self._columns.spans
        end = self._columns.end if number + 1 == len(spans) else spans[number + 1].slot - 1
        return spans[number].begin + end - spans[number].slot

    def _span_at(self, moment: int) -> int:
        """The number of the span that has a moment."""
        for number in reversed(range(len(self._columns.spans))):
            if self._columns.spans[number].begin <= moment <= self._last(number):
                return number
        raise self._outside(moment)

    def _require_no_gap_before(self, number: int) -> None:
        if number:
            raise UsageError(f"the answer may lie between instruction {self._last(number - 1):,} and "
                             f"{self._columns.spans[number].begin:,}, which the log of accesses does not have")

    def _require_no_gap_behind(self, number: int) -> None:
        if number + 1 < len(self._columns.spans):
            self._require_no_gap_before(number + 1)
        elif self._columns.full:
            raise self._full()

    def _outside(self, moment: int) -> UsageError:
        if not self._columns.spans:
            return UsageError("the log of accesses is empty")
        if self._columns.full and moment >= self.end:
            return self._full()
        return UsageError(f"instruction {moment:,} is not in the log of accesses, which has "
                          + ", ".join(f"{begin:,} to {end:,}" for begin, end in self.spans))

    def _full(self) -> UsageError:
        return UsageError(f"the log of accesses ends at instruction {self.end:,}, where its limit of "
                          f"{self._columns.limit:,} bytes was reached: give it a larger limit_bytes")


def _range(physical: int, size: int) -> tuple[int, int]:
    physical, size = _natural(physical, "a physical address"), _natural(size, "a size")
    if not size:
        raise UsageError("a size of 0 bytes")
    return physical, size


def _natural(value: int, what: str) -> int:
    """A number from 0 on as an ``int``; one of numpy's is taken too."""
    try:
        number = -1 if isinstance(value, bool) else index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise UsageError(f"{what} is a number from 0 on, not {value!r}")
    return number
