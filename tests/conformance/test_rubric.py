"""Rubrics: what they give points for, what they refuse, and that marks are exact."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sandbox.conformance.report import LINES, Line, Report
from sandbox.conformance.rubric import LIMITS, Rubric, default_rubric, default_text, parse, read_rubric
from sandbox.conformance.workloads import WORKLOADS
from sandbox.errors import UsageError

COSTS = {f"{role}_{count}": value for role, factor in (("allocate", 1), ("deallocate", 2))
         for count, value in (("minimum", 10 * factor), ("median", 20 * factor), ("p99", 90 * factor),
                              ("worst", 100 * factor))}


def figures(name: str) -> dict[str, Any]:
    """Made-up figures with the keys that this line really has."""
    return {**(COSTS if name in WORKLOADS or name == "instructions" else {}),
            **({"pages": 7} if name in WORKLOADS or name == "pages" else {}),
            **({"waste_percent": 33.3} if name in WORKLOADS or name == "waste" else {})}


def report(**failed: str) -> Report:
    """Every line passed but those that are given with their reasons."""
    return Report("some.asm", 3, {"arena": 65536}, tuple(
        Line(name, claim, name not in failed, failed.get(name, ""), figures(name)) for name, claim in LINES.items()))


def rubric(text: str) -> Rubric:
    return parse(text, "r.toml")


# -- points -----------------------------------------------------------------------------------------------------
def test_the_default_rubric_has_every_line_in_the_reports_order_and_100_points() -> None:
    default = default_rubric()
    assert list(default.points) == list(LINES)
    assert (sum(default.points.values()), default.needed, default.limits) == (100, None, {})


def test_the_default_rubric_says_of_every_line_what_it_claims() -> None:
    said = {text.partition("=")[0].strip(): text.partition("#")[2].strip() for text in default_text().splitlines()}
    for name, claim in LINES.items():
        if name not in ("instructions", "pages", "waste"):
            assert said[name] == claim.removeprefix("workload: ")


def test_the_commented_parts_of_the_default_rubric_are_a_rubric_too() -> None:
    lines = default_text().splitlines()
    at = lines.index("# [limits]")
    limits = "\n".join(line.removeprefix("#").strip() for line in lines[at:])
    changed = rubric(default_text().replace("# pass = 60", "pass = 60") + "\n" + limits)
    assert changed.needed == 60 and set(changed.limits) == {"pages", "waste", "instructions", "larson"}


def test_a_line_earns_its_points_or_nothing_and_the_reason_is_the_reports() -> None:
    grade = rubric("[points]\noverlap = 10\nleak = 5").grade(report(leak="churn, operation 3: gone"))
    assert [(mark.line, mark.points, mark.possible, mark.reason) for mark in grade.marks] == [
        ("overlap", 10, 10, ""), ("leak", 0, 5, "churn, operation 3: gone")]
    assert (grade.points, grade.possible, grade.passed) == (10, 15, False)


def test_points_are_added_as_decimals() -> None:
    grade = rubric("[points]\noverlap = 0.1\nleak = 0.2\nreuse = 1e-1").grade(report())
    assert grade.points == Decimal("0.4") and grade.to_dict()["points"] == 0.4
    assert json.loads(json.dumps(grade.to_dict()))["possible"] == 0.4


def test_without_a_report_nothing_is_earned() -> None:
    grade = default_rubric().grade(None, "the emulator broke down")
    assert (grade.points, grade.possible, grade.passed) == (0, 100, False)
    assert {mark.reason for mark in grade.marks} == {"the emulator broke down"}


def test_a_line_that_the_report_lacks_earns_nothing() -> None:
    short = replace(report(), lines=report().lines[:3])
    grade = rubric("[points]\nreturns = 1\nsawtooth = 1").grade(short)
    assert [mark.points for mark in grade.marks] == [1, 0] and grade.marks[1].reason == "it was not played"


def test_a_rubric_passes_when_all_its_lines_do_or_at_the_points_that_it_names() -> None:
    bad = report(stats="it says nothing")
    assert rubric("[points]\noverlap = 1").grade(bad).passed
    assert not rubric("[points]\noverlap = 1\nstats = 0").grade(bad).passed
    assert rubric("pass = 3\n[points]\noverlap = 3\nstats = 9").grade(bad).passed
    assert not rubric("pass = 4\n[points]\noverlap = 3\nstats = 9").grade(bad).passed


# -- limits -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("line", "limit", "figure", "most"), [
    ("instructions", "median", "deallocate_median", 40), ("instructions", "worst", "deallocate_worst", 200),
    ("instructions", "allocate_worst", "allocate_worst", 100), ("pages", "", "pages", 7),
    ("waste", "", "waste_percent", "33.3"), ("larson", "deallocate_p99", "deallocate_p99", 180),
    ("larson", "pages", "pages", 7), ("spike", "waste", "waste_percent", "33.3"),
])
def test_a_figure_may_be_its_limit_and_no_more(line: str, limit: str, figure: str, most: object) -> None:
    where = f"limits.{line}" + (f".{limit}" if limit else "")
    exact = rubric(f"{where} = {most}\n[points]\n{line} = 1").grade(report())
    assert exact.passed
    [mark] = rubric(f"{where} = {float(str(most)) - 0.1:.1f}\n[points]\n{line} = 1").grade(report()).marks
    assert mark.points == 0 and mark.reason.startswith(f"{figure} is {most}, and the rubric allows ")


def test_a_limit_is_of_its_own_line_alone() -> None:
    grade = rubric("limits.larson.worst = 50\n[points]\nlarson = 1\nspike = 1\ninstructions = 1").grade(report())
    assert [mark.points for mark in grade.marks] == [0, 1, 1]
    assert grade.marks[0].reason == ("allocate_worst is 100, and the rubric allows 50; "
                                     "deallocate_worst is 200, and the rubric allows 50")


def test_a_figure_that_was_not_measured_is_not_within_its_limit() -> None:
    bare = Report("some.asm", 3, {}, (Line("pages", "", True),))
    [mark] = rubric("limits.pages = 9\n[points]\npages = 1").grade(bare).marks
    assert mark.reason == "pages was not measured, and the rubric limits it"


def test_every_limit_is_of_a_figure_that_its_line_really_has() -> None:
    for line, names in LIMITS.items():
        assert {figure for wanted in names.values() for figure in wanted} == figures(line).keys()


# -- what is refused --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "words"), [
    ("[points]\nalignmnet = 5", "[points] has no line 'alignmnet'; did you mean alignment or aligned?"),
    ("[points]\nzebra = 5", "[points] has no line 'zebra'; they are returns, alignment, "),
    ("[ponts]\nleak = 5", "there is no key 'ponts'; did you mean points?"),
    ("[points]\nleak = 5\n[limits.larsen]\nworst = 3", "[limits] has no line 'larsen'; did you mean larson?"),
    ("limits.larson.wrost = 3\n[points]\nlarson = 5",
     "[limits.larson] has no figure 'wrost'; did you mean worst or waste?"),
    ("limits.leak.worst = 3\n[points]\nleak = 5", "the line leak has no figures to limit"),
    ("limits.pages = 3\n[points]\nleak = 5", "limits.pages limits nothing: [points] has no pages"),
    ("limits.pages = true\n[points]\npages = 5", "limits.pages is a number from 0 to"),
    ("limits.larson = 3\n[points]\nlarson = 5", "limits.larson is a table, not 3"),
    ("limits = 3\n[points]\nlarson = 5", "limits is a table, not 3"),
    ("[points]\nleak = -1", "points.leak is a number from 0 to 1,000,000, not -1"),
    ("[points]\nleak = nan", "points.leak is a number from 0 to 1,000,000, not NaN"),
    ("[points]\nleak = inf", "points.leak is a number"),
    ("[points]\nleak = true", "points.leak is a number from 0 to 1,000,000, not True"),
    ("[points]\nleak = 'all'", "points.leak is a number from 0 to 1,000,000, not 'all'"),
    ("[points]\nleak = {worth = 5}", "points.leak is a number"),
    ("pass = 9\n[points]\nleak = 5", "pass is 9, and there are 5 points in all"),
    ("pass = 'most'\n[points]\nleak = 5", "pass is a number"),
    ("version = 2\n[points]\nleak = 5", "a rubric of version 2, and this sandbox reads version 1"),
    ("", "it gives no points"), ("[points]", "it gives no points"),
    ("[points\nleak = 5", "this is not TOML: "), ("[points]\nleak = 5\nleak = 6", "this is not TOML: "),
    ("[points]\nleak = " + "9" * 5000, "this is not TOML: "),
    ("x = " + "[" * 100_000, "this is not TOML: "),
])
def test_a_rubric_that_cannot_be_is_named_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        rubric(text)
    said = str(caught.value)
    assert said.startswith(f"r.toml: {words}") and "\n" not in said


@pytest.mark.parametrize(("data", "words"), [
    (None, "No such file"), (b"\xff\xfe\0", "not a text file"), (b"#" * (1 << 20) + b"#", "larger than 1 MiB")])
def test_a_file_that_is_no_rubric_is_named(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "r.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=words) as caught:
        read_rubric(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_rubric_may_begin_with_the_mark_that_editors_on_windows_write(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xef\xbb\xbf[points]\r\nleak = 5\r\n")
    assert read_rubric(tmp_path / "r.toml").points == {"leak": 5}
