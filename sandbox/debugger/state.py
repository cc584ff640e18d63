"""A captured moment: registers and RAM, to be looked at when the guest is somewhere else.

A state answers as a kernel does (``memory``, ``registers``, ``heap``, ``symbols``), from its own copy of RAM, which it
shares with the moments that it has pages in common with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

from ..guest.symbols import Symbols
from ..heap.views import Heap
from ..machine.machine import Machine
from ..machine.memory import PhysicalMemory
from ..machine.paging import Paging, PagingControls, VirtualMemory
from ..machine.ram_pages import RamPages
from .processor import Processor

CONTROL = ("cr0", "cr2", "cr3", "cr4", "efer", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")
"""The registers of a state that are not general ones."""


class Capturable(Protocol):
    """What can be captured: a kernel that stands still."""

    @property
    def machine(self) -> Machine:
        """Its machine."""
        ...

    @property
    def symbols(self) -> Symbols:
        """Its labels."""
        ...


@dataclass(frozen=True)
class _Still:
    """A machine of which only the memory is left."""

    memory: PhysicalMemory
    paging: Paging


@dataclass(frozen=True)
class State:
    """One moment of a guest. ``instruction`` is its count, ``registers`` rax to r15, rip and rflags, ``control`` those
    of :data:`CONTROL`, ``ram`` all of RAM in pages."""

    instruction: int
    registers: Mapping[str, int]
    control: Mapping[str, int]
    ram: RamPages
    symbols: Symbols

    @cached_property
    def machine(self) -> _Still:
        """RAM and page tables of the moment."""
        memory = PhysicalMemory(len(self.ram))
        memory.load_pages(self.ram)
        control = self.control
        return _Still(memory, Paging(memory, PagingControls(control["cr3"], control["cr0"], control["cr4"],
                                                            control["efer"])))

    @cached_property
    def memory(self) -> VirtualMemory:
        """Virtual memory of the moment; what is written to it is written to the copy."""
        return VirtualMemory(self.machine.memory, self.machine.paging)

    @cached_property
    def heap(self) -> Heap:
        """The allocator's state at the moment."""
        return Heap(self)

    def __repr__(self) -> str:
        return f"<State at instruction {self.instruction:,}, {len(self.ram) >> 20} MiB>"


def capture(guest: Capturable) -> State:
    """The present moment of a guest that stands still."""
    cpu = Processor.of(guest.machine.cpu.view)
    return State(guest.machine.instructions, MappingProxyType(dict(cpu.general)),
                 MappingProxyType({name: cpu[name] for name in CONTROL}), guest.machine.memory.pages(), guest.symbols)
