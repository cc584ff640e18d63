"""Macros: their parameters, and the text that comes out of them.

As in GNU as: ``.macro name a, b=default, c:req, d:vararg``, arguments separated by commas or given as ``a=value``,
``\\a`` replaced, ``\\()`` nothing, ``\\@`` a number of its own for each expansion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .expression import ExpressionError
from .operands import RESERVED
from .source import NAME, SourceLine, split_operands


@dataclass(frozen=True)
class Parameter:
    """A name, its default, and whether it is required or takes all that is left."""

    name: str
    default: str
    kind: str


@dataclass(frozen=True)
class Macro:
    """A macro's definition."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[SourceLine, ...]
    line: SourceLine

    @classmethod
    def parse(cls, text: str, body: tuple[SourceLine, ...], line: SourceLine) -> Macro:
        """From what follows ``.macro``; :class:`ExpressionError` says what is wrong."""
        name, _, rest = text.replace("\t", " ").partition(" ")
        name = name.removesuffix(",")
        if not re.fullmatch(NAME, name) or name.startswith(".") or name.lower() in RESERVED:
            raise ExpressionError(f"{name!r} cannot name a macro" if name else ".macro needs a name")
        parameters = []
        for item in split_operands(rest) if "," in rest else rest.split():
            found = re.fullmatch(rf"({NAME})(?::(req|vararg))?\s*(?:=\s*(.*))?", item)
            if not found:
                raise ExpressionError(f"{item!r} is no macro parameter")
            parameters.append(Parameter(found.group(1), found.group(3) or "", found.group(2) or ""))
        return cls(name, tuple(parameters), body, line)

    def bind(self, arguments: Sequence[str]) -> dict[str, str]:
        """Each parameter's text for these arguments."""
        values = {parameter.name: parameter.default for parameter in self.parameters}
        position = 0
        for at, argument in enumerate(arguments):
            keyword = re.match(rf"({NAME})\s*=(?!=)\s*", argument)
            if keyword and keyword.group(1) in values:
                values[keyword.group(1)] = argument[keyword.end():]
                continue
            if position >= len(self.parameters):
                raise ExpressionError(f"the macro {self.name!r} takes {len(self.parameters)} arguments, "
                                      f"and {len(arguments)} are given")
            parameter = self.parameters[position]
            if parameter.kind == "vararg":
                values[parameter.name] = ", ".join(arguments[at:])
                break
            if argument:
                values[parameter.name] = argument
            position += 1
        for parameter in self.parameters:
            if parameter.kind == "req" and not values[parameter.name]:
                raise ExpressionError(f"the macro {self.name!r} needs its argument {parameter.name!r}")
        return values


def substituted(body: Sequence[SourceLine], values: Mapping[str, str], serial: int) -> list[SourceLine]:
    """``body`` with every ``\\name`` replaced by its text; ``\\@`` is ``serial``."""
    names = "|".join(sorted(map(re.escape, values), key=len, reverse=True)) or r"(?!)"
    pattern = re.compile(rf"\\(?:(\(\))|(@)|({names})(?![A-Za-z0-9_.]))")

    def replacement(found: re.Match[str]) -> str:
        if found.group(3) is None:
            return str(serial) if found.group(2) else ""
        value = values[found.group(3)]
        return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value

    return [SourceLine(line.file, line.number, pattern.sub(replacement, line.text)) for line in body]
