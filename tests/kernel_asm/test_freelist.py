"""Free pointers under a secret, and free lists in random order."""

from __future__ import annotations

import random

import pytest

import sandbox
from sandbox import GuestPanic
from sandbox.abi import kmem_cache, page
from sandbox.kernel import Kernel
from tests.soundness import assert_sound

MASK = (1 << 64) - 1


def splitmix(state: int) -> tuple[int, int]:
    """The next state and number (Steele, Lea and Flood, 2014)."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    value = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return state, value ^ value >> 31


def new_cache(kernel: Kernel, size: int, name: str = "test") -> kmem_cache:
    address = kernel.call("kmem_cache_create", name, size, 0, 0, 0)
    assert address
    return kmem_cache(kernel.memory, address)


def byteswap(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def test_every_cache_has_a_secret_of_its_own_and_none_without_the_option() -> None:
    with sandbox.boot(ram="8M", freelist_hardened=True, seed=42) as kernel:
        secrets = [cache.random for cache in kernel.heap.caches]
        state, expected = 42, []
        for _ in secrets:
            state, number = splitmix(state)
            expected.append(number)
        assert secrets == expected
    with sandbox.boot(ram="8M") as kernel:
        assert {cache.random for cache in kernel.heap.caches} == {0}


def test_a_free_pointer_is_stored_under_the_secret_and_its_own_address() -> None:
    with sandbox.boot(ram="8M", freelist_hardened=True, magazines=False, seed=7) as kernel:
        cache = new_cache(kernel, 64)
        first, second, third = (kernel.call("kmem_cache_alloc", cache.address) for _ in range(3))
        for pointer in (third, second, first):
            kernel.call("kmem_cache_free", cache.address, pointer)
        place = first + cache.offset
        assert kernel.memory.u64(place) == second ^ cache.random ^ byteswap(place)
        info = page(kernel.memory, kernel.heap.find(first).slab.page.address)
        assert info.freelist == first                    # the head itself is plain, as in Linux
        last = kernel.heap.find(first).slab.freelist[-1] + cache.offset
        assert kernel.memory.u64(last) == cache.random ^ byteswap(last)
        assert_sound(kernel)


@pytest.mark.parametrize("debug", ["", "F", "FZPU"])
@pytest.mark.parametrize("magazines", [True, False])
def test_objects_go_out_and_come_back_under_every_secret(magazines: bool, debug: str) -> None:
    choose = random.Random(3)
    with sandbox.boot(ram="8M", freelist_hardened=True, freelist_random=True, magazines=magazines, seed=9,
                      slab_debug=debug) as kernel:
        cache = new_cache(kernel, 100)
        live: list[int] = []
        for _ in range(250):
            if live and choose.random() < 0.45:
                kernel.call("kmem_cache_free", cache.address, live.pop(choose.randrange(len(live))))
            else:
                live.append(kernel.call("kmem_cache_alloc", cache.address))
        assert len(set(live)) == len(live) and kernel.heap.cache("test").inuse == len(live)
        assert_sound(kernel)
        for pointer in live:
            kernel.call("kmem_cache_free", cache.address, pointer)
        assert kernel.call("kmem_cache_destroy", cache.address) == 0
        assert_sound(kernel)


def test_freeing_the_head_of_the_list_again_traps_with_hardened_pointers_alone() -> None:
    with sandbox.boot(ram="8M", freelist_hardened=True, magazines=False) as kernel:
        pointer = kernel.call("kmalloc", 64)
        kernel.call("kfree", pointer)
        with pytest.raises(GuestPanic, match=rf"0x{pointer:016x} of cache kmalloc-64 is the head of its slab's free"):
            kernel.call("kfree", pointer)
    with sandbox.boot(ram="8M", magazines=False) as kernel:
        pointer = kernel.call("kmalloc", 64)
        kernel.call("kfree", pointer)
        kernel.call("kfree", pointer)


def test_a_pointer_that_was_overwritten_leads_where_the_attacker_wants_only_without_the_option() -> None:
    for hardened in (False, True):
        with sandbox.boot(ram="8M", freelist_hardened=hardened, magazines=False) as kernel:
            target = kernel.call("kmalloc", 4096)
            cache = new_cache(kernel, 64)
            pointer = kernel.call("kmem_cache_alloc", cache.address)
            kernel.call("kmem_cache_free", cache.address, pointer)
            kernel.memory.write(pointer + cache.offset, target.to_bytes(8, "little"))
            assert kernel.call("kmem_cache_alloc", cache.address) == pointer
            head = kernel.heap.find(pointer).slab.page.freelist
            assert (head == target) == (not hardened)


def permutation(state: int, count: int) -> tuple[int, list[int]]:
    """Fisher and Yates with the generator of kernel_asm/random.asm."""
    order = list(range(count))
    for top in range(count, 1, -1):
        state, number = splitmix(state)
        at = number * top >> 64
        order[at], order[top - 1] = order[top - 1], order[at]
    return state, order


def test_a_new_slabs_order_is_the_caches_permutation_from_a_random_place_on() -> None:
    with sandbox.boot(ram="8M", freelist_random=1234, magazines=False) as kernel:
        cache = new_cache(kernel, 200)
        sequence = [kernel.memory.u16(cache.random_seq + 2 * at) for at in range(cache.objects)]
        assert sorted(sequence) == list(range(cache.objects)) != sequence
        for _ in range(3):
            taken = [kernel.call("kmem_cache_alloc", cache.address) for _ in range(cache.objects)]
            slab = kernel.heap.find(taken[0]).slab
            found = [(at - slab.object_address(0)) // cache.size_ for at in taken]
            start = sequence.index(found[0])
            assert found == sequence[start:] + sequence[:start]
        assert_sound(kernel)


def test_the_order_depends_on_its_seed_and_on_nothing_else() -> None:
    def order(**options: int | bool) -> list[int]:
        with sandbox.boot(ram="8M", magazines=False, **options) as kernel:  # type: ignore[arg-type]
            cache = new_cache(kernel, 64)
            taken = [kernel.call("kmem_cache_alloc", cache.address) for _ in range(20)]
            return [at - taken[0] for at in taken]

    assert order(freelist_random=5) == order(freelist_random=5, seed=77, freelist_hardened=True)
    assert order(freelist_random=5) != order(freelist_random=6)
    assert order(freelist_random=True, seed=8) == order(freelist_random=8)
    assert order() == [64 * at for at in range(20)]


def test_the_first_caches_permutation_is_what_the_generator_says() -> None:
    with sandbox.boot(ram="8M", freelist_random=99) as kernel:
        first = kmem_cache(kernel.memory, kernel.heap.caches[0].address)
        _, order = permutation(99, first.objects)
        assert [kernel.memory.u16(first.random_seq + 2 * at) for at in range(first.objects)] == order
