"""The heap as text, held against the guest's own account of itself."""

from __future__ import annotations

import random

import pytest

import sandbox
from sandbox.view.slabs import LEGEND, cells, page_summary, slab_rows, slabinfo


@pytest.mark.parametrize("magazines", [True, False])
def test_slabinfo_from_the_views_equals_what_the_guest_prints(magazines):
    chance = random.Random(5)
    with sandbox.boot(magazines=magazines) as kernel:
        cache = kernel.call("kmem_cache_create", "my things", 72, 0, 0, 0)
        live = [kernel.call("kmalloc", chance.choice((8, 64, 700, 8000))) for _ in range(200)]
        live += [kernel.call("kmem_cache_alloc", cache) for _ in range(200)]
        for pointer in chance.sample(live, 300):
            kernel.call("kfree", pointer)
        kernel.call("slabinfo")
        assert slabinfo(kernel.heap) == kernel.console


def test_a_row_of_cells_shows_each_object_in_order_of_address(kernel):
    first, second, third = (kernel.call("kmalloc", 1024) for _ in range(3))
    kernel.call("kfree", second)
    slab = kernel.heap.find(first).slab
    (row,) = cells(slab)
    assert len(row) == slab.count
    for pointer, cell in ((first, "#"), (second, "o"), (third, "#")):
        found = kernel.heap.find(pointer)
        assert cells(found.slab)[0][found.index] == cell
    assert all(mark in LEGEND for mark in "#o.")


def test_the_cells_of_a_cache_add_up_to_its_counts(kernel):
    for _ in range(70):
        kernel.call("kmalloc", 32)
    cache = kernel.heap.cache("kmalloc-32")
    head, *rows = slab_rows(cache)
    assert head == f"kmalloc-32: 32 bytes, 128 in a slab; 70 in use, {cache.cached} in magazines, {cache.free} free"
    drawn = "".join(row[30:] for row in rows)
    assert [drawn.count(mark) for mark in "#o."] == [cache.inuse, cache.cached, cache.free]
    assert max(map(len, rows)) <= 100


def test_the_summary_of_pages_adds_up(kernel):
    counts = kernel.heap.pages.counts()
    text = page_summary(kernel.heap)
    assert text.startswith(f"{counts.total} frames: {counts.free} free") and "LOST" not in text
    blocks = text.splitlines()[1].removeprefix("free blocks: ").split()
    assert sum(int(count) * int(size[:-1]) for count, size in (block.split("*") for block in blocks)) == 4 * counts.free
