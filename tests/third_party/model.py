"""What ``driver.c`` draws, in Python: the sizes that it holds at its end, and every number that it prints."""

from __future__ import annotations

from typing import NamedTuple

SLOTS = 64
_U64 = (1 << 64) - 1


class Expected(NamedTuple):
    """The console's text, and the sizes of the chunks that are still held."""

    text: str
    held: list[int]


class _Draws:
    def __init__(self, seed: int) -> None:
        self._state = seed

    def __call__(self, below: int) -> int:
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _U64
        return (self._state >> 33) % below


def play(seed: int, rounds: int, large: int, *, aligned: bool) -> Expected:
    """A run of the driver, whose macros these are; ``aligned``: it has an ``ALLOCATE_ALIGNED``."""
    draw = _Draws(seed)
    slots: list[int | None] = [None] * SLOTS
    checksum, lines = 0, []
    for number in range(1, rounds + 1):
        slot = draw(SLOTS)
        if slots[slot] is None:
            kind = draw(8)
            slots[slot] = _size(draw, large)
            draw(256)
            if kind == 1 and aligned:
                draw(4)
        elif draw(4) == 0:
            slots[slot] = _size(draw, large)
        else:
            slots[slot] = None
        live = sum(size for size in slots if size is not None)
        checksum = (checksum * 31 + live) & _U64
        if number % (rounds // 4) == 0:
            lines.append(f"after {number} rounds: {live} bytes live, sum {checksum:x}\n")
    return Expected("".join(lines), [size for size in slots if size is not None])


def _size(draw: _Draws, large: int) -> int:
    kind = draw(32)
    if kind == 0:
        return 1 + draw(large)
    return 1 + draw(1024 if kind < 5 else 128)
