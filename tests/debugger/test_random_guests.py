"""Random code as guests: whatever they do to tables, descriptors, registers and themselves, the past is what it was."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

import sandbox
from sandbox.abi import PROGRAM_BASE
from sandbox.kernel import Kernel
from sandbox.machine.ram_pages import RamPages

from ..fuzz.blobs import make
from ..fuzz.guests import Guests, case

LIMIT = 20_000
HOSTS_OWN = re.compile(rb"\x0f\x31|\x0f\x01\xf9|\x0f\xc7", re.DOTALL)
"""rdtsc, rdtscp, rdrand and rdseed: what they say depends on the host, and no promise is made."""


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Guests, Guests]]:
    pair = Guests(), Guests()
    yield pair
    for guests in pair:
        guests.kernel.close()


def prepared(guests: Guests, number: int) -> Kernel | None:
    """A kernel whose main is the case's blob, None for one outside the promise."""
    name = case(number)
    blob = make(name.kind, name.seed, guests.place)
    if HOSTS_OWN.search(blob):
        return None
    guests.kernel.restore(guests.snapshot)
    guests.kernel.memory[PROGRAM_BASE : PROGRAM_BASE + len(blob)] = blob
    return guests.kernel


State = tuple[RamPages, bytes, str]


def state(kernel: Kernel) -> State:
    return kernel.machine.memory.pages(), kernel.machine.cpu.save_values(), kernel.console


def whole(guests: Guests, number: int, position: int) -> State:
    """A run to a position without a stop on the way."""
    kernel = prepared(guests, number)
    assert kernel is not None
    kernel.machine.run(position - kernel.instructions)
    return state(kernel)


def check(pair: tuple[Guests, Guests], number: int) -> None:
    kernel, straight = prepared(pair[0], number), prepared(pair[1], number)
    if kernel is None or straight is None:
        return
    seeded = random.Random(number)
    timeline = sandbox.record(kernel)
    kernel.run(LIMIT)
    positions = sorted(seeded.randrange(straight.instructions, timeline.length + 1) for _ in range(4))
    expected = {}
    for position in positions:
        straight.machine.run(position - straight.instructions)
        if straight.instructions != position:            # the run ended: nothing comes behind it
            break
        expected[position] = state(straight)
    seeded.shuffle(positions)
    for position in positions:
        if position in expected:
            timeline.goto(position)
            if state(kernel) != expected[position]:
                # Flags that the manual leaves undefined depend on where the engine was stopped on the way: then a
                # journey without a stop must be a run without one.
                timeline.goto(timeline.start)
                timeline.goto(position)
                assert state(kernel) == whole(pair[1], number, position), f"{number}, {case(number)}, at {position}"


@pytest.mark.parametrize("first", [0, 60])
def test_the_past_of_random_guests_is_what_it_was(pair: tuple[Guests, Guests], first: int) -> None:
    for number in range(first + 2, first + 60, 3):
        check(pair, number)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(120, 6120, 600))
def test_the_past_of_two_thousand_random_guests_is_what_it_was(pair: tuple[Guests, Guests], first: int) -> None:
    for number in range(first + 2, first + 600, 3):
        check(pair, number)
