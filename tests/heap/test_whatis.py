"""``kernel.whatis``: every kind of address has a sentence of its own."""

from __future__ import annotations

import random

import pytest

from sandbox import PhysAddr, UsageError
from sandbox.abi import DIRECT_MAP, PAGE_SIZE, STACKS_BASE, kmem_cache, magazine, page, percpu


def test_code_is_named_with_function_and_line(kernel):
    found = kernel.whatis(kernel.symbols["kmalloc"] + 4)
    assert found.kind == "text" and "kmalloc+0x" in str(found) and "kmalloc.asm:" in str(found)


def test_read_only_data_and_data_are_named(kernel):
    assert kernel.whatis(kernel.symbols["critical_sections"]).kind == "rodata"
    found = kernel.whatis(kernel.symbols["slab_caches"])
    assert found.kind == "data" and "slab_caches" in found.sentence


def test_percpu_data_names_the_field_and_the_cache_of_a_slot(kernel):
    base = kernel.symbols["boot_cpu"]
    assert "ticks of CPU 0" in kernel.whatis(base + percpu.ticks.offset).sentence
    cache = kernel.heap.cache("kmalloc-96")
    found = kernel.whatis(base + cache.struct.cpu + 8)
    assert found.kind == "percpu" and "limit (of kmalloc-96)" in found.sentence


def test_a_stack_says_which_and_how_deep_and_its_guard_how_far_past_the_end(kernel):
    top = kernel.memory.u64(kernel.memory.u64(kernel.symbols["boot_params"]) + 64)
    assert top > STACKS_BASE
    found = kernel.whatis(top - 24)
    assert found.kind == "stack" and "boot CPU's kernel stack, 24 bytes below its top" in found.sentence
    guard = kernel.whatis(top - 0x4000 - 8)
    assert guard.kind == "guard-page" and "8 bytes past its end" in guard.sentence


def test_page_tables_boot_info_and_struct_pages_are_recognised(kernel):
    cr3 = kernel.machine.paging.controls.cr3
    assert "entry 273 of the PML4" in kernel.whatis(DIRECT_MAP + cr3 + 273 * 8).sentence
    assert kernel.whatis(kernel.memory.u64(kernel.symbols["boot_params"])).kind == "boot_info"
    found = kernel.whatis(kernel.heap.pages.mem_map + 77 * page.size + page.cache.offset)
    assert found.kind == "struct-page" and found.sentence.startswith("cache of the struct page of frame 77 ")


def test_a_table_that_the_guest_made_is_a_page_table(kernel):
    frame = kernel.call("get_free_pages", 0)
    kernel.call("map_page", 0x7000_0000_0000, frame - DIRECT_MAP, 3)
    steps = kernel.machine.paging.walk(0x7000_0000_0000)
    assert kernel.whatis(DIRECT_MAP + steps[-1].table).kind == "page-table"
    assert kernel.whatis(0x7000_0000_0010).kind == "mapped"
    assert "allocated block of order 0" in kernel.whatis(0x7000_0000_0010).sentence


def test_an_object_is_named_with_offset_state_and_cache(kernel):
    pointer = kernel.call("kmalloc", 100)
    found = kernel.whatis(pointer + 7)
    assert found.kind == "object" and found.found.cache.name == "kmalloc-128"
    assert found.sentence.startswith("byte 7 of object") and found.sentence.endswith("allocated")
    kernel.call("kfree", pointer)
    assert kernel.whatis(pointer).sentence.endswith("free in magazine")


def test_the_allocators_own_structures_are_named_by_field(kernel):
    kernel.call("kfree", kernel.call("kmalloc", 100))
    address = kernel.call("kmem_cache_create", "mine", 40, 0, 0, 0)
    found = kernel.whatis(address + kmem_cache.partial.offset + 8)
    assert found.kind == "kmem_cache" and found.sentence == "partial.prev of the struct kmem_cache of mine"
    boot = kernel.heap.cache("kmem_cache").address
    assert kernel.whatis(boot + kmem_cache.name.offset).sentence == "name of the struct kmem_cache of kmem_cache"
    held = kernel.heap.cache("kmalloc-128").magazines[0].address
    found = kernel.whatis(held + magazine.objects.offset + 16)
    assert found.kind == "magazine" and found.sentence == "objects[2] of CPU 0's loaded magazine of kmalloc-128"


def test_large_allocations_free_blocks_and_plain_pages_are_told_apart(kernel):
    large, pages = kernel.call("kmalloc", 50_000), kernel.call("get_free_pages", 2)
    assert kernel.whatis(large + 5).kind == "large"
    assert "allocated block of order 2" in kernel.whatis(pages + 3 * PAGE_SIZE).sentence
    kernel.call("free_pages", pages, 2)
    assert kernel.whatis(pages + PAGE_SIZE).kind == "free-frame"


@pytest.mark.parametrize(("address", "kind"), [
    (0, "null"), (0x10, "zero-size"), (1 << 47, "non-canonical"), (0xFFFF_7FFF_FFFF_FFFF, "non-canonical"),
    (DIRECT_MAP + 0xA_0000, "hole"), (DIRECT_MAP + 0xF_FFFF, "hole"), (0x1234_5000, "unmapped"),
    (DIRECT_MAP + (16 << 20), "unmapped"), ((1 << 64) - 1, "unmapped"), (DIRECT_MAP + 0x20_0000, "reserved")])
def test_addresses_without_an_owner_have_a_kind_too(kernel, address, kind):
    found = kernel.whatis(address)
    assert found.kind == kind and len(str(found)) > 25 and "\n" not in str(found)


def test_the_direct_map_names_what_else_an_address_is(kernel):
    physical = kernel.memory.translate(kernel.symbols["kfree"])
    assert "kfree" in kernel.whatis(DIRECT_MAP + physical).sentence


def test_any_number_at_all_gets_an_answer(kernel):
    chance = random.Random(3)
    for base in (0, DIRECT_MAP, STACKS_BASE, 0xFFFF_FFFF_8000_0000, 0xFFFF_0000_0000_0000):
        for _ in range(60):
            kernel.whatis((base + chance.randrange(1 << chance.randrange(1, 48))) & ((1 << 64) - 1))


def test_a_damaged_heap_still_gets_an_answer(kernel):
    pointer = kernel.call("kmalloc", 64)
    pfn = kernel.heap.pages.pfn(pointer)
    kernel.heap.pages.struct_page(pfn).head = 0xDEAD
    assert kernel.whatis(pointer).kind == "corrupt"


def test_a_physical_address_is_looked_up_through_the_direct_map(kernel):
    assert kernel.whatis(PhysAddr(0xA_0000)).kind == "hole"
    pointer = kernel.call("kmalloc", 64)
    assert kernel.whatis(kernel.memory.translate(pointer)) == kernel.whatis(pointer)


@pytest.mark.parametrize("wrong", [-1, 1 << 64, "kmalloc", None, True, 1.5])
def test_what_is_no_address_is_refused(kernel, wrong):
    with pytest.raises(UsageError, match="an address is a number"):
        kernel.whatis(wrong)
