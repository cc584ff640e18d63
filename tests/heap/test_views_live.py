"""The views on a running kernel, held against what was asked of it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

import sandbox
from sandbox.abi import KMALLOC_SIZES, PAGE_SIZE, SlabFlag
from sandbox.heap.slabs import ObjectState


def test_a_fresh_kernel_has_its_caches_in_order_and_nothing_in_use(kernel):
    names = [cache.name for cache in kernel.heap.caches]
    assert names[:2] == ["kmem_cache", "magazine"]
    sizes = [cache.object_size for cache in kernel.heap.caches if SlabFlag.SLAB_KMALLOC in cache.flags]
    assert sizes == list(KMALLOC_SIZES)
    assert kernel.heap.cache("kmalloc-64").total == 0


def test_every_pointer_that_kmalloc_gives_is_found_with_its_cache_and_state(kernel):
    live = {}
    for size in range(1, 9000, 173):
        live[kernel.call("kmalloc", size)] = size
    for pointer, size in live.items():
        found = kernel.heap.find(pointer)
        if size > KMALLOC_SIZES[-1]:
            assert found.kind == "large" and found.requested == size
            continue
        assert found.state is ObjectState.ALLOCATED and found.offset == 0
        assert found.cache.object_size == min(fit for fit in KMALLOC_SIZES if fit >= size)
        assert pointer in {item.address for item in found.slab.objects}
    assert len(live) == len(kernel.heap.allocated().keys() & live.keys())


def test_states_follow_an_object_from_its_caller_to_the_magazine_and_back_to_its_slab(kernel):
    pointer = kernel.call("kmalloc", 200)
    found = kernel.heap.find(pointer)
    assert found.state is ObjectState.ALLOCATED
    kernel.call("kfree", pointer)
    assert found.state is ObjectState.CACHED
    kernel.call("kmem_cache_shrink", found.cache.address)
    assert kernel.heap.cache("kmalloc-256").total == 0 or found.state is ObjectState.FREE


def test_counts_equal_the_states_of_all_objects_after_a_random_workload(kernel):
    chance = random.Random(7)
    live = []
    for _ in range(400):
        if live and chance.random() < 0.45:
            kernel.call("kfree", live.pop(chance.randrange(len(live))))
        else:
            live.append(kernel.call("kmalloc", chance.choice((8, 60, 100, 500, 3000))))
    for cache in kernel.heap.caches:
        tally = Counter(state for slab in cache.slabs for state in slab.states())
        assert (tally[ObjectState.ALLOCATED], tally[ObjectState.CACHED], tally[ObjectState.FREE]) == (
            cache.inuse, cache.cached, cache.free)
        assert sum(tally.values()) == cache.total
        assert all(slab.inuse == slab.count - slab.free for slab in cache.slabs)
        assert (len(cache.partial), len(cache.full), len(cache.empty)) == (
            cache.nr_partial, cache.nr_full, cache.nr_empty)
        assert all(slab.list.name.lower() == f"slab_list_{name}" for name in ("partial", "full", "empty")
                   for slab in getattr(cache, name))
    assert set(live) <= kernel.heap.allocated().keys()


def test_fast_and_slow_path_statistics_count_every_call(kernel):
    cache = kernel.heap.cache("kmalloc-64")
    pointers = [kernel.call("kmalloc", 64) for _ in range(100)]
    for pointer in pointers:
        kernel.call("kfree", pointer)
    assert cache.alloc_fastpath + cache.alloc_slowpath == cache.free_fastpath + cache.free_slowpath == 100
    assert cache.alloc_slab - cache.free_slab == len(cache.slabs)


def test_large_allocations_are_found_from_their_last_byte_and_gone_after_kfree(kernel):
    pointer = kernel.call("kmalloc", 100_000)
    found = kernel.heap.find(pointer + 99_999)
    assert (found.kind, found.address, found.offset, found.size) == ("large", pointer, 99_999, 131072)
    assert kernel.heap.large_allocations == (found,)
    kernel.call("kfree", pointer)
    assert not kernel.heap.find(pointer) and kernel.heap.large_allocations == ()


def test_every_frame_is_accounted_for_at_every_moment(kernel):
    pages = kernel.heap.pages
    before = pages.counts()
    assert before.lost == 0 and before.total == len(kernel.physical) // PAGE_SIZE
    block = kernel.call("get_free_pages", 3)
    pointer = kernel.call("kmalloc", 30_000)
    now = pages.counts()
    assert (now.allocated - before.allocated, now.large - before.large, before.free - now.free) == (8, 8, 16)
    assert pages.free_by_order == pages.nr_free
    assert sum(count << order for order, count in enumerate(pages.free_by_order)) == now.free
    kernel.call("free_pages", block, 3)
    kernel.call("kfree", pointer)
    assert pages.counts() == before


def test_a_cache_with_alignment_colour_and_odd_size_has_its_objects_where_the_kernel_put_them(kernel):
    address = kernel.call("kmem_cache_create", "odd", 300, 64, 0, 0)
    pointers = [kernel.call("kmem_cache_alloc", address) for _ in range(50)]
    cache = kernel.heap.cache("odd")
    assert cache.address == address and cache.align == 64 and cache.size % 64 == 0
    assert len({slab.colour for slab in cache.slabs}) > 1
    for pointer in pointers:
        found = kernel.heap.find(pointer + 150)
        assert (found.address, found.offset, found.cache) == (pointer, 150, cache)
        assert pointer % 64 == 0


def test_a_kernel_without_magazines_has_none_in_its_views():
    with sandbox.boot(magazines=False) as kernel:
        pointers = [kernel.call("kmalloc", 64) for _ in range(10)]
        cache = kernel.heap.cache("kmalloc-64")
        assert (cache.has_magazines, cache.magazines, cache.cached, cache.inuse) == (False, (), 0, 10)
        kernel.call("kfree", pointers[0])
        assert kernel.heap.find(pointers[0]).state is ObjectState.FREE


@pytest.mark.parametrize("offset", [0, 8, 32])
def test_a_free_pointer_overwritten_in_the_guest_is_reported_with_its_address(kernel, offset):
    cache_address = kernel.call("kmem_cache_create", "victim", 64, 0, int(SlabFlag.SLAB_NO_MAGAZINES), 0)
    first, second = (kernel.call("kmem_cache_alloc", cache_address) for _ in range(2))
    kernel.call("kmem_cache_free", cache_address, first)
    cache = kernel.heap.cache("victim")
    where = first + cache.offset
    kernel.memory.write_u64(where, second + 1 + offset)
    with pytest.raises(sandbox.HeapCorruption) as caught:
        _ = kernel.heap.find(second).slab.freelist
    assert caught.value.address == where


def test_views_can_be_asked_at_every_instruction_of_the_slow_path(kernel):
    """Each view answers or says what is not as it should be; nothing else is raised, and nothing loops."""
    answers = Counter()

    def look(address: int) -> None:
        try:
            for cache in kernel.heap.caches:
                assert cache.total == cache.inuse + cache.cached + cache.free
            answers["sound"] += 1
        except sandbox.HeapCorruption as error:
            assert error.address
            answers["in the middle"] += 1

    names = ("slab_take", "magazine_refill", "magazine_load", "slab_move")
    addresses = [at for name in names for at in range(*kernel.image.functions[name])]
    hook = kernel.machine.cpu.hook_code(addresses, look)
    kernel.call("kmalloc", 1024)
    hook.remove()
    assert answers["sound"] > 50
