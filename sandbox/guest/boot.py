"""All that a boot loader does: place the images, build the page tables, describe the machine, say where to begin.

Physical memory afterwards (numbers in :mod:`sandbox.abi`)::

    0                 free
    HOLE_START        no RAM
    LOADER_PHYS       the loader's page: multiboot header and 32-bit entry, for QEMU
    BOOT_INFO_PHYS    struct boot_info
    PAGE_TABLES_PHYS  page tables, the PML4 first
    KERNEL_PHYS       kernel image: text, read-only data, data
                      program image
                      modules beside it
                      an allocator of somebody else
                      stacks: the boot CPU's, then those of #DF, NMI and #MC
                      that allocator's arena
    Loaded.end        free

Virtual memory: the images where they are linked, in 4 KiB pages with their sections' rights; the direct map; each
stack at the top of its slot, with nothing below it in the slot; the arena, with nothing on either side; and the
loader's page at its physical address, which the kernel unmaps as soon as it
runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..abi import (
    ARENA_BASE,
    BOOT_INFO_PHYS,
    BOOT_MAGIC,
    DIRECT_MAP,
    IST_STACK_SIZE,
    KERNEL_PHYS,
    KERNEL_STACK_SIZE,
    LOADER_PHYS,
    PAGE_TABLES_PHYS,
    STACK_SLOT,
    STACKS_BASE,
    BootFlag,
    MemoryType,
    boot_info,
    page,
)
from ..address import LARGE_PAGE_SIZE, PAGE_SIZE, page_up, pages
from ..errors import SymbolNotFound, UsageError
from ..machine.memory import PhysicalMemory
from ..machine.paging import Paging, PagingControls
from ..toolchain.image import Image
from ..x86 import PageTableEntry
from .loader_page import loader_page
from .options import BootOptions, format_size

STACK_SIZES = (KERNEL_STACK_SIZE, IST_STACK_SIZE, IST_STACK_SIZE, IST_STACK_SIZE)
WORKING_MEMORY = 0x40000
"""Bytes that must be left free for a kernel to come up: its own caches, and something to give out."""

_WRITE = PageTableEntry.RW.mask
_NO_EXECUTION = PageTableEntry.NX.mask
_RIGHTS = {"r-x": 0, "r--": _NO_EXECUTION, "rw-": _WRITE | _NO_EXECUTION}


@dataclass(frozen=True)
class Loaded:
    """The first register values, and where things are: interrupts off, paging on with ``cr3``, all else unknown.

    ``end`` is the physical address of the first byte that the loader left free.
    """

    rip: int
    rsp: int
    rdi: int
    cr3: int
    end: int


def load(memory: PhysicalMemory, kernel: Image, program: Image | None, options: BootOptions,
         allocator: Image | None = None, arena: int = 0, modules: Image | None = None) -> Loaded:
    """Fill ``memory``, fresh and of ``options.ram_size`` bytes, with everything that the kernel expects.

    ``allocator`` is the image of somebody else's allocator, ``arena`` the bytes that it may give out, whole pages.

    ``UsageError`` when the RAM is too small for the images. A program without ``main`` is one that Python calls.
    """
    loader = _Loader(memory, kernel, program, options, allocator, arena, modules)
    return loader.load()


class _Loader:
    """One boot; the methods follow the order of physical memory."""

    def __init__(self, memory: PhysicalMemory, kernel: Image, program: Image | None, options: BootOptions,
                 allocator: Image | None, arena: int, modules: Image | None) -> None:
        self.memory = memory
        self.kernel = kernel
        self.program = program
        self.options = options
        self.arena = arena
        self.images = [kernel, *(image for image in (program, modules, allocator) if image is not None)]
        self.next_table = PAGE_TABLES_PHYS
        self.paging = Paging(memory, PagingControls(cr3=self._table_frame()), self._table_frame)
        self.read_only: list[range] = []

    def load(self) -> Loaded:
        """Do it all."""
        entry = self.kernel.symbols.get("_start")
        if entry is None:
            raise SymbolNotFound("_start")
        self._check_room()
        at = KERNEL_PHYS
        for image in self.images:
            at = self._place_image(image, at)
        at = self._place_stacks(at)
        self.paging.map_range(ARENA_BASE, at, self.arena, _WRITE | _NO_EXECUTION)
        at += self.arena
        self._map_physical_memory()
        self.paging.map(LOADER_PHYS, LOADER_PHYS, 0)
        self._describe_machine(end=at)
        loaded = Loaded(rip=entry, rsp=_stack_top(0), rdi=DIRECT_MAP + BOOT_INFO_PHYS,
                        cr3=self.paging.controls.cr3, end=at)
        self.memory.write(LOADER_PHYS, loader_page(
            rip=loaded.rip, rsp=loaded.rsp, rdi=loaded.rdi, cr3=loaded.cr3, end=loaded.end,
            clear=[(free.start, free.stop) for free in self._free_memory(at)]))
        return loaded

    def _table_frame(self) -> int:
        """The next frame for a page table."""
        frame, self.next_table = self.next_table, self.next_table + PAGE_SIZE
        if self.next_table > KERNEL_PHYS:
            raise UsageError("the program is too large: its page tables do not fit below the kernel")
        return frame

    def _check_room(self) -> None:
        """Refuse RAM that these images would fill, and say how much they need."""
        placed = KERNEL_PHYS + sum(page_up(image.end - image.base) for image in self.images) + sum(STACK_SIZES)
        placed += self.arena
        size = self.memory.size
        if placed + pages(size) * page.size + WORKING_MEMORY <= size:
            return
        step = 1 << 20
        while placed + pages(size) * page.size + WORKING_MEMORY > size:
            size = (size + step) // step * step
        raise UsageError(f"{format_size(self.memory.size)} of RAM is too small for this program: "
                         f"the minimum is {format_size(size)}")

    def _place_image(self, image: Image, at: int) -> int:
        """Copy an image to ``at`` and map it where it is linked; the address behind it."""
        self.memory.write(at, image.bytes())
        for section in image.sections:
            physical = at + section.address - image.base
            size = page_up(len(section.data))
            self.paging.map_range(section.address, physical, size, _RIGHTS[section.rights])
            if not _RIGHTS[section.rights] & _WRITE:
                self.read_only.append(range(physical, physical + size))
        return at + page_up(image.end - image.base)

    def _place_stacks(self, at: int) -> int:
        """Map each stack at the end of its slot; the physical address behind the last one."""
        for slot, size in enumerate(STACK_SIZES):
            self.paging.map_range(_stack_top(slot) - size, at, size, _WRITE | _NO_EXECUTION)
            at += size
        return at

    def _map_physical_memory(self) -> None:
        """The direct map: large pages, small ones where RAM ends, has a hole, or must not be written."""
        for start in range(0, self.memory.size, LARGE_PAGE_SIZE):
            block = range(start, start + LARGE_PAGE_SIZE)
            whole = self.memory.contains(start, LARGE_PAGE_SIZE)
            if whole and not any(_overlap(block, other) for other in self.read_only):
                self.paging.map(DIRECT_MAP + start, start, _WRITE | _NO_EXECUTION, LARGE_PAGE_SIZE)
                continue
            for frame in range(start, block.stop, PAGE_SIZE):
                if self.memory.contains(frame, PAGE_SIZE):
                    fixed = any(frame in other for other in self.read_only)
                    self.paging.map(DIRECT_MAP + frame, frame, _NO_EXECUTION | (0 if fixed else _WRITE))

    def _describe_machine(self, end: int) -> None:
        """Fill struct boot_info."""
        options, program = self.options, self.program
        info = boot_info(self.memory, BOOT_INFO_PHYS)
        info.magic = BOOT_MAGIC
        info.ram_size = self.memory.size
        info.cr3 = self.paging.controls.cr3
        info.loader_end = end
        info.kernel_end = self.kernel.end
        if program is not None:
            info.program_start, info.program_end = program.base, program.end
            info.main = program.exports.get("main", 0)
        info.stack_top = _stack_top(0)
        info.ist_top = tuple(_stack_top(slot) for slot in range(1, len(STACK_SIZES)))
        info.flags = 0 if options.magazines else BootFlag.BOOT_NO_MAGAZINES
        info.hz = options.hz
        info.empty_slab_limit = options.empty_slab_limit
        info.seed = options.seed
        info.freelist_hardened = int(options.freelist_hardened)
        info.freelist_random = int(options.freelist_random is not False)
        info.freelist_seed = options.freelist_seed
        info.slab_debug = options.slab_debug
        info.regions = len(self.memory.regions)
        for entry, region in zip(info.map, self.memory.regions, strict=False):
            entry.base, entry.length = region.start, region.size
            entry.type = MemoryType.MEMORY_USABLE if region.kind == "usable" else MemoryType.MEMORY_RESERVED

    def _free_memory(self, end: int) -> Iterator[range]:
        """What neither the loader nor a hole occupies, as ranges of physical addresses."""
        for region in self.memory.ram:
            if region.end <= LOADER_PHYS:
                yield range(region.start, region.end)
            elif end < region.end:
                yield range(max(region.start, end), region.end)


def _stack_top(slot: int) -> int:
    """The virtual address behind the stack in a slot."""
    return STACKS_BASE + (slot + 1) * STACK_SLOT


def _overlap(left: range, right: range) -> bool:
    return left.start < right.stop and right.start < left.stop
