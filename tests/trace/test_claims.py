"""Assertions over a whole trace: what always holds, what never happens, what happens at some time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox import Kernel, UsageError
from sandbox.trace.claims import ClaimError
from sandbox.trace.events import Event
from sandbox.trace.trace import Trace


@pytest.fixture
def trace(kernel: Kernel) -> Iterator[Trace]:
    """Two allocations, of 40 and 100 bytes, and a free of the first."""
    with kernel.trace() as recorded:
        first = kernel.call("kmalloc", 40)
        kernel.call("kmalloc", 100)
        kernel.call("kfree", first)
    yield recorded


def large(event: Event) -> bool:
    return event.bytes_req > 64


def test_what_holds_is_silent_and_what_happened_is_returned(trace: Trace) -> None:
    trace.always(failed=False)
    trace.always(failed=False, cpu=0)
    trace.always({"cache": lambda name: name != "kmalloc-8"}, kind="alloc")
    trace.always(lambda event: event.instructions < 100_000)
    trace.never(kind="cache_create")
    trace.never(large, kind="free")
    trace.never(lambda event: event.address == 0)
    assert trace.eventually(kind="free").function == "kfree"
    assert trace.eventually(large, kind="alloc").bytes_req > 64
    assert trace.eventually(lambda event: event.kind == "slab_create").kind == "slab_create"


@pytest.mark.parametrize(("claim", "fields"), [
    (None, {"kind": "alloc"}), (large, {}), ({"bytes_req": 40}, {"kind": "alloc"}),
    ({"bytes_req": lambda size: size > 0}, {}),
])
def test_always_and_never_agree_with_a_search_by_hand(trace: Trace, claim: object, fields: dict[str, object]) -> None:
    """The oracle: the events one by one."""
    def holds(event: Event, wanted: object) -> bool:
        if callable(wanted):
            return bool(wanted(event))
        assert isinstance(wanted, dict)
        return all(test(getattr(event, name)) if callable(test) else getattr(event, name) == test
                   for name, test in wanted.items())

    about, wanted = (lambda _: True, fields) if claim is None else (lambda event: holds(event, fields), claim)
    wrong = [event for event in trace.walk() if about(event) and not holds(event, wanted)]
    right = [event for event in trace.walk() if holds(event, fields) and (claim is None or holds(event, claim))]
    with pytest.raises(ClaimError) if wrong else pytest.MonkeyPatch.context() as caught:
        trace.always(claim, **fields)
    if wrong:
        assert caught.value.event == wrong[0]
    with pytest.raises(ClaimError) if right else pytest.MonkeyPatch.context() as caught:
        trace.never(claim, **fields)
    if right:
        assert caught.value.event == right[0] == trace.eventually(claim, **fields)


def test_the_error_has_the_event_its_callers_and_what_was_wanted(trace: Trace) -> None:
    free = trace.find(kind="free")
    assert free is not None
    with pytest.raises(AssertionError) as caught:
        trace.never(kind="free", address=free.address)
    assert str(caught.value) == (
        f"never kind='free', address=0x{free.address:x}, but here:\n"
        f"  #{free.sequence} @{free.entered:,} free by kfree: 0x{free.address:x}, kmalloc-64, 64 bytes asked for\n"
        "    Python")
    with pytest.raises(ClaimError, match="always large of the events with kind='alloc', but not here:\n"):
        trace.always(large, kind="alloc")
    with pytest.raises(ClaimError, match=r"always cache='kmalloc-8', but not here:\n  #0 "):
        trace.always(cache="kmalloc-8")
    told = r"eventually kind='free' and large, but none of \d+ events is; the last:\n"
    with pytest.raises(ClaimError, match=told) as missed:
        trace.eventually(large, kind="free")
    assert missed.value.event is None
    with pytest.raises(ClaimError, match=r"but there is no event at all"):
        trace.eventually(kind="free", after=1 << 60)


def test_claims_hold_in_a_time_that_events_or_counts_bound(trace: Trace) -> None:
    first, second = trace.roots()[:2]
    trace.never(kind="free", before=second)
    trace.always(large, kind="alloc", function="kmalloc", after=first)
    assert trace.eventually(kind="alloc", after=first.instruction).entered == second.entered
    with pytest.raises(ClaimError):
        trace.never(kind="alloc", after=first)
    with pytest.raises(ClaimError):
        trace.eventually(kind="free", before=second.entered)


@pytest.mark.parametrize("word", ["always", "never", "eventually"])
def test_what_is_no_claim_is_refused_in_a_sentence(trace: Trace, word: str) -> None:
    claim = getattr(trace, word)
    with pytest.raises(UsageError, match=r"nothing is claimed"):
        claim()
    with pytest.raises(UsageError, match=r"events have no 'adress' \(did you mean address\?\); they have sequence, "):
        claim(adress=5)
    with pytest.raises(UsageError, match="no event is of kind 'freed'; there are page_alloc, "):
        claim(kind="freed")
    with pytest.raises(UsageError, match="a claim is a function of an event, or a mapping of its fields, not 5"):
        claim(5)


def test_nothing_is_claimed_of_events_that_were_dropped(kernel: Kernel) -> None:
    trace = kernel.tracer.trace(keep=1)
    with trace:
        kernel.call("kmalloc", 40)
        trace.settle()
        kernel.call("kmalloc", 40)
        trace.settle()
    assert trace.dropped
    for claim in (trace.always, trace.never, trace.eventually):
        with pytest.raises(UsageError, match="the trace dropped 1 events, so nothing can be said of all of them"):
            claim(kind="page_free") if claim != trace.always else claim(failed=False)
    assert trace.eventually(kind="alloc").bytes_req == 40


def test_a_kernels_own_trace_is_empty_until_it_is_started_and_makes_others(kernel: Kernel) -> None:
    own = kernel.tracer and type(kernel.trace)(kernel.tracer, [])
    assert len(own) == 0 and not own.recording
    own.restart()
    kernel.call("kmalloc", 40)
    with own() as other:
        kernel.call("kmalloc", 100)
    assert [event.bytes_req for event in own] == [40, 100] and [event.bytes_req for event in other] == [100]
    own.restart()
    assert len(own) == 0 and own.recording and own.dropped == 0
    kernel.call("kfree", other[0].address)
    assert [event.kind for event in own] == ["free"] and own[0].sequence == 0
    own.stop()
