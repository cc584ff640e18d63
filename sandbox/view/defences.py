"""Attacks against defences: what becomes of a program that attacks the heap, and a table of all of it.

An attack is a program whose ``main`` returns 0 when it has got what it wants, and another number when it has come to
nothing. Whatever speaks up, it does so inside some call of the program; the nearest label of the program in front of
that instruction is where the attack is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ShadowError
from ..guest.outcome import RunKind
from ..kernel import Kernel

LIMIT = 10_000_000
"""Instructions that an attack may take."""
REPORT = "count_report"
"""The kernel's function through which every report of slab_debug goes."""
SUCCEEDS, FAILS = "succeeds", "fails"
_WORDS = {RunKind.SUCCESS: SUCCEEDS, RunKind.FAILURE: FAILS}


@dataclass(frozen=True)
class Outcome:
    """What became of an attack.

    ``end``
        ``succeeds``, ``fails``, or what stopped it: ``panic``, ``fault``, ``report`` (the guest's own, after which it
        went on), or ``error``, the shadow's.
    ``label``
        The program's label at or before the instruction that was stopped or reported; empty where none was.
    ``found``
        The rules that validation finds broken afterwards, where nothing was said before.
    ``sentence``
        The message of what stopped it.
    """

    end: str
    label: str = ""
    found: tuple[str, ...] = ()
    sentence: str = ""

    @property
    def succeeds(self) -> bool:
        """Whether the attacker got what he wanted."""
        return self.end == SUCCEEDS

    def __str__(self) -> str:
        where = f" at {self.label}" if self.label else ""
        return f"{self.end}{where}{f' ({self.found[0]})' if self.found else ''}"


def attack(kernel: Kernel) -> Outcome:
    """Run a booted attack to its end."""
    reports: list[str] = []
    hook = kernel.machine.cpu.hook_code([int(kernel.symbols[REPORT])],
                                        lambda _: reports.append(_label(kernel, kernel.backtrace())))
    try:
        result = kernel.run(LIMIT)
    finally:
        hook.remove()
    error = result.error
    if isinstance(error, ShadowError):
        return Outcome("error", _label(kernel, error.backtrace), sentence=str(error))
    if error is not None:
        return Outcome(str(result.kind), _label(kernel, error.backtrace), sentence=str(error))
    if reports and result.kind is RunKind.FAILURE:
        return Outcome("report", reports[0], sentence=_first_report(kernel.console))
    found = tuple(dict.fromkeys(violation.rule for violation in kernel.heap.validate()))
    return Outcome(_WORDS.get(result.kind, str(result.kind)), found=found, sentence=str(result))


def _label(kernel: Kernel, backtrace: Sequence[str]) -> str:
    """The label in the program's innermost frame."""
    names = (frame.split()[0].partition("+")[0] for frame in backtrace)
    return next((name for name in names if kernel.program is not None and name in kernel.program.symbols), "")


def _first_report(console: str) -> str:
    return next((line for line in console.splitlines() if line.startswith("BUG ")), "")


def table(outcomes: Mapping[str, Mapping[str, Outcome]]) -> Iterator[str]:
    """Lines of a table: a row for each defence, a column for each attack; ``outcomes[defence][attack]``."""
    attacks = list(dict.fromkeys(name for row in outcomes.values() for name in row))
    rows = [["", *attacks], *([defence, *(str(row[name]) if name in row else "" for name in attacks)]
                              for defence, row in outcomes.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
