"""The three allocators once more, in C: they pass as those in assembly do, however they are compiled, and what is wrong
with one is told with its line of C."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import sandbox
from sandbox.conformance import LINES, Report, check

from ..compilers import is_here, needs_compiler
from .broken import ALLOCATORS, ARENA

NAMES = ("bump", "freelist", "bitmap")
COMPILERS = ("gcc", "clang")
CALLS = 250

pytestmark = needs_compiler


def report_of(name: str, cc: str | None = None, cflags: str = "") -> Report:
    return check(ALLOCATORS / f"{name}.c", seed=3, arena=ARENA, refused=-1 if name == "bitmap" else None, cc=cc,
                 cflags=cflags)


def answers(name: str, cflags: str = "") -> tuple[list[object], int]:
    """What an allocator answers to calls at random, its statistics among it; and the instructions that it took."""
    rng, held, told = random.Random(CALLS), [0], []
    with sandbox.boot(allocator=ALLOCATORS / name, arena=ARENA, hz=0, cflags=cflags) as kernel:
        start = kernel.instructions
        for _ in range(CALLS):
            if rng.random() < 0.4:
                kernel.allocator.deallocate(held.pop(rng.randrange(len(held))))
            held.append(kernel.allocator.allocate(rng.choice((0, 1, 16, 100, 256, 257, 1 << 63, (1 << 64) - 1))))
            told += [held[-1], kernel.allocator.stats()]
        return told, kernel.instructions - start


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.soak] * (name == "bitmap")) for name in NAMES])
def test_an_allocator_passes_every_line_in_c_as_in_assembly(name: str) -> None:
    report = report_of(name)
    assert [(line.name, line.reason) for line in report.failed] == []
    assert report.passed and [line.name for line in report] == list(LINES)


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_out_the_same_addresses_in_c_as_in_assembly(name: str) -> None:
    told, _ = answers(f"{name}.c")
    assert told == answers(f"{name}.asm")[0] and len(set(told)) > CALLS / 10


@pytest.mark.parametrize("cflags", ["-O0", "-O2", "-Os"])
@pytest.mark.parametrize("cc", COMPILERS)
def test_a_free_list_passes_with_each_compiler_at_each_level(cc: str, cflags: str) -> None:
    if not is_here(cc):
        pytest.skip(f"{cc} is not here")
    report = report_of("freelist", cc, cflags)
    assert [(line.name, line.reason) for line in report.failed] == []
    figures = report["exhaustion"].figures
    assert (figures["large_size"], figures["large_capacity"]) == (256, 63)        # as in assembly: its geometry


def test_a_level_changes_the_instructions_and_no_answer() -> None:
    (slow, many), (fast, few) = (answers("freelist.c", cflags) for cflags in ("-O0", "-O2"))
    assert slow == fast and many > few


@pytest.mark.parametrize(("base", "before", "after", "line", "reason"), [
    pytest.param("bump", "    next += size;\n", "    next += size - 8;\n", "overlap",
                 r"allocate \(FILE:\d+\) gives 0x[0-9a-f]+.* overlaps chunk \d+, \d+ bytes at .* that are held",
                 id="overlaps by eight bytes"),
    pytest.param("bump", "    in_use++;\n", "    in_use++; *(uint64_t *)(chunk + size) = 0;\n", "confined",
                 r"writes to 0xffffca0000004000, outside of its memory, at allocate\+0x[0-9a-f]+ \(FILE:CHANGED\)",
                 id="writes a header behind the arena"),
    pytest.param("freelist", "    if (owners[number] != 1)\n", "    if (owners[number] > 1)\n", "double_free",
                 r"after that free, operation \d+, .*overlaps chunk \d+, .* the very chunk",
                 id="takes a double free", marks=pytest.mark.soak),
])
def test_a_broken_one_fails_for_its_own_reason_with_its_line_of_c(base: str, before: str, after: str, line: str,
                                                                  reason: str, tmp_path: Path) -> None:
    text = (ALLOCATORS / f"{base}.c").read_text()
    assert text.count(before) == 1
    wrong = tmp_path / "wrong.c"
    wrong.write_text(text.replace(before, after))
    changed = wrong.read_text().splitlines().index(after.rstrip("\n")) + 1
    report = check(wrong, seed=3, arena=ARENA)
    assert not report.passed and not report[line].passed and report[line].again
    pattern = reason.replace("FILE", re.escape(str(wrong))).replace("CHANGED", str(changed))
    assert re.search(pattern, report[line].reason), report[line].reason
