"""Where things lie in the RAM of a subject: physical ranges, with their virtual addresses and their names."""

from __future__ import annotations

import weakref
from typing import NamedTuple, TypeAlias

from ..abi import ARENA_BASE, DIRECT_MAP, KERNEL_STACK_SIZE, STACK_SLOT, STACKS_BASE
from ..address import PAGE_SHIFT, PAGE_SIZE
from ..errors import GuestMemoryError
from ..kernel import Kernel

Pieces: TypeAlias = "tuple[tuple[int, int], ...]"
"""Physical addresses and sizes: what lies in one piece in virtual memory may be many in RAM."""


class Place(NamedTuple):
    """A piece of RAM that is mapped in one piece."""

    physical: int
    virtual: int
    size: int
    what: str


class Places:
    """The places of one kernel with an allocator. ``own`` are those that the allocator may write: its arena and its
    data; ``frames`` are the pages that it took from the page allocator besides, by number; ``stack`` is the boot
    CPU's. ``room`` are the bytes of pages that there are for it."""

    def __init__(self, kernel: Kernel, room: int) -> None:
        self.frames: set[int] = set()
        self.takes_pages = False                 # whether it ever did
        self._room = room
        self._kernel = weakref.ref(kernel)
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
        """Bytes of its arena, of its data, and of the pages that are there for one that takes pages: more it can never
        have given out."""
        return sum(place.size for place in self.own) + (self._room if self.takes_pages else 0)

    def holds(self, address: int, size: int) -> Pieces | None:
        """Where a chunk lies in RAM, when it is in the allocator's own memory; None for any other."""
        for place in self.own:
            if place.virtual <= address and address + size <= place.virtual + place.size:
                return ((place.physical + address - place.virtual, size),)
        kernel = self._kernel()
        if not self.frames or kernel is None or size > self.size:
            return None
        found: list[tuple[int, int]] = []
        while size > 0 or not found:
            try:
                physical = int(kernel.memory.translate(address))
            except GuestMemoryError:
                return None
            if physical >> PAGE_SHIFT not in self.frames:
                return None
            length = min(size, PAGE_SIZE - address % PAGE_SIZE)
            if found and sum(found[-1]) == physical:
                found[-1] = found[-1][0], found[-1][1] + length
            else:
                found.append((physical, length))
            address, size = address + length, size - length
        return tuple(found)

    def name(self, physical: int) -> str:
        """A physical address as the guest knows it, with its symbol."""
        for place in self._all:
            if place.physical <= physical < place.physical + place.size:
                virtual = place.virtual + physical - place.physical
                location = self._symbols.locate(virtual)
                symbol = f"{location.symbol}+{location.offset:#x}" if location.offset else location.symbol
                return f"0x{virtual:016x} in {place.what}" + (f" ({symbol})" if symbol else "")
        if physical >> PAGE_SHIFT in self.frames:
            return f"0x{DIRECT_MAP + physical:016x} in a page that it took"
        return f"0x{DIRECT_MAP + physical:016x}, which is not its own"
