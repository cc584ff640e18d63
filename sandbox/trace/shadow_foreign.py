"""An allocator of the program's own under the shadow, known by the names of its functions alone.

::

    sandbox.boot("seed.asm", shadow=True,
                 allocator={"allocate": "seed_allocate", "deallocate": "seed_deallocate", "init": "seed_new",
                            "refused": 0})

``allocate(size)`` returns a chunk, or 0; ``deallocate(chunk)`` takes one back; ``refused``, if it is given, is what
``deallocate`` returns for a chunk that it does not take, which stays with its owner then; ``init`` makes everything
free, and begins all of this anew.

From the entry of one of them to its return, every access by whatever code is the allocator's. What it writes then is
its own data, except

- bytes that have been part of a chunk before: there it may link what is free;
- bytes of the very chunk that it is about to return, if this call has read or written them: it takes the chunk off
  its list, and leaves the bytes to the new owner.

What stays its own data inside a chunk that it hands out is an overlap: when the owner writes there, that is a
*metadata-write*. A chunk's other bytes are unwritten, unless this call wrote them; a chunk that was taken back must
not be touched; and the bytes behind a chunk up to the next multiple of 8 are its padding.

An allocator that was booted with an arena (``sandbox.boot(allocator=FILE)``) has that too: nobody else may touch a byte
of it that is in no chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..address import PAGE_SIZE, align_up
from ..errors import UsageError
from ..guest.symbols import Symbols
from ..machine.cpu import Cpu
from ..machine.paging import Paging
from ..toolchain.disassembler import Disassembler
from .capture import is_failure
from .ram import Ram
from .shadow_objects import Cause, Held, ObjectTable
from .shadow_report import Owner
from .shadow_states import ShadowKind, State
from .stack import callers

ROLES = ("allocate", "deallocate", "init")
_METADATA, _UNWRITTEN = int(State.METADATA), int(State.UNWRITTEN)
_PADDING, _FREE, _OUTSIDE = int(State.PADDING), int(State.FREE), int(State.OUTSIDE)


class ForeignFunctions(NamedTuple):
    """Whose calls are watched: roles by address, and what ``deallocate`` returns for a refusal, None if it never
    refuses."""

    roles: dict[int, str]
    refused: int | None


class ForeignCall(NamedTuple):
    """A call that has not returned."""

    rsp: int
    role: str
    argument: int
    cause: Cause


class ForeignState(NamedTuple):
    """All of a :class:`Foreign`, as a value."""

    chunks: dict[int, Held]
    once: npt.NDArray[np.intp]
    call: ForeignCall | None
    seen: tuple[tuple[int, int, bool], ...]


def functions(allocator: Mapping[str, str | int], symbols: Symbols) -> ForeignFunctions:
    """Read an ``allocator`` option; :class:`UsageError` for what it cannot mean."""
    unknown = set(allocator) - {*ROLES, "refused"}
    if unknown or "allocate" not in allocator:
        raise UsageError(f"an allocator has the names of its functions allocate, deallocate and init, and what "
                         f"deallocate returns when it has refused; not {', '.join(sorted(unknown)) or 'less'}")
    refused = allocator.get("refused")
    if refused is not None and not isinstance(refused, int):
        raise UsageError(f"refused is the number that deallocate returns, not {refused!r}")
    return ForeignFunctions({int(symbols[str(allocator[role])]): role for role in ROLES if role in allocator}, refused)


class Foreign:
    """The chunks and the data of one such allocator."""

    def __init__(
        self, known: ForeignFunctions, table: ObjectTable, ram: Ram, at_entry: Callable[[], tuple[int, ...]],
        at_exit: Callable[[], tuple[int, ...]], clock: Callable[[], int],
        accuse: Callable[[ShadowKind, int, int | None, Cause], None], divert: Callable[[bool], None],
        arena: range = range(0),
    ) -> None:  # fmt: skip
        self.chunks: dict[int, Held] = {}
        self._known = known
        self._table = table
        self._ram = ram
        self._at_entry = at_entry
        self._at_exit = at_exit
        self._clock = clock
        self._accuse = accuse
        self._divert = divert
        self._once: npt.NDArray[np.uint8] = np.zeros(len(table.shadow), np.uint8)     # 1: was part of a chunk
        self._call: ForeignCall | None = None
        self._seen: list[tuple[int, int, bool]] = []    # what the present call has touched, and whether it wrote
        self._cr3 = 0
        self._arena = arena
        self._begin_arena()

    @property
    def inside(self) -> bool:
        """Whether one of the functions is running."""
        return self._call is not None

    def hook(self, cpu: Cpu, symbols: Symbols) -> None:
        """Watch the functions, and every ``ret`` by which they may return."""
        disassembler = Disassembler()
        images = [image for image in symbols.images
                  if any(symbols.image_at(address) is image for address in self._known.roles)]
        cpu.hook_code(self._known.roles, self.enter, replayed=True)
        cpu.hook_code([at for image in images for at in disassembler.rets(image)], self.leave, replayed=True)

    def data(self, symbols: Symbols, paging: Paging) -> list[tuple[int, int]]:
        """The physical ranges of the programs' writable data, page by page, and the arena."""
        found = [(self._arena.start, self._arena.stop)] if self._arena else []
        self._table.touched.update(range(self._arena.start // PAGE_SIZE, self._arena.stop // PAGE_SIZE))
        for image in symbols.images[1:]:
            section = image.section("data")
            for at in range(section.address, section.end, PAGE_SIZE) if section is not None else ():
                physical = int(paging.translate(at))
                found.append((physical, physical + PAGE_SIZE))
                self._table.touched.add(physical // PAGE_SIZE)
        return found

    def physical(self, pointer: int) -> int:
        """Where a pointer points to, -1 where no RAM is."""
        return self._ram.translate(pointer, self._cr3)

    def find(self, address: int) -> Owner | None:
        """The chunk that a physical address lies in; in the arena, the last one before it where none does."""
        for start, held in self.chunks.items():
            if start <= address < start + align_up(held.asked, 8):
                return Owner(None, 0, start, held.asked, held)
        before = max((start for start in self.chunks if start <= address), default=None)
        if before is None or address not in self._arena:
            return None
        return Owner(None, 0, before, self.chunks[before].asked, self.chunks[before])

    # -- hooks ------------------------------------------------------------------------------------------------
    def enter(self, address: int) -> None:
        """One of the functions begins; a call among themselves is part of the first."""
        rdi, _, _, rsp, rbp, self._cr3 = self._at_entry()
        if self._call is not None and self._call.rsp > rsp:
            return
        role = self._known.roles[address]
        cause = Cause(address, self._clock(), callers(self._ram, rsp, rbp, self._cr3))
        if role == "deallocate" and rdi:
            held = self.chunks.get(self.physical(rdi))
            if held is None or not held.live:
                self._accuse(ShadowKind.INVALID_FREE if held is None else ShadowKind.DOUBLE_FREE, rdi, None, cause)
        if role == "init":
            self._begin()
        self._call = ForeignCall(rsp, role, rdi, cause)
        self._seen.clear()
        self._divert(True)

    def touched(self, address: int, size: int, write: bool) -> None:
        """The allocator reads or writes; what it writes is its own unless it was a chunk's."""
        self._seen.append((address, size, write))
        if write:
            states = self._table.shadow[address : address + size]
            states[self._once[address : address + size] == 0] = _METADATA

    def leave(self, _address: int) -> None:
        """A ``ret`` is about to run."""
        call = self._call
        if call is None:
            return
        rax, rsp = self._at_exit()
        if rsp < call.rsp:
            return
        self._call = None
        self._divert(False)
        if rsp != call.rsp:
            return
        if call.role == "allocate" and not is_failure(rax):
            self._handed_out(self.physical(rax), call)
        elif call.role == "deallocate" and call.argument and rax != self._known.refused:
            self._taken_back(self.physical(call.argument), call.cause)

    # -- chunks -----------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        """Nobody holds anything, and nothing is known to be the allocator's."""
        self._table.shadow[self._once != 0] = 0
        for start, held in self.chunks.items():
            self._table.shadow[start : start + align_up(held.asked, 8)] = 0
        self._once[:] = 0
        self.chunks.clear()
        self._begin_arena()

    def _begin_arena(self) -> None:
        self._table.shadow[self._arena.start : self._arena.stop] = int(State.OUTSIDE)

    def _handed_out(self, start: int, call: ForeignCall) -> None:
        asked = call.argument
        if start < 0 or not 0 < asked <= len(self._once) - start:
            return
        states = self._table.shadow[start : start + asked]
        left = (states & _METADATA).astype(bool)
        written = np.zeros(asked, bool)
        for address, size, write in self._seen:
            first, end = max(address - start, 0), min(address + size - start, asked)
            if first < end:
                left[first:end] = False
                written[first:end] |= write
        states[:] = np.where(left, _METADATA, np.where(written, 0, _UNWRITTEN))
        self._once[start : start + asked] = 1
        padding = self._table.shadow[start + asked : align_up(start + asked, 8)]
        padding[(padding == 0) | (padding == _FREE) | (padding == _OUTSIDE)] = _PADDING
        self.chunks[start] = Held(asked, asked, True, False, call.cause)

    def _taken_back(self, start: int, cause: Cause) -> None:
        held = self.chunks.get(start)
        if held is None or not held.live:
            return
        states = self._table.shadow[start : align_up(start + held.asked, 8)]
        states[states != _METADATA] = _FREE
        self.chunks[start] = held._replace(live=False, freed=cause)

    # -- as a value -------------------------------------------------------------------------------------------
    def state(self) -> ForeignState:
        """All of it."""
        return ForeignState(dict(self.chunks), np.flatnonzero(self._once), self._call, tuple(self._seen))

    def load(self, state: ForeignState | None) -> None:
        """Become what :meth:`state` said; without one, nothing is known of the allocator."""
        self._once[:] = 0
        self.chunks, self._call, self._seen = {}, None, []
        if state is None:
            self._begin_arena()
        else:
            self.chunks, self._call, self._seen = dict(state.chunks), state.call, list(state.seen)
            self._once[state.once] = 1
        self._divert(self._call is not None)
