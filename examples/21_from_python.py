"""The allocator from Python: call it, read its slabs, trace it, break it, and go back.

``kernel.call`` runs any function of the guest. What Python then reads are the guest's own bytes, nothing else.
"""

import sandbox
from sandbox.heap.views import Slab
from sandbox.trace.events import Event


def cells(slab: Slab) -> str:
    """A slab as a row: ``#`` in use, ``o`` in a magazine, ``.`` free."""
    return "".join({"allocated": "#", "free in magazine": "o", "free in slab": "."}[str(item.state)]
                   for item in slab.objects)


def tell(event: Event, depth: int = 0) -> None:
    """An event, and below it what happened inside."""
    print(f"{'    ' * depth}{event.kind}: {event.function}, {event.bytes_alloc} bytes")
    for child in event.children:
        tell(child, depth + 1)


with sandbox.boot(magazines=False) as kernel:
    # 1. Call the allocator.
    pointer = kernel.call("kmalloc", 1000)
    found = kernel.heap.find(pointer)
    print(f"kmalloc(1000) gave object {found.index} of {found.cache.name}, {found.state}")
    print(f"its slab has {found.slab.count} objects: {cells(found.slab)}")

    # 2. Guest memory, read and written.
    kernel.memory[pointer : pointer + 12] = b"from Python\0"
    print(f"strlen says {kernel.call('strlen', pointer)}, the bytes say {kernel.memory.cstring(pointer)!r}")

    # 3. Fill the slab, and one object more.
    more = [kernel.call("kmalloc", 1000) for _ in range(4)]
    for slab in found.cache.slabs:
        print(f"a slab of {found.cache.name}, {slab.list.name.split('_')[-1].lower()}: {cells(slab)}")
    print(f"in use {found.cache.inuse}, in magazines {found.cache.cached}, free {found.cache.free}")

    # 4. Trace: what one call does in the layers below it.
    with kernel.trace() as trace:
        grown = kernel.call("krealloc", pointer, 5000, 0)
    for event in trace:
        tell(event)
    print(f"the text has moved with it: {kernel.memory.cstring(grown)!r}")

    # 5. A mistake is an exception, and the guest stays readable where it made it.
    try:
        kernel.call("kfree", kernel.symbols["kmalloc"])
    except sandbox.GuestPanic as panic:
        print(f"{type(panic).__name__}: it said {panic.message.split(':')[0]} ... not slab memory")
        print(f"it stands in {panic.backtrace[0].split('+')[0]}")
    kernel.rewind()

    # 6. Back to the state before the mistake; give everything back.
    for held in (grown, *more):
        kernel.call("kfree", held)
    print(f"held now: {len(kernel.heap.allocated())} objects, all of them the allocator's own:",
          *sorted({kernel.heap.find(at).cache.name for at in kernel.heap.allocated()}))
