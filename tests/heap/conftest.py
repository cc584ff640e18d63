"""A heap laid out by hand: bytes in an array, written with the ABI's structures and no allocator anywhere.

The views are tested against it because it is independent of the kernel: what a test places, the views must find.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from sandbox.abi import (
    DIRECT_MAP,
    KERNEL_BASE,
    MAGAZINE_ROUNDS,
    MAX_ORDER,
    PAGE_SIZE,
    PageFlag,
    SlabFlag,
    SlabList,
    free_area,
    kmem_cache,
    kmem_cache_cpu,
    list_head,
    magazine,
    page,
    percpu,
)
from sandbox.errors import TranslationError

FRAMES = 256
MEM_MAP = DIRECT_MAP + 8 * PAGE_SIZE                 # 4 frames of struct page, frames 8 to 11
KERNEL_DATA = 0x10000                                # physical address of the kernel's variables, frame 16 on
VARIABLES = {"mem_map": 0, "max_pfn": 8, "slab_caches": 16, "free_areas": 32, "boot_cpu": PAGE_SIZE}


class FlatMemory:
    """The direct map, and the kernel's data at KERNEL_BASE; everything else is unmapped."""

    def __init__(self) -> None:
        self.ram = bytearray(FRAMES * PAGE_SIZE)

    def _physical(self, address: int, size: int) -> int:
        for base, start in ((DIRECT_MAP, 0), (KERNEL_BASE, KERNEL_DATA)):
            if base <= address and start + address - base + size <= len(self.ram):
                return start + address - base
        raise TranslationError(address, "the test has nothing there")

    def read(self, address: int, size: int) -> bytes:
        at = self._physical(address, size)
        return bytes(self.ram[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        at = self._physical(address, len(data))
        self.ram[at : at + len(data)] = data


class SyntheticHeap:
    """Places caches, slabs, magazines and pages, and remembers nothing about them."""

    def __init__(self) -> None:
        self.memory = FlatMemory()
        self.symbols = {name: KERNEL_BASE + at for name, at in VARIABLES.items()}
        self.put("mem_map", MEM_MAP)
        self.put("max_pfn", FRAMES)
        self.empty_list(self.symbols["slab_caches"])
        for order in range(MAX_ORDER + 1):
            self.empty_list(self.symbols["free_areas"] + order * free_area.size)
        boot_cpu = percpu(self.memory, self.symbols["boot_cpu"])
        boot_cpu.self = boot_cpu.address
        for pfn in range(32):
            self.page(pfn).flags = PageFlag.PG_RESERVED
        self.next_pfn = 32
        self.next_slot = 1
        self.next_cache = DIRECT_MAP + 200 * PAGE_SIZE
        self.take(200 - 32, 56, 0)                   # frames 200 to 255: caches and magazines
        self.next_pfn = 32

    def take(self, skip: int, frames: int, flags: int) -> None:
        """Make frames that begin ``skip`` frames on an allocated block of frames, each its own block."""
        for pfn in range(self.next_pfn + skip, self.next_pfn + skip + frames):
            self.page(pfn).flags = PageFlag.PG_HEAD | flags
            self.page(pfn).head = self.page(pfn).address

    def put(self, name: str, value: int) -> None:
        self.memory.write(self.symbols[name], value.to_bytes(8, "little"))

    def page(self, pfn: int) -> page:
        return page(self.memory, MEM_MAP + pfn * page.size)

    def empty_list(self, head: int) -> None:
        links = list_head(self.memory, head)
        links.next = links.prev = head

    def append(self, head: int, link: int) -> None:
        """list_add_tail."""
        first, new = list_head(self.memory, head), list_head(self.memory, link)
        last = list_head(self.memory, first.prev)
        new.next, new.prev = head, last.address
        last.next = first.prev = link

    def cache(self, name: str, size: int, *, order: int = 0, objects: int = 0, rounds: int = 0, offset: int = 0,
              red_left_pad: int = 0, random: int = 0, stride: int = 0) -> kmem_cache:
        """A cache at the end of slab_caches; ``rounds`` > 0 gives it two empty magazines."""
        cache = kmem_cache(self.memory, self.next_cache)
        self.next_cache += 0x200
        stride = stride or size
        values = {"name": name, "object_size": size, "size": stride, "align": 8, "order": order, "offset": offset,
                  "objects": objects or (PAGE_SIZE << order) // stride, "red_left_pad": red_left_pad,
                  "random": random, "colour": 1, "rounds": rounds,
                  "cpu": percpu.slots.offset, "flags": SlabFlag.SLAB_NO_MAGAZINES if not rounds else 0}
        self.memory.write(cache.address, kmem_cache.pack(**values))
        for head in ("partial", "full", "empty"):
            self.empty_list(getattr(cache, head).address)
        if rounds:
            cache.cpu = percpu.slots.offset + self.next_slot * kmem_cache_cpu.size
            self.next_slot += 1
            front = self.front(cache)
            front.loaded, front.previous = self.magazine(()), self.magazine(())
            front.top = front.loaded + magazine.objects.offset
            front.limit = front.top + 8 * rounds
        self.append(self.symbols["slab_caches"], cache.list.address)
        return cache

    def front(self, cache: kmem_cache) -> kmem_cache_cpu:
        return kmem_cache_cpu(self.memory, self.symbols["boot_cpu"] + cache.cpu)

    def magazine(self, objects: Sequence[int]) -> int:
        address = self.next_cache
        self.next_cache += 0x200
        padded = (*objects, *(0,) * (MAGAZINE_ROUNDS - len(objects)))
        self.memory.write(address, magazine.pack(rounds=len(objects), objects=padded))
        return address

    def load(self, cache: kmem_cache, objects: Sequence[int]) -> None:
        """Put objects into the loaded magazine of the CPU."""
        front = self.front(cache)
        for index, address in enumerate(objects):
            at = front.loaded + magazine.objects.offset + 8 * index
            self.memory.write(at, address.to_bytes(8, "little"))
        front.top = front.loaded + magazine.objects.offset + 8 * len(objects)

    def slab(self, cache: kmem_cache, free: Sequence[int], which: SlabList, *, colour: int = 0) -> int:
        """A slab with the objects of these indices in it, chained in that order; returns its address."""
        order, first = cache.order, self.next_pfn
        frames = 1 << order
        first += -first % frames
        self.next_pfn = first + frames
        address = DIRECT_MAP + first * PAGE_SIZE
        stride = kmem_cache.size_.__get__(cache, kmem_cache)
        at = [address + colour + cache.red_left_pad + index * stride for index in free]
        for pfn in range(first, first + frames):
            head = PageFlag.PG_HEAD if pfn == first else 0
            self.memory.write(self.page(pfn).address, page.pack(
                flags=PageFlag.PG_SLAB | head, cache=cache.address, head=self.page(first).address))
        top = self.page(first)
        top.order, top.objects, top.inuse = order, cache.objects, cache.objects - len(free)
        top.list, top.colour, top.freelist = which, colour, at[0] if at else 0
        for here, after in zip(at, [*at[1:], 0], strict=False):
            slot = here + cache.offset
            stored = after
            if cache.random:
                stored ^= cache.random ^ int.from_bytes(slot.to_bytes(8, "little"), "big")
            self.memory.write(slot, stored.to_bytes(8, "little"))
        name = {SlabList.SLAB_LIST_PARTIAL: "partial", SlabList.SLAB_LIST_FULL: "full"}.get(which, "empty")
        self.append(getattr(cache, name).address, top.address + page.next.offset)
        return address

    def free_block(self, pfn: int, order: int) -> None:
        """A free block on its free area."""
        self.memory.write(self.page(pfn).address, page.pack(flags=PageFlag.PG_BUDDY, order=order))
        for inner in range(pfn + 1, pfn + (1 << order)):
            self.memory.write(self.page(inner).address, page.pack())
        area = free_area(self.memory, self.symbols["free_areas"] + order * free_area.size)
        self.append(area.list.address, self.page(pfn).address + page.next.offset)
        area.nr_free += 1

    def large(self, order: int, requested: int) -> int:
        """A large kmalloc."""
        first = self.next_pfn + -self.next_pfn % (1 << order)
        self.next_pfn = first + (1 << order)
        for pfn in range(first, self.next_pfn):
            head = PageFlag.PG_HEAD if pfn == first else 0
            self.memory.write(self.page(pfn).address, page.pack(
                flags=PageFlag.PG_LARGE | head, head=self.page(first).address, order=order if head else 0,
                private=requested if head else 0))
        return DIRECT_MAP + first * PAGE_SIZE


@pytest.fixture
def synthetic() -> SyntheticHeap:
    """An empty heap of 256 frames."""
    return SyntheticHeap()
