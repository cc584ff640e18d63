"""What somebody chooses about the compiler."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UsageError


@dataclass(frozen=True)
class COptions:
    """``cc`` is the compiler's command, None for the first that is here; ``flags`` are put behind ours."""

    cc: str | None = None
    flags: tuple[str, ...] = ()


DEFAULT = COptions()
"""Any compiler, with our flags."""


def c_options(cc: str | None = None, cflags: str | Sequence[str] = "") -> COptions:
    """The options of :func:`sandbox.boot`; a text is split as a shell does it."""
    if cc is not None and not (isinstance(cc, str) and cc.strip()):
        raise UsageError(f"cc is a compiler's command, not {cc!r}")
    if not isinstance(cflags, str):
        if not isinstance(cflags, Sequence) or any(not isinstance(flag, str) for flag in cflags):
            raise UsageError(f"cflags are flags for a compiler, not {cflags!r}")
        return COptions(cc, tuple(cflags))
    try:
        return COptions(cc, tuple(shlex.split(cflags)))
    except ValueError as error:
        raise UsageError(f"cflags cannot be split into flags ({error}): {cflags!r}") from None
