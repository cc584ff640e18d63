"""The lives of an address, against a model that replays the same calls."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

import sandbox
from sandbox.debugger.lives import MOST, Life, history
from sandbox.kernel import Kernel
from sandbox.trace.events import Event
from sandbox.trace.tracer import LiveTrace


@pytest.fixture
def traced(kernel: Kernel) -> Iterator[tuple[Kernel, LiveTrace]]:
    with kernel.trace() as trace:
        yield kernel, trace


def lives(trace: LiveTrace, pointer: int) -> list[Life]:
    return history(trace.walk(), pointer)


def test_lives_are_those_of_a_model_for_pointers_anywhere(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    source = random.Random(6)
    held: dict[int, tuple[int, int]] = {}                    # address: usable size, count at which it was had
    spans: list[tuple[int, int, int, int | None]] = []       # address, size, from, to
    for _ in range(150):
        if held and source.random() < 0.5:
            address = source.choice(list(held))
            size, since = held.pop(address)
            entered = kernel.instructions
            kernel.call("kfree", address)
            spans.append((address, size, since, entered))
        else:
            address = kernel.call("kmalloc", source.choice((20, 64, 700, 9000)))
            held[address] = kernel.call("ksize", address), kernel.instructions
    spans += [(address, size, since, None) for address, (size, since) in held.items()]
    for _ in range(60):
        address, size, _, _ = source.choice(spans)
        pointer = address + source.randrange(size)
        found = lives(trace, pointer)
        wanted = sorted(span for span in spans if span[0] <= pointer < span[0] + span[1])
        assert sorted((life.address, life.size, life.freed is None) for life in found) == \
            sorted((span[0], span[1], span[3] is None) for span in wanted)
        assert [life.began for life in found] == sorted(life.began or 0 for life in found)
        for life, following in pairwise(found):
            assert life.ended is not None and following.began is not None and life.ended < following.began


def test_three_lives_of_one_object_have_their_calls_and_stacks(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    for size in (40, 50, 60):
        pointer = kernel.call("kmalloc", size)
        kernel.call("kfree", pointer)
    found = lives(trace, pointer + 3)
    assert [life.allocated.bytes_req for life in found if life.allocated] == [40, 50, 60]
    assert all(life.freed is not None and life.freed.function == "kfree" for life in found)
    slabs = {life.slab for life in found}
    assert [slab.kind for slab in slabs if slab] == ["slab_create"]
    text = str(found[0])
    assert text.splitlines()[0] == f"0x{pointer:016x}, 64 bytes of kmalloc-64"
    assert "allocated @" in text and "kmalloc(40)" in text and "freed @" in text


def test_a_life_goes_on_when_krealloc_leaves_it_in_its_place_and_ends_when_it_moves(
        traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    pointer = kernel.call("kmalloc", 40)
    assert kernel.call("krealloc", pointer, 60, 0) == pointer
    moved = kernel.call("krealloc", pointer, 600, 0)
    first, = lives(trace, pointer)
    second, = lives(trace, moved)
    assert [event.bytes_req for event in first.resized] == [60]
    assert first.freed is second.allocated and second.allocated is not None
    assert second.allocated.function == "krealloc" and second.freed is None
    assert "resized @" in str(first) and "still held" in str(second)


def test_one_outermost_call_is_one_life(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    for function, size in (("kzalloc", 33), ("kzalloc", 20_000), ("kmalloc", 20_000)):
        pointer = kernel.call(function, size)
        life, = lives(trace, pointer + 7)
        assert life.allocated is not None and life.allocated.function == function


def test_the_objects_of_a_bulk_call_have_a_life_each(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    cache = kernel.heap.cache("kmalloc-64").address
    pointers = bytearray(8 * 5)
    assert kernel.call("kmem_cache_alloc_bulk", cache, 5, pointers) == 5
    kernel.call("kmem_cache_free_bulk", cache, 5, bytes(pointers))
    for at in range(0, 40, 8):
        life, = lives(trace, int.from_bytes(pointers[at : at + 8], "little") + 1)
        assert life.allocated is not None and life.allocated.function == "kmem_cache_alloc_bulk"
        assert life.freed is not None and life.freed.function == "kmem_cache_free_bulk"


def test_pages_have_lives_of_their_own_until_a_slab_is_made_of_them(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    kernel.call("kmalloc", 1024)
    pages = kernel.call("get_free_pages", 0)
    kernel.call("free_pages", pages, 0)
    others = (kernel.call("kmalloc", 1024) for _ in range(64))
    pointer = next(address for address in others if address & -4096 == pages)
    found = lives(trace, pointer)
    assert [(life.cache, life.size) for life in found] == [(None, 4096), ("kmalloc-1k", 1024)]
    assert found[0].freed is not None and found[0].freed.function == "free_pages"
    assert found[1].slab is not None and found[1].slab.slab == pages


def test_a_second_free_is_kept_with_the_life_that_it_came_too_late_for(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    pointer = kernel.call("kmalloc", 64)
    kernel.call("kfree", pointer)
    kernel.call("kfree", pointer)
    life, = lives(trace, pointer)
    assert life.freed is not None and [event.entered > life.freed.entered for event in life.again] == [True]
    assert "freed again @" in str(life)


def test_what_was_held_before_the_trace_began_has_a_free_alone(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    with kernel.trace() as trace:
        kernel.call("kfree", pointer)
    life, = lives(trace, pointer + 63)
    assert life.allocated is None and life.began is None and life.freed is not None
    assert "held before the trace began" in str(life)


OBJECT, TURN = 0xFFFF888000256000, 100


def pairs(count: int, slabs: bool = False) -> list[Event]:
    """An object that is allocated and freed again and again; with ``slabs`` each allocation makes its slab first."""
    events: list[Event] = []
    for at in range(0, count * 2 * TURN, TURN):
        kind, function = (("alloc", "kmalloc"), ("free", "kfree"))[at // TURN % 2]
        number = len(events)
        events.append(Event(number, at, at + 50, kind, function, OBJECT, 40, 64, "kmalloc-64", OBJECT, "main+0x1",
                            "a.asm:3", (), 0, False, False, None))
        if slabs and kind == "alloc":
            events.append(Event(number + 1, at + 1, at + 40, "slab_create", "slab_new", OBJECT, 0, 4096, "kmalloc-64",
                                OBJECT, "kmalloc+0x1", "b.asm:3", (), 0, False, False, number))
    return events


def test_of_many_lives_the_newest_are_told_and_the_others_counted() -> None:
    events = pairs(MOST + 200)
    found = history(events, OBJECT + 3)
    assert (len(found), found.earlier, found.later, found.every) == (MOST, 200, 0, MOST + 200)
    assert found[-1].freed is events[-1] and found[0].began == 200 * 2 * TURN + 50
    everything = history(events, OBJECT + 3, limit=None)
    assert (len(everything), everything.earlier, everything[200:]) == (MOST + 200, 0, found)


@pytest.mark.parametrize(("moment", "earlier"), [(0, 0), (200 * TURN + 49, 100 - 8), (200 * TURN + 50, 101 - 8),
                                                 (1 << 40, 290)])
def test_around_a_moment_the_lives_before_and_behind_it_are_told(moment: int, earlier: int) -> None:
    found = history(pairs(300), OBJECT, 10, around=moment)
    assert (found.earlier, len(found), found.later) == (earlier, 10, 290 - earlier)
    assert found == history(pairs(300), OBJECT)[earlier : earlier + 10]


def test_a_long_history_takes_work_for_each_event_and_not_for_each_pair_of_them(
        monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0
    read = vars(Event)["instruction"].__get__

    def counted(event: Event) -> int:
        nonlocal looked_at
        looked_at += 1
        return int(read(event))

    events = pairs(2_000, slabs=True)
    monkeypatch.setattr(Event, "instruction", property(counted))
    assert history(events, OBJECT)[-1].slab is not None
    assert looked_at < 30 * len(events)


def test_an_address_that_nobody_had_has_no_lives(traced: tuple[Kernel, LiveTrace]) -> None:
    kernel, trace = traced
    kernel.call("kmalloc", 64)
    assert lives(trace, 0) == lives(trace, kernel.symbols["kmalloc"]) == lives(trace, 0xFFFF888000900000) == []


def test_a_timeline_has_the_history_of_its_run() -> None:
    timeline = sandbox.record("01", hz=0)
    event = timeline.trace.find(kind="alloc")
    assert event is not None
    life, = timeline.history(event.address + 5)
    assert (life.allocated, life.freed is None) == (event, False)
    timeline.kernel.close()
