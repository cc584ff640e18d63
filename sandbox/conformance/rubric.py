"""Rubrics: from a report to points, as a TOML file says.

``[points]`` has the points of each line that counts; ``[limits]`` has, for the lines that are measured, the most that
a figure may be. Points come from the report alone. They are decimal numbers, added exactly.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError
from .report import LINES, OPTIONAL, ROLE_OF, Line, Report
from .workloads import WORKLOADS

if sys.version_info >= (3, 11):
    import tomllib
else:                                    # pragma: no cover - what tomllib was before it came with Python
    import tomli as tomllib

VERSION = 1
MOST_POINTS = 1_000_000
MOST_BYTES = 1 << 20
_ROLES = ("allocate", "deallocate")
_COUNTS = ("minimum", "median", "p99", "worst")
_KEYS = ("version", "pass", "points", "limits")

_INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    **{count: tuple(f"{role}_{count}" for role in _ROLES) for count in _COUNTS},
    **{f"{role}_{count}": (f"{role}_{count}",) for role in _ROLES for count in _COUNTS},
}
_PAGES: dict[str, tuple[str, ...]] = {"pages": ("pages",)}
_WASTE: dict[str, tuple[str, ...]] = {"waste": ("waste_percent",)}
LIMITS: dict[str, dict[str, tuple[str, ...]]] = {
    "instructions": _INSTRUCTIONS, "pages": _PAGES, "waste": _WASTE,
    **{name: {**_INSTRUCTIONS, **_PAGES, **_WASTE} for name in WORKLOADS},
}
"""For each line that can have limits, their names and the figures that each is about."""


class Limit(NamedTuple):
    """``name`` as the rubric has it, the figures that it is about, and the most that they may be."""

    name: str
    figures: tuple[str, ...]
    most: Decimal


@dataclass(frozen=True)
class Mark:
    """What a line of the rubric earned: ``points`` of ``possible``, with one sentence when it is not all.

    ``absent``: the report has no such line, for an allocator that does without the function; none of none was earned.
    """

    line: str
    points: Decimal
    possible: Decimal
    reason: str = ""
    absent: bool = False

    @property
    def passed(self) -> bool:
        """Whether it earned its points."""
        return not self.reason


@dataclass(frozen=True)
class Grade:
    """The marks in the rubric's order, one for each of its lines; ``needed`` are the points that pass."""

    marks: tuple[Mark, ...]
    needed: Decimal | None

    @property
    def points(self) -> Decimal:
        """All that was earned."""
        return sum((mark.points for mark in self.marks), Decimal(0))

    @property
    def possible(self) -> Decimal:
        """All that there was to earn."""
        return sum((mark.possible for mark in self.marks), Decimal(0))

    @property
    def passed(self) -> bool:
        """Whether the points reach what is needed, which is every line where the rubric does not say."""
        if self.needed is None:
            return all(mark.passed for mark in self.marks)
        return self.points >= min(self.needed, self.possible)

    @cached_property
    def by_line(self) -> dict[str, Mark]:
        """Each mark by the name of its line."""
        return {mark.line: mark for mark in self.counted}

    @property
    def counted(self) -> tuple[Mark, ...]:
        """The marks of lines that are there."""
        return tuple(mark for mark in self.marks if not mark.absent)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"points": number(self.points), "possible": number(self.possible), "passed": self.passed,
                "needed": None if self.needed is None else number(self.needed),
                "marks": [{"line": mark.line, "points": number(mark.points), "possible": number(mark.possible),
                           "passed": mark.passed, "reason": mark.reason} for mark in self.counted]}


def number(points: Decimal) -> int | float:
    """Points for JSON: a whole number where they are whole."""
    return int(points) if points == points.to_integral_value() else float(points)


@dataclass(frozen=True)
class Rubric:
    """Points by line, limits by line, and the points that pass (None: every line must)."""

    points: Mapping[str, Decimal]
    limits: Mapping[str, tuple[Limit, ...]]
    needed: Decimal | None = None

    def grade(self, report: Report | None, error: str = "") -> Grade:
        """The marks of a report; without one, nothing is earned, and ``error`` is why.

        ``stats`` of an allocator that does without counts for nothing; the lines of :data:`OPTIONAL`, which nobody has
        to ask for, count where they are asked for.
        """
        lines = {} if report is None else {line.name: line for line in report.lines}
        marks = []
        for name, possible in self.points.items():
            line = lines.get(name)
            if line is None and report is not None and name in LINES and name in ROLE_OF:
                marks.append(Mark(name, Decimal(0), Decimal(0), absent=True))
                continue
            reason = (error or "it was not played") if line is None else self._reason(line)
            marks.append(Mark(name, Decimal(0) if reason else possible, possible, reason))
        return Grade(tuple(marks), self.needed)

    def _reason(self, line: Line) -> str:
        """Why a line earns nothing, empty when it earns its points."""
        if not line.passed:
            return line.reason or "it failed"
        over = [f"{figure} is {line.figures[figure]:,}, and the rubric allows {limit.most:,}" if figure in line.figures
                else f"{figure} was not measured, and the rubric limits it"
                for limit in self.limits.get(line.name, ()) for figure in limit.figures
                if figure not in line.figures or Decimal(str(line.figures[figure])) > limit.most]
        return "; ".join(over)


# -- reading ----------------------------------------------------------------------------------------------------
def default_text() -> str:
    """The rubric that is used without another one: a commented file."""
    return (resources.files("sandbox") / "conformance" / "rubric.toml").read_text("utf-8")


def default_rubric() -> Rubric:
    """The same, read."""
    return parse(default_text(), "rubric.toml")


def read_rubric(path: Path) -> Rubric:
    """The rubric in a file; :class:`~sandbox.errors.UsageError` names what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path}: larger than {MOST_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text file (UTF-8)") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Rubric:
    """A rubric from TOML; ``name`` is what messages call it."""
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:         # ValueError: also of a number with thousands of digits
        raise UsageError(f"{name}: this is not TOML: {error}") from None
    reader = _Reader(name)
    reader.known(data, _KEYS, "key", "")
    if data.get("version", VERSION) != VERSION or isinstance(data.get("version"), bool):
        raise reader.error(f"a rubric of version {data['version']}, and this sandbox reads version {VERSION}")
    points = reader.points(data)
    return Rubric(points, reader.limits(data, points), reader.needed(data, points))


class _Reader:
    """Checks what a rubric says; every complaint begins with the file's name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def error(self, sentence: str) -> UsageError:
        """What is wrong, in one sentence."""
        return UsageError(f"{self._name}: {sentence}")

    def known(self, table: Mapping[str, Any], names: Collection[str], what: str, where: str) -> None:
        """Refuse a key that is none of ``names``, with those that come near."""
        for key in table:
            if key not in names:
                close = get_close_matches(key, list(names), 2)
                hint = f"did you mean {' or '.join(close)}?" if close else f"they are {', '.join(names)}"
                raise self.error(f"{where}{' has' if where else 'there is'} no {what} {key!r}; {hint}")

    def table(self, data: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
        """A table in another, empty when it is not there."""
        value = data.get(key, {})
        if not isinstance(value, dict):
            raise self.error(f"{where}{key} is a table, not {value!r}")
        return value

    def amount(self, value: Any, what: str, most: int) -> Decimal:
        """A number from 0 to ``most``."""
        fits = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
        if not fits or not Decimal(value).is_finite() or not 0 <= value <= most:
            shown = f"{value}" if isinstance(value, Decimal) else f"{value!r}"
            raise self.error(f"{what} is a number from 0 to {most:,}, not {shown}")
        return Decimal(value)

    def points(self, data: Mapping[str, Any]) -> dict[str, Decimal]:
        """The points of each line."""
        table = self.table(data, "points")
        self.known(table, {**LINES, **OPTIONAL}, "line", "[points]")
        if not table:
            raise self.error("it gives no points: [points] has a number for each line that counts")
        return {name: self.amount(value, f"points.{name}", MOST_POINTS) for name, value in table.items()}

    def needed(self, data: Mapping[str, Any], points: Mapping[str, Decimal]) -> Decimal | None:
        """The points that pass."""
        if "pass" not in data:
            return None
        needed, possible = self.amount(data["pass"], "pass", MOST_POINTS * len(LINES)), sum(points.values())
        if needed > possible:
            raise self.error(f"pass is {needed:,}, and there are {possible:,} points in all")
        return needed

    def limits(self, data: Mapping[str, Any], points: Mapping[str, Decimal]) -> dict[str, tuple[Limit, ...]]:
        """The limits of each line."""
        table = self.table(data, "limits")
        self.known(table, {**LINES, **OPTIONAL}, "line", "[limits]")
        limits = {}
        for line in table:
            if line not in LIMITS:
                raise self.error(f"the line {line} has no figures to limit: those that have are {', '.join(LIMITS)}")
            if line not in points:
                raise self.error(f"limits.{line} limits nothing: [points] has no {line}")
            names = LIMITS[line]
            bare = len(names) == 1 and not isinstance(table[line], dict)
            own = {line: table[line]} if bare else self.table(table, line, "limits.")
            self.known(own, names, "figure", f"[limits.{line}]")
            limits[line] = tuple(
                Limit(name, names[name], self.amount(most, f"limits.{line}" + ("" if bare else f".{name}"), 1 << 62))
                for name, most in own.items())
        return limits
