"""What is known about compilers and sources from before: JSON in the user's cache.

What is damaged is not there; a directory that cannot be written is no error. A value counts for this version of the
code that makes it alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..cache import hash_of, user_store

_MAKERS = ("compiler", "find", "flags", "includes", "inline_assembly", "object_cache", "process")
"""The modules beside this one that decide what a value is."""


@cache
def _code() -> str:
    return hash_of(b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _MAKERS))


def name_of(kind: str, *parts: object) -> str:
    """What the value for these ``parts``, which JSON can write, is called."""
    return f"{kind}-{hash_of(json.dumps([_code(), *parts]).encode())}"


def load(name: str) -> dict[str, Any] | None:
    """The value of this name; None when there is none that can be read."""
    store = user_store()
    if store is None:
        return None
    try:
        value = json.loads((store.directory / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def save(name: str, value: Mapping[str, object]) -> None:
    """Keep a value where that is possible."""
    store = user_store()
    if store is not None:
        with contextlib.suppress(OSError, ValueError):
            store.write(name, json.dumps(value, separators=(",", ":")))
