"""Delivery of exceptions and interrupts: what the processor does between an event and the handler's first instruction.

Intel SDM volume 3A, chapter 6: 6.14 (64-bit mode), 6.13 (error codes), 6.15 and table 6-5 (double faults). Every event
comes through here, whether an instruction, a device or Python caused it. The IDT, the GDT, the TSS and the stack are
reached through the guest's page tables with the processor's own rights, and their accessed and dirty bits are set as
the processor sets them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ..address import PAGE_SIZE, is_canonical
from ..x86 import (
    CONTRIBUTORY,
    EXCEPTIONS,
    Access,
    Cr4,
    Efer,
    ExceptionClass,
    PageTableEntry,
    Rflags,
    SegmentDescriptor,
    SystemType,
    Tss,
    Vector,
    describe_exception,
)
from .context import HFLAGS_ADDSEG, HFLAGS_CS32, HFLAGS_CS64, HFLAGS_SS32, INHIBIT_INTERRUPTS, RegisterView
from .memory import PhysicalMemory
from .paging import Paging

_GATE = struct.Struct("<HHBBHII")
_CLEARED: int = Rflags.of("TF", "NT", "RF", "VM")
_ACCESSED, _DIRTY = PageTableEntry.A.mask, PageTableEntry.D.mask
_IF, _RF, _NXE, _SMAP = Rflags.IF.mask, Rflags.RF.mask, Efer.NXE.mask, Cr4.SMAP.mask
_INTERRUPT_GATE, _TRAP_GATE = int(SystemType.INTERRUPT_GATE), int(SystemType.TRAP_GATE)
_WITH_ERROR_CODE = frozenset(row.vector for row in EXCEPTIONS if row.has_error_code)
_FAULTS = frozenset(row.vector for row in EXCEPTIONS if row.kind is ExceptionClass.FAULT)
_TYPE_ACCESSED = 1 << 8  # in the second u32 of a descriptor
_IDT, _EXT = 2, 1  # bits of a selector error code


class Event(NamedTuple):
    """Something to deliver. ``software`` is an ``int n`` instruction, which began at ``instruction``."""

    vector: int
    error_code: int | None = None
    cr2: int = 0
    software: bool = False
    instruction: int = 0

    @classmethod
    def exception(cls, vector: int, error_code: int = 0, cr2: int = 0) -> Event:
        """An exception, with an error code if its vector has one."""
        return cls(vector, error_code if vector in _WITH_ERROR_CODE else None, cr2)

    def __str__(self) -> str:
        return describe_exception(self.vector, self.error_code or 0, self.cr2)


@dataclass(frozen=True)
class TripleFault:
    """A fault in the delivery of a double fault: the processor shuts down. The events are in order."""

    rip: int
    events: tuple[Event, ...]

    def __str__(self) -> str:
        return f"triple fault at {self.rip:#x}: " + "; then ".join(map(str, self.events))


class _Fault(Exception):
    """An exception that delivery itself raises."""

    def __init__(self, vector: int, error_code: int, cr2: int = 0) -> None:
        super().__init__()
        self.event = Event.exception(vector, error_code, cr2)


class _CodeSegment(NamedTuple):
    """A decoded descriptor; ``bits`` is its second u32."""

    raw: int
    bits: int
    is_code64: bool
    conforming: bool
    present: bool
    dpl: int


@lru_cache(maxsize=64)
def _decode(raw: int) -> _CodeSegment:
    entry = SegmentDescriptor(raw)
    return _CodeSegment(raw, raw >> 32, bool(entry.is_code and entry.L and not entry.DB), entry.conforming,
                        bool(entry.P), entry.DPL)  # fmt: skip


class Delivery:
    """Enters handlers by changing ``view`` (the caller loads it into the CPU) and guest memory."""

    def __init__(self, memory: PhysicalMemory, paging: Paging, view: RegisterView) -> None:
        self.memory = memory
        self.paging = paging
        self.view = view
        self._cr3 = -1  # where the quick walk is right, CR3 during a delivery

    def deliver(self, event: Event) -> TripleFault | None:
        """Enter the handler of ``event``, or of the double fault that trying to causes."""
        view = self.view
        plain = view.efer & _NXE and not view.control(4) & _SMAP
        self._cr3 = view.control(3) if plain else -1
        events = [event]
        while True:
            current = events[-1]
            try:
                self._enter(current, external=not event.software or len(events) > 1)
                return None
            except _Fault as fault:
                events.append(fault.event)
            if event.software:
                self.view.rip = event.instruction
            if current.vector == Vector.DF:
                return TripleFault(self.view.rip, tuple(events))
            if _doubles(current, events[-1]):
                if events[-1].vector == Vector.PF:
                    self.view.set_cr2(events[-1].cr2)
                events.append(Event.exception(Vector.DF))

    def _enter(self, event: Event, external: bool) -> None:
        """One attempt: change nothing in ``view`` before all that can fail is done."""
        view, cpl = self.view, self.view.cpl
        ext = _EXT if external else 0
        if event.vector == Vector.PF and event.error_code is not None and not event.software:
            view.set_cr2(event.cr2)
        gate_error = event.vector << 3 | _IDT | ext
        handler, selector, ist, attributes = self._gate(event.vector, gate_error)
        if event.software and attributes >> 5 & 3 < cpl:
            raise _Fault(Vector.GP, gate_error)
        if not attributes & 0x80:
            raise _Fault(Vector.NP, gate_error)
        code = self._code_segment(selector, cpl, ext)
        new_cpl = cpl if code.conforming else code.dpl
        stack = self._stack(ist, new_cpl, cpl, ext)
        frame = [view.rip, view.selector("cs"), self._saved_flags(event), view.rsp, view.selector("ss")]
        if event.error_code is not None:
            frame.insert(0, event.error_code)
        stack = (stack & ~0xF) - 8 * len(frame)
        self._push(stack, frame, new_cpl == 3, ext)
        if not is_canonical(handler):
            raise _Fault(Vector.GP, ext)
        view.rsp = stack
        view.rip = handler
        view.rflags &= ~(_CLEARED | (_IF if attributes & 0xF == _INTERRUPT_GATE else 0))
        view.set_segment("cs", selector & ~3 | new_cpl, 0, 0xFFFF_FFFF, code.bits)
        if new_cpl != cpl:
            view.set_segment("ss", new_cpl, 0, 0, new_cpl << 13)
        view.hflags = (
            view.hflags & ~(3 | INHIBIT_INTERRUPTS | HFLAGS_ADDSEG) | new_cpl | HFLAGS_CS64 | HFLAGS_CS32 | HFLAGS_SS32
        )

    def _gate(self, vector: int, error: int) -> tuple[int, int, int, int]:
        """Handler, selector, IST index and attribute byte of an interrupt or trap gate."""
        table = self.view.idtr
        if vector * 16 + 15 > table.limit:
            raise _Fault(Vector.GP, error)
        low, selector, ist, attributes, middle, high, _ = _GATE.unpack(self._read(table.base + vector * 16, 16))
        if attributes & 0x1F not in (_INTERRUPT_GATE, _TRAP_GATE):
            raise _Fault(Vector.GP, error)
        return low | middle << 16 | high << 32, selector, ist & 7, attributes

    def _code_segment(self, selector: int, cpl: int, ext: int) -> _CodeSegment:
        error = selector & 0xFFFC | ext
        if not selector & 0xFFFC:
            raise _Fault(Vector.GP, ext)
        table = self.view.ldtr if selector & 4 else self.view.gdtr
        if (selector | 7) > table.limit:
            raise _Fault(Vector.GP, error)
        at = table.base + (selector & 0xFFF8)
        code = _decode(int.from_bytes(self._read(at, 8), "little"))
        if not code.is_code64 or cpl < code.dpl:
            raise _Fault(Vector.GP, error)
        if not code.present:
            raise _Fault(Vector.NP, error)
        if not code.bits & _TYPE_ACCESSED:
            code = _decode(code.raw | _TYPE_ACCESSED << 32)
            self._write(at, code.raw.to_bytes(8, "little"))
        return code

    def _stack(self, ist: int, new_cpl: int, cpl: int, ext: int) -> int:
        """The stack pointer to push on: from the TSS for an IST gate or a more privileged handler."""
        if ist:
            offset = Tss.ist.offset + 8 * (ist - 1)
        elif new_cpl < cpl:
            offset = Tss.rsp.offset + 8 * new_cpl
        else:
            return self.view.rsp
        task = self.view.tr
        if offset + 7 > task.limit:
            raise _Fault(Vector.TS, self.view.task_selector & 0xFFFC | ext)
        stack = int.from_bytes(self._read(task.base + offset, 8), "little")
        if not is_canonical(stack):
            raise _Fault(Vector.SS, ext)
        return stack

    def _saved_flags(self, event: Event) -> int:
        """RFLAGS as pushed: a fault sets RF, so that its restart meets no instruction breakpoint (17.3.1.1)."""
        return self.view.rflags | (_RF if event.vector in _FAULTS and not event.software else 0)

    def _push(self, stack: int, frame: list[int], user: bool, ext: int) -> None:
        """Store the frame, highest address first."""
        if not (is_canonical(stack) and is_canonical(stack + 8 * len(frame) - 1)):
            raise _Fault(Vector.SS, ext)
        if stack % PAGE_SIZE + 8 * len(frame) <= PAGE_SIZE:
            try:
                self._write(stack, struct.pack(f"<{len(frame)}Q", *frame), user)
            except _Fault as fault:  # the processor pushes one by one: CR2 is where the first push went
                first_push = stack + 8 * (len(frame) - 1)
                raise _Fault(fault.event.vector, fault.event.error_code or 0, first_push) from None
            return
        for index in reversed(range(len(frame))):
            self._write(stack + 8 * index, frame[index].to_bytes(8, "little"), user)

    # --- memory as the processor reaches it -------------------------------------------------------------------

    def _read(self, virtual: int, size: int) -> bytes:
        first = min(size, PAGE_SIZE - virtual % PAGE_SIZE)
        data = self.memory.read(self._reach(virtual, False, False), first)
        return data + self._read(virtual + first, size - first) if first < size else data

    def _write(self, virtual: int, data: bytes, user: bool = False) -> None:
        first = min(len(data), PAGE_SIZE - virtual % PAGE_SIZE)
        self.memory.store(self._reach(virtual, True, user), data[:first])
        if first < len(data):
            self._write(virtual + first, data[first:], user)

    def _reach(self, virtual: int, write: bool, user: bool) -> int:
        """Translate with the processor's rights, and set accessed and dirty bits; a page fault where it must."""
        if not user and self._cr3 >= 0:
            quick = self.paging.reach(virtual, write, self._cr3)
            if quick is not None:
                return quick
        found = self.paging.resolve(virtual, Access.WRITE if write else Access.READ, user)
        if found.physical is None:
            if not found.steps:
                raise _Fault(Vector.GP, _EXT)
            raise _Fault(Vector.PF, found.error_code, virtual)
        for step in found.steps:
            wanted = step.entry | _ACCESSED | (_DIRTY if write and step.maps_page else 0)
            if wanted != step.entry:
                self.memory.store(step.address, wanted.to_bytes(8, "little"))
        return found.physical


def _doubles(first: Event, second: Event) -> bool:
    """Whether two exceptions make a double fault (table 6-5)."""
    if first.software or first.vector >= 32:
        return False
    if first.vector == Vector.PF:
        return second.vector == Vector.PF or second.vector in CONTRIBUTORY
    return first.vector in CONTRIBUTORY and second.vector in CONTRIBUTORY
