"""Random calls against a model: live objects keep their bytes, overlap nothing, and are counted."""

from __future__ import annotations

import random
import struct

from sandbox.abi import EBUSY, GFP_ZERO, KMALLOC_SIZES, SlabFlag
from sandbox.kernel import Kernel

from .booted import Caller, judge


class Workload(Caller):
    """Random calls against a model: {address: (cache or "", size, bytes)}."""

    def __init__(self, kernel: Kernel, seed: int) -> None:
        super().__init__(kernel)
        self.chosen = random.Random(seed)
        self.quiet = not kernel.options.slab_debug           # destroying a busy cache prints no reports
        self.live: dict[int, tuple[str, int, bytes]] = {}
        self.own: dict[str, tuple[int, int]] = {}
        self.held_at_first = {cache.name: cache.inuse for cache in kernel.heap.caches}

    def run(self, length: int) -> None:
        for number in range(length):
            operations = (self.kmalloc, self.kmalloc, self.kfree, self.krealloc, self.create, self.alloc, self.alloc,
                          self.free, self.alloc_bulk, self.free_bulk, self.shrink, self.destroy)
            self.chosen.choice(operations)()
            if number % 20 == 19:
                self.agree()
        for at in list(self.live):
            self.release(at)
        for name, (at, _) in self.own.items():
            assert self.call("kmem_cache_destroy", at) == 0, name
        self.own.clear()
        self.agree()
        judge(self.kernel, both=True)

    def agree(self) -> None:
        judge(self.kernel, tuple(self.live))
        caches = {cache.name: cache for cache in self.kernel.heap.caches}
        for name, at_first in self.held_at_first.items():
            if name.startswith("kmalloc-"):
                mine = sum(owner == name for owner, _, _ in self.live.values())
                others = caches[name].inuse - at_first - mine
                assert others == 0 or (others > 0 and self.kernel.options.freelist_random), name
        for name in self.own:
            assert caches[name].inuse == sum(owner == name for owner, _, _ in self.live.values()), name
        for cache in caches.values():
            assert cache.inuse + cache.cached + cache.free == cache.total
        for at in self.live:
            self.check(at)

    def adopt(self, at: int, owner: str, size: int, zero: bool = False) -> None:
        assert at not in self.live and at % 8 == 0
        for other, (_, length, _) in self.live.items():
            assert at + size <= other or other + length <= at, "two live objects overlap"
        if zero:
            assert self.kernel.memory[at : at + size] == bytes(size)
        pattern = self.chosen.randbytes(size)
        self.kernel.memory[at : at + size] = pattern
        self.live[at] = (owner, size, pattern)

    def check(self, at: int) -> None:
        _, size, pattern = self.live[at]
        assert self.kernel.memory[at : at + size] == pattern, "somebody wrote into a live object"

    def release(self, at: int) -> None:
        self.check(at)
        owner, _, _ = self.live.pop(at)
        if owner in self.own and self.chosen.random() < 0.7:
            self.call("kmem_cache_free", self.own[owner][0], at)
        else:
            self.call("kfree", at)

    def class_of(self, size: int) -> str:
        fitting = [limit for limit in KMALLOC_SIZES if size <= limit]
        return f"kmalloc-{fitting[0] if fitting[0] < 1024 else f'{fitting[0] >> 10}k'}" if fitting else ""

    def size(self) -> int:
        return self.chosen.choice((self.chosen.randrange(1, 300), self.chosen.choice(KMALLOC_SIZES),
                                   self.chosen.randrange(1, 9000), 8193, 20_000))

    def kmalloc(self) -> None:
        size, zero = self.size(), self.chosen.random() < 0.4
        at = self.call("kzalloc" if zero else "kmalloc", size)
        assert at
        self.adopt(at, self.class_of(size), size, zero)

    def kfree(self) -> None:
        if self.live:
            self.release(self.chosen.choice(list(self.live)))

    def krealloc(self) -> None:
        mine = [at for at, (owner, _, _) in self.live.items() if owner not in self.own]
        if not mine:
            return
        at, size, zero = self.chosen.choice(mine), self.size(), self.chosen.random() < 0.5
        owner, before, pattern = self.live.pop(at)
        result = self.call("krealloc", at, size, GFP_ZERO if zero else 0)
        assert result
        kept = min(before, size)
        assert self.kernel.memory[result : result + kept] == pattern[:kept]
        if zero and result != at:
            assert self.kernel.memory[result + kept : result + size] == bytes(size - kept)
        self.adopt(result, owner if result == at else self.class_of(size), size)

    def create(self) -> None:
        if len(self.own) < 5:
            name, size = f"own-{len(self.own)}-{self.chosen.randrange(1000)}", self.chosen.randrange(1, 3000)
            align = self.chosen.choice((0, 8, 64, 256))
            at = self.call("kmem_cache_create", name, size, align, self.chosen.choice(
                (0, int(SlabFlag.SLAB_HWCACHE_ALIGN), int(SlabFlag.SLAB_NO_MAGAZINES))), 0)
            assert at
            self.own[name] = (at, size)

    def any_own(self) -> str | None:
        return self.chosen.choice(sorted(self.own)) if self.own else None

    def alloc(self) -> None:
        name = self.any_own()
        if name is not None:
            zero = self.chosen.random() < 0.4
            at = self.call("kmem_cache_zalloc" if zero else "kmem_cache_alloc", self.own[name][0])
            assert at
            self.adopt(at, name, self.own[name][1], zero)

    def free(self) -> None:
        mine = [at for at, (owner, _, _) in self.live.items() if owner in self.own]
        if mine:
            self.release(self.chosen.choice(mine))

    def alloc_bulk(self) -> None:
        name = self.any_own()
        if name is not None:
            count = self.chosen.randrange(40)
            array = bytearray(8 * count)
            assert self.call("kmem_cache_alloc_bulk", self.own[name][0], count, array) == count
            for at in struct.unpack(f"<{count}Q", array):
                self.adopt(at, name, self.own[name][1])

    def free_bulk(self) -> None:
        name = self.any_own()
        if name is not None:
            mine = [at for at, (owner, _, _) in self.live.items() if owner == name][: self.chosen.randrange(40)]
            for at in mine:
                self.check(at)
                del self.live[at]
            self.call("kmem_cache_free_bulk", self.own[name][0], len(mine), struct.pack(f"<{len(mine)}Q", *mine))

    def shrink(self) -> None:
        name = self.any_own()
        if name is not None:
            left = self.call("kmem_cache_shrink", self.own[name][0])
            assert left == any(owner == name for owner, _, _ in self.live.values())
            assert self.kernel.heap.cache(name).nr_empty == 0

    def destroy(self) -> None:
        name = self.any_own()
        if name is not None:
            busy = sum(owner == name for owner, _, _ in self.live.values())
            if busy > 2 * self.quiet:            # each object is a line of a report
                return
            result = self.call("kmem_cache_destroy", self.own[name][0])
            assert result == ((1 << 64) - EBUSY if busy else 0)
            if not busy:
                del self.own[name]
