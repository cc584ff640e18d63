"""What a command is, and how a line becomes one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ...errors import UsageError
from .keys import DIRECT

if TYPE_CHECKING:
    from .session import Session

_LINE = re.compile(r"(?P<name>[A-Za-z][\w-]*|[?/\]\[])(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command: its ``name``, shorter ``others``, how its arguments are written, one sentence, and what it does.

    ``run(session, argument)`` yields lines of text. ``repeats``: an empty line does it once more.
    """

    name: str
    others: tuple[str, ...]
    arguments: str
    summary: str
    run: Callable[[Session, str], Iterable[str]]
    repeats: bool = False

    @property
    def usage(self) -> str:
        """``step [N]``."""
        return f"{self.name} {self.arguments}".rstrip()


class Table:
    """Commands by name, in groups."""

    def __init__(self, groups: dict[str, tuple[Command, ...]]) -> None:
        self.groups = groups
        self._by_name = {name: command for commands in groups.values() for command in commands
                         for name in (command.name, *command.others)}

    def find(self, name: str) -> Command:
        """The command called ``name``, or the only one that begins so; :class:`UsageError` for any other."""
        if name in self._by_name:
            return self._by_name[name]
        begun = {command.name: command for known, command in self._by_name.items() if known.startswith(name)}
        if len(begun) == 1:
            return next(iter(begun.values()))
        if begun:
            raise UsageError(f"{name!r} may be {', '.join(sorted(begun))}")
        if DIRECT.get(name, "").partition(" ")[0] in self._by_name:
            raise UsageError(f"no command is called {name!r}: it is a key of the screen; write {DIRECT[name]}")
        near = get_close_matches(name, self._by_name, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "help lists them"
        raise UsageError(f"no command is called {name!r}: {hint}")

    def parse(self, line: str) -> tuple[Command, str]:
        """A line as a command and its argument: ``x/16xb rsp`` is ``x`` with ``/16xb rsp``."""
        found = _LINE.fullmatch(line.strip())
        if found is None:
            self.find(line.strip()[:1])          # a sign that is a key of the screen
            raise UsageError(f"{line.strip()!r} is no command: help lists them")
        return self.find(found["name"]), found["rest"].strip()
