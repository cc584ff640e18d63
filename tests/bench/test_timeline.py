"""The timeline's rows: what they measure is what they say."""

from __future__ import annotations

import pytest

import sandbox
from sandbox.bench.rows import Row
from sandbox.bench.timeline import PROGRAM, travelling
from sandbox.guest.outcome import RunKind

INSTRUCTIONS = 100_000


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(travelling(INSTRUCTIONS))


def test_there_is_a_row_for_each_promise(rows: list[Row]) -> None:
    assert [(row.name, row.unit) for row in rows][:7] == [
        ("a run of 0.1 million instructions, traced", "s"), ("the same, recorded", "s"), ("recorded / traced", "times"),
        ("goto a random moment of it, median", "ms"), ("back(1) from there, median", "ms"),
        ("who_wrote, when it was the first store", "s"), ("a step in the stepper, median", "ms")]
    assert [row.name for row in rows[7:]] in ([], ["every access recorded, natively"])
    assert all(row.value > 0 and not row.exact for row in rows)


def test_recording_costs_the_quotient_of_its_two_rows(rows: list[Row]) -> None:
    assert rows[2].value == pytest.approx(rows[1].value / rows[0].value)


def test_the_run_goes_on_to_its_limit_and_its_heap_is_sound() -> None:
    with sandbox.boot(PROGRAM, shadow=True) as kernel, kernel.trace() as trace:
        assert kernel.run(100_000).kind is RunKind.LIMIT
        assert kernel.shadow is not None and not kernel.shadow.errors
    kinds = [event.kind for event in trace]
    assert min(kinds.count("alloc"), kinds.count("free")) > 100
    assert len({event.bytes_req for event in trace if event.kind == "alloc"}) > 20


def test_the_store_that_is_asked_for_is_the_first_of_the_run_and_the_only_one() -> None:
    timeline = sandbox.record(PROGRAM, limit=20_000)
    with timeline.kernel as kernel:
        began = kernel.symbols["bench_began"]
        store = timeline.who_wrote(began, 8)
        assert store is not None and store.location.startswith("main+")
        assert timeline.length - store.instruction > 19_900
        assert timeline.who_wrote(began, 8, before=store.instruction) is None
