"""Whether an instruction is going to fault, and where its handler is: computed from the tables, not run.

Told are page faults, addresses that are not canonical, divide errors, privileged instructions in user mode, and what
is no instruction at all. Alignment is not checked, as the kernel leaves CR0.AM off and never runs in user mode with AC.
What depends on the operands of rarer instructions (a reserved bit in a control register) shows when it happens. For an
address through RSP or RBP that is not canonical the emulator raises #GP, where a real processor has #SS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..address import PAGE_SIZE, U64, is_canonical
from ..machine.paging import Paging, Resolution
from ..toolchain.disassembler import Detail
from ..x86 import Access, IdtGate, PageFaultError, Tss, Vector, vector_name
from .accesses import MemoryAccess, ReadWord
from .processor import Processor

_SOFTWARE = {"int3": Vector.BP, "int1": Vector.DB}
_UNDEFINED = frozenset(("ud0", "ud1", "ud2", "ud2b"))
_PRIVILEGED = frozenset(("hlt", "lgdt", "lidt", "lldt", "ltr", "lmsw", "clts", "invlpg", "invd", "wbinvd", "rdmsr",
                         "wrmsr", "swapgs", "sysret", "sysretq", "sysexit", "invpcid"))
_BY_IOPL = frozenset(("cli", "sti", "in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd"))


@dataclass(frozen=True)
class Fault:
    """An exception, or an interrupt that the instruction itself asks for.

    ``address`` is what CR2 will hold, None for all but page faults; ``reason`` the why in words; ``handler`` the
    address in the IDT's gate, None where no gate can be entered; ``stack`` the interrupt stack that it moves to, 0
    for none. ``software`` tells an interrupt that the instruction asks for; ``arriving`` a fault not of the instruction
    but of fetching the one behind it.
    """

    vector: int
    error_code: int
    reason: str
    address: int | None = None
    software: bool = False
    arriving: bool = False
    handler: int | None = None
    stack: int = 0

    def __str__(self) -> str:
        return f"{vector_name(self.vector)}: {self.reason}"


@dataclass(frozen=True)
class Walk:
    """How one access, or the part of it in one page, gets from a virtual to a physical address."""

    address: int
    access: Access
    found: Resolution


def walks(paging: Paging, address: int, size: int, access: Access, user: bool) -> Iterator[Walk]:
    """The page walks of an access: one for each page that it touches."""
    end = address + max(size, 1)
    while address < end:
        yield Walk(address & U64, access, paging.resolve(address & U64, access, user))
        address = (address & -PAGE_SIZE) + PAGE_SIZE


def fetch_fault(paging: Paging, rip: int, size: int, user: bool) -> Fault | None:
    """The fault of fetching an instruction of ``size`` bytes."""
    for walk in walks(paging, rip, size, Access.EXECUTE, user):
        if walk.found.physical is None:
            return _of_walk(walk)
    return None


def fault_of(detail: Detail, cpu: Processor, accesses: Iterable[MemoryAccess], paging: Paging,
             read: ReadWord) -> Fault | None:
    """The exception that the instruction is going to cause, None for one that it does not, as far as can be told."""
    name = detail.name
    if name in _UNDEFINED:
        return Fault(Vector.UD, 0, f"{name} is undefined on purpose")
    if cpu.user and (name in _PRIVILEGED or _moves_control(detail)):
        return Fault(Vector.GP, 0, f"{name} is for ring 0, and this is ring {cpu.cpl}")
    if name in _BY_IOPL and cpu.cpl > cpu.flags.IOPL:
        return Fault(Vector.GP, 0, f"{name} needs IOPL {cpu.cpl}, and it is {cpu.flags.IOPL}")
    for access in accesses:
        wanted = Access.WRITE if access.writes else Access.READ
        for walk in walks(paging, access.address, access.size, wanted, cpu.user):
            if walk.found.physical is None:
                return _of_walk(walk)
    if name in ("div", "idiv"):
        return _divide(detail, cpu, tuple(accesses), read)
    return _software(detail)


def entered(fault: Fault, cpu: Processor, read: ReadWord) -> Fault:
    """The same fault with its handler, by the IDT and the TSS."""
    at = cpu.idtr.base + fault.vector * IdtGate.size
    if fault.vector * IdtGate.size + IdtGate.size - 1 > cpu.idtr.limit:
        return fault
    raw = [read(at, 8), read(at + 8, 8)]
    if raw[0] is None or raw[1] is None:
        return fault
    data = raw[0].to_bytes(8, "little") + raw[1].to_bytes(8, "little")
    gate = {field.name: field.decode(data[field.offset : field.offset + field.size]) for field in IdtGate.fields}
    if not gate["attributes"] & 0x80:
        return fault
    handler = gate["offset_low"] | gate["offset_middle"] << 16 | gate["offset_high"] << 32
    number = gate["ist"] & 7
    stack = read(cpu.tr.base + Tss.ist.offset + 8 * (number - 1), 8) if number else 0
    return replace(fault, handler=handler, stack=stack or 0)


def _of_walk(walk: Walk) -> Fault:
    if not is_canonical(walk.address):
        return Fault(Vector.GP, 0, f"0x{walk.address:x} is not canonical: bits 48-63 do not repeat bit 47")
    code = walk.found.error_code
    return Fault(Vector.PF, code, f"{PageFaultError(code).describe()}: {walk.found.reason}", walk.address)


def _moves_control(detail: Detail) -> bool:
    return detail.name == "mov" and any(isinstance(operand.value, str) and operand.value[:2] in ("cr", "dr")
                                        for operand in detail.operands)


def _divide(detail: Detail, cpu: Processor, accesses: tuple[MemoryAccess, ...], read: ReadWord) -> Fault | None:
    """#DE: a divisor of 0, or a quotient that does not fit."""
    operand = detail.operands[0]
    bits = 8 * operand.size
    value = cpu[operand.value] if isinstance(operand.value, str) else read(accesses[0].address, operand.size)
    if value is None:
        return None
    high, low = ("ah", "al") if bits == 8 else {16: ("dx", "ax"), 32: ("edx", "eax"), 64: ("rdx", "rax")}[bits]
    dividend = cpu[high] << bits | cpu[low]
    if value == 0:
        return Fault(Vector.DE, 0, "the divisor is 0")
    if detail.name == "div":
        fits = dividend // value < 1 << bits
    else:
        signed, by = _signed(dividend, 2 * bits), _signed(value, bits)
        quotient = abs(signed) // abs(by) * (1 if (signed < 0) == (by < 0) else -1)
        fits = -(1 << bits - 1) <= quotient < 1 << bits - 1
    return None if fits else Fault(Vector.DE, 0, f"the quotient does not fit in {bits} bits")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _software(detail: Detail) -> Fault | None:
    if detail.name in _SOFTWARE:
        return Fault(_SOFTWARE[detail.name], 0, f"{detail.name} asks for it", software=True)
    if detail.name == "int":
        number = detail.operands[0].value
        return Fault(int(number) & 0xFF, 0, "the instruction asks for it", software=True) \
            if isinstance(number, int) else None
    return None
