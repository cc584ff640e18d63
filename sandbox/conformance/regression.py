"""A failing operation list as a test file that runs with nothing but pytest and ``sandbox.boot(allocator=...)``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..abi import DIRECT_MAP, KERNEL_PHYS, KERNEL_STACK_SIZE, STACK_SLOT, STACKS_BASE
from ..errors import UsageError
from ..guest.actions import DIRECTION, INTERRUPTS, RFLAGS
from ..guest.allocator import ROLES
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


def its_pages(kernel):
    """The numbers of the pages that its code took since the test began, and still has."""
    own = set()
    for event in kernel.trace.walk():
        if event.kind in ("page_alloc", "page_free") and not event.failed:
            if event.call_site.split("+")[0] in kernel.foreign.image.symbols:
                first = event.address - {direct_map:#x} >> 12
                pages = range(first, first + (event.bytes_alloc >> 12))
                own = own.union(pages) if event.kind == "page_alloc" else own.difference(pages)
    return own


def in_its_memory(kernel, pointer, size):
    data = kernel.foreign.image.section("data")
    places = [tuple(kernel.allocator.arena)] + ([(data.address, len(data.data))] if data else [])
    if any(start <= pointer and pointer + size <= start + length for start, length in places):
        return True
    try:
        frames = {{kernel.memory.translate(page) >> 12 for page in range(pointer & -4096, pointer + size, 4096)}}
    except sandbox.GuestMemoryError:
        return False
    return frames <= its_pages(kernel)


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
    allocator, chunks, freed, first, more = kernel.allocator, {{}}, {{}}, not served, []
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

    def allocate(number, size, where, pointer, align=0):
        must("leak", pointer or first or more or not served.get(step), f"{{where}}: the first round was served")
        if first:
            served[step] = pointer
        elif pointer and not served.get(step):
            more.append(step)                    # it was given what the first round was not
        if not pointer or not size:
            return
        if not must("confined", in_its_memory(kernel, pointer, size), f"{{where}}: {{pointer:#x}} is not its memory"):
            must("sizes", False, f"{{where}}: {{pointer:#x}}, and it has not so much memory")
            return
        apart = all(pointer + size <= start or start + length <= pointer for start, length in chunks.values())
        if must("overlap", apart, f"{{where}}: {{pointer:#x}} overlaps a chunk that is held"):
            must("alignment", pointer % (16 if size >= 16 else 8) == 0, f"{{where}}: {{pointer:#x}}")
            must("aligned", not align or pointer % align == 0, f"{{where}}: {{pointer:#x}}")
            kernel.memory[pointer:pointer + size] = pattern(number, size)
            chunks[number] = pointer, size

    for step, (what, *values) in enumerate(OPERATIONS):
        where = f"operation {{step}}, {{what}}{{tuple(values)}}"
        if what == "allocate":
            allocate(*values, where, allocator.allocate(values[1]))
        elif what == "zeroed":
            size, pointer = values[1] * values[2], allocator.allocate_zeroed(*values[1:])
            zero = size < 1 << 32 and (not pointer or kernel.memory[pointer:pointer + size] == bytes(size))
            must("zeroed", zero or not pointer, f"{{where}}: {{pointer:#x}} is not zero")
            allocate(values[0], size, where, pointer)
        elif what == "aligned":
            allocate(values[0], values[2], where, allocator.allocate_aligned(*values[1:]), values[1])
        elif what == "resize" and values[0] in chunks:
            number, size = values
            must("overlap", same(number), f"chunk {{number}} was changed")
            old, had = chunks.pop(number)
            pointer = allocator.reallocate(old, size)
            length = min(size, had) if pointer else had
            kept = kernel.memory[pointer or old:(pointer or old) + length] == pattern(number, length)
            must("resize", kept, f"{{where}}: bytes were lost")
            if pointer:
                allocate(number, size, where, pointer)
            else:
                chunks[number] = old, had
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
        if CLAIM == "confined" and not its_pages(kernel):
            must("confined", not_its_own(kernel) == before, f"{{where}}: memory that is not its own was written")
    for number in list(chunks):
        free(number)
        same_cpu("the end")


def test_{name}():
    with sandbox.boot(allocator=ALLOCATOR, ram={ram}, hz=0, **OPTIONS) as kernel:
        kernel.trace.restart()
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
    files = [str(path or report.allocator), *(str(_absolute(file)) for file in report.options.get("modules", ()))]
    return _TEMPLATE.format(
        title=f"{line.name}: {line.claim}.", reason=_wrapped(line.reason),
        allocator=files if files[1:] else files[0], options=options, rounds=line.script.rounds, name=line.name,
        claim=line.broken, ram=int(report.options.get("ram", ram_for(int(report.options["arena"])))),
        size=max((int(each[2]) for each in line.script.operations if each[0] == "allocate"), default=8),
        operations="\n".join(f"    {operation!r}," for operation in line.script.operations),
        places={place: address_of(place, int(report.options["arena"])) for place in PLACES},
        direct_map=DIRECT_MAP, stack=STACKS_BASE + STACK_SLOT - KERNEL_STACK_SIZE, stack_size=KERNEL_STACK_SIZE,
        first=KERNEL_PHYS, flags=RFLAGS, direction=DIRECTION, interrupts=INTERRUPTS)


def _wrapped(reason: str) -> str:
    """A reason for a docstring: words of the guest's own cannot end it."""
    plain = reason.replace("\\", "/").replace('"', "'")
    return textwrap.fill("".join(letter if letter.isprintable() else "." for letter in plain), 118)


def _absolute(file: str) -> Path:
    return Path(file).resolve() if Path(file).exists() else Path(file)


def boot_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an allocator as :func:`sandbox.boot` takes them."""
    compiler = {name: options[name] for name in ("cc", "cflags") if name in options}
    return {"symbols": {role: options.get(role) for role in ROLES}, "refused": options["refused"],
            "arena": options["arena"], **compiler}


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
