"""Questions about pages: blocks and their buddies, the walk through the tables, and how it faults."""

from __future__ import annotations

from ..errors import EngineError, GuestFault
from ..kernel import Kernel
from .guests import Guests
from .question import Dice, Question

UNMAPPED = 0xFFFF_D000_0000_0000
"""Where nothing is mapped, ever."""


def _only_large_blocks(kernel: Kernel) -> None:
    """Take every free block but the largest ones."""
    for order, count in enumerate(kernel.heap.pages.free_by_order[:-1]):
        for _ in range(count):
            kernel.call("get_free_pages", order)


def _pages(order: int) -> str:
    return f"{1 << order} page{'s' if order else ''}"


def buddy_of_a_block(dice: Dice, guests: Guests) -> Question:
    """The other half."""
    order = dice.between(0, 5)
    kernel = guests.quiet()
    _only_large_blocks(kernel)
    blocks = [kernel.call("get_free_pages", order) for _ in range(2 * dice.between(0, 4) + 1)]
    (buddy,) = kernel.heap.pages.free_blocks(order)
    return Question(
        f"get_free_pages({order}) has split a block, and returns 0x{blocks[-1]:x}. At which address is its buddy?",
        buddy.address, f"A block of {_pages(order)} and its buddy differ in one bit of their addresses, "
                       f"0x{4096 << order:x}.", address=True)


def blocks_after_a_split(dice: Dice, guests: Guests) -> Question:
    """What is left over on the way down."""
    order = dice.between(0, 8)
    kernel = guests.quiet()
    _only_large_blocks(kernel)
    kernel.call("get_free_pages", order)
    smaller = sum(kernel.heap.pages.free_by_order[:-1])
    return Question(
        f"Only blocks of 1024 pages are free. One of them is split for get_free_pages({order}), which wants "
        f"{_pages(order)}. How many smaller blocks are free then?", smaller,
        "Each halving leaves one half over, down to the size that is wanted.")


def entry_of_a_table(dice: Dice, guests: Guests) -> Question:
    """The walk: nine bits for each level."""
    kernel = guests.quiet()
    name = dice.one_of(("kmalloc", "kfree", "panic", "kmem_cache_alloc", "slab_caches"))
    address = dice.one_of((int(kernel.symbols[name]), kernel.registers["rsp"] - 8, kernel.call("kmalloc", 4096)))
    step = dice.one_of(kernel.machine.paging.walk(address))
    shift = step.level.shift
    return Question(
        f"The processor looks for 0x{address:016x}. Which entry of the {step.level.name} does it read, from 0 to "
        "511?", step.index, f"The {step.level.name} is indexed with bits {shift} to {shift + 8} of the address.")


def error_code(dice: Dice, guests: Guests) -> Question:
    """A page fault: what the processor says of it."""
    kernel = guests.quiet()
    text, data = int(kernel.symbols["kmalloc"]), kernel.call("kmalloc", 64)
    what, function, *arguments = dice.one_of((
        ("strlen reads an address that nobody has mapped", "strlen", UNMAPPED),
        ("memset writes to an address that nobody has mapped", "memset", UNMAPPED, 0, 8),
        ("memset writes to the kernel's text, which is read-only", "memset", text, 0, 8),
        ("the kernel calls an object of the heap, which must not be executed", data),
        ("the kernel calls an address that nobody has mapped", UNMAPPED)))
    try:
        kernel.call(function, *arguments)
    except GuestFault as fault:
        code = fault.error_code
    else:
        raise EngineError(f"no page fault, though {what}")
    bits = [word for bit, word in ((1, "present"), (2, "a write"), (16, "a fetch")) if code & bit]
    return Question(
        f"In a page fault's error code bit 0 is set when the page is present, bit 1 for a write, bit 4 for an "
        f"instruction fetch. Which error code comes when {what}?", code,
        f"The bits that are set are these: {', '.join(bits) or 'none'}.")
