"""Claims about magazines: what a warm pair costs, how many objects stay, and interrupts at every instruction."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.abi import DEPOT_LIMIT, IRQ_BASE, TIMER_IRQ

from .booted import judge
from .claims import Claims


class MagazineClaims(Claims):
    """Magazines."""

    def claims(self) -> tuple[Callable[[], None], ...]:
        return (self.magazines, self.magazine_limits, self.interrupts, self.drained)

    def magazines(self) -> None:
        """A warm pair touches nothing but the loaded magazine."""
        cache = self.cache("kmalloc-64")
        first = self.call("kmalloc", 64)
        self.call("kfree", first)
        before = [getattr(cache, name) for name in
                  ("alloc_slowpath", "free_slowpath", "alloc_fastpath", "free_fastpath", "inuse", "cached")]
        for _ in range(5):
            assert self.call("kmalloc", 64) == first
            self.call("kfree", first)
        after = [getattr(cache, name) for name in
                 ("alloc_slowpath", "free_slowpath", "alloc_fastpath", "free_fastpath", "inuse", "cached")]
        assert [late - early for late, early in zip(after, before, strict=True)] == [0, 0, 5, 5, 0, 0]

    def magazine_limits(self) -> None:
        """As many objects as fill the depot and more, up and down and up again."""
        for name, size in (("big", 1100), ("small", 40)):
            at = self.create(name, size)
            cache = self.cache(name)
            rounds = cache.rounds
            count = (DEPOT_LIMIT + 4) * rounds
            held = [self.call("kmem_cache_alloc", at) for _ in range(count)]
            assert len(set(held)) == count == cache.inuse
            slow = cache.alloc_slowpath
            assert slow <= count // rounds * 2 + cache.total // cache.objects_per_slab + 2
            for item in held:
                self.call("kmem_cache_free", at, item)
                assert cache.nr_depot_full <= DEPOT_LIMIT
            assert (cache.nr_depot_full, cache.inuse, cache.cached) == (DEPOT_LIMIT, 0, cache.cached)
            assert cache.cached >= DEPOT_LIMIT * rounds
            assert cache.free_slowpath <= 2 * (DEPOT_LIMIT + 4)
            assert cache.exchanges >= DEPOT_LIMIT
            judge(self.kernel)
            last = held[-1]
            assert self.call("kmem_cache_alloc", at) == last       # last in, first out
            self.call("kmem_cache_free", at, last)
            again = [self.call("kmem_cache_alloc", at) for _ in range(count)]
            assert set(held[-rounds:]) <= set(again[: 2 * rounds])
            judge(self.kernel, tuple(again))
            for item in again:
                self.call("kmem_cache_free", at, item)
            assert self.call("kmem_cache_shrink", at) == 0 == cache.total
            assert cache.magazines == () and cache.cached == 0
            assert self.call("kmem_cache_destroy", at) == 0
        assert self.cache("magazine").inuse == sum(
            len(cache.magazines) for cache in self.kernel.heap.caches)

    # -- slabs ------------------------------------------------------------------------------------------------

    def interrupts(self) -> None:
        """A tick at each instruction of a pair; the counts of both paths stay right, and nothing is lost."""
        for offset in range(44):
            self.kernel.interrupt_at(self.kernel.instructions + 1 + offset, 0)
            item = self.call("kmalloc", 96)
            self.call("kfree", item)
        assert self.cache("kmalloc-96").inuse == 0

    def drained(self) -> None:
        """An interrupt at each instruction of the slow paths takes away the magazines that they were about to use."""
        at = self.create("drained", 56)
        symbols = self.kernel.symbols
        self.memory.write_u64(symbols["victim"], at)
        before = self.kernel.call("set_trap_handler", IRQ_BASE + TIMER_IRQ, symbols["on_tick"])
        cache, array = self.cache("drained"), bytearray(24)
        ticks = self.memory.u64(symbols["ticks"])
        offset = moments = 0
        while self.memory.u64(symbols["ticks"]) >= ticks + moments:
            self.call("kmem_cache_shrink", at)
            start = self.kernel.instructions
            self.kernel.interrupt_at(start + offset, TIMER_IRQ)
            item = self.call("kmem_cache_alloc", at)
            self.call("kmem_cache_shrink", at)
            self.kernel.interrupt_at(self.kernel.instructions + offset, TIMER_IRQ)
            self.call("kmem_cache_free", at, item)
            assert cache.inuse == 0
            if offset % 16 == 0:
                judge(self.kernel)
            moments += 1
            offset += 1 if offset < 800 else 5
            if offset > 1500:
                break
        for offset in range(0, 700, 3):
            self.call("kmem_cache_shrink", at)
            self.kernel.interrupt_at(self.kernel.instructions + offset, TIMER_IRQ)
            assert self.call("kmem_cache_alloc_bulk", at, 3, array) == 3
            self.call("kmem_cache_shrink", at)
            self.kernel.interrupt_at(self.kernel.instructions + offset, TIMER_IRQ)
            self.call("kmem_cache_free_bulk", at, 3, bytes(array))
            assert cache.inuse == 0
        judge(self.kernel)
        self.kernel.call("set_trap_handler", IRQ_BASE + TIMER_IRQ, before)
        assert self.call("kmem_cache_destroy", at) == 0
