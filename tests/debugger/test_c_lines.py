"""Stepping by lines of C, against the line and the true call depth at every instruction of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import sandbox
from sandbox import Kernel, UsageError
from sandbox.debugger.timeline import Timeline
from sandbox.toolchain.disassembler import Disassembler

from ..compilers import is_here, needs_compiler

PROGRAM = r"""
#include <string.h>
#define NOINLINE __attribute__((noinline))

static int calls;

NOINLINE int add(int a, int b)
{
    int c = a + b;
    calls++;
    return c;
}

NOINLINE int fact(int n)
{
    if (n < 2)
        return 1;
    return n * fact(n - 1);
}

NOINLINE void fill(char *at, int count) { while (count--) *at++ = (char)count; }

NOINLINE int twice(int (*function)(int), int x)
{
    int total = function(x) +
                function(x - 1);
    return total;
}

int main(void)
{
    char text[8];
    int x = 1;
    x = add(x, 2) + add(x, 3);
    for (int i = 0; i < 2; i++) {
        fill(text, i + 2);
        x += twice(fact, i + 2);
    }
    memset(text, 'a', sizeof text);     /* of the kernel */
    text[7] = 0;
    x += strchr(text, 'b') == NULL;     /* of the library */
    fill(text, 3);
    while (x > 15) x--;
    return x - 15;
}
"""


BOTH = [(cc, flag) for cc in ("gcc", "clang") for flag in ("-O0", "-O2")]
STRIDES = [13, pytest.param(1, marks=pytest.mark.soak)]
Mode = int
"""Whose lines count: 0 the program's, 1 those of the C library too."""


class At(NamedTuple):
    """A moment of the straight run. By mode: whether its line counts, whether a visit to it begins, and the depth of
    the innermost function whose lines count (-1 where there is none). ``first`` of a function, and its call depth."""

    counts: tuple[bool, bool]
    begins: tuple[bool, bool]
    owner: tuple[int, int]
    first: bool
    depth: int
    library: bool


class Straight(NamedTuple):
    """A recorded run, and every moment of another one, from ``start`` on."""

    timeline: Timeline[Kernel]
    start: int
    moments: list[At]


@pytest.fixture(scope="module", params=BOTH, ids=" ".join)
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Straight]:
    cc, flags = request.param
    if not is_here(cc):
        pytest.skip(f"{cc} is not here")
    program = tmp_path_factory.mktemp("lines") / "lines.c"
    program.write_text(PROGRAM)
    with sandbox.record(program, ram="4M", cc=cc, cflags=flags) as timeline:
        timeline.goto(timeline.start)
        start = (timeline.run_to("*main") or timeline.moment).instruction
        timeline.keep(timeline.kernel.travel.keep_here())        # a short way back
        with sandbox.boot(program, ram="4M", cc=cc, cflags=flags) as kernel:
            kernel.machine.run(start - kernel.instructions)
            yield Straight(timeline, start, list(_followed(kernel, timeline.length - start)))


def _followed(kernel: Kernel, count: int) -> Iterator[At]:
    """One instruction after the other, with calls and returns counted; no interrupt comes."""
    decoder, program = Disassembler(), kernel.program
    assert program is not None
    mnemonics: dict[int, str] = {}
    depth, first = 0, True
    last: tuple[dict[int, int], dict[int, int]] = ({}, {})       # by mode and depth, the line that was run last
    for _ in range(count):
        rip = kernel.machine.cpu.view.rip
        line = program.line(rip)
        library = line is not None and line.file.startswith("libc/")
        counts = line is not None and not library, line is not None
        begins = [False, False]
        for mode, lines in enumerate(last):
            if counts[mode] and line is not None:
                begins[mode] = first or lines.get(depth) != line.number
                lines[depth] = line.number
        yield At(counts, (begins[0], begins[1]), tuple(max(lines, default=-1) for lines in last), first, depth, library)
        if rip not in mnemonics:
            mnemonics[rip] = decoder.disassemble(kernel.memory.read(rip, 15), rip).mnemonic
        mnemonic = mnemonics[rip]
        kernel.machine.run(1)
        assert mnemonic != "iretq"
        first = mnemonic == "call"
        depth += first - (mnemonic == "ret")
        for lines in last:
            for deeper in [known for known in lines if known > depth or (first and known == depth)]:
                del lines[deeper]


def _expected_forwards(straight: Straight, at: int, over: bool) -> int:
    now = straight.moments[at]
    mode = int(now.library)
    limit = now.owner[mode] if over and now.owner[mode] >= 0 else 1 << 30
    for then, moment in enumerate(straight.moments[at + 1 :], at + 1):
        if moment.counts[mode] and moment.depth <= limit:
            limit = moment.depth if over else limit
            if moment.begins[mode]:
                return then
    return len(straight.moments)


def _expected_backwards(straight: Straight, at: int, over: bool) -> int | None:
    now = straight.moments[at]
    mode = int(now.library)
    limit = now.owner[mode] if over and now.owner[mode] >= 0 else 1 << 30
    limit -= now.first and now.counts[mode] and over
    return next((then for then in range(at - 1, -1, -1)
                 if straight.moments[then].begins[mode] and straight.moments[then].depth <= limit), None)


def _positions(straight: Straight, every: int) -> list[int]:
    """Moments of the program's own, of which one is taken out of ``every`` so many, and fewer of all other code."""
    own = [at for at, moment in enumerate(straight.moments) if moment.counts[0]]
    return sorted({*own[::every], *range(0, len(straight.moments), 31 * every)})


def test_the_run_has_everything(straight: Straight) -> None:
    moments = straight.moments
    assert max(moment.depth for moment in moments) > 3
    assert any(moment.library and moment.begins[1] for moment in moments)
    assert any(not any(moment.counts) for moment in moments)
    assert sum(moment.begins[0] for moment in moments) > 30


@pytest.mark.parametrize("every", STRIDES)
@pytest.mark.parametrize("over", [False, True], ids=["step", "next"])
def test_forwards_it_is_the_beginning_of_the_next_line(straight: Straight, over: bool, every: int) -> None:
    timeline = straight.timeline
    move = timeline.next_line if over else timeline.step_line
    for at in _positions(straight, every):
        timeline.goto(straight.start + at)
        assert move().instruction - straight.start == _expected_forwards(straight, at, over), f"from {at}"


@pytest.mark.parametrize("every", STRIDES)
@pytest.mark.parametrize("over", [False, True], ids=["step", "next"])
def test_backwards_it_is_the_beginning_of_the_last_line(straight: Straight, over: bool, every: int) -> None:
    timeline = straight.timeline
    move = timeline.reverse_next_line if over else timeline.reverse_step_line
    for at in _positions(straight, every):
        timeline.goto(straight.start + at)
        expected = _expected_backwards(straight, at, over)
        if expected is not None:
            assert move().instruction - straight.start == expected, f"from {at}"
        else:
            with pytest.raises(UsageError, match="no line of the program"):
                move()


@needs_compiler
def test_interrupts_are_passed_over_and_every_way_is_also_the_way_back(tmp_path: Path) -> None:
    (tmp_path / "lines.c").write_text(PROGRAM)
    with sandbox.record(tmp_path / "lines.c", ram="4M", cflags="-O0", hz=10_000) as timeline:
        timeline.goto(timeline.start)
        timeline.run_to("*main")
        for forwards, backwards in ((timeline.step_line, timeline.reverse_step_line),
                                    (timeline.next_line, timeline.reverse_next_line)):
            way = [timeline.position]
            while timeline.position < timeline.length:
                way.append(forwards().instruction)
            back = [timeline.position]
            while timeline.position > way[0]:
                back.append(backwards().instruction)
            assert back[::-1] == way
            assert {timeline.goto(at).line.partition(":")[0] for at in way[:-1]} == {str(tmp_path / "lines.c")}


@needs_compiler
def test_lines_of_assembly_are_stepped_too_and_a_program_without_lines_says_so(tmp_path: Path) -> None:
    with sandbox.record("01", ram="4M") as timeline:
        timeline.goto(timeline.start)
        timeline.run_to("*main")
        program = timeline.kernel.program
        assert program is not None
        for _ in range(12):
            before = timeline.position
            here = timeline.step_line()
            between = [timeline.goto(at).rip for at in range(before + 1, here.instruction)]
            assert program.section_at(here.rip) and not any(program.section_at(rip) for rip in between[:-1])
            timeline.goto(here.instruction)
    (tmp_path / "bare.c").write_text("int main(void)\n{\n    return 0;\n}\n")
    with sandbox.record(tmp_path / "bare.c", ram="4M", cflags="-g0") as timeline:
        timeline.goto(timeline.start)
        timeline.run_to("*main")
        for move in (timeline.step_line, timeline.next_line, timeline.reverse_step_line, timeline.reverse_next_line):
            with pytest.raises(UsageError, match="no source lines of this program"):
                move()
