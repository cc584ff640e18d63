"""Expressions of C as trees: ``list->next->value``, ``squares[i + 1]``, ``*(struct order *)rdi``, ``sizeof(int)``.

A tree is a tuple, its kind first::

    ("number", value, suffix)    ("name", text)      ("type", base, stars)
    ("member", tree, name)       ("->", tree, name)  ("[]", tree, tree)
    ("cast", type, tree)         ("sizeof", tree)    (operator, tree)    (operator, tree, tree)

What would change something (``=``, ``++``, a call) is refused: a debugger that looks at the past changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..errors import UsageError

Tree = tuple[Any, ...]

_TOKEN = re.compile(
    r"\s*(?:(?P<address>(?=[0-9]*[a-fA-F])[0-9a-fA-F]{16}(?![\w.]))|"
    r"(?P<number>0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)(?P<suffix>[uUlL]{0,3})(?![\w.])|"
    r"(?P<name>\$?[A-Za-z_]\w*|\$)|(?P<character>'(?:\\.|[^\\'])')|"
    r"(?P<operator>->|\+\+|--|(?:<<|>>|[-+*/%&|^])=(?!=)|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>()\[\].=?:,]))")
_RANKS = {"*": 9, "/": 9, "%": 9, "+": 8, "-": 8, "<<": 7, ">>": 7, "<": 6, ">": 6, "<=": 6, ">=": 6,
          "==": 5, "!=": 5, "&": 4, "^": 3, "|": 2, "&&": 1, "||": 0}
_TAGS = frozenset({"struct", "union", "enum"})
_WORDS = frozenset({"char", "short", "int", "long", "signed", "unsigned", "void", "_Bool", "bool"})
_QUALIFIERS = frozenset({"const", "volatile", "restrict", "_Atomic"})
_ESCAPES = {"n": 10, "t": 9, "r": 13, "0": 0, "a": 7, "b": 8, "f": 12, "v": 11}
_MOST = 400
_DEEPEST = 40
"""Parentheses and operators inside of each other."""

Token = tuple[str, str, str]
"""Its kind, its text, and the suffix of a number."""


def tokens(text: str) -> list[Token]:
    """The tokens of an expression; :class:`UsageError` for what is none of C."""
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise UsageError(f"{text[at:].strip()!r} is not understood in {text.strip()!r}")
        kind = "number" if match["suffix"] is not None else str(match.lastgroup)
        found.append((kind, match[kind], match["suffix"] or ""))
        at = match.end()
    if len(found) > _MOST:
        raise UsageError(f"an expression of more than {_MOST} parts")
    return found


def names(found: list[Token]) -> list[str]:
    """The names in an expression, without those of members and of structures."""
    before = ["", *(text for _, text, _ in found)]
    return [text for (kind, text, _), left in zip(found, before, strict=False)
            if kind == "name" and left not in ("->", ".", *_TAGS)]


def parse(text: str, is_type: Callable[[str], bool]) -> Tree:
    """The tree of an expression; ``is_type`` tells which names are of types (``typedef``). :class:`UsageError` where it
    is none."""
    return _Parser(text, is_type).whole()


class _Parser:
    """Recursive descent, one token ahead (C11, section 6.5)."""

    def __init__(self, text: str, is_type: Callable[[str], bool]) -> None:
        self._text = text.strip()
        self._tokens = tokens(text)
        self._is_type = is_type
        self._at = 0
        self._depth = 0

    def whole(self) -> Tree:
        """All of the text."""
        found = self._type_name() if self._begins_type() else self._binary(0)
        if self._at < len(self._tokens):
            raise self._refused(self._next[1])
        return found

    @property
    def _next(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "", "")

    def _take(self) -> Token:
        token = self._next
        if token[0] == "end":
            raise UsageError(f"the expression {self._text!r} ends too early")
        self._at += 1
        return token

    def _took(self, text: str) -> bool:
        found = self._next[0] == "operator" and self._next[1] == text
        self._at += found
        return found

    def _expect(self, text: str) -> None:
        if not self._took(text):
            raise UsageError(f"{text!r} is missing in {self._text!r}")

    def _refused(self, token: str) -> UsageError:
        if token in ("++", "--") or (token.endswith("=") and token not in _RANKS):
            return UsageError(f"{token!r} would change something: expressions here only look")
        if token == "(":
            return UsageError("expressions here only look: they call no function")
        if token in ("?", ":", ","):
            return UsageError(f"{token!r} is not understood in {self._text!r}")
        return UsageError(f"an operator is missing before {token!r} in {self._text!r}")

    # -- expressions ------------------------------------------------------------------------------------------
    def _binary(self, lowest: int) -> Tree:
        left = self._unary()
        while self._next[0] == "operator" and _RANKS.get(self._next[1], -1) >= lowest:
            operator = self._take()[1]
            left = (operator, left, self._binary(_RANKS[operator] + 1))
        return left

    def _unary(self) -> Tree:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UsageError(f"more than {_DEEPEST} parts of an expression lie inside of each other")
        try:
            return self._prefixed()
        finally:
            self._depth -= 1

    def _prefixed(self) -> Tree:
        kind, text, _ = self._next
        if kind == "operator" and text in ("*", "&", "-", "+", "!", "~"):
            self._take()
            return (f"unary {text}", self._unary())
        if kind == "operator" and text == "&&":
            raise UsageError("'&&' needs something on its left")
        if kind == "name" and text == "sizeof":
            self._take()
            if self._opens_type():
                return ("sizeof", self._parenthesized_type())
            return ("sizeof", self._unary())
        if self._opens_type():
            return ("cast", self._parenthesized_type(), self._unary())
        return self._postfixed()

    def _postfixed(self) -> Tree:
        found = self._primary()
        while True:
            if self._took("["):
                found = ("[]", found, self._binary(0))
                self._expect("]")
            elif self._took("."):
                found = ("member", found, self._name())
            elif self._took("->"):
                found = ("->", found, self._name())
            else:
                break
        if self._next[0] == "operator" and self._next[1] in ("(", "++", "--"):
            raise self._refused(self._next[1])
        return found

    def _name(self) -> str:
        kind, text, _ = self._take()
        if kind != "name":
            raise UsageError(f"the name of a member is missing before {text!r} in {self._text!r}")
        return text

    def _primary(self) -> Tree:
        kind, text, suffix = self._take()
        if kind == "number":
            octal = len(text) > 1 and text.isdecimal() and text[0] == "0"
            try:
                value = int(text, 8 if octal else 0)
            except ValueError:
                raise UsageError(f"{text!r} is no number") from None
            if value >> 64:
                raise UsageError(f"{text} does not fit into 64 bits")
            return ("number", value, ("x" if text[:2].lower() in ("0x", "0b") or octal else "") + suffix.lower())
        if kind == "address":
            return ("address", text)
        if kind == "character":
            return ("number", _ESCAPES.get(text[2], ord(text[2])) if text[1] == "\\" else ord(text[1]), "")
        if kind == "name":
            return ("name", text)
        if text == "(":
            found = self._binary(0)
            self._expect(")")
            return found
        raise self._refused(text) if text in ("++", "--", "=") else \
            UsageError(f"a value is missing before {text!r} in {self._text!r}")

    # -- types ------------------------------------------------------------------------------------------------
    def _opens_type(self) -> bool:
        if self._next[1] != "(" or self._at + 1 >= len(self._tokens):
            return False
        self._at += 1
        found = self._begins_type()
        self._at -= 1
        return found

    def _begins_type(self) -> bool:
        kind, text, _ = self._next
        return kind == "name" and (text in _TAGS | _WORDS | _QUALIFIERS or self._is_type(text))

    def _parenthesized_type(self) -> Tree:
        self._expect("(")
        found = self._type_name()
        self._expect(")")
        return found

    def _type_name(self) -> Tree:
        words: list[str] = []
        stars = 0
        while self._next[0] == "name":
            text = self._take()[1]
            if text in _TAGS:
                words += [text, self._name()]
            elif text not in _QUALIFIERS:
                words.append(text)
        while self._took("*"):
            stars += 1
            while self._next[1] in _QUALIFIERS:
                self._take()
        return ("type", " ".join(words), stars)
