"""``sandbox lessons``: the list, a lesson, the quiz from standard input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import sandbox
from sandbox.cli import main
from sandbox.conformance.check import check
from sandbox.lessons import course, lesson, questions

Command = Callable[..., tuple[int, str, str]]


class Lines(io.TextIOWrapper):
    """Standard input that holds some bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs ``sandbox lessons`` with arguments and lines of input: status, output, errors."""
    def run(*arguments: str, replies: Sequence[str] | bytes = ()) -> tuple[int, str, str]:
        data = replies if isinstance(replies, bytes) else "".join(f"{reply}\n" for reply in replies).encode()
        monkeypatch.setattr(sys, "stdin", Lines(data))
        status = main(["lessons", *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err
    return run


def test_the_list_has_each_lessons_number_title_idea_and_command(command: Command) -> None:
    status, out, err = command()
    assert (status, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    places = []
    for each in course():
        entry = " ".join((each.number, each.title, each.command, each.idea))
        assert entry in text
        places.append(text.index(entry))
    assert places == sorted(places)


def test_a_program_is_run_as_sandbox_run_does_and_the_next_lesson_is_named(command: Command,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = command("02")
    assert main(["run", "02"]) == 0
    assert (status, out, err) == (0, f"{capsys.readouterr().out}\nnext: sandbox lessons 03  (Size classes)\n", "")


def test_a_script_prints_what_lies_beside_it_and_the_next_lesson_is_named(command: Command) -> None:
    status, out, err = command("free_list")
    expected = lesson("05").path.with_suffix(".out").read_text("utf-8")
    assert (status, out, err) == (0, f"{expected}\nnext: sandbox lessons 06  (The buddy allocator)\n", "")


def test_a_lesson_that_fails_says_so_by_its_status_and_the_last_one_is_the_last(
        command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "01_broken.py").write_text('"""Broken: it ends too early."""\nprint("so far")\nraise SystemExit(5)\n')
    monkeypatch.setattr("sandbox.lessons.catalogue.examples_directory", lambda: tmp_path)
    assert command("1") == (1, "so far\n\nthat was the last lesson\n", "")


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("99",), "there is no lesson '99', they are 01 to"), (("--quiz", "budy"), "did you mean buddy?"),
    (("--quiz", "20"), "nothing is asked about lesson 20: try it, with  sandbox run 20"),
    (("--answers", "21"), "nothing is asked about lesson 21: try it, with  sandbox lessons 21"),
    (("--quiz", "--seed", "-1"), "a seed is a number from 0"), (("--quiz", "--seed", "x"), "'--seed'"),
    (("01", "02"), "unexpected extra argument"), (("--quizz",), "No such option")])
def test_what_cannot_be_is_one_sentence(command: Command, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = command(*arguments)
    assert (status, out) == (2, "") and sentence.lower() in err.lower()
    assert err.startswith("error: ") and err.count("\n") == 1


# -- the quiz ---------------------------------------------------------------------------------------------------
def right_replies(number: str, seed: int = 1) -> list[str]:
    return [question.shown_answer[0] if question.choices else question.shown_answer
            for question in questions(lesson(number), seed)]


def test_right_answers_get_every_point_and_why_they_are_right(command: Command) -> None:
    status, out, err = command("--quiz", "04", "--seed", "3", replies=right_replies("04", 3))
    assert (status, err) == (0, "") and out.startswith("seed 3;") and out.count("\n  right\n") == 2
    assert out.endswith("\n\n2 of 2 points\nnow see it: sandbox lessons 04\n")
    for question in questions(lesson("04"), 3):
        assert " ".join(question.why.split()) in " ".join(out.split())


def test_wrong_answers_and_empty_lines_get_none_and_show_the_answer(command: Command) -> None:
    status, out, _ = command("--quiz", "01", replies=["1", ""])
    assert status == 0 and "\n0 of 2 points\n" in out and "right" not in out
    for question in questions(lesson("01")):
        assert f"  the answer is {question.shown_answer}\n" in out


def test_nonsense_is_said_to_be_nonsense_and_the_question_stays(command: Command) -> None:
    replies = ["what?", "0x", *right_replies("03")]
    status, out, err = command("--quiz", "03", replies=replies)
    assert (status, err) == (0, "") and "\n  'what?' is none of the letters a to d\n" in out
    assert out.count("is none of the letters") == 2 and "\n1 of 1 point\n" in out


def test_the_end_of_input_ends_the_quiz_with_the_points_so_far(command: Command) -> None:
    assert "\n\n1 of 1 point\nnow see them: sandbox lessons\n" in command("--quiz", replies=right_replies("01")[:1])[1]
    assert "\n\n0 of 0 points\n" in command("--quiz", "06")[1]


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\n", b"\x80" * 5000, b"\0\0\0\n\n\n", b"12", "Ünïcode\n".encode()])
def test_bytes_that_are_no_text_are_nonsense_too(command: Command, data: bytes) -> None:
    status, out, err = command("--quiz", "08", replies=data)
    assert (status, err) == (0, "") and "of" in out.splitlines()[-2]


def test_the_answers_are_those_that_the_quiz_wants(command: Command) -> None:
    status, out, err = command("--answers", "05", "--seed", "8")
    (question,) = questions(lesson("05"), 8)
    assert (status, err) == (0, "") and out.startswith("seed 8\n\n05  ")
    assert f"\n  answer: {question.shown_answer}\n" in out
    assert " ".join(question.text.split()) in " ".join(out.split())


def test_without_standard_input_at_all_the_quiz_ends_at_once() -> None:
    root = Path(sandbox.__file__).parent.parent
    done = subprocess.run("exec <&-; exec " + json.dumps(sys.executable) + " -m sandbox lessons --quiz 08", shell=True,
                          cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "0 of 0 points" in done.stdout


def test_the_allocator_of_lesson_20_passes_the_check_that_it_is_written_for() -> None:
    report = check(lesson("20").path, arena="16K")
    assert report.failed == () and report["double_free"].passed and report["wild_free"].passed
