"""The lessons: what the examples' first lines say of themselves.

An example is ``NN_name.asm`` or ``NN_name.c``, a program for the guest, or ``NN_name.py``, a script for the host. The
first line of its comment or docstring is its title and its one idea: ``Title: the idea.``, or ``Title? The idea.``
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

from ..errors import EngineError, UsageError
from ..toolchain.packaged import examples_directory

_FIRST_LINE = re.compile(r'(?:# |// |""")(?P<title>[^:?]+)(?P<end>[:?]) +(?P<idea>.+?)(?:""")?')


class Kind(str, Enum):
    """Where a lesson runs."""

    PROGRAM = "program"
    SCRIPT = "script"

    def __str__(self) -> str:
        return self.value


_KINDS = {".asm": Kind.PROGRAM, ".c": Kind.PROGRAM, ".py": Kind.SCRIPT}


@dataclass(frozen=True)
class Lesson:
    """One lesson: ``number`` has two digits, ``idea`` is one sentence."""

    number: str
    title: str
    idea: str
    kind: Kind
    path: Path

    @property
    def command(self) -> str:
        """What to type to see it."""
        return f"sandbox run {self.number}" if self.kind is Kind.PROGRAM else f"sandbox lessons {self.number}"

    def constant(self, name: str) -> Any:
        """What a script has written down as a constant: the program that it boots."""
        for statement in ast.parse(self.path.read_text("utf-8")).body:
            if isinstance(statement, ast.Assign) and [ast.unparse(to) for to in statement.targets] == [name]:
                return ast.literal_eval(statement.value)
        raise EngineError(f"{self.path} has no constant {name}: install the sandbox again")


def course() -> tuple[Lesson, ...]:
    """Every lesson, in the order of the course."""
    paths = sorted(path for path in examples_directory().glob("[0-9][0-9]_*") if path.suffix in _KINDS)
    return tuple(map(_read, paths))


def _read(path: Path) -> Lesson:
    with path.open(encoding="utf-8") as file:
        found = _FIRST_LINE.fullmatch(file.readline().rstrip("\n"))
    if found is None:
        raise EngineError(f"{path} does not begin with its title and its idea: install the sandbox again")
    idea = found["idea"][0].upper() + found["idea"][1:]
    return Lesson(path.name[:2], found["title"] + ("?" if found["end"] == "?" else ""), idea,
                  _KINDS[path.suffix], path)


def lesson(name: str) -> Lesson:
    """The lesson with a number (``5``, ``05``) or a name (``free_list``, ``05_free_list``, with its ending or not).

    :class:`UsageError` when there is none, with the nearest one.
    """
    lessons = course()
    wanted = name.rpartition(".")[0] if name.endswith(tuple(_KINDS)) else name
    for each in lessons:
        stem = each.path.stem
        if wanted in (stem, stem[3:]) or (wanted.isascii() and wanted.isdecimal() and int(wanted) == int(each.number)):
            return each
    near = get_close_matches(wanted, [each.path.stem[3:] for each in lessons], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"there is no lesson {name!r}, they are {lessons[0].number} to {lessons[-1].number}{hint}")


def following(now: Lesson) -> Lesson | None:
    """The lesson behind this one; None behind the last."""
    lessons = course()
    at = lessons.index(now)
    return lessons[at + 1] if at + 1 < len(lessons) else None
