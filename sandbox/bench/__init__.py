"""What things cost: the allocator in guest instructions, which are exact, and the sandbox in time, which is not.

Each benchmark is a function that yields rows; the command shows them all.
"""

from __future__ import annotations

from .allocator import flags, pairs
from .host import guarding, starting, tracing
from .rows import VERSION, Benchmark, Row, table, to_data
from .timeline import travelling

__all__ = ["BENCHMARKS", "VERSION", "Benchmark", "Row", "measure", "table", "to_data"]

BENCHMARKS: tuple[Benchmark, ...] = (pairs, flags, tracing, guarding, starting, travelling)


def measure() -> list[Row]:
    """Every row of every benchmark."""
    return [row for benchmark in BENCHMARKS for row in benchmark()]
