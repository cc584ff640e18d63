"""What every group of claims stands on: calls, and looks at the heap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from sandbox import errors
from sandbox.abi import page
from sandbox.heap.caches import KmemCache
from sandbox.kernel import Kernel

from .booted import Caller, judge


class Claims(Caller, ABC):
    """A group of claims about one kernel; each leaves everything as it was, for the judge and for the next."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.memory = kernel.memory

    def cache(self, name: str) -> KmemCache:
        return self.kernel.heap.cache(name)

    def create(self, name: str, size: int, align: int = 0, flags: int = 0, ctor: int = 0) -> int:
        return self.call("kmem_cache_create", name, size, align, flags, ctor)

    def free(self) -> int:
        return self.kernel.heap.pages.counts().free

    def page(self, number: int) -> page:
        return page(self.memory, self.memory.u64(self.kernel.symbols["mem_map"]) + number * page.size)

    def shrink_all(self) -> None:
        for cache in [*self.kernel.heap.caches, self.cache("magazine"), self.cache("kmem_cache")]:
            self.call("kmem_cache_shrink", cache.address)

    # -- boot -------------------------------------------------------------------------------------------------

    def panics(self, function: str, arguments: tuple[int, ...], words: str) -> None:
        try:
            self.call(function, *arguments)
        except errors.GuestPanic as panic:
            assert panic.message.startswith(words), panic.message
            self.kernel.rewind()
        else:
            raise AssertionError(f"{function}{arguments} did not panic")

    @abstractmethod
    def claims(self) -> tuple[Callable[[], None], ...]:
        """The group, in the order in which it is tried."""

    def hold(self) -> None:
        """Try every claim, and the heap after each."""
        for claim in self.claims():
            claim()
            judge(self.kernel)
