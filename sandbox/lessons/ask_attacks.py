"""Questions about what goes wrong in between: a tick, an attack, the seed."""

from __future__ import annotations

from ..abi import IRQ_BASE, TIMER_IRQ
from ..toolchain.disassembler import Disassembler
from ..view.defences import attack
from .catalogue import lesson
from .guests import Guests
from .question import Dice, Question

_KMALLOC_BYTES = 100
"""Where the fast path of kmalloc ends, at the latest."""
_WHY = {
    "succeeds": "The link lies where the attacker thinks that it does, and nobody looks at it before it is followed.",
    "fails": "Nobody has noticed anything, but the link does not lie where the attacker writes.",
    "fault": "A link is stored encoded with a secret, and what is decoded from the attacker's is no address.",
    "report": "The allocator looks at a free object's link before it gives that object out.",
    "error": "The shadow knows that the object is free, and stops at the very instruction that writes to it.",
}
"""For each end of an attack, what has led to it."""


def tick_inside_of_kmalloc(dice: Dice, guests: Guests) -> Question:
    """A critical section that begins again."""
    kernel = guests.quiet(lesson("13").constant("HANDLER"))
    kernel.call("set_trap_handler", IRQ_BASE + TIMER_IRQ, kernel.symbols["on_tick"])
    kernel.call("irq_enable", TIMER_IRQ)
    kernel.call("kfree", kernel.call("kmalloc", 64))
    start = kernel.snapshot()
    path: list[int] = []
    kmalloc = int(kernel.symbols["kmalloc"])
    hook = kernel.machine.cpu.hook_code(range(kmalloc, kmalloc + _KMALLOC_BYTES), path.append)
    top, below = kernel.call("kmalloc", 64), kernel.call("kmalloc", 64)
    hook.remove()
    number = dice.between(len(path) // 2 - 6, len(path) // 2 - 1)
    kernel.restore(start)
    code = Disassembler().disassemble(kernel.memory[path[number] : path[number] + 15], path[number],
                                      kernel.image.symbolize)
    kernel.interrupt_at(kernel.instructions + number, TIMER_IRQ)
    words = {top: f"the one on top, 0x{top:x}", below: f"the one below it, 0x{below:x}"}
    answer = words.get(kernel.call("kmalloc", 64), "another one")
    first = kernel.memory.u64(kernel.symbols["taken"]) == top
    return Question(
        f"The next objects in the magazine are 0x{top:x} and, below it, 0x{below:x}. A tick comes right before the "
        f"instruction '{code.text}' at kmalloc+0x{path[number] - kmalloc:x}, and its handler calls kmalloc too. "
        "Which object does the interrupted kmalloc return?", answer,
        "The section had not taken effect yet, and begins again: the handler has the top one." if first else
        "The object was taken already: the handler gets what is left.",
        dice.choices(answer, [*words.values(), "the same as the handler's", "none: it returns 0"]))


def what_becomes_of_the_attack(dice: Dice, guests: Guests) -> Question:
    """The defence table."""
    program, defences = lesson("17").constant("ATTACK"), lesson("17").constant("DEFENCES")
    asked, *others = dice.some_of([*defences], len(defences))
    end = attack(guests.quiet(program, **defences[asked]))
    wrong = (str(attack(guests.quiet(program, **defences[other]))) for other in others)
    return Question(
        f"The attack of lesson 17 writes a link into a freed object (the_write), takes that object (the_reuse), then "
        f"what its link says (the_allocation). What becomes of it with this defence: {asked}?", str(end),
        _WHY.get(end.end, end.sentence), dice.choices(str(end), wrong))


def offset_of_a_chunk(dice: Dice, guests: Guests) -> Question:
    """The seed: what lies beyond its array."""
    size = dice.one_of((32, 64, 128))
    kernel = guests.quiet("18")
    kernel.call("seed_new")
    offset = kernel.call("seed_allocate", size) - kernel.symbols["seed_memory"]
    return Question(
        f"The seed's array of 4096 bytes holds three pools, one behind the other: 21 chunks of 32 bytes, 21 of 64, "
        f"21 of 128. It gives out the last free chunk of a pool. At which offset begins the first chunk of {size} "
        "bytes that it gives out?", offset,
        f"Behind the smaller pools come 20 chunks of {size} bytes, then this one"
        + (", which lies beyond the array, in the table." if offset + size > 4096 else "."))


def refused_frees(dice: Dice, guests: Guests) -> Question:
    """The seed: what cannot be given back."""
    size, count = dice.one_of((32, 64, 128)), dice.between(5, 21)
    kernel = guests.quiet("18")
    kernel.call("seed_new")
    chunks = [kernel.call("seed_allocate", size) for _ in range(count)]
    refused = sum(not kernel.call("seed_deallocate", chunk) for chunk in chunks)
    return Question(
        f"The seed finds the chunk with a given address at number offset / 32 of its pool, for each of the pools "
        f"(21 chunks each of 32, 64, 128 bytes). It has given out {count} chunks of {size} bytes, the last of the "
        "pool first. How many of their frees does it refuse?", refused,
        "The number is right for chunks of 32 bytes, and otherwise for the pool's first chunk alone.")
