"""Who defines each name: the objects themselves, the images around them, or the C library, an archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from .objects import InputSymbol, ObjectFile, Parsed, parse
from .refused import floating_point_helper
from .troubles import Troubles

HINTS = 20
"""How many undefined names get a guess of what was meant: each is compared with every name that there is."""
_WEAK, _COMMON, _STRONG = range(3)


def no_library(_name: str) -> ObjectFile | None:
    """The object of the C library that defines a name, where there is no library."""
    return None


@dataclass(frozen=True)
class Outside:
    """What the objects find outside of themselves.

    ``symbols`` are names with their addresses, ``origins`` says where they are defined, ``names`` are all names of
    other images: a symbol that is called so too gets its file's name behind its own. ``standard`` are those of the C
    library, which a module may define itself though the kernel has them. ``library`` gives the object of the C
    library that defines a name, or None; ``library_names`` are all that it knows, and ``together`` those of which it
    is all or nothing: malloc of one author does not go with free of another.
    """

    symbols: Mapping[str, int]
    origins: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    standard: frozenset[str] = frozenset()
    library: Callable[[str], ObjectFile | None] = no_library
    library_names: frozenset[str] = frozenset()
    together: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Definition:
    """A symbol, and the number of the object that defines it."""

    number: int
    symbol: InputSymbol


class Definitions:
    """The names of several objects. ``objects`` are those and, behind the first ``own``, what the library added."""

    def __init__(self, objects: list[Parsed], outside: Outside, troubles: Troubles) -> None:
        self.objects = objects
        self.own = len(objects)
        self.known: dict[str, Definition] = {}
        self._outside = outside
        self._troubles = troubles
        self._hints = 0
        for number, parsed in enumerate(objects):
            for symbol in parsed.defined():
                self._define(number, symbol)
        self._ask_library()

    def undefined(self, label: str) -> str:
        """The sentence about a name that nobody defines."""
        if floating_point_helper(label):
            return f"{label!r} is a function for floating point, which the kernel has not: use integers"
        self._hints += 1
        names = [*self.known, *self._outside.symbols, *self._outside.library_names] if self._hints <= HINTS else []
        close = get_close_matches(label, names, 1)
        return f"{label!r} is not defined" + (f"; did you mean {close[0]!r}?" if close else "")

    def _is_known(self, label: str) -> bool:
        return label in self.known or label in self._outside.symbols

    def _define(self, number: int, symbol: InputSymbol) -> None:
        """One more definition: a strong one wins over common ones, of which the largest counts, and these over weak
        ones."""
        label, shown, before = symbol.name, self.objects[number].object.shown, self.known.get(symbol.name)
        if label in self._outside.symbols and label not in self._outside.standard:
            if symbol.weak:                      # the one outside is strong
                return
            where = self._outside.origins.get(label)
            self._troubles.note(label, f"{label!r} is already defined{f' at {where}' if where else ' elsewhere'}: "
                                       "choose another name, or make it static", file=shown)
        if before is None or _rank(symbol) > _rank(before.symbol) or (
                _rank(symbol) == _rank(before.symbol) == _COMMON and symbol.size > before.symbol.size):
            self.known[label] = Definition(number, symbol)
        elif _rank(symbol) == _rank(before.symbol) == _STRONG:
            first = self.objects[before.number].object.shown
            self._troubles.note(label, f"{label!r} is defined twice: in {first} and in {shown}")

    def _ask_library(self) -> None:
        """Add the objects of the library that define what is undefined, and what they themselves want."""
        waiting, asked = list(self.objects), set()
        while waiting:
            for symbol in waiting.pop().undefined():
                if symbol.weak or symbol.name in asked or self._is_known(symbol.name):
                    continue
                asked.add(symbol.name)
                member = self._outside.library(symbol.name)
                if member is not None:
                    waiting.append(self._add(parse(member), symbol.name))

    def _add(self, member: Parsed, wanted: str) -> Parsed:
        for symbol in member.defined():
            if symbol.name in self._outside.together and self._is_known(symbol.name):
                self._troubles.note("together", f"{wanted!r} of the C library does not go with a {symbol.name!r} that "
                                                f"it does not know: define {wanted!r} too, or call the kernel's "
                                                "functions")
            self.known.setdefault(symbol.name, Definition(len(self.objects), symbol))
        self.objects.append(member)
        return member


def _rank(symbol: InputSymbol) -> int:
    return _WEAK if symbol.weak else _COMMON if symbol.section == "common" else _STRONG
