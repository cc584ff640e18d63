"""The buddy allocator: a block of pages is halved until it fits, and two free halves become one again.

Each row counts the free blocks of every size. For one page the smallest block that is large enough is taken apart,
and what is not needed of it stays free: one block of each size on the way down. A block's buddy lies where one bit
of its address is the other way round. When both are free they merge, then the whole with its own buddy, and so on.
"""

import sandbox


def show(when: str) -> None:
    """A row: how many free blocks of 1, 2, 4 ... 1024 pages there are."""
    print(f"{when:<20}" + "".join(f"{count:5}" for count in kernel.heap.pages.free_by_order))


with sandbox.boot() as kernel:
    print(f"{'pages in a block':<20}" + "".join(f"{1 << order:5}" for order in range(11)))
    show("after boot")
    for order, count in enumerate(kernel.heap.pages.free_by_order[:-1]):
        for _ in range(count):
            kernel.call("get_free_pages", order)

    # 1. Split. The first page takes a block apart; the second one finds the first one's buddy at hand.
    show("large ones left")
    page = kernel.call("get_free_pages", 0)
    show("one page taken")
    buddy = kernel.call("get_free_pages", 0)
    show("its buddy taken")
    print(f"    page 0x{page:x}, buddy 0x{buddy:x}: they differ in 0x{page ^ buddy:x}")

    # 2. A third page takes a block of two apart. It lies in the way of the first two: those merge, but not further.
    third = kernel.call("get_free_pages", 0)
    show("a third page taken")
    kernel.call("free_pages", page, 0)
    show("the first given back")
    kernel.call("free_pages", buddy, 0)
    show("and its buddy")
    print(f"    pair 0x{page:x}, its buddy 0x{page ^ 0x2000:x}: the third page 0x{third:x} is in there")

    # 3. Merge: with the third page everything is free again, and one block after the other doubles.
    kernel.call("free_pages", third, 0)
    show("and the third page")
