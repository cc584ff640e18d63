"""A session on a timeline: commands in, lines of text out. What stands at the prompt or on a screen is not its concern.

::

    session = Session(timeline)
    session.execute("break kmalloc").lines
    session.execute("reverse-continue").lines

The commands go by gdb's names where gdb has them; :mod:`.commands` lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...debugger.breakpoints import Breakpoints
from ...debugger.c_expressions import CExpressions, Value
from ...debugger.expressions import Expressions
from ...debugger.timeline import Timeline
from ...errors import SandboxError, UsageError
from ...kernel import Kernel
from ...trace.events import Event
from .commands import COMMANDS
from .run import Run
from .scene import Scene


@dataclass(frozen=True)
class Answer:
    """What a command said: ``lines`` of text, and an ``error``, one sentence, where it could not be done or not to its
    end. ``failed`` is also a check's bad news."""

    lines: tuple[str, ...] = ()
    error: str = ""
    failed: bool = False


class Session:
    """A timeline with breakpoints, a search and a last value; it remembers which moment was shown last."""

    def __init__(self, timeline: Timeline[Kernel]) -> None:
        self.timeline = timeline
        self.run = Run(timeline)
        self.breakpoints = Breakpoints()
        self.ended = False
        self.failed = False
        self.sought = ""
        self.expressions = Expressions(timeline.kernel.symbols, timeline.kernel.registers, timeline.kernel.memory,
                                       lambda name: self.scene.locals.value(name), self._of_c)
        self._again = ""
        self._scene = Scene(self.run)
        self._shown = self._key()

    @property
    def scene(self) -> Scene:
        """The present moment."""
        if self._shown != self._key():
            moved = self._shown[0] != self.timeline.position
            before = self._scene.registers if moved else self._scene.before
            self._scene = Scene(self.run, before, self.breakpoints.addresses)
            self._shown = self._key()
        return self._scene

    def _key(self) -> tuple[int, bool, frozenset[int]]:
        return self.timeline.position, self.timeline.diverted, self.breakpoints.addresses

    def execute(self, line: str) -> Answer:
        """Do one command. An empty line does the last one that goes somewhere again; ``#`` begins a comment."""
        text = line.strip()
        if not text:
            text = self._again
        if not text or text.startswith("#"):
            return Answer()
        _ = self.scene.registers                     # what a move is compared with
        self.failed = False
        lines: list[str] = []
        try:
            command, argument = COMMANDS.parse(text)
            lines.extend(command.run(self, argument))
        except SandboxError as error:                # what was said before it still holds
            return Answer(tuple(lines), " ".join(str(error).split()), True)
        self._again = text if command.repeats else ""
        return Answer(tuple(lines), "", self.failed)

    # -- what several commands need ---------------------------------------------------------------------------
    def value(self, text: str) -> int:
        """The value of an expression at this moment."""
        found = self.expressions.value(text)
        self.expressions.last = found
        return found

    def in_c(self, text: str) -> Value | None:
        """What a text is as an expression of C at this moment; None where it is none."""
        return self.expressions.in_c(text)

    def told(self, value: Value) -> str:
        """What an expression of C holds, in words."""
        return self._of_c().words(value)

    def _of_c(self) -> CExpressions:
        return CExpressions(self.timeline.kernel, self.scene.locals, self.expressions.of_assembly,
                            self.expressions.unknown)

    def variable(self, text: str) -> tuple[int, int] | None:
        """Address and size of what an expression of C names: a variable, a member, an element; None for another text,
        and for a value that is no place. :class:`UsageError` for a variable that is in no memory here."""
        found, seen = self.in_c(text), self.scene.locals.seen(text)
        if found is not None and seen is not None and found.place.address is None:
            raise UsageError(f"{text!r} is in a register here, and in no memory")
        return None if found is None or found.place.address is None else (found.place.address, max(found.type.size, 1))

    def count(self, text: str) -> int:
        """How many times; 1 when nothing is said."""
        number = self.expressions.value(text) if text else 1
        if not 0 < number < 1 << 63:
            raise UsageError(f"{text!r} is no number of times")
        return number

    def event(self, text: str) -> Event:
        """The event with a number: ``7`` or ``#7``."""
        number = self.expressions.value(text.removeprefix("#"))
        events = self.run.events.every
        if not number < len(events):
            raise UsageError(f"no event has the number {number}: there are {len(events):,}, from 0 on")
        return events[number]
