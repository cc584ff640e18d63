"""The allocator against a model of a dozen lines, the views and the trace: three accounts that must agree."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

import sandbox
from sandbox.abi import EBUSY, GFP_ZERO, KMALLOC_SIZES, PAGE_SIZE, ZERO_SIZE_PTR, SlabFlag
from tests.soundness import assert_sound

SIZES = st.one_of(st.integers(0, 300), st.sampled_from([*KMALLOC_SIZES, 8193, 20_000, 70_000]), st.integers(0, 9000))


def pattern(pointer: int, size: int) -> bytes:
    """Bytes that no other allocation has."""
    return random.Random(pointer).randbytes(size)


class Allocator(RuleBasedStateMachine):
    """Every rule does one thing in the guest and the same thing in ``self.live``: {pointer: (cache name, size)}."""

    pointers = Bundle("pointers")
    caches = Bundle("caches")
    options: ClassVar[dict[str, Any]] = {}

    @initialize()
    def boot(self) -> None:
        self.kernel = sandbox.boot(ram="8M", **self.options)
        self.live: dict[int, tuple[str, int]] = {}
        self.own: dict[int, tuple[str, int]] = {}
        self.created = 0
        self.at_boot = {cache.name: cache.inuse for cache in self.kernel.heap.caches}
        self.trace = self.kernel.trace()
        self.trace.__enter__()

    def teardown(self) -> None:
        if hasattr(self, "kernel"):
            self.trace.__exit__(None, None, None)
            self.kernel.close()

    # -- rules ------------------------------------------------------------------------------------------------
    def adopt(self, pointer: int, cache: str, size: int) -> None:
        """A new allocation: aligned, inside RAM, overlapping no other one, filled with its own pattern."""
        assert pointer not in self.live
        assert pointer % 8 == 0
        for other, (_, length) in self.live.items():
            assert pointer + size <= other or other + length <= pointer
        self.kernel.memory[pointer : pointer + size] = pattern(pointer, size)
        self.live[pointer] = (cache, size)

    def check(self, pointer: int, kept: int | None = None) -> None:
        """Nobody has written into the allocation."""
        size = self.live[pointer][1] if kept is None else kept
        assert self.kernel.memory[pointer : pointer + size] == pattern(pointer, self.live[pointer][1])[:size]

    def class_of(self, size: int) -> str:
        """The name of the cache that serves kmalloc(size), or "" for pages."""
        fitting = [cache.name for cache in self.kernel.heap.caches
                   if cache.name.startswith("kmalloc-") and cache.object_size >= size]
        return fitting[0] if fitting else ""

    @rule(target=pointers, size=SIZES, zero=st.booleans())
    def kmalloc(self, size: int, zero: bool) -> object:
        pointer = self.kernel.call("kzalloc" if zero else "kmalloc", size)
        if size == 0:
            assert pointer == ZERO_SIZE_PTR
            return multiple()
        if pointer == 0:
            return multiple()
        if zero:
            assert self.kernel.memory[pointer : pointer + size] == bytes(size)
        self.adopt(pointer, self.class_of(size), size)
        return pointer

    @rule(pointer=consumes(pointers))
    def kfree(self, pointer: int) -> None:
        if pointer not in self.live:        # a bulk free was faster
            return
        self.check(pointer)
        self.kernel.call("kfree", pointer)
        del self.live[pointer]

    @rule(target=pointers, pointer=consumes(pointers), size=SIZES, zero=st.booleans())
    def krealloc(self, pointer: int, size: int, zero: bool) -> object:
        if pointer not in self.live:
            return multiple()
        _, before = self.live[pointer]
        self.check(pointer)
        result = self.kernel.call("krealloc", pointer, size, GFP_ZERO if zero else 0)
        if size == 0:
            assert result == ZERO_SIZE_PTR
            del self.live[pointer]
            return multiple()
        if result == 0:
            self.check(pointer)
            return pointer
        kept = min(before, size)
        assert self.kernel.memory[result : result + kept] == pattern(pointer, before)[:kept]
        cache = self.live.pop(pointer)[0] if result == pointer else self.class_of(size)
        self.live.pop(pointer, None)
        self.adopt(result, cache, size)
        return result

    @precondition(lambda self: len(self.own) < 6)
    @rule(target=caches, size=st.integers(1, 5000), align=st.sampled_from([0, 8, 64, 128]),
          flags=st.sampled_from([0, int(SlabFlag.SLAB_HWCACHE_ALIGN)]))
    def create(self, size: int, align: int, flags: int) -> object:
        name = f"test-{self.created}"
        self.created += 1
        cache = self.kernel.call("kmem_cache_create", name, size, align, flags, 0)
        if cache == 0:
            return multiple()
        self.own[cache] = (name, size)
        view = self.kernel.heap.cache(name)
        assert view.object_size == size and view.total == 0
        return cache

    @rule(target=pointers, cache=caches, zero=st.booleans())
    def alloc(self, cache: int, zero: bool) -> object:
        if cache not in self.own:
            return multiple()
        name, size = self.own[cache]
        pointer = self.kernel.call("kmem_cache_zalloc" if zero else "kmem_cache_alloc", cache)
        if pointer == 0:
            return multiple()
        if zero:
            assert self.kernel.memory[pointer : pointer + size] == bytes(size)
        assert pointer % max(8, self.kernel.heap.cache(name).align) == 0
        self.adopt(pointer, name, size)
        return pointer

    @rule(pointer=consumes(pointers))
    def free(self, pointer: int) -> None:
        if pointer not in self.live:
            return
        owner = [cache for cache, (name, _) in self.own.items() if name == self.live[pointer][0]]
        self.check(pointer)
        self.kernel.call("kmem_cache_free", owner[0], pointer) if owner else self.kernel.call("kfree", pointer)
        del self.live[pointer]

    @rule(target=pointers, cache=caches, count=st.integers(0, 40))
    def alloc_bulk(self, cache: int, count: int) -> object:
        if cache not in self.own:
            return multiple()
        name, size = self.own[cache]
        array = bytearray(8 * count)
        assert self.kernel.call("kmem_cache_alloc_bulk", cache, count, array) in (0, count)
        pointers = [int.from_bytes(array[at : at + 8], "little") for at in range(0, 8 * count, 8)]
        if count and not pointers[-1]:
            return multiple()
        for pointer in pointers:
            self.adopt(pointer, name, size)
        return multiple(*pointers)

    @rule(cache=caches, count=st.integers(0, 40))
    def free_bulk(self, cache: int, count: int) -> None:
        if cache not in self.own:
            return
        name, _ = self.own[cache]
        chosen = [pointer for pointer, (owner, _) in self.live.items() if owner == name][:count]
        for pointer in chosen:
            self.check(pointer)
            del self.live[pointer]
        array = b"".join(pointer.to_bytes(8, "little") for pointer in chosen)
        self.kernel.call("kmem_cache_free_bulk", cache, len(chosen), array)

    @rule(cache=caches)
    def shrink(self, cache: int) -> None:
        if cache not in self.own:
            return
        name, _ = self.own[cache]
        left = self.kernel.call("kmem_cache_shrink", cache)
        view = self.kernel.heap.cache(name)
        assert view.cached == 0 and not view.empty
        assert left == (1 if view.slabs else 0) == (1 if view.inuse else 0)

    @rule(cache=consumes(caches))
    def destroy(self, cache: int) -> None:
        if cache not in self.own:
            return
        name, _ = self.own[cache]
        held = [pointer for pointer, (owner, _) in self.live.items() if owner == name]
        result = self.kernel.call("kmem_cache_destroy", cache)
        if held:
            assert result == (1 << 64) - EBUSY
            return
        assert result == 0
        del self.own[cache]

    # -- the three accounts -----------------------------------------------------------------------------------
    @invariant()
    def model_views_and_trace_agree(self) -> None:
        if not hasattr(self, "kernel"):
            return
        heap = self.kernel.heap
        infrastructure = {"kmem_cache", "magazine"}
        by_cache: dict[str, int] = {}
        for cache, _ in self.live.values():
            by_cache[cache] = by_cache.get(cache, 0) + 1
        for view in heap.caches:
            if view.name not in infrastructure:
                assert view.inuse - self.at_boot.get(view.name, 0) == by_cache.get(view.name, 0), view.name
        for pointer, (name, _) in self.live.items():
            found = heap.find(pointer)
            assert found.address == pointer
            if name:
                assert found.cache.name == name and str(found.state) == "allocated"
        traced = set()
        for event in self.trace:
            for one in [event, *event.children] if event.kind == "realloc" else [event]:
                if one.failed or (one.cache in infrastructure) or (one.kind == "realloc" and one.children):
                    continue
                if one.kind in ("alloc", "realloc"):
                    traced.add(one.address)
                elif one.kind == "free":
                    traced.discard(one.address)
        assert {pointer for pointer in traced if pointer > PAGE_SIZE} == set(self.live)

    @invariant()
    def heap_is_sound(self) -> None:
        if hasattr(self, "kernel"):
            assert_sound(self.kernel)


class WithoutMagazines(Allocator):
    """The same, where every call goes to the slabs."""

    options: ClassVar[dict[str, Any]] = {"magazines": False}


PROFILE = settings(max_examples=6, stateful_step_count=40, deadline=None, derandomize=True,
                   suppress_health_check=list(HealthCheck))
TestAllocator = Allocator.TestCase
TestAllocator.settings = PROFILE
TestWithoutMagazines = WithoutMagazines.TestCase
TestWithoutMagazines.settings = PROFILE
