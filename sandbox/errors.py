"""Every exception that the library raises, and what each one carries.

::

    SandboxError
    ├── UsageError                 the caller asked for something that cannot be: an option, a size, a name
    │   ├── SymbolNotFound         .name, .suggestions
    │   ├── ProgramError           a program file that is missing, not text, or has no main: .path
    │   ├── PositionError          a moment outside the recorded run: .instruction, .start, .end
    │   └── RecordError            a record that is damaged, foreign, or of another version: .path
    ├── AssemblyError              .file, .line, .text, .reason, also for a clash of labels
    ├── CompileError               .file, .line, .output: C that does not compile, in the compiler's own words
    ├── LinkError                  .file, .problems: objects that cannot be linked, every reason with its place
    ├── EngineError                a native library is missing, or behaves as no version we know
    │   ├── CompilerMissing        no C compiler is here, or not the one that was asked for: .command
    │   ├── EngineCrashed          the process of an isolated guest died: .signal, .status, .words
    │   ├── EngineHung             it took too much of the host's time: .seconds
    │   └── EngineTooLarge         it took too much of the host's memory: .size, .limit
    ├── GuestMemoryError           .address: an access from outside that guest memory cannot answer
    │   ├── TranslationError       a virtual address that no page maps: .explanation
    │   └── PhysicalAddressError   a physical address where no RAM is
    ├── HeapCorruption             .address: bytes of the allocator that cannot be what they should
    ├── ExportError                an image for QEMU that cannot be made or run
    └── GuestError                 what the guest did wrong: .rip, .registers, .backtrace, .instruction
        ├── GuestFault             an exception nobody handled: .vector, .error_code, .address
        ├── GuestPanic             the kernel's own judgement: .message
        ├── GuestLimit             the instruction limit was reached: .limit
        ├── GuestStop              the machine stopped in the middle of a call: .stop
        ├── ShadowError            a wrong access to the heap: .kind, .address, .access, .size, .report
        ├── CalleeSavedError       a callee-saved register came back changed: .register, .before, .after
        └── GuestNeedsRewind       a call after a failed one, before ``kernel.rewind()``

A ``CompileWarning`` is a Python warning, and no error: what a compiler says of C that it has compiled all the same.

Nothing here imports anything of the project, so every room may raise every error.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class SandboxError(Exception):
    """The root of every error that this library raises on purpose; its text is one sentence."""


class UsageError(SandboxError):
    """A wrong argument: an option, a size, a count, a type."""


class SymbolNotFound(UsageError):
    """A name that neither the kernel nor the program defines."""

    def __init__(self, name: str, suggestions: Sequence[str] = ()) -> None:
        self.name = name
        self.suggestions = tuple(suggestions)
        hint = f"; did you mean {', '.join(self.suggestions)}?" if self.suggestions else ""
        super().__init__(f"no symbol is called {name!r}{hint}")


class ProgramError(UsageError):
    """A program file that is missing, is not text, or does not define ``main``."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class PositionError(UsageError):
    """An instruction count outside the run, which goes from ``start`` to ``end``."""

    def __init__(self, instruction: int, start: int, end: int) -> None:
        self.instruction = instruction
        self.start = start
        self.end = end
        super().__init__(f"instruction {instruction:,} is outside the run, which goes from {start:,} to {end:,}")


class RecordError(UsageError):
    """A file that is no record of this program's, or is damaged."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class AssemblyError(SandboxError):
    """Source text that does not assemble, or that would assemble to something it does not say."""

    def __init__(self, file: str, line: int, reason: str, text: str = "") -> None:
        self.file = file
        self.line = line
        self.reason = reason
        self.text = text.strip()
        shown = f"\n    {self.text}" if self.text else ""
        super().__init__(f"{file}:{line}: {reason}{shown}")


class CompileError(SandboxError):
    """C source that does not compile. ``output`` is the compiler's own text, ``line`` that of its first error (0 where
    it names none)."""

    def __init__(self, file: str, line: int, output: str) -> None:
        self.file = file
        self.line = line
        self.output = output.strip()
        super().__init__(self.output or f"{file}: the compiler failed and said nothing")


class CompileWarning(UserWarning):
    """What the compiler said of C source that it has compiled all the same, in its own words."""


class LinkError(SandboxError):
    """Objects that cannot be linked into the guest. ``problems`` are sentences, each with its place in the source, as
    far as that is known."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        several = "".join(f"\n    {problem}" for problem in self.problems)
        alone = self.problems[0] if self.problems[0].startswith(f"{file}:") else f"{file}: {self.problems[0]}"
        super().__init__(f"{file} cannot be linked:{several}" if len(self.problems) > 1 else alone)


class EngineError(SandboxError):
    """A native library that is missing, or whose behaviour could not be verified at start-up.

    ``console`` and ``events`` are what an isolated guest had printed and its trace had recorded until then.
    """

    console: str = ""
    events: tuple[Mapping[str, object], ...] = ()


class CompilerMissing(EngineError):
    """No C compiler is here; ``command`` is the one that was asked for, empty when any would have done."""

    def __init__(self, command: str = "") -> None:
        self.command = command
        what = f"the C compiler {command!r} is not here" if command else "no C compiler is here"
        super().__init__(f"{what}: install gcc or clang (Debian: apt install gcc), or pip install 'slab-sandbox[c]'")


class EngineCrashed(EngineError):
    """The child process that an isolated guest ran in is dead; this process is not.

    ``signal`` is the number of the signal that ended it, None when it left by itself with ``status``; ``words`` is
    what it last wrote to standard error, an assertion of the engine perhaps.
    """

    def __init__(self, status: int | None, words: str = "") -> None:
        self.signal = -status if status is not None and status < 0 else None
        self.status = status
        self.words = words
        how = f"was ended by {_signal_name(self.signal)}" if self.signal else f"left with status {status}"
        last = words.strip().splitlines()[-1:] or [""]
        super().__init__(f"the emulator broke down: the guest's process {how}{': ' if last[0] else ''}{last[0]}")


class EngineHung(EngineError):
    """An isolated guest took more than ``seconds`` of the host's time, and was ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the guest's process took more than {seconds:g} seconds and was ended: the emulator hangs, "
                         "or the instruction limit is too high for this host")


class EngineTooLarge(EngineError):
    """The process of an isolated guest grew to ``size`` bytes, more than its ``limit``, and was ended."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(f"the guest's process grew to {size >> 20} MiB and was ended: it may have {limit >> 20} MiB")


class GuestMemoryError(SandboxError):
    """An access from Python that guest memory cannot answer; ``address`` is its first wrong byte."""

    def __init__(self, address: int, message: str) -> None:
        self.address = address
        super().__init__(message)


class TranslationError(GuestMemoryError):
    """A virtual address that the page tables do not map; ``explanation`` tells the page walk in words."""

    def __init__(self, address: int, explanation: str) -> None:
        self.explanation = explanation
        super().__init__(address, f"0x{address:016x} does not translate: {explanation}")


class PhysicalAddressError(GuestMemoryError):
    """A physical address at which the machine has no RAM."""

    def __init__(self, address: int, reason: str = "no RAM is there") -> None:
        super().__init__(address, f"physical address 0x{address:x}: {reason}")


class HeapCorruption(SandboxError):
    """Bytes of the allocator that cannot be what they should be; nothing is guessed past them."""

    def __init__(self, address: int, message: str) -> None:
        self.address = address
        super().__init__(f"0x{address:016x}: {message}")


class ExportError(SandboxError):
    """An image that cannot be written, or a QEMU that cannot run it."""


class GuestError(SandboxError):
    """Something that guest code did. The machine stays readable as it was at that moment.

    ``registers`` maps lower-case names (``rax`` ... ``r15``, ``rip``, ``rflags``) to values at the fault;
    ``backtrace`` is one ``function+0x12 (file:line)`` for each frame, innermost first; ``instruction`` is the
    instruction count; ``console`` is the serial text of a kernel that did not come up, empty where one can be asked.
    """

    def __init__(
        self,
        message: str,
        *,
        registers: Mapping[str, int] | None = None,
        backtrace: Sequence[str] = (),
        instruction: int = 0,
    ) -> None:
        self.registers = dict(registers or {})
        self.backtrace = tuple(backtrace)
        self.instruction = instruction
        self.console = ""
        super().__init__(message)

    @property
    def rip(self) -> int:
        """The address of the instruction that is to blame, 0 where there is none."""
        return self.registers.get("rip", 0)


class GuestFault(GuestError):
    """A processor exception that no guest handler took."""

    def __init__(
        self,
        message: str,
        *,
        vector: int,
        error_code: int,
        address: int,
        registers: Mapping[str, int] | None = None,
        backtrace: Sequence[str] = (),
        instruction: int = 0,
    ) -> None:
        self.vector = vector
        self.error_code = error_code
        self.address = address
        super().__init__(message, registers=registers, backtrace=backtrace, instruction=instruction)


class GuestPanic(GuestError):
    """The guest called ``panic``; ``message`` is what it said."""

    def __init__(
        self,
        message: str,
        *,
        registers: Mapping[str, int] | None = None,
        backtrace: Sequence[str] = (),
        instruction: int = 0,
    ) -> None:
        self.message = message
        super().__init__(f"kernel panic: {message}", registers=registers, backtrace=backtrace,
                         instruction=instruction)


class GuestLimit(GuestError):
    """The guest used up the instructions that it was given."""

    def __init__(self, message: str, *, limit: int, registers: Mapping[str, int] | None = None,
                 backtrace: Sequence[str] = (), instruction: int = 0) -> None:
        self.limit = limit
        super().__init__(message, registers=registers, backtrace=backtrace, instruction=instruction)


class GuestStop(GuestError):
    """The machine stopped in the middle of a call: it exited, halted, or met a triple fault."""

    def __init__(self, message: str, *, stop: object, registers: Mapping[str, int] | None = None,
                 backtrace: Sequence[str] = (), instruction: int = 0) -> None:
        self.stop = stop
        super().__init__(message, registers=registers, backtrace=backtrace, instruction=instruction)


class ShadowError(GuestError):
    """A wrong use of the heap, caught at its instruction; the machine stands before it.

    ``kind`` is ``use-after-free``, ``out-of-bounds``, ``uninitialized-read``, ``double-free``, ``invalid-free``,
    ``wrong-cache``, ``metadata-write`` or ``overlap``; ``address`` the first wrong byte, or the pointer that was freed
    or handed out; ``access`` ``read``, ``write``, ``free`` or ``allocate``; ``size`` the bytes of the access;
    ``distance`` how far the byte lies behind the end of the object (0 is right behind it) or, negative, before its
    start, None where it is neither; ``object`` the address of that object, None where there is none; ``report`` the
    whole story in sections.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        address: int,
        access: str,
        size: int,
        distance: int | None = None,
        object: int | None = None,
        report: str = "",
        registers: Mapping[str, int] | None = None,
        backtrace: Sequence[str] = (),
        instruction: int = 0,
    ) -> None:
        self.kind = kind
        self.address = address
        self.access = access
        self.size = size
        self.distance = distance
        self.object = object
        self.report = report
        super().__init__(message, registers=registers, backtrace=backtrace, instruction=instruction)


class CalleeSavedError(GuestError):
    """A function returned with a callee-saved register changed (System V: rbx rbp rsp r12-r15)."""

    def __init__(self, function: str, register: str, before: int, after: int, *,
                 registers: Mapping[str, int] | None = None, instruction: int = 0) -> None:
        self.function = function
        self.register = register
        self.before = before
        self.after = after
        super().__init__(
            f"{function} changed {register}, which System V makes callee-saved: "
            f"0x{before:x} at the call, 0x{after:x} at the return",
            registers=registers, instruction=instruction)


class GuestNeedsRewind(GuestError):
    """A call was made after one that failed; ``kernel.rewind()`` restores the state before that one."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the last call failed ({cause}): call kernel.rewind() first")
