"""Files of C as somebody names them, and the slots of the guest that they are linked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...abi import ALLOCATOR_BASE, HEAP_SLOT, HEAPS_BASE, MODULES_BASE, PROGRAM_BASE

SUFFIXES = (".c", ".o")


@dataclass(frozen=True)
class CFile:
    """A C source or an object: where it is, and what it is called in messages."""

    path: Path
    shown: str


def is_c(path: Path | str) -> bool:
    """Whether a file is C, or an object."""
    return Path(path).suffix in SUFFIXES


@dataclass(frozen=True)
class Slot:
    """Where an image is linked, and which part of the heaps' range its C library uses."""

    base: int
    heap: int


PROGRAM = Slot(PROGRAM_BASE, HEAPS_BASE)
MODULES = Slot(MODULES_BASE, HEAPS_BASE + HEAP_SLOT)
ALLOCATOR = Slot(ALLOCATOR_BASE, HEAPS_BASE + 2 * HEAP_SLOT)
