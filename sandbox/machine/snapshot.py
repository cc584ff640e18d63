"""A machine at one instruction, as values; and what outside the machine changes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .devices import State
from .ram_pages import RamPages


@dataclass(frozen=True)
class Snapshot:
    """All of a machine at one instruction, as values: it may be restored into any machine with as much RAM."""

    ram: RamPages
    registers: bytes
    instructions: int
    idle: int
    halted: bool
    injected: tuple[int, ...]
    scheduled: tuple[tuple[int, int], ...]
    devices: tuple[State, ...]
    companions: tuple[object, ...] = ()

    def __repr__(self) -> str:
        return f"<Snapshot of a machine with {len(self.ram) >> 20} MiB at instruction {self.instructions:,}>"


class Companion(Protocol):
    """Something outside the machine that changes with it, and goes back with it."""

    def state(self) -> object:
        """All of it, as a value that nothing changes any more."""
        ...

    def load(self, state: object | None) -> None:
        """Become what :meth:`state` said; None when the machine's snapshot was taken without this companion."""
        ...


class Interventions(Protocol):
    """What changes the machine between two instructions, at places and at times that are known in advance: in every
    run, in a replay too, and however the run is cut into slices."""

    @property
    def addresses(self) -> frozenset[int]:
        """The virtual addresses before whose instructions :meth:`reach` is called."""
        ...

    def due(self) -> int | None:
        """The value of the clock at which :meth:`pass_time` next has something to do."""
        ...

    def pass_time(self, clock: int) -> None:
        """The clock is ``clock``, before the next start."""
        ...

    def reach(self, address: int, clock: int) -> bool:
        """The instruction at ``address`` is next; True when registers were changed. It may be called again before
        the instruction starts, at the same ``clock``."""
        ...
