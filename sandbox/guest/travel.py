"""Taking a guest to any moment of its past, and back to the end, where it can go on.

Away from the end it is a guest like any other: it can be read, called and written to. Nothing of that is history; the
next journey leaves it behind.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from ..errors import GuestError, UsageError
from ..machine.machine import Machine
from ..machine.snapshot import Snapshot as MachineSnapshot
from ..machine.stop import Stop
from .actions import Actions
from .history import History
from .outcome import RunResult
from .replay import Place, Replay


@dataclass
class Standing:
    """What a guest can do next: nothing after a ``failure`` but to go back; no ``run`` once it is ``finished``."""

    failure: GuestError | None = None
    finished: RunResult | None = None


@dataclass(frozen=True)
class Kept:
    """A moment to start from: the machine, and where on the journal it stands."""

    machine: MachineSnapshot
    place: Place

    @property
    def instruction(self) -> int:
        """The clock then."""
        return self.machine.instructions


class Travel:
    """Moves one guest through its past."""

    def __init__(self, machine: Machine, actions: Actions, history: History, standing: Standing) -> None:
        self.machine = machine
        self.history = history
        self._actions = actions
        self._replay = Replay(actions, history)
        self._standing = standing
        self._at_end = Standing()
        self.traveller: weakref.ref[Any] | None = None   # who decides where the guest stands

    @property
    def away(self) -> bool:
        """Whether the guest stands at a moment of the past."""
        return self.history.away

    @property
    def entry_end(self) -> int:
        """The moment at which the journal's entry that the guest stands in is over."""
        entry = self._replay.place.entry + 1
        return self.history.began(entry) if entry <= len(self.history.journal) else self.history.end

    def keep(self) -> Kept:
        """The present moment of the guest as it lives on, also from inside a run (:attr:`Machine.at_period`)."""
        return Kept(self.machine.snapshot(), Place(len(self.history.journal), self._actions.pending))

    def keep_here(self) -> Kept:
        """The present moment of a journey."""
        return Kept(self.machine.snapshot(), self._replay.place)

    def go(self, start: Kept | None, instruction: int) -> Stop | None:
        """To the moment ``instruction``, from ``start`` or, None, from where the guest stands. Hooks hear nothing
        but those that asked for replays; returns early, with the stop, when one of these stops the machine."""
        if self.machine.cpu.running:
            raise UsageError("the machine is running: a hook can look, and nothing else")
        if self.machine.cpu.closed:
            raise UsageError("this kernel is closed")
        if start is not None:
            self._leave()
            self.machine.restore(start.machine)
            self._replay.place = start.place
        self._actions.memory.forget()
        self.history.diverted = True                 # until the journey is over
        with self.machine.silent():
            stop = self._replay.run_to(instruction)
        self._actions.memory.forget()
        self.history.diverted = False
        if stop is None and self.machine.instructions == self.history.end:
            self._arrive()
        return stop

    def _leave(self) -> None:
        if not self.history.away:
            self._at_end = Standing(self._standing.failure, self._standing.finished)
        self.history.away = True
        self._standing.failure = self._standing.finished = None

    def _arrive(self) -> None:
        if self.history.away:
            self.history.away = False
            self._standing.failure, self._standing.finished = self._at_end.failure, self._at_end.finished
