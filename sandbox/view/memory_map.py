"""The memory map as text: physical regions, then every range that the page tables map, with its rights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..abi import (
    ALLOCATOR_BASE,
    ARENA_BASE,
    DIRECT_MAP,
    HOLE_END,
    HOLE_START,
    KERNEL_BASE,
    LOADER_PHYS,
    MAXIMUM_RAM,
    PROGRAM_BASE,
    STACKS_BASE,
)
from ..machine.memory import MemoryRegion, PhysicalMemory
from ..machine.paging import Mapping, Paging


def memory_map(memory: PhysicalMemory, paging: Paging, loader_end: int = 0) -> str:
    """Both maps. ``loader_end`` is the first physical byte that the loader left free, 0 when it is not known."""
    lines = ["physical memory", *physical(memory.regions, loader_end), "",
             "virtual memory, and the physical memory behind it", *virtual(paging.mappings())]
    return "\n".join(lines) + "\n"


def physical(regions: Iterable[MemoryRegion], loader_end: int = 0) -> Iterator[str]:
    """One line for each region of the memory map."""
    for region in regions:
        if loader_end and region.start <= LOADER_PHYS < loader_end < region.end:
            if region.start < LOADER_PHYS:
                yield _physical(region.start, LOADER_PHYS, "usable")
            yield _physical(LOADER_PHYS, loader_end, "loaded: tables, kernel, program, stacks")
            yield _physical(loader_end, region.end, "usable")
        else:
            hole = (region.start, region.end) == (HOLE_START, HOLE_END)
            yield _physical(region.start, region.end, "the PC's hole: video memory and ROMs" if hole else region.kind)


def _physical(start: int, end: int, what: str) -> str:
    return f"  0x{start:08x}-0x{end:08x} {_size(end - start):>9}  {what}"


def virtual(mappings: Iterable[Mapping]) -> Iterator[str]:
    """One line for each mapped range: addresses, size, rights, the physical address behind it, what it is."""
    for mapping in mappings:
        yield (f"  {int(mapping.start):016x}-{int(mapping.end):016x} {_size(mapping.end - mapping.start):>9} "
               f"{mapping.rights} {int(mapping.physical):08x} {region_of(mapping.start)}")


def region_of(address: int) -> str:
    """The part of the virtual address space that an address lies in."""
    if DIRECT_MAP <= address < DIRECT_MAP + MAXIMUM_RAM:
        return "direct map"
    if STACKS_BASE <= address < STACKS_BASE + (1 << 40):
        return "stack"
    if ARENA_BASE <= address < ARENA_BASE + (1 << 40):
        return "arena"
    if ALLOCATOR_BASE <= address < 0xFFFF_FFFF_C000_0000:
        return "allocator"
    if PROGRAM_BASE <= address < ALLOCATOR_BASE:
        return "program"
    if KERNEL_BASE <= address < PROGRAM_BASE:
        return "kernel"
    return "mapped by the guest"


def _size(size: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} B"
