"""The sandbox in time: traces, guards of the heap, boots and snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from math import inf

from ..kernel import boot
from .allocator import GUARDS, OBJECT_SIZE, PROGRAM, booted
from .rows import Row, timed

TIMED_PAIRS = 5_000
REPEATS = 3
RESTORES = 10
ROUNDS = 1_000
SEED = 1


def tracing() -> Iterator[Row]:
    """The same allocations with a trace and without: how much longer they take."""
    with booted() as kernel:
        functions = [int(kernel.symbols[name]) for name in ("kmalloc", "kfree")]
        work = partial(kernel.call, "bench_ping_pong", *functions, OBJECT_SIZE, TIMED_PAIRS)

        def traced() -> float:
            with kernel.trace():
                return timed(work)

        work()
        bare = min(timed(work) for _ in range(REPEATS))
        hooked = min(traced() for _ in range(REPEATS))
    yield Row("kmalloc pair in the emulator", bare / TIMED_PAIRS * 1e6, "us", exact=False)
    yield Row("the same, traced", hooked / TIMED_PAIRS * 1e6, "us", exact=False)
    yield Row("traced / untraced", hooked / bare, "times", exact=False)


def starting() -> Iterator[Row]:
    """A machine with 16 MiB from nothing, and back to a snapshot."""
    yield Row("boot", min(timed(lambda: boot().close()) for _ in range(REPEATS)) * 1e3, "ms", exact=False)
    with boot() as kernel:
        yield Row("boot", kernel.instructions, "instructions", exact=True)
        snapshot = kernel.snapshot()
        yield Row("snapshot", min(timed(kernel.snapshot) for _ in range(RESTORES)) * 1e3, "ms", exact=False)
        yield Row("restore", min(timed(lambda: kernel.restore(snapshot)) for _ in range(RESTORES)) * 1e3, "ms",
                  exact=False)


def guarding(rounds: int = ROUNDS) -> Iterator[Row]:
    """What each guard of the heap costs: the same rounds of two allocations and two frees, with it and without. All
    take turns, so that a host that slows down slows them all."""
    best = dict.fromkeys(("", *(name for name, _ in GUARDS)), inf)
    with ExitStack() as stack:
        program = PROGRAM.with_name("two_and_two.asm")
        kernels = {name: stack.enter_context(boot(program, hz=0, **options)) for name, options in (("", {}), *GUARDS)}
        for _ in range(2 * REPEATS):
            for name, kernel in kernels.items():
                best[name] = min(best[name], timed(partial(kernel.call, "bench_two_and_two", SEED, rounds)))
    yield Row("two allocs, filled and read, two frees", best[""] / rounds * 1e6, "us", exact=False)
    for name, _ in GUARDS:
        yield Row(f"the same with {name}", best[name] / best[""], "times", exact=False)
