"""Circular lists whose every link may be garbage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...abi import list_head

_PREV = list_head.prev.offset
Links = Callable[[int], "tuple[int, int] | None"]
"""From the address of a link to its ``next`` and ``prev``; None where no link of this kind can be."""


@dataclass(frozen=True)
class Ring:
    """What walking a ``struct list_head`` found: the addresses of the links behind the head, in order, and the first
    link that is wrong, as the address of the wrong word and a clause that says why. Behind a wrong link the entries
    are those that can be reached from the other end."""

    head: int
    entries: tuple[int, ...]
    wrong: tuple[int, str] | None

    @property
    def sound(self) -> bool:
        """Whether the walk came back to the head, and every ``prev`` was right."""
        return self.wrong is None


def walk(links: Links, head: int, limit: int) -> Ring:
    """Follow ``next`` from the head until it comes back; or, where a link is wrong, ``prev`` from the other side."""
    entries: dict[int, None] = {}
    previous, here = head, links(head)
    wrong = None if here else (head, "the list's head cannot be read")
    while here is not None:
        at = here[0]
        there = links(at)
        if there is None:
            wrong = previous, f"next is 0x{at:x}, which is no link of this list"
        elif there[1] != previous:
            wrong = _culprit(links, previous, at, there[1])
        elif at != head and (at in entries or len(entries) >= limit):
            wrong = previous, f"next leads back to 0x{at:x}, not to the head"
        if wrong or at == head:
            break
        entries[at] = None
        previous, here = at, there
    if wrong:
        entries = dict.fromkeys([*entries, *reversed(_backwards(links, head, entries, limit))])
    return Ring(head, tuple(entries), wrong)


def _backwards(links: Links, head: int, known: dict[int, None], limit: int) -> list[int]:
    """The entries that ``prev`` leads to from the head, last first, as long as their ``next`` agrees."""
    found: list[int] = []
    previous, here = head, links(head)
    while here is not None and len(found) < limit:
        at = here[1]
        there = links(at)
        if there is None or there[0] != previous or at == head or at in known:
            break
        found.append(at)
        previous, here = at, there
    return found


def _culprit(links: Links, previous: int, at: int, says: int) -> tuple[int, str]:
    """``previous.next`` is ``at`` and ``at.prev`` says something else. When what it says agrees with it and leads
    back to ``previous``, an entry was jumped over and ``next`` is the wrong one; else it is ``prev``."""
    between = links(says)
    if between is not None and between[0] == at and says != previous:
        return previous, f"next is 0x{at:x}, whose prev is 0x{says:x}"
    return at + _PREV, f"prev is 0x{says:x}, and the entry before is 0x{previous:x}"
