"""One name: what lies at an address, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..abi import list_head
from ..heap.whatis import part_of
from ..layout import Struct


@dataclass(frozen=True)
class Name:
    """What lies at ``address``; ``text`` names it. Of a byte that an image or a stack has, it is the address there,
    not that in the direct map.

    ``structure`` is a kind: ``kmem_cache page magazine kmem_cache_cpu percpu boot_info variable object free-pointer
    red-zone track padding slab large block free-block stack guard-page page-table text rodata reserved frame hole
    null zero-size unmapped non-canonical``. The whole thing has ``size`` bytes from ``start`` on; the piece of it that
    has a name of its own, ``field``, has ``width`` bytes from ``at`` on. ``struct`` is its declaration where it has
    one, ``owner`` the heap's view of it, and ``detail`` adds a few words.
    """

    address: int
    text: str
    structure: str
    start: int
    size: int
    field: str = ""
    at: int = -1
    width: int = 0
    detail: str = ""
    whole: str = ""
    struct: type[Struct] | None = None
    owner: object = None

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text

    @property
    def offset(self) -> int:
        """How far ``address`` lies behind the beginning of the whole thing."""
        return self.address - self.start


def plus(offset: int) -> str:
    """`` +0x10``, and nothing for 0."""
    return f" +{offset:#x}" if offset else ""


def blob(address: int, text: str, structure: str, start: int, size: int, *, detail: str = "",
         owner: object = None) -> Name:
    """A name for a byte of a thing without fields: its offset stands behind it."""
    return Name(address, f"{text}{plus(address - start)}", structure, start, size, "", start, size, detail, text, None,
                owner)


def field_of(struct: type[Struct], address: int, start: int, whole: str, structure: str, *, detail: str = "",
             owner: object = None, text: Callable[[str], str] | None = None, size: int = 0) -> Name:
    """A name for a byte of a structure at ``start``: ``whole.field``, or what ``text`` makes of the field.

    The first link of a list goes by the name of the list.
    """
    part = part_of(struct, address - start)
    shown = part.name or "padding"
    if part.within is list_head and shown.endswith(".next"):
        shown = shown.removesuffix(".next")
    elif struct is list_head and shown == "next":
        shown = ""
    into = address - start - part.offset
    named = text(shown) if text else f"{whole}.{shown}" if shown else whole
    return Name(address, named + (f"+{into}" if into else ""), structure, start, size or struct.size, part.name,
                start + part.offset, part.size, detail, whole, struct, owner)
