"""The exact rows: they are exact, and a second count by other means agrees with them."""

from __future__ import annotations

from pathlib import Path

import pytest

import sandbox
from sandbox.bench.allocator import GUARDS, PROGRAM, flags, pairs
from sandbox.bench.rows import Row


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [*pairs(), *flags()]


def value(rows: list[Row], name: str) -> float:
    return next(row.value for row in rows if row.name == name)


def test_a_ping_pong_pair_is_what_the_trace_says_of_one_alloc_and_one_free(rows: list[Row]) -> None:
    with sandbox.boot(hz=0) as kernel:
        cache = kernel.call("kmem_cache_create", "bench", 64, 0, 0, 0)
        for name, alloc, free in (("kmem_cache", ("kmem_cache_alloc", cache), ("kmem_cache_free", cache)),
                                  ("kmalloc(64)", ("kmalloc", 64), ("kfree",))):
            kernel.call(*free, kernel.call(*alloc))
            with kernel.trace() as trace:
                kernel.call(*free, kernel.call(*alloc))
            assert sum(event.instructions for event in trace) == value(rows, f"{name} pair, ping-pong")


def test_magazines_make_a_ping_pong_pair_at_least_five_times_cheaper(rows: list[Row]) -> None:
    for name in ("kmem_cache", "kmalloc(64)"):
        fast, slow = value(rows, f"{name} pair, ping-pong"), value(rows, f"{name} pair, ping-pong, no magazines")
        assert fast * 5 <= slow


def test_the_rows_are_exact_and_the_same_in_a_second_run(rows: list[Row]) -> None:
    assert rows == [*pairs(), *flags()] and len(rows) == 8 + 9
    assert all(row.exact for row in rows)


@pytest.mark.parametrize(("name", "options"), [guard for guard in GUARDS if "shadow" not in guard[1]])
def test_the_cost_of_a_flag_is_what_the_trace_says_of_one_pair(
    rows: list[Row], name: str, options: dict[str, object]
) -> None:
    with sandbox.boot(PROGRAM, hz=0, **options) as kernel:  # type: ignore[arg-type]
        functions = [int(kernel.symbols[function]) for function in ("kmalloc", "kfree")]
        kernel.call("bench_ping_pong", *functions, 64, 1)
        with kernel.trace() as trace:
            kernel.call("bench_ping_pong", *functions, 64, 1)
    taken = sum(event.instructions for event in trace)
    assert value(rows, f"kmalloc(64) pair with {name}") * value(rows, "kmalloc(64) pair, ping-pong") == \
        pytest.approx(taken)


def test_the_readme_has_the_present_cost_of_each_letter(rows: list[Row]) -> None:
    readme = Path(sandbox.__file__).parent.parent / "README.md"
    if not readme.exists():
        pytest.skip("only a checkout has a README")
    text = readme.read_text("utf-8")
    for letters in ("F", "Z", "P", "U", "FZPU"):
        assert f"{value(rows, f'kmalloc(64) pair with slab_debug={letters}'):.0f} (`{letters}`)" in text
