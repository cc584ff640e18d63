"""Answers to the quiz from its texts alone: what somebody who knows the allocator works out on paper.

Nothing here runs a guest or reads one, but for the numbers of the slow path and of a tick, which are counted by hooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import sandbox
from sandbox.abi import KMALLOC_SIZES
from sandbox.lessons import Question, lesson
from sandbox.toolchain.disassembler import Disassembler
from sandbox.toolchain.packaged import examples_directory

POOLS = {32: 0, 64: 21 * 32, 128: 21 * (32 + 64)}
FAULTS = {"strlen reads": 0, "memset writes to an address that nobody": 2, "kernel's text": 3,
          "calls an object": 17, "calls an address": 16}


def numbers(text: str) -> list[int]:
    """Every number in a text, in order; those in hexadecimal included."""
    return [int(found, 0) for found in re.findall(r"0x[0-9a-f]+|(?<![\w.])\d+", text)]


def size_class(size: int) -> int:
    return next(each for each in KMALLOC_SIZES if each >= size)


def class_name(size: int) -> str:
    return f"kmalloc-{size}" if size < 1024 else f"kmalloc-{size // 1024}k"


def order_of(text: str, before: str, after: str) -> list[str]:
    """The letters between two pieces of a text."""
    return text.split(before)[1].split(after)[0].strip(" ,").split(", ")


def choice(question: Question, letter: str) -> str:
    """The choice that begins with a letter's name."""
    return next(each for each in question.choices if each.startswith(f"{letter}, "))


def per_slab(size: int) -> int:
    """Objects in the smallest slab that wastes at most an eighth (mm/slub.c, calculate_order)."""
    step = -(-size // 8) * 8
    return next(bytes_ // step for bytes_ in (4096 << order for order in range(11))
                if bytes_ >= step and bytes_ % step <= bytes_ // 8)


def which_cache(question: Question) -> str:
    return class_name(size_class(numbers(question.text)[0]))


def freed_in_order(question: Question) -> str:
    return choice(question, order_of(question.text, "in the order", ". Which")[-1])


def slabs_needed(question: Question) -> int:
    size, each, count = numbers(question.text)
    assert each == per_slab(size)
    return -(-count // each)


def which_slab_dies(question: Question) -> str:
    kept = int(question.text.split("It keeps ")[1].split()[0])
    return choice(question, order_of(question.text, "All objects of", "are freed")[kept])


def link_of_a_free_object(question: Question) -> int:
    addresses = {name: int(at, 16) for name, at in re.findall(r"([A-D]) at (0x[0-9a-f]+)", question.text)}
    order = order_of(question.text, "no magazines.", "are freed")
    middle = re.search(r"in the middle of ([A-D])", question.text)
    assert middle is not None
    assert addresses[middle[1]] + 32 == int(question.text.split("eight bytes at ")[1].split(",")[0], 16)
    return addresses[order[order.index(middle[1]) - 1]]


def buddy(question: Question) -> int:
    order, address = numbers(question.text)
    return address ^ 4096 << order


def slow_paths(question: Question) -> int:
    """Counted by a hook on the slow path's entry, in a guest of its own."""
    slow: list[int] = []
    with sandbox.boot(hz=0) as kernel:
        cache = kernel.heap.cache("kmalloc-64").address
        kernel.machine.cpu.hook_code([int(kernel.symbols["slab_alloc"])],
                                     lambda _: slow.append(kernel.registers["rdi"]))
        for _ in range(numbers(question.text)[0]):
            kernel.call("kmalloc", 64)
    return slow.count(cache)


def objects_in_magazines(question: Question) -> int:
    calls, _, freed, rounds = numbers(question.text)
    return rounds - calls + freed


def colour(question: Question) -> int:
    colours, step, number, _ = numbers(question.text)
    return number % colours * step


def constructor_calls(question: Question) -> int:
    each, count = numbers(question.text)
    return -(-count // each) * each


def slabs_that_survive(question: Question) -> int:
    return len({int(number) // 8 for number in order_of(question.text, "but numbers", "; then")})


def entry_of_a_table(question: Question) -> int:
    shift = {"PML4": 39, "PDPT": 30, "PD": 21, "PT": 12}[question.text.split("entry of the ")[1].split()[0]]
    return numbers(question.text)[0] >> shift & 511


def error_code(question: Question) -> int:
    (code,) = (code for words, code in FAULTS.items() if words in question.text)
    return code


def tick(question: Question) -> str:
    """The instruction that takes effect is kmalloc's only ``sub`` of a number from memory."""
    with sandbox.boot(hz=0) as kernel:
        start = kernel.symbols["kmalloc"]
        code = Disassembler().code(kernel.image, start, start + 100)
        (effect,) = (each.address - start for each in code if each.mnemonic == "sub" and "gs:" in each.operands)
    top, below, *_ = numbers(question.text)
    offset = int(question.text.split("' at kmalloc+")[1].split(",")[0], 16)
    return f"the one below it, 0x{below:x}" if offset <= effect else f"the one on top, 0x{top:x}"


def bytes_in_the_neighbour(question: Question) -> int:
    asked, *_, length = numbers(question.text)
    return length - size_class(asked)


def who_gets_freed_memory(question: Question) -> str:
    asked = numbers(question.text)[0]
    (same,) = (each for each in question.choices if size_class(numbers(each)[0]) == size_class(asked))
    return same


def owners(question: Question) -> int:
    _, times, calls, _ = numbers(question.text)
    return min(times, calls)


def attack(question: Question) -> str:
    """What the lesson itself prints of that defence."""
    defence = question.text.split("this defence: ")[1].rstrip("?")
    lines = (examples_directory() / lesson("17").path.with_suffix(".out").name).read_text().splitlines()
    return next(line.removeprefix(defence).strip() for line in lines if line.startswith(f"{defence} "))


def offset_of_a_chunk(question: Question) -> int:
    size = numbers(question.text)[-1]
    return POOLS[size] + 20 * size


def refused_frees(question: Question) -> int:
    count, size = numbers(question.text.split("given out ")[1])
    given = range(20, 20 - count, -1)
    return sum(number * size // 32 != number for number in given)


ORACLES: tuple[Callable[[Question], int | str], ...] = (
    lambda question: size_class(numbers(question.text)[0]) - numbers(question.text)[0],
    lambda question: numbers(question.text)[1] + size_class(numbers(question.text)[0]),
    freed_in_order, which_cache, slabs_needed, which_slab_dies, link_of_a_free_object, buddy,
    lambda question: 10 - numbers(question.text)[1],
    slow_paths, objects_in_magazines, colour, constructor_calls, slabs_that_survive, entry_of_a_table, error_code,
    tick, bytes_in_the_neighbour, who_gets_freed_memory, owners, attack, offset_of_a_chunk, refused_frees,
)
"""One for each question, in their order."""
