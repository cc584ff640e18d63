"""``sandbox run``: the console and every allocation as they happen, then how it ended."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TextIO

import click

from ..errors import GuestError, ProgramError
from ..guest.export import export, run_qemu
from ..guest.options import BootOptions
from ..guest.outcome import RunKind, RunResult
from ..kernel import Kernel, assemble_program, boot
from ..toolchain.packaged import example, examples, kernel_image
from ..trace.events import Event
from ..trace.export import jsonl
from ..view.live import EventLines
from ..view.run import Before, program_file, summary
from .options import RUN_LIMIT, boot_options, limit_option, machine_options, program_argument
from .terminal import ConsoleLines, Terminal

STATUS = {RunKind.SUCCESS: 0, RunKind.FAILURE: 1}
STOPPED = 3
INTERRUPTED = 130
QEMU_STATUS = {33: 0, 35: 1}


@click.command()
@program_argument()
@machine_options
@limit_option
@click.option("--no-trace", is_flag=True, help="Do not show the allocator's events.")
@click.option("--json", "json_file", type=click.File("w", encoding="utf-8", lazy=False), metavar="FILE",
              help="Write the trace as JSON Lines.")
@click.option("-q", "--quiet", is_flag=True, help="Show what the guest prints, and nothing else.")
@click.option("--on", "engine", type=click.Choice(["emulator", "qemu"]), default="emulator", show_default=True,
              help="Where to run it; QEMU shows the console alone.")
@click.pass_obj
def run(terminal: Terminal, /, program: str | Path, limit: int, no_trace: bool, json_file: TextIO | None,
        quiet: bool, engine: str, **machine: Any) -> int:
    """Boot, run PROGRAM's main, and show every allocation.

    Exit status: 0 when main returned 0, 1 when it did not, 3 after a panic, a fault or a limit, 2 for bad usage.
    """
    if engine == "qemu":
        if json_file is not None or limit != RUN_LIMIT:
            raise click.UsageError("QEMU has no trace and no instruction limit: --json and --limit do not go with it")
        return _in_qemu(terminal, program, boot_options(**machine))
    with ExitStack() as stack:
        try:
            kernel = stack.enter_context(boot(program, **boot_options(**machine)))
        except GuestError as error:
            terminal.line(getattr(error, "console", ""), "console")
            raise
        show = stack.enter_context(closing(_Show(terminal, kernel, not (no_trace or quiet), json_file)))
        before = Before.of(kernel.heap)
        start = kernel.instructions
        try:
            result = show.run(limit)
        except KeyboardInterrupt:
            taken = kernel.instructions - start
            terminal.error(f"interrupted after {taken:,} instructions, at {kernel.symbolize(kernel.registers['rip'])}")
            return INTERRUPTED
        if not quiet:
            for line in summary(kernel, result, before, show.events(), str(program), _following(program)):
                terminal.line(line, "report")
        elif result.kind not in STATUS:
            terminal.error(result.sentence)
    return STATUS.get(result.kind, STOPPED)


def _following(program: str | Path) -> str:
    """The number of the example behind this one, if it is one."""
    course = [path.stem for path in examples()]
    with suppress(ProgramError):
        at = course.index(example(str(program)).stem)
        return course[at + 1].partition("_")[0] if at + 1 < len(course) else ""
    return ""


class _Show:
    """A run as it happens: the guest's lines and the allocator's events, in order, and the events in a file."""

    def __init__(self, terminal: Terminal, kernel: Kernel, visible: bool, json_file: TextIO | None) -> None:
        self._terminal = terminal
        self._kernel = kernel
        self._visible = visible
        self._json = json_file
        self._console = ConsoleLines(terminal)
        self._lines = EventLines(program_file(kernel))
        if json_file is not None:
            json_file.writelines(f"{line}\n" for line in jsonl.lines(()))
            json_file.flush()
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
        if self._json is not None and not self._json.closed:
            self._json.flush()
        self._terminal.clear_progress()

    def events(self) -> list[Event]:
        """Every event so far."""
        return list(self._trace.walk()) if self._trace is not None else []

    def _event(self, event: Event) -> None:
        if self._json is not None:
            self._json.write(json.dumps(event.to_dict()) + "\n")
            if event.parent is None:
                self._json.flush()
        if self._visible:
            self._console.finish()
            self._terminal.line(self._lines.line(event), "event")


def _in_qemu(terminal: Terminal, program: str | Path, machine: dict[str, Any]) -> int:
    """The same program on another machine: its console, and the exit in QEMU's own terms."""
    options = BootOptions(**machine)
    kernel = kernel_image()
    result = run_qemu(export(kernel, assemble_program(program, kernel), options), options)
    console = ConsoleLines(terminal)
    for byte in result.console.encode("latin-1"):
        console.byte(byte)
    console.finish()
    terminal.note(f"QEMU ended with status {result.status}")
    return QEMU_STATUS.get(result.status, STOPPED)
