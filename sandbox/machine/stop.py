"""Why a run returned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .interrupts import TripleFault


class StopKind(str, Enum):
    """Why :meth:`Machine.run` returned."""

    DEBUG_EXIT = "debug exit"
    LIMIT = "instruction limit"
    BREAKPOINT = "breakpoint"
    TRIPLE_FAULT = "triple fault"
    HALTED = "halted with interrupts off"
    IDLE = "halted with no interrupt to come"
    NO_MEMORY = "no memory"
    STUCK = "no instruction can start"
    INTERRUPTED = "interrupted"
    REQUESTED = "requested"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Stop:
    """The reason of a stop. ``instructions`` is the clock then, ``rip`` the instruction that comes next."""

    kind: StopKind
    instructions: int
    rip: int
    status: int | None = None  # the value written to the debug-exit port
    address: int | None = None  # the physical address with no memory
    reason: str = ""  # what a hook asked for
    triple_fault: TripleFault | None = None

    @property
    def qemu_status(self) -> int | None:
        """The exit status of a QEMU with isa-debug-exit for the same write."""
        return None if self.status is None else (self.status << 1 | 1) & 0xFF

    def __str__(self) -> str:
        if self.kind is StopKind.DEBUG_EXIT:
            return f"debug exit {self.status} (QEMU status {self.qemu_status})"
        if self.triple_fault is not None:
            return str(self.triple_fault)
        if self.kind is StopKind.NO_MEMORY:
            return f"no memory at physical address {self.address:#x}, used by the instruction at {self.rip:#x}"
        if self.kind is StopKind.LIMIT:
            return f"instruction limit, at {self.rip:#x}"
        if self.kind is StopKind.STUCK:
            return f"no instruction can start at {self.rip:#x}: {self.reason}"
        if self.kind is StopKind.REQUESTED:
            return f"{self.reason or 'requested'}, at {self.rip:#x}"
        return f"{self.kind} at {self.rip:#x}"
