"""Files of C as somebody names them, and the slots of the guest that they are linked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...abi import ALLOCATOR_BASE, HEAP_SLOT, HEAPS_BASE, MODULES_BASE, PROGRAM_BASE

SUFFIXES = (".c", ".o")
OTHERS = {".cc": "C++", ".cpp": "C++", ".cxx": "C++", ".C": "C++", ".h": "a header", ".S": "assembly for cpp",
          ".s": "assembly for GNU as"}
"""Files that are often meant to be programs, and what they are."""
_MAGIC = (b"\x7fELF", b"!<arch>\n")


@dataclass(frozen=True)
class CFile:
    """A C source or an object: where it is, and what it is called in messages."""

    path: Path
    shown: str


def is_c(path: Path | str) -> bool:
    """Whether a file is C, or an object: by its name, or by how it begins."""
    if Path(path).suffix in (*SUFFIXES, ".asm"):
        return Path(path).suffix != ".asm"
    try:
        with Path(path).open("rb") as file:
            return file.read(8).startswith(_MAGIC)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Slot:
    """Where an image is linked, and which part of the heaps' range its C library uses."""

    base: int
    heap: int


PROGRAM = Slot(PROGRAM_BASE, HEAPS_BASE)
MODULES = Slot(MODULES_BASE, HEAPS_BASE + HEAP_SLOT)
ALLOCATOR = Slot(ALLOCATOR_BASE, HEAPS_BASE + 2 * HEAP_SLOT)
