"""A trace as text."""

from __future__ import annotations

import pytest

from sandbox import GuestPanic
from sandbox.view.trace import call, lines


def text_of(trace) -> list[str]:
    return list(lines(trace.walk()))


def test_one_line_for_each_event_and_deeper_ones_are_indented(kernel):
    with kernel.trace() as trace:
        pointer = kernel.call("kmalloc", 100)
    rows = text_of(trace)
    assert len(rows) == len(trace.events())
    assert f" kmalloc(100) = 0x{pointer:x}   kmalloc-128, 128 bytes   Python" in rows[0]
    for row, event in zip(rows, trace.walk(), strict=True):
        depth = 0
        while event.parent is not None:
            event, depth = trace.by_sequence(event.parent), depth + 1
        assert row[18 + 1 :].startswith("  " * depth) and row[19 + 2 * depth] != " "


def test_every_kind_of_call_is_written_as_one_would_write_it(kernel):
    with kernel.trace() as trace:
        cache = kernel.call("kmem_cache_create", "mine", 40, 0, 0, 0)
        item = kernel.call("kmem_cache_alloc", cache)
        kernel.call("kmem_cache_free", cache, item)
        kernel.call("kmem_cache_destroy", cache)
        pages = kernel.call("get_free_pages", 1)
        kernel.call("free_pages", pages, 1)
        pointer = kernel.call("krealloc", 0, 10, 0)
        kernel.call("kmalloc", 1 << 40)
    assert [call(event) for event in trace if event.kind != "slab_destroy"] == [
        f'kmem_cache_create("mine", 40) = 0x{cache:x}', f"kmem_cache_alloc(mine) = 0x{item:x}",
        f"kmem_cache_free(0x{item:x})", "kmem_cache_destroy(mine)", f"get_free_pages(order 1) = 0x{pages:x}",
        f"free_pages(0x{pages:x})", f"krealloc(10) = 0x{pointer:x}", "kmalloc(1099511627776) = 0, it failed"]


def test_a_call_that_never_returned_says_so(kernel):
    trace = kernel.trace()
    with pytest.raises(GuestPanic):
        kernel.call("kfree", 0x1234)
    trace.stop()
    kernel.rewind()
    assert "kfree(0x1234)   never returned" in text_of(trace)[-1]
