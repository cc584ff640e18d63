"""The C compilers of this host, for tests that compile."""

from __future__ import annotations

from functools import cache

import pytest

from sandbox.errors import EngineError
from sandbox.toolchain.c.find import find_compiler


@cache
def is_here(cc: str | None = None) -> bool:
    """Whether a compiler is here; without a name, any one."""
    try:
        find_compiler(cc)
    except EngineError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not is_here(), reason="no C compiler is here")
