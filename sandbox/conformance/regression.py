"""A failing operation list as a test file that runs with nothing but pytest and ``sandbox.boot(allocator=...)``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..abi import KERNEL_PHYS, KERNEL_STACK_SIZE, STACK_SLOT, STACKS_BASE
from ..errors import UsageError
from ..guest.actions import DIRECTION, INTERRUPTS, RFLAGS
from .operations import PLACES
from .report import Line, Report
from .subject import address_of, ram_for

_TEMPLATE = '''"""{title}

{reason}
"""

import hashlib

import sandbox

ALLOCATOR = {allocator!r}
OPTIONS = {options!r}
CLAIM = {claim!r}
ROUNDS = {rounds}
OPERATIONS = [
{operations}
]


def pattern(chunk, size):
    digest = hashlib.blake2b(str(chunk).encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def not_its_own(kernel):
    """RAM above the page tables, without the arena, the allocator's data and the stack."""
    ram = bytearray(kernel.machine.memory.array().data)
    data = kernel.foreign.image.section("data")
    places = [tuple(kernel.allocator.arena), ({stack:#x}, {stack_size:#x})]
    places += [(data.address, len(data.data))] if data else []
    for address, size in places:
        start = kernel.memory.translate(address)
        ram[start:start + size] = bytes(size)
    return bytes(ram[{first:#x}:])


def in_its_memory(kernel, pointer, size):
    data = kernel.foreign.image.section("data")
    places = [tuple(kernel.allocator.arena)] + ([(data.address, len(data.data))] if data else [])
    return any(start <= pointer and pointer + size <= start + length for start, length in places)


def pointer_of(chunks, place, offset):
    if isinstance(place, int):
        return chunks[place][0] + offset if place in chunks else 0
    return {places!r}[place] + offset


def must(line, holds, message):
    """What this test is about must hold; what else is wrong is for other tests."""
    assert holds or line != CLAIM, message
    return holds


def refused(allocator, pointer):
    try:
        return not allocator.deallocate(pointer)
    except sandbox.GuestPanic:
        return True


def play(kernel, served, before):
    """One round; ``served`` has the answers of the first."""
    allocator, chunks, freed, first = kernel.allocator, {{}}, {{}}, not served
    gs_base = kernel.machine.cpu["gs_base"]

    def same_cpu(where):
        if kernel.actions.returned:
            flags = kernel.actions.returned[{flags}]
            must("registers", not flags & {direction:#x}, f"{{where}}: RFLAGS.DF is set")
            kept = not (flags ^ kernel.registers["rflags"]) & {interrupts:#x}
            must("registers", kept, f"{{where}}: RFLAGS.IF is not as it was")
        must("registers", kernel.machine.cpu["gs_base"] == gs_base, f"{{where}}: gs_base has changed")

    def same(number):
        pointer, size = chunks[number]
        return kernel.memory[pointer:pointer + size] == pattern(number, size)

    def free(number):
        must("overlap", same(number), f"chunk {{number}} was changed")
        pointer, _ = chunks.pop(number)
        must("leak", allocator.deallocate(pointer), f"the free of chunk {{number}} was refused")
        freed[number] = pointer

    def allocate(number, size, where):
        pointer = allocator.allocate(size)
        must("leak", pointer or first or not served[step], f"{{where}}: the first round was served")
        if first:
            served[step] = pointer
        if not pointer or not size:
            return
        if not must("confined", in_its_memory(kernel, pointer, size), f"{{where}}: {{pointer:#x}} is not its memory"):
            must("sizes", False, f"{{where}}: {{pointer:#x}}, and it has not so much memory")
            return
        apart = all(pointer + size <= start or start + length <= pointer for start, length in chunks.values())
        if must("overlap", apart, f"{{where}}: {{pointer:#x}} overlaps a chunk that is held"):
            must("alignment", pointer % (16 if size >= 16 else 8) == 0, f"{{where}}: {{pointer:#x}}")
            kernel.memory[pointer:pointer + size] = pattern(number, size)
            chunks[number] = pointer, size

    for step, (what, *values) in enumerate(OPERATIONS):
        where = f"operation {{step}}, {{what}}{{tuple(values)}}"
        if what == "allocate":
            allocate(*values, where)
        elif what == "free" and values[0] in chunks:
            free(values[0])
        elif what == "null":
            allocator.deallocate(0)
        elif what == "again" and values[0] in freed:
            must("double_free", refused(allocator, freed[values[0]]), f"{{where}}: the second free was taken")
        elif what == "wild" and pointer_of(chunks, *values):
            must("wild_free", refused(allocator, pointer_of(chunks, *values)), f"{{where}}: it was taken")
        elif what == "stats" and allocator.options.stats:
            must("stats", allocator.stats().in_use == len(chunks), where)
        if kernel.failure:
            return                               # it has panicked, as it should, and the machine stands still
        same_cpu(where)
        must("overlap", all(map(same, chunks)), f"{{where}}: a chunk was changed")
        if CLAIM == "confined":
            must("confined", not_its_own(kernel) == before, f"{{where}}: memory that is not its own was written")
    for number in list(chunks):
        free(number)
        same_cpu("the end")


def test_{name}():
    with sandbox.boot(allocator=ALLOCATOR, ram={ram}, hz=0, **OPTIONS) as kernel:
        has_stats, served, before = kernel.allocator.options.stats, {{}}, not_its_own(kernel)
        at_start = kernel.allocator.stats() if has_stats else None
        for turn in range(ROUNDS):
            play(kernel, served, before)
            if kernel.failure:
                return
            if has_stats:
                must("stats", kernel.allocator.stats() == at_start, "everything was freed")
            if CLAIM == "reuse" and turn and any(served.values()):
                pointer = kernel.allocator.allocate({size})
                must("reuse", pointer, "what was freed is not handed out again")
                kernel.allocator.deallocate(pointer)
'''


def source_of_test(report: Report, line: Line, path: Path | str | None = None) -> str:
    """The text of a test that fails as ``line`` did; ``path`` is where the allocator's file is, if not where the
    report says. :class:`UsageError` for a line without a list."""
    if line.script is None:
        raise UsageError(f"the line {line.name} has no list of operations to save")
    options = boot_arguments(report.options)
    return _TEMPLATE.format(
        title=f"{line.name}: {line.claim}.", reason=_wrapped(line.reason),
        allocator=str(path or report.allocator), options=options, rounds=line.script.rounds, name=line.name,
        claim=line.broken, ram=ram_for(int(report.options["arena"])),
        size=max((int(each[2]) for each in line.script.operations if each[0] == "allocate"), default=8),
        operations="\n".join(f"    {operation!r}," for operation in line.script.operations),
        places={place: address_of(place, int(report.options["arena"])) for place in PLACES},
        stack=STACKS_BASE + STACK_SLOT - KERNEL_STACK_SIZE, stack_size=KERNEL_STACK_SIZE, first=KERNEL_PHYS,
        flags=RFLAGS, direction=DIRECTION, interrupts=INTERRUPTS)


def _wrapped(reason: str) -> str:
    """A reason for a docstring: words of the guest's own cannot end it."""
    plain = reason.replace("\\", "/").replace('"', "'")
    return textwrap.fill("".join(letter if letter.isprintable() else "." for letter in plain), 118)


def boot_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an allocator as :func:`sandbox.boot` takes them."""
    roles = {role: options[role] for role in ("init", "allocate", "deallocate", "stats")}
    return {"symbols": roles, "refused": options["refused"], "arena": options["arena"]}


def save(report: Report, directory: Path | str) -> list[Path]:
    """Write one test file for each different list of the failing lines, ``test_<allocator>_<line>.py``; what was
    written."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    stem = "".join(letter if letter.isalnum() else "_" for letter in Path(report.allocator).stem)
    written, seen = [], set()
    for line in report.failed:
        if line.script is None or line.script in seen:
            continue
        seen.add(line.script)
        path = target / f"test_{stem}_{line.name}.py"
        source = Path(report.allocator)
        path.write_text(source_of_test(report, line, source.resolve() if source.exists() else None), "utf-8")
        written.append(path)
    return written
