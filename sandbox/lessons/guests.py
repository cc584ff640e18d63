"""What the questions ask: quiet guests, their objects, a cache of the quiz's own."""

from __future__ import annotations

from typing import Any

from ..abi import SlabFlag
from ..errors import EngineError
from ..guest.guest import Snapshot
from ..heap.caches import KmemCache
from ..heap.slabs import HeapObject
from ..kernel import Kernel, boot


class Guests:
    """Booted guests without timer ticks, which do what they are asked and nothing else. One for each program and its
    options is kept, and begins anew each time. Use it in a ``with`` block, which gives their emulators back."""

    def __init__(self) -> None:
        self._booted: dict[object, tuple[Kernel, Snapshot]] = {}

    def quiet(self, program: str | None = None, **options: Any) -> Kernel:
        """A guest as it is right after boot; the one that was asked for before with the same words is over then."""
        key = program, *sorted(options.items())
        if key not in self._booted:
            kernel = boot(program, hz=0, **options)
            self._booted[key] = kernel, kernel.snapshot()
        kernel, start = self._booted[key]
        kernel.restore(start)
        return kernel

    def __enter__(self) -> Guests:
        return self

    def __exit__(self, *exception: object) -> None:
        for kernel, _ in self._booted.values():
            kernel.close()


def allocated(kernel: Kernel, size: int) -> HeapObject:
    """The object that ``kmalloc(size)`` gives, for a size of the caches."""
    found = kernel.heap.find(kernel.call("kmalloc", size))
    if not isinstance(found, HeapObject):
        raise EngineError(f"kmalloc({size}) gave no object: {found}")
    return found


def new_cache(kernel: Kernel, size: int, constructor: int = 0) -> KmemCache:
    """A cache of the quiz's own, without magazines."""
    kernel.call("kmem_cache_create", "quiz", size, 0, int(SlabFlag.SLAB_NO_MAGAZINES), constructor)
    return kernel.heap.cache("quiz")
