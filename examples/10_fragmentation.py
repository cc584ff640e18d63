"""Fragmentation: one survivor keeps a whole slab, and memory that is free is of no use to anybody else.

An object cannot be moved, for nobody knows who points to it. So a slab goes back to the pages when its last object is
freed, and not before. The order of the frees alone makes the difference: the same number of objects is freed twice.
"""

import sandbox
from sandbox.view.slabs import cells

SIZE, OBJECTS = 512, 64


def show(when: str) -> None:
    """What the cache holds, after everything that can go back to the pages has gone."""
    kernel.call("kmem_cache_shrink", cache)
    slabs = sorted(cache.slabs, key=lambda slab: slab.address)
    print(f"{when}: {cache.inuse * SIZE:,} of {sum(slab.size for slab in slabs):,} bytes are in use")
    if slabs:
        print("   ", *("".join(cells(slab)) for slab in slabs))


with sandbox.boot(magazines=False) as kernel:
    cache = kernel.heap.cache("kmalloc-512")
    full = [kernel.call("kmalloc", SIZE) for _ in range(OBJECTS)]
    start = kernel.snapshot()
    show("full")

    # 1. The kind order: the first 56 objects, one slab after the other.
    for pointer in full[:56]:
        kernel.call("kfree", pointer)
    show("56 freed, slab by slab")

    # 2. The unkind one, from the same start: 56 objects again, and one survivor in each slab.
    kernel.restore(start)
    survivors = full[3::8]
    for pointer in full:
        if pointer not in survivors:
            kernel.call("kfree", pointer)
    show("56 freed, all but one of each slab")
    free = sum(slab.free for slab in cache.slabs) * SIZE
    print(f"    {free // 1024} KiB are free, and no other cache can have a page of them")

    # 3. Each survivor's end sets its slab free.
    for pointer in reversed(survivors):
        kernel.call("kfree", pointer)
        show("one survivor less")
