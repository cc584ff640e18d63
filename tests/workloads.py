"""Sound work for an allocator, by seed: lists of operations that any correct allocator carries out without a fault.

A workload is plain data, made without a guest, so that the same one can be run under every boot option, be cut short,
be stopped at any operation, and be compared. Objects and caches have numbers; an operation on one that could not be
made (no memory) is left out. Bytes are written by the guest itself, inside of what was asked for::

    workload = generate(seed=7)
    held = run(kernel, workload)            # what is still held: {number: Object}
    release(kernel, held)                   # gives everything back, destroys the workload's caches
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sandbox.abi import GFP_ZERO, KMALLOC_SIZES, ZERO_SIZE_PTR, SlabFlag, kmem_cache
from sandbox.kernel import Kernel

SIZES = (*KMALLOC_SIZES, 1, 5, 20, 33, 72, 100, 130, 200, 300, 700, 1500, 3000, 5000, 9000, 20000)
FLAGS = (0, 0, 0, SlabFlag.SLAB_HWCACHE_ALIGN, SlabFlag.SLAB_NO_MAGAZINES, SlabFlag.SLAB_RED_ZONE,
         SlabFlag.SLAB_POISON | SlabFlag.SLAB_CONSISTENCY_CHECKS,
         SlabFlag.SLAB_RED_ZONE | SlabFlag.SLAB_POISON | SlabFlag.SLAB_STORE_USER | SlabFlag.SLAB_CONSISTENCY_CHECKS)

_OBJECT_SIZE = kmem_cache.object_size.offset


class Operation(NamedTuple):
    """``kind`` is the function that is called; ``object`` and ``cache`` are numbers; ``size`` is bytes, a count for
    bulk calls, an order for pages."""

    kind: str
    object: int = -1
    cache: int = -1
    size: int = 0
    flags: int = 0
    align: int = 0


@dataclass
class Object:
    """Something held: its address, the bytes that were asked for, and the cache or order that it goes back to."""

    address: int
    size: int
    cache: int = -1
    order: int = -1


@dataclass
class Held:
    """What a run has and has not given back yet."""

    objects: dict[int, Object] = field(default_factory=dict)
    caches: dict[int, int] = field(default_factory=dict)

    @property
    def addresses(self) -> list[int]:
        """Where everything lies."""
        return [held.address for held in self.objects.values()]


# -- making one ------------------------------------------------------------------------------------------------------
def generate(seed: int, length: int = 40) -> list[Operation]:
    """``length`` operations; nothing in them depends on how the allocator answers."""
    return list(_Maker(random.Random(seed)).make(length))


class _Maker:
    """Knows which numbers are in use, and picks what can be done next."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.sizes: dict[int, int] = {}                  # object -> bytes that may be written
        self.owner: dict[int, str] = {}                  # object -> kmalloc, pages, or its cache's number
        self.caches: dict[int, int] = {}                 # cache -> object size
        self.numbers = 0

    def make(self, length: int) -> Iterator[Operation]:
        kinds = ("kmalloc", "kzalloc", "kfree", "krealloc", "kmem_cache_create", "kmem_cache_alloc", "kmem_cache_free",
                 "kmem_cache_alloc_bulk", "kmem_cache_free_bulk", "kmem_cache_shrink", "kmem_cache_destroy",
                 "get_free_pages", "free_pages")
        weights = (22, 6, 16, 6, 5, 14, 8, 4, 2, 2, 1, 2, 2)
        made = 0
        while made < length:
            for operation in getattr(self, f"_{self.chance.choices(kinds, weights)[0]}")():
                yield operation
                made += 1

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def _new(self, owner: str, size: int) -> int:
        number = self._number()
        self.sizes[number], self.owner[number] = size, owner
        return number

    def _write(self, number: int) -> Iterator[Operation]:
        if self.sizes[number] and self.chance.random() < 0.7:
            yield Operation("memset", number, size=self.sizes[number], flags=self.chance.randrange(256))

    def _of(self, owner: str) -> list[int]:
        return [number for number, mine in self.owner.items() if mine == owner]

    def _take(self, numbers: list[int]) -> int:
        number = self.chance.choice(numbers)
        del self.sizes[number], self.owner[number]
        return number

    def _kmalloc(self, name: str = "kmalloc") -> Iterator[Operation]:
        size = self.chance.choice(SIZES)
        number = self._new("kmalloc", size)
        yield Operation(name, number, size=size)
        yield from self._write(number)

    def _kzalloc(self) -> Iterator[Operation]:
        return self._kmalloc("kzalloc")

    def _kfree(self) -> Iterator[Operation]:
        mine = self._of("kmalloc")
        if mine:
            yield Operation("kfree", self._take(mine))

    def _krealloc(self) -> Iterator[Operation]:
        mine = self._of("kmalloc")
        if mine:
            number, size = self.chance.choice(mine), self.chance.choice(SIZES)
            yield Operation("krealloc", number, size=size, flags=self.chance.choice((0, GFP_ZERO)))
            self.sizes[number] = min(size, self.sizes[number])   # a failed one keeps the old size
            yield from self._write(number)

    def _kmem_cache_create(self) -> Iterator[Operation]:
        if len(self.caches) < 4:
            number, size = self._number(), self.chance.choice((8, 24, 40, 64, 100, 256, 520, 1200, 4000))
            self.caches[number] = size
            yield Operation("kmem_cache_create", cache=number, size=size, flags=int(self.chance.choice(FLAGS)),
                            align=self.chance.choice((0, 0, 8, 64)))

    def _kmem_cache_alloc(self) -> Iterator[Operation]:
        if self.caches:
            cache = self.chance.choice(list(self.caches))
            number = self._new(str(cache), self.caches[cache])
            yield Operation(self.chance.choice(("kmem_cache_alloc", "kmem_cache_zalloc")), number, cache)
            yield from self._write(number)

    def _kmem_cache_free(self) -> Iterator[Operation]:
        mine = [number for number, owner in self.owner.items() if owner.isdigit()]
        if mine:
            number = self.chance.choice(mine)
            cache = int(self.owner[number])
            yield Operation("kmem_cache_free", self._take([number]), cache)

    def _kmem_cache_alloc_bulk(self) -> Iterator[Operation]:
        if self.caches:
            cache, count = self.chance.choice(list(self.caches)), self.chance.randrange(1, 12)
            numbers = [self._new(str(cache), self.caches[cache]) for _ in range(count)]
            yield Operation("kmem_cache_alloc_bulk", numbers[0], cache, count)
            for number in numbers[:3]:
                yield from self._write(number)

    def _kmem_cache_free_bulk(self) -> Iterator[Operation]:
        """Numbers of a bulk free are consecutive where they exist; the run skips the others."""
        for cache in self.caches:
            mine = self._of(str(cache))
            if len(mine) > 3:
                first = min(mine)
                span = [number for number in mine if number < first + 10]
                for number in span:
                    del self.sizes[number], self.owner[number]
                yield Operation("kmem_cache_free_bulk", first, cache, 10)
                return

    def _kmem_cache_shrink(self) -> Iterator[Operation]:
        if self.caches:
            yield Operation("kmem_cache_shrink", cache=self.chance.choice(list(self.caches)))

    def _kmem_cache_destroy(self) -> Iterator[Operation]:
        empty = [cache for cache in self.caches if not self._of(str(cache))]
        if empty:
            cache = self.chance.choice(empty)
            del self.caches[cache]
            yield Operation("kmem_cache_destroy", cache=cache)

    def _get_free_pages(self) -> Iterator[Operation]:
        order = self.chance.randrange(4)
        number = self._new("pages", 4096 << order)
        yield Operation("get_free_pages", number, size=order)
        yield from self._write(number)

    def _free_pages(self) -> Iterator[Operation]:
        mine = self._of("pages")
        if mine:
            yield Operation("free_pages", self._take(mine))


# -- running one -----------------------------------------------------------------------------------------------------
def run(kernel: Kernel, workload: list[Operation], held: Held | None = None) -> Held:
    """Carry a workload out, operation by operation; returns what is still held."""
    held = Held() if held is None else held
    for operation in workload:
        perform(kernel, operation, held)
    return held


def perform(kernel: Kernel, operation: Operation, held: Held) -> int:
    """Carry one operation out; returns what its function returned, 0 for one that had to be left out."""
    kind, number, cache = operation.kind, operation.object, operation.cache
    objects, at = held.objects, held.caches.get(cache, 0)
    mine = objects.get(number)
    if kind in ("kmalloc", "kzalloc"):
        return _keep(held, number, kernel.call(kind, operation.size), operation.size)
    if kind == "get_free_pages":
        return _keep(held, number, kernel.call(kind, operation.size), 4096 << operation.size, order=operation.size)
    if kind == "memset" and mine is not None:
        return kernel.call("memset", mine.address, operation.flags, min(mine.size, operation.size))
    if kind == "kfree" and mine is not None:
        del objects[number]
        return kernel.call(kind, mine.address)
    if kind == "free_pages" and mine is not None:
        del objects[number]
        return kernel.call(kind, mine.address, mine.order)
    if kind == "krealloc" and mine is not None:
        return _keep(held, number, kernel.call(kind, mine.address, operation.size, operation.flags), operation.size)
    if kind == "kmem_cache_create":
        made = kernel.call(kind, f"workload-{cache}", operation.size, operation.align, operation.flags, 0)
        if made:
            held.caches[cache] = made
        return made
    if kind.startswith("kmem_cache") and at:
        return _with_cache(kernel, operation, held, at)
    return 0


def _keep(held: Held, number: int, address: int, size: int, **more: int) -> int:
    if address not in (0, ZERO_SIZE_PTR):
        held.objects[number] = Object(address, size, **more)
    return address


def _with_cache(kernel: Kernel, operation: Operation, held: Held, at: int) -> int:
    kind, number, cache = operation.kind, operation.object, operation.cache
    if kind in ("kmem_cache_alloc", "kmem_cache_zalloc"):
        size = kernel.memory.u32(at + _OBJECT_SIZE)
        return _keep(held, number, kernel.call(kind, at), size, cache=cache)
    if kind == "kmem_cache_free":
        mine = held.objects.pop(number, None)
        return 0 if mine is None else kernel.call(kind, at, mine.address)
    if kind == "kmem_cache_alloc_bulk":
        array = bytearray(8 * operation.size)
        taken = kernel.call(kind, at, operation.size, array)
        for index in range(taken):
            address = int.from_bytes(array[8 * index : 8 * index + 8], "little")
            _keep(held, number + index, address, kernel.memory.u32(at + _OBJECT_SIZE), cache=cache)
        return taken
    if kind == "kmem_cache_free_bulk":
        numbers = [one for one in range(number, number + operation.size)
                   if one in held.objects and held.objects[one].cache == cache]
        array = bytearray(b"".join(held.objects.pop(one).address.to_bytes(8, "little") for one in numbers))
        return kernel.call(kind, at, len(numbers), array)
    if kind == "kmem_cache_destroy":
        result = kernel.call(kind, at)
        if result == 0:
            del held.caches[cache]
        return result
    return kernel.call(kind, at)


def release(kernel: Kernel, held: Held) -> None:
    """Give everything back, and destroy the caches of the workload."""
    for mine in list(held.objects.values()):
        if mine.order >= 0:
            kernel.call("free_pages", mine.address, mine.order)
        elif mine.cache >= 0:
            kernel.call("kmem_cache_free", held.caches[mine.cache], mine.address)
        else:
            kernel.call("kfree", mine.address)
    for at in held.caches.values():
        assert kernel.call("kmem_cache_destroy", at) == 0
    held.objects.clear()
    held.caches.clear()
