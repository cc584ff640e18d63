"""QEMU's isa-debug-exit: a write to its port ends the run (QEMU, hw/misc/debugexit.c)."""

from __future__ import annotations

from .device import Device, State


class DebugExit(Device):
    """``value`` is what was written and not yet taken, None before the first write."""

    width = 4

    def __init__(self, port: int = 0xF4, size: int = 4) -> None:
        self.ports = tuple(range(port, port + size))
        self.value: int | None = None

    def read(self, port: int) -> int:
        return 0

    def write(self, port: int, value: int) -> None:
        self.value = value

    def take(self) -> int | None:
        """The value written since the last call, once."""
        value, self.value = self.value, None
        return value

    def state(self) -> State:
        return {"value": self.value}

    def load(self, state: State) -> None:
        self.value = state["value"]
