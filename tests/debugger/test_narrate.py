"""A narration tells everything that ran, once, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import sandbox
from sandbox.debugger.executed import Loop, Visit, fold
from sandbox.debugger.narrate import ROWS, Narration, narrate
from sandbox.debugger.timeline import Timeline
from sandbox.kernel import Kernel
from sandbox.trace.events import Event

Narrate = Callable[..., Narration]
TWICE = """
.text
main:
    push rbx
    mov edi, 40
    call kmalloc
    mov edi, 50
    call kmalloc
    mov rdi, rax
    call kfree
    mov edi, 100
    call kzalloc
    xor eax, eax
    pop rbx
    ret
"""


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    timeline = sandbox.record(TWICE)
    yield timeline
    timeline.kernel.close()


@pytest.fixture(scope="module")
def told(timeline: Timeline[Kernel]) -> Narrate:
    """Narrates an event, each depth of each once."""
    known: dict[tuple[int, int | None], Narration] = {}

    def narration(event: Event, depth: int | None = None) -> Narration:
        key = event.sequence, depth
        if key not in known:
            known[key] = narrate(timeline, event, depth)
        return known[key]

    return narration


def roots(timeline: Timeline[Kernel]) -> list[Event]:
    return list(timeline.trace)


def told_instructions(narration: Narration) -> int:
    """The instructions of all lines but those that only stand for a part of another line."""
    return sum(line.instructions for line in narration.lines if line.kind not in ("enter", "instruction"))


def executed(timeline: Timeline[Kernel], event: Event) -> list[str]:
    """The source line of each instruction of an event, one by one."""
    lines = []
    for count in range(event.entered, event.instruction):
        timeline.goto(count)
        lines.append(timeline.moment.line)
    return lines


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_the_lines_of_each_event_add_up_to_its_instructions(timeline: Timeline[Kernel], told: Narrate,
                                                            depth: int) -> None:
    for event in (roots(timeline)[1], roots(timeline)[2], roots(timeline)[0].children[1]):
        assert told_instructions(told(event, depth)) == event.instructions


def test_the_lines_of_a_fast_path_are_those_that_ran_in_their_order(timeline: Timeline[Kernel], told: Narrate) -> None:
    event = roots(timeline)[1]
    narration = told(event)
    wanted = executed(timeline, event)
    shown = [line for line in narration.lines if line.kind in ("line", "instruction")]
    places = [line.place for line in shown for _ in range(1 if line.kind == "instruction" else line.instructions)]
    merged = [place for place, line in zip(wanted, [*wanted[1:], ""], strict=True) if place != line]
    assert [line.instruction for line in shown] == sorted(line.instruction for line in shown)
    assert set(places) <= set(wanted) and len(merged) - len(set(places)) <= 2    # a jump stands with its comparison
    assert len(shown) <= 18 and len(str(narration).splitlines()) <= 40


def test_a_fast_path_is_told_by_the_names_of_what_it_touches(timeline: Timeline[Kernel], told: Narrate) -> None:
    event = roots(timeline)[1]
    text = " ".join(str(told(event)).split())
    assert f"event {event.sequence}: kmalloc(50) = 0x{event.address:x}" in text
    assert "kmem_cache_cpu(kmalloc-64).top: behind loaded magazine of kmalloc-64 [27] -> behind loaded magazine of " \
           "kmalloc-64 [26]" in text
    assert "loaded magazine of kmalloc-64 [27] = object 1 of kmalloc-64" in text
    assert "kmem_cache_cpu(kmalloc-64).alloc_fastpath: 0 -> 1" in text


def test_events_below_are_one_line_each_with_their_number(timeline: Timeline[Kernel], told: Narrate) -> None:
    event = roots(timeline)[0]
    narration = told(event, 4)
    below = [line.event for line in narration.lines if line.kind == "event"]
    assert [found.sequence for found in below if found] == [child.sequence for child in event.children]
    assert f"event {event.children[0].sequence}, {event.children[0].instructions + 1:,} instructions" in \
        " ".join(str(narration).split())


def test_what_ran_again_is_folded(timeline: Timeline[Kernel], told: Narrate) -> None:
    creation = timeline.trace.find(kind="slab_create", cache="kmalloc-64")
    assert creation is not None
    narration = told(creation)
    assert [line.times for line in narration.lines if line.kind == "loop"] == [63, 63]
    assert "... 63 times more, " in str(narration) and len(str(narration).splitlines()) < 120


def test_a_narration_is_as_deep_as_fits_a_reader(timeline: Timeline[Kernel], told: Narrate) -> None:
    for event in roots(timeline)[:2]:
        lines = [line for line in told(event).lines if line.kind != "instruction"]
        assert len(lines) <= ROWS + 20
    event = roots(timeline)[0]
    deeper = told(event, 4)
    assert len(deeper.lines) > len(told(event, 0).lines)
    assert max(line.depth for line in deeper.lines) > 1


def test_the_text_fits_in_80_columns(timeline: Timeline[Kernel], told: Narrate) -> None:
    for event in (*roots(timeline), *roots(timeline)[0].children):
        assert all(len(line) <= 80 for line in str(told(event)).splitlines())


def test_the_timeline_stays_where_it_is(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.length - 5)
    narrate(timeline, roots(timeline)[1])
    assert timeline.position == timeline.length - 5


def interrupted(at: int) -> Timeline[Kernel]:
    """The run with an interrupt of the timer right before the start behind ``at``."""
    kernel = sandbox.boot(TWICE)
    kernel.interrupt_at(at, 0)
    timeline = sandbox.record(kernel)
    kernel.run()
    return timeline


def test_an_interrupt_in_the_middle_is_one_line_wherever_it_comes(timeline: Timeline[Kernel]) -> None:
    event = roots(timeline)[1]
    for at in (event.entered + 1, event.entered + 9, event.entered + 12):
        other = interrupted(at)
        found = narrate(other, list(other.trace)[1])
        assert len([line for line in found.lines if line.kind == "interrupt"]) == 1
        assert "interrupted: trap_stubs+0x200" in str(found)
        assert told_instructions(found) == list(other.trace)[1].instructions > event.instructions
        other.kernel.close()


def test_an_interrupt_between_a_call_and_its_function_does_not_hide_the_call(timeline: Timeline[Kernel],
                                                                             told: Narrate) -> None:
    event = roots(timeline)[0]
    called = next(line for line in told(event, 0).lines if line.kind == "call")
    other = interrupted(called.instruction + 1)
    found = narrate(other, next(iter(other.trace)), 0)
    kinds = [(line.kind, line.text) for line in found.lines if line.instruction in range(called.instruction,
                                                                                       called.instruction + 400)]
    assert [kind for kind, _ in kinds].index("interrupt") < kinds.index(("call", called.text))
    assert told_instructions(found) == next(iter(other.trace)).instructions
    other.kernel.close()


# -- folding ----------------------------------------------------------------------------------------------------
def visits(letters: str) -> list[Visit]:
    """One visit of one instruction for each letter, alike where the letters are."""
    return [Visit(letter, letter, "", [(count, ord(letter))]) for count, letter in enumerate(letters)]


def unfolded(items: list[Visit | Loop]) -> str:
    return "".join(item.place if isinstance(item, Visit) else unfolded(item.items) * (item.times + 1) for item in items)


@pytest.mark.parametrize("letters", [
    "abc", "aaaa", "abababx", "xabcabcabcy", "aabaabaab", "abcdbcdbcdbcde", "abbcabbbcabbc", "xyxyxzxyxyxz"])
def test_folding_loses_nothing(letters: str) -> None:
    items = fold(visits(letters))
    total = sum(item.instructions if isinstance(item, Visit) else _all(item) for item in items)
    assert total == len(letters)
    if letters != "abbcabbbcabbc":                           # an inner loop may run another number of times
        assert unfolded(items) == letters
    assert len(items) < len(letters) or letters == "abc"


def _all(loop: Loop) -> int:
    return loop.instructions + sum(item.instructions if isinstance(item, Visit) else _all(item) for item in loop.items)
