"""What a judge says: a violation of one rule, at one address; and the order in which causes come before effects."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS: tuple[tuple[str, ...], ...] = (
    ("memory-map",),
    ("lock-held",),
    ("free-live", "magazine-live"),
    ("cache-fields",),
    ("left-red-zone", "right-red-zone", "kmalloc-red-zone", "requested-size", "alignment-padding", "poison",
     "end-poison", "object-padding", "slab-padding", "free-pointer"),
    ("page-two-owners", "block-frames", "colour", "objects-above-maximum", "object-number", "inuse-above-objects"),
    ("free-list-cycle", "free-chain"),
    ("cpu-slot", "magazine-bounds", "magazine-owner", "depot-links", "magazine-foreign", "magazine-free",
     "magazine-twice"),
    ("object-count",),
    ("list-links", "wrong-list", "lost-slab", "lost-structure"),
    ("buddy-block", "buddy-overlap", "buddy-unmerged"),
    ("lost-page",),
    ("counters",),
)
"""The names of all rules. What an earlier group says can be the cause of what a later one says, not the other way
round; inside a group, what lies at the lowest address comes first, as memory is overwritten upwards."""

_RANK = {rule: rank for rank, group in enumerate(GROUPS) for rule in group}


@dataclass(frozen=True)
class Violation:
    """One rule that the heap's bytes break.

    ``rule`` is the rule's name, ``address`` the first wrong byte, ``cache`` the name of the cache that it belongs to
    and ``object`` the address of the object, both None where there is none. ``str()`` is one sentence.
    """

    rule: str
    address: int
    cache: str | None
    object: int | None
    message: str

    def __str__(self) -> str:
        return f"0x{self.address:016x}: {self.rule}: {self.message}"


def in_order_of_cause(found: list[Violation]) -> list[Violation]:
    """Causes first; each violation once."""
    once = dict.fromkeys(found)
    return sorted(once, key=lambda violation: (_RANK[violation.rule], violation.address))


class Report:
    """Where judges put what they find."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, rule: str, address: int, message: str, cache: str | None = None, object: int | None = None) -> None:
        """One more violation."""
        self.found.append(Violation(rule, address, cache, object, message))
