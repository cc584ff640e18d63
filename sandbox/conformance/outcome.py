"""A check and how it ended: with a report, or with the one reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import (
    AssemblyError,
    CompileError,
    CompilerMissing,
    EngineError,
    EngineHung,
    LinkError,
    ProgramError,
    SandboxError,
    UsageError,
)
from ..guest.images import Files
from ..isolated import Bounds, Child
from ..isolated.run import revived
from .check import ARENA, CALL_LIMIT, check, shown_name
from .operations import Script
from .report import Line, Report

WORKER = "sandbox.conformance.worker"
_NOT_LOADED = (AssemblyError, CompileError, LinkError, ProgramError)
SECONDS = 1800.0
"""How long the host may work at one allocator: many times what the slowest check takes, so that it never decides."""


@dataclass(frozen=True)
class CheckOptions:
    """What every allocator of a class is checked with; the fields are those of
    :func:`~sandbox.conformance.check.check`."""

    seed: int = 0
    symbols: Mapping[str, str | None] = field(default_factory=dict)
    refused: int | None = None
    arena: int | str = ARENA
    limit: int = CALL_LIMIT
    shorten: bool = True
    cc: str | None = None
    cflags: str | Sequence[str] = ""

    def keywords(self) -> dict[str, Any]:
        """The arguments of ``check``, of values that JSON knows."""
        return {"seed": self.seed, "symbols": dict(self.symbols), "refused": self.refused, "arena": self.arena,
                "limit": self.limit, "shorten": self.shorten, "cc": self.cc,
                "cflags": self.cflags if isinstance(self.cflags, str) else list(self.cflags)}


@dataclass(frozen=True)
class Outcome:
    """``report``, or None and ``error``: why there is none, in a sentence.

    ``loaded`` is false when the source itself was the reason: it is missing, does not assemble, compile or link, or
    lacks a function.
    """

    allocator: str
    seed: int
    report: Report | None
    error: str = ""
    loaded: bool = True


def outcome_of(allocator: Files, options: CheckOptions) -> Outcome:
    """Check in this process."""
    try:
        return Outcome(_name(allocator), options.seed, check(allocator, **options.keywords()))
    except SandboxError as error:
        return _failed(_name(allocator), options, error)


def isolated_outcome(allocator: Files, options: CheckOptions, bounds: Bounds | None = None) -> Outcome:
    """Check in a process of its own; whatever the allocator does to its engine ends there, and is the outcome."""
    with Child(WORKER, bounds or Bounds(seconds=SECONDS)) as child:
        return asked(child, allocator, options, Path.cwd())


def asked(child: Child, allocator: Files, options: CheckOptions, directory: Path) -> Outcome:
    """Have a process check an allocator, which is looked for in ``directory``. When the outcome was not ``loaded``,
    nothing of it was run in the process."""
    several = isinstance(allocator, Sequence) and not isinstance(allocator, str)
    named = [_packed(file) for file in allocator] if several else _packed(allocator)  # type: ignore[union-attr,arg-type]
    try:
        for message in child.ask(allocator=named, directory=str(directory), options=options.keywords()):
            if "error" in message:
                raise revived(message["error"])
            if "report" in message:
                return Outcome(_name(allocator), options.seed, _report(message["report"]))
    except SandboxError as error:
        return _failed(_name(allocator), options, error)
    return Outcome(_name(allocator), options.seed, None, "the check's process ended its answer without a report")


def _packed(file: str | Path) -> Any:
    """A file as JSON has it: a text may be the number of an example, or a source."""
    return file if isinstance(file, str) else {"path": str(file)}


def _name(allocator: Files) -> str:
    """What an outcome calls an allocator."""
    return str(allocator) if isinstance(allocator, (str, Path)) else shown_name(allocator)


def _report(data: Mapping[str, Any]) -> Report:
    """The report that ``to_dict`` made."""
    try:
        lines = tuple(Line(**{**line, "script": line["script"] and Script.from_dict(line["script"])})
                      for line in data["lines"])
        return Report(data["allocator"], data["seed"], data["options"], lines)
    except (KeyError, TypeError, UsageError) as error:
        raise EngineError(f"the check's process answered with something that is no report: {error}") from None


def _failed(allocator: str, options: CheckOptions, error: SandboxError) -> Outcome:
    """The outcome that an error is; one of the caller's own, or of this host's, is raised."""
    if isinstance(error, CompilerMissing):
        raise error
    sentence = str(error)
    if isinstance(error, AssemblyError):         # without the line's text
        sentence = f"{error.file}:{error.line}: {error.reason}"
    elif isinstance(error, EngineHung):
        sentence += " (this bound alone depends on the host; every other one is in instructions)"
    elif isinstance(error, UsageError) and not isinstance(error, ProgramError):
        raise error
    return Outcome(allocator, options.seed, None, sentence, loaded=not isinstance(error, _NOT_LOADED))
