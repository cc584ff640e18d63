"""A comparison of two moments finds each byte that differs, and says whose it is."""

from __future__ import annotations

import random

import numpy as np
import pytest

import sandbox
from sandbox.abi import DIRECT_MAP, PAGE_SIZE, kmem_cache
from sandbox.debugger.diff import Diff, State, capture, compare
from sandbox.debugger.names import Names
from sandbox.kernel import Kernel


def differing(before: State, after: State) -> set[int]:
    """The physical addresses at which two RAMs differ, by looking at every byte."""
    left, right = (np.frombuffer(bytes(state.ram), np.uint8) for state in (before, after))
    return set(np.flatnonzero(left != right).tolist())


def told(diff: Diff, before: State, after: State) -> set[int]:
    """The physical addresses that a comparison tells; those on stacks by its ranges."""
    found = {at for change in (*diff.changes, *diff.accessed) for at in change.differing}
    everything = differing(before, after)
    for stack in diff.stacks:
        start = int(after.machine.paging.translate(stack.start))
        found |= everything & set(range(start, start + stack.end - stack.start))
    return found


def steps(kernel: Kernel, seed: int) -> None:
    """Calls of all kinds, and bytes that Python writes."""
    source = random.Random(seed)
    held: list[int] = []
    for _ in range(40):
        if held and source.random() < 0.4:
            kernel.call("kfree", held.pop(source.randrange(len(held))))
        else:
            held.append(kernel.call("kmalloc", source.choice((8, 40, 64, 100, 700, 5000, 20_000))))
            kernel.memory.write(held[-1], source.randbytes(8))
    kernel.call("get_free_pages", 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_changes_are_the_bytes_that_differ(kernel: Kernel, seed: int) -> None:
    before = capture(kernel)
    steps(kernel, seed)
    after = capture(kernel)
    diff = compare(before, after, limit=100_000)
    assert told(diff, before, after) == differing(before, after) and len(diff.changes) > 100
    assert not diff.omitted
    back = compare(after, before, limit=100_000)
    assert told(back, after, before) == differing(before, after)
    assert "instructions back" in str(back).splitlines()[0]


def test_the_values_of_each_change_are_those_of_its_moment(kernel: Kernel) -> None:
    before = capture(kernel)
    steps(kernel, 3)
    after = capture(kernel)
    for change in compare(before, after).changes:
        assert before.machine.memory.read(change.physical, len(change.before)) == change.before
        assert after.machine.memory.read(change.physical, len(change.after)) == change.after
        assert change.before != change.after


def test_what_is_left_out_is_counted(kernel: Kernel) -> None:
    before = capture(kernel)
    steps(kernel, 4)
    after = capture(kernel)
    for limit in (0, 1, 17, 60):
        diff = compare(before, after, limit)
        assert len(diff.changes) + len(diff.accessed) == limit
        missing = differing(before, after) - told(diff, before, after)
        assert sum(diff.omitted.values()) == len(missing) > 0
        assert f"and {len(missing):,} bytes more, in {len(diff.omitted)} pages" in str(diff)


def test_two_equal_moments_do_not_differ(kernel: Kernel) -> None:
    diff = compare(capture(kernel), capture(kernel))
    assert not diff and str(diff).endswith("nothing differs")


def test_consecutive_words_of_an_object_are_one_change(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    before = capture(kernel)
    kernel.memory[pointer + 9:pointer + 23] = b"fourteen bytes"
    kernel.memory[pointer + 40:pointer + 41] = b"!"
    diff = compare(before, capture(kernel))
    assert [(change.name.text, len(change.before)) for change in diff.changes] == [
        ("object 0 of kmalloc-64 +0x8", 16), ("object 0 of kmalloc-64 +0x28", 8)]
    assert diff.changes[0].after[1:15] == b"fourteen bytes" and not diff.caches


def test_each_field_is_one_change_with_its_values_in_words(kernel: Kernel) -> None:
    before = capture(kernel)
    pointer = kernel.call("kmalloc", 64)
    after = capture(kernel)
    changes = {change.name.text: change.words for change in compare(before, after).changes}
    pfn = (pointer - DIRECT_MAP) // PAGE_SIZE
    assert changes["kmem_cache(kmalloc-64).nr_partial"] == ("0", "1")
    assert changes["kmem_cache(kmalloc-64).partial"] == (
        "itself: an empty list", f"slab 0x{pointer:x} of kmalloc-64, 29 of 64 in use")
    assert changes[f"page[{pfn}].flags"] == ("0", "PG_HEAD|PG_SLAB")
    assert changes["kmem_cache_cpu(kmalloc-64).top"] == ("no magazine", "behind loaded magazine of kmalloc-64 [27]")


def test_accessed_and_dirty_bits_stand_apart(kernel: Kernel) -> None:
    page = kernel.call("get_free_pages", 0)
    virtual = 0xFFFF_D000_0000_0000
    assert kernel.call("map_page", virtual, page - DIRECT_MAP, 0x3 | 1 << 63) == 0
    before = capture(kernel)
    kernel.call("memset", virtual, 7, 16)
    diff = compare(before, capture(kernel))
    entry = next(change for change in diff.accessed if change.name.text == f"PTE of 0x{virtual:016x}")
    assert entry.before[0] & 0x60 == 0 and entry.after[0] & 0x60 == 0x60
    assert not any(change.name.structure == "page-table" for change in diff.changes)
    assert f"PTE of 0x{virtual:016x}: A 0 -> 1, D 0 -> 1" in str(diff)
    kernel.call("unmap_page", virtual)
    gone = compare(before, capture(kernel))
    assert any(change.name.structure == "page-table" for change in gone.changes)


def test_registers_are_compared_the_control_registers_too(kernel: Kernel) -> None:
    before = capture(kernel)
    kernel.registers["rbx"] = kernel.symbols["kmalloc"]
    kernel.machine.cpu["cr2"] = 0x1234
    diff = compare(before, capture(kernel))
    assert [(item.name, item.after, item.words) for item in diff.registers] == [
        ("rbx", kernel.symbols["kmalloc"], "kmalloc"), ("cr2", 0x1234, "4660 (0x1234)")]


def test_the_heap_is_compared_cache_by_cache(kernel: Kernel) -> None:
    held = [kernel.call("kmalloc", 64) for _ in range(3)]
    before = capture(kernel)
    for pointer in held:
        kernel.call("kfree", pointer)
    kernel.call("kmem_cache_shrink", kernel.heap.cache("kmalloc-64"))
    mine = kernel.call("kmem_cache_create", "mine", 48, 0, 0, 0)
    diff = compare(before, capture(kernel))
    by_name = {change.name: change for change in diff.caches}
    gone = by_name["kmalloc-64"]
    assert gone.before is not None and gone.after is not None
    assert (gone.before.inuse, gone.after.inuse, gone.after.free) == (3, 0, 0)
    assert gone.slabs_destroyed == (held[0],) and gone.slabs_created == ()
    assert by_name["mine"].before is None and mine
    text = " ".join(str(diff).split())
    assert "kmalloc-64: in use 3 -> 0" in text and f"slab 0x{held[0]:x} destroyed" in text and "mine: created" in text


def test_what_existed_before_alone_is_named_as_of_before(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    before = capture(kernel)
    kernel.call("kfree", pointer)
    kernel.call("kmem_cache_shrink", kernel.heap.cache("kmalloc-64"))
    kernel.memory[pointer:pointer + 4] = b"late"
    diff = compare(before, capture(kernel))
    change = next(change for change in diff.changes if b"late" in change.after)
    assert change.name.text == "object 0 of kmalloc-64" and change.name.detail.startswith("allocated")


def test_memory_that_changed_hands_has_both_names(kernel: Kernel) -> None:
    kernel.call("kmalloc", 1024)
    pointer = kernel.call("kmalloc", 64)
    before = capture(kernel)
    kernel.call("kfree", pointer)
    kernel.call("kmem_cache_shrink", kernel.heap.cache("kmalloc-64"))
    others = (kernel.call("kmalloc", 1024) for _ in range(64))
    other = next(address for address in others if address & -PAGE_SIZE == pointer & -PAGE_SIZE)
    kernel.memory[other:other + 4] = b"late"
    diff = compare(before, capture(kernel))
    change = next(change for change in diff.changes if b"late" in change.after)
    assert "kmalloc-1k" in change.name.text and change.was is not None and "kmalloc-64" in change.was.text
    assert f"{change.name.text} (before: {change.was.text})" in " ".join(str(diff).split())


def test_a_corrupt_heap_is_compared_as_far_as_it_goes(kernel: Kernel) -> None:
    before = capture(kernel)
    cache = kernel.heap.cache("kmalloc-64")
    kernel.memory.write(cache.address + kmem_cache.partial.offset, b"\x13" * 8)
    diff = compare(before, capture(kernel))
    assert "kmalloc-64 cannot be counted after" in diff.corrupt and "cannot be counted" in str(diff)
    assert [change.name.text for change in diff.changes] == ["kmem_cache(kmalloc-64).partial"]


def test_a_state_stays_what_it_was(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    state = capture(kernel)
    kernel.memory[pointer:pointer + 4] = b"late"
    kernel.call("kfree", pointer)
    assert state.memory.read(pointer, 4) != b"late" and state.heap.cache("kmalloc-64").inuse == 1
    assert Names(state).name(pointer).detail.startswith("allocated") and "instruction" in repr(state)


def test_a_state_shares_the_pages_that_did_not_change() -> None:
    with sandbox.boot(hz=0) as kernel:
        first = capture(kernel)
        kernel.call("kmalloc", 64)
        second = capture(kernel)
    shared = sum(left is right for left, right in zip(first.ram.pages, second.ram.pages, strict=True))
    assert shared > len(first.ram.pages) - 40


def test_like_changes_are_folded_in_the_text(kernel: Kernel) -> None:
    before = capture(kernel)
    kernel.call("kmalloc", 64)
    text = str(compare(before, capture(kernel)))
    assert "and 28 like it, up to loaded magazine of kmalloc-64 [28]" in text
    assert len(text.splitlines()) < 90 and all(len(line) <= 80 for line in text.splitlines())
