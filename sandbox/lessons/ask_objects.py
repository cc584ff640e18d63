"""Questions about single objects: sizes, addresses, who has what, and what a wrong access hits."""

from __future__ import annotations

from .guests import Guests, allocated
from .question import Dice, Question


def unused_bytes(dice: Dice, guests: Guests) -> Question:
    """What is lost inside an object."""
    asked = dice.between(9, 1000)
    kernel = guests.quiet()
    found = allocated(kernel, asked)
    return Question(
        f"kmalloc({asked}) gives an object. How many of its bytes were not asked for?", found.size - asked,
        f"{found.cache.name} is the smallest class that holds {asked} bytes: {found.size} - {asked}.")


def next_address(dice: Dice, guests: Guests) -> Question:
    """Neighbours in a new slab."""
    asked = dice.between(9, 500)
    kernel = guests.quiet()
    first, second = allocated(kernel, asked), allocated(kernel, asked)
    return Question(
        f"On a fresh machine kmalloc({asked}) returns 0x{first.address:x}. Which address does the next "
        f"kmalloc({asked}) return?", second.address,
        f"Both are objects of {first.cache.name}, and those of a new slab are handed out in order of address, "
        f"{first.cache.size} bytes apart.", address=True)


def freed_in_order(dice: Dice, guests: Guests) -> Question:
    """Last in, first out."""
    kernel = guests.quiet()
    objects = dict(zip("ABC", (kernel.call("kmalloc", 64) for _ in range(3)), strict=True))
    order = dice.some_of("ABC", 3)
    for name in order:
        kernel.call("kfree", objects[name])
    given = kernel.call("kmalloc", 64)
    words = {address: f"{name}, at 0x{address:x}" for name, address in objects.items()}
    fresh = f"a new one, at 0x{2 * objects['C'] - objects['B']:x}"
    answer = words.get(given, f"a new one, at 0x{given:x}")
    return Question(
        f"Three objects of 64 bytes, A, B and C, are freed in the order {', '.join(order)}. Which one does "
        "kmalloc(64) return next?", answer, f"A magazine is a stack, and {order[-1]} was put on it last.",
        dice.choices(answer, [*words.values(), fresh]))


def which_cache(dice: Dice, guests: Guests) -> Question:
    """Size classes."""
    kernel = guests.quiet()
    classes = [cache for cache in kernel.heap.caches if cache.name.startswith("kmalloc-")]
    place = dice.between(2, len(classes) - 3)
    asked = classes[place].object_size + dice.between(-3, 3)
    answer = allocated(kernel, asked).cache
    near = sorted(classes, key=lambda cache: abs(classes.index(cache) - place))
    return Question(
        f"Which cache does kmalloc({asked}) take its object from?", answer.name,
        f"Its {answer.object_size} bytes are enough for {asked}, and those of the class below are not.",
        dice.choices(answer.name, (cache.name for cache in near)))


def bytes_in_the_neighbour(dice: Dice, guests: Guests) -> Question:
    """An overflow: how far it reaches."""
    asked = dice.one_of((20, 24, 40, 50, 70, 100))
    kernel = guests.quiet()
    buffer, neighbour = allocated(kernel, asked), allocated(kernel, asked)
    length = buffer.size + dice.between(1, asked)
    kernel.memory[neighbour.address : neighbour.address + neighbour.size] = bytes(neighbour.size)
    kernel.call("memset", buffer.address, 0xAA, length)
    hit = neighbour.bytes.count(0xAA)
    return Question(
        f"A buffer of {asked} bytes and another object of {asked} bytes lie side by side in {buffer.cache.name}. "
        f"memset writes {length} bytes to the buffer. How many of them land in the other object?", hit,
        f"{length - asked} bytes too many are written, and the first {buffer.size - asked} of these fall into the "
        f"unused rest of the buffer's own {buffer.size}.")


def who_gets_freed_memory(dice: Dice, guests: Guests) -> Question:
    """A use after free: the next owner."""
    asked = dice.one_of((40, 70, 100, 140, 200, 300))
    kernel = guests.quiet()
    found = allocated(kernel, asked)
    kernel.call("kfree", found.address)
    start = kernel.snapshot()
    gets = {}
    for size in (asked // 2, found.size - dice.below(4), 2 * asked, 4 * asked):
        kernel.restore(start)
        gets[f"kmalloc({size})"] = kernel.call("kmalloc", size) == found.address
    (answer,) = (call for call, same in gets.items() if same)
    return Question(
        f"kmalloc({asked}) gave 0x{found.address:x}, which is freed, though a pointer to it is kept. Which of "
        "these calls returns the same memory now?", answer,
        f"The memory belongs to {found.cache.name}, and {answer} is the call that is served from there.",
        dice.choices(answer, gets))


def owners_of_one_object(dice: Dice, guests: Guests) -> Question:
    """A double free: how many believe that they are the only owner."""
    times, calls = dice.between(2, 4), dice.between(2, 6)
    kernel = guests.quiet()
    pointer = kernel.call("kmalloc", 64)
    for _ in range(times):
        kernel.call("kfree", pointer)
    owners = sum(kernel.call("kmalloc", 64) == pointer for _ in range(calls))
    return Question(
        f"An object of 64 bytes is freed {times} times in a row, and nobody notices. How many of the next {calls} "
        "calls of kmalloc(64) return it?", owners,
        f"It lies in the magazine {times} times, on top of everything else, and each call takes one from there.")
