"""``sandbox explain``: an allocation as a listing, or one instruction in words."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from ..debugger.narrate import DEEPEST, narrate
from ..debugger.timeline import Timeline
from ..errors import UsageError
from ..kernel import Kernel
from ..trace.events import Event
from ..view.step.session import Session
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

_OWN = ("program", "event", "at", "depth")


@click.command()
@program_argument()
@click.option("--event", type=click.IntRange(min=0), metavar="N",
              help="The event to tell, by its number in the trace (sandbox run --json).  [default: the first "
                   "allocation]")
@click.option("--at", metavar="MOMENT", help="Tell one instruction: that at an instruction count, 50%, start, end, or "
                                             "the first of a function or of file.asm:43.")
@click.option("--depth", type=click.IntRange(0, DEEPEST), metavar="N",
              help="How deep calls are told line by line, 0 for none.  [default: as fits a reader]")
@machine_options
@suspicion_options
@limit_option
@click.pass_obj
def explain(terminal: Terminal, /, program: str | Path, event: int | None, at: str | None, depth: int | None,
            limit: int, shadow: bool, collect: bool, quarantine: int, allocator: tuple[str, ...],
            inject: tuple[str, ...], **machine: Any) -> None:
    """An allocation line by line, or one instruction in words.

    Of a run of PROGRAM, or of a saved record (FILE.rec). The lines that ran are listed with the instruction count, and
    with what they read and wrote by name; what ran again is folded. With --at it is one instruction with its operands,
    its page walks, and why it faults if it does.
    """
    if at is not None and (event is not None or depth is not None):
        raise click.UsageError(f"--at tells one instruction: {'--event' if event is not None else '--depth'} does not "
                               "go with it")
    options = {**boot_options(**machine), **shadow_options(shadow, collect, quarantine, allocator)}
    timeline = recorded(terminal, program, limit, inject, options, _OWN)
    with contextlib.closing(timeline.kernel):
        if at is not None:
            go_to(Session(timeline), at)
            told = str(timeline.explain())
        else:
            told = str(narrate(timeline, _event(timeline, event), depth))
    for line in told.splitlines():
        terminal.line(line, "told")


def _event(timeline: Timeline[Kernel], number: int | None) -> Event:
    """The event with a number, or the first allocation that the program asked for."""
    if number is not None:
        return timeline.trace.by_sequence(number)
    found = timeline.trace.find(kind="alloc")
    if found is None:
        raise UsageError("this run allocates nothing: there is no event to tell")
    return found
