"""Claims about caches: the shape of their slabs by a formula of our own, their lists, colours, bulk calls and ends."""

from __future__ import annotations

import struct
from collections.abc import Callable

from sandbox.abi import (
    EBUSY,
    EINVAL,
    KMALLOC_SIZES,
    MAGAZINE_ROUNDS,
    MAX_ORDER,
    PAGE_SIZE,
    SLAB_CREATE_FLAGS,
    SLAB_MAX_OBJECT,
    PageFlag,
    SlabFlag,
    kmem_cache,
    magazine,
)

from .booted import judge
from .claims import Claims

LINE = 64


def layout(size: int, align: int, flags: int, ctor: bool = False) -> dict[str, int]:
    """What slab_layout.asm says of a cache without debugging, in Python."""
    align = max(align, 8)
    if flags & SlabFlag.SLAB_HWCACHE_ALIGN:
        line = LINE
        while size <= line // 2:
            line //= 2
        align = max(align, line)
    words = -(-size // 8) * 8
    whole = -(-(words + 8 * ctor) // align) * align
    order = next(order for order in range(MAX_ORDER) if (PAGE_SIZE << order) >= whole
                 and (PAGE_SIZE << order) % whole <= (PAGE_SIZE << order) // 8)
    left = (PAGE_SIZE << order) % whole
    step = max(align, LINE)
    rounds = next(rounds for largest, rounds in ((256, MAGAZINE_ROUNDS), (1024, 15), (4096, 7), (1 << 32, 3))
                  if whole <= largest)
    return {"size": whole, "align": align, "offset": words if ctor else size // 2 // 8 * 8, "order": order,
            "objects_per_slab": (PAGE_SIZE << order) // whole, "colours": left // step + 1, "colour_step": step,
            "rounds": rounds}


class CacheClaims(Claims):
    """Object caches."""

    def claims(self) -> tuple[Callable[[], None], ...]:
        return (self.boot_state, self.layouts, self.wrong_caches, self.slab_lists, self.colours, self.bulk,
                self.destroys)

    def boot_state(self) -> None:
        heap = self.kernel.heap
        names = ["kmem_cache", "magazine", *(f"kmalloc-{size if size < 1024 else f'{size >> 10}k'}"
                                             for size in KMALLOC_SIZES)]
        assert [cache.name for cache in heap.caches][: len(names)] == names
        for cache in heap.caches:
            assert cache.empty_limit == self.kernel.options.empty_slab_limit
            assert (cache.failed, cache.exchanges, cache.total) == (0, 0, cache.total)
            assert bool(cache.flags & SlabFlag.SLAB_BOOT)
            assert cache.wants_magazines is not bool(cache.flags & SlabFlag.SLAB_NO_MAGAZINES)
        assert self.cache("magazine").object_size == magazine.size
        assert self.cache("kmem_cache").object_size == kmem_cache.size
        for size in KMALLOC_SIZES:
            cache = self.cache(names[2 + KMALLOC_SIZES.index(size)])
            wanted = size & -size if size & (size - 1) == 0 else 8
            assert (cache.object_size, cache.align) == (size, min(wanted, PAGE_SIZE))
        table = self.kernel.symbols["kmalloc_caches"]
        assert [self.memory.u64(table + 8 * index) for index in range(len(KMALLOC_SIZES))] == [
            self.cache(name).address for name in names[2:]]
        assert self.page(0).flags == PageFlag.PG_RESERVED    # physical address 0 is nobody's
        assert self.page(1).flags != PageFlag.PG_RESERVED
        counts = heap.pages.counts()
        assert counts.total == len(self.kernel.physical) // PAGE_SIZE and counts.lost == 0
        assert counts.free > counts.total // 2

    # -- pages ------------------------------------------------------------------------------------------------

    def layouts(self) -> None:
        flags = int(SlabFlag.SLAB_HWCACHE_ALIGN)
        cases = [(1, 0, 0), (8, 0, 0), (9, 0, 0), (16, 0, flags), (17, 0, flags), (24, 0, flags), (32, 0, flags),
                 (33, 0, flags), (64, 0, flags), (65, 0, flags), (100, 0, 0), (100, 64, 0), (256, 0, 0), (257, 0, 0),
                 (264, 0, 0), (700, 0, 0), (1024, 0, 0), (1032, 0, 0), (1500, 128, 0), (4096, 0, 0), (4104, 0, 0),
                 (5000, 0, 0), (48, 256, 0), (4096, 4096, 0), (9000, 0, 0), (65536, 0, 0), (20, 16, flags)]
        constructor = int(self.kernel.symbols["list_init"])
        for number, (size, align, flag) in enumerate(cases):
            for ctor in (0, constructor) if number % 4 == 0 and size >= 16 else (0,):
                name = f"shape-{number}-{bool(ctor)}"
                at = self.create(name, size, align, flag, ctor)
                cache = self.cache(name)
                assert at == cache.address and cache.object_size == size and cache.ctor == ctor
                expected = layout(size, align, flag, bool(ctor))
                assert {field: getattr(cache, field) for field in expected} == expected
                assert cache.metadata == -(-size // 8) * 8 and cache.red_left_pad == 0
                objects = [self.call("kmem_cache_alloc", at) for _ in range(2)]
                assert all(item and item % expected["align"] == 0 for item in objects)
                if ctor:
                    assert all(self.memory.u64(item) == item == self.memory.u64(item + 8) for item in objects)
                assert cache.inuse == 2
                for item in objects:
                    self.call("kmem_cache_free", at, item)
                assert self.call("kmem_cache_destroy", at) == 0
        assert not [cache.name for cache in self.kernel.heap.caches if cache.name.startswith("shape")]

    def wrong_caches(self) -> None:
        before = self.free(), len(self.kernel.heap.caches), self.cache("kmem_cache").inuse
        for arguments in ((0, 0, 0), (SLAB_MAX_OBJECT + 1, 0, 0), (1 << 40, 0, 0), (8, 3, 0), (8, 2 * PAGE_SIZE, 0),
                          (8, 24, 0), (8, 0, 1), (8, 0, int(SlabFlag.SLAB_BOOT)),
                          (8, 0, ~SLAB_CREATE_FLAGS & 0xFFFF_FFFF)):
            assert self.create("wrong", *arguments) == 0, arguments
        assert self.call("kmem_cache_create", 0, 8, 0, 0, 0) == 0
        assert self.create("kmalloc-64", 64) == 0
        assert before == (self.free(), len(self.kernel.heap.caches), self.cache("kmem_cache").inuse)
        assert self.create("x" * 60, 8) and self.cache("x" * 31).object_size == 8
        assert self.call("kmem_cache_destroy", self.cache("x" * 31).address) == 0
        cut = self.create("y" * 31 + "\n", 8)          # a control character behind what is kept
        assert cut and self.call("kmem_cache_destroy", cut) == 0
        blank = self.create("a b", 8)                   # a blank is no control character
        assert blank and self.call("kmem_cache_destroy", blank) == 0
        plain = self.create("plain", 40, 8, int(SlabFlag.SLAB_NO_MAGAZINES))
        item = self.call("kmem_cache_alloc", plain)
        self.call("kmem_cache_free", plain, item)
        assert self.cache("plain").cached == 0 and not self.cache("plain").wants_magazines
        assert self.call("kmem_cache_alloc", plain) == item
        self.call("kmem_cache_free", plain, item)
        assert self.call("kmem_cache_destroy", plain) == 0

    # -- kmalloc ----------------------------------------------------------------------------------------------

    def slab_lists(self) -> None:
        """Without magazines each list is what it is called, and partial slabs are used first."""
        at = self.create("slabs", 512, 0, int(SlabFlag.SLAB_NO_MAGAZINES))
        cache = self.cache("slabs")
        per = cache.objects_per_slab
        limit = cache.empty_limit
        held = [self.call("kmem_cache_alloc", at) for _ in range(4 * per)]
        assert (cache.nr_full, cache.nr_partial, cache.nr_empty, cache.alloc_slab) == (4, 0, 0, 4)
        assert [item - held[0] for item in held[:per]] == [512 * index for index in range(per)]
        self.call("kmem_cache_free", at, held[0])
        assert (cache.nr_full, cache.nr_partial, cache.nr_empty) == (3, 1, 0)
        assert self.call("kmem_cache_alloc", at) == held[0]
        assert cache.alloc_slab == 4
        for item in held:
            self.call("kmem_cache_free", at, item)
        assert (cache.nr_full, cache.nr_partial, cache.nr_empty) == (0, 0, limit)
        assert cache.free_slab == 4 - limit
        assert (cache.alloc_slowpath, cache.free_slowpath) == (4 * per + 1, 4 * per + 1)
        one = self.call("kmem_cache_alloc", at)
        assert cache.nr_empty == limit - 1
        assert "still has objects" not in self.kernel.console
        assert self.call("kmem_cache_shrink", at) == 1 and cache.nr_empty == 0
        assert self.call("kmem_cache_destroy", at) == (1 << 64) - EBUSY
        assert "kmem_cache_destroy: slabs still has objects in use" in self.kernel.console
        self.call("kmem_cache_free", at, one)
        assert self.call("kmem_cache_destroy", at) == 0

    def colours(self) -> None:
        at = self.create("colours", 600, 0, int(SlabFlag.SLAB_NO_MAGAZINES))
        cache = self.cache("colours")
        colours, step, per = cache.colours, cache.colour_step, cache.objects_per_slab
        assert colours > 1
        held = [self.call("kmem_cache_alloc", at) for _ in range(per * (2 * colours + 1))]
        firsts = [item % PAGE_SIZE for item in held[::per]]
        assert firsts == [index % colours * step for index in range(2 * colours + 1)]
        for item in held:
            self.call("kmem_cache_free", at, item)
        assert self.call("kmem_cache_destroy", at) == 0

    def bulk(self) -> None:
        for flags in (0, int(SlabFlag.SLAB_NO_MAGAZINES)):
            at = self.create("bulk", 72, 0, flags)
            cache = self.cache("bulk")
            for count in (0, 1, 7, 100):
                array = bytearray(8 * count + 8)
                assert self.call("kmem_cache_alloc_bulk", at, count, array) == count
                pointers = struct.unpack(f"<{count + 1}Q", array)
                assert len(set(pointers[:count])) == count == cache.inuse and pointers[count] == 0
                assert all(self.kernel.heap.find(item).cache.name == "bulk" for item in pointers[:count])
                judge(self.kernel, pointers[:count])
                self.call("kmem_cache_free_bulk", at, count, bytes(array))
                assert cache.inuse == 0
                judge(self.kernel)
            items = [self.call("kmem_cache_alloc", at) for _ in range(12)]
            for item in items:
                self.call("kmem_cache_free", at, item)
            array = bytearray(8 * 5)
            assert self.call("kmem_cache_alloc_bulk", at, 5, array) == 5   # the last ones in are the first ones out
            assert struct.unpack("<5Q", array) == tuple(items[: 6 : -1])
            self.call("kmem_cache_free_bulk", at, 5, bytes(array))
            assert self.call("kmem_cache_destroy", at) == 0
            at, many = self.create("bulk", 2000, 0, flags), 4000
            room = self.call("kmalloc", 8 * many)
            free, failed = self.free(), cache.failed
            assert self.call("kmem_cache_alloc_bulk", at, many, room) == 0
            assert cache.inuse == 0 and cache.failed > failed
            self.call("kmem_cache_shrink", at)
            assert self.free() >= free
            self.call("kfree", room)
            assert self.call("kmem_cache_destroy", at) == 0

    def destroys(self) -> None:
        """Slots come back: more caches, one after the other, than there are slots."""
        assert self.call("kmem_cache_destroy", 0) == 0
        for name in ("kmem_cache", "magazine", "kmalloc-64"):
            assert self.call("kmem_cache_destroy", self.cache(name).address) == (1 << 64) - EINVAL
        used = {cache.struct.cpu for cache in self.kernel.heap.caches if cache.wants_magazines}
        for index in range(3):
            at = self.create(f"slot-{index}", 32)
            assert self.cache(f"slot-{index}").struct.cpu not in used
            used.add(self.cache(f"slot-{index}").struct.cpu)
            assert self.cache(f"slot-{index}").alloc_fastpath == 0
            item = self.call("kmem_cache_alloc", at)
            self.call("kmem_cache_free", at, item)
            assert self.call("kmem_cache_alloc", at) == item
            self.call("kmem_cache_free", at, item)
        for index in range(3):
            assert self.call("kmem_cache_destroy", self.cache(f"slot-{index}").address) == 0
        many = [self.create(f"many-{index}", 16) for index in range(70)]
        assert all(many)
        for at in many:
            assert self.call("kmem_cache_destroy", at) == 0
        judge(self.kernel)
        for index in range(260):
            at = self.create("again", 32)
            assert self.cache("again").wants_magazines, index
            assert self.cache("again").alloc_fastpath == 0 == self.cache("again").free_fastpath
            if index == 0:
                for _ in range(2):
                    self.call("kmem_cache_free", at, self.call("kmem_cache_alloc", at))
            assert self.call("kmem_cache_destroy", at) == 0

    # -- what must not be done --------------------------------------------------------------------------------
