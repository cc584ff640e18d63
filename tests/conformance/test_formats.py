"""What other programs read: JSON of our own, Gradescope's results.json, rows of CSV; each against its specification."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest

from sandbox.conformance.batch import Row
from sandbox.conformance.formats import batch_to_data, csv_header, csv_row, gradescope, to_data
from sandbox.conformance.operations import Script
from sandbox.conformance.outcome import Outcome
from sandbox.conformance.report import LINES, Line, Report
from sandbox.conformance.rubric import Grade, Rubric, default_rubric, parse
from sandbox.conformance.words import harmless

SCRIPT = Script("mixed", (("allocate", 0, 24), ("free", 0), ("wild", "arena", 0)))
EVIL = "panics: <b>\x1b[2J\nstudent,100\u202e=cmd()"
VISIBILITY = {"hidden", "after_due_date", "after_published", "visible"}
TEXT_FORMATS = {"text", "html", "simple_format", "md", "ansi"}
KNOWN = {
    "": {"score", "execution_time", "output", "output_format", "test_output_format", "test_name_format", "visibility",
         "stdout_visibility", "extra_data", "tests", "leaderboard"},
    "test": {"score", "max_score", "status", "name", "name_format", "number", "output", "output_format", "tags",
             "visibility", "extra_data"},
}
"""Every key that Gradescope's autograder specification has (docs: Autograder Specifications, Output Format)."""


def outcome(**failed: str) -> Outcome:
    lines = tuple(Line(name, claim, name not in failed, failed.get(name, ""), {"operations": 3},
                       SCRIPT if name in failed else None) for name, claim in LINES.items())
    return Outcome("a/allocator.asm", 77, Report("a/allocator.asm", 77, {"arena": 65536}, lines))


BROKEN = Outcome("a/allocator.asm", 77, None, "a/allocator.asm:3: no such instruction", loaded=False)


def graded(found: Outcome, rubric: Rubric | None = None) -> Grade:
    return (rubric or default_rubric()).grade(found.report, found.error)


# -- Gradescope -------------------------------------------------------------------------------------------------
def check_specification(results: dict[str, Any]) -> None:
    """What the specification says of keys, types and values."""
    assert json.loads(json.dumps(results)) == results
    assert results.keys() <= KNOWN[""] and {"score", "tests"} <= results.keys()
    assert type(results["score"]) in (int, float) and isinstance(results["output"], str)
    assert {results["visibility"], results["stdout_visibility"]} <= VISIBILITY
    assert {results["output_format"], results["test_output_format"], results["test_name_format"]} <= TEXT_FORMATS
    assert isinstance(results["extra_data"], dict)
    for test in results["tests"]:
        assert test.keys() <= KNOWN["test"]
        assert type(test["score"]) in (int, float) and 0 <= test["score"] <= test["max_score"]
        assert test["status"] in ("passed", "failed") and test["visibility"] in VISIBILITY
        assert all(isinstance(test[key], str) for key in ("name", "number", "output"))


@pytest.mark.parametrize("found", [outcome(), outcome(leak="gone", larson=EVIL), BROKEN])
def test_results_are_as_gradescope_has_them(found: Outcome) -> None:
    check_specification(gradescope(found, graded(found)))


def test_each_line_is_a_test_with_its_points_and_reason() -> None:
    found = outcome(leak="churn, operation 3: gone")
    results = gradescope(found, graded(found))
    assert results["score"] == 94 == sum(test["score"] for test in results["tests"])
    assert [test["name"].partition(":")[0] for test in results["tests"]] == list(LINES)
    assert [test["number"] for test in results["tests"]] == [str(at) for at in range(1, 27)]
    [leak] = [test for test in results["tests"] if test["status"] == "failed"]
    assert (leak["score"], leak["max_score"], leak["output"]) == (0, 6, "churn, operation 3: gone")
    assert results["output"] == "25 of 26 lines passed, 94 of 100 points"


def test_an_allocator_without_a_report_has_results_too() -> None:
    results = gradescope(BROKEN, graded(BROKEN))
    assert results["score"] == 0 and results["output"].endswith("loaded: a/allocator.asm:3: no such instruction")
    [test] = results["tests"]
    assert (test["score"], test["max_score"], test["status"]) == (0, 100, "failed")


def test_what_students_read_has_no_seed_and_is_text() -> None:
    results = gradescope(outcome(larson=EVIL), graded(outcome(larson=EVIL)))
    assert results["extra_data"]["seed"] == 77
    shown = json.dumps({key: value for key, value in results.items() if key != "extra_data"})
    assert "77" not in shown
    [failed] = [test["output"] for test in results["tests"] if test["status"] == "failed"]
    assert failed == "panics: <b>\\x1b[2J\\nstudent,100\\u202e=cmd()"
    assert results["stdout_visibility"] == "hidden"
    assert {results["output_format"], results["test_output_format"], results["test_name_format"]} == {"text"}


def test_decimal_points_are_numbers() -> None:
    rubric = parse("[points]\nleak = 0.1\nreuse = 0.2", "r.toml")
    assert gradescope(outcome(), graded(outcome(), rubric))["score"] == 0.3


# -- JSON -------------------------------------------------------------------------------------------------------
def test_the_data_has_marks_and_the_whole_report_and_says_its_version() -> None:
    found = outcome(leak="gone")
    data = json.loads(json.dumps(to_data(found, graded(found))))
    assert (data["format"], data["version"], data["seed"], data["error"]) == ("sandbox check", 1, 77, "")
    assert (data["points"], data["possible"], data["passed"], data["loaded"]) == (94, 100, False, True)
    assert found.report is not None and data["report"] == json.loads(json.dumps(found.report.to_dict()))
    assert [mark["line"] for mark in data["marks"] if not mark["passed"]] == ["leak"]
    kept = next(line for line in data["report"]["lines"] if line["name"] == "leak")["script"]
    assert Script.from_dict(kept) == SCRIPT


def test_without_a_report_the_data_has_the_reason() -> None:
    data = to_data(BROKEN, graded(BROKEN))
    assert (data["report"], data["loaded"], data["points"], data["error"]) == (None, False, 0, BROKEN.error)


def test_an_interrupted_class_says_that_it_is_not_complete() -> None:
    row = Row("a", BROKEN, graded(BROKEN))
    assert batch_to_data([row], 2, 77)["complete"] is False and batch_to_data([row], 1, 77)["complete"] is True


# -- CSV --------------------------------------------------------------------------------------------------------
def cells(row: Row) -> list[str]:
    [found] = csv.reader([csv_row(row)])
    return found


def test_a_row_has_points_reason_and_error_in_the_headers_order() -> None:
    rubric = parse("[points]\nleak = 2.5\nreuse = 3", "r.toml")
    found = outcome(leak='churn, "gone"')
    assert csv_header(rubric) == "student,points,leak,reuse,reason,error"
    assert cells(Row("ada", found, graded(found, rubric))) == ["ada", "3", "0", "3", 'leak: churn, "gone"', ""]
    assert cells(Row("bob", BROKEN, graded(BROKEN, rubric))) == ["bob", "0", "0", "0", "", BROKEN.error]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_cell_is_a_formula(name: str) -> None:
    assert cells(Row(name, BROKEN, graded(BROKEN)))[0] == f"'{name}"


def test_no_words_of_a_guest_break_a_row() -> None:
    found = outcome(returns=EVIL)
    line = csv_row(Row("a\r\nb", found, graded(found)))
    assert line.isprintable() and cells(Row("a\r\nb", found, graded(found)))[0] == "a\\r\\nb"


@pytest.mark.parametrize(("text", "shown"), [
    ("plain 100% ünïcode", "plain 100% ünïcode"), ("\x1b]0;title\x07", "\\x1b]0;title\\x07"), ("\udcff", "\\udcff"),
    ("a\u2028b\u2066c", "a\\u2028b\\u2066c"), ("\x9b1m", "\\x9b1m")])
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert harmless(text) == shown
