"""What is found wrong with an allocator, and what was measured: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .operations import Operation


class Finding(NamedTuple):
    """One thing that is wrong: ``line`` is the property that does not hold, ``way`` a word for how, by which two
    failures are the same; ``number`` of the operation, from 0, -1 for ``init``; ``fatal`` when nothing could follow."""

    line: str
    way: str
    number: int
    reason: str
    fatal: bool = False


class Measured(NamedTuple):
    """One call that came back: the function, its instructions, and for an allocation whether it was served."""

    role: str
    instructions: int
    served: bool = True


@dataclass
class Play:
    """How a script went.

    ``done``: operations that were carried out; ``served``: one mapping a round, from the numbers of operations to the
    pointers that they were answered with; ``pages``: its own that the allocator wrote or handed out, without the
    ``init_pages`` of ``init``; ``peak_bytes``: the most that was held, when ``peak_pages`` had ever been handed out;
    ``given_back``: pages that went back to the page allocator;
    ``answer``: how a free that must be refused was answered, ``panic: its words``, ``refused`` or ``taken``;
    ``hint``: where the allocator first read what a caller holds, when somebody wanted to know.
    """

    script: str
    operations: tuple[Operation, ...]
    findings: list[Finding] = field(default_factory=list)
    calls: list[Measured] = field(default_factory=list)
    served: list[dict[int, int]] = field(default_factory=list)
    done: int = 0
    pages: int = 0
    init_pages: int = 0
    given_back: int = 0
    peak_bytes: int = 0
    peak_pages: int = 0
    answer: str = ""
    hint: str = ""

    @property
    def fatal(self) -> Finding | None:
        """What ended it before its end."""
        return next((finding for finding in self.findings if finding.fatal), None)

    def found(self, line: str) -> Finding | None:
        """The first finding of a property."""
        return next((finding for finding in self.findings if finding.line == line), None)
