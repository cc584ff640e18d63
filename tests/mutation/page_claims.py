"""Claims about pages, kmalloc and krealloc: what they give, what they refuse, and that all of it comes back."""

from __future__ import annotations

import random
from collections.abc import Callable

from sandbox.abi import (
    DIRECT_MAP,
    GFP_ZERO,
    KERNEL_PHYS,
    KMALLOC_MAX_CACHE,
    KMALLOC_MAX_SIZE,
    KMALLOC_SIZES,
    MAX_ORDER,
    PAGE_SIZE,
    ZERO_SIZE_PTR,
    PageFlag,
    page,
)

from .booted import judge
from .claims import Claims


class PageClaims(Claims):
    """Pages, and what is made of them."""

    def claims(self) -> tuple[Callable[[], None], ...]:
        return (self.pages, self.kmalloc_classes, self.reallocations, self.behind_the_end, self.misuse,
                self.memory_runs_out)

    def pages(self) -> None:
        before = self.free()
        held = []
        for order in (0, 0, 1, 3, 0, 2, 5, 0):
            at = self.call("get_free_pages", order)
            assert at and at % (PAGE_SIZE << order) == 0
            assert all(at + (PAGE_SIZE << order) <= other or other + (PAGE_SIZE << size) <= at for other, size in held)
            held.append((at, order))
        assert before - self.free() == sum(1 << order for _, order in held)
        judge(self.kernel)
        for at, order in held[::2] + held[1::2]:
            self.call("free_pages", at, order)
            judge(self.kernel)
        assert self.free() == before
        for at, order in held:
            for number in range((at - DIRECT_MAP) // PAGE_SIZE, (at - DIRECT_MAP) // PAGE_SIZE + (1 << order)):
                freed = self.page(number)
                assert (freed.cache, freed.head, freed.private) == (0, 0, 0)
        assert self.call("get_free_pages", MAX_ORDER + 1) == 0 == self.call("get_free_pages", 1 << 40)
        self.call("free_pages", 0, 0)
        first = self.call("get_free_pages", 0)
        self.call("free_pages", first, 0)
        assert self.call("get_free_pages", 0) == first
        self.call("free_pages", first, 0)
        physical = len(self.kernel.physical)
        base = self.call("page_address", self.memory.u64(self.kernel.symbols["mem_map"]))
        assert base == 0xFFFF_8880_0000_0000
        assert self.call("virt_to_page", base + physical) == 0 == self.call("virt_to_page", base - 1)
        last = self.call("virt_to_page", base + physical - 1)
        assert self.call("page_address", last) == base + physical - PAGE_SIZE

    # -- caches -----------------------------------------------------------------------------------------------

    def kmalloc_classes(self) -> None:
        assert self.call("kmalloc", 0) == ZERO_SIZE_PTR
        self.call("kfree", ZERO_SIZE_PTR)
        self.call("kfree", 0)
        assert self.call("ksize", 0) == 0 == self.call("ksize", ZERO_SIZE_PTR)
        assert self.call("kmalloc", KMALLOC_MAX_SIZE + 1) == 0 == self.call("kmalloc", (1 << 64) - 1)
        around = {size + step for size in KMALLOC_SIZES for step in (-1, 0, 1)}
        sizes = sorted(around | {1, 9, 700, 12288, 12289, 16384})
        for size in sizes:
            at = self.call("kmalloc", size)
            found = self.kernel.heap.find(at)
            if size <= KMALLOC_MAX_CACHE:
                wanted = next(limit for limit in KMALLOC_SIZES if size <= limit)
                assert found.cache.object_size == wanted == self.call("ksize", at)
                assert str(found.state).endswith("allocated")
                step = self.call("kmem_cache_alloc_sized", found.cache.address, wanted)
                assert self.kernel.heap.find(step).cache == found.cache
                self.call("kmem_cache_free", found.cache.address, step)
            else:
                order = next(order for order in range(12) if size <= PAGE_SIZE << order)
                assert at % (PAGE_SIZE << order) == 0 and self.call("ksize", at) == PAGE_SIZE << order
                assert found.requested == size
            self.memory[at : at + size] = b"\xee" * size
            self.call("kfree", at)
            again = self.call("kzalloc", size)
            assert again == at and self.memory[at : at + size] == bytes(size)
            self.call("kfree", again)

    def reallocations(self) -> None:
        assert self.call("krealloc", 0, 0, 0) in (0, ZERO_SIZE_PTR)
        for old, new, flags in ((10, 16, 0), (10, 17, GFP_ZERO), (64, 40, 0), (64, 65, GFP_ZERO), (200, 8192, 0),
                                (8192, 8193, GFP_ZERO), (9000, 12288, GFP_ZERO), (9000, 16, 0), (12288, 12289, 0),
                                (12289, 16384, GFP_ZERO), (20, 0, 0), (1, 8, GFP_ZERO), (ZERO_SIZE_PTR, 30, GFP_ZERO)):
            at = ZERO_SIZE_PTR if old == ZERO_SIZE_PTR else self.call("kzalloc", old)
            old = 0 if old == ZERO_SIZE_PTR else old
            pattern = random.Random(old).randbytes(old)
            if old:
                self.memory[at : at + old] = pattern
            room = self.call("ksize", at)
            result = self.call("krealloc", at, new, flags)
            if new == 0:
                assert result == ZERO_SIZE_PTR
                continue
            assert (result == at) == (new <= room) or new < old
            kept = min(old, new)
            assert self.memory[result : result + kept] == pattern[:kept]
            if flags and result != at:
                assert self.memory[result + kept : result + new] == bytes(new - kept)
            self.call("kfree", result)

    # -- magazines --------------------------------------------------------------------------------------------

    def behind_the_end(self) -> None:
        """What lies behind mem_map, and looks like a frame, is none."""
        frames = len(self.kernel.physical) // PAGE_SIZE
        end = self.memory.u64(self.kernel.symbols["mem_map"]) + frames * page.size
        order = (frames & -frames).bit_length() - 1
        behind, saved = self.page(frames), self.memory[end : end + page.size]
        assert behind.address == end
        behind.flags, behind.order, behind.head = PageFlag.PG_BUDDY, order, end
        behind.next = behind.prev = end + page.next.offset
        self.shrink_all()
        held = []
        while (at := self.call("get_free_pages", order)) and (at - DIRECT_MAP) // PAGE_SIZE + (1 << order) != frames:
            held.append(at)
        assert at, "the last block is not free as a whole"
        self.call("free_pages", at, order)
        for other in held:
            self.call("free_pages", other, order)
        judge(self.kernel)
        for flags in (PageFlag.PG_SLAB, PageFlag.PG_LARGE | PageFlag.PG_HEAD):
            behind.flags, behind.cache = flags, self.cache("kmalloc-64").address
            self.panics("kfree", (DIRECT_MAP + frames * PAGE_SIZE,), "kfree: ")
        self.memory[end : end + page.size] = saved

    def misuse(self) -> None:
        snapshot = self.kernel.snapshot()
        page = self.call("get_free_pages", 1)
        large = self.call("kmalloc", 20_000)
        base = 0xFFFF_8880_0000_0000
        for function, arguments, words in (
            ("ksize", (page,), "ksize"), ("ksize", (1 << 20,), "ksize"),
            ("ksize", (base + KERNEL_PHYS,), "ksize"), ("free_pages", (base + KERNEL_PHYS, 0), "free_pages"),
            ("kfree", (base + KERNEL_PHYS,), "kfree"), ("krealloc", (page, 10, 0), ""),
            ("kfree", (1,), "kfree"), ("kfree", (15,), "kfree"), ("kfree", (page,), "kfree"),
            ("kfree", (large + 1,), "kfree"), ("kfree", (large + PAGE_SIZE,), "kfree"),
            ("kfree", (base + len(self.kernel.physical),), "kfree"), ("kfree", (0x1234_5678,), "kfree"),
            ("free_pages", (page, 0), "free_pages"), ("free_pages", (page + PAGE_SIZE, 0), "free_pages"),
            ("free_pages", (page + 8, 1), "free_pages"), ("free_pages", (base - PAGE_SIZE, 0), "free_pages"),
            ("free_pages", (self.call("kmalloc", 8) & -PAGE_SIZE, 1), "free_pages"),
        ):
            self.panics(function, arguments, words)
        made = self.create("made", 64, 0, 0, int(self.kernel.symbols["list_init"]))
        assert self.call("kmem_cache_zalloc", made) == 0 and self.cache("made").inuse == 0
        assert "made has a constructor" in self.kernel.console
        self.call("kmem_cache_free", made, 0)
        self.kernel.restore(snapshot)

    def memory_runs_out(self) -> None:
        """No page is left: everything answers 0, a free that needs a magazine does without, and all comes back."""
        for size in (200_000, 8000):
            held = []
            while at := self.call("kmalloc", size):
                held.append(at)
                assert len(held) < 1000
            while at := self.call("kmalloc", 4000):
                held.append(at)
            assert self.call("get_free_pages", 0) == 0
            judge(self.kernel)
            spare = []
            while at := self.call("kmem_cache_alloc", self.cache("magazine").address):
                spare.append(at)
            empty = self.create("empty", 3000)
            assert not empty or self.call("kmem_cache_alloc", empty) == 0 == self.call("kmem_cache_destroy", empty)
            if size < KMALLOC_MAX_CACHE:
                assert self.kernel.heap.find(held[0]).cache.failed > 0
            assert self.call("krealloc", held[0], 4 * size, 0) == 0
            assert self.kernel.heap.allocated().get(held[0])
            for at in [*held, *spare]:
                self.call("kfree", at)
            judge(self.kernel)
            self.shrink_all()
