"""The allocator in guest instructions.

A row counts what the two functions of a pair execute, from the first instruction of each to its ``ret``: the same loop
runs once with them and once with two functions that only return, on a machine without timer ticks. So a row is the same
on every host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..kernel import Kernel, boot
from ..toolchain import packaged
from .rows import Row

PROGRAM = packaged.benchmarks_directory() / "pairs.asm"
BATCH = 1000
OBJECT_SIZE = 64
_PAIR = f"kmalloc({OBJECT_SIZE}) pair"

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


def pairs() -> Iterator[Row]:
    """Instructions of an allocation and its free."""
    for magazines in (True, False):
        with booted(magazines=magazines) as kernel:
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


def flags() -> Iterator[Row]:
    """What each choice that the kernel itself knows costs in instructions, against the same pair without it."""
    plain = _kmalloc_pair()
    for name, options in GUARDS:
        if "shadow" not in options:
            yield Row(f"{_PAIR} with {name}", _kmalloc_pair(**options) / plain, "times", exact=True)


def _kmalloc_pair(**options: Any) -> float:
    """Instructions of one kmalloc and its kfree, one after the other."""
    with booted(**options) as kernel:
        return _instructions(kernel, "bench_ping_pong", "kmalloc", "kfree", OBJECT_SIZE, BATCH) / BATCH


def booted(**options: Any) -> Kernel:
    """A kernel with the loops, in which nothing but them moves."""
    return boot(PROGRAM, hz=0, **options)
