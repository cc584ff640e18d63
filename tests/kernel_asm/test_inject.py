"""Failures on purpose: failslab and fail_page_alloc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

import sandbox
from sandbox.abi import fault_attr
from sandbox.kernel import Kernel
from tests.kernel_asm.debugged import A, Cache, F
from tests.soundness import assert_sound


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """A kernel without options."""
    with sandbox.boot(ram="8M") as booted:
        yield booted


@pytest.fixture
def make(kernel: Kernel) -> Callable[..., Cache]:
    """Make a cache with flags."""
    return partial(Cache.make, kernel)


def splitmix(state: int) -> Iterator[int]:
    """The generator of kernel_asm/random.asm, again."""
    mask = (1 << 64) - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        value = state
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        yield value ^ value >> 31


def test_failslab_fails_as_the_seed_says_and_only_where_a_is_set(make: Callable[..., Cache]) -> None:
    chosen, other = make(64, A, "chosen"), make(64, F, "other")
    attr = fault_attr(chosen.kernel.memory, chosen.kernel.symbols["failslab"])
    assert attr.probability == 0 and attr.nth == 0 and chosen.alloc()
    attr.probability, attr.state = 30, 1234
    numbers = splitmix(1234)
    expected = [(next(numbers) * 100 >> 64) < 30 for _ in range(60)]
    assert [chosen.alloc() == 0 for _ in range(60)] == expected and True in expected
    assert all(other.alloc() for _ in range(10))
    assert attr.failed == chosen.struct.failed == sum(expected)
    attr.probability, attr.times = 100, 2
    assert [bool(chosen.alloc()) for _ in range(4)] == [False, False, True, True]
    attr.times, attr.interval, attr.calls = (1 << 64) - 1, 3, 0
    assert [bool(chosen.alloc()) for _ in range(6)] == [True, True, False] * 2


def test_the_nth_allocation_and_the_nth_page_allocation_fail(make: Callable[..., Cache], kernel: Kernel) -> None:
    cache = make(64, A)
    fault_attr(kernel.memory, kernel.symbols["failslab"]).nth = 3
    assert [bool(cache.alloc()) for _ in range(5)] == [True, True, False, True, True]
    pages = fault_attr(kernel.memory, kernel.symbols["fail_page_alloc"])
    pages.nth = 2
    assert [bool(kernel.call("get_free_pages", 0)) for _ in range(4)] == [True, False, True, True]
    pages.nth = 1
    assert kernel.call("kmalloc", 100_000) == 0
    array = bytearray(8 * 200)
    pages.nth = 2
    assert kernel.call("kmem_cache_alloc_bulk", cache.address, 200, array) == 0
    assert_sound(kernel)
