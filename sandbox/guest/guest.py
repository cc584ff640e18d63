"""Our kernel as a guest of the machine: call a function, run the program, read and write, go back after a mistake.

A call that goes wrong (a fault, a panic, a loop) leaves everything as it was at that moment, to be read. The next
call raises :class:`~sandbox.errors.GuestNeedsRewind` until :meth:`Guest.rewind` has put back the state before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..abi import EXIT_FAILURE, EXIT_SUCCESS
from ..address import U64
from ..errors import GuestError, GuestNeedsRewind, GuestPanic, GuestStop, UsageError
from ..machine.machine import Machine, Stop, StopKind
from ..machine.machine import Snapshot as MachineSnapshot
from ..toolchain.image import Image
from ..toolchain.source import SourceLine
from .actions import Actions
from .arguments import normalize
from .history import History
from .journal import Call, Entry, Interrupt, Journal, Receive, Run
from .memory import PhysicalMemory, TranslatedMemory, VirtualMemory
from .outcome import RunKind, RunResult
from .registers import Registers
from .symbols import Location, Symbols

CALL_LIMIT = 100_000_000
"""Instructions that one call may take unless it is told otherwise: some seconds."""
SLICE = 4_000_000
"""Instructions between two calls of a run's ``progress``."""

_Self = TypeVar("_Self", bound="Guest")


@dataclass(frozen=True)
class Snapshot:
    """A state of the whole guest, and how it came about; :meth:`Guest.restore` goes there as often as one likes."""

    machine: MachineSnapshot
    entries: tuple[Entry, ...]
    finished: RunResult | None


class Guest:
    """A kernel on ``machine``, which stands at its first instruction and is run to ``kernel_ready``.

    ``image`` is the kernel's, ``program`` the program's or None.
    """

    def __init__(self, machine: Machine, image: Image, program: Image | None = None) -> None:
        self.machine = machine
        self.image = image
        self.program = program
        self.symbols = Symbols(*((image, program) if program else (image,)))
        translated = TranslatedMemory(machine)
        self._actions = Actions(machine, translated, self.symbols)
        self._actions.bring_up()
        self._history = History(machine, self._actions)
        self.memory = VirtualMemory(translated, self._history.add)
        self.physical = PhysicalMemory(machine, translated, self._history.add)
        self.registers = Registers(machine.cpu, self._history.add)
        self._failure: GuestError | None = None
        self._finished: RunResult | None = None

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
        entry = Call(self._function(function, len(arguments)), normalize(arguments), limit)
        placed = self._actions.place(entry)
        try:
            returned = self._actions.call(entry, placed)
        except GuestError as error:
            self._fail(error)
            if isinstance(error, GuestStop) and _interrupted(error.stop):
                raise KeyboardInterrupt from None
            raise
        except BaseException as error:           # a hook's: the guest stands in the middle of the call
            self._fail(GuestStop(f"a hook raised {error!r}", stop=None, instruction=self.instructions))
            raise
        for argument, copy in zip(arguments, returned.copies, strict=False):
            if copy and isinstance(argument, bytearray):
                argument[:] = self.memory.read(copy, len(argument))
        self._history.add(entry)
        return returned.value

    def _function(self, function: str | int, count: int) -> int:
        if isinstance(function, str):
            address = self.symbols[function]
            prototype = self.symbols.prototype(function)
            if prototype is not None and not prototype.accepts(count):
                raise UsageError(f"{function} takes {prototype.wants}, and {count} were given: {prototype.text}")
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
        if self._finished is not None:
            raise UsageError(f"the program has ended ({self._finished}): boot it again, or restore a snapshot")
        if limit is not None and (type(limit) is not int or limit <= 0):
            raise UsageError(f"a limit is a positive number of instructions, or None, not {limit!r}")
        start = self.instructions
        try:
            stop = self._run_slices(limit, progress)
            if stop.kind is StopKind.INTERRUPTED:
                raise KeyboardInterrupt
        except BaseException:                    # Ctrl-C, or progress, or a hook: what was run was run
            if self.instructions > start:
                self._history.add(Run(self.instructions - start))
            raise
        result = self._result(stop, self.instructions - start)
        if result.error is not None:
            self._fail(result.error)
        else:
            going = stop.kind in (StopKind.LIMIT, StopKind.REQUESTED)
            self._finished = None if going else result
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
            return RunResult(RunKind.STOP, None, instructions, f"{stop}: {self.symbolize(stop.rip)}")
        if self._actions.autopsy.panicked():
            error = self._actions.autopsy.panic(self.instructions)
            kind = RunKind.PANIC if isinstance(error, GuestPanic) else RunKind.FAULT
            return RunResult(kind, status, instructions, str(error), error)
        words = f"(debug exit {stop.status:#x}, QEMU status {status})"
        if stop.status == EXIT_SUCCESS:
            return RunResult(RunKind.SUCCESS, status, instructions, f"success: main returned 0 {words}")
        if stop.status == EXIT_FAILURE:
            return RunResult(RunKind.FAILURE, status, instructions, f"failure: main did not return 0 {words}")
        return RunResult(RunKind.STOP, status, instructions, str(stop))

    def interrupt_at(self, instruction: int, line: int) -> None:
        """Pulse interrupt line ``line`` (0-15) when the clock is ``instruction``, before the next start."""
        self._require_sound()
        if line not in range(16):
            raise UsageError(f"an interrupt line is a number from 0 to 15, not {line!r}")
        self._do(Interrupt(instruction, line))

    def receive(self, data: bytes | str) -> None:
        """Let bytes (or text, as UTF-8) arrive at the guest's serial port, as if typed at its terminal."""
        self._require_sound()
        self._do(Receive(data.encode() if isinstance(data, str) else bytes(data)))

    def _do(self, entry: Entry) -> None:
        self._actions.perform(entry)
        self._history.add(entry)

    # -- going back -------------------------------------------------------------------------------------------
    @property
    def failure(self) -> GuestError | None:
        """The error of the last call or run, until :meth:`rewind`; None when nothing is wrong."""
        return self._failure

    def rewind(self) -> None:
        """Restore the state before the call or the run that failed; everything after it is undone too."""
        self._require_stopped()
        if self._failure is None:
            raise UsageError("nothing to rewind: the last call did not fail")
        self._history.back()
        self._sound()

    def snapshot(self) -> Snapshot:
        """The present state, to come back to with :meth:`restore` any number of times."""
        self._require_sound()
        return Snapshot(self._history.mark().machine, self.journal.entries(), self._finished)

    def restore(self, snapshot: Snapshot) -> None:
        """Go to the state in which ``snapshot`` was taken; a failed one is left behind."""
        self._require_stopped()
        self._history.adopt(snapshot.machine, snapshot.entries)
        self._finished = snapshot.finished
        self._sound()

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
        if self._failure is not None:
            raise GuestNeedsRewind(str(self._failure))

    def _fail(self, error: GuestError) -> None:
        self._failure = error
        self._history.paused = True

    def _sound(self) -> None:
        self._failure = None
        self._history.paused = False

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
        return self.symbols.locate(address)

    def line(self, address: int) -> SourceLine | None:
        """The source line whose bytes hold ``address``; None for what is not of the kernel or the program."""
        return self.symbols.line(address)

    def backtrace(self) -> tuple[str, ...]:
        """One ``function+0x12 (file:line)`` for each frame of where the guest stands, innermost first."""
        return self._actions.autopsy.backtrace(self.registers)

    # -- the end ----------------------------------------------------------------------------------------------
    def close(self) -> None:
        """Give the emulator back. What the kernel was stays readable; it cannot be called or run any more."""
        self.machine.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _interrupted(stop: object) -> bool:
    return isinstance(stop, Stop) and stop.kind is StopKind.INTERRUPTED
