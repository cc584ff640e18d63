"""One moment of a run as the panes see it: each fact is read once, when the first of them asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ...debugger.explain import Explanation
from ...debugger.locals import Locals, locals_of
from ...debugger.moment import Moment
from ...debugger.name import Name
from ...debugger.names import Names
from ...errors import GuestMemoryError
from ...heap.slabs import HeapObject
from ...heap.whatis import Stack
from ...kernel import Kernel
from ...toolchain.disassembler import MAX_INSTRUCTION, Instruction
from ...toolchain.image import Image
from ...toolchain.source import SourceLine
from .run import Run

POINTERS_FROM = 1 << 16
"""Smaller values are numbers, whatever an address of that value would be."""
NOT_NAMED = ("unmapped", "non-canonical", "null", "zero-size", "hole")


@dataclass
class Scene:
    """A run at its timeline's present moment; make another when that has moved.

    ``before`` are the registers that were shown last, to mark what has changed; ``breakpoints`` the addresses that
    have one.
    """

    run: Run
    before: Mapping[str, int] = field(default_factory=dict)
    breakpoints: frozenset[int] = frozenset()

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel at this moment."""
        return self.run.timeline.kernel

    @cached_property
    def moment(self) -> Moment:
        """Where it is."""
        return self.run.timeline.moment

    @property
    def at_end(self) -> bool:
        """Whether nothing comes after this moment."""
        return self.moment.instruction == self.run.timeline.length

    @cached_property
    def explanation(self) -> Explanation:
        """The instruction that is about to run, explained, with what it writes."""
        return self.run.timeline.explain()

    @cached_property
    def registers(self) -> dict[str, int]:
        """Every register's value."""
        return dict(self.kernel.registers)

    @cached_property
    def changed(self) -> frozenset[str]:
        """The registers that differ from those shown before; RIP always does, and is not among them."""
        return frozenset(name for name, value in self.registers.items()
                         if name != "rip" and self.before.get(name, value) != value)

    @cached_property
    def locals(self) -> Locals:
        """The variables of C."""
        return locals_of(self.kernel, self.registers)

    @cached_property
    def names(self) -> Names:
        """Names for addresses."""
        return Names(self.kernel)

    def name(self, value: int) -> Name | None:
        """What lies at a value taken as an address; None for a number that is none."""
        if value < POINTERS_FROM:
            return None
        name = self.names.name(value)
        return None if name.structure in NOT_NAMED else name

    def short(self, value: int) -> str:
        """A value in a few letters: ``kmalloc-64[3]+0x8``, ``main+0x11``, ``40``; empty where nothing is known."""
        if value < POINTERS_FROM:
            return f"{value}" if value > 9 else ""
        name = self.name(value)
        if name is None:
            return ""
        if isinstance(name.owner, HeapObject):
            offset = value - name.owner.address
            return f"{name.owner.cache.name}[{name.owner.index}]" + (f"{offset:+#x}" if offset else "")
        if isinstance(name.owner, Stack) and name.structure == "stack":
            return f"stack-{name.owner.top - value:#x}"
        return name.text

    @cached_property
    def image(self) -> Image | None:
        """The image that RIP lies in; None where it lies in none."""
        return self.kernel.symbols.image_at(self.moment.rip)

    @cached_property
    def line(self) -> SourceLine | None:
        """The source line that is about to run."""
        return self.kernel.line(self.moment.rip)

    @cached_property
    def instruction(self) -> Instruction | None:
        """The instruction that is about to run, from the bytes in memory; None where none can be fetched."""
        return self.instruction_at(self.moment.rip)

    def instruction_at(self, address: int) -> Instruction | None:
        """The instruction whose bytes begin at a virtual address."""
        data = b""
        for size in (MAX_INSTRUCTION, 1):            # at the end of the last mapped page there are fewer
            try:
                data = self.kernel.memory.read(address, size)
                break
            except GuestMemoryError:
                continue
        image = self.kernel.symbols.image_at(address)
        return self.run.disassembler.disassemble(data, address, image.symbolize if image else None) if data else None

    @cached_property
    def frames(self) -> tuple[str, ...]:
        """The backtrace, innermost first."""
        return self.kernel.backtrace()

    @cached_property
    def current_event(self) -> int:
        """The index of the last event that has been entered; -1 before the first."""
        return self.run.events.last(self.moment.instruction)
