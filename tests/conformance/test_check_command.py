"""``sandbox check``: what it prints, in which format, and with which exit status."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox.cli import main
from sandbox.conformance import LINES, Line, Report, check, outcome, workloads
from sandbox.conformance.check import CALL_LIMIT
from sandbox.conformance.operations import Script
from sandbox.conformance.player import LIST_LIMIT, play
from sandbox.conformance.rubric import default_rubric, default_text, parse
from sandbox.conformance.subject import Subject
from sandbox.conformance.text import text
from sandbox.conformance.workloads import WORKLOADS
from sandbox.guest.allocator import AllocatorOptions
from sandbox.guest.images import assemble_allocator
from sandbox.toolchain.packaged import kernel_image

GOOD = (Path(__file__).parent / "allocators" / "freelist.asm").read_text()
BROKEN = GOOD.replace("    mov [rip + first], rax\n", "    add rax, 8\n    mov [rip + first], rax\n")
SMALL = ("--arena", "8K", "--seed", "9", "--no-isolation")


class Ran(NamedTuple):
    status: int
    out: str
    err: str


def run(*arguments: object) -> Ran:
    """A command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["check", *map(str, arguments)])
    return Ran(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The present directory, with sources in it; workloads are short, but for those of child processes."""
    root = tmp_path_factory.mktemp("check")
    for name, source in {
        "good": GOOD, "broken": BROKEN, "typo": "init:\n move rax\n", "nameless": "my_alloc:\n ret\n",
        "renamed": re.sub(r"\b(init|allocate|deallocate|stats)\b(?=:)", r"my_\1", GOOD).replace("my_stats:", "other:"),
        "says": GOOD.replace("free list: 0x%lx is free already", "\\033[2J=cmd"), "crash": "# crash\n",
    }.items():
        (root / f"{name}.asm").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(workloads, "LENGTH", 24)
        yield root


@pytest.fixture(scope="module")
def good() -> Ran:
    return run("good.asm", *SMALL)


@pytest.fixture(scope="module")
def broken() -> Ran:
    return run("broken.asm", *SMALL, "--save", "kept")


@pytest.fixture(scope="module")
def report(good: Ran) -> Report:
    """The report of the same check, from the library."""
    return check("good.asm", seed=9, arena="8K")


# -- the report as text -----------------------------------------------------------------------------------------
def test_a_good_allocator_is_status_0_and_has_a_row_for_each_line(good: Ran) -> None:
    assert (good.status, good.err) == (0, "")
    rows = [line.split() for line in good.out.splitlines() if re.match(r"\w+ +passed ", line)]
    assert [row[0] for row in rows] == list(LINES)
    points = default_rubric().points
    assert [row[2] for row in rows] == [f"{points[name]}/{points[name]}" for name in LINES]
    assert good.out.splitlines()[0] == "sandbox check good.asm: seed 9, an arena of 8K"
    assert good.out.splitlines()[-1] == "passed: 26 of 26 lines, 100 of 100 points, seed 9"


def test_the_table_has_what_the_report_has(good: Ran, report: Report) -> None:
    table = good.out[good.out.index("instructions   "):].splitlines()[2:]
    for row, name in zip(table, WORKLOADS, strict=False):
        figures = report[name].figures
        assert row.split() == [name, *(str(figures[f"{role}_{count}"]) for role in ("allocate", "deallocate")
                                       for count in ("minimum", "median", "p99", "worst")),
                               str(figures["pages"]), f"{figures['waste_percent']}%"]


def test_everything_fits_80_columns(good: Ran, broken: Ran) -> None:
    assert max(map(len, [*good.out.splitlines(), *broken.out.splitlines()])) <= 80


def test_a_failed_line_has_its_reason_its_list_and_the_test_to_look_at(broken: Ran) -> None:
    assert (broken.status, broken.err) == (1, "")
    rows = broken.out.splitlines()
    at = next(number for number, row in enumerate(rows) if re.match(r"alignment +FAILED +0/5 ", row))
    told = " ".join(row.strip() for row in rows[at + 1 : at + 12])
    assert re.search(r"allocate \(broken\.asm:\d+\) gives 0x[0-9a-f]+, which is no multiple of 16", told)
    assert "shortest list: allocate(" in told
    files = re.findall(r"look: pytest (\S+)", broken.out)
    assert files and all(Path(file).read_text().count("def test_") == 1 for file in files)
    assert rows[-1].startswith("FAILED: ")


def test_a_list_that_was_told_is_not_told_again(broken: Ran) -> None:
    shown = re.findall(r"shortest list.*: .*", broken.out)
    assert "the same list as of " in broken.out and len(shown) == len(re.findall("look: ", broken.out))


def test_what_a_guest_says_is_shown_and_not_obeyed() -> None:
    evil = Report("evil\x1b[2J.asm", 1, {"arena": 4096}, (Line("leak", "", False, "panics: \x1b]0;x\x07\nnext"),))
    lines = list(text(evil, default_rubric().grade(evil), {}, "sandbox check evil.asm"))
    assert all(line.isprintable() for line in lines) and "    panics: \\x1b]0;x\\x07\\nnext" in lines


def test_a_list_that_did_not_fail_again_is_not_called_the_shortest() -> None:
    script = Script("mixed", (("allocate", 0, 8),) * 12, rounds=2)
    odd = Report("odd.asm", 1, {"arena": 4096}, (
        Line("leak", "", False, "gone; the list did not fail again", {}, script, again=False),))
    lines = list(text(odd, default_rubric().grade(odd), {}, ""))
    assert "    gone; the list did not fail again" in lines
    assert any(line.startswith("    the list, 2 times: allocate(8) for chunk 0, ") for line in lines)
    assert any(line.endswith(" and 4 more") for line in lines)


def test_a_line_over_its_limit_fails_with_the_figure_and_the_limit(report: Report) -> None:
    rubric = parse("[points]\ninstructions = 5\nleak = 5\n[limits.instructions]\nallocate_median = 14", "r.toml")
    lines = list(text(report, rubric.grade(report), {}, ""))
    at = next(number for number, line in enumerate(lines) if line.startswith("instructions FAILED       0/5"))
    assert lines[at + 1] == "    allocate_median is 15, and the rubric allows 14"
    assert lines[-1] == "FAILED: 25 of 26 lines, 5 of 10 points, seed 9"
    assert any(re.match(r"returns +passed +-  ", line) for line in lines)


# -- exit statuses ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("arguments", "words"), [
    (["missing.asm"], "missing.asm: no such file"),
    (["no/such.asm"], "no/such.asm: no such file"),
    (["typo.asm"], "typo.asm:2: "),
    (["nameless.asm"], "it does not define init, allocate, deallocate, stats"),
    (["renamed.asm", "--symbols", "init=my_init"],
     "did you mean allocate=my_allocate, deallocate=my_deallocate, stats=?"),
])
def test_what_cannot_be_loaded_is_status_3_and_one_sentence(arguments: list[str], words: str) -> None:
    ran = run(*arguments, "--no-isolation")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith("error: ") and words in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "Missing argument 'ALLOCATOR', or --batch DIRECTORY"),
    (["good.asm", "--arena", "5"], "an arena is a multiple of 4096"),
    (["good.asm", "--arena", "much"], "is not a size"),
    (["good.asm", "--seed", "x"], "--seed"),
    (["good.asm", "--symbols", "alocate=x"], "'alocate=x' is no part of that"),
    (["good.asm", "--symbols", "allocate="], "allocate of an allocator is the name of a function"),
    (["good.asm", "--symbols", "refused=no"], "'refused=no' is no part of that"),
    (["good.asm", "--rubric", "none.toml"], "none.toml: No such file"),
    (["good.asm", "--rubric", "good.asm"], "good.asm: this is not TOML"),
    (["good.asm", "--json", "--format", "gradescope"], "two formats"),
    (["good.asm", "--format", "xml"], "--format"),
    (["good.asm", "--timeout", "-1"], "seconds is a positive number"),
    (["good.asm", "--timeout", "nan"], "seconds is a positive number"),
    (["good.asm", "--jobs", "2"], "--jobs is of a batch"),
    (["good.asm", "--batch", "."], "do not go with it"),
    (["--batch", ".", "--format", "gradescope"], "do not go with it"),
    (["--batch", "nowhere"], "nowhere: No such file"),
    (["--batch", "good.asm"], "good.asm: Not a directory"),
    (["good.asm", "--no-isolation", "-o", "no/such/file"], "no/such/file: No such file"),
])
def test_bad_usage_is_status_2_and_one_sentence(arguments: list[str], words: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: ") and words in ran.err and ran.err.count("\n") == 1


def test_the_points_that_a_rubric_asks_for_are_enough(place: Path) -> None:
    (place / "six.toml").write_text("pass = 6\n[points]\nregisters = 6\nalignment = 4\n")
    enough = run("broken.asm", *SMALL, "--rubric", "six.toml")
    last = enough.out.splitlines()[-3:]
    assert enough.status == 0 and last[2].startswith("passed: ") and "6 of 10 points (6 are needed)" in last[2]
    assert last[:2] == ["each failing list as a test to run, to step through and to keep:",
                        "  sandbox check broken.asm --arena 8K --seed 9 --rubric six.toml --save DIRECTORY"]


def test_an_unknown_line_in_a_rubric_is_named_with_the_nearest(place: Path) -> None:
    (place / "wrong.toml").write_text("[points]\nlekas = 1\n")
    assert run("good.asm", "--rubric", "wrong.toml") == (
        2, "", "error: wrong.toml: [points] has no line 'lekas'; did you mean leak?\n")


def test_an_emulator_that_breaks_is_a_failed_check_and_not_the_end_of_this_process(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "WORKER", "tests.conformance.hostile_checker")
    ran = run("./crash.asm")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error: the emulator broke down: the guest's process was ended by SIGABRT")


def test_many_slow_calls_end_a_list_at_a_number_of_instructions_and_not_at_a_time() -> None:
    slow = GOOD.replace("allocate:\n", "allocate:\n    mov ecx, 90000\n.Lallocate_wait:\n    loop .Lallocate_wait\n", 1)
    script = Script("slow", tuple(("allocate", number, 8) for number in range(200)))
    with Subject(assemble_allocator(slow, kernel_image(), AllocatorOptions()), CALL_LIMIT) as subject:
        played = play(subject, script)
    assert played.done == LIST_LIMIT // 90_015 and played.fatal is not None
    assert played.fatal.reason.endswith("the calls of this list have taken more than 10,000,000 instructions")


# -- formats ----------------------------------------------------------------------------------------------------
def test_the_json_is_the_report_of_the_library(place: Path, report: Report) -> None:
    ran = run("good.asm", *SMALL, "--json", "-o", "report.json")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    data = json.loads((place / "report.json").read_text())
    assert data["report"] == json.loads(json.dumps(report.to_dict()))
    assert (data["format"], data["version"], data["passed"]) == ("sandbox check", 1, True)


@pytest.mark.parametrize(("file", "status"), [("good.asm", 0), ("typo.asm", 3)])
def test_gradescope_gets_results_whatever_becomes_of_the_allocator(place: Path, file: str, status: int) -> None:
    ran = run(file, *SMALL, "--format", "gradescope", "-o", "results.json")
    results = json.loads((place / "results.json").read_text())
    assert (ran.status, ran.out, ran.err) == (status, "", "")
    assert (results["score"], results["stdout_visibility"]) == (0 if status else 100, "hidden")


def test_the_default_rubric_can_be_written_changed_and_read(place: Path) -> None:
    printed = run("--print-rubric")
    assert (printed.status, printed.err, printed.out) == (0, "", default_text())
    (place / "mine.toml").write_text(printed.out.replace("leak = 6", "leak = 7"))
    assert "101 of 101 points" in run("good.asm", *SMALL, "--rubric", "mine.toml").out


# -- names, processes, classes ----------------------------------------------------------------------------------
def test_functions_may_have_other_names_and_stats_may_be_missing() -> None:
    ran = run("renamed.asm", *SMALL, "--symbols", "init=my_init, allocate=my_allocate,deallocate=my_deallocate,stats=")
    assert ran.status == 0 and ran.out.splitlines()[-1].startswith("passed: 25 of 25 lines, 98 of 98 points")
    assert not any(line.startswith("stats") for line in ran.out.splitlines())


def test_a_reason_that_all_lines_share_is_told_once_with_what_was_printed(place: Path) -> None:
    (place / "dead.asm").write_text(GOOD.replace(
        "init:\n", "init:\n    push rax\n    lea rdi, [rip + words]\n    xor eax, eax\n    call kprintf\n"
        "    lea rdi, [rip + words]\n    call panic\n", 1) + ".rodata\nwords: .asciz \"so far\\nso good\\n\"\n")
    ran = run("dead.asm", *SMALL)
    assert ran.status == 1 and max(map(len, ran.out.splitlines())) <= 80
    assert "".join(ran.out.split()).count("panics") == 1
    assert 'on the console: "so far / so good' in " ".join(ran.out.split())
    assert ran.out.count("not judged, since init fails: see returns") == len(LINES) - 1
    assert ran.out.count("shortest list") == 1 and "ping_pong        0" not in ran.out


def test_an_allocator_that_serves_nothing_says_so_once(place: Path) -> None:
    (place / "zero.asm").write_text("init:\nret\nallocate:\nxor eax, eax\ndeallocate:\nstats:\nret\n")
    ran = run("zero.asm", *SMALL, "--format", "gradescope")
    reasons = [test["output"] for test in json.loads(ran.out)["tests"]]
    assert re.match(r"operation 0: allocate \(zero.asm:4\) gives 0 for every size from 8 to 4096$", reasons[0])
    assert set(reasons[1:]) == {"not judged, since nothing is served: see returns"}


def test_a_check_in_a_process_of_its_own_says_the_same_as_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "WORKER", "tests.conformance.hostile_checker")
    monkeypatch.setattr(workloads, "LENGTH", 16)
    here = run("./good.asm", *SMALL)
    assert run("./good.asm", *SMALL[:-1]) == here and here.status == 0


def test_a_class_is_a_table_and_each_students_lists_are_saved(place: Path) -> None:
    for student, source in {"ada": "typo.asm", "bob": "broken.asm"}.items():
        (place / "class" / student).mkdir(parents=True)
        (place / "class" / student / "allocator.asm").write_text((place / source).read_text())
    ran = run("--batch", "class", "--arena", "8K", "--seed", "9", "--save", "lists")
    assert ran.status == 1
    assert ran.err == "2 of 2 folders, 0 passed, 1 without a report, seed 9\n"
    ada, bob = csv.DictReader(io.StringIO(ran.out))
    assert (ada["student"], ada["points"], ada["error"].partition(": ")[0]) == ("ada", "0", "ada/allocator.asm:2")
    assert bob["alignment"] == "0" and bob["registers"] == "5" and "bob/allocator.asm:" in bob["reason"]
    saved = sorted((place / "lists").rglob("*.py"))
    assert saved and {path.parent.name for path in saved} == {"bob"}
    assert str(place / "class" / "bob" / "allocator.asm") in saved[0].read_text()
