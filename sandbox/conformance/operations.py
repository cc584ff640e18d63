"""Operation lists: what is done to an allocator, as plain data that can be stored, shrunk and played again.

======================== ==============================================================================================
``("allocate", n, size)`` allocate ``size`` bytes and keep them as chunk ``n``, with a pattern in every byte
``("free", n)``           check the pattern of chunk ``n`` and free it; nothing when it is not held
``("again", n)``          free the pointer of chunk ``n``, which was freed and not handed out since: a double free
``("wild", n, offset)``   free the pointer to chunk ``n`` plus ``offset``, inside it
``("wild", place, off)``  free an address that is nobody's: ``place`` is one of :data:`PLACES`
``("null",)``             free 0, which does nothing
``("stats",)``            ask for its own account, and compare
``("resize", n, size)``   reallocate chunk ``n``, and check that its bytes are there; nothing when it is not held
``("zeroed", n, c, s)``   allocate ``c`` times ``s`` bytes of zeros, and keep them as chunk ``n``
``("aligned", n, a, s)``  allocate ``s`` bytes at a multiple of ``a``, and keep them as chunk ``n``
======================== ==============================================================================================

A script is a list that is played ``rounds`` times; what is still held at the end of a round is freed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..errors import UsageError

Operation: TypeAlias = "tuple[str | int, ...]"
PLACES = ("arena", "behind the arena", "kernel text", "kernel data", "stack", "page 0", "no address")
_FIELDS = {"allocate": 2, "free": 1, "again": 1, "wild": 2, "null": 0, "stats": 0, "resize": 2, "zeroed": 3,
           "aligned": 3}


class Script(NamedTuple):
    """A list of operations with a name. ``promises``: what is served in the first round must be in the others."""

    name: str
    operations: tuple[Operation, ...]
    rounds: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "operations": [list(operation) for operation in self.operations],
                "rounds": self.rounds}

    @classmethod
    def from_dict(cls, data: Any) -> Script:
        """Read what :meth:`to_dict` made; :class:`UsageError` for anything else."""
        try:
            name, rounds = data["name"], data.get("rounds", 1)
            operations = tuple(_checked(operation) for operation in data["operations"])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UsageError(f"not a list of operations: {error!r}") from None
        if type(rounds) is not int or rounds < 1:
            raise UsageError(f"a list is played a number of times, not {rounds!r}")
        return cls(str(name), operations, rounds)


def _checked(operation: Sequence[str | int]) -> Operation:
    kind, *values = operation
    if _FIELDS.get(str(kind)) != len(values):
        raise UsageError(f"{list(operation)!r} is no operation: they are {', '.join(_FIELDS)}")
    for place, value in enumerate(values):
        named = kind == "wild" and place == 0 and value in PLACES
        if not named and (type(value) is not int or (value < 0 and kind != "wild")):
            raise UsageError(f"{list(operation)!r} is no operation: {value!r} is not what belongs there")
    return (kind, *values)


def describe(operation: Operation) -> str:
    """An operation as a call, for a sentence."""
    kind, *values = operation
    if kind == "allocate":
        size = int(values[1])
        return f"allocate({size if size < 1 << 31 else hex(size)}) for chunk {values[0]}"
    if kind == "free":
        return f"deallocate of chunk {values[0]}"
    if kind == "again":
        return f"second deallocate of chunk {values[0]}"
    if kind == "wild":
        where = f"chunk {values[0]}" if isinstance(values[0], int) else str(values[0])
        return f"deallocate of {where} {int(values[1]):+d}" if values[1] else f"deallocate of {where}"
    if kind == "resize":
        return f"reallocate of chunk {values[0]} to {values[1]}"
    if kind in ("zeroed", "aligned"):
        return f"allocate_{kind}({', '.join(str(value) for value in values[1:])}) for chunk {values[0]}"
    return {"null": "deallocate(0)", "stats": "stats"}[str(kind)]


def allocations(operations: Iterable[Operation]) -> int:
    """How many of them allocate."""
    return sum(operation[0] == "allocate" for operation in operations)
