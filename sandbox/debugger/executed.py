"""Which lines ran: a function as the source lines that it went through, with its calls inside of them.

The instructions of an event are taken one by one; a call opens a frame, which ends when RSP is above where it began. A
tail call (``jmp kmem_cache_free``) goes on in the same frame, as it does for the processor. What is an event of its own
is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..guest.symbols import Symbols
from ..toolchain.disassembler import MAX_INSTRUCTION, Disassembler
from ..trace.events import Event
from .explain import Explainable, Later

LONGEST_PERIOD = 64
"""Lines of a loop's body that are recognised."""
_TRAPS = "trap_stubs"

Step = tuple[int, int]
"""The instruction count and RIP."""


class Guest(Explainable, Later, Protocol):
    """The guest of a timeline."""


class Goes(Protocol):
    """A timeline, as far as it is needed here."""

    @property
    def kernel(self) -> Guest:
        """The guest at the present moment."""
        ...

    @property
    def position(self) -> int:
        """The present moment."""
        ...

    def goto(self, instruction: int) -> object:
        """Go to a moment."""
        ...


@dataclass
class Visit:
    """One visit to a source line: its instructions, of which a ``rep`` is one with many ``turns``, and the interrupt
    and the call that its last one led to."""

    place: str
    source: str
    function: str
    steps: list[Step]
    turns: int = 1
    calls: list[Call] = field(default_factory=list)

    @property
    def instruction(self) -> int:
        """The count at which it began."""
        return self.steps[0][0]

    @property
    def key(self) -> object:
        """What makes two visits alike."""
        return self.place, tuple(rip for _, rip in self.steps), tuple(call.name for call in self.calls)

    @property
    def instructions(self) -> int:
        """How many instructions, those of the call among them."""
        return len(self.steps) - 1 + self.turns + sum(call.instructions for call in self.calls)


@dataclass
class Loop:
    """Items that ran once and ``times`` times more, from the instruction ``again`` on, which took ``instructions``."""

    items: list[Item]
    times: int
    again: int
    instructions: int

    @property
    def key(self) -> object:
        """What makes two loops alike, however often they ran."""
        return "loop", tuple(item.key for item in self.items)


Item = Visit | Loop


@dataclass
class Frame:
    """A function's visits; ``top`` is RSP at its first instruction."""

    top: int
    items: list[Visit] = field(default_factory=list)

    def steps(self) -> Iterator[Step]:
        """Every instruction, those of calls among them, in order."""
        for visit in self.items:
            yield from visit.steps
            for call in visit.calls:
                yield from call.frame.steps()


@dataclass
class Call:
    """What happened between an instruction and the one behind it: ``kind`` is ``call`` or ``interrupt``; ``event`` is
    the event that the call was, of which the frame has nothing then. ``calls`` tells an interrupt that came between a
    ``call`` and the first instruction of its function."""

    kind: str
    name: str
    instruction: int
    frame: Frame
    end: int = 0
    event: Event | None = None
    calls: bool = False

    @property
    def instructions(self) -> int:
        """How many it took."""
        return self.end - self.instruction


def follow(timeline: Goes, event: Event, limit: int) -> Frame:
    """What ran from the present moment, the entry of an event, up to its end, or for ``limit`` instructions."""
    return _Follower(timeline, event, limit).run()


class _Follower:
    """The journey through one event."""

    def __init__(self, timeline: Goes, event: Event, limit: int) -> None:
        self._timeline = timeline
        self._kernel = timeline.kernel
        self._symbols: Symbols = timeline.kernel.symbols
        self._end = event.instruction
        self._limit = limit
        self._children = {child.entered: child for child in reversed(event.children)}
        self._disassembler = Disassembler()
        self._verbs: dict[int, str] = {}
        self._open: list[Call] = []

    def run(self) -> Frame:
        """Go through it."""
        timeline, registers, taken = self._timeline, self._kernel.registers, 0
        outermost = Frame(registers["rsp"])
        while timeline.position < self._end and taken < self._limit:
            now, rip, rsp = timeline.position, registers["rip"], registers["rsp"]
            frame = self._open[-1].frame if self._open else outermost
            child = self._children.pop(now, None)
            if child is not None and self._open and not frame.items:
                self._open[-1].event = child
                timeline.goto(child.instruction)
                self._leave(registers["rsp"], outermost)
                continue
            self._visit(frame, now, rip)
            verb = self._verb(rip)
            timeline.goto(now + 1)
            taken += 1
            self._leave(registers["rsp"], outermost)
            self._enter(verb, self._open[-1].frame if self._open else outermost, registers["rip"], rsp)
        for call in self._open:
            call.end = timeline.position
        return outermost

    def _leave(self, rsp: int, outermost: Frame) -> None:
        """Close the frames that RSP is above of."""
        while self._open and rsp > self._open[-1].frame.top:
            call = self._open.pop()
            call.end = self._timeline.position
            if call.calls:                                   # now the function that was interrupted begins
                self._begin("call", self._open[-1].frame if self._open else outermost)

    def _enter(self, verb: str, frame: Frame, rip: int, before: int) -> None:
        """Open a frame for a call or an interrupt that has just begun."""
        if self._kernel.registers["rsp"] >= before:
            return
        if self._symbols.locate(rip).symbol == _TRAPS:
            self._begin("interrupt", frame).calls = verb == "call"
        elif verb == "call":
            self._begin("call", frame)

    def _begin(self, kind: str, frame: Frame) -> Call:
        registers = self._kernel.registers
        place = self._symbols.locate(registers["rip"])
        name = str(place) if kind == "interrupt" or not place.symbol else place.symbol
        call = Call(kind, name, self._timeline.position, Frame(registers["rsp"]))
        frame.items[-1].calls.append(call)
        self._open.append(call)
        return call

    def _visit(self, frame: Frame, now: int, rip: int) -> None:
        """Note one instruction: a further one of the present line, a further turn of a ``rep``, or another line."""
        last = frame.items[-1] if frame.items else None
        if last is not None and not last.calls:
            if last.steps[-1][1] == rip and self._verb(rip).startswith("rep"):
                last.turns += 1
                return
            image = self._symbols.image_at(rip)
            line = image.line(rip) if image else None
            if line is not None and str(line) == last.place and rip > last.steps[-1][1]:
                last.steps.append((now, rip))
                return
        where = self._symbols.locate(rip)
        source = where.source.code if where.source else ""
        frame.items.append(Visit(str(where.source or where), source, where.symbol, [(now, rip)]))

    def _verb(self, rip: int) -> str:
        """The mnemonic of an instruction; text does not move."""
        known = self._verbs.get(rip)
        if known is None:
            code = self._kernel.memory.read(rip, min(MAX_INSTRUCTION, 4096 - rip % 4096))
            known = self._verbs[rip] = self._disassembler.disassemble(code, rip).mnemonic
        return known


def fold(items: Iterable[Item]) -> list[Item]:
    """The same with lines that ran again in the same order taken together, innermost loops first."""
    found, before = list(items), -1
    while len(found) != before:
        before = len(found)
        for period in range(1, min(LONGEST_PERIOD, len(found) // 2) + 1):
            found = _folded(found, period)
    return found


def _folded(items: list[Item], period: int) -> list[Item]:
    """Repetitions of ``period`` items become loops."""
    keys = [item.key for item in items]
    result: list[Item] = []
    at = 0
    while at < len(items):
        times = 0
        body = keys[at : at + period]
        while keys[at + (times + 1) * period : at + (times + 2) * period] == body:
            times += 1
        if times == 0:
            result.append(items[at])
            at += 1
            continue
        end = at + (times + 1) * period
        rest = items[at + period : end]
        result.append(Loop(items[at : at + period], times, _begin(rest[0]), sum(map(_instructions, rest))))
        at = end
    return result


def _begin(item: Item) -> int:
    while isinstance(item, Loop):
        item = item.items[0]
    return item.instruction


def _instructions(item: Item) -> int:
    return item.instructions if isinstance(item, Visit) else item.instructions + sum(map(_instructions, item.items))
