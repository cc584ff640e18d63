"""Faults on purpose, as data: what can be asked for, and how it is written.

=================================  ====================================================================================
``pages:3``                        the third call of get_free_pages from now on returns 0
``pages:10%``                      each of them with a probability of 10 in 100
``pages:10%,seed=7``               the same with other dice
``cache=kmalloc-64:1``             the next allocation from that cache returns 0; kmalloc and bulk calls count too
``cache=kmalloc-*:5%,seed=2``      a ``*`` at the end stands for anything
``flip=0xffff888000003010.7@N``    bit 7 of the byte at that virtual address flips when the clock is N
``flip=phys:0x3010.7@N``           the same by physical address
``irq=0@N``                        interrupt line 0 is pulsed when the clock is N
=================================  ====================================================================================

Counts begin when the fault is asked for. Dice are thrown with the seed and the number of the call alone, so the same
run has the same faults, always.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..address import U64
from ..errors import UsageError

_FAILURE = re.compile(r"(?P<what>pages|cache=(?P<cache>[!-~]+)):(?:(?P<nth>[0-9]+)|(?P<percent>[0-9]+(?:\.[0-9]+)?)%"
                      r"(?:,seed=(?P<seed>[0-9]+))?)")
_FLIP = re.compile(r"flip=(?P<space>phys:)?(?P<address>[A-Za-z0-9_.]+)\.(?P<bit>[0-9]+)@(?P<at>[0-9]+)")
_LINE = re.compile(r"irq=(?P<line>[0-9]+)@(?P<at>[0-9]+)")
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class Failure:
    """Allocations that return 0: of whole pages (``cache`` is empty), or from the caches with a name.

    ``nth`` is the one call that fails, from 1; where it is 0, each fails with a probability of ``percent`` in 100.
    """

    cache: str = ""
    nth: int = 0
    percent: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100 or self.nth < 0 or not 0 <= self.seed <= U64 or (self.nth > 0) == (
                self.percent > 0):
            raise UsageError(f"{self}: a number from 1 up, or a probability above 0% and up to 100%")

    def __str__(self) -> str:
        what = f"cache={self.cache}" if self.cache else "pages"
        if self.nth:
            return f"{what}:{self.nth}"
        return f"{what}:{self.percent:g}%" + (f",seed={self.seed}" if self.seed else "")

    def matches(self, cache: str) -> bool:
        """Whether allocations from a cache are meant."""
        if self.cache.endswith("*"):
            return cache.startswith(self.cache[:-1])
        return bool(self.cache) and cache == self.cache

    def fails(self, call: int) -> bool:
        """Whether call number ``call``, from 1, fails."""
        return call == self.nth if self.nth else dice(self.seed, call) * 100 < self.percent


@dataclass(frozen=True)
class Flip:
    """A bit of the byte at ``address`` that changes when the clock is ``instruction``."""

    address: int
    bit: int
    instruction: int
    physical: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.bit <= 7 or not 0 <= self.address <= U64:
            raise UsageError(f"{self}: a bit is a number from 0 to 7, an address one of 64 bits")

    def __str__(self) -> str:
        return f"flip={'phys:' if self.physical else ''}{self.address:#x}.{self.bit}@{self.instruction}"


@dataclass(frozen=True)
class Pulse:
    """An interrupt line that is pulsed when the clock is ``instruction``."""

    line: int
    instruction: int

    def __post_init__(self) -> None:
        if self.line not in range(16):
            raise UsageError(f"{self}: an interrupt line is a number from 0 to 15")

    def __str__(self) -> str:
        return f"irq={self.line}@{self.instruction}"


Fault: TypeAlias = Failure | Flip | Pulse


def parse(text: str, symbols: Mapping[str, int] | None = None) -> Fault:
    """Read one fault as it is written above; ``symbols`` may stand for addresses. :class:`UsageError` says what is
    wrong, and shows the forms."""
    if not isinstance(text, str):
        raise UsageError(f"a fault is a text, not {text!r}")
    if found := _FAILURE.fullmatch(text):
        return Failure(found["cache"] or "", int(found["nth"] or 0), float(found["percent"] or 0),
                       int(found["seed"] or 0))
    if found := _FLIP.fullmatch(text):
        return Flip(_address(found["address"], symbols or {}), int(found["bit"]), int(found["at"]),
                    found["space"] is not None)
    if found := _LINE.fullmatch(text):
        return Pulse(int(found["line"]), int(found["at"]))
    raise UsageError(f"{text!r} is no fault: write pages:3, pages:10%,seed=7, cache=kmalloc-64:1, "
                     "flip=ADDRESS.BIT@INSTRUCTION or irq=LINE@INSTRUCTION")


def _address(text: str, symbols: Mapping[str, int]) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return int(symbols[text]) if text in symbols else _no_address(text)


def _no_address(text: str) -> int:
    raise UsageError(f"{text!r} is neither an address nor a symbol")


def dice(seed: int, number: int) -> float:
    """A number from 0 up to 1, that looks random and depends on these two alone (splitmix64)."""
    value = (seed * _FIRST + number * _STEP) & U64
    value = ((value ^ value >> 30) * _FIRST) & U64
    value = ((value ^ value >> 27) * _SECOND) & U64
    return (value ^ value >> 31) / (1 << 64)
