"""Workloads are lists: seeded, plain, and each of its own shape."""

from __future__ import annotations

import json

import pytest

from sandbox import UsageError
from sandbox.conformance import LINES, Script
from sandbox.conformance.operations import Operation
from sandbox.conformance.shrink import shrink
from sandbox.conformance.workloads import LENGTH, WORKLOADS, workload

LARGEST = 300


def live_counts(operations: tuple[Operation, ...]) -> list[int]:
    """How many chunks are held after each operation; every free is of a held chunk."""
    held: set[int] = set()
    counts = []
    for kind, number, *_ in operations:
        assert isinstance(number, int)
        if kind == "allocate":
            assert number not in held
            held.add(number)
        else:
            held.remove(number)
        counts.append(len(held))
    return counts


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_the_same_for_the_same_seed_and_another_for_another(name: str) -> None:
    script = workload(name, 5, LARGEST)
    assert script == workload(name, 5, LARGEST) != workload(name, 6, LARGEST)
    assert Script.from_dict(json.loads(json.dumps(script.to_dict()))) == script
    assert LENGTH <= len(script.operations) <= LENGTH + 80 and name in LINES
    assert all(1 <= int(operation[2]) <= LARGEST for operation in script.operations if operation[0] == "allocate")
    live_counts(script.operations)


def test_the_sizes_and_orders_are_what_the_names_say() -> None:
    counts = {name: live_counts(workload(name, 1, LARGEST).operations) for name in WORKLOADS}
    assert max(counts["ping_pong"]) == 1 and set(counts["ping_pong"]) == {0, 1}
    assert max(counts["spike"]) == 45 and counts["spike"].count(5) >= 2
    peaks = [value for before, value, after in zip(counts["sawtooth"], counts["sawtooth"][1:], counts["sawtooth"][2:],
                                                   strict=False) if before < value > after]
    assert peaks == sorted(set(peaks)) and 0 in counts["sawtooth"]
    assert set(counts["larson"][32:]) == {31, 32}
    order = [operation for operation in workload("fifo", 1, LARGEST).operations if operation[0] == "free"]
    assert [operation[1] for operation in order] == sorted(int(operation[1]) for operation in order)
    sizes = sorted(int(operation[2]) for operation in workload("pareto", 1, LARGEST).operations
                   if operation[0] == "allocate")
    assert sizes[len(sizes) // 2] < 24 and sizes[-1] > 100


@pytest.mark.parametrize("data", [{}, {"name": "x"}, {"name": "x", "operations": [["steal", 1]]},
                                  {"name": "x", "operations": [["free"]]}, {"name": "x", "operations": [["free", -1]]},
                                  {"name": "x", "operations": [["wild", "the moon", 0]]},
                                  {"name": "x", "operations": [], "rounds": 0}, None])
def test_what_is_no_list_is_refused(data: object) -> None:
    with pytest.raises(UsageError):
        Script.from_dict(data)


def test_shrinking_finds_the_two_operations_that_matter() -> None:
    script = Script("long", tuple(("allocate", number, 8) for number in range(200)))

    def same(tried: Script) -> bool:
        numbers = [operation[1] for operation in tried.operations]
        return 17 in numbers and 141 in numbers

    shortest, played = shrink(script, same, 100_000)
    assert [operation[1] for operation in shortest.operations] == [17, 141] and 0 < played < 100_000


def test_shrinking_stops_when_its_work_is_done() -> None:
    script = Script("stubborn", tuple(("allocate", number, 8) for number in range(100)))
    tried = []
    shortest, _ = shrink(script, lambda one: bool(tried.append(one)) or len(one.operations) == 100, 500)
    assert shortest == script and 1 <= len(tried) <= 10
