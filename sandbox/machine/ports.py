"""The I/O bus: which device answers at which port, in bytes or in its own width."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from .devices import Device

NOBODY = 0xFF
"""What a read gives where no device is, as on a PC; writes go nowhere."""


class Ports:
    """The ports of some devices. ``around`` is entered for each access that reaches one."""

    def __init__(self, devices: Iterable[Device], around: Callable[[], AbstractContextManager[None]]) -> None:
        self._devices = {port: device for device in devices for port in device.ports}
        self._around = around

    def read(self, port: int, size: int) -> int:
        """``in``: ``size`` bytes from ``port``."""
        device = self._devices.get(port)
        if device is None or size > device.width:
            return sum(self._read(port + index) << (8 * index) for index in range(size))
        return self._read(port)

    def write(self, port: int, size: int, value: int) -> None:
        """``out``: ``size`` bytes to ``port``."""
        device = self._devices.get(port)
        if device is not None and size <= device.width:
            self._write(device, port, value)
            return
        for index in range(size):
            device = self._devices.get(port + index)
            if device is not None:
                self._write(device, port + index, value >> (8 * index) & 0xFF)

    def _read(self, port: int) -> int:
        device = self._devices.get(port)
        if device is None:
            return NOBODY
        with self._around():
            return device.read(port)

    def _write(self, device: Device, port: int, value: int) -> None:
        with self._around():
            device.write(port, value)
