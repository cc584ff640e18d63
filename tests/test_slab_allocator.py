"""The first interface: four names over a booted kernel, slabs and blocks as views of guest memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import pytest

import sandbox
from sandbox.errors import GuestPanic, UsageError


@pytest.fixture(scope="module")
def booted() -> Iterator[tuple[sandbox.SlabAllocator, object]]:
    with sandbox.SlabAllocator.new(ram="8M") as allocator:
        yield allocator, allocator.kernel.snapshot()


@pytest.fixture
def allocator(booted: tuple[sandbox.SlabAllocator, object]) -> sandbox.SlabAllocator:
    allocator, snapshot = booted
    allocator.kernel.restore(snapshot)
    return allocator


def test_a_fresh_allocator_holds_nothing_and_options_reach_the_kernel(allocator: sandbox.SlabAllocator) -> None:
    stats = allocator.stats()
    assert (stats.in_use, stats.large, stats.bytes_in_use) == (0, 0, 0)
    assert 0 < stats.pages_free < (8 << 20) // 4096
    assert len(allocator.kernel.physical) == 8 << 20


def test_what_is_allocated_is_counted_and_what_is_given_back_is_not(allocator: sandbox.SlabAllocator) -> None:
    pointers = [allocator.allocate(size) for size in (1, 8, 64, 64, 1000, 8192, 8193, 40_000)]
    assert None not in pointers
    stats = allocator.stats()
    assert (stats.in_use, stats.large) == (6, 2)
    assert stats.bytes_in_use == 8 + 8 + 64 + 64 + 1024 + 8192 + 16384 + 65536
    assert stats.total == stats.in_use + stats.cached + stats.free
    assert stats.slabs == stats.full_slabs + stats.partial_slabs + stats.empty_slabs
    for pointer in pointers:
        allocator.deallocate(pointer)
    after = allocator.stats()
    assert (after.in_use, after.large, after.bytes_in_use) == (0, 0, 0)
    assert after.total == after.cached + after.free


def test_stats_are_numbers_that_cannot_be_changed(allocator: sandbox.SlabAllocator) -> None:
    stats = allocator.stats()
    with pytest.raises(FrozenInstanceError):
        stats.total = 1  # type: ignore[misc]


def test_a_block_knows_its_pointer_and_whether_it_is_free(allocator: sandbox.SlabAllocator) -> None:
    pointer = allocator.allocate(100)
    (slab,) = [slab for slab in allocator.slabs if any(block.pointer == pointer for block in slab.blocks)]
    assert slab.block_size == 128
    taken = [block for block in slab.blocks if not block.is_free]
    assert [block.pointer for block in taken] == [pointer]
    (block,) = taken
    allocator.deallocate(pointer)
    assert block.is_free


def test_slabs_list_every_block_of_every_size_once(allocator: sandbox.SlabAllocator) -> None:
    pointers = {allocator.allocate(size) for size in (8, 16, 32, 64, 96, 128, 192, 256, 512) for _ in range(40)}
    blocks = [block for slab in allocator.slabs for block in slab.blocks]
    assert len({block.pointer for block in blocks}) == len(blocks) == allocator.stats().total
    assert {block.pointer for block in blocks if not block.is_free} == pointers


def test_memory_runs_out_with_none_and_comes_back(allocator: sandbox.SlabAllocator) -> None:
    pointers = []
    while (pointer := allocator.allocate(64 * 1024)) is not None:
        pointers.append(pointer)
    assert len(pointers) > 50
    for pointer in pointers:
        allocator.deallocate(pointer)
    assert allocator.allocate(64 * 1024) is not None


def test_none_and_an_allocation_of_nothing_may_be_given_back(allocator: sandbox.SlabAllocator) -> None:
    allocator.deallocate(None)
    assert allocator.allocate(0) == 0x10
    allocator.deallocate(0x10)
    assert allocator.stats().in_use == 0


@pytest.mark.parametrize("size", [-1, 1.5, "64", None, True])
def test_a_size_is_a_number_of_bytes(allocator: sandbox.SlabAllocator, size: object) -> None:
    with pytest.raises(UsageError, match="size"):
        allocator.allocate(size)  # type: ignore[arg-type]


def test_deallocating_what_is_no_block_panics_with_the_address(allocator: sandbox.SlabAllocator) -> None:
    wild = allocator.kernel.symbols["kmalloc"]
    with pytest.raises(GuestPanic, match=f"{int(wild):x}"):
        allocator.deallocate(wild)
    assert allocator.stats().in_use == 0
    allocator.kernel.rewind()
    assert allocator.allocate(8) is not None
