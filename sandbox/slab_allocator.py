"""The first interface: ``SlabAllocator`` with ``new``, ``allocate``, ``deallocate`` and ``stats``.

This project grew from an allocator with these four names, and with ``Slab`` and ``SlabBlock`` (a pointer, and
whether it is free). The door is kept; behind it the calls go to ``kmalloc`` and ``kfree`` of a booted kernel, and
slabs and blocks are what the views of :mod:`sandbox.heap.views` read from guest memory::

    allocator = sandbox.SlabAllocator.new()
    pointer = allocator.allocate(64)
    allocator.deallocate(pointer)
    allocator.stats().in_use                  # 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .abi import SlabFlag
from .address import VirtAddr
from .errors import UsageError
from .heap.caches import KmemCache
from .heap.slabs import HeapObject, ObjectState
from .heap.slabs import Slab as SlabView
from .kernel import Kernel, boot


@dataclass(frozen=True)
class SlabStats:
    """The allocator in numbers: objects of the kmalloc caches, then pages and bytes.

    ``total`` = ``in_use`` (held by the caller) + ``cached`` (in magazines) + ``free`` (in their slabs).
    """

    total: int
    in_use: int
    cached: int
    free: int
    slabs: int
    full_slabs: int
    partial_slabs: int
    empty_slabs: int
    large: int
    """Allocations that were too large for the caches and got whole pages."""
    bytes_in_use: int
    """Usable bytes of all that is held, large allocations included."""
    bytes_total: int
    """Bytes of RAM in slabs and large allocations, of all caches."""
    pages_free: int
    """Pages of 4096 bytes that belong to nobody."""


@dataclass(frozen=True)
class SlabBlock:
    """A block of a slab: its ``pointer``, and whether it ``is_free``, asked of guest memory each time."""

    view: HeapObject

    @property
    def pointer(self) -> VirtAddr:
        """The address that ``allocate`` gives for it."""
        return VirtAddr(self.view.address)

    @property
    def is_free(self) -> bool:
        """Whether nobody holds it: it is in its slab, or in a magazine."""
        return self.view.state is not ObjectState.ALLOCATED


@dataclass(frozen=True)
class Slab:
    """A slab: blocks of one size, one behind the other."""

    view: SlabView

    @property
    def pointer(self) -> VirtAddr:
        """Its first byte."""
        return VirtAddr(self.view.address)

    @property
    def block_size(self) -> int:
        """Usable bytes of each block."""
        return self.view.cache.object_size

    @property
    def blocks(self) -> tuple[SlabBlock, ...]:
        """All its blocks, in order of address."""
        return tuple(map(SlabBlock, self.view.objects))


class SlabAllocator:
    """``kmalloc`` and ``kfree`` of ``kernel`` under the first names."""

    def __init__(self, kernel: Kernel | None = None) -> None:
        if not isinstance(kernel, Kernel):
            raise UsageError("an allocator works on a kernel: SlabAllocator.new() boots one")
        self.kernel = kernel

    @classmethod
    def new(cls, **options: Any) -> SlabAllocator:
        """An allocator on a freshly booted machine; ``options`` are those of :func:`sandbox.boot`."""
        return cls(boot(**options))

    def allocate(self, size: int) -> VirtAddr | None:
        """At least ``size`` bytes of guest memory, or None when no page is left.

        ``allocate(0)`` is ``ZERO_SIZE_PTR`` (0x10), which owns no byte and may be given back.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise UsageError(f"a size is a number of bytes, not {size!r}")
        pointer = self.kernel.call("kmalloc", size)
        return VirtAddr(pointer) if pointer else None

    def deallocate(self, pointer: int | None) -> None:
        """Give back what :meth:`allocate` returned; None and ``ZERO_SIZE_PTR`` are accepted.

        A pointer that the allocator can see to be wrong raises :class:`~sandbox.errors.GuestPanic`; then call
        :meth:`rewind`.
        """
        self.kernel.call("kfree", pointer or 0)

    def rewind(self) -> None:
        """Go back to before the call that raised: until then the allocator takes no other."""
        self.kernel.rewind()

    def stats(self) -> SlabStats:
        """The allocator in numbers, counted in guest memory now."""
        heap = self.kernel.heap
        caches = self._caches()
        large = heap.large_allocations
        in_use = {cache: cache.inuse for cache in caches}
        return SlabStats(
            total=sum(cache.total for cache in caches), in_use=sum(in_use.values()),
            cached=sum(cache.cached for cache in caches), free=sum(cache.free for cache in caches),
            slabs=sum(len(cache.slabs) for cache in caches), full_slabs=sum(len(cache.full) for cache in caches),
            partial_slabs=sum(len(cache.partial) for cache in caches),
            empty_slabs=sum(len(cache.empty) for cache in caches), large=len(large),
            bytes_in_use=sum(cache.object_size * held for cache, held in in_use.items()) + sum(x.size for x in large),
            bytes_total=heap.reserved_bytes, pages_free=heap.pages.counts().free)

    @property
    def slabs(self) -> tuple[Slab, ...]:
        """Every slab that serves :meth:`allocate`, smaller blocks first."""
        return tuple(Slab(slab) for cache in self._caches() for slab in cache.slabs)

    def _caches(self) -> list[KmemCache]:
        """The caches behind ``kmalloc``, smaller objects first."""
        return [cache for cache in self.kernel.heap.caches if SlabFlag.SLAB_KMALLOC in cache.flags]

    def close(self) -> None:
        """Give the machine's memory back."""
        self.kernel.close()

    def __enter__(self) -> SlabAllocator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
