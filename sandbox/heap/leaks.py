"""Leaks: memory that is allocated, and that nothing reaches any more.

The way of Linux's kmemleak (mm/kmemleak.c), which is Boehm's: any aligned word that could be the address of a byte of
an allocation is taken for a pointer to it. From the roots on, everything reached is looked through for more.

- Roots: the processor's registers, the stack that is in use from RSP up, the kernel's and the program's writable data,
  what page tables map besides the direct map, and what the caller of :func:`find_leaks` says he holds.
- Reached through: allocated objects, large allocations, and whole blocks of pages.
- No roots: free objects and magazines, which still hold what they held (a magazine keeps the address of an object that
  it has handed out), the allocator's own structures, and registers that System V lets a call destroy where the guest
  is at rest: nobody will read them.

One word is special. A live object still holds, in its middle, the free pointer that it had when it was taken, and that
leads to its neighbour, which is often the next to be taken: an honest link of a list and an old free pointer are the
same bytes. What only such words lead to is listed as a possible leak, ``certain`` being False. Where free pointers lie
outside of objects (``slab_debug=P``, or Z with U) there is no doubt, and nothing of an object's former life either.

What the allocator has for itself (``struct kmem_cache``, magazines, random orders, page tables) is nobody's leak. Of a
slab whose free list is damaged nothing is listed, and everything is looked through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..abi import (
    DIRECT_MAP,
    IST_STACK_SIZE,
    KERNEL_STACK_SIZE,
    MAXIMUM_RAM,
    PAGE_SHIFT,
    STACKS_BASE,
    PageFlag,
    track,
)
from ..guest.symbols import Symbols
from ..machine.paging import Paging
from ..x86 import GENERAL_REGISTERS
from .reader import Readable
from .rules.evidence import LIVE, UNKNOWN, Evidence, Slab
from .rules.geometry import OWNERS, keeps_size, tracks_at
from .rules.magazines import Magazines
from .rules.record import blocks, decoder
from .rules.slabs import judge_slabs
from .rules.violation import Report

RESTING = frozenset({"kernel_ready", "kernel_idle", "call_return", "debug_exit"})
"""Where the guest waits for a call, or has ended."""
SAVED = frozenset({"rbx", "rbp", "rsp", "r12", "r13", "r14", "r15"})
_USES = int(PageFlag.PG_SLAB | PageFlag.PG_LARGE | PageFlag.PG_TABLE | PageFlag.PG_RESERVED)
_track_record = decoder(track)


@dataclass(frozen=True)
class Allocation:
    """What is known of how something was allocated: the instruction count behind it (None where only the guest's own
    tracks tell), ``function+0x12`` of the call, and the callers, innermost first."""

    instruction: int | None
    call_site: str
    stack: tuple[str, ...]
    requested: int | None = None


@dataclass(frozen=True)
class Leak:
    """An allocation that nothing reaches, or, where it is not ``certain``, nothing but what may be old free pointers.

    ``cache`` is None for whole pages; ``allocation`` is None when no trace recorded it and its cache keeps no owners
    (``slab_debug=U``).
    """

    address: int
    size: int
    cache: str | None
    allocation: Allocation | None
    certain: bool = True

    def __str__(self) -> str:
        whole = f"{self.size} bytes of {self.cache}" if self.cache else f"{self.size} bytes in whole pages"
        leads = "nothing leads" if self.certain else "nothing leads, but what may be an old free pointer,"
        text = f"0x{self.address:016x}: {whole}, and {leads} to it"
        if self.allocation is None:
            return text
        when = "" if self.allocation.instruction is None else f" at instruction {self.allocation.instruction}"
        return f"{text}; allocated{when} by {self.allocation.call_site}"


@dataclass(frozen=True)
class Running:
    """What a booted kernel adds to its bytes: its registers, its page tables, and the allocations that traces have
    recorded, the latest one for each address."""

    registers: Mapping[str, int]
    paging: Paging
    symbols: Symbols
    allocations: Callable[[], Mapping[int, Allocation]]


@dataclass(frozen=True)
class _Block:
    """One allocation: where callers' bytes are, whether it can be a leak, and its object's slab."""

    start: int
    size: int
    candidate: bool
    slab: Slab | None = None
    index: int = 0

    @property
    def has_old_pointer(self) -> bool:
        """Whether the word where the free pointer lay may be one still."""
        slab = self.slab
        return slab is not None and slab.links[self.index] >= 0 and not slab.cache.fields.random and \
            bool(slab.cache.fields.offset < slab.cache.fields.metadata)


def find_leaks(guest: Readable, running: Running, holding: Iterable[int] = ()) -> list[Leak]:
    """Everything allocated that nothing reaches, in order of address; ``holding`` are addresses that do count."""
    evidence = Evidence(guest)
    found = sorted(_allocations(evidence), key=lambda block: block.start)
    roots = [*_roots(evidence, running), _words(holding)]
    certainly, perhaps = _mark(evidence, found, roots, False), _mark(evidence, found, roots, True)
    recorded = running.allocations()
    return [_leak(block, running.symbols, recorded, not maybe)
            for block, known, maybe in zip(found, certainly.tolist(), perhaps.tolist(), strict=True)
            if block.candidate and not known]


# -- what is allocated -----------------------------------------------------------------------------------------------
def _allocations(evidence: Evidence) -> Iterator[_Block]:
    """Live objects, large allocations and blocks of pages; the allocator's own are left out."""
    nobody = Report()
    judge_slabs(evidence, nobody)
    magazines = Magazines(evidence, nobody)
    magazines.judge(())
    own = {evidence.memory.symbol("kmem_cache_cache"), evidence.memory.symbol("magazine_cache")}
    for slab in evidence.slabs.values():
        if slab.cache.address in own:
            continue
        for index, state in enumerate(slab.state):
            start = slab.object(index)
            if state in (LIVE, UNKNOWN) and start not in magazines.owners:
                yield _Block(start, int(slab.cache.fields.object_size), state == LIVE and not slab.broken, slab,
                             index)
    yield from (block for block in _pages(evidence) if block.start not in magazines.owners)


def _pages(evidence: Evidence) -> Iterator[_Block]:
    """Large allocations, and pages that were taken by themselves."""
    flags = evidence.frames["flags"]
    heads = flags & int(PageFlag.PG_HEAD) != 0
    large = flags & int(PageFlag.PG_LARGE) != 0
    for pfn in np.flatnonzero(heads & (large | (flags & _USES == 0))).tolist():
        yield _Block(DIRECT_MAP + (pfn << PAGE_SHIFT), blocks(min(int(evidence.frames["order"][pfn]), 10)), True)


# -- roots -----------------------------------------------------------------------------------------------------------
def _words(values: Iterable[int]) -> npt.NDArray[np.uint64]:
    return np.array([value & (1 << 64) - 1 for value in values], np.uint64)


def _roots(evidence: Evidence, running: Running) -> Iterator[npt.NDArray[np.uint64]]:
    """Every word that is looked at before anything is reached."""
    registers = {name: running.registers[name] for name in (*GENERAL_REGISTERS, "rip")}
    at_rest = running.symbols.locate(registers["rip"]).symbol in RESTING
    yield _words(registers[name] for name in GENERAL_REGISTERS if name in SAVED or not at_rest)
    yield from _stack_words(evidence, registers["rsp"])
    for image in running.symbols.images:
        for section in image.sections:
            if "w" in section.rights:
                yield _read(evidence, section.address, section.end)
    for mapping in running.paging.mappings():
        if not DIRECT_MAP <= mapping.start < DIRECT_MAP + MAXIMUM_RAM and \
                running.symbols.image_at(mapping.start) is None and not _is_stack(mapping.start):
            pages = range(mapping.physical, mapping.physical + mapping.end - mapping.start, 1 << PAGE_SHIFT)
            yield _words(DIRECT_MAP + page for page in pages)


def _is_stack(address: int) -> bool:
    return STACKS_BASE <= address < STACKS_BASE + (1 << 39)


def _stack_words(evidence: Evidence, rsp: int) -> Iterator[npt.NDArray[np.uint64]]:
    """The stack that RSP is on, from RSP up; all of the kernel's own when RSP is on an interrupt's, or nowhere."""
    boot = evidence.boot
    if boot is None:
        return
    tops = [int.from_bytes(boot.ist_top[at : at + 8], "little") for at in range(0, len(boot.ist_top), 8)]
    for top in tops:
        if top - IST_STACK_SIZE <= rsp <= top:
            yield _read(evidence, rsp, top)
    bottom = boot.stack_top - KERNEL_STACK_SIZE
    yield _read(evidence, rsp if bottom <= rsp <= boot.stack_top else bottom, boot.stack_top)


def _read(evidence: Evidence, start: int, end: int) -> npt.NDArray[np.uint64]:
    """The aligned words of a range."""
    start += -start % 8
    data = evidence.memory.read(start, max(end - start & ~7, 0)) or b""
    return np.frombuffer(data, np.dtype("<u8"))


# -- marking ---------------------------------------------------------------------------------------------------------
def _mark(evidence: Evidence, found: list[_Block], roots: list[npt.NDArray[np.uint64]],
          old_pointers: bool) -> npt.NDArray[np.bool_]:
    """Which blocks are reached, in waves: each looks through all that the one before has found. ``old_pointers`` says
    whether words that may be free pointers of a former life count."""
    starts = np.array([block.start for block in found], np.uint64)
    ends = np.array([block.start + block.size for block in found], np.uint64)
    reached = np.zeros(len(found), bool)
    words = np.concatenate(roots)
    while len(words) and len(found):
        at = np.searchsorted(starts, words, "right").astype(np.int64) - 1
        hit = (at >= 0) & (words < ends[at])
        new = np.unique(at[hit])
        new = new[~reached[new]]
        reached[new] = True
        pieces = [piece for index in new.tolist() for piece in _contents(evidence, found[index], old_pointers)]
        words = np.concatenate(pieces) if pieces else words[:0]
    return reached


def _contents(evidence: Evidence, block: _Block, old_pointers: bool) -> Iterator[npt.NDArray[np.uint64]]:
    """The aligned words of an allocation; the one where its free pointer lay only if it counts."""
    slab = block.slab
    if slab is None or slab.data is None:
        yield _read(evidence, block.start, block.start + block.size)
        return
    words = np.frombuffer(slab.data, np.dtype("<u8"), block.size // 8, block.start - slab.address)
    if old_pointers or not block.has_old_pointer:
        yield words
        return
    middle = int(slab.cache.fields.offset) // 8
    yield words[:middle]
    yield words[middle + 1 :]


# -- what is known of a leak -----------------------------------------------------------------------------------------
def _leak(block: _Block, symbols: Symbols, recorded: Mapping[int, Allocation], certain: bool) -> Leak:
    cache = block.slab.cache.name if block.slab else None
    return Leak(block.start, block.size, cache, recorded.get(block.start) or _tracked(block, symbols), certain)


def _tracked(block: _Block, symbols: Symbols) -> Allocation | None:
    """What the guest itself wrote down, with U."""
    slab = block.slab
    if slab is None or slab.data is None or not slab.cache.flags & OWNERS:
        return None
    fields = slab.cache.fields
    at = block.start - slab.address + tracks_at(fields.metadata, fields.offset)
    record = _track_record(slab.data[at : at + track.size])
    if not record.address:
        return None
    asked = at + 2 * track.size
    requested = int.from_bytes(slab.data[asked : asked + 4], "little") if keeps_size(slab.cache.flags) else None
    frames = [int.from_bytes(record.stack[index : index + 8], "little")
              for index in range(0, 8 * min(record.nr, track.stack.count), 8)]
    return Allocation(None, _name(symbols, record.address), tuple(_caller(symbols, frame) for frame in frames),
                      requested)


def _caller(symbols: Symbols, address: int) -> str:
    """A return address in words, with the line of the call before it."""
    return str(replace(symbols.locate(address), source=symbols.line(address - 1)))


def _name(symbols: Symbols, address: int) -> str:
    location = symbols.locate(address)
    return f"{location.symbol}+{location.offset:#x}" if location.symbol else f"0x{address:x}"
