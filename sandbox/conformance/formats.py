"""Reports and marks for other programs: JSON of our own, Gradescope's ``results.json``, and rows of CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from .batch import Row
from .outcome import Outcome
from .rubric import Grade, Rubric, number
from .words import folded, harmless

VERSION = 1
"""Of the JSON: it changes when a key changes its meaning or goes away."""
_FORMULA = re.compile(r"[=+\-@\t\r]")


def to_data(outcome: Outcome, grade: Grade) -> dict[str, Any]:
    """One allocator: its marks, and the report, or the ``error`` why there is none."""
    return {"format": "sandbox check", "version": VERSION, **_checked(outcome, grade)}


def batch_to_data(rows: Sequence[Row], folders: int, seed: int) -> dict[str, Any]:
    """A class; ``complete`` is false when it was interrupted."""
    return {"format": "sandbox check --batch", "version": VERSION, "seed": seed, "complete": len(rows) == folders,
            "students": [{"student": row.student, "first_failure": row.first_failure,
                          **_checked(row.outcome, row.grade)} for row in rows]}


def _checked(outcome: Outcome, grade: Grade) -> dict[str, Any]:
    return {"allocator": outcome.allocator, "seed": outcome.seed, "loaded": outcome.loaded, "error": outcome.error,
            **grade.to_dict(), "report": None if outcome.report is None else outcome.report.to_dict()}


# -- Gradescope -------------------------------------------------------------------------------------------------
def gradescope(outcome: Outcome, grade: Grade) -> dict[str, Any]:
    """``results.json`` as Gradescope's autograder specification has it.

    Students see each line with its reason, and no seed; ``extra_data`` is the teachers'. All text is ``text``: what
    an allocator says in its panic is neither HTML nor Markdown. There is no ``execution_time``, which is the host's.
    """
    return {
        "score": number(grade.points),
        "output": harmless(_summary(outcome, grade)),
        "output_format": "text", "test_output_format": "text", "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "extra_data": {"format": "sandbox check", "version": VERSION, "seed": outcome.seed},
        "tests": _tests(outcome, grade),
    }


def _summary(outcome: Outcome, grade: Grade) -> str:
    if outcome.report is None:
        return f"The allocator could not be {'checked' if outcome.loaded else 'loaded'}: {outcome.error}"
    earned = sum(mark.passed for mark in grade.counted)
    return f"{earned} of {len(grade.counted)} lines passed, {grade.points:,} of {grade.possible:,} points"


def _tests(outcome: Outcome, grade: Grade) -> list[dict[str, Any]]:
    if outcome.report is None:
        return [_test("the check", "1", 0, number(grade.possible), outcome.error)]
    claims = {line.name: line.claim for line in outcome.report.lines}
    told: dict[str, str] = {}
    return [_test(f"{mark.line}: {claims[mark.line]}" if mark.line in claims else mark.line, str(at),
                  number(mark.points), number(mark.possible),
                  (folded(mark.reason, mark.line, told) if mark.reason else "") or mark.reason)
            for at, mark in enumerate(grade.counted, 1)]


def _test(name: str, place: str, score: float, possible: float, reason: str) -> dict[str, Any]:
    return {"score": score, "max_score": possible, "status": "failed" if reason else "passed", "name": name,
            "number": place, "output": harmless(reason), "visibility": "visible"}


# -- CSV --------------------------------------------------------------------------------------------------------
def csv_header(rubric: Rubric) -> str:
    """The first row."""
    return _csv(["student", "points", *rubric.points, "reason", "error"])


def csv_row(row: Row) -> str:
    """A student's row, always one line: the points, those of each line (nothing for one that the report has not), the
    reason of the first failure, and why there is no report."""
    return _csv([_cell(row.student), str(number(row.grade.points)),
                 *("" if mark.absent else str(number(mark.points)) for mark in row.grade.marks),
                 _cell(row.first_failure), _cell(row.outcome.error)])


def _csv(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _cell(text: str) -> str:
    """Words of others in a table: no line break, and no formula (OWASP, CSV injection)."""
    shown = harmless(text)
    return f"'{shown}" if _FORMULA.match(shown) else shown
