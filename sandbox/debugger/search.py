"""Finding the nearest moment at which something happens, by running the past again with hooks.

Forwards the replay stops at the first hit. Backwards one stretch after the other is replayed, from a snapshot to the
next, latest first, and the last hit of a stretch is the answer: a search costs no more than the part of the run that
it has to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from ..address import PAGE_SIZE
from ..errors import GuestMemoryError, TranslationError
from ..guest.travel import Travel
from ..machine.cpu import Cpu
from ..trace.shadow_instruction import Examiner
from .moment import Access
from .moments import Moments

LARGEST_ACCESS = 64
"""Bytes of the largest access of one instruction; one that begins so little before a range may reach into it."""
HIT = "found"
"""The reason of a stop that a search asked for."""


@dataclass(frozen=True)
class Watch:
    """Bytes whose accesses are looked for: a virtual address, a size in bytes, and which kinds of access."""

    address: int
    size: int
    read: bool = False
    write: bool = True


class _Enough(Exception):
    """The search is over."""


class Piece(NamedTuple):
    """The part of a watch that lies in one page."""

    watch: Watch
    address: int
    physical: int
    size: int


class Found(NamedTuple):
    """A hit, as the hooks see it; ``piece`` is None for an address of code."""

    instruction: int
    rip: int
    piece: Piece | None = None
    kind: str = ""
    physical: int = 0
    size: int = 0
    value: int = 0
    by: str = "instruction"


Wanted = Callable[[Found], bool]
"""Asked inside a hook, when the machine stands at what was found."""


@dataclass(frozen=True)
class Hit:
    """A moment that was looked for. ``watch`` and ``access`` are None where an address of code was reached."""

    instruction: int
    rip: int
    watch: Watch | None = None
    access: Access | None = None


def pieces(watches: Iterable[Watch], translate: Callable[[int], int]) -> list[Piece]:
    """Watches by page, through the page tables of this moment; ``TranslationError`` where no page is."""
    found = []
    for watch in watches:
        at, end = watch.address, watch.address + max(watch.size, 1)
        while at < end:
            size = min(end - at, PAGE_SIZE - at % PAGE_SIZE)
            found.append(Piece(watch, at, int(translate(at)), size))
            at += size
    return found


class Search:
    """Searches one guest's past. Afterwards the guest stands somewhere: whoever asks goes where he wants to be."""

    def __init__(self, travel: Travel, moments: Moments, examiner: Examiner) -> None:
        self._travel = travel
        self._moments = moments
        self._cpu: Cpu = travel.machine.cpu
        self._examiner = examiner
        self._rip = self._cpu.register_reader(("rip",))

    def forwards(self, end: int, addresses: Collection[int], watched: Collection[Piece], *, here: bool = False,
                 wanted: Wanted = lambda found: True) -> Found | None:
        """The first hit from where the guest stands to the moment ``end`` that is ``wanted``. The present instruction
        does not count; with ``here`` its accesses do."""
        start = self._travel.machine.instructions
        hits: list[Found] = []

        def hit(found: Found) -> None:
            if hits or not (found.instruction > start or (here and found.kind and found.by == "instruction")):
                return
            if not wanted(found):
                return
            hits.append(found)
            if found.by != "instruction":                # between two instructions, where no hook can ask for a stop
                raise _Enough
            self._travel.machine.request_stop(HIT)

        with self._hooked(addresses, watched, hit), suppress(_Enough):
            self._travel.go(None, end)
        return hits[0] if hits else None

    def backwards(self, position: int, addresses: Collection[int], watched: Collection[Piece],
                  wanted: Callable[[Found], bool] = lambda found: True, earliest: int = 0) -> Found | None:
        """The last hit before the moment ``position`` that is ``wanted``; the past before ``earliest`` need not be
        looked at."""
        last: list[Found] = []

        def hit(found: Found) -> None:
            if wanted(found):
                last[:] = (found,)

        with self._hooked(addresses, watched, hit):
            end = position
            while end > max(self._moments.first.instruction, earliest):
                start = self._moments.before(end - 1)
                self._travel.go(start, end)
                if last:
                    return last[0]
                end = start.instruction
        return None

    def stretch(self, begin: int, end: int, addresses: Collection[int], reached: Callable[[Found], None]) -> int:
        """Run the stretch again that goes from the snapshot before the moment ``begin`` up to ``end``; ``reached``
        hears of each instruction at one of the addresses. Returns where it began."""
        start = self._moments.before(begin - 1)
        with self._hooked(addresses, (), reached):
            self._travel.go(start, end)
        return start.instruction

    def is_first(self, instruction: int) -> bool:
        """Whether nothing was before a moment."""
        return instruction <= self._moments.first.instruction

    @contextmanager
    def _hooked(self, addresses: Collection[int], watched: Collection[Piece], hit: Callable[[Found], None]
                ) -> Iterator[None]:
        machine, cpu = self._travel.machine, self._cpu
        hooks = []

        def reached(address: int) -> None:
            hit(Found(machine.instructions, address))

        def written(address: int, data: bytes, by_processor: bool) -> None:
            for piece in watched:
                if piece.watch.write and address < piece.physical + piece.size and piece.physical < address + len(data):
                    hit(Found(machine.instructions, cpu.view.rip, piece, "write", address, len(data),
                              int.from_bytes(data, "little"), "processor" if by_processor else "python"))

        listeners = machine.memory.listeners
        listeners.append(written)
        try:
            if addresses:
                hooks.append(cpu.hook_code(addresses, reached, replayed=True))
            for piece in watched:
                accessed = self._watcher(piece, hit)
                read, write = piece.watch.read, piece.watch.write
                for begin, end in self._ranges(piece):
                    hooks.append(cpu.hook_memory(begin, end, accessed, read_after=read, write=write, replayed=True))
            yield
        finally:
            listeners.remove(written)
            for hook in hooks:
                hook.remove()

    def _watcher(self, piece: Piece, hit: Callable[[Found], None]) -> Callable[[str, int, int, int], None]:
        """What is called for accesses near a piece."""
        machine = self._travel.machine

        def accessed(kind: str, physical: int, size: int, value: int) -> None:
            if any(at < piece.physical + piece.size and piece.physical < at + length
                   for at, length in self._parts(physical, size)):
                hit(Found(machine.instructions - 1, self._rip()[0], piece, kind.partition(" ")[0], physical, size,
                          value))

        return accessed

    def _ranges(self, piece: Piece) -> list[tuple[int, int]]:
        """Where accesses begin that reach a piece: in its page, or at the end of the page before, which may lie
        elsewhere in RAM."""
        begin, end = piece.physical - (LARGEST_ACCESS - 1), piece.physical + piece.size
        page = piece.physical // PAGE_SIZE * PAGE_SIZE
        if begin >= page:
            return [(begin, end)]
        before = page
        try:
            before = int(self._travel.machine.paging.translate(piece.address // PAGE_SIZE * PAGE_SIZE - 1)) + 1
        except (GuestMemoryError, TranslationError):
            return [(max(begin, 0), end)]
        reach = page - begin
        more = [] if before == page else [(before - reach, before)]
        return [(max(begin, 0), end), *more]

    def _parts(self, physical: int, size: int) -> list[tuple[int, int]]:
        """An access as what it really touches: the engine reports one that crosses into another page as if the next
        frame were the next page."""
        room = PAGE_SIZE - physical % PAGE_SIZE
        if size <= room:
            return [(physical, size)]
        paging, registers = self._travel.machine.paging, self._cpu.registers()
        for address in self._examiner.at(registers["rip"], registers).addresses:
            try:
                if int(paging.translate(address)) == physical:
                    return [(physical, room), (int(paging.translate(address + room)), size - room)]
            except (GuestMemoryError, TranslationError):
                continue
        return [(physical, size)]
