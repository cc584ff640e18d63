"""The benchmark as a whole: every row of it, as a table and as data."""

from __future__ import annotations

import json

import pytest

from sandbox import bench
from sandbox.cli import main

ROWS = [bench.Row("kmalloc(64) pair, ping-pong", 36, "instructions", exact=True),
        bench.Row("kmalloc(64) pair with freelist_hardened, no magazines", 8.0833, "times", exact=True),
        bench.Row("restore", 1.204, "ms", exact=False)]


def test_every_benchmark_is_measured_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BENCHMARKS", (lambda: iter(ROWS[:2]), lambda: iter(ROWS[2:])))
    assert bench.measure() == ROWS


def test_the_command_prints_the_rows_as_a_table_and_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", lambda: ROWS)
    assert main(["bench"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.startswith(row.name) for line, row in zip(table, ROWS, strict=True)] == [True] * len(ROWS)
    assert [line.split()[-2:] == ["(this", "host)"] for line in table] == [not row.exact for row in ROWS]
    assert max(map(len, table)) <= 80
    assert main(["bench", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["version"] == bench.VERSION
    assert [bench.Row(**row) for row in data["rows"]] == ROWS
