"""The shortest list that still fails in the same way: delta debugging (Zeller and Hildebrandt, IEEE TSE 2002).

Each try is a fresh machine. What is left is 1-minimal, without any one of its operations it does not fail like that,
unless the tries were used up before.
"""

from __future__ import annotations

from collections.abc import Callable

from .operations import Operation, Script

WORK = 6_000
"""Operations that are played at most for one list: seconds."""


def shrink(script: Script, same: Callable[[Script], bool], work: int = WORK) -> tuple[Script, int]:
    """The shortest part of ``script`` for which ``same`` holds, as it does for ``script``; and what it cost."""
    left = work

    def fails(operations: tuple[Operation, ...]) -> bool:
        nonlocal left
        left -= len(operations) * script.rounds
        return left >= 0 and same(script._replace(operations=operations))

    operations = script.operations
    step = -(-len(operations) // 2)
    while step and left > 0:
        before, start = len(operations), 0
        while start < len(operations) and left > 0:
            shorter = operations[:start] + operations[start + step :]
            if shorter and fails(shorter):
                operations = shorter
            else:
                start += step
        if step > 1:
            step = min(-(-step // 2), max(len(operations) // 2, 1))
        elif len(operations) == before:
            break
    return script._replace(operations=operations), work - max(left, 0)
