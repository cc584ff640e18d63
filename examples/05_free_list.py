"""The free list: links live in free objects, so that a list of free memory needs no memory of its own.

``struct page`` knows the first free object of its slab; eight bytes in the middle of that hold the address of the next
one, and so on to a 0. Python reads them as the allocator does. While an object is allocated, those bytes are its
owner's, like all the others; who writes to freed memory writes on the list (17_free_list_attack).
"""

import sandbox


def show(when: str) -> None:
    """The list, link by link, and where each link was read."""
    print(f"{when}: {slab.inuse} of {slab.count} objects are out")
    at = slab.page.freelist
    print(f"    struct page.freelist at 0x{slab.page.address:x} -> {number(at)}")
    for _ in range(5):
        link = at + cache.offset                # kmem_cache.offset: where the free pointer lies in an object
        following = kernel.memory.u64(link)
        print(f"    {number(at)}, byte {cache.offset} at 0x{link:x}: {bytes(kernel.memory[link:link + 8]).hex(' ')}"
              f" -> {number(following)}")
        at = following
    print(f"    and so on; {len(slab.freelist)} objects in all, the last one's link is 0")


def number(address: int) -> str:
    """An object by its number in the slab."""
    return f"object {kernel.heap.find(address).index:2}"


with sandbox.boot(magazines=False) as kernel:
    pointers = [kernel.call("kmalloc", 64) for _ in range(3)]
    slab = kernel.heap.find(pointers[0]).slab
    cache = slab.cache
    show("three allocated")

    # Freed objects go to the front: the list now runs 2, 0, and on to those that were never taken.
    kernel.call("kfree", pointers[0])
    kernel.call("kfree", pointers[2])
    show("objects 0 and 2 freed")

    # The owner's bytes are still there, but for the eight that are a link now.
    kernel.memory[pointers[1]:pointers[1] + 64] = b"x" * 64
    kernel.call("kfree", pointers[1])
    text = bytes(kernel.memory[pointers[1]:pointers[1] + 64])
    print("object 1, 64 times x, after its free:")
    for row in range(0, 64, 16):
        print(f"    {text[row:row + 16].hex(' ')}")
