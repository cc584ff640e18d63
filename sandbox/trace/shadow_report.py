"""What is said about a wrong access: one sentence, and the whole story in sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..abi import DIRECT_MAP
from ..errors import GuestMemoryError, ShadowError
from ..guest.autopsy import Autopsy
from ..guest.symbols import Symbols
from ..layout import Writable
from ..toolchain.source import SourceLine
from ..x86 import REGISTERS
from .builder import Names
from .callers import LIBRARY, caller
from .shadow_instruction import Seen
from .shadow_objects import Cause, Held, ObjectTable, Span
from .shadow_states import ShadowKind, State

ROW = 16
ROWS_AROUND = 2
STEP = 8
"""How near to a live object a byte that nobody else ever had is where an index of one too many, or too few, leads."""
OURS = (LIBRARY, "kernel_asm/")
"""How the names of the sources begin that no user wrote."""

_STATES = {State.UNWRITTEN: "never written", State.METADATA: "the allocator's own data",
           State.PADDING: "behind the bytes that were asked for", State.OUTSIDE: "of no object", State.FREE: "free"}


@dataclass(frozen=True)
class Access:
    """What happened: ``first`` is the physical address of the first guilty byte, ``offset`` where it lies in the
    access of ``size`` bytes, ``virtual`` its virtual address, ``state`` its state before. For a free, ``virtual``
    is the pointer, ``cache`` the cache that was named, and ``cause`` the call."""

    kind: ShadowKind
    access: str
    first: int
    virtual: int
    size: int
    offset: int
    state: State
    cache: int | None = None
    cause: Cause | None = None


_VERBS = {"ksize": "asks for the size of", "krealloc": "reallocates"}
"""What a call that is judged as a free is, where it is none."""


class Owner(NamedTuple):
    """The object that a byte belongs to, or lies nearest to: ``number`` counts the slab's objects. ``pointer`` is its
    virtual address where the direct map does not say it."""

    span: Span | None
    number: int
    start: int
    size: int
    held: Held | None
    pointer: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether a caller has it."""
        return self.held is not None and self.held.live and not self.held.own

    def distance(self, address: int) -> int | None:
        """How far behind its end, or, negative, before its start; None inside."""
        if address >= self.start + self.size:
            return address - self.start - self.size
        return address - self.start if address < self.start else None


FindMore = Callable[[int], "Owner | None"]
"""Finds the object of another allocator at a physical address."""


class Reporter:
    """Makes errors out of accesses."""

    def __init__(self, table: ObjectTable, symbols: Symbols, memory: Writable, names: Names) -> None:
        self.find_more: FindMore | None = None
        self.physical: Callable[[int], int] = lambda pointer: pointer - DIRECT_MAP
        self.verbs = dict(_VERBS)
        self._table = table
        self._symbols = symbols
        self._memory = memory
        self._names = names
        self._autopsy = Autopsy(memory, symbols)

    # -- which object -----------------------------------------------------------------------------------------
    def owner(self, address: int) -> Owner | None:
        """The object at, or next to, a physical address; the one in front of it where two are as near."""
        more = self.find_more(address) if self.find_more is not None else None
        if more is not None:
            return more
        span = self._table.span(address)
        if span is None:
            before = self._table.span(address - 1) or self._table.span(address - 4096)
            return self._object(before, before.objects - 1) if before is not None and before.start < address else None
        index = (address - span.first) // span.step
        near = [self._object(span, at) for at in (index - 1, index, index + 1) if 0 <= at < span.objects]
        return min(near, key=lambda owner: _gap(span, owner, address), default=None)

    def judge(self, state: State, address: int, virtual: int,
              bases: tuple[int, ...]) -> tuple[ShadowKind, Owner | None]:
        """What is wrong with touching the byte at the physical ``address``, in that state, and the object that is
        concerned. ``bases`` are the registers with whose help the instruction found it."""
        if state == State.UNWRITTEN:
            return ShadowKind.UNINITIALIZED_READ, self.owner(address)
        left = self.live_neighbour(bases, address, virtual)
        if left is not None:
            return ShadowKind.OUT_OF_BOUNDS, left
        owner = self.owner(address)
        if state & State.METADATA:
            shared = owner is not None and owner.is_live and owner.distance(address) is None
            left = None if shared else self._beside(address)
            return (ShadowKind.METADATA_WRITE, owner) if left is None else (ShadowKind.OUT_OF_BOUNDS, left)
        if state & (State.PADDING | State.OUTSIDE):
            return ShadowKind.OUT_OF_BOUNDS, owner
        if self.handed_out_before(address):
            return ShadowKind.USE_AFTER_FREE, owner
        return ShadowKind.OUT_OF_BOUNDS, self._beside(address) or self.owner_in_front(address)

    def live_neighbour(self, bases: tuple[int, ...], address: int, virtual: int) -> Owner | None:
        """The live object that a register points to, when the byte at ``address`` is not in it: an access that began
        as one of that object has left it."""
        for base in bases:
            physical = self.physical(base) if base >= DIRECT_MAP else -1
            owner = self.owner(physical) if physical >= 0 else None
            if owner is None or not owner.is_live or owner.distance(physical) is not None:
                continue
            if owner.pointer is not None:        # its pages may lie anywhere: what counts is what the guest sees
                owner = owner._replace(start=address - (virtual - owner.pointer))
            elif virtual != DIRECT_MAP + address:
                continue                         # no distance leads there
            if owner.distance(address) is not None:
                return owner
        return None

    def _beside(self, address: int) -> Owner | None:
        """The live object whose next, or previous, few bytes have the one at ``address``: the nearer one."""
        found = []
        for near in (address, address + STEP):
            owner = self.owner(near)
            distance = None if owner is None else owner.distance(address)
            if owner is not None and owner.is_live and distance is not None and -STEP <= distance < STEP:
                found.append((abs(distance), distance >= 0, owner))
        return min(found, key=lambda each: each[:2], default=(0, False, None))[2]

    def owner_in_front(self, address: int) -> Owner | None:
        """The last object before ``address`` that was ever handed out, in its slab or the frame before; else what
        :meth:`owner` says."""
        span = self._table.span(address)
        if span is not None:
            for index in range(min((address - span.first) // span.step, span.objects - 1), -1, -1):
                owner = self._object(span, index)
                if owner.held is not None:
                    return owner
        return self.owner(address)

    def handed_out_before(self, address: int) -> bool:
        """Whether the free byte at ``address`` ever had an owner."""
        owner = self.owner(address)
        if owner is not None and owner.held is not None and owner.distance(address) is None:
            return True
        return self._table.span(address) is None and (address >> 12) in self._table.pages

    def _object(self, span: Span, index: int) -> Owner:
        start = span.first + index * span.step
        held = self._table.objects.get(start)
        return Owner(span, index, start, span.given if held is None else held.asked, held)

    # -- the error --------------------------------------------------------------------------------------------
    def error(self, access: Access, owner: Owner | None, seen: Seen, registers: Mapping[str, int],
              instruction: int) -> ShadowError:
        """The error for an access by the instruction ``seen``, before which the clock was ``instruction``."""
        distance = owner.distance(access.first) if owner is not None and access.kind in (
            ShadowKind.OUT_OF_BOUNDS, ShadowKind.INVALID_FREE) else None
        frames = self._autopsy.backtrace(registers)
        told = f"{access.kind}: {seen.location} {self._verb(access)}{self._relation(access, owner)}"
        callers: Sequence[str] = frames[1:] if _is_ours(seen.location.source) else ()
        if access.kind is ShadowKind.OVERLAP and access.cause is not None:
            callers = self._names.stack(access.cause.stack)
        sentence = f"{told}{self._said(', called by {}', callers)}"
        report = "\n\n".join("\n".join(section) for section in (
            [sentence, f"at instruction {instruction:,}"], self._instruction(seen, registers),
            ["called from", *(f"  {frame}" for frame in frames[1:])] if len(frames) > 1 else [],
            self._object_section(access, owner), self._history("allocated", owner and owner.held and
                                                               owner.held.allocated),
            self._history("freed", self._freed(access, owner)),
            self._history("handed out now", access.cause if access.kind is ShadowKind.OVERLAP else None),
            list(self._bytes(access, owner))) if section)
        return ShadowError(sentence, kind=str(access.kind), address=access.virtual, access=access.access,
                           size=access.size, distance=distance,
                           object=None if owner is None else self._address(owner), report=report,
                           registers=registers, backtrace=frames, instruction=instruction)

    def _verb(self, access: Access) -> str:
        where = f"0x{access.virtual:016x}"
        if access.access == "free":
            function = self._symbols.locate(access.cause.function).symbol if access.cause is not None else ""
            return f"{self.verbs.get(function, 'frees')} {where}"
        if access.kind is ShadowKind.OVERLAP:
            return f"hands out {access.size} bytes at {where}"
        behind = f" (byte {access.offset} of {access.size})" if access.size > 1 else ""
        return f"{access.access}s {where}{behind}"

    def _relation(self, access: Access, owner: Owner | None) -> str:
        if access.kind is ShadowKind.METADATA_WRITE:
            handed = owner is not None and owner.held is not None and not owner.held.own \
                and owner.distance(access.first) is None
            shared = f", and it was handed out as {self._name(owner)}" if handed and owner is not None else ""
            return f", {self._symbol_or(access.virtual)} of the allocator's own data{shared}"
        if owner is None:
            return ", where no object is"
        if access.kind is ShadowKind.OVERLAP:
            cause = None if owner.held is None else owner.held.allocated
            holder = self._said(" that {} allocated", [] if cause is None else self._names.stack(cause.stack))
            return f", which overlap {self._name(owner)}{holder}, which is still in use"
        text = f", {self._place(access, owner)} {self._name(owner)}"
        if access.kind is ShadowKind.WRONG_CACHE and owner.span is not None:
            return f"{text}, into the cache at 0x{access.cache or 0:x}"
        freed = self._freed(access, owner)
        if access.kind in (ShadowKind.USE_AFTER_FREE, ShadowKind.DOUBLE_FREE) and freed is not None:
            return f"{text}, freed at instruction {freed.instruction:,}"
        return f"{text}, on the allocator's own data" if access.state & State.METADATA else text

    @staticmethod
    def _place(access: Access, owner: Owner) -> str:
        distance = owner.distance(access.first)
        if distance is None:
            offset = access.first - owner.start
            return f"byte {offset} of" if offset or access.access != "free" else "which is"
        if distance < 0:
            return f"{-distance} byte{'s' * (distance < -1)} before"
        return "right behind" if distance == 0 else f"{distance} byte{'s' * (distance > 1)} past the end of"

    def _name(self, owner: Owner) -> str:
        span, held = owner.span, owner.held
        size = f"{owner.size} bytes"
        if span is None:
            return f"the chunk of {size} at 0x{self._address(owner):016x}"
        if not span.name:
            return f"the large allocation of {size} at {self._virtual(owner.start)}"
        never = ", never handed out" if held is None else ""
        return f"object {owner.number} of {span.name} ({size} at {self._virtual(owner.start)}{never})"

    def _symbol_or(self, address: int) -> str:
        location = self._symbols.locate(address)
        return str(location) if location.symbol else "part"

    @staticmethod
    def _said(text: str, frames: Sequence[str]) -> str:
        """A text with the innermost frame of the user's own, ``{}``; nothing where there is none."""
        every = (caller([frame]) for frame in frames)
        his = next((each for each in every if each.file and not each.file.startswith(OURS)), None)
        return "" if his is None else text.format(f"{his.function} ({his.file}:{his.line})")

    @staticmethod
    def _virtual(physical: int) -> str:
        return f"0x{DIRECT_MAP + physical:016x}"

    @staticmethod
    def _address(owner: Owner) -> int:
        """Where the guest has an object."""
        return DIRECT_MAP + owner.start if owner.pointer is None else owner.pointer

    def _freed(self, access: Access, owner: Owner | None) -> Cause | None:
        if owner is not None and owner.held is not None and owner.held.freed is not None and not owner.held.live:
            return owner.held.freed
        return self._table.pages.get(access.first >> 12) if access.state & State.FREE else None

    # -- sections ---------------------------------------------------------------------------------------------
    def _instruction(self, seen: Seen, registers: Mapping[str, int]) -> list[str]:
        lines = ["instruction", f"  0x{seen.address:016x}  {seen.text}"]
        if seen.location.source is not None:
            lines.append(f"  {seen.location.source}: {seen.location.source.text.strip()}")
        shown = [f"{name:>6} 0x{registers[name]:016x}" for name in REGISTERS if name in registers]
        return lines + ["".join(f"  {item}" for item in shown[at : at + 3]) for at in range(0, len(shown), 3)]

    def _object_section(self, access: Access, owner: Owner | None) -> list[str]:
        lines = ["memory", f"  0x{access.virtual:016x} is {_describe(access.state)}"]
        if owner is None:
            return lines
        held = owner.held
        lines.append(f"  {self._place(access, owner)} {self._name(owner)}")
        if held is not None:
            whose = "the allocator's own" if held.own else "live" if held.live else "free"
            lines.append(f"  asked for {held.asked}, given {held.given} bytes; {whose}")
        if owner.span is not None and owner.span.cache:
            lines.append(f"  slab {self._virtual(owner.span.start)}, cache {owner.span.name} at "
                         f"0x{owner.span.cache:016x}")
        return lines

    def _history(self, what: str, cause: Cause | None) -> list[str]:
        if cause is None:
            return []
        name = self._symbols.locate(cause.function).symbol
        return [f"{what} by {name} at instruction {cause.instruction:,}",
                *(f"  {frame}" for frame in self._names.stack(cause.stack))]

    def _bytes(self, access: Access, owner: Owner | None) -> Iterator[str]:
        """Rows around the first guilty byte; ``>`` before it, ``[`` and ``]`` around the object."""
        yield "bytes"
        middle = access.virtual & -ROW
        shift = access.virtual - access.first
        inside = range(0) if owner is None else range(owner.start + shift, owner.start + owner.size + shift)
        for row in range(middle - ROW * ROWS_AROUND, middle + ROW * (ROWS_AROUND + 1), ROW):
            try:
                data = self._memory.read(row, ROW)
            except GuestMemoryError:
                continue
            cells = "".join(_mark(row + at, access.virtual, inside) + f"{byte:02x}" for at, byte in enumerate(data))
            end = "]" if row + ROW == inside.stop and inside else ""
            yield f"  0x{row:016x} {cells}{end}"


def _is_ours(source: SourceLine | None) -> bool:
    return source is not None and source.file.startswith(OURS)


def _mark(address: int, guilty: int, inside: range) -> str:
    if address == guilty:
        return ">"
    if inside and address == inside.start:
        return "["
    return "]" if inside and address == inside.stop else " "


def _describe(state: State) -> str:
    names = [text for bit, text in _STATES.items() if state & bit]
    return ", ".join(names) or "plain memory"


def _gap(span: Span, owner: Owner, address: int) -> int:
    """Bytes between an object, what its caller did not ask for included, and an address."""
    offset = address - owner.start
    return -offset if offset < 0 else max(offset - span.given + 1, 0)
