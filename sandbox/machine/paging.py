"""The page tables of a guest, read and built from outside: 4 levels, pages of 4 KiB, 2 MiB and 1 GiB.

The walker reads RAM and nothing else: it sets no accessed bit, leaves CR2 alone and fills no TLB, so looking never
changes what the guest does next. Intel SDM volume 3A, sections 4.5 (4-level paging), 4.6 (access rights), 4.7 (page
faults).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..address import LARGE_PAGE_SIZE, PAGE_SIZE, U64, PhysAddr, VirtAddr, canonical, is_canonical
from ..errors import GuestMemoryError, TranslationError, UsageError
from ..x86 import ENTRIES_PER_TABLE, Access, Cr0, Cr4, Efer, PageFaultError, PageTableEntry
from .memory import ByteAccess, PhysicalMemory


@dataclass(frozen=True)
class Level:
    """One of the four levels: what its tables are called and which address bits index them."""

    name: str
    shift: int  # the index is bits shift to shift + 8 of the virtual address
    may_map: bool  # whether an entry with PS set maps a page

    @property
    def page_size(self) -> int:
        """Bytes of virtual memory under one entry."""
        return 1 << self.shift


LEVELS = (Level("PML4", 39, False), Level("PDPT", 30, True), Level("PD", 21, True), Level("PT", 12, True))
MAPPINGS_TABLES = 1024  # so many tables, and those of the RAM in 4 KiB pages, are read for a list of all mappings
PHYSICAL_BITS = 40  # what this CPU implements; higher address bits in an entry are reserved

_P, _RW, _US, _PS = (bit.mask for bit in (PageTableEntry.P, PageTableEntry.RW, PageTableEntry.US, PageTableEntry.PS))
_NX, _A, _D = (bit.mask for bit in (PageTableEntry.NX, PageTableEntry.A, PageTableEntry.D))
_ADDRESS = PageTableEntry.ADDRESS_MASK
_TOO_HIGH = _ADDRESS & ~((1 << PHYSICAL_BITS) - 1)


@dataclass(frozen=True)
class PagingControls:
    """The control registers that decide what the tables mean."""

    cr3: int
    cr0: int = int(Cr0.of("PE", "WP", "PG"))
    cr4: int = int(Cr4.of("PAE"))
    efer: int = int(Efer.of("LME", "LMA", "NXE"))


@dataclass(frozen=True)
class WalkStep:
    """One table read of a walk: ``entry`` is number ``index`` of the table at physical address ``table``."""

    level: Level
    table: PhysAddr
    index: int
    entry: PageTableEntry

    @property
    def address(self) -> PhysAddr:
        """Where the entry lies in RAM."""
        return self.table + 8 * self.index

    @property
    def maps_page(self) -> bool:
        """Whether the walk ends here with a page."""
        return bool(self.entry.P and (self.level.shift == 12 or (self.level.may_map and self.entry.PS)))

    def __str__(self) -> str:
        return f"{self.level.name}[{self.index}] at {self.address} = {self.entry}"


@dataclass(frozen=True)
class Resolution:
    """How the processor would answer one access: a physical address, or the page fault's error code and why."""

    physical: PhysAddr | None
    steps: tuple[WalkStep, ...]
    error_code: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Mapping:
    """Virtual bytes ``start`` up to ``end`` on physical ones from ``physical`` on, all with the same rights."""

    start: VirtAddr
    end: VirtAddr
    physical: PhysAddr
    page_size: int
    writable: bool
    executable: bool
    user: bool

    @property
    def rights(self) -> str:
        """``r-x`` and the like, with ``u`` where user mode may use the pages."""
        return f"r{'w' if self.writable else '-'}{'x' if self.executable else '-'}{'u' if self.user else '-'}"

    def __str__(self) -> str:
        return f"{self.start}-{self.end} {self.rights} -> {self.physical} ({self.page_size >> 10} KiB pages)"


class Paging:
    """The tables under a CR3.

    ``controls`` is fixed, or a function that gives the present control registers, as of a running CPU.
    ``allocate`` returns the physical address of a fresh frame (4096 bytes, any contents) when a table is needed.
    """

    def __init__(
        self,
        memory: PhysicalMemory,
        controls: PagingControls | Callable[[], PagingControls],
        allocate: Callable[[], int] | None = None,
    ) -> None:
        self.memory = memory
        self.allocate = allocate
        self._controls = controls

    @property
    def controls(self) -> PagingControls:
        """The control registers that are in force."""
        return self._controls if isinstance(self._controls, PagingControls) else self._controls()

    # --- reading ---------------------------------------------------------------------------------------------

    def walk(self, virtual: int) -> list[WalkStep]:
        """Every table entry that the processor would read for ``virtual``, PML4 first, as far as the walk comes."""
        return self._walk(virtual, self.controls.cr3)

    def _walk(self, virtual: int, cr3: int) -> list[WalkStep]:
        steps: list[WalkStep] = []
        table = PhysAddr(cr3 & _ADDRESS)
        for level in LEVELS:
            index = virtual >> level.shift & (ENTRIES_PER_TABLE - 1)
            in_ram = self.memory.contains(table, PAGE_SIZE)
            entry = PageTableEntry(self.memory.words[(table >> 3) + index] if in_ram else 0)
            steps.append(WalkStep(level, table, index, entry))
            if not entry & _P or (level.may_map and entry & _PS):
                break
            table = PhysAddr(entry & _ADDRESS)
        return steps

    def reach(self, virtual: int, write: bool, cr3: int) -> int | None:
        """The physical address of a supervisor's access where nothing about it is remarkable, else None.

        The quick answer for the processor's own accesses: every entry is present, accessed and, for a write,
        writable and dirty; then :meth:`resolve` would say the same, under NXE and without SMAP.
        """
        if (virtual + (1 << 47)) & U64 >= 1 << 48:
            return None
        words = self.memory.words
        wanted = _P | _A | _RW if write else _P | _A
        table = cr3 & _ADDRESS
        for shift in (39, 30, 21, 12):
            at = (table >> 3) + (virtual >> shift & 511)
            if at >= len(words):
                return None
            entry = words[at]
            if entry & wanted != wanted or entry & _TOO_HIGH:
                return None
            if shift == 12 or entry & _PS:
                offset_mask = (1 << shift) - 1
                if shift == 39 or (write and not entry & _D) or entry & _ADDRESS & offset_mask:
                    return None
                return entry & _ADDRESS | virtual & offset_mask
            table = entry & _ADDRESS
        return None

    def resolve(self, virtual: int, access: Access = Access.READ, user: bool = False) -> Resolution:
        """What the processor would do with one access, by the present tables and control registers.

        A non-canonical address has no page fault: its resolution has neither a physical address nor an error code.
        """
        if not is_canonical(virtual):
            return Resolution(None, (), 0, "it is not canonical: bits 48-63 do not repeat bit 47")
        controls = self.controls
        no_execute = bool(controls.efer & Efer.NXE.mask)
        fetch = bool(access & Access.EXECUTE)
        code = (PageFaultError.W.mask if access & Access.WRITE else 0) | (PageFaultError.U.mask if user else 0)
        if fetch and no_execute:
            code |= PageFaultError.I.mask
        steps = tuple(self._walk(virtual, controls.cr3))
        for step in steps:
            where = f"{step.level.name}[{step.index}] at {step.address}"
            if not step.entry & _P:
                absent = "" if self.memory.contains(step.table, PAGE_SIZE) else " (the table is not in RAM)"
                return Resolution(None, steps, code, f"{where} = {step.entry} is not present{absent}")
            if _reserved_bits(step, no_execute):
                code |= PageFaultError.RSVD.mask | PageFaultError.P.mask
                return Resolution(None, steps, code, f"{where} = {step.entry} has reserved bits set: "
                                                     f"{_reserved_bits(step, no_execute):#x}")
        denial = _denial(steps, access, user, controls)
        if denial:
            return Resolution(None, steps, code | PageFaultError.P.mask, denial)
        return Resolution(_page_address(steps[-1], virtual), steps)

    def translate(self, virtual: int) -> PhysAddr:
        """The physical address behind ``virtual``, whatever the rights of its page are.

        Raises ``TranslationError`` where no page is mapped.
        """
        if is_canonical(virtual):
            memory, table = self.memory, self.controls.cr3 & _ADDRESS
            for level in LEVELS:                 # as _walk does, without a record of each step
                at = table + 8 * (virtual >> level.shift & (ENTRIES_PER_TABLE - 1))
                entry = memory.u64(at) if memory.contains(at, 8) else 0
                if not entry & _P:
                    break
                table = entry & _ADDRESS
                if level.shift == 12 or (level.may_map and entry & _PS):
                    inside = (1 << level.shift) - 1
                    return PhysAddr((table & ~inside) | (virtual & inside))
        raise TranslationError(virtual, self.resolve(virtual).reason or "no page is mapped there")

    def explain(self, virtual: int, access: str = "read", user: bool = False) -> str:
        """In words, why an access (``read``, ``write`` or ``execute``) at ``virtual`` succeeds or faults."""
        try:
            wanted = Access[access.upper()]
        except KeyError:
            raise UsageError(f"an access is read, write or execute, not {access!r}") from None
        found = self.resolve(virtual, wanted, user)
        who = "user" if user else "supervisor"
        head = f"{who} {access} at {VirtAddr(virtual)}"
        if found.physical is None:
            return f"{head} faults: {found.reason}"
        page = found.steps[-1].level.page_size
        size = {PAGE_SIZE: "4 KiB", LARGE_PAGE_SIZE: "2 MiB"}.get(page, "1 GiB")
        return f"{head} reaches physical {found.physical} through a {size} page: " + ", ".join(map(str, found.steps))

    def can_be_written(self, frame: int) -> bool:
        """Whether any page that maps the 4 KiB frame at physical ``frame`` lets the supervisor write."""
        controls = self.controls
        needed = np.uint64(_P | _RW if controls.cr0 & Cr0.WP.mask else _P)
        ram = self.memory.array().view(np.uint64)
        tables, seen = [(controls.cr3 & _ADDRESS, 0)], set()
        while tables:
            table, depth = place = tables.pop()
            if place in seen or not self.memory.contains(table, PAGE_SIZE):
                continue
            seen.add(place)
            entries = ram[table >> 3 : (table >> 3) + ENTRIES_PER_TABLE]
            level, allowed = LEVELS[depth], entries[(entries & needed) == needed]
            large = np.uint64(_PS) if level.shift > 12 else np.uint64(0)
            pages = allowed[(allowed & large) == large] if level.may_map else allowed[:0]
            page_mask = np.uint64(_ADDRESS & ~(level.page_size - 1))
            if ((pages & page_mask) == np.uint64(frame & ~(level.page_size - 1))).any():
                return True
            if level.shift > 12:
                below = allowed[(allowed & large) == 0] if level.may_map else allowed
                tables += [(entry & _ADDRESS, depth + 1) for entry in below.tolist()]
        return False

    def mappings(self) -> list[Mapping]:
        """All that is mapped, by ascending address as the processor counts (low half first), adjacent pages merged.

        Raises ``GuestMemoryError`` for tables that map one another, and so the same memory without end.
        """
        merged: list[Mapping] = []
        left = iter(range(MAPPINGS_TABLES + self.memory.size // LARGE_PAGE_SIZE))
        for page in self._leaves(PhysAddr(self.controls.cr3 & _ADDRESS), 0, 0, _RW | _US, left):
            last = merged[-1] if merged else None
            if last is not None and _continues(last, page):
                merged[-1] = Mapping(last.start, page.end, last.physical, page.page_size, page.writable,
                                     page.executable, page.user)
            else:
                merged.append(page)
        return merged

    def _leaves(self, table: PhysAddr, depth: int, base: int, rights: int, left: Iterator[int]) -> Iterator[Mapping]:
        """The pages under one table; ``rights`` is what the levels above allow (RW, US) or forbid (NX).

        ``left`` has one item for each table that may still be read.
        """
        if not self.memory.contains(table, PAGE_SIZE):
            return
        if next(left, None) is None:
            raise GuestMemoryError(table, f"the page tables under CR3 map one another without end, at {table}")
        level = LEVELS[depth]
        entries = np.frombuffer(self.memory.read(table, PAGE_SIZE), dtype=np.uint64)
        for index in np.flatnonzero(entries & np.uint64(_P)).tolist():
            entry = int(entries[index])
            start = base | index << level.shift
            below = (rights & entry & (_RW | _US)) | ((rights | entry) & _NX)
            if level.shift == 12 or (level.may_map and entry & _PS):
                virtual = VirtAddr(canonical(start))
                size = level.page_size
                yield Mapping(virtual, virtual + size, PhysAddr(entry & _ADDRESS & ~(size - 1)), size,
                              bool(below & _RW), not below & _NX, bool(below & _US))
            else:
                yield from self._leaves(PhysAddr(entry & _ADDRESS), depth + 1, start, below, left)

    # --- building --------------------------------------------------------------------------------------------

    def map(self, virtual: int, physical: int, flags: int, size: int = PAGE_SIZE) -> None:
        """Map one page of ``size`` bytes (4 KiB or 2 MiB) at ``virtual``; ``flags`` are bits of its entry.

        P is added, and PS for a large page. Tables are added as needed and allow what their pages may want; the
        last entry decides. Raises ``UsageError`` where a large page or a table is in the way.
        """
        if size not in (PAGE_SIZE, LARGE_PAGE_SIZE):
            raise UsageError(f"a page of {size} bytes: 4096 or 2097152")
        if virtual % size or physical % size or not is_canonical(virtual):
            raise UsageError(f"cannot map {VirtAddr(virtual)} to {PhysAddr(physical)} as a page of {size} bytes")
        table = PhysAddr(self.controls.cr3 & _ADDRESS)
        for level in LEVELS:
            slot = table + 8 * (virtual >> level.shift & (ENTRIES_PER_TABLE - 1))
            entry = self.memory.u64(slot)
            if level.page_size == size:
                large = size == LARGE_PAGE_SIZE
                if large and entry & _P and not entry & _PS:
                    raise UsageError(f"{VirtAddr(virtual)} is already mapped in pages of 4 KiB")
                self.memory.write_u64(slot, physical | flags | _P | (_PS if large else 0))
                return
            if entry & _P and level.may_map and entry & _PS:
                raise UsageError(f"{VirtAddr(virtual)} is already mapped by a large page")
            if not entry & _P:
                entry = self._new_table() | _P | _RW
            self.memory.write_u64(slot, entry | (flags & _US))
            table = PhysAddr(entry & _ADDRESS)

    def map_range(self, virtual: int, physical: int, length: int, flags: int, size: int = PAGE_SIZE) -> None:
        """Map ``length`` bytes, a multiple of ``size``, page by page."""
        for offset in range(0, length, size):
            self.map(virtual + offset, physical + offset, flags, size)

    def unmap(self, virtual: int) -> None:
        """Clear the entry that maps ``virtual``; its tables stay. ``TranslationError`` where nothing is mapped."""
        self.translate(virtual)
        self.memory.write_u64(self.walk(virtual)[-1].address, 0)

    def _new_table(self) -> PhysAddr:
        if self.allocate is None:
            raise UsageError("these page tables have no frame allocator: give one to add tables")
        frame = PhysAddr(self.allocate())
        self.memory.write(frame, bytes(PAGE_SIZE))
        return frame


def _page_address(step: WalkStep, virtual: int) -> PhysAddr:
    offset = virtual & (step.level.page_size - 1)
    return PhysAddr((step.entry & _ADDRESS & ~(step.level.page_size - 1)) | offset)


def _reserved_bits(step: WalkStep, no_execute: bool) -> int:
    """The set bits of a present entry that must be zero."""
    wrong = int(step.entry) & _TOO_HIGH
    if not no_execute:
        wrong |= int(step.entry) & _NX
    if not step.level.may_map:
        wrong |= int(step.entry) & _PS
    if step.maps_page and step.level.shift > 12:
        wrong |= int(step.entry) & _ADDRESS & (step.level.page_size - 1) & ~PAGE_SIZE  # bit 12 is PAT
    return wrong


def _denial(steps: tuple[WalkStep, ...], access: Access, user: bool, controls: PagingControls) -> str:
    """Why a present page refuses the access, naming the entry that decides; empty when it does not."""

    def first(mask: int, value: int) -> str:
        return next((str(step) for step in steps if int(step.entry) & mask == value), "")

    if user and first(_US, 0):
        return f"{first(_US, 0)} is for the supervisor only"
    if access & Access.WRITE and first(_RW, 0) and (user or controls.cr0 & Cr0.WP.mask):
        return f"{first(_RW, 0)} is not writable"
    if access & Access.EXECUTE and controls.efer & Efer.NXE.mask and first(_NX, _NX):
        return f"{first(_NX, _NX)} forbids execution (NX)"
    if not user and not first(_US, 0):
        if access & Access.EXECUTE and controls.cr4 & Cr4.SMEP.mask:
            return "the page belongs to user mode, and SMEP forbids the supervisor to execute it"
        if access & (Access.READ | Access.WRITE) and controls.cr4 & Cr4.SMAP.mask:
            return "the page belongs to user mode, and SMAP forbids the supervisor to touch it"
    return ""


def _continues(last: Mapping, page: Mapping) -> bool:
    return (last.end == page.start and last.physical + (last.end - last.start) == page.physical
            and (last.page_size, last.writable, last.executable, last.user)
            == (page.page_size, page.writable, page.executable, page.user))


class VirtualMemory(ByteAccess):
    """Guest memory by virtual address, through the present page tables, over page edges.

    It answers like a debugger: wherever a page is mapped it reads and writes, whatever the page's rights are.
    """

    def __init__(self, memory: PhysicalMemory, paging: Paging) -> None:
        self.memory = memory
        self.paging = paging

    def read(self, address: int, size: int) -> bytes:
        first = self.paging.translate(address)
        if (address & (PAGE_SIZE - 1)) + size <= PAGE_SIZE:
            return self.memory.read(first, size)
        return b"".join(self.memory.read(physical, length) for physical, length in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        done = 0
        for physical, length in list(self._pieces(address, len(data))):
            self.memory.write(physical, data[done : done + length])
            done += length

    def _pieces(self, address: int, size: int) -> Iterator[tuple[PhysAddr, int]]:
        """The physical ranges behind ``size`` bytes, split at page edges."""
        while size > 0:
            length = min(PAGE_SIZE - address % PAGE_SIZE, size)
            yield self.paging.translate(address), length
            address, size = address + length, size - length
