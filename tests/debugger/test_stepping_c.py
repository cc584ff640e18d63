"""Stepping over and out of C, forwards and backwards, against the true call depth at every instruction."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

import sandbox
from sandbox import Kernel
from sandbox.debugger.timeline import Timeline
from sandbox.toolchain.disassembler import Disassembler

from ..compilers import is_here

PROGRAM = """\
#include <sandbox.h>

static volatile long sink;

static __attribute__((noinline)) long leaf(long x)
{
    return x * 3 + sink;
}

static __attribute__((noinline)) long fall(long n)
{
    if (n < 2)
        return leaf(n);
    sink += n;
    return fall(n - 1) + fall(n - 2);
}

static __attribute__((noinline)) void each(long n, long (*f)(long))
{
    for (long i = 0; i < n; i++)
        sink ^= f(i);
}

int main(void)
{
    each(6, fall);
    char *p = kmalloc(40);
    p[3] = 1;
    kfree(p);
    each(3, leaf);
    return 0;
}
"""


class At(NamedTuple):
    """A moment of the straight run."""

    rip: int
    depth: int


@pytest.fixture(scope="module", params=[("gcc", "-O2"), ("clang", "-O0")], ids=" ".join)
def timeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline[Kernel]]:
    cc, flags = request.param
    if not is_here(cc):
        pytest.skip(f"no {cc}")
    path = tmp_path_factory.mktemp("c") / "steps.c"
    path.write_text(PROGRAM)
    recorded = sandbox.record(path, ram="4M", hz=0, cc=cc, cflags=flags)
    with recorded.kernel:
        yield recorded


@pytest.fixture(scope="module")
def moments(timeline: Timeline[Kernel]) -> dict[int, At]:
    """Every moment from the call of ``main`` to its return, calls and returns counted."""
    timeline.goto(timeline.start)
    entered = timeline.run_to("*main")
    assert entered is not None
    timeline.goto(entered.instruction)
    machine, decoder = timeline.kernel.machine, Disassembler()
    found: dict[int, At] = {}
    depth = 0
    for count in range(entered.instruction, timeline.length):
        rip = machine.cpu.view.rip
        found[count] = At(rip, depth)
        mnemonic = decoder.disassemble(timeline.kernel.memory.read(rip, 15), rip).mnemonic
        depth += (mnemonic == "call") - (mnemonic == "ret")
        if depth < 0:
            break
        machine.run(1)
    timeline.goto(timeline.start)
    return found


def some(timeline: Timeline[Kernel], moments: dict[int, At], seed: int) -> list[int]:
    """Moments in C, each function's entries and returns among them."""
    image = timeline.kernel.program
    assert image is not None
    inside = [at for at, found in moments.items() if image.base <= found.rip < image.text_end and found.depth > 0]
    edges = [at for at in inside if at + 1 in moments and
             {moments[at - 1].depth, moments[at + 1].depth} != {moments[at].depth}]
    seeded = random.Random(seed)
    return seeded.sample(inside, 14) + seeded.sample(edges, 14)


def test_finish_and_reverse_finish_keep_to_the_calls_of_c(timeline: Timeline[Kernel], moments: dict[int, At]) -> None:
    for at in some(timeline, moments, 1):
        depth = moments[at].depth
        timeline.goto(at)
        wanted = next(then for then in range(at + 1, max(moments) + 1) if moments[then].depth < depth)
        assert timeline.finish().instruction == wanted, f"from {at}, {moments[at]}"
        timeline.goto(at)
        wanted = next(then for then in range(at - 1, 0, -1) if moments[then].depth < depth)
        assert timeline.reverse_finish().instruction == wanted, f"from {at}, {moments[at]}"


def test_next_and_reverse_next_step_over_the_calls_of_c(timeline: Timeline[Kernel], moments: dict[int, At]) -> None:
    for at in some(timeline, moments, 2):
        depth = moments[at].depth
        timeline.goto(at)
        wanted = next(then for then in range(at + 1, max(moments) + 1) if moments[then].depth <= depth)
        assert timeline.next().instruction == wanted, f"from {at}, {moments[at]}"
        timeline.goto(at)
        wanted = next(then for then in range(at - 1, 0, -1) if moments[then].depth <= depth)
        assert timeline.reverse_next().instruction == wanted, f"from {at}, {moments[at]}"


def test_a_line_of_c_is_a_place_to_stop(timeline: Timeline[Kernel]) -> None:
    line = next(number for number, text in enumerate(PROGRAM.splitlines(), 1) if "p[3]" in text)
    timeline.goto(timeline.start)
    moment = timeline.run_to(f"steps.c:{line}")
    assert moment is not None and moment.line.endswith(f"steps.c:{line}")
