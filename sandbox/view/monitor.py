"""``monitor`` commands for gdb: what gdb cannot ask by itself, in the stepper's words, and under mdb's names.

``slabs``, ``whatis``, ``history``, ``validate``, ``walk`` and their kin are the stepper's own commands; ``kmastat``,
``kmem_verify`` and ``findleaks`` are what they are called in mdb, the debugger of Solaris, where slabs come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..debugger.timeline import Timeline
from .step.command import Command, Table
from .step.commands import COMMANDS
from .step.seeking import told
from .step.session import Session
from .step.told import here

SHOWN = 10
"""Events that ``trace`` shows, unless it is told how many."""
_SAME = ("goto", "slabs", "whatis", "history", "validate", "walk", "who-wrote", "who-read", "explain", "events",
         "search", "search-back", "next-event", "previous-event", "diff", "console")
_OTHER_NAMES = {"slabs": ("kmastat",), "validate": ("kmem_verify",)}
REFETCH = ("maintenance flush register-cache", "maintenance flush dcache")
"""The commands of gdb's after which it looks at registers and memory anew."""


class Monitor:
    """Answers commands about the moment at which gdb's timeline stands."""

    def __init__(self, timeline: Timeline[Any]) -> None:
        self._timeline = timeline
        self._session = Session(timeline)
        self.connect()

    def connect(self) -> None:
        """A new connection: one that may not look at everything anew by itself."""
        self._hints = True

    def answer(self, line: str) -> Iterator[str]:
        """The lines of an answer; a :class:`SandboxError` for what cannot be answered."""
        if line.split() == ["hints", "off"]:
            self._hints = False
            return
        before = self._timeline.position
        command, argument = _TABLE.parse(line.strip() or "help")
        yield from command.run(self._session, argument)
        if self._timeline.position != before and self._hints:
            yield f"gdb remembers registers and stack of before, until: {' and: '.join(REFETCH)}"


# -- commands that the stepper has not --------------------------------------------------------------------------
def _when(session: Session, argument: str) -> Iterator[str]:
    yield from here(session)


def _trace(session: Session, argument: str) -> Iterator[str]:
    """The last events before now."""
    events, last = session.run.events.every, session.run.events.last(session.timeline.position)
    count = session.count(argument) if argument else SHOWN
    yield from (told(session, event) for event in events[max(last + 1 - count, 0) : last + 1])
    if last < 0:
        yield "the allocator was not called yet"


def _leaks(session: Session, argument: str) -> Iterator[str]:
    """What nothing leads to."""
    leaks = session.timeline.kernel.heap.leaks()
    yield from map(str, leaks)
    if not leaks:
        yield "no leaks"


def _help(session: Session, argument: str) -> Iterator[str]:
    """All commands, or one of them."""
    if argument:
        command = _TABLE.find(argument.split()[0])
        yield f"{command.usage}: {command.summary}"
        return
    for command in (known for commands in _TABLE.groups.values() for known in commands):
        others = f" (also {', '.join(_OTHER_NAMES[command.name])})" if command.name in _OTHER_NAMES else ""
        yield f"{command.usage:<28} {command.summary}{others}"
    yield "An ADDRESS is a number, a label or an expression: $rdi, kmalloc+0x12, [rsp], rdi + kmem_cache.partial."
    yield "A MOMENT is an instruction count, +N, -N, 50%, #EVENT, start or end."


def _renamed(name: str) -> Command:
    """A command of the stepper's; of the names for it those that gdb's user may know."""
    known = COMMANDS.find(name)
    return Command(name, _OTHER_NAMES.get(name, ()), known.arguments, known.summary, known.run)


_TABLE = Table({"monitor": (
    *map(_renamed, _SAME),
    Command("when", (), "", "which moment this is", _when),
    Command("trace", (), "[N]", "the last events before this moment", _trace),
    Command("findleaks", ("leaks",), "", "what is allocated, and nothing leads to", _leaks),
    Command("help", ("?",), "[COMMAND]", "this list, or one command", _help),
)})
