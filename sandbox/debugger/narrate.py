"""A whole event as a listing: every source line that ran, with what it read and wrote, by name.

::

    narration = narrate(timeline, timeline.trace.by_sequence(7))
    print(narration)

Two journeys through the event make it: one finds which lines ran, so that loops can be folded and calls told apart;
the other explains the instructions of the lines that are shown. What is an event of its own below this one is one line,
and can be asked for by its number; so is a short helper, or a call deeper than ``depth``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..trace.events import Event
from .executed import Call, Frame, Goes, Item, Loop, Visit, fold, follow
from .explain import Explanation, Operand, explain
from .names import Names
from .narration import Line, Narration

__all__ = ["DEEPEST", "Line", "Narration", "narrate"]

DEEPEST = 4
ROWS = 100
"""Where no depth is asked for it is the largest, up to the deepest, at which there are no more lines than these."""
LIMIT = 50_000
"""Instructions of an event that are looked at, those of the events below it not counted."""
HELPER = 12
"""A call of at most so many instructions is told in one line."""
JUMPS, STAYS = "jumps", "stays"
_COMPARES = re.compile(r"(?:cmp|test|bt|dec|sub|and) [^;]*$")
_STATE = re.compile(r", (?:allocated|free in slab|free in magazine|in a slab that is being made)$")
_TOGETHER = 62
"""Characters of a comparison and a jump that stand in one line."""
_TOLD = 64
"""Instructions of a call in one line that are looked at for what they write."""
_WRITES = 4


def narrate(timeline: Goes, event: Event, depth: int | None = None) -> Narration:
    """Tell an event line by line, and calls up to ``depth`` deep: 0 tells each call in one line, and where nothing is
    given it is as deep as fits a reader. The timeline is left where it was."""
    position = timeline.position
    try:
        timeline.goto(event.entered)
        frame = follow(timeline, event, LIMIT)
        stopped = timeline.position
        timeline.goto(event.entered)
        chosen = _fitting(frame) if depth is None else depth
        lines = list(_Teller(timeline, chosen).frame(frame, 0))
    finally:
        timeline.goto(position)
    if stopped < event.instruction:
        lines.append(Line("cut", stopped, 0, "", "", event.instruction - stopped))
    return Narration(event, tuple(lines))


def _fitting(frame: Frame) -> int:
    """The depth at which there is as much to read as a reader takes."""
    return max((depth for depth in range(DEEPEST + 1) if _count(fold(frame.items), 0, depth) <= ROWS), default=0)


def _count(items: Iterable[Item], depth: int, deepest: int) -> int:
    """About how many lines there are."""
    found = 0
    for item in items:
        if isinstance(item, Loop):
            found += 1 + _count(item.items, depth, deepest)
            continue
        found += 1
        for call in item.calls:
            if not in_one_line(call, depth, deepest):
                found += _count(fold(call.frame.items), depth + 1, deepest)
    return found


def in_one_line(call: Call, depth: int, deepest: int) -> bool:
    """Whether a call is one line, which stands for the line of the ``call`` too."""
    return call.kind == "call" and (call.event is not None or call.instructions <= HELPER or depth >= deepest)


class _Teller:
    """The second journey."""

    def __init__(self, timeline: Goes, depth: int) -> None:
        self._timeline = timeline
        self._depth = depth

    def frame(self, frame: Frame, depth: int) -> Iterator[Line]:
        """The lines of one function and of those that it jumped on to."""
        name = ""
        run: list[Line] = []
        for item in fold(frame.items):
            first = _first(item)
            if first.function != name and first.function:
                name = first.function
                run.append(Line("enter", first.instruction, depth, name, first.place.partition(":")[0]))
            if isinstance(item, Loop):
                yield from merged(run)
                run = []
                yield from self._item(item, depth)
            else:
                run += self._item(item, depth)
        yield from merged(run)

    def _item(self, item: Item, depth: int) -> Iterator[Line]:
        if isinstance(item, Visit):
            yield from self._visit(item, depth)
            return
        yield from merged([line for inner in item.items for line in self._item(inner, depth)])
        yield Line("loop", item.again, depth, "", "", item.instructions, (), item.times)

    def _visit(self, visit: Visit, depth: int) -> Iterator[Line]:
        """A source line; one that became several instructions, or was interrupted, has them below it."""
        told = [self._explain(instruction) for instruction, _ in visit.steps]
        turns = visit.turns
        called = any(in_one_line(call, depth, self._depth) for call in visit.calls)
        if len(told) > 1:
            yield Line("line", visit.instruction, depth, visit.source, visit.place, len(told))
            for explanation in told:
                yield Line("instruction", explanation.instruction, depth, named_text(explanation), visit.place, 1,
                           _effects(explanation))
        elif not called:
            effects = (*_effects(told[0]), f"{turns:,} turns") if turns > 1 else _effects(told[0])
            yield Line("line", visit.instruction, depth, visit.source or told[0].text, visit.place, turns, effects)
        for call in visit.calls:
            yield from self._call(call, visit, depth)

    def _call(self, call: Call, visit: Visit, depth: int) -> Iterator[Line]:
        if call.kind == "interrupt":
            yield Line("interrupt", call.instruction, depth, call.name, "", call.instructions)
            return
        took = call.instructions + (len(visit.steps) == 1)       # with the call itself, where this line stands for it
        if call.event is not None:
            yield Line("event", visit.instruction, depth, call.name, visit.place, took, (), 0, call.event)
        elif in_one_line(call, depth, self._depth):
            yield Line("call", visit.instruction, depth, call.name, visit.place, took, tuple(self._summary(call)))
        else:
            yield from self.frame(call.frame, depth + 1)

    def _summary(self, call: Call) -> Iterator[str]:
        """What a call that is told in one line wrote to memory, and what it returned."""
        written: dict[str, None] = {}
        if call.instructions <= _TOLD:
            for instruction, _ in call.frame.steps():
                for operand in self._explain(instruction).writes:
                    if operand.kind == "memory" and operand.name is not None and operand.name.structure != "stack":
                        written[operand.name.text] = None
        names = list(written)
        if names:
            more = f" and {len(names) - _WRITES} more" if len(names) > _WRITES else ""
            yield f"writes {', '.join(names[:_WRITES])}{more}"
        self._timeline.goto(call.end)
        kernel = self._timeline.kernel
        yield f"rax = {_brief(Names(kernel).value(kernel.registers['rax']))}"

    def _explain(self, instruction: int) -> Explanation:
        """An instruction with what it wrote."""
        self._timeline.goto(instruction)
        told = explain(self._timeline.kernel)
        self._timeline.goto(instruction + 1)
        return told.completed(self._timeline.kernel)


def _first(item: Item) -> Visit:
    while isinstance(item, Loop):
        item = item.items[0]
    return item


def merged(lines: list[Line]) -> Iterator[Line]:
    """The same with what belongs together in one line: registers that are saved or restored in a row, and a comparison
    with the jump behind it."""
    last: Line | None = None
    for line in lines:
        if last is not None and last.kind == line.kind and last.depth == line.depth:
            both = _together(last, line)
            if both is not None:
                last = both
                continue
        if last is not None:
            yield last
        last = line
    if last is not None:
        yield last


def _together(first: Line, second: Line) -> Line | None:
    """Two lines as one; None where they have nothing to do with each other."""
    text, verb = second.text, second.text.partition(" ")[0]
    took = first.instructions + second.instructions
    if verb in ("push", "pop") and first.text.startswith(f"{verb} ") and not (first.effects or second.effects):
        return replace(first, text=f"{first.text}, {text.removeprefix(verb).strip()}", instructions=took)
    if text == "mov rbp, rsp" and first.text == "push rbp":
        return replace(first, instructions=took)
    fits = len(first.text) + len(text) + 2 * first.depth <= _TOGETHER
    if fits and second.effects and second.effects[0].startswith((JUMPS, STAYS)) and _COMPARES.match(first.text):
        return replace(first, text=f"{first.text}; {text}", instructions=took,
                       effects=(*first.effects, second.effects[0].partition(",")[0]))
    return None


# -- what an instruction did ------------------------------------------------------------------------------------
def _effects(told: Explanation) -> tuple[str, ...]:
    """What is worth saying: memory that is no stack, pointers and numbers that registers get, jumps, faults."""
    if told.fault is not None:
        return (f"faults: {told.fault}",)
    found = []
    if told.branch is not None and told.branch.kind == "jump":
        found.append(f"{JUMPS if told.branch.taken else STAYS}, {told.branch.why}")
    if told.branch is not None:
        return tuple(found)
    verb = told.text.split()[0]
    if verb in ("push", "pop", "leave", "enter", "pushfq", "popfq"):
        return ()
    found += [f"{operand.name.text} = {_shown(operand)}" for operand in told.reads
              if operand.kind == "memory" and operand.name is not None and not operand.role
              and not any(operand.address == other.address for other in told.writes)]
    if verb in ("cmp", "test"):
        found = found or [f"{operand.text} = {_shown(operand)}" for operand in told.reads
                          if operand.kind == "register"][:2]
        return tuple(found)
    reads_memory = bool(found)
    for operand in told.writes:
        if operand.kind == "memory" and operand.name is not None and operand.after is not None:
            same = operand.value == operand.after
            found.append(f"{operand.name.text} = {_brief(operand.after_words)}, as before" if same else
                         f"{operand.name.text}: {_shown(operand)} -> {_brief(operand.after_words)}")
        elif operand.kind == "register" and operand.after is not None and operand.text != "rsp" and not reads_memory:
            found.append(f"{operand.text} = {_brief(operand.after_words)}")
        elif operand.kind == "port":
            found.append(f"{operand.words} <- {operand.after_words}")
    return tuple(found)


def _shown(operand: Operand) -> str:
    """A value as it was before."""
    return _brief(operand.words) or "?"


def _brief(words: str) -> str:
    """A pointer to an object without the object's state, which does not change from line to line."""
    return _STATE.sub("", words)


def named_text(told: Explanation) -> str:
    """The disassembly with fields for displacements."""
    text = told.text
    for operand in (*told.reads, *told.writes):
        if operand.kind == "memory" and not operand.role and "[" in text:
            head, _, rest = text.partition("[")
            segment = head.rpartition(" ")[2] if head.endswith("s:") else ""
            text = f"{head.removesuffix(segment)}{operand.text}{rest.partition(']')[2]}"
            break
    return text.replace("qword ptr ", "").replace("dword ptr ", "")

