"""What things cost: the allocator in guest instructions, which are exact, and the sandbox in time, which is not.

An instruction row counts what the two functions of a pair execute, from the first instruction of each to its ``ret``:
the same loop runs once with them and once with two functions that only return, on a machine without timer ticks. So a
row is the same on every host. Each benchmark is a function that yields rows; the command shows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from time import perf_counter
from typing import Any

from .kernel import Kernel, boot
from .toolchain import packaged

VERSION = 1
PROGRAM = packaged.benchmarks_directory() / "pairs.asm"
BATCH = 1000
OBJECT_SIZE = 64
TIMED_PAIRS = 5_000
REPEATS = 3
RESTORES = 10
ROUNDS = 1_000
SEED = 1
_PAIR = f"kmalloc({OBJECT_SIZE}) pair"


@dataclass(frozen=True)
class Row:
    """One measurement. ``exact``: the same number on every host and in every run."""

    name: str
    value: float
    unit: str
    exact: bool


Benchmark = Callable[[], Iterator[Row]]


def measure() -> list[Row]:
    """Every row of every benchmark."""
    return [row for benchmark in BENCHMARKS for row in benchmark()]


def pairs() -> Iterator[Row]:
    """Instructions of an allocation and its free."""
    for magazines in (True, False):
        with _booted(magazines=magazines) as kernel:
            cache = kernel.call("kmem_cache_create", "bench", OBJECT_SIZE, 0, 0, 0)
            suffix = "" if magazines else ", no magazines"
            for name, alloc, free, argument in (("kmem_cache", "kmem_cache_alloc", "kmem_cache_free", cache),
                                                (f"kmalloc({OBJECT_SIZE})", "kmalloc", "kfree", OBJECT_SIZE)):
                for loop, count, per_call in (("ping_pong", BATCH, BATCH), ("batch", 1, BATCH)):
                    taken = _instructions(kernel, f"bench_{loop}", alloc, free, argument, count)
                    how = "ping-pong" if loop == "ping_pong" else f"batches of {BATCH:,}"
                    yield Row(f"{name} pair, {how}{suffix}", taken / per_call, "instructions", exact=True)


def _instructions(kernel: Kernel, loop: str, alloc: str, free: str, argument: int, count: int) -> int:
    """What the allocator executes in one call of ``loop``, after one that has made slabs and magazines ready."""
    functions = [int(kernel.symbols[name]) for name in (alloc, free)]
    nothing = [int(kernel.symbols["bench_nothing"])] * 2
    kernel.call(loop, *functions, argument, count)
    rets = 2 * (BATCH if loop == "bench_batch" else 1) * count
    return _count(kernel, loop, *functions, argument, count) - _count(kernel, loop, *nothing, argument, count) + rets


def _count(kernel: Kernel, function: str, *arguments: int) -> int:
    before = kernel.instructions
    kernel.call(function, *arguments)
    return kernel.instructions - before


def tracing() -> Iterator[Row]:
    """The same allocations with a trace and without: how much longer they take."""
    with _booted() as kernel:
        def timed() -> float:
            functions = [int(kernel.symbols[name]) for name in ("kmalloc", "kfree")]
            start = perf_counter()
            kernel.call("bench_ping_pong", *functions, OBJECT_SIZE, TIMED_PAIRS)
            return perf_counter() - start

        def traced() -> float:
            with kernel.trace():
                return timed()

        timed()
        bare = min(timed() for _ in range(REPEATS))
        hooked = min(traced() for _ in range(REPEATS))
    yield Row("kmalloc pair in the emulator", bare / TIMED_PAIRS * 1e6, "us", exact=False)
    yield Row("the same, traced", hooked / TIMED_PAIRS * 1e6, "us", exact=False)
    yield Row("traced / untraced", hooked / bare, "times", exact=False)


def starting() -> Iterator[Row]:
    """A machine with 16 MiB from nothing, and back to a snapshot."""
    yield Row("boot", min(_timed(lambda: boot().close()) for _ in range(REPEATS)) * 1e3, "ms", exact=False)
    with boot() as kernel:
        yield Row("boot", kernel.instructions, "instructions", exact=True)
        snapshot = kernel.snapshot()
        yield Row("snapshot", min(_timed(kernel.snapshot) for _ in range(RESTORES)) * 1e3, "ms", exact=False)
        yield Row("restore", min(_timed(lambda: kernel.restore(snapshot)) for _ in range(RESTORES)) * 1e3, "ms",
                  exact=False)


GUARDS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((f"slab_debug={letters}", {"slab_debug": letters}) for letters in ("F", "Z", "P", "U", "FZPU")),
    ("freelist_hardened", {"freelist_hardened": True}),
    ("freelist_random", {"freelist_random": 1}),
    ("no magazines", {"magazines": False}),
    ("freelist_hardened, no magazines", {"freelist_hardened": True, "magazines": False}),
    ("shadow", {"shadow": True}),
    ("shadow, quarantine=100", {"shadow": True, "quarantine": 100}),
)
"""What may watch over the heap: the name of a row, and the options of the boot."""


def flags() -> Iterator[Row]:
    """What each choice that the kernel itself knows costs in instructions, against the same pair without it."""
    plain = _kmalloc_pair()
    for name, options in GUARDS:
        if "shadow" not in options:
            yield Row(f"{_PAIR} with {name}", _kmalloc_pair(**options) / plain, "times", exact=True)


def _kmalloc_pair(**options: Any) -> float:
    """Instructions of one kmalloc and its kfree, one after the other."""
    with _booted(**options) as kernel:
        return _instructions(kernel, "bench_ping_pong", "kmalloc", "kfree", OBJECT_SIZE, BATCH) / BATCH


def guarding() -> Iterator[Row]:
    """What each guard of the heap costs: the same rounds of two allocations and two frees, with it and without. All
    take turns, so that a host that slows down slows them all."""
    best = dict.fromkeys(("", *(name for name, _ in GUARDS)), inf)
    with ExitStack() as stack:
        program = PROGRAM.with_name("two_and_two.asm")
        kernels = {name: stack.enter_context(boot(program, hz=0, **options)) for name, options in (("", {}), *GUARDS)}
        for _ in range(2 * REPEATS):
            for name, kernel in kernels.items():
                best[name] = min(best[name], _timed(partial(kernel.call, "bench_two_and_two", SEED, ROUNDS)))
    yield Row("two allocs, filled and read, two frees", best[""] / ROUNDS * 1e6, "us", exact=False)
    for name, _ in GUARDS:
        yield Row(f"the same with {name}", best[name] / best[""], "times", exact=False)


BENCHMARKS: tuple[Benchmark, ...] = (pairs, flags, tracing, guarding, starting)


def _booted(**options: Any) -> Kernel:
    return boot(PROGRAM, hz=0, **options)


def _timed(action: Callable[[], object]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


# -- showing ----------------------------------------------------------------------------------------------------
def table(rows: list[Row]) -> Iterator[str]:
    """The rows for people, exact ones marked."""
    for row in rows:
        number = f"{row.value:,.2f}".rstrip("0").rstrip(".") if row.exact else f"{row.value:,.2f}"
        yield f"{row.name:<45} {number:>9} {row.unit}{'' if row.exact else '  (this host)'}"


def to_data(rows: list[Row]) -> dict[str, Any]:
    """The rows for programs: ``{"version": 1, "rows": [{"name", "value", "unit", "exact"}, ...]}``."""
    return {"version": VERSION, "rows": [asdict(row) for row in rows]}
