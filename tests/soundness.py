"""What must hold of the heap's bytes at any moment between two operations; an account of its own, beside the views."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sandbox.abi import DIRECT_MAP as BASE
from sandbox.abi import (
    KERNEL_BASE,
    KERNEL_PHYS,
    MAX_ORDER,
    PAGE_SIZE,
    PERCPU_SLOTS,
    POISON_END,
    POISON_FREE,
    POISON_INUSE,
    SLUB_RED_ACTIVE,
    SLUB_RED_INACTIVE,
    PageFlag,
    SlabFlag,
    SlabList,
    free_area,
    kmem_cache,
    kmem_cache_cpu,
    magazine,
    page,
    percpu,
    track,
)
from sandbox.kernel import Kernel


class Ram:
    """A copy of RAM, read by the virtual addresses of the direct map and of the kernel image."""

    def __init__(self, kernel: Kernel) -> None:
        self.bytes = kernel.machine.memory.image()

    def read(self, address: int, size: int) -> bytes:
        at = address - KERNEL_BASE + KERNEL_PHYS if address >= KERNEL_BASE else address - BASE
        assert 0 <= at <= len(self.bytes) - size, f"{address:#x} is no address of the allocator"
        return self.bytes[at : at + size]

    def write(self, address: int, data: bytes) -> None:
        raise AssertionError("a check writes nothing")

    def u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")


FRAMES = np.dtype({"names": [field.name for field in page.fields],
                   "formats": [f"<u{field.size}" for field in page.fields],
                   "offsets": [field.offset for field in page.fields], "itemsize": page.size})


def links(memory: Ram, head: int) -> Iterator[int]:
    """The entries of a circular list, with both directions compared."""
    at, seen = memory.u64(head), 0
    previous = head
    while at != head:
        assert memory.u64(at + 8) == previous, f"prev of {at:#x}"
        yield at
        seen += 1
        assert seen < 1_000_000
        previous, at = at, memory.u64(at)
    assert memory.u64(head + 8) == previous


def free_pointer(memory: Ram, cache: kmem_cache, at: int) -> int:
    """What the free object at ``at`` points to: plain, or under the cache's secret and the place's bytes reversed."""
    place = at + cache.offset
    stored = memory.u64(place)
    return stored ^ cache.random ^ int.from_bytes(place.to_bytes(8, "little"), "big") if cache.random else stored


def assert_debug_bytes(memory: Ram, cache: kmem_cache, at: int, free: bool) -> None:
    """Every byte of an object's place that its cache's debug flags give a value (mm/slub.c, check_object)."""
    flags, size = cache.flags, cache.object_size
    zone, poison = flags & SlabFlag.SLAB_RED_ZONE, flags & SlabFlag.SLAB_POISON
    if not (zone or poison):
        return
    end = cache.metadata + (8 if cache.offset >= cache.metadata else 0)
    asked = size
    if flags & SlabFlag.SLAB_STORE_USER:
        end += 2 * track.size
        if flags & SlabFlag.SLAB_KMALLOC:
            asked = size if free else memory.u32(at + end)
            end += 4
    first = at - cache.red_left_pad
    place = memory.read(first, cache.size_)
    part = {"left": (first, at), "right": (at + (asked if zone else size), at + cache.metadata),
            "poison": (at, at + size - 1), "end": (at + size - 1, at + size),
            "padding": (at + end, first + cache.size_)}
    wanted = {"right": POISON_INUSE, "padding": POISON_INUSE} if poison else {}
    if zone:
        wanted["left"] = wanted["right"] = SLUB_RED_INACTIVE if free else SLUB_RED_ACTIVE
    if poison and free and not cache.ctor:
        wanted |= {"poison": POISON_FREE, "end": POISON_END}
    for name, value in wanted.items():
        start, stop = part[name]
        assert set(place[start - first : stop - first]) <= {value}, f"{name} of {cache.name}'s object at {at:#x}"


def assert_sound(kernel: Kernel) -> None:
    """Walk every list of the allocator and count; an AssertionError names the first thing that is wrong."""
    symbols, memory = kernel.symbols, Ram(kernel)
    mem_map, frames = memory.u64(symbols["mem_map"]), memory.u64(symbols["max_pfn"])
    owner: dict[int, str] = {}

    def frame_view(number: int) -> page:
        return page(memory, mem_map + number * page.size)

    def claim(first: int, order: int, name: str) -> None:
        for number in range(first, first + (1 << order)):
            assert number < frames and number not in owner, f"frame {number} of {name} belongs to {owner.get(number)}"
            owner[number] = name

    assert memory.u32(symbols["zone_lock"]) == 0 and memory.u32(symbols["slab_caches_lock"]) == 0
    for order in range(MAX_ORDER + 1):
        area = symbols["free_areas"] + order * free_area.size
        blocks = list(links(memory, area))
        assert len(blocks) == free_area(memory, area).nr_free
        for link in blocks:
            number = (link - page.next.offset - mem_map) // page.size
            info = frame_view(number)
            assert info.flags == PageFlag.PG_BUDDY and info.order == order and number % (1 << order) == 0
            claim(number, order, f"free block of order {order}")

    used_slots = [0]
    for link in links(memory, symbols["slab_caches"]):
        cache = kmem_cache(memory, link - kmem_cache.list.offset)
        assert cache.lock == 0
        out: set[int] = set()
        for which, count in (("partial", cache.nr_partial), ("full", cache.nr_full), ("empty", cache.nr_empty)):
            head = cache.address + getattr(kmem_cache, which).offset
            slabs = list(links(memory, head))
            assert len(slabs) == count, f"{cache.name}.{which}"
            for entry in slabs:
                number = (entry - page.next.offset - mem_map) // page.size
                info = frame_view(number)
                assert info.list == SlabList[f"SLAB_LIST_{which.upper()}"]
                claim(number, cache.order, f"slab of {cache.name}")
                for tail in range(number, number + (1 << cache.order)):
                    view = frame_view(tail)
                    assert view.flags & PageFlag.PG_SLAB and view.cache == cache.address
                    assert view.head == info.address
                first = BASE + number * PAGE_SIZE + info.colour + cache.red_left_pad
                objects = [first + index * cache.size_ for index in range(info.objects)]
                end = BASE + (number + (1 << cache.order)) * PAGE_SIZE
                assert objects[-1] - cache.red_left_pad + cache.size_ <= end
                free, at = set(), info.freelist
                while at:
                    assert at in objects and at not in free, f"free list of {cache.name} at {at:#x}"
                    free.add(at)
                    at = free_pointer(memory, cache, at)
                for at in objects:
                    assert_debug_bytes(memory, cache, at, at in free)
                assert info.inuse == len(objects) - len(free)
                expected = "empty" if info.inuse == 0 else "full" if info.inuse == info.objects else "partial"
                assert which == expected
                out |= set(objects) - free
        assert cache.nr_empty <= max(cache.empty_limit, 1)
        slot, remainder = divmod(cache.cpu - percpu.slots.offset, kmem_cache_cpu.size)
        assert remainder == 0 and 0 <= slot < PERCPU_SLOTS
        assert slot == 0 or slot not in used_slots
        used_slots.append(slot)
        cached = [item for items in magazines(memory, symbols["boot_cpu"], cache, slot) for item in items]
        assert len(cached) == len(set(cached)) and set(cached) <= out, f"magazines of {cache.name}"

    others = np.ones(frames, bool)
    others[list(owner)] = False
    table = np.frombuffer(memory.read(mem_map, frames * page.size), FRAMES)[others]
    named = table["flags"] & int(PageFlag.PG_RESERVED | PageFlag.PG_HEAD | PageFlag.PG_LARGE)
    assert np.all((named != 0) | (table["head"] != 0)), "a frame is lost"
    assert not np.any(table["flags"] & int(PageFlag.PG_BUDDY | PageFlag.PG_SLAB)), "a frame is on no list"


def magazines(memory: Ram, cpu: int, cache: kmem_cache, slot: int) -> Iterator[list[int]]:
    """The contents of every magazine of a cache."""

    def contents(address: int, rounds: int) -> list[int]:
        assert 0 <= rounds <= cache.rounds and magazine(memory, address).bottom == 0
        return [memory.u64(address + magazine.objects.offset + 8 * index) for index in range(rounds)]

    front = kmem_cache_cpu(memory, cpu + percpu.slots.offset + slot * kmem_cache_cpu.size)
    if slot and front.loaded:
        first = front.loaded + magazine.objects.offset
        assert (front.top - first) % 8 == 0 and front.limit == first + 8 * cache.rounds
        yield contents(front.loaded, (front.top - first) // 8)
        rounds = magazine(memory, front.previous).rounds
        assert rounds in (0, cache.rounds)
        yield contents(front.previous, rounds)
    else:
        assert front.top == front.limit and memory.u64(front.top - 8) == 0
    for head, count, full in (("depot_full", cache.nr_depot_full, True), ("depot_empty", cache.nr_depot_empty, False)):
        at, seen = getattr(cache, head), 0
        while at:
            view = magazine(memory, at)
            assert bool(view.rounds) == full
            yield contents(at, view.rounds)
            seen, at = seen + 1, view.next
            assert seen <= count
        assert seen == count
