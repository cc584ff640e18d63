"""Questions about slabs and the magazines in front of them: how many, which, in what order."""

from __future__ import annotations

from ..heap.slabs import Slab
from .guests import Guests, allocated, new_cache
from .question import Dice, Question


def slabs_needed(dice: Dice, guests: Guests) -> Question:
    """How many slabs some objects take."""
    size, count = dice.between(150, 1200), dice.between(12, 60)
    kernel = guests.quiet()
    cache = new_cache(kernel, size)
    for _ in range(count):
        kernel.call("kmem_cache_alloc", cache)
    each, slabs = cache.objects_per_slab, len(cache.slabs)
    return Question(
        f"A cache has objects of {size} bytes, {each} to a slab. How many slabs do {count} objects take?", slabs,
        f"{slabs - 1} full slabs hold {(slabs - 1) * each}, and the rest need one more.")


def which_slab_dies(dice: Dice, guests: Guests) -> Question:
    """The life of a slab: two empty ones are kept."""
    kernel = guests.quiet()
    cache = new_cache(kernel, 1000)
    objects = [kernel.call("kmem_cache_alloc", cache) for _ in range(4 * cache.objects_per_slab)]
    slabs: list[Slab] = sorted(cache.slabs, key=lambda slab: slab.address)
    words = {slab.address: f"{name}, at 0x{slab.address:x}" for name, slab in zip("ABCD", slabs, strict=True)}
    order = dice.some_of(slabs, cache.empty_limit + 1)
    for slab in order:
        for pointer in objects:
            if slab.address <= pointer < slab.end:
                kernel.call("kmem_cache_free", cache, pointer)
    (gone,) = words.keys() - {slab.address for slab in cache.slabs}
    freed = ", ".join(words[slab.address][0] for slab in order)
    return Question(
        f"A cache has four full slabs, {'; '.join(words.values())}. It keeps {cache.empty_limit} empty ones. All "
        f"objects of {freed} are freed, in this order of slabs. Which slab goes back to the pages?", words[gone],
        f"{cache.empty_limit} empty slabs are kept already when the last object of {words[gone][0]} is freed.",
        dice.choices(words[gone], words.values()))


def link_of_a_free_object(dice: Dice, guests: Guests) -> Question:
    """The free list: what lies in a free object."""
    kernel = guests.quiet(magazines=False)
    found = [allocated(kernel, 64) for _ in range(4)]
    objects = dict(zip("ABCD", found, strict=True))
    order = dice.some_of("ABCD", 3)
    for name in order:
        kernel.call("kfree", objects[name].address)
    asked = dice.one_of(order[1:])
    at = objects[asked].address + found[0].cache.offset
    where = ", ".join(f"{name} at 0x{each.address:x}" for name, each in objects.items())
    return Question(
        f"Four objects of kmalloc-64 ({where}) are allocated, and there are no magazines. {', '.join(order)} are "
        f"freed, in this order. Which address do the eight bytes at 0x{at:x}, in the middle of {asked}, hold now?",
        kernel.memory.u64(at),
        f"A freed object goes to the head of its slab's list, and its link leads to what was the head: "
        f"{order[order.index(asked) - 1]}, freed just before.", address=True)


def slow_paths(dice: Dice, guests: Guests) -> Question:
    """Magazines: how many calls do real work."""
    calls = dice.between(20, 63)
    kernel = guests.quiet()
    cache = kernel.heap.cache("kmalloc-64")
    for _ in range(calls):
        kernel.call("kmalloc", 64)
    return Question(
        f"On a fresh machine there are {calls} calls of kmalloc(64) in a row. A magazine of this cache holds "
        f"{cache.rounds} objects. How many of the calls take the slow path?", cache.alloc_slowpath,
        f"Each slow one fills the magazine with up to {cache.rounds} objects, and takes the first of these.")


def objects_in_magazines(dice: Dice, guests: Guests) -> Question:
    """Magazines: what they hold that nobody uses."""
    calls, freed = dice.between(5, 25), dice.between(1, 4)
    kernel = guests.quiet()
    pointers = [kernel.call("kmalloc", 64) for _ in range(calls)]
    for pointer in pointers[:freed]:
        kernel.call("kfree", pointer)
    cache = kernel.heap.cache("kmalloc-64")
    return Question(
        f"On a fresh machine {calls} objects of 64 bytes are allocated, then {freed} of them freed. A magazine of "
        f"this cache holds {cache.rounds} objects. How many lie in magazines now?", cache.cached,
        f"The first call has brought {cache.rounds} of them from the slab; {calls} were taken, {freed} came back.")


def colour_of_a_slab(dice: Dice, guests: Guests) -> Question:
    """Colouring: where a slab's first object lies."""
    size, number = dice.one_of((480, 640, 960)), dice.between(2, 9)
    kernel = guests.quiet()
    cache = new_cache(kernel, size)
    for _ in range(number * cache.objects_per_slab):
        kernel.call("kmem_cache_alloc", cache)
    slab = kernel.heap.slab_at(kernel.call("kmem_cache_alloc", cache))
    colour = slab.colour if slab is not None else -1
    return Question(
        f"A cache has {cache.colours} colours, {cache.colour_step} bytes apart. How many bytes lie in front of the "
        f"first object of slab number {number}, where the first slab is number 0?", colour,
        f"Each new slab has the next colour, and after the last comes the first again: colour "
        f"{colour // cache.colour_step}, times {cache.colour_step} bytes.")


def constructor_calls(dice: Dice, guests: Guests) -> Question:
    """A constructor: it belongs to slabs."""
    size, count = dice.one_of((200, 256, 400, 500)), dice.between(3, 40)
    kernel = guests.quiet("09")
    cache = new_cache(kernel, size, kernel.symbols["construct"])
    for _ in range(count):
        kernel.call("kmem_cache_alloc", cache)
    each = cache.objects_per_slab
    return Question(
        f"A cache with a constructor has {each} objects to a slab. {count} objects are allocated. How often has "
        "the constructor run?", kernel.memory.u32(kernel.symbols["constructed"]),
        f"It runs for every object of a slab when that is made, and {count} objects need {len(cache.slabs)}.")


def slabs_that_survive(dice: Dice, guests: Guests) -> Question:
    """Fragmentation: who keeps what."""
    kernel = guests.quiet(magazines=False)
    objects = [kernel.call("kmalloc", 512) for _ in range(64)]
    survivors = sorted(dice.some_of(range(64), dice.between(3, 6)))
    cache = kernel.heap.cache("kmalloc-512")
    for number, pointer in enumerate(objects):
        if number not in survivors:
            kernel.call("kfree", pointer)
    kernel.call("kmem_cache_shrink", cache)
    return Question(
        f"64 objects of 512 bytes, numbered from 0 in order of allocation, fill eight slabs. All are freed but "
        f"numbers {', '.join(map(str, survivors))}; then kmem_cache_shrink gives back what it can. How many slabs "
        "are left?", len(cache.slabs),
        f"A slab holds {cache.objects_per_slab} neighbours, and stays as long as one of them does.")
