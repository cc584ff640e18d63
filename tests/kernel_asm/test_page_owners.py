"""free_pages gives back what is the caller's: those of a slab, of a large kmalloc and of the page tables are not."""

from __future__ import annotations

from typing import Any

import pytest

import sandbox
from sandbox.abi import PAGE_SIZE, PageFlag
from sandbox.errors import GuestPanic


@pytest.fixture
def kernel() -> Any:
    with sandbox.boot(ram="8M", hz=0) as kernel:
        yield kernel


def refused(kernel: sandbox.Kernel, address: int, order: int, words: str = "belongs to a slab") -> None:
    with pytest.raises(GuestPanic, match=f"free_pages: 0x{address:016x} {words}"):
        kernel.call("free_pages", address, order)
    kernel.rewind()
    assert kernel.heap.validate() == []


def test_a_live_slab_is_not_the_callers_to_free(kernel: sandbox.Kernel) -> None:
    slab = kernel.heap.slab_at(kernel.call("kmalloc", 64))
    assert slab is not None
    refused(kernel, slab.address, slab.cache.order)


def test_a_large_allocation_goes_back_through_kfree_alone(kernel: sandbox.Kernel) -> None:
    pointer = kernel.call("kmalloc", 20_000)
    refused(kernel, pointer, 3)
    before = kernel.heap.pages.counts().free
    with kernel.trace() as trace:
        kernel.call("kfree", pointer)
    assert [event.kind for event in trace.walk()] == ["free", "page_free"]
    assert kernel.heap.pages.counts().free == before + 8
    assert kernel.heap.pages.struct_page(kernel.heap.pages.pfn(pointer) or 0).flags & PageFlag.PG_LARGE == 0
    assert kernel.heap.validate() == []


def test_a_page_table_is_not_the_callers_to_free(kernel: sandbox.Kernel) -> None:
    page = kernel.call("get_free_pages", 0)
    assert kernel.call("map_page", 0xFFFFD00012345000, page - 0xFFFF888000000000, 1) == 0
    tables = [pfn for pfn in range(kernel.heap.pages.max_pfn)
              if kernel.heap.pages.struct_page(pfn).flags & PageFlag.PG_TABLE]
    assert tables
    refused(kernel, 0xFFFF888000000000 + tables[0] * PAGE_SIZE, 0)


def test_an_order_beyond_every_block_is_refused(kernel: sandbox.Kernel) -> None:
    page = kernel.call("get_free_pages", 0)
    refused(kernel, page, 0x100, "does not begin")       # its low byte is the order of the block
    kernel.call("free_pages", page, 0)


def test_an_emptied_slab_still_gives_its_pages_back() -> None:
    with sandbox.boot(ram="8M", hz=0, magazines=False, empty_slab_limit=0) as kernel:
        before = kernel.heap.pages.counts()
        cache = kernel.call("kmem_cache_create", "mine", 3000, 0, 0, 0)
        held = [kernel.call("kmem_cache_alloc", cache) for _ in range(8)]
        with kernel.trace() as trace:
            for pointer in held:
                kernel.call("kmem_cache_free", cache, pointer)
        assert "page_free" in [event.kind for event in trace.walk()]
        kernel.call("kmem_cache_destroy", cache)
        after = kernel.heap.pages.counts()
        assert after.lost == 0 and after.free == before.free and kernel.heap.validate() == []


@pytest.mark.parametrize("name", ["", "tab\there", "line\n", "\x7f"])
def test_a_name_that_would_break_slabinfo_makes_no_cache(kernel: sandbox.Kernel, name: str) -> None:
    assert kernel.call("kmem_cache_create", name, 64, 0, 0, 0) == 0
    assert kernel.heap.validate() == []


def test_a_name_is_read_as_the_utf_8_that_it_was_given_as(kernel: sandbox.Kernel) -> None:
    kernel.call("kmem_cache_create", "größe", 64, 0, 0, 0)
    assert kernel.heap.cache("größe").object_size == 64


def test_krealloc_is_what_a_bad_pointer_of_krealloc_is_blamed_on(kernel: sandbox.Kernel) -> None:
    with pytest.raises(GuestPanic, match=r"krealloc: 0x.* is not slab memory"):
        kernel.call("krealloc", kernel.symbols["main_stack"], 64, 0)
    kernel.rewind()
    with pytest.raises(GuestPanic, match=r"ksize: 0x.* is not slab memory"):
        kernel.call("ksize", kernel.symbols["main_stack"])
