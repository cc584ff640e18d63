"""What every device on the I/O bus can do.

A device holds no reference to the machine: what it does to the world goes through the callables that its constructor
is given. The one that knows time, the timer, is told it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

# A device's interrupt output: called with the new level of the line.
Line = Callable[[bool], None]

# All the registers of a device, as plain values that survive the device.
State = dict[str, Any]


def unconnected(level: bool) -> None:
    """An interrupt line that leads nowhere."""


class Device(ABC):
    """Something on the I/O bus, at the port numbers ``ports``."""

    ports: tuple[int, ...]
    width = 1  # the widest access in bytes; a wider one is split into bytes for consecutive ports

    @abstractmethod
    def read(self, port: int) -> int:
        """The byte that ``in al, dx`` gets from one of the device's ports."""

    @abstractmethod
    def write(self, port: int, value: int) -> None:
        """What ``out dx, al`` does."""

    @abstractmethod
    def state(self) -> State:
        """The registers of the device, for a snapshot."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Return to what :meth:`state` said."""
