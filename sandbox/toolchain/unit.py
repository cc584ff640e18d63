"""The statements of one expanded program: what lies between the source and the assembler."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import AssemblyError
from .expression import Linear
from .operands import Instruction
from .source import SourceLine

SECTION_NAMES = ("text", "rodata", "data", "bss")


@dataclass(frozen=True)
class Fixup:
    """The value of an expression goes into ``width`` bytes at ``offset``."""

    offset: int
    width: int
    value: Linear
    line: SourceLine


@dataclass(frozen=True)
class Code:
    """One instruction."""

    instruction: Instruction
    line: SourceLine
    statement: str
    bits: int = 64

    def error(self, reason: str) -> AssemblyError:
        """The error that blames this instruction, shown where a macro made it."""
        inside = "" if self.statement in self.line.text else f" (in {self.statement!r})"
        return self.line.error(f"{reason}{inside}")


@dataclass(frozen=True)
class Blob:
    """Data, in the text or in a data section; ``start`` is its offset in a data section."""

    data: bytes
    line: SourceLine
    fixups: tuple[Fixup, ...] = ()
    start: int = 0


@dataclass(frozen=True)
class Align:
    """Padding in the text up to a multiple of 2^``power``, with one byte value or with no-operations."""

    power: int
    fill: int | None
    line: SourceLine


@dataclass(frozen=True)
class Mode:
    """The code from here on is for 32 or 64 bits."""

    bits: int


@dataclass(frozen=True)
class Label:
    """A label at this place of the text."""

    name: str


@dataclass
class Unit:
    """The expanded program: the text as items in order; the other sections as blobs at known offsets."""

    text: list[Code | Blob | Align | Label | Mode] = field(default_factory=list)
    blobs: dict[str, list[Blob]] = field(default_factory=lambda: {name: [] for name in SECTION_NAMES[1:]})
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SECTION_NAMES[1:], 0))
    alignment: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SECTION_NAMES[1:], 64))
    """What a section's start must be a multiple of: a cache line, or the largest alignment in it."""
    labels: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where each label is: its section and, outside the text, its offset there."""
    places: dict[str, SourceLine] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    dependencies: dict[Path, bytes] = field(default_factory=dict)
    """The files that were included, resolved, and their bytes."""
    used: dict[str, SourceLine] = field(default_factory=dict)
    """Every name that is no constant at its first use: labels, externs, or nothing that exists."""
