"""``sandbox step``: through a recorded run, forwards and backwards; on a terminal's screen, or line by line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..view.step.session import Session
from ..view.step.stepper import Stepper
from ..view.step.told import here
from .options import (
    boot_options,
    limit_option,
    machine_options,
    program_argument,
    shadow_options,
    suspicion_options,
)
from .recorded import go_to, recorded
from .terminal import Terminal

PROMPT = "(step) "
FAILED = 1
_NO_SCREEN = ("", "dumb", "unknown")
_OWN = ("program", "at", "plain")


@click.command()
@program_argument()
@click.option("--at", metavar="MOMENT", default="main", show_default=True,
              help="Begin there: an instruction count, 50%, start, end, a function, or file.asm:43.")
@click.option("--plain", is_flag=True, help="Line by line: commands from standard input, no screen.")
@machine_options
@suspicion_options
@limit_option
@click.pass_obj
def step(terminal: Terminal, /, program: str | Path, at: str, plain: bool, limit: int, shadow: bool, collect: bool,
         quarantine: int, allocator: tuple[str, ...], inject: tuple[str, ...], **machine: Any) -> int:
    """Step through a run of PROGRAM, or a saved record (FILE.rec), forwards and backwards.

    On a terminal it shows source, registers, stack, heap, trace and console; ? lists the keys. With --plain, or where
    input or output is no terminal, it reads commands from standard input: help lists them. The exit status is then 1
    when a command of a script could not be done, or when validate found something, and 0 otherwise.
    """
    options = {**boot_options(**machine), **shadow_options(shadow, collect, quarantine, allocator)}
    on_screen = not plain and _has_screen(terminal)
    if on_screen:
        require_textual()
    timeline = recorded(terminal, program, limit, inject, options, _OWN)
    with contextlib.closing(timeline.kernel):
        if on_screen:
            return _screen(terminal, Stepper(timeline), at)
        session = Session(timeline)
        go_to(session, at)
        return _lines(terminal, session)


# -- on a screen ------------------------------------------------------------------------------------------------
def _has_screen(terminal: Terminal) -> bool:
    """Whether keys can be read and a screen painted (Textual paints on standard error)."""
    return terminal.is_terminal and terminal.err.isatty() and sys.stdin is not None and sys.stdin.isatty() \
        and os.environ.get("TERM", "") not in _NO_SCREEN


def require_textual() -> None:
    """:class:`UsageError` where Textual is not installed, with the way to get it."""
    try:
        import textual  # noqa: F401
    except ImportError:
        raise UsageError("the stepper's screen needs Textual: pip install 'slab-sandbox[tui]', or use --plain, which "
                         "has the same commands") from None


def _screen(terminal: Terminal, stepper: Stepper, at: str) -> int:
    from ..view.step.app import run

    go_to(stepper.session, at)
    run(stepper, terminal.colour and _has_colours(), "utf" not in (terminal.out.encoding or "").lower())
    return 0


def _has_colours() -> bool:
    """Whether the terminal has colours, by its own description; one that nobody has described is taken to."""
    try:
        import curses

        curses.setupterm()
        return curses.tigetnum("colors") > 0
    except Exception:                            # no curses here, or no description
        return True


# -- line by line -----------------------------------------------------------------------------------------------
def _lines(terminal: Terminal, session: Session) -> int:
    """The commands of standard input; the status is that of a script, where it is one."""
    typed = terminal.is_terminal and sys.stdin is not None and sys.stdin.isatty()
    failed = False
    for line in here(session):
        terminal.line(line)
    for command in _typed(terminal) if typed else sys.stdin or ():
        if not typed and not command.strip():
            continue
        try:
            answer = session.execute(command)
        except KeyboardInterrupt:
            if not typed:
                raise
            terminal.note("interrupted")
            continue
        for line in answer.lines:
            terminal.line(line)
        if answer.error:
            terminal.error(answer.error)
        failed = failed or answer.failed
        if session.ended:
            break
    return FAILED if failed and not typed else 0


def _typed(terminal: Terminal) -> Iterator[str]:
    """Lines from the keyboard, with a prompt, and a history where the host has readline."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    while True:
        terminal.out.flush()
        try:
            yield input(PROMPT)
        except EOFError:
            terminal.line()
            return
        except KeyboardInterrupt:
            terminal.line()
