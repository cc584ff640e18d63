"""How a machine goes back: its latest checkpoint, and the journal's entries since then done again.

A copy of 16 MiB takes 3 ms, and a call of ``kmalloc`` 50 us: copying before each call would be the whole cost of it.
So a checkpoint is taken only when enough work has passed since the last one to make its copy cheap beside that work.
Work is counted in guest instructions and journal entries, never in time: the same session takes the same checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import EngineError
from ..machine.machine import Machine
from ..machine.snapshot import Snapshot as MachineSnapshot
from .actions import Actions
from .journal import Entry, Flush, Journal

ENTRY_WORK = 2000
"""What an entry costs to do again, in instructions that take as long (50 us)."""

RAM_PER_WORK = 8
"""A checkpoint after one instruction for every 8 bytes of RAM: then copying takes about a twentieth of the work."""


@dataclass(frozen=True)
class Checkpoint:
    """The machine after the first ``position`` entries of the journal."""

    machine: MachineSnapshot
    position: int


class History:
    """The journal of a machine, and the way back to the state after its last entry.

    A call or a run that failed is no entry: it is ``failed``, until the machine goes back to before it. While the
    machine is ``away`` at a moment of the past, nothing that is done to it is history: ``diverted`` then says that
    something was, and ``come_back`` undoes it. ``first`` is where it all began.
    """

    def __init__(self, machine: Machine, actions: Actions) -> None:
        self.journal = Journal()
        self.failed: Entry | None = None
        self.away = False
        self.diverted = False
        self.come_back: Callable[[], None] | None = None
        self._machine = machine
        self._actions = actions
        self._budget = len(machine.memory) // RAM_PER_WORK
        self.first = self._checkpoint = Checkpoint(machine.snapshot(), 0)
        self._reached = machine.instructions
        self._end = self._reached
        self._due = self._reached + self._budget

    @property
    def end(self) -> int:
        """The instruction count at which everything that was done is done, what failed included."""
        return self._end

    def add(self, entry: Entry) -> None:
        """An entry was carried out. In a state that going back throws away, none is kept."""
        if self.away or self.failed is not None:
            self.diverted = True
            return
        self.journal.append(entry, self._reached)
        self._reached = self._end = self._machine.instructions
        self._due -= ENTRY_WORK
        if self._reached > self._due:
            self.mark()

    def fail(self, entry: Entry) -> None:
        """An entry was begun, and left the machine in a state from which nothing goes on."""
        if self.away:
            self.diverted = True
        else:
            self.failed, self._end = entry, self._machine.instructions

    def began(self, index: int) -> int:
        """The instruction count at which entry ``index`` began; the one that failed has the number behind the last."""
        return self.journal.count(index) if index < len(self.journal) else self._reached

    def begin(self) -> None:
        """No way back leads to before now: what the machine has just got, its past does not have."""
        self.first = self.mark()

    def mark(self) -> Checkpoint:
        """Take a checkpoint here."""
        self.journal.append(Flush(), self._reached)
        self._checkpoint = Checkpoint(self._machine.snapshot(), len(self.journal))
        self._due = self._reached + self._budget
        return self._checkpoint

    def back(self) -> None:
        """Put the machine into the state after the journal's last entry, or, away, into that of the past moment."""
        if self.away and self.come_back is not None:
            self.come_back()
            return
        self._machine.restore(self._checkpoint.machine)
        self._actions.memory.forget()
        with self._machine.silent():
            for entry in self.journal.since(self._checkpoint.position):
                self._actions.perform(entry)
        if self._machine.instructions != self._reached:
            raise EngineError(f"doing {len(self.journal) - self._checkpoint.position} entries again ended at "
                              f"instruction {self._machine.instructions}, and the first time at {self._reached}")
        self._sound()

    def adopt(self, snapshot: MachineSnapshot, journal: Journal) -> None:
        """Go to ``snapshot``, which is what ``journal`` leads to."""
        self._machine.restore(snapshot)
        self._actions.memory.forget()
        self.journal.replace(journal)
        self._checkpoint = Checkpoint(snapshot, len(journal))
        self._reached = self._machine.instructions
        self._due = self._reached + self._budget
        self.away = False
        self._sound()

    def _sound(self) -> None:
        if self.failed is not None:
            self.failed = None
            self.journal.version += 1
        self._end = self._reached
        self.diverted = False
