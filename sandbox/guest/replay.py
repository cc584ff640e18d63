"""Doing the journal again, up to any instruction, entries that are left in their middle included.

The moment ``t`` is the state right before start ``t + 1``: what Python did when the clock was ``t`` is done, an
interrupt that was due has been delivered. So of two entries at one count the later one is what a moment shows, and a
call that begins at ``t`` has its arguments in place and its first instruction next.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import EngineError
from ..machine.stop import Stop, StopKind
from .actions import Actions, BootPending, CallPending, Pending, RunPending
from .history import History
from .journal import Call, Run


class Place(NamedTuple):
    """Where on its journal a machine stands: before a numbered entry, or in the middle of it, with ``pending``."""

    entry: int
    pending: Pending | None


POWER_ON = Place(-1, BootPending())
"""Before the first instruction: the boot comes before the journal's first entry."""


class Replay:
    """Moves a machine along its journal. Whoever uses it keeps the machine where ``place`` says."""

    def __init__(self, actions: Actions, history: History) -> None:
        self._actions = actions
        self._machine = actions.machine
        self._history = history
        self.place = Place(len(history.journal), None)

    def run_to(self, instruction: int) -> Stop | None:
        """Go on to the moment ``instruction``, or to the journal's end if that comes first.

        Returns early, with the stop, where a hook asks for it; :class:`EngineError` when the journal does not lead
        where it led the first time.
        """
        while True:
            if self.place.pending is None:
                if not self._begin():
                    return None
                continue
            stop = self._go_on(self.place.pending, instruction)
            if stop is None:
                return None
            if stop.kind is StopKind.REQUESTED:
                return stop
            if stop.kind is StopKind.INTERRUPTED:
                raise KeyboardInterrupt

    def _begin(self) -> bool:
        """Begin the next entry; False when there is none."""
        history, actions = self._history, self._actions
        index = self.place.entry
        entry = history.journal[index] if index < len(history.journal) else history.failed
        if entry is None or index > len(history.journal):
            return False
        if self._machine.instructions != history.began(index):
            raise EngineError(f"what was done from outside cannot be done again: entry {index} began at instruction "
                              f"{history.began(index)}, and now the clock is at {self._machine.instructions}")
        if isinstance(entry, Call):
            self.place = Place(index, actions.begin_call(entry, actions.place(entry)))
        elif isinstance(entry, Run):
            self.place = Place(index, actions.begin_run(entry.limit))
        else:
            actions.perform(entry)
            self.place = Place(index + 1, None)
        return True

    def _go_on(self, pending: Pending, instruction: int) -> Stop | None:
        """Run the present entry towards ``instruction``; the stop if the entry ended or a hook stopped it, None when
        the clock is there."""
        machine, clock = self._machine, self._machine.instructions
        ends = None if isinstance(pending, BootPending) else pending.ends
        target = instruction if ends is None else min(instruction, ends)
        door = self._door(pending)
        if door is not None and machine.cpu.view.rip == door and clock > self._began():
            stop = Stop(StopKind.BREAKPOINT, clock, door)
        else:
            stop = machine.run(limit=max(target - clock, 0), until=() if door is None else (door,))
            if stop.kind is StopKind.LIMIT and stop.rip == door and clock != machine.instructions:
                stop = Stop(StopKind.BREAKPOINT, stop.instructions, stop.rip)
        if stop.kind is StopKind.LIMIT:
            if not isinstance(pending, RunPending) or machine.instructions != ends:
                return None
        elif stop.kind in (StopKind.REQUESTED, StopKind.INTERRUPTED):
            return stop
        self._end(pending, stop)
        return stop

    def _door(self, pending: Pending) -> int | None:
        """The address at which an entry is over."""
        if isinstance(pending, BootPending):
            return self._actions.ready
        return self._actions.call_return if isinstance(pending, CallPending) else None

    def _began(self) -> int:
        return 0 if self.place.entry < 0 else self._history.began(self.place.entry)

    def _end(self, pending: Pending, stop: Stop) -> None:
        """An entry ended by itself."""
        index = self.place.entry
        failed = index == len(self._history.journal)
        if isinstance(pending, CallPending) and not failed:
            self._actions.end_call(pending, stop)
        elif isinstance(pending, BootPending):
            if stop.kind is not StopKind.BREAKPOINT:
                raise EngineError(f"the kernel came up the first time, and now: {stop}")
            self._machine.cpu.flush_tlb()            # as the checkpoint did that the history began with
        self._actions.pending = None
        self.place = Place(index + 1, None)
