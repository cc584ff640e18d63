"""What is told about one instruction, as a record and as text in 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ..address import VirtAddr
from ..guest.symbols import Location
from ..x86 import REGISTERS, Access, Rflags
from .branches import Branch
from .faults import Fault, Walk
from .name import Name
from .names import Names, Subject
from .processor import Processor
from .values import number, rflags
from .wrap import wrapped


class Later(Subject, Protocol):
    """The state behind an instruction: a kernel that has moved on, or a captured state."""

    @property
    def registers(self) -> Mapping[str, int]:
        """rax to r15, rip and rflags."""
        ...


@dataclass(frozen=True)
class Operand:
    """Something that an instruction reads or writes.

    ``kind`` is ``register``, ``memory``, ``flags`` or ``port``; ``text`` how it is written; ``value`` its value before
    the instruction, None where it has none that fits a number; ``words`` what that means. Of memory, ``address`` is
    virtual and ``name`` what lies there; ``role`` says why an access that is not written out happens. Of something
    written, ``after`` and ``after_words`` are what it becomes, None and empty while that is not known.
    """

    kind: str
    text: str
    size: int
    value: int | None
    words: str = ""
    address: int | None = None
    name: Name | None = None
    role: str = ""
    after: int | None = None
    after_words: str = ""


@dataclass(frozen=True)
class Explanation:
    """One instruction, told: ``str()`` is the text, in 80 columns.

    ``instruction`` is the count of starts before it; ``text`` its disassembly and ``bytes`` its bytes; ``location`` its
    place with the source line; ``reads`` and ``writes`` its operands, the implied ones too; ``branch`` where it may go,
    ``walks`` the page walks of its operands, ``fault`` the exception that it is going to cause. ``next`` is RIP behind
    it, None where that cannot be told. ``notes`` are more sentences.
    """

    instruction: int
    rip: int
    text: str
    bytes: bytes
    location: Location
    reads: tuple[Operand, ...] = ()
    writes: tuple[Operand, ...] = ()
    branch: Branch | None = None
    target: str = ""
    walks: tuple[Walk, ...] = ()
    fault: Fault | None = None
    handler: str = ""
    next: int | None = None
    notes: tuple[str, ...] = ()

    def completed(self, after: Later) -> Explanation:
        """The same with what it wrote: ``after`` is the state behind the instruction."""
        if self.fault is not None and not self.fault.arriving:
            return self
        names = Names(after)
        registers, interrupted = _before_interrupt(after.registers, self.next, names)
        notes = (*self.notes, "Then an interrupt is delivered.") if interrupted else self.notes
        return replace(self, writes=tuple(_written(operand, names, registers) for operand in self.writes), notes=notes)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


# -- what it wrote -----------------------------------------------------------------------------------------------
def _before_interrupt(registers: Mapping[str, int], expected: int | None,
                      names: Names) -> tuple[Mapping[str, int], bool]:
    """The registers as the instruction left them, and whether an interrupt came right behind it and pushed three of
    them."""
    if expected is None or registers["rip"] == expected:
        return registers, False
    rip, _, flags, rsp, _ = (names.word(registers["rsp"] + 8 * index) for index in range(5))
    if rip != expected or flags is None or rsp is None:
        return registers, False
    return {**registers, "rip": rip, "rflags": flags, "rsp": rsp}, True


def _written(operand: Operand, names: Names, registers: Mapping[str, int]) -> Operand:
    """An operand with what it holds now."""
    if operand.kind == "memory" and operand.address is not None:
        if operand.size > 8:
            return operand
        value = names.word(operand.address, operand.size)
        place = names.name(operand.address)
    elif operand.kind in ("register", "flags"):
        name = "rflags" if operand.kind == "flags" else operand.text
        if Processor.whole(name) not in REGISTERS:
            return operand
        value = Processor.part(name, registers)
        place = None
    else:
        return operand
    if value is None:
        return operand
    words = rflags(value) if operand.kind == "flags" else names.value(value, operand.size, place)
    return replace(operand, after=value, after_words=words)


# -- the text ----------------------------------------------------------------------------------------------------
def _lines(told: Explanation) -> Iterator[str]:
    """The text, one line after the other."""
    yield from wrapped(f"@{told.instruction:,} {told.location}", "", "    ")
    source = told.location.source.text.strip() if told.location.source else ""
    if source and source != told.text:
        yield from wrapped(source, "    ")
    yield from wrapped(f"{told.text}    {told.bytes.hex(' ')}".rstrip(), "  ")
    yield from _section("reads", (_read(operand) for operand in told.reads))
    yield from _section("writes", (_write(operand) for operand in told.writes))
    yield from _goes(told)
    for note in told.notes:
        yield from wrapped(note, "")
    for walk in told.walks:
        yield from _walk(walk)
    if told.fault is not None:
        yield from _fault(told)


def _section(title: str, entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    listed = list(entries)
    if listed:
        yield title
    for text, detail in listed:
        yield from wrapped(text, "  ")
        if detail:
            yield from wrapped(detail, "      ", "      ")


def _read(operand: Operand) -> tuple[str, str]:
    """``[rdi + kmem_cache.partial] = slab 0x…``, and below it where that is and the bare value."""
    if operand.kind == "port":
        return f"{operand.text}, {operand.words}", ""
    sign = ":" if operand.kind == "flags" else " ="
    return f"{operand.text}{sign} {_value(operand.value, operand.words, operand)}", _place(operand)


def _write(operand: Operand) -> tuple[str, str]:
    if operand.kind == "port":
        return f"{operand.text}, {operand.words}" + (f" <- {operand.after_words}" if operand.after_words else ""), ""
    if operand.kind == "flags" and operand.after is not None and operand.value is not None:
        return f"flags: {_changed_flags(operand.value, operand.after)}", ""
    before = operand.words or ("" if operand.value is None else number(operand.value, operand.size))
    if operand.after is None:
        shown = f" (now {before})" if before else ""
        return f"{operand.text}{shown}", _place(operand)
    if operand.value == operand.after:
        return f"{operand.text}: {_value(operand.after, operand.after_words, operand)}, as before", _place(operand)
    return f"{operand.text}: {before} -> {_value(operand.after, operand.after_words, operand)}", _place(operand)


def _changed_flags(before: int, after: int) -> str:
    """``ZF 0 -> 1, PF 1 -> 0``."""
    changed = [f"{bit.name} {(before & bit.mask) >> bit.low} -> {(after & bit.mask) >> bit.low}"
               for bit in Rflags.bits if (before ^ after) & bit.mask]
    return ", ".join(changed) or "as before"


def _value(value: int | None, words: str, operand: Operand) -> str:
    """The words, with the bare number behind them where they do not say it."""
    if value is None:
        return f"{operand.size} bytes"
    if operand.kind == "flags" or f"{value:x}" in words or number(value, operand.size) == words or not words:
        return words or number(value, operand.size)
    return f"{words} (0x{value:x})"


def _place(operand: Operand) -> str:
    """Where memory lies, and what is there."""
    if operand.address is None or operand.name is None:
        return ""
    bytes_ = f"{operand.size} byte{'' if operand.size == 1 else 's'}"
    role = f"{operand.role}, " if operand.role else ""
    at = f" at {VirtAddr(operand.address)}" if f"0x{operand.address:x}" not in operand.text else ""
    return f"{role}{bytes_}{at}: {operand.name.text}"


def _goes(told: Explanation) -> Iterator[str]:
    goes = told.branch
    if goes is None or (told.fault is not None and not told.fault.arriving):
        return
    why = f", for {goes.why}" if goes.why else ""
    where = told.target or ("somewhere unknown" if goes.target is None else f"0x{goes.target:016x}")
    verb = {"call": "calls", "return": "returns to"}.get(goes.kind, "goes to")
    if goes.taken:
        yield from wrapped(f"{verb} {where}{why}", "", "    ")
    else:
        yield from wrapped(f"does not go to {where}{why}", "", "    ")


def _walk(walk: Walk) -> Iterator[str]:
    kind = {Access.READ: "read", Access.WRITE: "write"}.get(walk.access, "fetch")
    yield f"walk of {VirtAddr(walk.address)} for a {kind}"
    steps = walk.found.steps
    if steps:
        path = " ".join(f"{step.level.name}[{step.index}]" for step in steps)
        yield from wrapped(f"{path} = {steps[-1].entry}", "  ", "        ")
    if walk.found.physical is None:
        yield "  and no further"
        return
    size = {12: "4 KiB", 21: "2 MiB"}.get(steps[-1].level.shift, "1 GiB")
    yield f"  a {size} page, {_rights(walk)}: physical 0x{walk.found.physical:x}"


def _rights(walk: Walk) -> str:
    """``rw-, the kernel's``: what all levels together allow."""
    entries = [step.entry for step in walk.found.steps]
    write = "w" if all(entry.RW for entry in entries) else "-"
    execute = "-" if any(entry.NX for entry in entries) else "x"
    return f"r{write}{execute}, {'user mode' if all(entry.US for entry in entries) else 'the kernel'}'s"


def _fault(told: Explanation) -> Iterator[str]:
    fault = told.fault
    assert fault is not None
    verb = "raises" if fault.software else "and there the fetch faults with" if fault.arriving else "faults with"
    yield from wrapped(f"{verb} {fault}", "", "    ")
    if fault.error_code or fault.address is not None:
        cr2 = f", CR2 {VirtAddr(fault.address)}" if fault.address is not None else ""
        yield f"  error code {fault.error_code:#x}{cr2}"
    stack = f", on the interrupt stack below 0x{fault.stack:x}" if fault.stack else ""
    yield from wrapped(f"handled at {told.handler}{stack}" if told.handler else "no gate of the IDT can be entered: a "
                        "double fault follows", "  ")
