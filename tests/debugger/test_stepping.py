"""Stepping over and out, forwards and backwards, against the true call depth at every instruction."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import sandbox
from sandbox import Kernel, PositionError, UsageError
from sandbox.debugger.timeline import Timeline
from sandbox.toolchain.disassembler import Disassembler

from .programs import busy

OPTIONS = {"ram": "4M", "hz": 10_000}
FROM, COUNT = 60_000, 6_000


class At(NamedTuple):
    """A moment of the straight run; ``turn``: the same ``rep`` as at the moment before."""

    rip: int
    depth: int
    mnemonic: str
    turn: bool


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(busy(200), **OPTIONS)
    with recorded.kernel:
        yield recorded


@pytest.fixture(scope="module")
def moments() -> dict[int, At]:
    """Every moment of a stretch with allocations, page faults and timer interrupts: one instruction at a time, calls,
    returns and deliveries counted."""
    found: dict[int, At] = {}
    decoder = Disassembler()
    with sandbox.boot(busy(200), **OPTIONS) as kernel:
        machine = kernel.machine
        machine.run(FROM - kernel.instructions)
        delivered: list[int] = []
        machine.memory.listeners.append(lambda at, data, by: delivered.append(at) if by and len(data) >= 40 else None)
        depth, before = 0, None
        for count in range(FROM, FROM + COUNT):
            rip = machine.cpu.view.rip
            mnemonic = decoder.disassemble(kernel.memory.read(rip, 15), rip).mnemonic
            turn = before is not None and mnemonic.startswith("rep") and before == (rip, depth)
            found[count] = At(rip, depth, mnemonic, turn)
            before = rip, depth
            delivered.clear()
            machine.run(1)
            depth += (mnemonic == "call") - (mnemonic in ("ret", "iretq")) + len(delivered)
    return found


def some(moments: dict[int, At], count: int, seed: int) -> list[int]:
    """Seeded moments, and those that matter most: calls, returns, ends of handlers, turns of a rep."""
    seeded = random.Random(seed)
    inside = [at for at in moments if FROM + 100 < at < FROM + COUNT - 1500]
    special = [at for at in inside if moments[at].mnemonic in ("call", "ret", "iretq") or moments[at].turn]
    behind = [at for at in inside if moments[at - 1].mnemonic in ("ret", "iretq") or moments[at - 1].turn]
    return seeded.sample(inside, count // 3) + seeded.sample(special, count // 3) + seeded.sample(behind, count // 3)


def test_the_stretch_has_everything(moments: dict[int, At]) -> None:
    mnemonics = {at.mnemonic for at in moments.values()}
    assert {"call", "ret", "iretq"} <= mnemonics and any(at.turn for at in moments.values())
    assert max(at.depth for at in moments.values()) - min(at.depth for at in moments.values()) > 4


def test_next_is_the_next_instruction_that_is_not_deeper(timeline: Timeline[Kernel], moments: dict[int, At]) -> None:
    for at in some(moments, 60, 1):
        timeline.goto(at)
        rip, depth = moments[at].rip, moments[at].depth
        whole = moments[at].mnemonic.startswith("rep")
        expected = next((then for then in range(at + 1, FROM + COUNT)
                         if moments[then].depth <= depth and not (whole and moments[then].rip == rip)
                         and not (moments[then].rip == rip and moments[then].depth == depth
                                  and moments[then - 1].mnemonic == "iretq")), None)
        if expected is not None:
            assert timeline.next().instruction == expected, f"from {at}, {moments[at]}"


def test_reverse_next_is_the_last_instruction_that_is_not_deeper(timeline: Timeline[Kernel],
                                                                 moments: dict[int, At]) -> None:
    for at in some(moments, 60, 2):
        timeline.goto(at)
        depth = moments[at].depth
        expected = next((then for then in range(at - 1, FROM - 1, -1)
                         if moments[then].depth <= depth and not moments[then].turn), None)
        if expected is not None:
            assert timeline.reverse_next().instruction == expected, f"from {at}, {moments[at]}"


def test_finish_is_where_the_caller_goes_on(timeline: Timeline[Kernel], moments: dict[int, At]) -> None:
    for at in some(moments, 45, 3):
        timeline.goto(at)
        depth = moments[at].depth
        expected = next((then for then in range(at + 1, FROM + COUNT) if moments[then].depth < depth), None)
        if expected is not None:
            assert timeline.finish().instruction == expected, f"from {at}, {moments[at]}"


def test_reverse_finish_is_the_call_that_entered_this_function(timeline: Timeline[Kernel],
                                                               moments: dict[int, At]) -> None:
    for at in some(moments, 45, 4):
        timeline.goto(at)
        depth = moments[at].depth
        expected = next((then for then in range(at - 1, FROM - 1, -1) if moments[then].depth < depth), None)
        if expected is not None:
            assert timeline.reverse_finish().instruction == expected, f"from {at}, {moments[at]}"


def test_what_never_returns_is_stepped_over_to_the_end_of_the_run() -> None:
    timeline = sandbox.record("main:\n    call .Lnever\n    ret\n.Lnever:\n    mov edi, 1\n    jmp .Lpanic\n"
                              ".Lpanic:\n    xor eax, eax\n    mov [rax], eax\n    ret\n", ram="4M")
    with timeline.kernel:
        timeline.goto(timeline.kernel.travel.history.first.machine.instructions)
        assert timeline.run_to("main") is not None
        assert timeline.next().instruction == timeline.length
        with pytest.raises(PositionError):
            timeline.next()


def test_calls_from_python_begin_and_end_where_the_journal_says() -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        kernel.call("kmalloc", 64)
        between = kernel.instructions
        kernel.call("kmalloc", 64)
        timeline.goto(between - 5)
        assert timeline.finish().instruction == between
        timeline.goto(between + 7)
        assert timeline.reverse_finish().instruction == between
        assert timeline.moment.rip == kernel.symbols["kmalloc"]
        timeline.goto(timeline.length - 1)
        assert timeline.finish().instruction == timeline.length


def test_a_function_that_nobody_called_has_no_return() -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        timeline.goto(1)
        with pytest.raises(UsageError, match="nobody called _start"):
            timeline.finish()
        with pytest.raises(UsageError, match="nobody called _start"):
            timeline.reverse_finish()
        assert timeline.position == 1
        timeline.goto(0)
        with pytest.raises(PositionError):
            timeline.reverse_next()
