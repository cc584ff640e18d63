"""Questions: a text, an answer that a guest has given, and replies as people type them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TypeVar

from ..errors import UsageError
from ..guest.faults import dice

CHOICES = 4
"""How many choices a question has at most."""
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}|[0-9]{1,3}(?:[,_][0-9]{3}){1,6}")
_ADDRESS = re.compile(r"(?:0[xX])?(?:[0-9a-fA-F]_?){1,16}")
_SHOWN = 24

Thing = TypeVar("Thing")


class Nonsense(UsageError):
    """A reply that is no answer at all, neither a right nor a wrong one."""


@dataclass(frozen=True)
class Question:
    """One question.

    ``answer`` is a number; with ``address`` one that is written in hexadecimal; with ``choices`` one of these texts.
    ``why`` is a sentence that explains it. ``lesson`` is the number of the lesson that the question is about.
    """

    text: str
    answer: int | str
    why: str
    choices: tuple[str, ...] = ()
    address: bool = False
    lesson: str = ""

    @property
    def shown_answer(self) -> str:
        """The answer as one would type it; behind the letter of a choice its text."""
        if self.choices:
            at = self.choices.index(str(self.answer))
            return f"{ascii_lowercase[at]}) {self.answer}"
        return f"0x{self.answer:x}" if self.address else f"{self.answer:,}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The text, and below it the choices with their letters."""
        return (self.text, *(f"  {letter}) {choice}" for letter, choice in
                             zip(ascii_lowercase, self.choices, strict=False)))

    def is_right(self, reply: str) -> bool:
        """Whether a reply is the answer; :class:`Nonsense` says what a reply must look like when it is none."""
        reply = reply.strip()
        if self.choices:
            return self.choices[self._letter(reply)] == self.answer
        pattern, what = (_ADDRESS, "an address, like 0xffff888000003040") if self.address else (
            _NUMBER, "a number, like 24 or 0x18")
        if not pattern.fullmatch(reply):
            raise Nonsense(f"{reply[:_SHOWN]!r} is not {what}")
        digits = reply.replace(",", "").replace("_", "")
        return int(digits, 16 if self.address or digits[:2].lower() == "0x" else 10) == self.answer

    def _letter(self, reply: str) -> int:
        letters = ascii_lowercase[: len(self.choices)]
        letter = reply.rstrip(").").lower()
        if len(letter) != 1 or letter not in letters:
            raise Nonsense(f"{reply[:_SHOWN]!r} is none of the letters {letters[0]} to {letters[-1]}")
        return letters.index(letter)


class Dice:
    """Choices that follow from a seed alone, on every host and in every version of Python."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._throws = 0

    def below(self, end: int) -> int:
        """A number from 0 up to, and without, ``end``."""
        self._throws += 1
        return int(dice(self._seed, self._throws) * end)

    def between(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``."""
        return low + self.below(high - low + 1)

    def one_of(self, things: Sequence[Thing]) -> Thing:
        """One of them."""
        return things[self.below(len(things))]

    def some_of(self, things: Sequence[Thing], count: int) -> list[Thing]:
        """``count`` of them, in an order of chance."""
        left = list(things)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def choices(self, answer: str, others: Iterable[str]) -> tuple[str, ...]:
        """The answer among the first few different ``others``, in an order of chance; more of these are not asked
        for."""
        given, left = [answer], iter(others)
        while len(given) < CHOICES and (other := next(left, None)) is not None:
            if other not in given:
                given.append(other)
        return tuple(self.some_of(given, len(given)))
