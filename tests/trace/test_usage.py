"""What was taken against what was asked for, and which events last when the guest was taken back."""

from __future__ import annotations

import pytest

from sandbox import GuestPanic, Kernel
from sandbox.heap.views import Heap
from sandbox.trace.ledger import held, lasting
from sandbox.trace.usage import PAGES, peak


def taken_now(heap: Heap) -> int:
    """The second reading: pages that are not free."""
    return -heap.pages.counts().free


def test_the_peak_is_what_the_page_frames_say_at_that_moment(kernel: Kernel) -> None:
    before = most = taken_now(kernel.heap)
    with kernel.trace() as trace:
        pointers = []
        for size in (40, 4000, 9000, 40, 100, 20_000, 1, 2000):
            pointers.append((kernel.call("kmalloc", size), size))
            most = max(most, taken_now(kernel.heap))
        for pointer, _ in pointers[2:6]:
            kernel.call("kfree", pointer)
        kernel.call("free_pages", kernel.call("get_free_pages", 1), 1)
    found = peak(trace.walk())
    assert found.pages == most - before
    assert found.asked == sum(size for _, size in pointers)
    assert sum(found.taken_by.values()) == found.taken and sum(found.asked_by.values()) == found.asked
    assert found.asked_by[PAGES] == 29_000 and found.taken_by[PAGES] == (16 << 10) + (32 << 10)
    assert found.waste == pytest.approx(100 * (1 - found.asked / found.taken))


def test_a_reallocation_changes_what_was_asked_for_in_its_place_or_another(kernel: Kernel) -> None:
    with kernel.trace() as trace:
        pointer = kernel.call("kmalloc", 40)
        kernel.call("krealloc", pointer, 60, 0)
        assert peak(trace.walk()).asked == 60
        kernel.call("krealloc", pointer, 200, 0)
    assert peak(trace.walk()).asked_by["kmalloc-256"] == 200


def test_an_empty_trace_takes_and_wastes_nothing() -> None:
    assert (peak([]).pages, peak([]).asked, peak([]).waste) == (0, 0, 0.0)


def test_events_that_were_undone_do_not_last(kernel: Kernel) -> None:
    with kernel.trace() as trace:
        first = kernel.call("kmalloc", 40)
        before = kernel.snapshot()
        kernel.call("kmalloc", 100)
        kernel.call("kfree", first)
        kernel.restore(before)
        assert [event.bytes_req for event in lasting(trace.walk(), kernel.instructions) if event.parent is None] == [40]
        again = kernel.call("kmalloc", 200)
        with pytest.raises(GuestPanic):
            kernel.call("kfree", 0x1234)
        kernel.rewind()
        kernel.call("kmem_cache_alloc_bulk", kernel.heap.cache("kmalloc-64").address, 3, bytearray(24))
    events = lasting(trace.walk(), kernel.instructions)
    assert [event.bytes_req for event in events if event.parent is None] == [40, 200, 64, 64, 64]
    assert held(events).items() <= kernel.heap.allocated().items()
    assert {first, again} <= set(held(events))
    assert {event.parent for event in events} - {None} <= {event.sequence for event in events}
