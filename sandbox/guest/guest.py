"""Our kernel as a guest of the machine: call a function, run the program, read and write, go back after a mistake.

A call that goes wrong (a fault, a panic, a loop) leaves everything as it was at that moment, to be read. The next
call raises :class:`~sandbox.errors.GuestNeedsRewind` until :meth:`Guest.rewind` has put back the state before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..abi import EXIT_FAILURE, EXIT_SUCCESS
from ..address import U64, check_address
from ..errors import GuestError, GuestMemoryError, GuestNeedsRewind, GuestPanic, GuestStop, ShadowError, UsageError
from ..machine.machine import Machine
from ..machine.snapshot import Snapshot as MachineSnapshot
from ..machine.stop import Stop, StopKind
from ..toolchain.image import Image
from ..toolchain.source import SourceLine
from .actions import Actions
from .arguments import check_call, normalize
from .faults import Fault, Pulse, parse
from .history import History
from .inject import Armed
from .journal import Call, Entry, Inject, Interrupt, Journal, Receive, Run
from .memory import PhysicalMemory, TranslatedMemory, VirtualMemory
from .outcome import RunKind, RunResult
from .registers import Registers
from .symbols import Location, Symbols
from .travel import Standing, Travel

CALL_LIMIT = 100_000_000
"""Instructions that one call may take unless it is told otherwise: some seconds."""
SLICE = 4_000_000
"""Instructions between two calls of a run's ``progress``."""

_Self = TypeVar("_Self", bound="Guest")


@dataclass(frozen=True)
class Snapshot:
    """A state of the whole guest, and how it came about; :meth:`Guest.restore` goes there as often as one likes."""

    machine: MachineSnapshot
    journal: Journal
    finished: RunResult | None
    symbols: Symbols

    def __repr__(self) -> str:
        return f"<Snapshot at instruction {self.machine.instructions:,}, {len(self.machine.ram) >> 20} MiB>"


class Guest:
    """A kernel on ``machine``, which stands at its first instruction and is run to ``kernel_ready``.

    ``image`` is the kernel's, ``program`` the program's or None, ``allocator`` that of somebody else's allocator,
    ``modules`` that of modules which are not part of the program.
    """

    def __init__(self, machine: Machine, image: Image, program: Image | None = None,
                 allocator: Image | None = None, modules: Image | None = None) -> None:
        self.machine = machine
        self.image = image
        self.program = program
        self.modules = modules
        self.symbols = Symbols(*(each for each in (image, modules, allocator, program) if each is not None))
        translated = TranslatedMemory(machine)
        self._actions = Actions(machine, translated, self.symbols)
        self._actions.bring_up()
        self._history = History(machine, self._actions)
        self.memory = VirtualMemory(translated, self._history.add)
        self.physical = PhysicalMemory(machine, translated, self._history.add)
        self.registers = Registers(machine.cpu, self._history.add)
        self._standing = Standing()
        self.travel = Travel(machine, self._actions, self._history, self._standing)

    # -- calling ----------------------------------------------------------------------------------------------
    def call(self, function: str | int, *arguments: Any, limit: int = CALL_LIMIT) -> int:
        """Call a guest function by name or address; returns RAX, an unsigned 64-bit number.

        ``arguments`` are ints (negative ones in two's complement), bools, addresses, bytes, str (UTF-8 with a NUL
        behind it), or anything with an ``address``. Bytes and text are copied to the guest's stack for the time of
        the call; a bytearray is copied back, so that a function can fill it. Their number is compared with the C
        prototype in the comment above the function.

        Raises ``SymbolNotFound`` and ``UsageError`` before the guest runs; ``GuestPanic``, ``GuestFault``,
        ``GuestLimit``, ``CalleeSavedError`` and ``GuestStop`` for what it does, and ``GuestNeedsRewind`` after that.
        An exception in a hook, and Ctrl-C, come out as they are, and need a rewind too.
        """
        self._require_sound()
        if type(limit) is not int or limit <= 0:
            raise UsageError(f"a limit is a positive number of instructions, not {limit!r}")
        entry = Call(self._function(function, arguments), normalize(arguments), limit)
        placed, start = self._actions.place(entry), self.instructions
        try:
            returned = self._actions.call(entry, placed)
        except GuestError as error:
            self._fail(error, self._cut_short(entry, start) if _from_outside(error) else entry)
            if isinstance(error, GuestStop) and _interrupted(error.stop):
                raise KeyboardInterrupt from None
            raise
        except BaseException as error:           # a hook's: the guest stands in the middle of the call
            self._fail(GuestStop(f"a hook raised {error!r}", stop=None, instruction=self.instructions),
                       self._cut_short(entry, start))
            raise
        for argument, copy in zip(arguments, returned.copies, strict=False):
            if copy and isinstance(argument, bytearray):
                argument[:] = self.memory.read(copy, len(argument))
        self._history.add(entry)
        return returned.value

    @property
    def actions(self) -> Actions:
        """How calls are carried out: what the registers hold at one, and what they held when the latest came back."""
        return self._actions

    def _cut_short(self, entry: Call, start: int) -> Call:
        """The same call, as it ended: what stopped it, from outside, will not stop it again."""
        return entry._replace(limit=max(self.instructions - start, 1))

    def _function(self, function: str | int, arguments: Sequence[Any]) -> int:
        if isinstance(function, str):
            address = self.symbols[function]
            if not self.symbols.in_text(address):
                raise UsageError(f"{function} is data, not a function")
            prototype = self.symbols.prototype(function)
            if prototype is not None:
                check_call(prototype, arguments)
            return int(address)
        if isinstance(function, int) and not isinstance(function, bool) and 0 <= function <= U64:
            return int(function)
        raise UsageError(f"a function is a name or an address, not {function!r}")

    # -- running ----------------------------------------------------------------------------------------------
    def run(self, limit: int | None = None, progress: Callable[[int], None] | None = None) -> RunResult:
        """Let the guest go on: into the program's ``main``, or from where the last run stopped at its limit.

        Returns why it stopped; what the guest did wrong is in the result, and is not raised. ``limit`` is a number of
        instructions, None for no limit; ``progress`` is called every few million instructions with the number taken
        so far, and may raise to stop.
        """
        self._require_sound()
        if self.program is None:
            raise UsageError("there is no program to run: give one to sandbox.boot()")
        if "main" not in self.program.exports:
            raise UsageError("there is no main to run: these modules define none")
        if self._standing.finished is not None:
            raise UsageError(f"the program has ended ({self._standing.finished}): boot it again, or restore a snapshot")
        if limit is not None and (type(limit) is not int or limit <= 0):
            raise UsageError(f"a limit is a positive number of instructions, or None, not {limit!r}")
        start = self.instructions
        self._actions.begin_run(limit)
        try:
            stop = self._run_slices(limit, progress)
            if stop.kind is StopKind.INTERRUPTED:
                raise KeyboardInterrupt
        except ShadowError as error:
            self._fail(error, Run(self.instructions - start))
            return RunResult(RunKind.SHADOW, None, self.instructions - start, str(error), error)
        except BaseException:                    # Ctrl-C, or progress, or a hook: what was run was run
            if self.instructions > start:
                self._history.add(Run(self.instructions - start))
            raise
        result = self._result(stop, self.instructions - start)
        if result.error is not None:
            self._fail(result.error, Run(result.instructions))
        else:
            going = stop.kind in (StopKind.LIMIT, StopKind.REQUESTED)
            self._standing.finished = None if going else result
            self._history.add(Run(result.instructions if going else limit))
        return result

    def _run_slices(self, limit: int | None, progress: Callable[[int], None] | None) -> Stop:
        if progress is None:
            return self.machine.run(limit=limit)
        start, taken = self.instructions, 0
        while True:
            stop = self.machine.run(limit=SLICE if limit is None else min(SLICE, limit - taken))
            taken = self.instructions - start
            if stop.kind is not StopKind.LIMIT or taken == limit:
                return stop
            progress(taken)

    def _result(self, stop: Stop, instructions: int) -> RunResult:
        status = stop.qemu_status
        if stop.kind is StopKind.LIMIT:
            sentence = f"instruction limit: after {instructions:,} instructions it stands at {self.symbolize(stop.rip)}"
            return RunResult(RunKind.LIMIT, None, instructions, sentence)
        if stop.kind is not StopKind.DEBUG_EXIT:
            return RunResult(RunKind.STOP, None, instructions, self._actions.autopsy.describe(stop))
        if self._actions.autopsy.panicked():
            error = self._actions.autopsy.panic(self.instructions)
            kind = RunKind.PANIC if isinstance(error, GuestPanic) else RunKind.FAULT
            return RunResult(kind, status, instructions, str(error), error)
        if stop.status not in (EXIT_SUCCESS, EXIT_FAILURE):
            return RunResult(RunKind.STOP, status, instructions, str(stop))
        kind = RunKind.SUCCESS if stop.status == EXIT_SUCCESS else RunKind.FAILURE
        returned = self._returned()
        how = "the program wrote to the debug exit itself" if returned is None else f"main returned {returned}"
        sentence = f"{kind}: {how} (debug exit {stop.status:#x}, QEMU status {status})"
        return RunResult(kind, status, instructions, sentence, returned=returned)

    def _returned(self) -> int | None:
        """What main returned, an ``int`` of C's; None when it has not."""
        try:
            if not self.memory.u8(self.symbols["main_returned"]):
                return None
            value = self.memory.u32(self.symbols["main_result"])
        except GuestMemoryError:                 # the kernel's own data were unmapped
            return None
        return value - (value >> 31 << 32)

    def interrupt_at(self, instruction: int, line: int) -> None:
        """Pulse interrupt line ``line`` (0-15) when the clock is ``instruction``, before the next start."""
        self._require_sound()
        if line not in range(16):
            raise UsageError(f"an interrupt line is a number from 0 to 15, not {line!r}")
        self.perform(Interrupt(instruction, line))

    def receive(self, data: bytes | str) -> None:
        """Let bytes (or text, as UTF-8) arrive at the guest's serial port, as if typed at its terminal."""
        self._require_sound()
        self.perform(Receive(data.encode() if isinstance(data, str) else bytes(data)))

    def inject(self, *faults: str | Fault) -> None:
        """Let faults happen from now on, as :mod:`sandbox.guest.faults` describes and writes them::

            kernel.inject("pages:3")                     # the third page allocation from now on fails
            kernel.inject("cache=kmalloc-64:10%,seed=4", "flip=0xffff888000003010.7@200000", "irq=0@150000")

        They add to those that wait. :class:`UsageError` for what is no fault, or lies in the past.
        """
        self._require_sound()
        chosen = [parse(fault, self.symbols) if isinstance(fault, str) else fault for fault in faults]
        for fault in chosen:
            if isinstance(fault, Pulse):
                self.interrupt_at(fault.instruction, fault.line)
        waiting = tuple(str(fault) for fault in chosen if not isinstance(fault, Pulse))
        if waiting:
            self.perform(Inject(waiting))

    def stop_injecting(self) -> None:
        """Call off every fault that was asked for; an interrupt that was stays."""
        self._require_sound()
        self.perform(Inject(()))

    @property
    def injected(self) -> tuple[Armed, ...]:
        """The faults that were asked for, with how many calls each has seen and how often it struck."""
        return self._actions.injector.armed

    def perform(self, entry: Entry) -> None:
        """Do what an entry of a journal says: one that is neither a call nor a run, which have doors of their own."""
        self._actions.perform(entry)
        self._history.add(entry)

    # -- going back -------------------------------------------------------------------------------------------
    @property
    def failure(self) -> GuestError | None:
        """The error of the last call or run, until :meth:`rewind`; None when nothing is wrong."""
        return self._standing.failure

    def rewind(self) -> None:
        """Restore the state before the call or the run that failed; everything after it is undone too."""
        self._require_stopped()
        if self._standing.failure is None:
            raise UsageError("nothing to rewind: the last call did not fail")
        self._history.back()
        self._standing.failure = None

    def snapshot(self) -> Snapshot:
        """The present state, to come back to with :meth:`restore` any number of times."""
        self._require_sound()
        if self._history.away:
            raise UsageError("the kernel stands at a past moment of its timeline: snapshots are taken at the end")
        return Snapshot(self._history.mark().machine, self.journal.copy(), self._standing.finished, self.symbols)

    def restore(self, snapshot: Snapshot) -> None:
        """Go to the state in which ``snapshot`` was taken; a failed one is left behind.

        :class:`UsageError` for what is no snapshot of a guest, and for one of another program, another kernel or
        another amount of RAM.
        """
        self._require_stopped()
        if not isinstance(snapshot, Snapshot):
            raise UsageError(f"a snapshot is what snapshot() returned, not {type(snapshot).__name__}")
        if snapshot.symbols.images != self.symbols.images:
            raise UsageError("this snapshot is of another kernel or another program")
        if len(snapshot.machine.ram) != len(self.machine.memory):
            raise UsageError(f"this snapshot has {len(snapshot.machine.ram) >> 20} MiB of RAM, and the machine "
                             f"{len(self.machine.memory) >> 20} MiB")
        self._history.adopt(snapshot.machine, snapshot.journal)
        self._standing.finished = snapshot.finished
        self._standing.failure = None

    @property
    def journal(self) -> Journal:
        """Everything that came from outside since boot."""
        return self._history.journal

    def _require_stopped(self) -> None:
        if self.machine.cpu.closed:
            raise UsageError("this kernel is closed")
        if self.machine.cpu.running:
            raise UsageError("the machine is running: a hook can look, and nothing else")

    def _require_sound(self) -> None:
        self._require_stopped()
        if self._standing.failure is not None:
            raise GuestNeedsRewind(str(self._standing.failure))

    def _fail(self, error: GuestError, entry: Entry) -> None:
        self._standing.failure = error
        self._history.fail(entry)

    # -- looking ----------------------------------------------------------------------------------------------
    @property
    def instructions(self) -> int:
        """The clock: instruction starts since the machine was switched on."""
        return self.machine.instructions

    @property
    def console(self) -> str:
        """All that the guest has written to its serial port."""
        return self.machine.serial.text

    def symbolize(self, address: int) -> Location:
        """Which label ``address`` lies at or behind, with its line: ``str()`` is ``kmalloc+0x12 (kmalloc.asm:31)``."""
        check_address(address)
        return self.symbols.locate(address)

    def line(self, address: int) -> SourceLine | None:
        """The source line whose bytes hold ``address``; None for what is not of the kernel or the program."""
        check_address(address)
        return self.symbols.line(address)

    def backtrace(self) -> tuple[str, ...]:
        """One ``function+0x12 (file:line)`` for each frame of where the guest stands, innermost first."""
        return self._actions.autopsy.backtrace(self.registers)

    # -- the end ----------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Give the emulator back. What the kernel was stays readable; calls, runs and writes are refused then."""
        self.machine.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _from_outside(error: GuestError) -> bool:
    """Whether a hook or a key stopped the guest, and not its own doing."""
    stop = error.stop if isinstance(error, GuestStop) else None
    return isinstance(stop, Stop) and stop.kind in (StopKind.INTERRUPTED, StopKind.REQUESTED)


def _interrupted(stop: object) -> bool:
    return isinstance(stop, Stop) and stop.kind is StopKind.INTERRUPTED
