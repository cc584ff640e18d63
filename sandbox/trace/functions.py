"""The functions that are traced, and what their arguments and results mean.

One row for each entry point of the allocator. A function that the kernel does not define is left out, so that the
same table serves a kernel with fewer of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What an event is; the text is what traces and JSON say."""

    PAGE_ALLOC = "page_alloc"
    PAGE_FREE = "page_free"
    CACHE_CREATE = "cache_create"
    CACHE_DESTROY = "cache_destroy"
    SLAB_CREATE = "slab_create"
    SLAB_DESTROY = "slab_destroy"
    ALLOC = "alloc"
    FREE = "free"
    REALLOC = "realloc"

    def __str__(self) -> str:
        return self.value


KINDS = tuple(kind.value for kind in Kind)
"""The nine kinds, as text."""


@dataclass(frozen=True)
class Traced:
    """A traced function. The numbers are positions of arguments (0 is RDI, 1 is RSI, ...), None for none.

    ``object``: the address of what is freed or reallocated; ``cache``: a ``struct kmem_cache *``; ``size``: the
    bytes that are asked for, ``times`` another argument where there is one; ``order``: of a block of pages; ``count``
    and ``array``: how many objects, and where their addresses are; ``out``: where the address of what was allocated is
    stored, by a function that returns 0 or an error number; ``returns`` is false for a function whose RAX means
    nothing, and ``refused`` are its values for a free that was refused. ``foreign``: of an allocator of somebody else,
    of whose chunks no more is known than what was asked for.
    """

    name: str
    kind: Kind
    object: int | None = None
    cache: int | None = None
    size: int | None = None
    order: int | None = None
    count: int | None = None
    array: int | None = None
    times: int | None = None
    out: int | None = None
    returns: bool = True
    refused: frozenset[int] = frozenset()
    foreign: bool = False

    def asked(self, arguments: tuple[int, ...]) -> int | None:
        """The bytes that a call asks for, None where no argument says so."""
        if self.size is None:
            return None
        return arguments[self.size] if self.times is None else arguments[self.size] * arguments[self.times]


TRACED = (
    Traced("get_free_pages", Kind.PAGE_ALLOC, order=0),
    Traced("free_pages", Kind.PAGE_FREE, object=0, order=1, returns=False),
    Traced("kmem_cache_create", Kind.CACHE_CREATE, size=1),
    Traced("kmem_cache_destroy", Kind.CACHE_DESTROY, cache=0),
    Traced("slab_create", Kind.SLAB_CREATE, cache=0),
    Traced("slab_destroy", Kind.SLAB_DESTROY, cache=0, object=1, returns=False),
    Traced("kmem_cache_alloc", Kind.ALLOC, cache=0),
    Traced("kmem_cache_zalloc", Kind.ALLOC, cache=0),
    Traced("kmem_cache_alloc_sized", Kind.ALLOC, cache=0, size=1),
    Traced("kmalloc", Kind.ALLOC, size=0),
    Traced("kzalloc", Kind.ALLOC, size=0),
    Traced("kmem_cache_alloc_bulk", Kind.ALLOC, cache=0, count=1, array=2),
    Traced("krealloc", Kind.REALLOC, object=0, size=1),
    Traced("kmem_cache_free", Kind.FREE, cache=0, object=1, returns=False),
    Traced("kfree", Kind.FREE, object=0, returns=False),
    Traced("kmem_cache_free_bulk", Kind.FREE, cache=0, count=1, array=2, returns=False),
)

ALLOCATOR_FILES = frozenset((
    "page_alloc.asm", "slab_layout.asm", "slab.asm", "magazine.asm", "slowpath.asm", "fastpath.asm", "bulk.asm",
    "kmalloc.asm", "krealloc.asm", "kmem_cache.asm", "slab_debug.asm",
))
"""The kernel's files whose ``ret`` instructions end the traced functions."""
