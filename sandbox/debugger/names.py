"""Names for every byte of the guest: which structure lies at an address, and which of its fields.

::

    kmem_cache(kmalloc-64).partial          a field of a cache
    page[604].inuse                         the struct page of frame 604
    object 3 of kmalloc-64 +0x10            a byte of an object
    free pointer of object 3 of kmalloc-64  where a free object leads to the next
    loaded magazine of kmalloc-64 [5]       a slot of a magazine
    the boot CPU's kernel stack, 0x48 below the top
    PTE of 0xffffc9000000c000               an entry of a page table
    slab_caches                             a variable of the kernel

:mod:`sandbox.heap.whatis` answers one question in a sentence; this is for many questions about one moment, and for
programs. Nothing raises: what contradicts itself gets a plainer name, and ``detail`` says what is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ..abi import (
    BOOT_INFO_PHYS,
    DIRECT_MAP,
    HOLE_END,
    HOLE_START,
    MAXIMUM_RAM,
    PAGE_SIZE,
    ZERO_SIZE_PTR,
    boot_info,
    kmem_cache,
    kmem_cache_cpu,
    percpu,
)
from ..address import PhysAddr, is_canonical
from ..heap.magazines import cpus
from ..heap.whatis import Stack, stacks
from .frame_names import FrameNames
from .name import Name, blob, field_of
from .reading import Reading, Subject
from .slab_names import SlabNames
from .values import Values
from .variables import VARIABLES

__all__ = ["Name", "Names", "Subject"]


class Names:
    """The names of one moment: what a question has found out serves the next, so make another when the guest moves.

    ``guest`` is a kernel or a captured state; at any moment of its life, also before it has a heap.
    """

    def __init__(self, guest: Subject) -> None:
        self.reading = Reading(guest)
        self.frames = FrameNames(self.reading)
        self.slabs = SlabNames(self.reading, self.frames)
        self._symbols = guest.symbols
        self._paging = guest.machine.paging

    def name(self, address: int) -> Name:
        """What lies at a virtual address, or at a physical one when it is a :class:`PhysAddr`."""
        if isinstance(address, PhysAddr):
            return self._at_physical(int(address), DIRECT_MAP + int(address))
        address = int(address)
        if not is_canonical(address):
            return blob(address, f"0x{address:x}", "non-canonical", address, 1, detail="no address")
        if address < PAGE_SIZE:
            known = {0: ("null", "null"), ZERO_SIZE_PTR: ("ZERO_SIZE_PTR", "zero-size")}
            text, kind = known.get(address, (f"0x{address:x}", "null"))
            if kind != "null" or not self._mapped(address):
                return blob(address, text, kind, address, 1, detail="nothing is mapped there")
        physical = address - DIRECT_MAP
        if 0 <= physical < MAXIMUM_RAM:
            return self._in_direct_map(address, physical)
        return self._in_image(address) or self._on_stack(address) or self._elsewhere(address)

    def value(self, value: int, size: int = 8, place: Name | None = None) -> str:
        """A value of ``size`` bytes in words, as read at ``place``: what it points to, the flags that it holds, or the
        number."""
        return Values(self).shown(value, size, place)

    def word(self, address: int, size: int = 8) -> int | None:
        """The number in ``size`` bytes of virtual memory, None where nothing is mapped."""
        return self.reading.word(address, size)

    # -- what is known of this moment -------------------------------------------------------------------------
    @cached_property
    def _stacks(self) -> tuple[Stack, ...]:
        return self.reading.attempt(lambda: stacks(self.reading.reader)) or ()

    @cached_property
    def _aliases(self) -> tuple[tuple[int, int, int], ...]:
        """Where the images' sections and the stacks lie: virtual start, bytes, physical start, each in one piece."""
        places = [(section.address, len(section.data)) for image in self._symbols.images for section in image.sections]
        places += [(stack.bottom, stack.top - stack.bottom) for stack in self._stacks]
        found = ((start, size, self.reading.attempt(lambda start=start: self._paging.translate(start)))  # type: ignore[misc]
                 for start, size in places)
        return tuple((start, size, int(physical)) for start, size, physical in found if physical is not None)

    def _mapped(self, address: int) -> bool:
        return self.reading.attempt(lambda: self._paging.translate(address)) is not None

    # -- the images -------------------------------------------------------------------------------------------
    def _in_image(self, address: int) -> Name | None:
        image = self._symbols.image_at(address)
        section = image.section_at(address) if image else None
        if image is None or section is None:
            return None
        here = self._symbols.locate(address)
        start = address - here.offset
        label = self._label(here.symbol, start) or section.name
        if image is self._symbols.images[0] and label in VARIABLES:
            known = self._in_variable(address, label, start)
            if known is not None:
                return known
        structure = "variable" if section.name == "data" else section.name
        detail = str(here.source or "") if structure == "text" else ""
        text = f"{label}+{here.offset:#x}" if here.offset else label
        end = min(section.end, self._symbols.end_of(start))
        return Name(address, text, structure, start, end - start, "", start, end - start, detail, label)

    def _label(self, first: str, address: int) -> str:
        """Of the labels at an address the one that begins something, not the one that ends what lies before."""
        if not first.endswith("_end"):
            return first
        return next((name for name, at in self._symbols.items() if at == address and name != first), first)

    def _in_variable(self, address: int, label: str, start: int) -> Name | None:
        """A byte of a variable whose declaration is known; None behind its end."""
        shape = VARIABLES[label]
        index, inside = divmod(address - start, shape.width)
        if index >= shape.count:
            return None
        if shape.struct is percpu:
            return self._percpu(address, start)
        if shape.struct is kmem_cache:
            return self.reading.cache_field(address, start)
        element = start + index * shape.width
        whole = label if shape.count == 1 else f"{label}[{index}]"
        if shape.struct is not None:
            return field_of(shape.struct, address, element, whole, "variable")
        text = whole + (f"+{inside}" if inside else "")
        return Name(address, text, "variable", start, shape.width * shape.count, whole, element, shape.width, "", whole)

    def _percpu(self, address: int, start: int) -> Name:
        slot, inside = divmod(address - start - percpu.slots.offset, kmem_cache_cpu.size)
        if not 0 <= slot < percpu.slots.count:
            return field_of(percpu, address, start, "percpu", "percpu", detail=self._cpu(start))
        owner = "no magazines" if slot == 0 else self.reading.slots.get(address - start - inside)
        whole = f"kmem_cache_cpu({owner})" if owner else f"percpu.slots[{slot}]"
        return field_of(kmem_cache_cpu, address, address - inside, whole, "kmem_cache_cpu",
                        detail="" if owner else "not in use")

    def _cpu(self, start: int) -> str:
        areas = self.reading.attempt(lambda: cpus(self.reading.reader)) or ()
        return next((f"CPU {area.cpu}'s own data" for area in areas if area.address == start), "")

    # -- stacks -----------------------------------------------------------------------------------------------
    def _on_stack(self, address: int) -> Name | None:
        for stack in self._stacks:
            title = stack.name.removeprefix("the ").replace(" kernel stack", " stack")
            if address == stack.top:
                return blob(address, f"top of {title}", "guard-page", address, 1, owner=stack)
            if stack.bottom <= address < stack.top:
                return Name(address, f"{title}, {stack.top - address:#x} below the top", "stack", stack.bottom,
                            stack.top - stack.bottom, "", address & ~7, 8, "", title, None, stack)
            if stack.guard <= address < stack.bottom and not self._mapped(address):
                size = stack.bottom - stack.guard
                return Name(address, f"guard pages of {title}, {stack.bottom - address:#x} past its end", "guard-page",
                            stack.guard, size, "", stack.guard, size, "not mapped", f"guard pages of {title}", None,
                            stack)
        return None

    # -- RAM --------------------------------------------------------------------------------------------------
    def _in_direct_map(self, address: int, physical: int) -> Name:
        if HOLE_START <= physical < HOLE_END:
            return blob(address, f"the PC's hole at physical 0x{physical:x}", "hole", address, 1, detail="no RAM")
        if not self._paging.memory.contains(physical) or not self._mapped(address):
            return blob(address, f"0x{address:x}", "unmapped", address, 1, detail="not mapped")
        return self._at_physical(physical, address)

    def _at_physical(self, physical: int, address: int) -> Name:
        """A byte of RAM: by what its frame is used for, or by the other address that it is mapped at."""
        known = (self._aliased(physical) or self.frames.struct_page(address) or self.slabs.name(address)
                 or self.frames.table_entry(address, physical))
        if known is not None:
            return known
        if BOOT_INFO_PHYS <= physical < BOOT_INFO_PHYS + boot_info.size:
            return field_of(boot_info, address, DIRECT_MAP + BOOT_INFO_PHYS, "boot_info", "boot_info")
        return self.frames.block(address, physical)

    def _aliased(self, physical: int) -> Name | None:
        """The name of a physical byte that an image or a stack has, at its address there."""
        for start, size, first in self._aliases:
            if 0 <= physical - first < size:
                address = start + physical - first
                if self.reading.attempt(lambda address=address: self._paging.translate(address)) == physical:  # type: ignore[misc]
                    return self._in_image(address) or self._on_stack(address)
        return None

    # -- all the rest -----------------------------------------------------------------------------------------
    def _elsewhere(self, address: int) -> Name:
        physical = self.reading.attempt(lambda: self._paging.translate(address))
        if physical is None:
            return blob(address, f"0x{address:x}", "unmapped", address, 1, detail="not mapped")
        if not self._paging.memory.contains(physical):
            return blob(address, f"0x{address:x}", "hole", address, 1, detail=f"physical {physical} has no RAM")
        behind = self._at_physical(int(physical), DIRECT_MAP + int(physical))
        return replace(behind, detail=f"mapped at 0x{address:x}")
