"""Text in 80 columns: names and addresses stay whole, and long sums of flags break behind a ``|``."""

from __future__ import annotations

import re
import textwrap

WIDTH = 80


class _Wrapper(textwrap.TextWrapper):
    """Breaks at blanks, and behind ``|``."""

    wordsep_simple_re = re.compile(r"([\t\n\x0b\x0c\r ]+|(?<=\|))")


def wrapped(text: str, indent: str = "", more: str | None = None) -> list[str]:
    """The lines of a text, the first behind ``indent``, those that follow behind ``more``, which is four blanks deeper
    unless it is given."""
    wrapper = _Wrapper(WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    " if more is None else more,
                       break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text) or [indent.rstrip()]
