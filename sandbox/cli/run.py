"""``sandbox run``: the console and every allocation as they happen, then how it ended."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TextIO

import click

from ..errors import EngineError, GuestError, ProgramError
from ..guest.export import export, run_qemu
from ..guest.images import make_images
from ..guest.options import BootOptions
from ..guest.outcome import RunKind, RunResult
from ..isolated import run_isolated
from ..kernel import Kernel, boot
from ..toolchain.c.options import c_options
from ..toolchain.packaged import example, examples, kernel_image
from ..trace.events import Event
from ..trace.export import jsonl
from ..view.live import EventLines
from ..view.run import Before, program_file, summary
from .options import (
    RUN_LIMIT,
    boot_options,
    limit_option,
    machine_options,
    program_argument,
    shadow_options,
    suspicion_options,
)
from .terminal import ConsoleLines, Terminal

STATUS = {RunKind.SUCCESS: 0, RunKind.FAILURE: 1}
STOPPED = 3
INTERRUPTED = 130
UNWRITTEN = 2
"""A file that was asked for could not be written."""
QEMU_STATUS = {33: 0, 35: 1}


@click.command()
@program_argument()
@machine_options
@suspicion_options
@limit_option
@click.option("--no-trace", is_flag=True, help="Do not show the allocator's events.")
@click.option("--json", "json_file", type=click.File("w", encoding="utf-8", lazy=False), metavar="FILE",
              help="Write the trace as JSON Lines.")
@click.option("-q", "--quiet", is_flag=True, help="Show what the guest prints, and nothing else.")
@click.option("--on", "engine", type=click.Choice(["emulator", "qemu"]), default="emulator", show_default=True,
              help="Where to run it; QEMU shows the console alone.")
@click.option("--isolated", is_flag=True, help="In a child process: whatever the guest does to its engine ends there.")
@click.pass_obj
def run(terminal: Terminal, /, program: str | Path, limit: int, no_trace: bool, json_file: TextIO | None,
        quiet: bool, engine: str, isolated: bool, shadow: bool, collect: bool, quarantine: int,
        allocator: tuple[str, ...], inject: tuple[str, ...], **machine: Any) -> int:
    """Boot, run PROGRAM's main, and show every allocation.

    Exit status: 0 when main returned 0, 1 when it did not, 3 after a panic, a fault, an error of the shadow or a
    limit, 2 for bad usage.
    """
    options = {**boot_options(**machine), **shadow_options(shadow, collect, quarantine, allocator)}
    if engine == "qemu":
        if json_file is not None or limit != RUN_LIMIT:
            raise click.UsageError("QEMU has no trace and no instruction limit: --json and --limit do not go with it")
        if shadow or inject or isolated:
            raise click.UsageError("--shadow, --inject and --isolated are the emulator's: they do not go with QEMU")
        return _in_qemu(terminal, program, **options)
    if isolated:
        return _isolated(terminal, program, limit, not (no_trace or quiet), json_file, quiet, inject, options)
    with ExitStack() as stack:
        try:
            kernel = stack.enter_context(boot(program, **options))
        except GuestError as error:
            terminal.line(getattr(error, "console", ""), "console")
            raise
        kernel.inject(*inject)
        show = stack.enter_context(closing(_Show(terminal, kernel, not (no_trace or quiet), json_file)))
        before = Before.of(kernel.heap)
        start, interrupted = kernel.instructions, ""
        try:
            result = show.run(limit)
        except KeyboardInterrupt:
            taken = kernel.instructions - start
            result = RunResult(RunKind.STOP, None, taken, "interrupted")
            interrupted = f"interrupted after {taken:,} instructions, at {_program_frame(kernel)}"
        accused = kernel.shadow is not None and bool(kernel.shadow.errors)
        if not quiet:
            named = shlex.join([str(program), *machine["modules"]])
            for line in summary(kernel, result, before, show.events(), named, _following(program)):
                terminal.line(line, "report")
        if interrupted:
            terminal.error(interrupted)
        elif result.kind not in STATUS:
            terminal.error(result.sentence)
        elif accused and kernel.shadow is not None:
            terminal.error(str(kernel.shadow.errors[0]))
        if show.unwritten:
            terminal.error(show.unwritten)
    if interrupted:
        return INTERRUPTED
    if accused or result.kind not in STATUS:
        return STOPPED
    return UNWRITTEN if show.unwritten else STATUS[result.kind]


def _program_frame(kernel: Kernel) -> str:
    """Where the program is: its innermost frame, the very innermost one where none is the program's."""
    frames = kernel.backtrace()
    labels = kernel.program.symbols if kernel.program is not None else {}
    return next((frame for frame in frames if frame.split()[0].partition("+")[0] in labels), frames[0])


def _following(program: str | Path) -> str:
    """The number of the example behind this one, if it is one."""
    course = [path.stem for path in examples()]
    with suppress(ProgramError, ValueError):     # no example, or one without a number
        at = course.index(example(str(program)).stem)
        return course[at + 1].partition("_")[0] if at + 1 < len(course) else ""
    return ""


def _file(program: str | Path) -> str:
    """The program's source file, as events call it."""
    if Path(program).exists():
        return str(program)
    path = example(str(program))
    return f"{path.parent.name}/{path.name}"


class _JsonLines:
    """The file of events. A full disk ends the file and not the run: ``error`` says it afterwards."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.error = ""
        for line in jsonl.lines(()):
            self.write(line)
        self.flush()

    def write(self, line: str) -> None:
        """One more line."""
        self._attempt(lambda: self._file.write(f"{line}\n"))

    def flush(self) -> None:
        """Let readers see the lines so far."""
        self._attempt(self._file.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.error or self._file.closed:
            return
        try:
            action()
        except BrokenPipeError:                  # --json -: standard output itself, which nobody reads any more
            raise
        except OSError as error:
            self.error = f"{self._file.name}: {error.strerror}"
            with suppress(OSError):              # or else closing it later fails once more
                self._file.close()


class _Show:
    """A run as it happens: the guest's lines and the allocator's events, in order, and the events in a file."""

    def __init__(self, terminal: Terminal, kernel: Kernel, visible: bool, json_file: TextIO | None) -> None:
        self._terminal = terminal
        self._kernel = kernel
        self._visible = visible
        self._json = None if json_file is None else _JsonLines(json_file)
        self._console = ConsoleLines(terminal)
        self._lines = EventLines(program_file(kernel))
        for byte in kernel.console.encode():
            self._console.byte(byte)
        kernel.machine.serial.listener = self._console.byte
        self._trace = kernel.trace(self._event) if visible or json_file is not None else None

    def run(self, limit: int) -> RunResult:
        """Run to the end; what was open in the allocator then is shown as unfinished."""
        self._terminal.start_progress()
        try:
            return self._kernel.run(limit, progress=self._terminal.progress)
        finally:
            self.close()

    def close(self) -> None:
        """Show and write what is left."""
        self._console.finish()
        self._kernel.machine.serial.listener = None
        if self._trace is not None and self._trace.recording:
            self._trace.stop()
        if self._json is not None:
            self._json.flush()
        self._terminal.clear_progress()

    @property
    def unwritten(self) -> str:
        """Why the file of events is not whole, in a sentence; empty when it is, or nobody asked for one."""
        return self._json.error if self._json is not None else ""

    def events(self) -> list[Event]:
        """Every event so far."""
        return list(self._trace.walk()) if self._trace is not None else []

    def _event(self, event: Event) -> None:
        if self._json is not None:
            self._json.write(json.dumps(event.to_dict()))
            if event.parent is None:
                self._json.flush()
        if self._visible:
            self._console.finish()
            self._terminal.line(self._lines.line(event), "event")


def _isolated(terminal: Terminal, program: str | Path, limit: int, visible: bool, json_file: TextIO | None,
              quiet: bool, inject: tuple[str, ...], options: dict[str, Any]) -> int:
    """The same run in a child process; what kills that is one error here."""
    console, lines = ConsoleLines(terminal), EventLines(_file(program))
    written = None if json_file is None else _JsonLines(json_file)

    def show_console(text: str) -> None:
        for byte in text.encode():
            console.byte(byte)

    def show_event(data: dict[str, Any]) -> None:
        if written is not None:
            written.write(json.dumps(data))
        if visible:
            console.finish()
            terminal.line(lines.line(Event(**{**data, "stack": tuple(data["stack"])})), "event")

    terminal.start_progress()
    try:
        result = run_isolated(program, limit=limit, inject=inject, trace=visible or json_file is not None,
                              on_console=show_console, on_event=show_event, on_progress=terminal.progress, **options)
    except EngineError as error:
        console.finish()
        terminal.error(str(error))
        return STOPPED
    console.finish()
    terminal.clear_progress()
    if not quiet:
        for line in result.report.splitlines():
            terminal.line(line, "report")
    kind = RunKind(result.kind)
    if kind not in STATUS:
        terminal.error(result.sentence)
    elif result.shadow_errors:
        terminal.error(result.shadow_errors[0])
    if written is not None:
        written.flush()
        if written.error:
            terminal.error(written.error)
    if result.shadow_errors or kind not in STATUS:
        return STOPPED
    return UNWRITTEN if written is not None and written.error else STATUS[kind]


def _in_qemu(terminal: Terminal, program: str | Path, modules: Sequence[str] = (), cc: str | None = None,
             cflags: str = "", allocator: object = None, **machine: Any) -> int:
    """The same program on another machine: its console, and the exit in QEMU's own terms."""
    if allocator is not None:
        raise click.UsageError("--allocator is the emulator's: Python gives it its arena, and there is none in QEMU")
    options = BootOptions(**machine)
    images = make_images(kernel_image(), program, modules, choice=c_options(cc, cflags))
    result = run_qemu(export(images.kernel, images.program, options, images.modules), options)
    console = ConsoleLines(terminal)
    for byte in result.console.encode("latin-1"):
        console.byte(byte)
    console.finish()
    terminal.note(f"QEMU ended with status {result.status}")
    return QEMU_STATUS.get(result.status, STOPPED)
