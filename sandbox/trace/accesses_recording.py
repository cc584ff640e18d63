"""The hooks that fill the columns of a log, and the machine's word on which starts count.

The engine tells more than what happened: an instruction that stores into its own block is begun a second time, one
that the shadow refuses is undone, one at which a run ends is announced and does not start, and a store whose second
page is missing is told before it faults. The machine knows (:class:`~sandbox.machine.run.Recorder`), and what did not
happen is taken out again. Where the host allows it, native code puts away what is common; what is written there is
written here once more, for the rest and for other hosts.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import Counter
from contextlib import suppress

from ..address import PAGE_SIZE, U64
from ..errors import EngineError, GuestMemoryError, TranslationError
from ..machine.hooks import Hook
from ..machine.machine import Machine
from ..toolchain.disassembler import MAX_INSTRUCTION, Disassembler
from ..x86 import Vector
from .accesses_columns import WRITTEN, By, Columns
from .accesses_native import LARGEST, NativeRecorder
from .shadow_instruction import operand_addresses

REACH = 16
"""Bytes behind an operand's address up to which its instruction begins accesses that may go over a page's edge: those
of larger operands are aligned."""
STACK_REACH = 64
"""Bytes on both sides of RSP that an instruction may access without naming them."""


class Recording:
    """One stretch of recording, from its making to :meth:`stop`. The engine may hold on to it for longer, so it lets go
    of the columns."""

    def __init__(self, machine: Machine, columns: Columns, replayed: bool) -> None:
        self._machine = weakref.ref(machine)     # its hooks hold the recording: nothing must keep the machine alive
        self._memory = machine.memory
        self._replayed = replayed
        self._columns: Columns | None = columns
        self._counter = ctypes.c_uint64.from_address(machine.cpu.counter_address)
        columns.state.counter = machine.cpu.counter_address
        self._bias = 0                           # what makes the engine's count of starts a slot, minus one
        self._on = False
        self._splits: list[tuple[int, int]] = [] # (first row, key) of each second start
        self._crossing = (0, 0, 0)               # rows before the last write over a page's edge, rows after it, its key
        self._disassembler = Disassembler()
        self._native = _native(columns)
        if self._wanted(machine, columns):
            columns.stand_at(machine.instructions)
        self._hooks = self._hook(machine)

    @property
    def native(self) -> bool:
        """Whether the common case is put away in native code."""
        return self._native is not None

    def _hook(self, machine: Machine) -> list[Hook]:
        cpu, native = machine.cpu, self._native
        starts, accesses = (None, None) if native is None else (native.instruction_gate, native.access_gate)
        hooks = [cpu.hook_every_instruction(self.instruction, starts),
                 cpu.hook_memory(0, machine.memory.size, self.access, write=True, read_after=True, replayed=True,
                                 gate=accesses)]
        machine.memory.listeners.append(self.outside)
        cpu.recorder = self
        return hooks

    def stop(self) -> None:
        """Record no more."""
        self._columns = None
        for hook in self._hooks:
            hook.remove()
        self._memory.listeners.remove(self.outside)
        machine = self._machine()
        if machine is not None:
            machine.cpu.recorder = None

    # -- what happens: also in accesses_native.asm -------------------------------------------------------------
    def instruction(self, address: int) -> None:
        """The instruction at ``address`` is going to start, or the run to end before it."""
        columns = self._columns
        if self._on and columns is not None and not columns.put_start(self._counter.value + self._bias, address):
            self._turn(columns, False)

    def access(self, what: str, address: int, size: int, value: int) -> None:
        """An access to physical bytes, ``read after`` it or before a ``write``."""
        columns = self._columns
        if not self._on or columns is None:
            return
        key, kind = self._counter.value + self._bias + 1, WRITTEN if what == "write" else 0
        if address % PAGE_SIZE + size <= PAGE_SIZE and size <= LARGEST:
            if not columns.put_row(key, address, size, value, kind):
                self._turn(columns, False)
            return
        before = columns.count
        room = all(columns.put_row(key, at, length, value >> 8 * offset & (1 << 8 * length) - 1, kind)
                   for at, length, offset in self._pieces(address, size))
        if not room:
            self._turn(columns, False)
        elif kind:
            self._crossing = before, columns.count, key

    def outside(self, address: int, data: bytes, processor: bool) -> None:
        """Python wrote physical bytes, on its own behalf or for the processor."""
        columns, machine = self._columns, self._machine()
        if columns is None or machine is None or not self._wanted(machine, columns) or machine.cpu.refusing:
            return
        if not machine.cpu.running:
            columns.stand_at(machine.instructions)
        by = By.PROCESSOR if processor else By.PYTHON
        if not columns.put_bytes(columns.slot(machine.instructions), address, data, by):
            self._turn(columns, False)

    # -- what the machine says -------------------------------------------------------------------------------------
    def begin(self, done: int) -> None:
        """The engine is going to start: its count begins at 0."""
        columns, machine = self._columns, self._machine()
        if columns is None or machine is None:
            return
        self._settle(columns)
        wanted = self._wanted(machine, columns)
        if wanted:
            if done:
                columns.end_at(machine.instructions + done)
            else:
                columns.stand_at(machine.instructions)
            self._bias = columns.end - 1
            columns.state.bias = self._bias & U64
        self._turn(columns, wanted)

    def end(self, starts: int) -> None:
        """The slice is over: what was told beyond its starts did not happen."""
        columns, machine = self._columns, self._machine()
        if self._on and columns is not None and machine is not None:
            self._settle(columns)
            columns.end_at(machine.instructions + starts)

    def started_twice(self) -> None:
        """The accesses of the second start are of the same instruction, and tell those of the first again."""
        columns = self._columns
        if not self._on or columns is None:
            return
        key, first = self._counter.value + self._bias + 1, columns.count
        while first and columns.keys[first - 1] == key + 1:
            first -= 1
            columns.keys[first] = key
        self._splits.append((first, key))

    def faulted(self, vector: int) -> None:
        """A write that went over a page's edge did not happen, if the page behind the edge caused the fault."""
        columns, machine = self._columns, self._machine()
        if not self._on or columns is None or machine is None or vector != Vector.PF:
            return
        before, after, key = self._crossing
        if (columns.count, self._counter.value + self._bias + 1) == (after, key) and not machine.cpu["cr2"] % PAGE_SIZE:
            columns.state.count = before

    def _wanted(self, machine: Machine, columns: Columns) -> bool:
        return not columns.full and (self._replayed or not machine.cpu.silent)

    def _turn(self, columns: Columns, on: bool) -> None:
        """Record, or pass over everything."""
        self._on = on
        if self._native is not None:
            self._native.pass_over(not on)
        columns.open(on)

    def _settle(self, columns: Columns) -> None:
        """Take out what second starts told again. A store is told again when it is aligned, a load always."""
        splits, self._splits = self._splits, []
        doomed: set[int] = set()
        for number, (split, key) in enumerate(splits):
            end = splits[number + 1][0] if number + 1 < len(splits) else columns.count
            known: Counter[tuple[int, int, int]] = Counter()
            at = split - 1
            while at >= 0 and columns.keys[at] == key:
                if at not in doomed:
                    known[columns.row(at)] += 1
                at -= 1
            at = split
            while at < end and columns.keys[at] == key:
                row = columns.row(at)
                if known[row]:
                    known[row] -= 1
                    doomed.add(at)
                at += 1
        if doomed:
            columns.drop_rows(sorted(doomed))

    # -- accesses over the edge of a page ---------------------------------------------------------------------------
    def _pieces(self, address: int, size: int) -> list[tuple[int, int, int]]:
        """An access as ranges that are contiguous in memory: physical address, bytes, offset in the access.

        The engine reports it by its first byte. Where the rest lies is what the page tables say of the next page,
        when an operand tells which page that is; without one (a bit test with a far index), it is taken to lie right
        behind.
        """
        room = PAGE_SIZE - address % PAGE_SIZE
        parts = [(address, size, 0)]
        if size > room:
            virtual = self._virtual(address)
            if virtual is not None:
                parts = [(address, room, 0)]
                with suppress(TranslationError):         # or the access is going to fault
                    rest = int(self._present.paging.translate(virtual + room & U64))
                    parts = [(address, size, 0)] if rest == address + room else [*parts, (rest, size - room, room)]
        return [(at + skip, min(LARGEST, length - skip), offset + skip) for at, length, offset in parts
                for skip in range(0, length, LARGEST)]

    def _virtual(self, physical: int) -> int | None:
        """The virtual address with which the present instruction names a physical one."""
        machine = self._present
        cpu, paging = machine.cpu, machine.paging
        registers = cpu.registers()
        rip = registers["rip"]
        try:
            room = PAGE_SIZE - rip % PAGE_SIZE
            code = machine.virtual.read(rip, min(MAX_INSTRUCTION, room))
            with suppress(GuestMemoryError):
                code += machine.virtual.read(rip + room, max(MAX_INSTRUCTION - room, 0))
            decoded = self._disassembler.decode(code, rip)
        except GuestMemoryError:
            decoded = None
        explicit, _ = operand_addresses(decoded, registers, {name: cpu[f"{name}_base"] for name in ("fs", "gs")})
        stack = registers["rsp"]
        for first, last in [*((at, at + REACH) for at in explicit), (stack - STACK_REACH, stack + STACK_REACH)]:
            for page in range(first & -PAGE_SIZE, last, PAGE_SIZE):
                virtual = page + physical % PAGE_SIZE
                with suppress(TranslationError):
                    if first <= virtual <= last and int(paging.translate(virtual & U64)) == physical:
                        return virtual & U64
        return None

    @property
    def _present(self) -> Machine:
        machine = self._machine()
        if machine is None:
            raise EngineError("this machine is closed")
        return machine


def _native(columns: Columns) -> NativeRecorder | None:
    try:
        return NativeRecorder(columns.state)
    except OSError:
        return None
