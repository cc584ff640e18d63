"""The benchmark: exact rows are exact, and a second count by other means agrees with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sandbox
from sandbox import bench
from sandbox.cli import main


@pytest.fixture(scope="module")
def rows() -> list[bench.Row]:
    return bench.measure()


def value(rows: list[bench.Row], name: str) -> float:
    return next(row.value for row in rows if row.name == name)


def test_a_ping_pong_pair_is_what_the_trace_says_of_one_alloc_and_one_free(rows: list[bench.Row]) -> None:
    with sandbox.boot(hz=0) as kernel:
        cache = kernel.call("kmem_cache_create", "bench", 64, 0, 0, 0)
        for name, alloc, free in (("kmem_cache", ("kmem_cache_alloc", cache), ("kmem_cache_free", cache)),
                                  ("kmalloc(64)", ("kmalloc", 64), ("kfree",))):
            kernel.call(*free, kernel.call(*alloc))
            with kernel.trace() as trace:
                kernel.call(*free, kernel.call(*alloc))
            assert sum(event.instructions for event in trace) == value(rows, f"{name} pair, ping-pong")


def test_magazines_make_a_ping_pong_pair_at_least_five_times_cheaper(rows: list[bench.Row]) -> None:
    for name in ("kmem_cache", "kmalloc(64)"):
        fast, slow = value(rows, f"{name} pair, ping-pong"), value(rows, f"{name} pair, ping-pong, no magazines")
        assert fast * 5 <= slow


def test_exact_rows_are_the_same_in_a_second_run(rows: list[bench.Row]) -> None:
    exact = [row for row in rows if row.exact and "pair" in row.name]
    assert exact == [*bench.pairs(), *bench.flags()] and len(exact) == 8 + 9


@pytest.mark.parametrize(("name", "options"), [guard for guard in bench.GUARDS if "shadow" not in guard[1]])
def test_the_cost_of_a_flag_is_what_the_trace_says_of_one_pair(
    rows: list[bench.Row], name: str, options: dict[str, object]
) -> None:
    with sandbox.boot(bench.PROGRAM, hz=0, **options) as kernel:  # type: ignore[arg-type]
        functions = [int(kernel.symbols[function]) for function in ("kmalloc", "kfree")]
        kernel.call("bench_ping_pong", *functions, 64, 1)
        with kernel.trace() as trace:
            kernel.call("bench_ping_pong", *functions, 64, 1)
    taken = sum(event.instructions for event in trace)
    assert value(rows, f"kmalloc(64) pair with {name}") * value(rows, "kmalloc(64) pair, ping-pong") == \
        pytest.approx(taken)


def test_the_readme_has_the_present_cost_of_each_letter(rows: list[bench.Row]) -> None:
    readme = Path(sandbox.__file__).parent.parent / "README.md"
    if not readme.exists():
        pytest.skip("only a checkout has a README")
    text = readme.read_text("utf-8")
    for letters in ("F", "Z", "P", "U", "FZPU"):
        assert f"{value(rows, f'kmalloc(64) pair with slab_debug={letters}'):.0f} (`{letters}`)" in text


def test_the_ratio_is_the_quotient_of_its_two_rows(rows: list[bench.Row]) -> None:
    ratio = value(rows, "the same, traced") / value(rows, "kmalloc pair in the emulator")
    assert value(rows, "traced / untraced") == pytest.approx(ratio)
    assert ratio > 1


def test_the_command_prints_the_rows_as_a_table_and_as_json(
    rows: list[bench.Row], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", lambda: rows)
    assert main(["bench"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.startswith(row.name) for line, row in zip(table, rows, strict=True)] == [True] * len(rows)
    assert max(map(len, table)) <= 80
    assert main(["bench", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["version"] == bench.VERSION
    assert [bench.Row(**row) for row in data["rows"]] == rows
