"""One instruction in words: what it reads and writes, by name; where it goes; why it faults.

::

    explanation = explain(kernel)             # of the instruction at RIP, which has not run
    kernel.machine.step()
    print(explanation.completed(kernel))      # with what it wrote

Everything is computed from the state before the instruction, by code that shares nothing with the emulator; what it is
going to write is known for plain copies alone, and for all the rest when it has run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from ..abi import DEBUG_EXIT_PORT, PIC1_PORT, PIC2_PORT, PIT_PORT, SERIAL_PORT
from ..address import PAGE_SIZE
from ..errors import GuestMemoryError, UsageError
from ..machine.machine import Machine
from ..toolchain.disassembler import MAX_INSTRUCTION, Detail, Disassembler
from ..x86 import Access, Cr0, Cr4, Efer, Vector
from .accesses import MemoryAccess, accesses
from .branches import branch, condition, following
from .explanation import Explanation, Later, Operand
from .faults import Fault, Walk, entered, fault_of, fetch_fault, walks
from .locals import Locals
from .names import Names, Subject
from .operand_text import operand_text
from .processor import Processor
from .values import number, rflags

__all__ = ["Explainable", "Explanation", "Later", "Operand", "explain"]

_CONTROL = {"cr0": Cr0, "cr4": Cr4, "efer": Efer}
_PORTS = ((SERIAL_PORT, 8, "the serial port"), (PIC1_PORT, 2, "the first PIC"), (PIC2_PORT, 2, "the second PIC"),
          (PIT_PORT, 4, "the timer"), (DEBUG_EXIT_PORT, 4, "the debug exit"))
# What the disassembler leaves out of the registers that an instruction writes.
_ALSO_WRITTEN: Mapping[str, tuple[str, ...]] = {
    "push": ("rsp",), "pop": ("rsp",), "enter": ("rbp", "rsp"), "retfq": ("rsp",), "iretq": ("rsp", "rflags"),
    "cmpxchg": ("rax", "rflags"), "cmpxchg8b": ("rax", "rdx", "rflags"), "cmpxchg16b": ("rax", "rdx", "rflags"),
    "xadd": ("rflags",), "cli": ("rflags",), "sti": ("rflags",), "xlatb": ("al",), "syscall": ("rcx", "r11"),
}


class Explainable(Subject, Protocol):
    """What :func:`explain` looks at: a kernel that stands still."""

    @property
    def machine(self) -> Machine:
        """The machine, for its registers and page tables."""
        ...


def explain(guest: Explainable, after: Later | None = None) -> Explanation:
    """The instruction at RIP, which has not run; ``after`` is the state behind it where that is known."""
    told = _Explainer(guest).tell()
    return told if after is None else told.completed(after)


class _Explainer:
    """Puts one explanation together."""

    def __init__(self, guest: Explainable) -> None:
        self._guest = guest
        self._names = Names(guest)
        self._paging = guest.machine.paging
        self._cpu = Processor.of(guest.machine.cpu.view)
        self._locals = Locals(guest, self._cpu.general, guest.memory)
        self._disassembler = Disassembler()

    def tell(self) -> Explanation:
        """The explanation of the instruction at RIP."""
        guest, cpu, read = self._guest, self._cpu, self._names.word
        rip = cpu["rip"]
        detail, code, unfetched = self._fetched(rip)
        now, place = guest.machine.instructions, guest.symbols.locate(rip)
        if detail is None or unfetched is not None:
            shown = detail.instruction.text if detail else "(no instruction)"
            return self._ended(Explanation(now, rip, shown, code, place),
                               unfetched or Fault(Vector.UD, 0, "these bytes are no instruction"))
        found = accesses(detail, cpu, read)
        explanation = Explanation(
            now, rip, detail.instruction.text, code, place, tuple(self._reads(detail, found)),
            tuple(self._writes(detail, found)), branch(detail, cpu, read), walks=tuple(self._walks(found)),
            next=following(detail, cpu, read), notes=tuple(self._notes(detail)))
        fault = fault_of(detail, cpu, found, self._paging, read)
        return self._went(explanation) if fault is None else self._ended(explanation, fault)

    def _fetched(self, rip: int) -> tuple[Detail | None, bytes, Fault | None]:
        """The instruction at an address with its bytes, None for what is none, and the fault of fetching it."""
        code = self._code(rip)
        image = self._guest.symbols.image_at(rip)
        detail = self._disassembler.detail(code, rip, image.symbolize if image else None)
        size = detail.instruction.size if detail else 1 if len(code) == MAX_INSTRUCTION else len(code) + 1
        return detail, code[:size], fetch_fault(self._paging, rip, size, self._cpu.user)

    def _went(self, explanation: Explanation) -> Explanation:
        """With the name of where it goes. Fetching from there is no start, so a fault of that follows at once."""
        goes = explanation.branch
        target = "" if goes is None or goes.target is None else str(self._guest.symbols.locate(goes.target))
        told = replace(explanation, target=target)
        if told.next is None:
            return told
        unfetched = self._fetched(told.next)[2]
        return told if unfetched is None else self._ended(told, unfetched, arriving=True)

    def _ended(self, explanation: Explanation, fault: Fault, arriving: bool = False) -> Explanation:
        """With a fault, and where its handler is."""
        reached = replace(entered(fault, self._cpu, self._names.word), arriving=arriving)
        handler = "" if reached.handler is None else str(self._guest.symbols.locate(reached.handler))
        table = self._guest.symbols.get("trap_handlers")
        own = None if table is None else self._names.word(int(table) + 8 * fault.vector)
        if handler and own:
            handler += f", and from there to {self._guest.symbols.locate(own)}"
        return replace(explanation, fault=reached, handler=handler, next=reached.handler)

    def _code(self, rip: int) -> bytes:
        """Up to 15 bytes from an address on, as far as the page goes when the next one is missing."""
        for size in (MAX_INSTRUCTION, min(PAGE_SIZE - rip % PAGE_SIZE, MAX_INSTRUCTION)):
            with suppress(GuestMemoryError, UsageError):
                return self._guest.memory.read(rip, size)
        return b""

    # -- operands ---------------------------------------------------------------------------------------------
    def _reads(self, detail: Detail, found: tuple[MemoryAccess, ...]) -> Iterator[Operand]:
        names = [] if _clears(detail) else [name for name in detail.reads if name not in ("rflags", "rip", "eip")]
        for name in names:
            if name in ("fs", "gs"):
                base = self._cpu[f"{name}_base"]
                yield Operand("register", f"{name} base", 8, base, self._names.value(base))
            elif name in self._cpu:
                yield self._register(name)
        told = condition(detail.name, self._cpu.flags)
        if told is not None:
            yield Operand("flags", "flags", 8, self._cpu["rflags"], told[1])
        elif "rflags" in detail.reads:
            yield Operand("flags", "flags", 8, self._cpu["rflags"], rflags(self._cpu["rflags"]))
        for access in found:
            if access.reads:
                yield self._memory(access, detail)
        if detail.name in ("in", "insb", "insw", "insd"):
            yield self._port(detail, -1)

    def _writes(self, detail: Detail, found: tuple[MemoryAccess, ...]) -> Iterator[Operand]:
        written = dict.fromkeys((*detail.writes, *_ALSO_WRITTEN.get(detail.name, ())))
        yield from (self._register(name) for name in written if name in self._cpu and name not in ("rflags", "rip"))
        if "rflags" in written:
            yield Operand("flags", "flags", 8, self._cpu["rflags"], rflags(self._cpu["rflags"]))
        for access in found:
            if access.writes:
                operand = self._memory(access, detail)
                if access.value is not None:
                    words = self._names.value(access.value, access.size, operand.name)
                    operand = replace(operand, after=access.value, after_words=words)
                yield operand
        if detail.name in ("out", "outsb", "outsw", "outsd"):
            yield self._port(detail, 0)

    def _register(self, name: str) -> Operand:
        value, size = self._cpu[name], Processor.size(name)
        words = str(_CONTROL[name](value)) if name in _CONTROL else self._names.value(value, size)
        return Operand("register", name, size, value, words)

    def _memory(self, access: MemoryAccess, detail: Detail) -> Operand:
        name = self._locals.name(access.address) or self._names.name(access.address)
        value = self._names.word(access.address, access.size) if access.size <= 8 else None
        words = "" if value is None else self._names.value(value, access.size, name)
        return Operand("memory", operand_text(access, name, detail, self._cpu), access.size, value, words,
                       access.address, name, access.role)

    def _port(self, detail: Detail, which: int) -> Operand:
        """The port of an ``in`` or ``out``: a number in the instruction, or DX."""
        value = detail.operands[which].value if detail.operands else "dx"
        port = value & 0xFF if isinstance(value, int) else self._cpu["dx"]
        whose = next((name for base, count, name in _PORTS if base <= port < base + count), "nobody's")
        source = next((item.value for item in detail.operands if item.value in ("al", "ax", "eax")), None)
        sent = self._cpu[str(source)] if which == 0 and source is not None else None
        return Operand("port", f"port {port:#x}", detail.operands[0].size if detail.operands else 1, None, whose,
                       after=sent, after_words="" if sent is None else _sent(sent))

    def _walks(self, found: tuple[MemoryAccess, ...]) -> Iterator[Walk]:
        """One walk for each page that is accessed."""
        seen: set[tuple[int, bool]] = set()
        for access in found:
            wanted = Access.WRITE if access.writes else Access.READ
            for walk in walks(self._paging, access.address, access.size, wanted, self._cpu.user):
                key = walk.address >> 12, access.writes
                if key not in seen:
                    seen.add(key)
                    yield walk

    def _notes(self, detail: Detail) -> Iterator[str]:
        cpu = self._cpu
        if self._guest.machine.halted:
            yield "The processor waits in hlt: this instruction starts when an interrupt has been handled."
        told = condition(detail.name, cpu.flags)
        if told is not None and not detail.name.startswith("j"):
            held = "holds" if told[0] else "does not hold"
            yield f"The condition {held}: {told[1]}."
        if detail.prefix.startswith("rep"):
            left = cpu["rcx"]
            yield f"A repeated instruction with {left:,} to go." if left else "It has nothing left to do, and ends."
        if detail.prefix == "lock":
            yield "Locked: no other processor comes between its read and its write."
        if _clears(detail):
            yield f"A register with itself: {detail.operands[0].value} becomes 0."
        if detail.name == "hlt":
            allowed = "the next interrupt wakes it" if cpu.flags.IF else "interrupts are off, so nothing wakes it"
            yield f"The processor waits: {allowed}."


def _clears(detail: Detail) -> bool:
    """Whether a register is cleared with itself, so that what it holds is of no interest."""
    values = [operand.value for operand in detail.operands]
    return detail.name in ("xor", "sub") and len(values) == 2 and isinstance(values[0], str) and values[0] == values[1]


def _sent(value: int) -> str:
    return f"{number(value, 1)} {chr(value)!r}" if 32 <= value < 127 else number(value, 1)

