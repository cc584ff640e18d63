"""What comes of bytes that are no object file, or no debug information, when pyelftools and we read them as such."""

from __future__ import annotations

import struct
import zlib


def damage() -> tuple[type[Exception], ...]:
    """The exceptions of a reader that was misled; pyelftools is imported when they are asked for."""
    from elftools.common.exceptions import DWARFError, ELFError
    from elftools.construct import ConstructError

    return (DWARFError, ELFError, ConstructError, struct.error, zlib.error, ArithmeticError, AssertionError,
            AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
