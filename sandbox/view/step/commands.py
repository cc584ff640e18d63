"""Every command, in groups, and the help that lists them."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from .command import Command, Table
from .looking import LOOKING
from .moving import MOVING
from .seeking import SEEKING
from .stopping import STOPPING

if TYPE_CHECKING:
    from .session import Session


def helped(session: Session, argument: str) -> Iterator[str]:
    """All commands, or one of them."""
    if argument:
        command = COMMANDS.find(argument.split()[0])
        yield command.usage + (f"    also: {', '.join(command.others)}" if command.others else "")
        yield from wrap(f"{command.summary[0].upper()}{command.summary[1:]}.", 79)
        return
    for group, commands in COMMANDS.groups.items():
        yield group
        for command in commands:
            yield f"  {short(command):<28} {command.summary}"
    yield "A MOMENT is an instruction count, a PLACE code. An empty line repeats the last move; # begins a comment."


def short(command: Command) -> str:
    """``n, next [N]``: the shortest way to write it, and the whole."""
    letters = [name for name in command.others if len(name) == 1]
    return f"{letters[0]}, {command.usage}" if letters else command.usage


def leave(session: Session, argument: str) -> Iterator[str]:
    """The end of the session."""
    session.ended = True
    yield from ()


COMMANDS = Table({
    "moving": MOVING,
    "stopping": STOPPING,
    "finding": SEEKING,
    "looking": LOOKING,
    "the session": (
        Command("help", ("h", "?"), "[COMMAND]", "this list, or one command", helped),
        Command("quit", ("q", "exit"), "", "leave", leave),
    ),
})
