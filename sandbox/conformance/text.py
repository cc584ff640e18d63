"""A report as text in 80 columns: a row for each line, what failed and where to look, and what the workloads cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import wrap

from ..guest.options import format_size
from .operations import Script, describe
from .regression import save
from .report import Figure, Line, Report
from .rubric import Grade, Mark
from .words import folded, harmless
from .workloads import WORKLOADS

WIDTH = 80
SHOWN = 8
"""Operations of a failing list that are told; longer ones are counted."""
_COUNTS = ("minimum", "median", "p99", "worst")
_HEADER = """\
instructions              allocate                  deallocate
workload       min median    p99  worst    min median    p99  worst pages  waste"""


def text(report: Report, grade: Grade, tests: Mapping[Script, Path], again: str) -> Iterator[str]:
    """The lines of a report. ``tests`` are the files that failing lists were saved as; ``again`` is the command that
    has made this check, to be told where none was saved."""
    yield from _wrapped(f"sandbox check {harmless(report.allocator)}: seed {report.seed}, "
                        f"an arena of {format_size(int(report.options['arena']))}")
    yield ""
    told: dict[Script, str] = {}
    reasons: dict[str, str] = {}
    for line in report:
        yield from _line(line, grade.by_line.get(line.name), tests, told, reasons)
    yield ""
    costs = [_costs(line) for line in report if line.name in WORKLOADS and line.figures]
    if costs:
        yield from [*_HEADER.splitlines(), *costs, ""]
    if told and not tests:
        yield "each failing list as a test to run, to step through and to keep:"
        yield f"  {again} --save DIRECTORY"
    yield from _wrapped(_verdict(report, grade))


def _verdict(report: Report, grade: Grade) -> str:
    """The last line: how many lines and points."""
    passed = sum(_passed(line, grade.by_line.get(line.name)) for line in report)
    needed = "" if grade.needed is None else f" ({grade.needed:,} are needed)"
    return (f"{'passed' if grade.passed else 'FAILED'}: {passed} of {len(report.lines)} lines, "
            f"{grade.points:,} of {grade.possible:,} points{needed}, seed {report.seed}")


def save_tests(report: Report, source: Path, directory: Path) -> dict[Script, Path]:
    """Write the failing lists of a report as test files, by list; ``source`` is the allocator's own file."""
    written = save(replace(report, allocator=str(source)), directory)
    scripts = dict.fromkeys(line.script for line in report.failed if line.script is not None)
    return dict(zip(scripts, written, strict=True))


# -- rows -------------------------------------------------------------------------------------------------------
def _passed(line: Line, mark: Mark | None) -> bool:
    """Whether a row passed: as the rubric has it, where it has the line."""
    return line.passed if mark is None else mark.passed


def _line(line: Line, mark: Mark | None, tests: Mapping[Script, Path], told: dict[Script, str],
          reasons: dict[str, str]) -> Iterator[str]:
    passed = _passed(line, mark)
    points = "-" if mark is None else f"{mark.points:,}/{mark.possible:,}"
    reason = "" if passed else line.reason if mark is None else mark.reason
    again = folded(reason, line.name, reasons) if reason else ""
    figure = again or (_FIGURES.get(line.name, _operations)(line.figures) if line.figures else "")
    yield f"{line.name:<12} {'passed' if passed else 'FAILED'} {points:>9}  {figure}".rstrip()
    if passed or again:
        return
    yield from _wrapped(harmless(reason), 4)
    if line.script is None:
        return
    if line.script in told:
        yield f"    the same list as of {told[line.script]}"
        return
    told[line.script] = line.name
    operations = [describe(operation) for operation in line.script.operations]
    shown = ", ".join(operations[:SHOWN]) + (f" and {len(operations) - SHOWN} more" if len(operations) > SHOWN else "")
    times = f", {line.script.rounds} times" if line.script.rounds > 1 else ""
    yield from _wrapped(f"{'shortest list' if line.again else 'the list'}{times}: {shown}", 4)
    if line.script in tests:
        yield f"    look: pytest {tests[line.script]}"


def _costs(line: Line) -> str:
    figures = line.figures
    counts = "".join(f"{figures.get(f'{role}_{count}', 0):>7}" for role in ("allocate", "deallocate")
                     for count in _COUNTS)
    return f"{line.name:<11}{counts}{figures.get('pages', 0):>6}{figures.get('waste_percent', 0.0):>6.1f}%"


def _operations(figures: Mapping[str, Figure]) -> str:
    return f"{figures['operations']:,} operations" if "operations" in figures else ""


def _workload(figures: Mapping[str, Figure]) -> str:
    refused = f", {figures['refused']:,} allocations answered with 0" if figures["refused"] else ""
    return f"{figures['calls']:,} calls{refused}"


def _exhaustion(figures: Mapping[str, Figure]) -> str:
    fits = dict.fromkeys(f"{figures[f'{key}_capacity']:,} chunks of {figures[f'{key}_size']:,} bytes"
                         for key in ("large", "small"))
    return " or ".join(fits)


_FIGURES: dict[str, Callable[[Mapping[str, Figure]], str]] = {
    **dict.fromkeys(WORKLOADS, _workload),
    "exhaustion": _exhaustion,
    "reuse": lambda figures: f"{figures['ping_pong_percent']}% of ping_pong's allocations",
    "instructions": lambda figures: f"median {figures['allocate_median']:,} and {figures['deallocate_median']:,}, "
                                    f"worst {figures['allocate_worst']:,} and {figures['deallocate_worst']:,}",
    "pages": lambda figures: f"{figures['pages']:,} at the most",
    "waste": lambda figures: f"{figures['waste_percent']}% when it was full",
}
"""The figure that matters of each line."""


def _wrapped(words: str, indent: int = 0) -> list[str]:
    margin = " " * indent
    return wrap(words, WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False)
