"""One measurement, and many of them as a table or as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class Row:
    """One measurement. ``exact``: the same number on every host and in every run."""

    name: str
    value: float
    unit: str
    exact: bool


Benchmark = Callable[[], Iterator[Row]]


def timed(action: Callable[[], object]) -> float:
    """The seconds that something takes."""
    start = perf_counter()
    action()
    return perf_counter() - start


def table(rows: list[Row]) -> Iterator[str]:
    """The rows for people, exact ones marked."""
    for row in rows:
        number = f"{row.value:,.2f}".rstrip("0").rstrip(".") if row.exact else f"{row.value:,.2f}"
        yield f"{row.name:<45} {number:>9} {row.unit}{'' if row.exact else '  (this host)'}"


def to_data(rows: list[Row]) -> dict[str, Any]:
    """The rows for programs: ``{"version": 1, "rows": [{"name", "value", "unit", "exact"}, ...]}``."""
    return {"version": VERSION, "rows": [asdict(row) for row in rows]}
