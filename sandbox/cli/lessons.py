"""``sandbox lessons``: the course in order, one lesson of it, or questions about it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from ..lessons import Kind, Lesson, Nonsense, Question, Tally, course, following, lesson, questions
from .run import run
from .terminal import Terminal

WIDTH = 80
PROMPT = "> "
FAILED = 1


@click.command()
@click.argument("number", required=False)
@click.option("--quiz", is_flag=True, help="Ask what a guest will do, before it is shown.")
@click.option("--answers", is_flag=True, help="The questions with their answers, without asking.")
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="Other numbers in the questions.")
@click.pass_obj
def lessons(terminal: Terminal, /, number: str | None, quiz: bool, answers: bool, seed: int) -> int:
    """List the lessons, or show the one with a NUMBER.

    With --quiz, answers are read line by line from standard input: a number, an address in hexadecimal, or the letter
    of a choice. An empty line passes a question over, and the end of input ends the quiz. The status is 0, whatever the
    points are.
    """
    chosen = None if number is None else lesson(number)
    if answers:
        return _answers(terminal, questions(chosen, seed), seed)
    if quiz:
        with contextlib.suppress(AttributeError, ValueError):
            sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        _quiz(terminal, questions(chosen, seed), seed, sys.stdin or ())
        terminal.line(f"now see it: sandbox lessons {chosen.number}" if chosen else "now see them: sandbox lessons")
        return 0
    if chosen is None:
        return _list(terminal)
    return _show(terminal, chosen)


def _list(terminal: Terminal) -> int:
    lessons = course()
    width = max(len(each.title) for each in lessons)
    for each in lessons:
        terminal.line(f"{each.number}  {each.title:<{width}}  {each.command}", "report")
        _wrapped(terminal, each.idea, "    ")
    return 0


def _wrapped(terminal: Terminal, text: str, indent: str = "") -> None:
    for line in textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False):
        terminal.line(line)


# -- one lesson -------------------------------------------------------------------------------------------------
def _show(terminal: Terminal, chosen: Lesson) -> int:
    """Run it; then, which one is next."""
    if chosen.kind is Kind.PROGRAM:
        with run.make_context("run", [chosen.number], obj=terminal) as context:
            status = int(run.invoke(context))
    else:
        status = _script(terminal, chosen.path)
    then = following(chosen)
    terminal.line()
    if then is None:
        terminal.line("that was the last lesson")
    else:
        terminal.line(f"next: sandbox lessons {then.number}  ({then.title})", "report")
    return status


def _script(terminal: Terminal, path: Path) -> int:
    """A script of the course in a Python of its own, its output as it comes."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, encoding="utf-8", errors="replace",
                          env=environment) as script:
        for line in script.stdout or ():
            terminal.line(line.rstrip("\n"))
            terminal.out.flush()
    return FAILED if script.returncode else 0


# -- the quiz ---------------------------------------------------------------------------------------------------
def _answers(terminal: Terminal, asked: Iterator[Question], seed: int) -> int:
    terminal.line(f"seed {seed}")
    for question in asked:
        _ask(terminal, question)
        terminal.line(f"  answer: {question.shown_answer}")
        _wrapped(terminal, question.why, "  ")
    return 0


def _quiz(terminal: Terminal, asked: Iterator[Question], seed: int, replies: Iterable[str]) -> None:
    """Ask until there are no more questions or no more replies, and count."""
    terminal.line(f"seed {seed}; an empty line passes a question over, Ctrl-D ends")
    tally, lines = Tally(), iter(replies)
    for question in asked:
        _ask(terminal, question)
        right = _reply(terminal, question, lines)
        if right is None:
            break
        tally.count(right)
        terminal.line("  right" if right else f"  the answer is {question.shown_answer}")
        _wrapped(terminal, question.why, "  ")
    terminal.line()
    terminal.line(str(tally))


def _ask(terminal: Terminal, question: Question) -> None:
    terminal.line()
    text, *choices = question.lines
    _wrapped(terminal, f"{question.lesson}  {text}")
    for choice in choices:
        terminal.line(choice)


def _reply(terminal: Terminal, question: Question, lines: Iterator[str]) -> bool | None:
    """Whether the next reply that is an answer is the right one; None at the end of input."""
    while True:
        if terminal.is_terminal:
            terminal.out.write(PROMPT)
        terminal.out.flush()
        reply = next(lines, None)
        if reply is None:
            return None
        if not reply.strip():
            return False
        try:
            return question.is_right(reply)
        except Nonsense as error:
            terminal.line(f"  {error}")
