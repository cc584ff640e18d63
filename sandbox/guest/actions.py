"""Carrying out what the journal can say: a call, a run, a write, a register, a flush. Once, and once more in a replay.

A call from outside works as a debugger's does: the registers are put aside, the arguments are placed as System V
says, the callee-saved ones hold known values, the return address is ``call_return``, where the machine stops, and
afterwards the registers are as they were.
Interrupts stay on, so the guest's clock and its handlers live through a call as through any other code. A program
that was stopped inside one of the kernel's restartable sections begins it again, as after an interrupt.
"""

from __future__ import annotations

import hashlib
import struct
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from ..errors import CalleeSavedError, GuestError, GuestLimit, GuestStop
from ..machine.machine import Machine
from ..machine.stop import Stop, StopKind
from ..x86 import GENERAL_REGISTERS
from .arguments import CallFrame, frame
from .autopsy import Autopsy
from .faults import parse
from .inject import Injector
from .journal import Call, Entry, Flush, Inject, Interrupt, Receive, Run, SetRegister, Write
from .memory import TranslatedMemory
from .symbols import Symbols

GENERAL = struct.Struct("<18Q")
"""The general registers in the order of ``GENERAL_REGISTERS``, then RIP and RFLAGS: as the machine keeps them."""
RAX, RSP, RBP, R10, R12 = (GENERAL_REGISTERS.index(name) for name in ("rax", "rsp", "rbp", "r10", "r12"))
RIP, RFLAGS = 16, 17
CALLEE_SAVED = {name: GENERAL_REGISTERS.index(name) for name in ("rbx", "rbp", "r12", "r13", "r14", "r15")}
"""Besides RSP, which comes back 8 higher: the return address is gone."""
_callee_saved = itemgetter(*CALLEE_SAVED.values())
CANARIES = {name: 0x5CA1AB1E_00000000 | number for name, number in
            (("rbx", 1), ("r12", 12), ("r13", 13), ("r14", 14), ("r15", 15))}
"""What these registers hold at a call, as at the kernel's call of main: a function that sets one to 0 is caught
too. RBP stays as it is, so that backtraces end where they did."""
_CONSTANT = tuple(CANARIES.values())
BOOT_LIMIT = 1_000_000_000
"""Instructions within which a kernel must be ready: far more than 2 GiB of RAM need."""
DIRECTION = 1 << 10
"""RFLAGS.DF, which System V wants clear at every call."""
INTERRUPTS = 1 << 9
"""RFLAGS.IF."""


class BootPending(NamedTuple):
    """The kernel is coming up."""


class RunPending(NamedTuple):
    """The guest runs on, until its clock is ``ends`` (None: until it stops by itself)."""

    ends: int | None


class CallPending(NamedTuple):
    """A function was called and has not come back: what there was before, what it was given, when its time is up."""

    entry: Call
    placed: CallFrame
    before: tuple[int, ...]
    given: tuple[int, ...]
    halted: bool
    ends: int


Pending: TypeAlias = "BootPending | RunPending | CallPending"
"""What the end of an entry needs to know, when the machine stands in the middle of it."""


class Returned(NamedTuple):
    """RAX, and where the copies of the arguments lie on the stack (:class:`~sandbox.guest.arguments.CallFrame`)."""

    value: int
    copies: tuple[int, ...]


class Actions:
    """Does entries to a machine; it keeps no record of them."""

    def __init__(self, machine: Machine, memory: TranslatedMemory, symbols: Symbols) -> None:
        self.machine = machine
        self.memory = memory
        self.symbols = symbols
        self.autopsy = Autopsy(memory, symbols)
        self.injector = Injector(machine, symbols)
        machine.companions.append(self.injector)
        self.pending: Pending | None = None          # of the entry that is being carried out
        self.canary_seed: str | None = None
        """None for ``CANARIES``. With a seed, every call has canaries of its own: they follow from the seed and the
        instruction, so that a replay has the same. To be set before the first call, and not changed."""
        self.returned: tuple[int, ...] = ()
        """The registers with which the latest call came back, as in ``GENERAL``."""
        self.ready = int(symbols["kernel_ready"])
        self.call_return = int(symbols["call_return"])
        self._until = (self.call_return,)
        table = memory.read(symbols["critical_sections"],
                            symbols["critical_sections_end"] - symbols["critical_sections"])
        self._critical = tuple(struct.iter_unpack("<3Q", table))

    def perform(self, entry: Entry) -> None:
        """Do what an entry says; a call that fails raises, a run that ends does not."""
        if isinstance(entry, Call):
            self.call(entry, self.place(entry))
        elif isinstance(entry, Run):
            self.machine.run(limit=entry.limit)
        elif isinstance(entry, Write):
            (self.machine.memory if entry.physical else self.memory).write(entry.address, entry.data)
            self.memory.forget()
        elif isinstance(entry, SetRegister):
            self.machine.cpu[entry.name] = entry.value
        elif isinstance(entry, Interrupt):
            self.machine.interrupt_at(entry.instruction, entry.line)
        elif isinstance(entry, Receive):
            self.machine.serial.feed(entry.data)
        elif isinstance(entry, Inject):
            self.injector.arm(tuple(parse(fault) for fault in entry.faults))
        elif isinstance(entry, Flush):
            self.machine.cpu.flush_tlb()

    def place(self, entry: Call) -> CallFrame:
        """Put the arguments and the return address on the guest's stack, below all that it has there."""
        placed = frame(entry.arguments, self.machine.cpu.view.rsp, self.call_return)
        self.memory.write(placed.rsp, placed.stack)
        return placed

    def call(self, entry: Call, placed: CallFrame) -> Returned:
        """Run one function to its return; a :class:`GuestError` leaves the machine as it is at that moment."""
        pending = self.begin_call(entry, placed)
        stop = self.machine.run(limit=entry.limit, until=self._until)
        return self.end_call(pending, stop)

    def begin_call(self, entry: Call, placed: CallFrame) -> CallPending:
        """Put the registers aside, and let the function's first instruction be next."""
        view = self.machine.cpu.view
        general = slice(view.layout.general, view.layout.general + GENERAL.size)
        before = GENERAL.unpack(view.block[general])
        rdi, rsi, rdx, rcx, r8, r9 = placed.registers
        rbx, *high = self._canaries()
        given = (0, rcx, rdx, rbx, placed.rsp, before[RBP], rsi, rdi, r8, r9, *before[R10:R12], *high,
                 entry.address, before[RFLAGS] & ~DIRECTION)
        view.block[general] = GENERAL.pack(*given)
        self.machine.cpu.push()
        halted, self.machine.halted = self.machine.halted, False
        ends = self.machine.instructions + entry.limit
        self.pending = pending = CallPending(entry, placed, before, given, halted, ends)
        return pending

    def _canaries(self) -> tuple[int, ...]:
        """The values of the registers of ``CANARIES`` at a call now."""
        if self.canary_seed is None:
            return _CONSTANT
        text = f"{self.canary_seed} {self.machine.instructions}"
        return struct.unpack("<5Q", hashlib.blake2b(text.encode(), digest_size=40).digest())

    def end_call(self, pending: CallPending, stop: Stop) -> Returned:
        """Bring the registers back, if the function did return."""
        entry, placed, before, given, halted, _ = pending
        self.pending = None
        if stop.kind is not StopKind.BREAKPOINT:
            raise self._error(stop, self.name(entry.address), "return", entry.limit)
        view = self.machine.cpu.view
        general = slice(view.layout.general, view.layout.general + GENERAL.size)
        self.returned = after = GENERAL.unpack(view.block[general])
        if after[RSP] != placed.rsp + 8 or _callee_saved(after) != _callee_saved(given):
            raise self._changed(entry, given, placed.rsp + 8)
        view.block[general] = GENERAL.pack(*before[:RIP], self._resume(before[RIP]), before[RFLAGS])
        self.machine.cpu.push()
        self.machine.halted = halted
        return Returned(after[RAX], placed.copies)

    def begin_run(self, limit: int | None) -> RunPending:
        """The guest is going to run on."""
        self.pending = pending = RunPending(None if limit is None else self.machine.instructions + limit)
        return pending

    def _resume(self, rip: int) -> int:
        """Where code goes on that a call interrupted at ``rip``: inside a critical section, at its start, as after
        an interrupt."""
        return next((restart for start, end, restart in self._critical if start <= rip < end), rip)

    def bring_up(self) -> None:
        """Run from the first instruction to ``kernel_ready``; a kernel that does not come up is an error."""
        stop = self.machine.run(limit=BOOT_LIMIT, until=(self.ready,))
        if stop.kind is StopKind.INTERRUPTED:
            raise KeyboardInterrupt
        if stop.kind is not StopKind.BREAKPOINT:
            raise self._error(stop, "the kernel", "come up", BOOT_LIMIT)

    def _changed(self, entry: Call, given: tuple[int, ...], rsp: int) -> CalleeSavedError:
        """Which register the function did not bring back."""
        registers = self.machine.cpu.registers()
        expected = {"rsp": rsp} | {name: given[index] for name, index in CALLEE_SAVED.items()}
        name = next(name for name, value in expected.items() if registers[name] != value)
        return CalleeSavedError(self.name(entry.address), name, expected[name], registers[name],
                                registers=registers, instruction=self.machine.instructions)

    def name(self, address: int) -> str:
        """``kmalloc``, or ``kmalloc+0x4`` for an address that is no function's first."""
        location = self.symbols.locate(address)
        return f"{location.symbol}+{location.offset:#x}" if location.offset else location.symbol or str(location)

    def _error(self, stop: Stop, who: str, what: str, limit: int) -> GuestError:
        """The error for ``who`` that did not do ``what``: a panic even when the limit cut its last words short."""
        instruction = self.machine.instructions
        if stop.kind in (StopKind.DEBUG_EXIT, StopKind.LIMIT) and self.autopsy.panicked():
            return self.autopsy.panic(instruction)
        registers = self.machine.cpu.registers()
        frames = self.autopsy.frames_of(stop, registers)
        if stop.kind is StopKind.LIMIT:
            return GuestLimit(f"{who} did not {what} within {limit:,} instructions; it stands at {frames[0]}",
                              limit=limit, registers=registers, backtrace=frames, instruction=instruction)
        return GuestStop(f"{who} did not {what}: {self.autopsy.describe(stop)}", stop=stop, registers=registers,
                         backtrace=frames, instruction=instruction)
