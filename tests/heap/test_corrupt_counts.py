"""Counts of a heap that the guest broke: an error with the address of what is wrong, never a number that cannot be."""

from __future__ import annotations

import pytest

import sandbox
from sandbox.errors import HeapCorruption
from sandbox.view.slab_table import slab_table


def test_more_objects_out_of_a_slab_than_it_has_is_an_error_of_its_struct_page() -> None:
    with sandbox.boot(magazines=False, hz=0) as kernel:
        first, second = kernel.call("kmalloc", 64), kernel.call("kmalloc", 64)
        slab = kernel.heap.slab_at(first)
        assert slab is not None
        for pointer in (first, first, second):               # one free more than objects were out
            kernel.call("kfree", pointer)
        cache = kernel.heap.cache("kmalloc-64")
        assert slab.page.inuse == 0xFFFF
        for ask in (lambda: cache.inuse, lambda: cache.free, lambda: slab.inuse):
            with pytest.raises(HeapCorruption, match="65535 objects are out of kmalloc-64's slab") as caught:
                ask()
            assert caught.value.address == slab.page.address


def test_a_slot_of_a_magazine_that_holds_no_object_is_named_with_its_value() -> None:
    with sandbox.boot(hz=0) as kernel:
        pointer = kernel.call("kmalloc", 64)
        kernel.call("kfree", pointer + 8)
        cache = kernel.heap.cache("kmalloc-64")
        for ask in (lambda: cache.cached, lambda: cache.inuse):
            with pytest.raises(HeapCorruption, match=f"holds 0x{pointer + 8:x}, which is no object") as caught:
                ask()
            assert kernel.memory.u64(caught.value.address) == pointer + 8


def test_a_slot_that_holds_an_object_of_another_cache_is_named() -> None:
    with sandbox.boot(hz=0) as kernel:
        other = kernel.call("kmalloc", 128)
        kernel.call("kfree", kernel.call("kmalloc", 64))
        cache = kernel.heap.cache("kmalloc-64")
        loaded = cache.magazines[0]
        kernel.memory.write_u64(loaded.slot(len(loaded.objects) - 1), other)
        with pytest.raises(HeapCorruption, match=f"0x{other:x}, which is no object of that cache"):
            _ = cache.cached


def test_an_object_that_is_in_magazines_twice_is_the_one_that_is_named() -> None:
    with sandbox.boot(hz=0) as kernel:
        pointer = kernel.call("kmalloc", 64)
        kernel.call("kfree", pointer)
        kernel.call("kfree", pointer)
        with pytest.raises(HeapCorruption, match=f"the object 0x{pointer:x} of kmalloc-64 is in magazines twice"):
            _ = kernel.heap.cache("kmalloc-64").inuse


def test_the_table_keeps_the_rows_of_sound_caches_and_raises_behind_them() -> None:
    with sandbox.boot(hz=0) as kernel:
        pointer = kernel.call("kmalloc", 64)
        kernel.call("kfree", pointer)
        kernel.call("kfree", pointer)
        rows: list[str] = []
        with pytest.raises(HeapCorruption, match=f"0x{pointer:x}"):
            rows.extend(iter_into(rows, slab_table(kernel.heap)))
        corrupt = [row for row in rows if row.endswith("corrupt")]
        assert len(corrupt) == 1 and corrupt[0].startswith("kmalloc-64 ")
        assert len(rows) == 2 + len(kernel.heap.caches)


def iter_into(rows: list[str], lines: object) -> list[str]:
    """Keep what comes before an exception."""
    for line in lines:  # type: ignore[attr-defined]
        rows.append(line)
    return []
