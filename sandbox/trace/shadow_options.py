"""What can be asked of a shadow when a kernel boots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import UsageError


class ShadowOptions(NamedTuple):
    """How a kernel is shadowed. ``collect``: errors are kept, not raised. ``quarantine``: freed objects that wait.
    ``allocator``: the functions of an allocator of the program's own, as
    :func:`~sandbox.trace.foreign_functions.functions` reads them."""

    collect: bool = False
    quarantine: int = 0
    allocator: Mapping[str, str | int] | None = None


def shadow_options(
    shadow: bool | str, quarantine: int, allocator: Mapping[str, str | int] | None
) -> ShadowOptions | None:
    """The options of :func:`sandbox.boot`, None where no shadow is wanted; :class:`UsageError` for what cannot be."""
    if shadow not in (True, False, "collect"):
        raise UsageError(f'shadow is True, False or "collect", not {shadow!r}')
    if type(quarantine) is not int or quarantine < 0:
        raise UsageError(f"quarantine is a number of freed objects, not {quarantine!r}")
    if not shadow and (quarantine or allocator is not None):
        raise UsageError("quarantine and allocator are the shadow's: they need shadow=True")
    return ShadowOptions(shadow == "collect", quarantine, allocator) if shadow else None
