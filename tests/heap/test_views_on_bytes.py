"""The views against a heap that was laid out by hand (conftest.py)."""

from __future__ import annotations

import pytest

from sandbox.abi import DIRECT_MAP, PAGE_SIZE, PageFlag, SlabList, kmem_cache, list_head, magazine, page
from sandbox.errors import HeapCorruption, UsageError
from sandbox.heap.slabs import HeapObject, LargeAllocation, NotHeap, ObjectState
from sandbox.heap.views import Heap

PARTIAL, FULL, EMPTY = SlabList.SLAB_LIST_PARTIAL, SlabList.SLAB_LIST_FULL, SlabList.SLAB_LIST_EMPTY


def test_caches_come_in_the_order_of_slab_caches(synthetic):
    for name in ("zebra", "ant", "mole"):
        synthetic.cache(name, 64)
    assert [cache.name for cache in Heap(synthetic).caches] == ["zebra", "ant", "mole"]


def test_before_slab_init_there_are_no_caches(synthetic):
    synthetic.put("slab_caches", 0)
    assert Heap(synthetic).caches == ()


def test_a_wrong_cache_name_gets_the_nearest_names(synthetic):
    for name in ("kmalloc-64", "kmalloc-96", "inode"):
        synthetic.cache(name, 64)
    with pytest.raises(UsageError, match=r"no cache is called 'kmaloc-64'; did you mean kmalloc-64"):
        Heap(synthetic).cache("kmaloc-64")


def test_a_cache_tells_every_field_from_its_bytes(synthetic):
    synthetic.cache("odd", 100, stride=104, order=1, offset=96, red_left_pad=8)
    cache = Heap(synthetic).cache("odd")
    assert (cache.object_size, cache.size, cache.order, cache.offset, cache.red_left_pad) == (100, 104, 1, 96, 8)
    assert cache.objects_per_slab == 8192 // 104


def test_the_three_counts_add_up_to_the_total(synthetic):
    raw = synthetic.cache("things", 512, rounds=4)
    partial = synthetic.slab(raw, [1, 2, 3], PARTIAL)
    synthetic.slab(raw, [], FULL)
    synthetic.slab(raw, range(8), EMPTY)
    synthetic.load(raw, [partial, partial + 7 * 512])
    cache = Heap(synthetic).cache("things")
    assert (cache.total, cache.free, cache.cached, cache.inuse) == (24, 11, 2, 11)
    assert [len(slabs) for slabs in (cache.partial, cache.full, cache.empty)] == [1, 1, 1]


def test_the_counts_are_read_anew_each_time(synthetic):
    raw = synthetic.cache("things", 512, rounds=4)
    slab = synthetic.slab(raw, [], FULL)
    cache = Heap(synthetic).cache("things")
    found = Heap(synthetic).find(slab)
    assert (cache.inuse, found.state) == (8, ObjectState.ALLOCATED)
    synthetic.load(raw, [slab])
    assert (cache.inuse, found.state) == (7, ObjectState.CACHED)


def test_every_magazine_counts_loaded_previous_and_depot(synthetic):
    raw = synthetic.cache("things", 512, rounds=2)
    slab = synthetic.slab(raw, [], FULL)
    at = [slab + index * 512 for index in range(8)]
    synthetic.load(raw, at[:1])
    synthetic.front(raw).previous = synthetic.magazine(at[1:3])
    raw.depot_full = synthetic.magazine(at[3:5])
    raw.depot_empty = synthetic.magazine(())
    cache = Heap(synthetic).cache("things")
    assert [(held.role, held.cpu, held.objects) for held in cache.magazines] == [
        ("loaded", 0, tuple(at[:1])), ("previous", 0, tuple(at[1:3])), ("depot full", -1, tuple(at[3:5])),
        ("depot empty", -1, ())]
    assert cache.cached == 5
    states = [str(state) for state in cache.full[0].states()]
    assert states == ["free in magazine"] * 5 + ["allocated"] * 3


def test_an_object_lies_at_slab_plus_colour_plus_red_zone_plus_index_times_size(synthetic):
    raw = synthetic.cache("odd", 100, stride=120, red_left_pad=8, objects=33)
    slab = synthetic.slab(raw, [0, 5], PARTIAL, colour=64)
    heap = Heap(synthetic)
    found = heap.find(slab + 64 + 8 + 5 * 120)
    assert isinstance(found, HeapObject)
    assert (found.index, found.offset, found.state) == (5, 0, ObjectState.FREE)
    assert [item.address for item in found.slab.objects][:2] == [slab + 72, slab + 192]
    assert heap.find(slab + 64 + 8 + 5 * 120 - 3).offset == -3
    assert heap.find(slab + 64 + 8 + 5 * 120 + 104).offset == 104


def test_interior_pointers_find_their_object_in_every_page_of_a_slab(synthetic):
    raw = synthetic.cache("big", 3072, order=3, offset=0)
    slab = synthetic.slab(raw, [], FULL)
    heap = Heap(synthetic)
    for address in range(slab, slab + 10 * 3072, 64):
        found = heap.find(address)
        assert found and (found.index, found.offset) == divmod(address - slab, 3072)
        assert found.slab.address == slab


def test_addresses_of_a_slab_that_no_object_has_are_not_heap_and_say_so(synthetic):
    raw = synthetic.cache("odd", 1000, objects=4)
    slab = synthetic.slab(raw, [], FULL, colour=64)
    heap = Heap(synthetic)
    before, behind = heap.find(slab + 63), heap.find(slab + 64 + 4000)
    assert isinstance(before, NotHeap) and "colouring" in before.reason and before.slab.address == slab
    assert isinstance(behind, NotHeap) and "left-over" in behind.reason


@pytest.mark.parametrize("address", [0, 0x10, 0x1234, DIRECT_MAP - 1, DIRECT_MAP + 256 * PAGE_SIZE,
                                     DIRECT_MAP + 3 * PAGE_SIZE, 0xFFFF_FFFF_8000_0000, (1 << 64) - 1])
def test_what_is_not_heap_is_false_and_has_a_reason(synthetic, address):
    found = Heap(synthetic).find(address)
    assert not found and found.kind == "not heap" and found.reason


def test_a_large_allocation_is_found_from_any_of_its_bytes(synthetic):
    address = synthetic.large(2, 10000)
    found = Heap(synthetic).find(address + 9000)
    assert isinstance(found, LargeAllocation)
    assert (found.address, found.offset, found.size, found.requested) == (address, 9000, 16384, 10000)
    assert Heap(synthetic).large_allocations == (found,)


def test_allocated_lists_what_callers_hold_and_nothing_else(synthetic):
    raw = synthetic.cache("things", 1024, rounds=2)
    slab = synthetic.slab(raw, [1], PARTIAL)
    synthetic.load(raw, [slab + 3072])
    large = synthetic.large(1, 5000)
    assert Heap(synthetic).allocated() == {slab: 1024, slab + 2048: 1024, large: 8192}


def test_hardened_free_pointers_are_decoded(synthetic):
    raw = synthetic.cache("hard", 64, random=0x0123_4567_89AB_CDEF)
    slab = synthetic.slab(raw, [3, 1, 60], PARTIAL)
    assert Heap(synthetic).cache("hard").partial[0].freelist == (slab + 192, slab + 64, slab + 3840)


def test_the_free_list_keeps_the_order_in_which_objects_will_be_taken(synthetic):
    raw = synthetic.cache("things", 256)
    slab = synthetic.slab(raw, [9, 2, 15, 0], PARTIAL)
    assert Heap(synthetic).slab_at(slab).freelist == tuple(slab + 256 * index for index in (9, 2, 15, 0))


# -- corruption -------------------------------------------------------------------------------------------------
def overwrite(synthetic, address, value):
    synthetic.memory.write(address, value.to_bytes(8, "little"))


@pytest.mark.parametrize(("value", "words"), [
    (0x4141_4141_4141_4141, "no object"), (1, "no object"), ("self", "cycle"), ("odd", "no object"),
    ("next slab", "no object")])
def test_a_damaged_free_pointer_is_reported_with_its_own_address(synthetic, value, words):
    raw = synthetic.cache("things", 64, offset=16)
    slab = synthetic.slab(raw, [0, 1, 2], PARTIAL)
    number = {"self": slab, "odd": slab + 65, "next slab": slab + PAGE_SIZE}.get(value, value)
    overwrite(synthetic, slab + 64 + 16, number)
    with pytest.raises(HeapCorruption, match=words) as caught:
        _ = Heap(synthetic).cache("things").partial[0].freelist
    assert caught.value.address == slab + 64 + 16


def test_a_damaged_free_list_head_is_reported_at_the_struct_page(synthetic):
    raw = synthetic.cache("things", 64)
    slab = synthetic.slab(raw, [0], PARTIAL)
    top = synthetic.page((slab - DIRECT_MAP) // PAGE_SIZE)
    top.freelist = 0xDEAD
    with pytest.raises(HeapCorruption) as caught:
        _ = Heap(synthetic).find(slab).state
    assert caught.value.address == top.address + page.freelist.offset


@pytest.mark.parametrize("target", [0, 8, "cycle", "cache", "unmapped"])
def test_a_damaged_slab_list_is_never_taken_for_its_end_and_never_loops(synthetic, target):
    raw = synthetic.cache("things", 64)
    slabs = [synthetic.slab(raw, [], FULL) for _ in range(3)]
    links = [synthetic.page((at - DIRECT_MAP) // PAGE_SIZE).address + page.next.offset for at in slabs]
    wrong = {"cycle": links[0], "cache": raw.address, "unmapped": DIRECT_MAP + 0x4000_0000}.get(target, target)
    list_head(synthetic.memory, links[1]).next = wrong
    with pytest.raises(HeapCorruption):
        _ = Heap(synthetic).cache("things").full


def test_a_cycle_in_slab_caches_is_reported(synthetic):
    first, second = synthetic.cache("a", 8), synthetic.cache("b", 8)
    second.list.next = first.list.address
    with pytest.raises(HeapCorruption, match="never to its head") as caught:
        _ = Heap(synthetic).caches
    assert caught.value.address == second.list.address


def test_a_loaded_magazine_with_top_outside_it_is_corrupt(synthetic):
    raw = synthetic.cache("things", 64, rounds=4)
    front = synthetic.front(raw)
    for top in (front.limit + 8, front.loaded, front.top + 4):
        synthetic.front(raw).top = top
        with pytest.raises(HeapCorruption, match="outside the loaded magazine"):
            _ = Heap(synthetic).cache("things").cached


def test_a_depot_that_leads_back_to_itself_is_corrupt(synthetic):
    raw = synthetic.cache("things", 64, rounds=4)
    first, second = synthetic.magazine(()), synthetic.magazine(())
    raw.depot_full = first
    magazine(synthetic.memory, first).next = second
    magazine(synthetic.memory, second).next = first
    with pytest.raises(HeapCorruption, match="leads back"):
        _ = Heap(synthetic).cache("things").magazines


def test_a_slab_page_whose_head_leads_elsewhere_is_corrupt(synthetic):
    raw = synthetic.cache("things", 64)
    slab = synthetic.slab(raw, [], FULL)
    top = synthetic.page((slab - DIRECT_MAP) // PAGE_SIZE)
    for head in (0, top.address + 1, top.address + page.size):
        top.head = head
        with pytest.raises(HeapCorruption):
            Heap(synthetic).find(slab)


def test_a_cache_pointer_that_is_none_is_corrupt_and_not_followed(synthetic):
    raw = synthetic.cache("things", 64)
    slab = synthetic.slab(raw, [], FULL)
    top = synthetic.page((slab - DIRECT_MAP) // PAGE_SIZE)
    for cache in (0, 0x1000, kmem_cache.size, DIRECT_MAP + (1 << 40)):
        top.cache = cache
        with pytest.raises(HeapCorruption):
            Heap(synthetic).find(slab)


# -- frames -----------------------------------------------------------------------------------------------------
def fill(synthetic):
    """Frames 32-35: a slab and a page; 36-37 large; 38 a table; 40-127 free; the rest allocated."""
    raw = synthetic.cache("things", 64)
    synthetic.slab(raw, [], FULL)
    synthetic.next_pfn = 36
    synthetic.large(1, 8000)
    synthetic.page(38).flags = PageFlag.PG_HEAD | PageFlag.PG_TABLE
    synthetic.free_block(40, 3)
    synthetic.free_block(48, 4)
    synthetic.free_block(64, 6)
    for pfn in (33, 34, 35, 39, *range(128, 200)):
        synthetic.page(pfn).flags = PageFlag.PG_HEAD


def test_every_frame_is_counted_exactly_once(synthetic):
    fill(synthetic)
    counts = Heap(synthetic).pages.counts()
    assert (counts.reserved, counts.slab, counts.large, counts.table, counts.free) == (32, 1, 2, 1, 88)
    assert counts.lost == 0
    assert counts.total == 256 == (counts.free + counts.reserved + counts.slab + counts.large + counts.table
                                   + counts.allocated + counts.lost)


def test_frames_that_nobody_owns_are_counted_as_lost(synthetic):
    fill(synthetic)
    synthetic.page(199).flags = 0
    assert Heap(synthetic).pages.counts().lost == 1


def test_free_blocks_by_order_agree_with_the_counters(synthetic):
    fill(synthetic)
    pages = Heap(synthetic).pages
    assert pages.free_by_order == pages.nr_free == (0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0)
    assert [block.address for block in pages.free_blocks(4)] == [DIRECT_MAP + 48 * PAGE_SIZE]
    assert pages.free_block_of(63).pfn == 48 and pages.free_block_of(39) is None


def test_a_frame_with_two_owners_is_corrupt(synthetic):
    fill(synthetic)
    synthetic.page(70).flags = PageFlag.PG_SLAB
    with pytest.raises(HeapCorruption, match="frame 70 is free and also"):
        Heap(synthetic).pages.counts()


def test_overlapping_blocks_are_corrupt(synthetic):
    fill(synthetic)
    synthetic.page(50).flags = PageFlag.PG_BUDDY
    with pytest.raises(HeapCorruption, match="lies inside another"):
        Heap(synthetic).pages.counts()


def test_a_free_list_with_a_block_of_another_order_is_corrupt(synthetic):
    fill(synthetic)
    synthetic.page(48).order = 5
    with pytest.raises(HeapCorruption, match="no free block of order 4"):
        Heap(synthetic).pages.free_blocks(4)
