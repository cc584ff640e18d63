"""``whatis``: any 64-bit number taken as an address, and what lies there in one sentence.

The order of the questions: is it an address at all; does an image, a stack or the direct map own that part of
virtual memory; and for RAM, what the frame's ``struct page`` and the structures in it say. Nothing raises: bytes
that contradict themselves are an answer too (``corrupt``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack

from ..abi import (
    BOOT_INFO_PHYS,
    DIRECT_MAP,
    HOLE_END,
    HOLE_START,
    IST_STACK_SIZE,
    KERNEL_STACK_SIZE,
    MAXIMUM_RAM,
    PAGE_SHIFT,
    PAGE_SIZE,
    STACK_SLOT,
    STACKS_BASE,
    ZERO_SIZE_PTR,
    PageFlag,
    boot_info,
    kmem_cache,
    kmem_cache_cpu,
    magazine,
    page,
    percpu,
)
from ..address import PhysAddr, check_address, is_canonical
from ..errors import GuestMemoryError, HeapCorruption, SymbolNotFound
from ..guest.symbols import Symbols
from ..layout import Field, NestedField, Struct
from ..machine.paging import LEVELS, Paging
from ..x86 import ENTRIES_PER_TABLE, PageTableEntry
from .magazines import cpus
from .reader import GuestReader, Readable, symbol, word
from .slabs import HeapObject, LargeAllocation
from .views import Heap

_ENTRIES = f"<{ENTRIES_PER_TABLE}Q"


@dataclass(frozen=True)
class WhatIs:
    """The answer for one address; ``str()`` is a sentence.

    ``kind`` is one of ``text rodata data percpu stack guard-page boot_info page-table struct-page kmem_cache
    magazine object slab large free-frame frame reserved hole mapped unmapped null zero-size non-canonical corrupt``;
    ``found`` is the heap's view of it, for an object, a slab or a large allocation.
    """

    address: int
    kind: str
    sentence: str
    found: object = None

    def __str__(self) -> str:
        return f"0x{self.address:016x} is {self.sentence}"


@dataclass(frozen=True)
class Stack:
    """A stack and the unmapped pages below it, in a slot of its own."""

    name: str
    guard: int
    bottom: int
    top: int


def stacks(guest: GuestReader) -> tuple[Stack, ...]:
    """Every stack that the loader prepared, as ``boot_info`` tells."""
    address = word(guest, symbol(guest, "boot_params"), "boot_params")
    if not address:                              # the kernel has not begun
        return ()
    info = boot_info(guest, address)
    tops = [("the boot CPU's kernel stack", info.stack_top, KERNEL_STACK_SIZE)]
    tops += [(f"the {name} stack", top, IST_STACK_SIZE)
             for name, top in zip(("double fault", "NMI", "machine check"), info.ist_top, strict=True)]
    return tuple(Stack(name, top - STACK_SLOT, top - size, top) for name, top, size in tops if top)


@dataclass(frozen=True)
class Table:
    """One page table: its level's name, where it lies, and the first virtual address that it translates."""

    level: str
    physical: int
    covers: int


def tables(paging: Paging) -> Iterator[Table]:
    """Every page table under CR3, each before those below it."""
    def below(physical: int, depth: int, base: int) -> Iterator[Table]:
        level = LEVELS[depth]
        yield Table(level.name, physical, base)
        if depth + 1 == len(LEVELS) or not paging.memory.contains(physical, PAGE_SIZE):
            return
        for index, number in enumerate(unpack(_ENTRIES, paging.memory.read(physical, PAGE_SIZE))):
            if not number:                       # most are
                continue
            entry = PageTableEntry(number)
            if entry.P and not (level.may_map and entry.PS):
                yield from below(entry.address, depth + 1, base | index << level.shift)

    yield from below(paging.controls.cr3 & PageTableEntry.ADDRESS_MASK, 0, 0)


class AddressBook:
    """Answers :meth:`whatis` for one guest."""

    def __init__(self, guest: Readable, heap: Heap, symbols: Symbols, paging: Paging) -> None:
        self._guest = GuestReader(guest)
        self._heap = heap
        self._symbols = symbols
        self._paging = paging

    def whatis(self, address: int) -> WhatIs:
        """What lies at ``address``, a number from 0 to 2^64 - 1; a :class:`PhysAddr` is looked up through the direct
        map. :class:`UsageError` for what is no such number."""
        check_address(address)
        address = int(address) + (DIRECT_MAP if isinstance(address, PhysAddr) else 0)
        try:
            kind, sentence, found = self._answer(address)
        except HeapCorruption as error:
            kind, sentence, found = "corrupt", f"in the allocator's memory, where something is wrong: {error}", None
        return WhatIs(address, kind, sentence, found)

    def _answer(self, address: int) -> tuple[str, str, object]:
        if not is_canonical(address):
            return "non-canonical", "no address: bits 48-63 do not repeat bit 47", None
        if address == 0:
            return "null", "the null pointer; nothing is mapped there", None
        if address == ZERO_SIZE_PTR:
            return "zero-size", "ZERO_SIZE_PTR, what kmalloc(0) returns; nothing is mapped there", None
        return (self._in_image(address) or self._on_stack(address) or self._in_ram(address)
                or self._elsewhere(address))

    # -- the images -------------------------------------------------------------------------------------------
    def _in_image(self, address: int) -> tuple[str, str, object] | None:
        image = self._symbols.image_at(address)
        section = image.section_at(address) if image else None
        if section is None:
            return None
        where = str(self._symbols.locate(address))
        if section.name == "data":
            return self._in_kernel_data(address) or ("data", f"data: {where}", None)
        return section.name, f"{'code' if section.name == 'text' else 'read-only data'}: {where}", None

    def _in_kernel_data(self, address: int) -> tuple[str, str, object] | None:
        try:
            for area in cpus(self._guest):
                if area.address <= address < area.address + percpu.size:
                    return "percpu", f"{self._percpu_field(address - area.address)} of CPU {area.cpu}'s own data", None
            return self._in_cache(address)
        except SymbolNotFound:
            return None

    def _percpu_field(self, offset: int) -> str:
        slot, inside = divmod(offset - percpu.slots.offset, kmem_cache_cpu.size)
        if not 0 <= slot < percpu.slots.count:
            return field_name(percpu, offset)
        owner = next((cache.name for cache in self._heap.caches if cache.struct.cpu == offset - inside), None)
        whose = "shared by all caches without magazines" if slot == 0 else f"of {owner}" if owner else "not in use"
        return f"slots[{slot}].{field_name(kmem_cache_cpu, inside)} ({whose})"

    def _in_cache(self, address: int) -> tuple[str, str, object] | None:
        for cache in self._heap.caches:
            if cache.address <= address < cache.address + kmem_cache.size:
                field = field_name(kmem_cache, address - cache.address)
                return "kmem_cache", f"{field} of the struct kmem_cache of {cache.name}", cache
        return None

    # -- stacks -----------------------------------------------------------------------------------------------
    def _on_stack(self, address: int) -> tuple[str, str, object] | None:
        if "boot_params" not in self._symbols:
            return None
        for stack in stacks(self._guest):
            if stack.bottom <= address < stack.top:
                return "stack", f"on {stack.name}, {stack.top - address} bytes below its top", stack
            if stack.guard <= address < stack.bottom and not self._mapped(address):
                return "guard-page", f"in the unmapped guard pages below {stack.name}, " \
                                     f"{stack.bottom - address} bytes past its end", stack
        return None

    def _mapped(self, address: int) -> bool:
        try:
            self._paging.translate(address)
        except GuestMemoryError:
            return False
        return True

    # -- RAM through the direct map ---------------------------------------------------------------------------
    def _in_ram(self, address: int) -> tuple[str, str, object] | None:
        physical = address - DIRECT_MAP
        if not 0 <= physical < MAXIMUM_RAM:
            return None
        if HOLE_START <= physical < HOLE_END:
            return "hole", f"in the PC's hole at physical 0x{physical:x}, where video memory would be: no RAM", None
        if not self._paging.memory.contains(physical):
            return None
        return (self._struct_page(address) or self._page_table(physical) or self._frame(address, physical))

    def _struct_page(self, address: int) -> tuple[str, str, object] | None:
        pages = self._heap.pages
        pfn, inside = divmod(address - pages.mem_map, page.size)
        if not 0 <= pfn < pages.max_pfn:
            return None
        return "struct-page", f"{field_name(page, inside)} of the struct page of frame {pfn} " \
                              f"(physical 0x{pfn << PAGE_SHIFT:x})", pages.struct_page(pfn)

    def _page_table(self, physical: int) -> tuple[str, str, object] | None:
        for table in tables(self._paging):
            if table.physical <= physical < table.physical + PAGE_SIZE:
                index = (physical - table.physical) // 8
                return "page-table", f"entry {index} of the {table.level} at physical 0x{table.physical:x}, a page " \
                                     "table", table
        return None

    def _frame(self, address: int, physical: int) -> tuple[str, str, object]:
        frame = f"frame {physical >> PAGE_SHIFT} (physical 0x{physical:x})"
        if BOOT_INFO_PHYS <= physical < BOOT_INFO_PHYS + boot_info.size:
            return "boot_info", f"{field_name(boot_info, physical - BOOT_INFO_PHYS)} of boot_info, what the loader " \
                                "told the kernel", None
        pages = self._heap.pages
        pfn = pages.pfn(address)
        if pfn is None:
            return "frame", f"RAM in {frame}; the page allocator does not know it yet", None
        flags = PageFlag(pages.struct_page(pfn).flags)
        if flags & PageFlag.PG_RESERVED:
            return "reserved", f"in {frame}, which is reserved and never given out{self._alias(physical)}", None
        if flags & (PageFlag.PG_SLAB | PageFlag.PG_LARGE):
            return self._heap_memory(address)
        if flags & PageFlag.PG_TABLE:
            return "page-table", f"in a page table, {frame}, that is not in use", None
        block = pages.free_block_of(pfn)
        if block is not None:
            return "free-frame", f"in {frame}, in the free block of order {block.order} at 0x{block.address:x}", block
        head = pages.struct_page(pfn).head
        if not head:
            return "frame", f"in {frame}, which nobody owns", None
        first = pages.pfn_of_page(head, "page.head")
        return "frame", f"in {frame}, in the allocated block of order {pages.struct_page(first).order} at " \
                        f"0x{DIRECT_MAP + (first << PAGE_SHIFT):x}", None

    def _alias(self, physical: int) -> str:
        """What else the physical address is mapped as, behind a colon."""
        for mapping in self._paging.mappings():
            offset = physical - mapping.physical
            if 0 <= offset < mapping.end - mapping.start and not DIRECT_MAP <= mapping.start < DIRECT_MAP + MAXIMUM_RAM:
                other = mapping.start + offset
                found = self._in_image(other) or self._on_stack(other)
                return f": another address of 0x{other:x}, {found[1]}" if found else f": mapped also at 0x{other:x}"
        return ""

    def _heap_memory(self, address: int) -> tuple[str, str, object]:
        found = self._heap.find(address)
        if isinstance(found, LargeAllocation):
            return "large", str(found) if found.offset else f"the first byte of {found}", found
        if not isinstance(found, HeapObject):
            return "slab", f"no object: {found.reason}", found.slab
        inside = self._in_cache(address) or self._in_magazine(address, found)
        if inside:
            return inside
        if 0 <= found.offset < found.cache.object_size:
            return "object", str(found) if found.offset else f"the first byte of {found}", found
        past = found.offset - found.cache.object_size
        part = f"{-found.offset} bytes before" if found.offset < 0 else \
            "the first byte behind" if past == 0 else f"{past} bytes past the end of"
        whole = HeapObject(found.slab, found.index)
        return "object", f"{part} {whole}, in its red zone or padding", found

    def _in_magazine(self, address: int, found: HeapObject) -> tuple[str, str, object] | None:
        """A magazine is an object of a cache of the allocator's own; it is one while some cache has it."""
        if found.cache.object_size != magazine.size:
            return None
        for cache in self._heap.caches:
            for held in cache.magazines:
                if held.address <= address < held.address + magazine.size:
                    field = field_name(magazine, address - held.address)
                    whose = f"CPU {held.cpu}'s {held.role} magazine" if held.cpu >= 0 else f"a {held.role} magazine"
                    return "magazine", f"{field} of {whose} of {cache.name}", held
        return None

    # -- all the rest -----------------------------------------------------------------------------------------
    def _elsewhere(self, address: int) -> tuple[str, str, object]:
        try:
            physical = self._paging.translate(address)
        except GuestMemoryError:
            region = "in the region of the stacks, " if STACKS_BASE <= address < STACKS_BASE + (1 << 39) else ""
            reason = self._paging.resolve(address).reason
            return "unmapped", f"{region}not mapped: {reason}", None
        if not self._paging.memory.contains(physical):
            return "mapped", f"mapped to {PhysAddr(physical)}, where no RAM is", None
        behind = self._in_ram(DIRECT_MAP + physical)
        return "mapped", f"mapped to {PhysAddr(physical)}" + (f": {behind[1]}" if behind else ""), None


@dataclass(frozen=True)
class Part:
    """The innermost field of a structure that covers one of its bytes: ``name`` is ``partial.next`` or ``objects[3]``,
    empty for padding; ``offset`` and ``size`` are those of that element, ``within`` is the structure that it is a
    member of, and ``field`` its declaration."""

    name: str
    offset: int
    size: int
    within: type[Struct]
    field: Field | None


def part_of(struct: type[Struct], offset: int) -> Part:
    """What lies at byte ``offset`` of a structure. An array of bytes is one element."""
    field: Field | None = struct.field_at(offset)
    if field is None:
        return Part("", offset, 1, struct, None)
    width = field.size if field.width == 1 else field.width
    index = (offset - field.offset) // width
    name = field.name if width == field.size else f"{field.name}[{index}]"
    start = field.offset + index * width
    if not isinstance(field, NestedField):
        return Part(name, start, width, struct, field)
    inner = part_of(field.struct, offset - start)
    return Part(f"{name}.{inner.name}" if inner.name else name, start + inner.offset, inner.size, inner.within,
                inner.field)


def field_name(struct: type[Struct], offset: int) -> str:
    """The name of the field that covers a byte of a structure: ``partial.next``, ``objects[3]``, with the byte's
    number behind it when it is not the first."""
    part = part_of(struct, offset)
    if part.field is None:
        return f"padding at offset {offset}"
    return f"{part.name} (byte {offset - part.offset})" if offset > part.offset else part.name
