"""Assembler expressions: numbers, constants and labels, evaluated by us so that no assembler gets to misread them.

The value of an expression is :class:`Linear`: a number plus labels, each with a coefficient, because a label's
address is not known until the text is assembled. GNU as ranks operators unlike C (``a | b + c`` is ``(a | b) + c``);
where the two readings differ, parentheses are demanded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .source import NAME, character_value

Tree = Any
"""A number, a name, ``(operator, tree)`` or ``(operator, tree, tree)``."""

_TOKEN = re.compile(
    rf"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)(?![A-Za-z0-9_.])|(?P<name>{NAME})|"
    r"(?P<character>'(?:\\.|[^\\])')|(?P<operator><<|>>|==|!=|<>|<=|>=|&&|\|\||[-+*/%&|^~!<>()]))"
)
_GNU = {"*": 5, "/": 5, "%": 5, "<<": 5, ">>": 5, "|": 4, "&": 4, "^": 4, "+": 3, "-": 3,
        "==": 2, "!=": 2, "<>": 2, "<": 2, ">": 2, "<=": 2, ">=": 2, "&&": 1, "||": 0}
_C = {"*": 9, "/": 9, "%": 9, "+": 8, "-": 8, "<<": 7, ">>": 7, "<": 6, ">": 6, "<=": 6, ">=": 6,
      "==": 5, "!=": 5, "<>": 5, "&": 4, "^": 3, "|": 2, "&&": 1, "||": 0}
_CONDITIONAL = frozenset({"==", "!=", "<>", "<", ">", "<=", ">=", "&&", "||", "!"})
_MAX_TOKENS = 400


class ExpressionError(ValueError):
    """An expression that cannot be read or evaluated; the text says why."""


@dataclass(frozen=True)
class Linear:
    """``value`` plus each symbol times its coefficient; symbols are in order of appearance."""

    value: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @property
    def constant(self) -> bool:
        """Whether no label is left in it."""
        return not self.terms

    def plus(self, other: Linear, sign: int = 1) -> Linear:
        """The sum, or with ``sign`` -1 the difference."""
        sums = dict(self.terms)
        for name, count in other.terms:
            sums[name] = sums.get(name, 0) + sign * count
        return Linear(self.value + sign * other.value, tuple(item for item in sums.items() if item[1]))

    def resolve(self, address: Callable[[str], int]) -> int:
        """The number, with every symbol's address put in."""
        return self.value + sum(count * address(name) for name, count in self.terms)


def tokenize(text: str) -> list[tuple[str, str]]:
    """Pairs of kind (``number``, ``name``, ``character``, ``operator``) and text."""
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            rest = text[at:].strip()
            if rest.startswith("$"):
                raise ExpressionError("'$' is not understood: write '.' in data, or a label")
            raise ExpressionError(f"cannot read {rest!r} in the expression {text.strip()!r}")
        kind = str(found.lastgroup)
        tokens.append((kind, found.group(kind)))
        at = found.end()
    if len(tokens) > _MAX_TOKENS:
        raise ExpressionError(f"an expression of more than {_MAX_TOKENS} parts")
    return tokens


def number(text: str) -> int:
    """A numeric literal: decimal, 0x or 0b; a leading zero would mean octal to some and is refused."""
    if text[:2].lower() in ("0x", "0b"):
        return int(text, 0)
    if len(text) > 1 and text.startswith("0"):
        raise ExpressionError(f"{text} begins with 0, which assemblers read as octal: write it decimal or 0x...")
    if len(text) > 20:
        raise ExpressionError(f"{text[:20]}... does not fit in 64 bits")
    return int(text)


def evaluate(text: str, lookup: Callable[[str], Linear], *, conditional: bool = False) -> Linear:
    """The value of ``text``. ``lookup`` gives the value of a name, '.' included.

    Comparisons and logical operators (which yield -1 or 1, depending on the assembler) are for conditions alone.
    """
    tokens = tokenize(text)
    if not tokens:
        raise ExpressionError("an expression is missing")
    if not conditional:
        for kind, token in tokens:
            if kind == "operator" and token in _CONDITIONAL:
                raise ExpressionError(f"'{token}' may stand only in .if conditions")
    tree = _Parser(tokens, _GNU).parse()
    if _Parser(tokens, _C).parse() != tree:
        raise ExpressionError(f"assemblers rank these operators unlike C: write parentheses in {text.strip()!r}")
    return _in_range(_value(tree, lookup))


class _Parser:
    """Precedence climbing over one token list with one table of ranks."""

    def __init__(self, tokens: list[tuple[str, str]], ranks: dict[str, int]) -> None:
        self.tokens, self.ranks, self.at, self.depth = tokens, ranks, 0, 0

    def parse(self) -> Tree:
        tree = self._binary(0)
        if self.at < len(self.tokens):
            raise ExpressionError(f"unexpected {self.tokens[self.at][1]!r} in an expression")
        return tree

    def _binary(self, lowest: int) -> Tree:
        left = self._unary()
        while self.at < len(self.tokens):
            kind, operator = self.tokens[self.at]
            if kind != "operator" or self.ranks.get(operator, -1) < lowest:
                break
            self.at += 1
            left = (operator, left, self._binary(self.ranks[operator] + 1))
        return left

    def _unary(self) -> Tree:
        if self.at >= len(self.tokens):
            raise ExpressionError("an expression ends too early")
        kind, token = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return number(token)
        if kind == "name":
            return token
        if kind == "character":
            try:
                return character_value(token)
            except KeyError:
                raise ExpressionError(f"unknown escape in {token}") from None
        self.depth += 1
        if self.depth > 60:
            raise ExpressionError("an expression is nested too deeply")
        if token == "(":
            tree = self._binary(0)
            if self.tokens[self.at : self.at + 1] != [("operator", ")")]:
                raise ExpressionError("a parenthesis is not closed")
            self.at += 1
        elif token in "-+~!":
            tree = (token, self._unary())
        else:
            raise ExpressionError(f"unexpected {token!r} in an expression")
        self.depth -= 1
        return tree


def _value(tree: Tree, lookup: Callable[[str], Linear]) -> Linear:
    if isinstance(tree, int):
        return Linear(tree)
    if isinstance(tree, str):
        return lookup(tree)
    if len(tree) == 2:
        operand = _value(tree[1], lookup)
        if tree[0] == "+":
            return operand
        if tree[0] == "-":
            return Linear().plus(operand, -1)
        value = _number_of(operand, tree[0])
        return Linear(~value if tree[0] == "~" else int(not value))
    operator, left, right = tree[0], _value(tree[1], lookup), _value(tree[2], lookup)
    if operator in "+-":
        result = left.plus(right, 1 if operator == "+" else -1)
    else:
        result = Linear(_arithmetic(operator, _number_of(left, operator), _number_of(right, operator)))
    return _in_range(result)


def _in_range(value: Linear) -> Linear:
    if not -(1 << 63) <= value.value < 1 << 64:
        raise ExpressionError("a value does not fit in 64 bits")
    return value


def _number_of(value: Linear, operator: str) -> int:
    if not value.constant:
        names = ", ".join(name for name, _ in value.terms)
        raise ExpressionError(f"'{operator}' needs numbers, and the address of {names} is not known yet")
    return value.value


def _arithmetic(operator: str, left: int, right: int) -> int:
    if operator in ("/", "%"):
        if right == 0:
            raise ExpressionError("division by zero")
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if operator == "/" else left - quotient * right
    if operator in ("<<", ">>"):
        if not 0 <= right < 64:
            raise ExpressionError(f"a shift by {right}: it must be 0 to 63")
        if left < 0 and operator == ">>":
            raise ExpressionError("a right shift of a negative number means different things to assemblers")
        return left << right if operator == "<<" else left >> right
    return int(_SIMPLE[operator](left, right))


_SIMPLE: dict[str, Callable[[int, int], int]] = {
    "*": lambda left, right: left * right, "&": lambda left, right: left & right,
    "|": lambda left, right: left | right, "^": lambda left, right: left ^ right,
    "==": lambda left, right: left == right, "!=": lambda left, right: left != right,
    "<>": lambda left, right: left != right, "<": lambda left, right: left < right,
    ">": lambda left, right: left > right, "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right, "&&": lambda left, right: bool(left and right),
    "||": lambda left, right: bool(left or right),
}
