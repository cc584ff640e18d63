"""Moving through the run as gdb asks for it, in pieces, so that whoever waits can be heard in between.

Every motion is a generator: it yields between two pieces of work, each of them short, and returns a :class:`Stop`.
When it is given up in the middle, the timeline stands at a moment that it has come by.

**Interrupts.** A step is one instruction of what is being debugged. Where an interrupt is delivered behind it, the
step goes on to the end of the interrupt's handler, as QEMU masks interrupts while gdb steps (``sstepbits`` NOIRQ):
otherwise ``next`` would end in the timer. Backwards it is the same. Breakpoints and watchpoints inside of the handler
stop it nevertheless; exceptions are stepped into.

**Watchpoints.** gdb compares the old value with the new one, so forwards a watchpoint stops behind the access, and
backwards before it. It belongs to a virtual address, and follows it through changes of the page tables.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Any

from ...abi import DIRECT_MAP
from ...address import PAGE_SIZE, page_down
from ...errors import GuestMemoryError
from ...guest.guest import Guest
from ...toolchain.disassembler import MAX_INSTRUCTION, Disassembler
from ...x86 import IdtGate
from ..search import Hit, Watch
from ..timeline import Timeline
from .breakpoints import Breakpoints

PIECE = 500_000
"""Instructions that are searched before the motion yields: some tenths of a second."""
SIGINT, SIGTRAP = 2, 5
_IRETQ = b"\x48\xcf"
ENTRY_SIZE = 8
"""Bytes of a page-table entry."""
_LINES = 8
"""Interrupt lines of one controller."""


@dataclass(frozen=True)
class Stop:
    """Why a motion is over: a signal by its number, and what a stop reply adds (``swbreak:;``)."""

    signal: int = SIGTRAP
    reason: str = ""


STEPPED = Stop()
INTERRUPTED = Stop(SIGINT)
BEGIN = Stop(reason="replaylog:begin;")
END = Stop(reason="replaylog:end;")

Motion = Generator[None, None, Stop]


class Mover:
    """Moves ``timeline``. ``hide_interrupts`` says whether a step passes over them."""

    def __init__(self, timeline: Timeline[Any], breakpoints: Breakpoints) -> None:
        self.hide_interrupts = True
        self._timeline = timeline
        self._breakpoints = breakpoints
        self._iretqs: frozenset[int] | None = None

    @property
    def _guest(self) -> Guest:
        guest: Guest = self._timeline.kernel
        return guest

    @property
    def _rip(self) -> int:
        return self._guest.registers["rip"]

    @property
    def _rsp(self) -> int:
        return self._guest.registers["rsp"]

    # -- forwards ---------------------------------------------------------------------------------------------
    def step(self) -> Motion:
        """One instruction."""
        stop = self._one()
        while stop is STEPPED and self._interrupted():
            stop = yield from self._leave_interrupt()
        return stop

    def step_range(self, start: int, end: int) -> Motion:
        """Steps until the next instruction lies outside of ``start`` up to ``end``; a string instruction that repeats
        is one of them."""
        while True:
            before = self._rip
            stop = yield from self.step()
            if stop is not STEPPED or not start <= self._rip < end or self._breakpoints.at(self._rip):
                return stop
            if self._rip == before:
                stop = yield from self._run_until({before + self._length(before)})
                if stop is not STEPPED or not start <= self._rip < end:
                    return stop
            yield

    def run(self) -> Motion:
        """On to the next breakpoint or watchpoint, or the end of the run."""
        return (yield from self._run_until(()))

    def _one(self) -> Stop:
        """One instruction, and the interrupt that is delivered behind it."""
        timeline = self._timeline
        if timeline.position >= timeline.length:
            return END
        accessed = self._accessed_next()
        timeline.goto(timeline.position + 1)
        return accessed or STEPPED

    def _accessed_next(self) -> Stop | None:
        """The stop for what the next instruction accesses first; None where nobody watches that."""
        watches = self._watches
        hit = self._timeline.search(True, (), watches, limit=1, here=True) if watches else None
        return None if hit is None else self._watch_stop(hit)

    @property
    def _watches(self) -> tuple[Watch, ...]:
        """The watchpoints on memory that is mapped at this moment: what is not, nothing can access."""
        return tuple(watch for watch in self._breakpoints.watches if self._mapped(watch))

    def _mapped(self, watch: Watch) -> bool:
        try:
            self._guest.memory.read(watch.address, watch.size)
        except GuestMemoryError:
            return False
        return True

    @property
    def _watches_and_tables(self) -> tuple[Watch, ...]:
        """The watchpoints, and the page-table entries that say which bytes of RAM they are: a search translates where
        it begins, and has to begin anew when one of these changes."""
        paging = self._guest.machine.paging
        pages = {page for watch in self._breakpoints.watches
                 for page in range(page_down(watch.address), watch.address + watch.size, PAGE_SIZE)}
        entries = {step.address for page in sorted(pages) for step in paging.walk(page)}
        tables = (Watch(DIRECT_MAP + entry, ENTRY_SIZE) for entry in sorted(entries))
        return (*self._watches, *(table for table in tables if self._mapped(table)))

    def _run_until(self, addresses: Collection[int]) -> Motion:
        """On to one of these addresses (then it is a step that is over), a breakpoint, a watchpoint or the end."""
        timeline = self._timeline
        wanted = self._breakpoints.addresses | frozenset(addresses)
        while True:
            hit = timeline.search(True, wanted, self._watches_and_tables, limit=PIECE, here=True)
            if hit is None and timeline.position + PIECE >= timeline.length:
                timeline.goto(timeline.length)
                return END
            if hit is None:
                timeline.goto(timeline.position + PIECE - 1)     # the next search does not look at where it begins
            elif hit.watch is None:
                timeline.goto(hit.instruction)
                return self._break_stop()
            elif self._breakpoints.has(hit.watch):
                timeline.goto(hit.instruction + _is_ahead(hit))
                return self._watch_stop(hit)
            else:
                stop = self._change_tables(hit)
                if stop is not STEPPED or self._rip in wanted:
                    return stop
            yield

    def _change_tables(self, hit: Hit) -> Stop:
        """Go behind a change of the page tables."""
        self._timeline.goto(hit.instruction)
        stop = self._one() if _is_ahead(hit) else STEPPED
        return self._break_stop() if stop is STEPPED else stop

    def _break_stop(self) -> Stop:
        reason = self._breakpoints.at(self._rip)
        return Stop(reason=f"{reason}:;") if reason else STEPPED

    def _watch_stop(self, hit: Hit) -> Stop:
        assert hit.watch is not None
        return Stop(reason=f"{self._breakpoints.accessed(hit.watch)}:{hit.watch.address:x};")

    # -- backwards --------------------------------------------------------------------------------------------
    def step_back(self) -> Motion:
        """One instruction back."""
        timeline = self._timeline
        if timeline.position <= timeline.start:
            return BEGIN
        timeline.goto(timeline.position - 1)
        accessed = self._accessed_next()
        if accessed is not None:
            return accessed
        while (yield from self._leave_interrupt_backwards()):
            pass
        return STEPPED

    def run_back(self) -> Motion:
        """Back to the latest breakpoint or watchpoint, or the beginning."""
        timeline, breakpoints = self._timeline, self._breakpoints
        while True:
            hit = timeline.search(False, breakpoints.addresses, self._watches_and_tables, limit=PIECE)
            if hit is None and timeline.position - PIECE <= timeline.start:
                timeline.goto(timeline.start)
                return BEGIN
            if hit is None:
                timeline.goto(timeline.position - PIECE)
            elif hit.watch is None:
                timeline.goto(hit.instruction)
                return self._break_stop()
            else:
                timeline.goto(max(hit.instruction + _is_ahead(hit) - 1, timeline.start))
                if breakpoints.has(hit.watch):
                    return self._watch_stop(hit)
                stop = self._accessed_next() or self._break_stop()       # a change of the page tables, and perhaps more
                if stop is not STEPPED:
                    return stop
            yield

    # -- interrupts -------------------------------------------------------------------------------------------
    def _interrupted(self) -> bool:
        """Whether an interrupt was delivered just now: the first instruction of a handler is next."""
        return self.hide_interrupts and self._rip in self._handlers(interrupts=True)

    def _leave_interrupt(self) -> Motion:
        """From a handler's first instruction on, behind the ``iretq`` that takes its frame away."""
        frame = self._rsp
        while True:
            stop = yield from self._run_until(self._returns())
            if stop is not STEPPED:
                return stop
            if self._rsp == frame:
                return self._one()

    def _leave_interrupt_backwards(self) -> Generator[None, None, bool]:
        """Where an ``iretq`` that ends an interrupt is next: go to before the interrupt; whether it was one."""
        if not (self.hide_interrupts and self._rip in self._returns()):
            return False
        timeline, origin, frame = self._timeline, self._timeline.position, self._rsp
        handlers, interrupts = self._handlers(), self._handlers(interrupts=True)
        while True:
            hit = timeline.search(False, handlers, (), limit=PIECE)
            if hit is None and timeline.position - PIECE <= timeline.start:
                break
            timeline.goto(timeline.position - PIECE if hit is None else hit.instruction)
            if hit is not None and frame - self._rsp in (0, 8):      # 8: an exception with an error code
                if self._rip not in interrupts or timeline.position == timeline.start:
                    break
                timeline.goto(timeline.position - 1)
                return True
            yield
        timeline.goto(origin)
        return False

    def _handlers(self, interrupts: bool = False) -> frozenset[int]:
        """The first instructions of all handlers in the interrupt descriptor table, or of interrupts alone."""
        table = self._guest.machine.cpu.view.idtr
        pic = self._guest.machine.pic
        lines = {base + line for base in (pic.first.base, pic.second.base) for line in range(_LINES)}
        present = range((table.limit + 1) // IdtGate.size)
        try:
            gates = [IdtGate(self._guest.memory, table.base + IdtGate.size * vector)
                     for vector in present if not interrupts or vector in lines]
            return frozenset(gate.offset_low | gate.offset_middle << 16 | gate.offset_high << 32
                             for gate in gates if gate.attributes >> 7)
        except GuestMemoryError:                 # no table yet: nothing can be delivered
            return frozenset()

    def _returns(self) -> frozenset[int]:
        """Every place in the code where an ``iretq`` may be."""
        if self._iretqs is None:
            sections = [section for image in self._guest.symbols.images for section in image.sections
                        if "x" in section.rights]
            self._iretqs = frozenset(section.address + at for section in sections
                                     for at in range(len(section.data)) if section.data.startswith(_IRETQ, at))
        return self._iretqs

    def _length(self, address: int) -> int:
        """Bytes of the instruction at an address."""
        code = bytearray()
        for at in range(address, address + MAX_INSTRUCTION):
            try:
                code += self._guest.memory.read(at, 1)
            except GuestMemoryError:
                break
        return Disassembler().disassemble(bytes(code), address).size


def _is_ahead(hit: Hit) -> bool:
    """Whether the access is still to come at the moment that was found: an instruction's is, while what the processor
    or Python writes at a moment has happened then."""
    return hit.access is None or hit.access.by == "instruction"
