"""What one instruction does to memory, and where it goes next: computed, not run.

The accesses that an instruction writes out are its operands; the others follow from what it is (Intel SDM volume 2):
a ``push`` stores below RSP, an ``iretq`` reads five words. A turn of a ``rep`` is one start, and so is one more with
RCX = 0 that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..address import U64
from ..toolchain.disassembler import DecodedMemory, Detail, Operand
from .processor import Processor

ReadWord = Callable[[int, int], "int | None"]
"""``read(address, size)``: a number in virtual memory, None where nothing is mapped."""
STRINGS = frozenset(name + width for name in ("movs", "stos", "lods", "cmps", "scas") for width in "bwdq")
_NO_ACCESS = frozenset(("lea", "nop", "invlpg", "clflush", "clflushopt", "prefetch", "prefetchw", "prefetcht0",
                        "prefetcht1", "prefetcht2", "prefetchnta", "ud0", "ud1"))
_READS_ONLY = frozenset(("test", "cmp", "bt", "lgdt", "lidt", "fxrstor", "fxrstor64", "ldmxcsr"))
_WRITES_ONLY = frozenset(("sgdt", "sidt", "fxsave", "fxsave64", "stmxcsr"))
_BOTH = frozenset(("cmpxchg", "cmpxchg8b", "cmpxchg16b", "rol", "ror", "rcl", "rcr", "shl", "shr", "sar", "shld",
                   "shrd"))
_SIZES = {"sgdt": 10, "sidt": 10, "lgdt": 10, "lidt": 10, "fxsave": 512, "fxsave64": 512, "fxrstor": 512,
          "fxrstor64": 512, "cmpxchg8b": 8, "cmpxchg16b": 16}
_BIT_TESTS = frozenset(("bt", "bts", "btr", "btc"))
_LEGACY_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67, 0xF0, 0xF2, 0xF3))


@dataclass(frozen=True)
class MemoryAccess:
    """One access: ``kind`` is ``read``, ``write`` or ``both``.

    ``operand`` is the operand that names the memory, None where the instruction implies it; then ``role`` says what it
    is. ``base`` is the address that the operand's registers make without its displacement. ``value`` is what is going
    to be written, where that is a mere copy.
    """

    kind: str
    address: int
    size: int
    operand: DecodedMemory | None = None
    base: int = 0
    role: str = ""
    value: int | None = None

    @property
    def reads(self) -> bool:
        """Whether bytes are read."""
        return self.kind != "write"

    @property
    def writes(self) -> bool:
        """Whether bytes are written."""
        return self.kind != "read"


def accesses(detail: Detail, cpu: Processor, read: ReadWord) -> tuple[MemoryAccess, ...]:
    """Every access of the instruction, in the state that ``cpu`` is in and with the memory that ``read`` reads."""
    if detail.prefix.startswith("rep") and detail.name in STRINGS and _is_string(detail) and not cpu["rcx"]:
        return ()
    return (*_written_out(detail, cpu), *_implied(detail, cpu, read))


def _is_string(detail: Detail) -> bool:
    """Whether this is no SSE instruction of a string instruction's name (``movsd``, ``cmpsd``)."""
    return not any(isinstance(operand.value, str) and operand.value.startswith("xmm") for operand in detail.operands)


# -- operands ---------------------------------------------------------------------------------------------------
def _written_out(detail: Detail, cpu: Processor) -> Iterator[MemoryAccess]:
    name = detail.name
    if name in _NO_ACCESS:
        return
    for operand in detail.operands:
        memory = operand.value
        if not isinstance(memory, DecodedMemory):
            continue
        base = base_of(memory, cpu, detail, popped=name == "pop")
        address = (base + memory.displacement + _bit_offset(detail, operand, cpu)) & U64
        size = _SIZES.get(name, operand.size)
        kind = _kind(name, operand, operand is detail.operands[0])
        value = _copied(detail, cpu) if kind == "write" else None
        yield MemoryAccess(kind, address, size, memory, base, "", value)


def base_of(memory: DecodedMemory, cpu: Processor, detail: Detail, popped: bool = False) -> int:
    """What the registers of a memory operand add up to, its segment's base among them."""
    base = _address_register(memory.base, cpu, detail)
    if popped and memory.base == "rsp":
        base += detail.operands[0].size                   # pop computes its address after it has moved RSP
    index = _address_register(memory.index, cpu, detail)
    segment = cpu[f"{memory.segment}_base"] if memory.segment in ("fs", "gs") else 0
    return (segment + base + index * memory.scale) & U64


def _address_register(name: str, cpu: Processor, detail: Detail) -> int:
    if name in ("rip", "eip"):
        return detail.instruction.end
    return cpu.get(name) or 0


def _kind(name: str, operand: Operand, first: bool) -> str:
    """What is done to a memory operand: the disassembler's word, where it is right (SSE moves have it as a read)."""
    if name.startswith("mov"):
        return "write" if first else "read"
    if name in _BOTH:
        return "both"
    if name in _READS_ONLY:
        return "read"
    if name in _WRITES_ONLY or name.startswith("set"):
        return "write"
    return {"r": "read", "w": "write"}.get(operand.access, "both" if operand.access else "read")


def _bit_offset(detail: Detail, operand: Operand, cpu: Processor) -> int:
    """``bt [memory], register`` reaches bits far from its operand, in units of the operand's size."""
    if detail.name not in _BIT_TESTS or len(detail.operands) < 2:
        return 0
    register = detail.operands[1].value
    if not isinstance(register, str) or operand is not detail.operands[0]:
        return 0
    bits = 8 * operand.size
    number = cpu[register]
    signed = number - (1 << bits) if number >> (bits - 1) & 1 else number
    return signed // bits * operand.size


def _copied(detail: Detail, cpu: Processor) -> int | None:
    """What a plain copy is going to write; None for everything that computes."""
    name, operands = detail.name, detail.operands
    if name not in ("mov", "movabs", "stosb", "stosw", "stosd", "stosq", "movnti") or len(operands) < 2:
        return None
    source, size = operands[1].value, operands[0].size
    if isinstance(source, str):
        return cpu[source] & _mask(size) if source in cpu else None
    return source & _mask(size) if isinstance(source, int) else None


def _mask(size: int) -> int:
    return (1 << 8 * size) - 1


# -- what is implied --------------------------------------------------------------------------------------------
def _implied(detail: Detail, cpu: Processor, read: ReadWord) -> Iterator[MemoryAccess]:
    name, rsp, after = detail.name, cpu["rsp"], detail.instruction.end
    if name == "push":
        size = _pushed_size(detail)
        yield _push(rsp, size, _pushed_value(detail, cpu, size))
    elif name in ("pushfq", "pushf"):
        size = 8 if name == "pushfq" else 2
        yield _push(rsp, size, cpu["rflags"] & ~0x30000 & _mask(size), "RFLAGS")
    elif name == "call":
        yield _push(rsp, 8, after, "the return address")
    elif name == "lcall":
        yield _push(rsp, 8, cpu["cs"], "CS")
        yield _push(rsp - 8, 8, after, "the return address")
    elif name == "pop":
        yield _pop(rsp, _pushed_size(detail))
    elif name in ("popfq", "popf"):
        yield _pop(rsp, 8 if name == "popfq" else 2, "RFLAGS")
    elif name == "ret":
        yield _pop(rsp, 8, "the return address")
    elif name == "leave":
        yield _pop(cpu["rbp"], 8, "the caller's RBP")
    elif name == "enter":
        yield from _enter(detail, cpu)
    elif name in ("retfq", "iretq"):
        words = ("RIP", "CS") if name == "retfq" else ("RIP", "CS", "RFLAGS", "RSP", "SS")
        for index, word in enumerate(words):
            yield _pop(rsp + 8 * index, 8, f"the new {word}")
            if word in ("CS", "SS"):
                yield from _descriptor((read(rsp + 8 * index, 8) or 0) & 0xFFFF, cpu)
    elif name == "xlatb":
        yield MemoryAccess("read", (cpu["rbx"] + cpu["al"]) & U64, 1, role="the table's entry")
    elif name in ("lldt", "ltr") or (name == "mov" and _is_segment(detail)):
        source = detail.operands[-1].value
        if isinstance(source, str) and source in cpu:
            yield from _descriptor(cpu[source] & 0xFFFF, cpu, system=name in ("lldt", "ltr"))
        if name == "ltr":
            at = cpu.gdtr.base + (cpu[str(source)] & 0xFFF8) + 4
            yield MemoryAccess("write", at, 4, role="the descriptor, from now on busy")


def _push(rsp: int, size: int, value: int | None, role: str = "") -> MemoryAccess:
    return MemoryAccess("write", (rsp - size) & U64, size, role=role or "the new top of the stack", value=value)


def _pop(at: int, size: int, role: str = "") -> MemoryAccess:
    return MemoryAccess("read", at & U64, size, role=role or "the top of the stack")


def _pushed_size(detail: Detail) -> int:
    """2 behind an operand-size prefix; there is no other."""
    for byte in detail.instruction.bytes:
        if byte == 0x66:
            return 2
        if byte not in _LEGACY_PREFIXES:
            break
    return 8


def _pushed_value(detail: Detail, cpu: Processor, size: int) -> int | None:
    value = detail.operands[0].value
    if isinstance(value, int):
        return value & _mask(size)
    return cpu[value] & _mask(size) if isinstance(value, str) and value in cpu else None


def _enter(detail: Detail, cpu: Processor) -> Iterator[MemoryAccess]:
    """``enter size, level`` pushes RBP, and for a level above 0 a display of the frames around."""
    level = operand % 32 if isinstance(operand := detail.operands[1].value, int) else 0
    rsp, rbp = cpu["rsp"], cpu["rbp"]
    yield _push(rsp, 8, rbp, "the caller's RBP")
    for index in range(1, level):
        yield _pop(rbp - 8 * index, 8, "a frame around")
        yield _push(rsp - 8 * index, 8, None, "a frame around")
    if level:
        yield _push(rsp - 8 * level, 8, (rsp - 8) & U64, "this frame")


def _is_segment(detail: Detail) -> bool:
    first = detail.operands[0].value if detail.operands else None
    return first in ("es", "ss", "ds", "fs", "gs")


def _descriptor(selector: int, cpu: Processor, system: bool = False) -> Iterator[MemoryAccess]:
    """A selector that is loaded brings its descriptor with it; one of 0 stands for none."""
    if selector & 0xFFFC:
        table = cpu.ldtr if selector & 4 else cpu.gdtr
        yield MemoryAccess("read", (table.base + (selector & 0xFFF8)) & U64, 16 if system else 8,
                           role=f"the descriptor of selector {selector:#x}")
