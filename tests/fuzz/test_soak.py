"""Random code as guests: no dead process, no hang, no growth, no exception, no limit overrun; ``--soak``: 10,000."""

from __future__ import annotations

import pytest

from sandbox.errors import EngineError
from sandbox.isolated import Bounds, Child

from .guests import case
from .worker import MEMORY

GUESTS = 200
SECONDS = 60.0
"""For one guest: three thousand instructions whose translations are thrown away each time take two."""
WARM = 50
"""Guests after which a process has all that it keeps."""
GROWTH = 48 << 20


def soak(numbers: range) -> list[str]:
    """Run the cases with these numbers in one process after the other; what went wrong, in words."""
    wrong: list[str] = []
    sizes: list[int] = []
    with Child("tests.fuzz.worker", Bounds(seconds=SECONDS, memory=MEMORY)) as child:
        for number in numbers:
            try:
                (answer,) = child.ask(number=number)
            except EngineError as error:
                wrong.append(f"{number}, {case(number)}: {error}\n{getattr(error, 'words', '')}")
                sizes.clear()
                continue
            if answer["failure"] or not answer["words"]:
                wrong.append(f"{number}, {case(number)}: {answer['failure'] or 'it stopped without a reason'}")
            sizes.append(answer["resident"] or 0)
            if len(sizes) == WARM:
                warm = max(sizes)
            elif len(sizes) > WARM and max(sizes) > warm + GROWTH:
                wrong.append(f"{number}, {case(number)}: the process grew from {warm >> 20} to {max(sizes) >> 20} MiB")
                break
    return wrong


def test_forty_random_guests_hurt_nobody() -> None:
    assert soak(range(40)) == []


@pytest.mark.soak
@pytest.mark.parametrize("first", range(0, 10_000, GUESTS))
def test_ten_thousand_random_guests_hurt_nobody(first: int) -> None:
    assert soak(range(first, first + GUESTS)) == []
