"""A PC that knows nothing of our kernel: RAM, page tables, a CPU that delivers its interrupts, devices, one clock."""

from .devices import DebugExit, Device, Pic, Pit, Serial
from .machine import Machine
from .memory import ByteAccess, MemoryRegion, PhysicalMemory
from .paging import Mapping, Paging, PagingControls, VirtualMemory, WalkStep
from .snapshot import Snapshot
from .stop import Stop, StopKind

__all__ = [
    "ByteAccess",
    "DebugExit",
    "Device",
    "Machine",
    "Mapping",
    "MemoryRegion",
    "Paging",
    "PagingControls",
    "PhysicalMemory",
    "Pic",
    "Pit",
    "Serial",
    "Snapshot",
    "Stop",
    "StopKind",
    "VirtualMemory",
    "WalkStep",
]
