"""Claims about kernels booted with other options: much memory, no magazines, debugging."""

from __future__ import annotations

from sandbox.abi import KMALLOC_MAX_SIZE, MAX_ORDER, SlabFlag
from sandbox.kernel import Kernel

from .booted import Caller, judge


def roomy_claims(kernel: Kernel) -> None:
    """With 16 MiB and no magazines: the largest blocks, and no magazine anywhere."""
    caller = Caller(kernel)
    assert not [cache.name for cache in kernel.heap.caches if cache.wants_magazines]
    for function, argument, give_back in (("get_free_pages", MAX_ORDER, ("free_pages", MAX_ORDER)),
                                          ("kmalloc", KMALLOC_MAX_SIZE, ("kfree", 0))):
        held = []
        while at := caller.call(function, argument):
            assert at % KMALLOC_MAX_SIZE == 0
            held.append(at)
        assert len(held) >= 2
        for at in held:
            caller.call(give_back[0], at, give_back[1])
    halves, largest = [], len(held)
    while at := caller.call("get_free_pages", MAX_ORDER - 1):
        halves.append(at)
    assert len(halves) >= 2 * largest
    for at in halves:
        caller.call("free_pages", at, MAX_ORDER - 1)
    judge(kernel)


def consistency_claims(kernel: Kernel) -> None:
    """With F, a free pointer that leads nowhere is reported by the allocation that would follow it."""
    caller = Caller(kernel)
    at = caller.call("kmem_cache_create", "consistent", 64, 0, 0, 0)
    cache = kernel.heap.cache("consistent")
    items = [caller.call("kmem_cache_alloc", at) for _ in range(3)]
    for item in items:
        caller.call("kmem_cache_free", at, item)
    kernel.memory.write_u64(items[-1] + cache.offset, 0x1234_5678)
    reports = cache.reports
    again = [caller.call("kmem_cache_alloc", at) for _ in range(3)]
    assert cache.reports > reports and 0x1234_5678 not in again


def debug_claims(kernel: Kernel) -> None:
    """Small and large objects, and all the room that ksize promises, under whatever debugging there is."""
    caller = Caller(kernel)
    held = []
    for size in (1, 7, 8, 9, 15, 16, 24, 100, 130, 1000, 4096, 8192):
        at = caller.call("kmalloc", size)
        room = caller.call("ksize", at)
        assert room >= size
        kernel.memory[at : at + room] = b"\x77" * room
        held.append(at)
    for number, size in enumerate((1, 7, 8, 9, 16, 40)):
        for flags in (0, int(SlabFlag.SLAB_KMALLOC), int(SlabFlag.SLAB_POISON)):
            for ctor in (0, int(kernel.symbols["list_init"])) if size >= 16 else (0,):
                cache = caller.call("kmem_cache_create", f"d-{number}-{flags}-{bool(ctor)}", size, 0, flags, ctor)
                item = caller.call("kmem_cache_alloc", cache)
                assert not ctor or kernel.memory.u64(item) == item
                judge(kernel)
                caller.call("kmem_cache_free", cache, item)
                judge(kernel)
                assert caller.call("kmem_cache_destroy", cache) == 0
    judge(kernel)
    for at in held:
        caller.call("kfree", at)
    judge(kernel)
