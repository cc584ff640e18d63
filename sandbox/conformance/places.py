"""Where things lie in the RAM of a subject: physical ranges, with their virtual addresses and their names."""

from __future__ import annotations

from typing import NamedTuple

from ..abi import ARENA_BASE, DIRECT_MAP, KERNEL_STACK_SIZE, STACK_SLOT, STACKS_BASE
from ..kernel import Kernel


class Place(NamedTuple):
    """A piece of RAM that is mapped in one piece."""

    physical: int
    virtual: int
    size: int
    what: str


class Places:
    """The places of one kernel with an allocator. ``own`` are those that the allocator may write: its arena and its
    data; ``stack`` is the boot CPU's."""

    def __init__(self, kernel: Kernel) -> None:
        self._symbols = kernel.symbols
        foreign = kernel.foreign
        assert foreign is not None
        translate = kernel.memory.translate
        arena = Place(int(translate(ARENA_BASE)), ARENA_BASE, foreign.options.arena, "its arena")
        self.text = range(foreign.image.base, foreign.image.text_end)
        data = foreign.image.section("data")
        self.own = [arena]
        if data is not None:
            self.own.append(Place(int(translate(data.address)), data.address, len(data.data), "its data"))
        top = STACKS_BASE + STACK_SLOT
        self.stack = Place(int(translate(top - KERNEL_STACK_SIZE)), top - KERNEL_STACK_SIZE, KERNEL_STACK_SIZE,
                           "the stack")
        images = [Place(int(translate(section.address)), section.address, len(section.data), f"{whose} {section.name}")
                  for whose, image in (("the kernel's", kernel.image), ("its own", foreign.image))
                  for section in image.sections if section is not data]
        self._all = [*self.own, self.stack, *images]

    @property
    def size(self) -> int:
        """Bytes of its arena and of its data: more it can never have given out."""
        return sum(place.size for place in self.own)

    def holds(self, address: int, size: int) -> int | None:
        """The physical address of a chunk that lies in the allocator's own memory, None for any other."""
        for place in self.own:
            if place.virtual <= address and address + size <= place.virtual + place.size:
                return place.physical + address - place.virtual
        return None

    def name(self, physical: int) -> str:
        """A physical address as the guest knows it, with its symbol."""
        for place in self._all:
            if place.physical <= physical < place.physical + place.size:
                virtual = place.virtual + physical - place.physical
                location = self._symbols.locate(virtual)
                symbol = f"{location.symbol}+{location.offset:#x}" if location.offset else location.symbol
                return f"0x{virtual:016x} in {place.what}" + (f" ({symbol})" if symbol else "")
        return f"0x{DIRECT_MAP + physical:016x}, which is not its own"
