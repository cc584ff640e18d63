"""The first promise: the same program gives the same bytes, however the run is cut into slices."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import sandbox
from sandbox.kernel import Kernel

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.asm"))


def outcome(kernel: Kernel, slices: random.Random | None) -> tuple[object, ...]:
    """Everything that a run leaves: how it ended, the trace, the console and all of RAM, A and D bits included."""
    with kernel.trace() as trace:
        result = kernel.run(limit=slices.randrange(1, 4000) if slices else None)
        while slices and result.kind == "limit":
            result = kernel.run(limit=slices.randrange(1, 4000))
    events = tuple(str(event.to_dict()) for event in trace.walk())
    return (result.kind, result.status, kernel.instructions, kernel.console, events,
            kernel.machine.memory.image())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_two_runs_are_identical_and_so_is_one_in_random_slices(example: Path) -> None:
    outcomes = []
    for slices in (None, None, random.Random(1), random.Random(2)):
        with sandbox.boot(example, hz=1000) as kernel:
            outcomes.append(outcome(kernel, slices))
    assert outcomes[0][4] or example.stem == "18_the_seed", "the trace is empty"
    for other in outcomes[1:]:
        assert other[:5] == outcomes[0][:5]
        assert other[5] == outcomes[0][5]
