"""How ``sandbox.h`` writes comments, headings and lines with a comment behind them."""

from __future__ import annotations

import textwrap

WIDTH = 110                  # columns of running text
LONGEST = 120                # columns of a line with a comment behind it
CPP_KEYWORDS = {"private": "private_", "virtual": "address"}
"""Names of ours that C++ does not allow, and what it reads for them."""


def heading(words: str) -> str:
    """The line above a part of the file."""
    return f"/* -- {words} {'-' * (WIDTH - len(words) - 10)} */"


def comment(words: str) -> str:
    """A comment of one paragraph, which may be longer than a line."""
    return comment_lines(textwrap.fill(plain(" ".join(words.split())), WIDTH - 6))


def comment_lines(text: str) -> str:
    """A comment of these lines."""
    return f"/* {text} */".replace("\n", "\n   ")


def plain(words: str) -> str:
    """Words without the marks of reStructuredText, and without what would end a comment."""
    return words.replace("``", "").replace("*/", "* /")


def define(name: str, value: str, note: str = "") -> str:
    """A name for a number."""
    return noted(f"#define {name:<26} {value}", note, 56)


def noted(text: str, note: str, column: int) -> str:
    """A line with its comment behind it, or above it where it would become too long."""
    if not note:
        return text
    line = f"{text:<{column}}/* {note} */"
    if len(text) < column and len(line) <= LONGEST:
        return line
    return " " * (len(text) - len(text.lstrip())) + f"/* {note} */\n{text}"
