"""How a machine goes back: its latest checkpoint, and the journal's entries since then done again.

A copy of 16 MiB takes 3 ms, and a call of ``kmalloc`` 50 us: copying before each call would be the whole cost of it.
So a checkpoint is taken only when enough work has passed since the last one to make its copy cheap beside that work.
Work is counted in guest instructions and journal entries, never in time: the same session takes the same checkpoints.
"""

from __future__ import annotations

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
    """The journal of a machine, and the way back to the state after its last entry."""

    def __init__(self, machine: Machine, actions: Actions) -> None:
        self.journal = Journal()
        self.paused = False
        self._machine = machine
        self._actions = actions
        self._budget = len(machine.memory) // RAM_PER_WORK
        self._checkpoint = Checkpoint(machine.snapshot(), 0)
        self._reached = machine.instructions
        self._due = self._reached + self._budget

    def add(self, entry: Entry) -> None:
        """An entry was carried out. While ``paused``, in a state that going back throws away, none is kept."""
        if self.paused:
            return
        self.journal.append(entry)
        self._reached = self._machine.instructions
        self._due -= ENTRY_WORK
        if self._reached > self._due:
            self.mark()

    def mark(self) -> Checkpoint:
        """Take a checkpoint here."""
        self.journal.append(Flush())
        self._checkpoint = Checkpoint(self._machine.snapshot(), len(self.journal))
        self._due = self._reached + self._budget
        return self._checkpoint

    def back(self) -> None:
        """Put the machine into the state after the journal's last entry."""
        self._machine.restore(self._checkpoint.machine)
        self._actions.memory.forget()
        with self._machine.silent():
            for entry in self.journal.since(self._checkpoint.position):
                self._actions.perform(entry)
        if self._machine.instructions != self._reached:
            raise EngineError(f"doing {len(self.journal) - self._checkpoint.position} entries again ended at "
                              f"instruction {self._machine.instructions}, and the first time at {self._reached}")

    def adopt(self, snapshot: MachineSnapshot, entries: tuple[Entry, ...]) -> None:
        """Go to ``snapshot``, which is what ``entries`` lead to."""
        self._machine.restore(snapshot)
        self._actions.memory.forget()
        self.journal.replace(entries)
        self._checkpoint = Checkpoint(snapshot, len(entries))
        self._reached = self._machine.instructions
        self._due = self._reached + self._budget
