"""What a trace and the guards of the heap cost in time, against the same counted run without them."""

from __future__ import annotations

import pytest

import sandbox
from sandbox.bench.allocator import GUARDS, PROGRAM
from sandbox.bench.host import SEED, guarding, starting, tracing

FEW = 100
SHADOW_LIMIT = 8
"""How many times as long a run under the shadow may take."""


@pytest.fixture(scope="module")
def rows() -> dict[str, float]:
    return {row.name: row.value for row in guarding(FEW)}


def test_there_is_a_row_for_each_guard(rows: dict[str, float]) -> None:
    guards = [f"the same with {name}" for name, _ in GUARDS]
    assert list(rows) == ["two allocs, filled and read, two frees", *guards]


def test_the_shadow_takes_at_most_eight_times_as_long(rows: dict[str, float]) -> None:
    """A host that does other work too is given a second chance, and a third."""
    name = "the same with shadow"
    ratio = rows[name]
    for _ in range(2):
        if ratio > SHADOW_LIMIT:
            ratio = next(row.value for row in guarding(FEW) if row.name == name)
    assert 1 < ratio <= SHADOW_LIMIT


def test_the_round_allocates_fills_reads_and_frees_two_objects() -> None:
    program = PROGRAM.with_name("two_and_two.asm")
    with sandbox.boot(program, hz=0, shadow=True) as kernel, kernel.trace() as trace:
        kernel.call("bench_two_and_two", SEED, 50)
        assert kernel.shadow is not None and not any(held.live for held in kernel.shadow.table.objects.values()
                                                     if not held.own)
    assert [event.kind for event in trace] == ["alloc", "alloc", "free", "free"] * 50
    sizes = {event.bytes_req for event in trace if event.kind == "alloc"}
    assert len(sizes) > 20 and min(sizes) >= 8 and max(sizes) <= 512


def test_a_trace_costs_the_quotient_of_its_two_rows() -> None:
    bare, traced, ratio = tracing()
    assert ratio.value == pytest.approx(traced.value / bare.value)
    assert ratio.value > 1


def test_booting_takes_as_many_instructions_as_the_kernel_counts() -> None:
    exact = [row for row in starting() if row.exact]
    with sandbox.boot() as kernel:
        assert [(row.name, row.value) for row in exact] == [("boot", kernel.instructions)]
