"""Magazines: two beat one, for at the border of a single one every other call would go to the depot.

A magazine is a stack of free objects that a CPU has for itself; a call that finds something in it, or room, takes a
few instructions and no lock. Two allocations and two frees in turn, just where a single one is used up, would carry a
whole magazine to the depot and back each time. With a second one, which is full or empty, the two change places; the
depot, which all CPUs share, is asked when a whole magazine's worth has moved in one direction, and not before.
"""

from collections import Counter

import sandbox
from sandbox.trace.tracer import LiveTrace

TURNS = 100


def show(what: str, trace: LiveTrace) -> None:
    """How many calls took how many instructions, and what the CPU's two magazines and the depot hold now."""
    costs = Counter(event.instructions for event in trace)
    print(what)
    print("    calls by instructions: " + ", ".join(f"{count} of {cost:,}" for cost, count in sorted(costs.items())))
    print("    " + ", ".join(f"{magazine.role} {len(magazine.objects)}" for magazine in cache.magazines)
          + f"; exchanges with the depot so far: {cache.exchanges}")


def exchanges_with_one(capacity: int) -> int:
    """How often a CPU with a single magazine, one object in it, needs another one for the same calls: a model."""
    level, exchanges = 1, 0
    for change in (-1, -1, 1, 1) * TURNS:
        if not 0 <= level + change <= capacity:
            level, exchanges = capacity if change < 0 else 0, exchanges + 1
        level += change
    return exchanges


with sandbox.boot(hz=0) as kernel:
    cache = kernel.heap.cache("kmalloc-64")
    with kernel.trace() as trace:
        held = [kernel.call("kmalloc", 64) for _ in range(2 * cache.rounds)]
    show(f"{len(held)} allocations: slabs fill the loaded magazine, the most expensive calls", trace)
    with kernel.trace() as trace:
        while len(held) > cache.rounds - 1:
            kernel.call("kfree", held.pop())
    show("30 frees: the loaded one is full, and changes places with the previous one", trace)
    with kernel.trace() as trace:
        for _ in range(TURNS):
            pair = [kernel.call("kmalloc", 64), kernel.call("kmalloc", 64)]
            kernel.call("kfree", pair[1])
            kernel.call("kfree", pair[0])
    show(f"{TURNS} times two allocations and two frees: two change places each time", trace)
    print(f"    with one magazine: {exchanges_with_one(cache.rounds)} exchanges with the depot")
    with kernel.trace() as trace:
        more = [kernel.call("kmalloc", 64) for _ in range(100)]
        for pointer in more:
            kernel.call("kfree", pointer)
    show("100 allocations, then 100 frees: now whole magazines move", trace)
