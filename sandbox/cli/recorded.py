"""The run that a command walks through: recorded now, or opened from a file."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..debugger.places import addresses
from ..debugger.timeline import Timeline
from ..errors import UsageError
from ..guest.symbols import Symbols
from ..kernel import Kernel, boot
from ..recording import open_record, record
from ..view.step.session import Session
from .terminal import Terminal

_FUNCTION = re.compile(r"(?P<label>[A-Za-z_.][\w.]*(?:@[\w./-]+?)?)\s*(?:[+-].*)?")
RECORD = ".rec"
"""What the name of a saved record ends in."""


def recorded(terminal: Terminal, program: str | Path, limit: int, inject: tuple[str, ...], options: dict[str, Any],
             own: Collection[str]) -> Timeline[Kernel]:
    """The run of a program, after Ctrl-C as much of it as there was; or a saved record, with which no options go but
    the command's ``own``."""
    if str(program).endswith(RECORD):
        return _opened(program, own)
    kernel = boot(program, **options)
    kernel.inject(*inject)
    timeline = record(kernel)
    terminal.start_progress()
    with kernel.trace() as trace:
        try:
            timeline.result = kernel.run(limit, progress=terminal.progress)
        except KeyboardInterrupt:
            terminal.note(f"interrupted at instruction {kernel.instructions:,}: this is the run until then")
    terminal.clear_progress()
    timeline.adopt(trace)
    return timeline


def _opened(program: str | Path, own: Collection[str]) -> Timeline[Kernel]:
    """A saved record, which has options of its own."""
    context = click.get_current_context()
    given = [name for name in context.params if name not in own
             and context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        raise click.UsageError(f"a record has its own options: --{given[0].replace('_', '-')} does not go with it")
    return open_record(program)


def go_to(session: Session, at: str) -> None:
    """To the moment, or to the first time that the place is reached; to the end where ``main`` never is.
    A record without a program, as that of a test, has no ``main``: it opens where it stood."""
    timeline = session.timeline
    if at == "main" and at not in timeline.kernel.symbols:
        return
    timeline.goto(timeline.start)
    if _is_place(timeline.kernel.symbols, at):
        begins_there = timeline.moment.rip in addresses(timeline.kernel.symbols, at)
        if not begins_there and timeline.run_to(at) is None:
            timeline.goto(timeline.length)
            if at != "main":
                raise UsageError(f"{at} is never reached in this run")
        return
    answer = session.execute(f"goto {at}")
    if answer.error:
        raise UsageError(answer.error)


def _is_place(symbols: Symbols, at: str) -> bool:
    """Whether it is a place in the code, and no moment: ``init.asm:43``, ``kmalloc``, ``kmalloc+0x12``, ``*0x...``."""
    found = _FUNCTION.fullmatch(at)
    return ":" in at or at.startswith("*") or (found is not None and found["label"] in symbols)
