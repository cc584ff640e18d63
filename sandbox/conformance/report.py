"""The report of a conformance check: frozen, plain data; the names of lines and the keys of figures are stable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .operations import Script

Figure: TypeAlias = "int | float"
LINES: dict[str, str] = {
    "returns": "every call returns: none panics, faults, exits, halts or runs for ever",
    "alignment": "memory is aligned to 16 bytes, to 8 below 16",
    "overlap": "no two chunks share a byte, and the allocator writes into none that is held",
    "confined": "it hands out and writes its arena and its own data alone",
    "registers": "callee-saved registers come back unchanged",
    "sizes": "size 0, impossible sizes and a null pointer are answered",
    "reuse": "what was freed is handed out again",
    "exhaustion": "when nothing is left it says so, and goes on when memory came back",
    "double_free": "freeing a chunk twice is refused, or is a panic",
    "wild_free": "freeing what it has not handed out is refused, or is a panic",
    "leak": "after everything was freed, the same can be allocated again",
    "stats": "stats tells the truth",
    "instructions": "instructions of a call, over all workloads",
    "pages": "pages that it touches, over all workloads",
    "waste": "memory that serves nobody, over all workloads",
    "ping_pong": "workload: one chunk at a time",
    "batch": "workload: batches, freed in order",
    "lifo": "workload: a stack",
    "fifo": "workload: a queue",
    "random": "workload: any chunk may be the next to be freed",
    "two_two": "workload: two allocations, two frees, at every fill",
    "pareto": "workload: many small sizes and a few very large ones",
    "larson": "workload: slots that are replaced at random",
    "spike": "workload: a spike and its drain",
    "survivor": "workload: one survivor of every run",
    "sawtooth": "workload: up and down, higher each time",
}
"""The lines of a report in order, and what each one claims; ``stats`` is left out for an allocator that has none by
choice."""
OPTIONAL: dict[str, str] = {
    "resize": "a chunk that is resized keeps its bytes, also where no other can be had",
    "zeroed": "zeroed memory is zero, and a product that no number has is answered",
    "aligned": "memory is aligned as it was asked for",
}
"""More lines, of an allocator that has the function for it. The default rubric gives no points for them."""
ROLE_OF = {"resize": "reallocate", "zeroed": "allocate_zeroed", "aligned": "allocate_aligned", "stats": "stats"}
"""The function that a line is about, where the line is there only with it."""


@dataclass(frozen=True)
class Line:
    """One line: ``reason`` is empty when it passed, else one sentence. ``figures`` are numbers by stable keys.

    ``broken`` is the property that does not hold, for a workload too. ``script`` is the shortest list of operations
    that fails so, None where there is none; ``again`` is false when the list did not fail a second time.
    """

    name: str
    claim: str
    passed: bool
    reason: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    script: Script | None = None
    again: bool = True
    broken: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "claim": self.claim, "passed": self.passed, "reason": self.reason,
                "figures": dict(self.figures), "again": self.again, "broken": self.broken,
                "script": None if self.script is None else self.script.to_dict()}


@dataclass(frozen=True)
class Report:
    """What a check found. ``options`` are the allocator's (:class:`~sandbox.guest.allocator.AllocatorOptions`), and
    what was chosen for its making: ``modules``, its other files, ``cc`` and ``cflags``; and ``ram``, the bytes of the
    machine where it needs more than usual."""

    allocator: str
    seed: int
    options: Mapping[str, Any]
    lines: tuple[Line, ...]

    @property
    def passed(self) -> bool:
        """Whether every line did."""
        return all(line.passed for line in self.lines)

    @property
    def failed(self) -> tuple[Line, ...]:
        """The lines that did not."""
        return tuple(line for line in self.lines if not line.passed)

    def __getitem__(self, name: str) -> Line:
        """A line by its name; ``KeyError`` for one that there is not."""
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"allocator": self.allocator, "seed": self.seed, "passed": self.passed, "options": dict(self.options),
                "lines": [line.to_dict() for line in self.lines]}
