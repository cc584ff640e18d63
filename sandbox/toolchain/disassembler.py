"""Bytes to instructions: the only door to Capstone.

An instruction is shown in the dialect that the assembler reads, with labels where the text would have them::

    Disassembler().disassemble(data, address, image.symbolize).text      # "call kmalloc"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import capstone
from capstone import x86

from .image import Image

U64 = (1 << 64) - 1
MAX_INSTRUCTION = 15
"""Bytes of the longest instruction (Intel SDM volume 2, section 2.3.11)."""

Symbolize = Callable[[int], str | None]


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction; bytes that are none have the mnemonic ``.byte`` and size 1."""

    address: int
    size: int
    bytes: bytes
    mnemonic: str
    operands: str

    @property
    def text(self) -> str:
        """Mnemonic and operands, as one would write them."""
        return f"{self.mnemonic} {self.operands}".rstrip()

    @property
    def end(self) -> int:
        """The address of the next one."""
        return self.address + self.size


@dataclass(frozen=True)
class DecodedMemory:
    """A memory operand: register names ('' for none), and the displacement as a signed number."""

    size: int
    segment: str
    base: str
    index: str
    scale: int
    displacement: int


@dataclass(frozen=True)
class Decoded:
    """What the safety net compares: operands are register names, numbers or :class:`DecodedMemory`."""

    size: int
    mnemonic: str
    operands: tuple[str | int | DecodedMemory, ...]


@dataclass(frozen=True)
class Operand:
    """One operand that is written in an instruction: ``access`` is ``r``, ``w``, ``rw``, or empty for a constant."""

    value: str | int | DecodedMemory
    size: int
    access: str


@dataclass(frozen=True)
class Detail:
    """An instruction with all that the processor's decoder knows: its operands, the prefixes ``rep repe repne lock``,
    and the registers that it reads and writes, those that are not written in it too (``rflags`` among them)."""

    instruction: Instruction
    operands: tuple[Operand, ...]
    prefix: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The mnemonic without prefixes."""
        return self.instruction.mnemonic.split()[-1]


class Outline(NamedTuple):
    """An instruction in brief, many times faster to get than the others: its operands are text."""

    address: int
    size: int
    mnemonic: str
    operands: str


# What Capstone 5 leaves out: registers that an instruction writes, and a store to its first operand.
_ALSO_WRITES = {"cmpxchg": ("rax",), "enter": ("rbp", "rsp"), "syscall": ("rcx", "r11"),
                **dict.fromkeys(("cmpxchg8b", "cmpxchg16b"), ("rax", "rdx"))}
_ALSO_STORES = frozenset({"cmpxchg", "cmpxchg8b", "cmpxchg16b", "fxsave", "fxsave64", "sgdt", "sidt"})
_ACCESS = {0: "", capstone.CS_AC_READ: "r", capstone.CS_AC_WRITE: "w",
           capstone.CS_AC_READ | capstone.CS_AC_WRITE: "rw"}


class Disassembler:
    """An x86 decoder for 64-bit code, or 32-bit code where ``bits`` says so."""

    def __init__(self, bits: int = 64) -> None:
        mode = {32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
        self._engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
        self._engine.detail = True
        self._brief = capstone.Cs(capstone.CS_ARCH_X86, mode)

    def disassemble(self, data: bytes, address: int, symbolize: Symbolize | None = None) -> Instruction:
        """The instruction at the start of ``data``, which lies at ``address``."""
        raw = self._raw(data, address)
        if raw is None:
            shown = f"0x{data[0]:02x}" if data else ""
            return Instruction(address, 1, bytes(data[:1]), ".byte", shown)
        operands = raw.op_str
        if symbolize is not None:
            operands = self._with_symbols(raw, symbolize)
        return Instruction(address, raw.size, bytes(raw.bytes), raw.mnemonic, operands)

    def listing(self, data: bytes, address: int, symbolize: Symbolize | None = None) -> Iterator[Instruction]:
        """Every instruction of ``data``, one after the other."""
        at = 0
        while at < len(data):
            found = self.disassemble(data[at : at + MAX_INSTRUCTION], address + at, symbolize)
            yield found
            at += found.size

    def code(self, image: Image, start: int, end: int) -> Iterator[Instruction]:
        """The instructions of ``image`` from ``start`` up to ``end``, with data in the text left out."""
        text = image.section("text")
        if text is None:
            return
        at, end = max(start, text.address), min(end, image.text_end)
        while at < end:
            after = image.data_end(at)
            if after is not None:
                at = after
                continue
            offset = at - text.address
            found = self.disassemble(text.data[offset : offset + MAX_INSTRUCTION], at, image.symbolize)
            yield found
            at = found.end

    def detail(self, data: bytes, address: int, symbolize: Symbolize | None = None) -> Detail | None:
        """The first instruction with its operands and registers, None when there is none."""
        raw = self._raw(data, address)
        if raw is None:
            return None
        text = raw.op_str if symbolize is None else self._with_symbols(raw, symbolize)
        name = raw.mnemonic.split()[-1]
        operands = tuple(Operand(self._operand(raw, item), item.size, _access(name, item)) for item in raw.operands)
        reads, writes = (tuple(dict.fromkeys(str(raw.reg_name(number)) for number in numbers))
                         for numbers in raw.regs_access())
        return Detail(Instruction(address, raw.size, bytes(raw.bytes), raw.mnemonic, text), operands,
                      " ".join(raw.mnemonic.split()[:-1]), reads, (*writes, *_ALSO_WRITES.get(name, ())))

    def outline(self, image: Image, start: int = 0, end: int = U64) -> Iterator[Outline]:
        """The instructions of ``image`` from ``start`` up to ``end`` in brief, ascending; what is none is left out,
        byte by byte."""
        text = image.section("text")
        if text is None:
            return
        at, end = max(start, text.address), min(end, image.text_end)
        for data, behind in (*image.data_in_text, (end, end)):
            stop = min(data, end)
            if at < stop:
                yield from self.sweep(text.data[at - text.address : stop - text.address], at)
            at = max(at, stop, behind)

    def sweep(self, data: bytes, address: int) -> Iterator[Outline]:
        """The instructions of ``data`` in brief, one behind the other; what is none is left out, byte by byte."""
        at, stop = address, address + len(data)
        while at < stop:
            for found in self._brief.disasm_lite(data[at - address :], at):
                yield Outline(*found)
                at = found[0] + found[1]
            at += at < stop

    def rets(self, image: Image, *functions: str) -> tuple[int, ...]:
        """The addresses of the ``ret`` instructions in these functions, in all of the text when none is named."""
        ranges = [image.functions[name] for name in functions] if functions else [(image.base, image.text_end)]
        return tuple(sorted({found.address for start, end in ranges for found in self.outline(image, start, end)
                             if found.mnemonic.split()[-1] == "ret"}))

    def decode(self, data: bytes, address: int) -> Decoded | None:
        """The structure of the first instruction, None when there is none."""
        raw = self._raw(data, address)
        if raw is None:
            return None
        return Decoded(raw.size, raw.mnemonic, tuple(self._operand(raw, item) for item in raw.operands))

    def _raw(self, data: bytes, address: int) -> Any:
        return next(self._engine.disasm(bytes(data[:MAX_INSTRUCTION]), address, 1), None)

    def _operand(self, raw: Any, operand: Any) -> str | int | DecodedMemory:
        if operand.type == x86.X86_OP_REG:
            return str(raw.reg_name(operand.reg))
        if operand.type == x86.X86_OP_IMM:
            return int(operand.imm)
        memory = operand.mem
        name = [raw.reg_name(register) or "" for register in (memory.segment, memory.base, memory.index)]
        return DecodedMemory(operand.size, name[0], name[1], name[2], memory.scale, memory.disp)

    def _with_symbols(self, raw: Any, symbolize: Symbolize) -> str:
        text = str(raw.op_str)
        for operand in raw.operands:
            if operand.type == x86.X86_OP_IMM and (raw.group(x86.X86_GRP_JUMP) or raw.group(x86.X86_GRP_CALL)):
                return symbolize(operand.imm & U64) or text
            if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
                name = symbolize((raw.address + raw.size + operand.mem.disp) & U64)
                start = text.find("[rip")
                if name and start >= 0:
                    return f"{text[:start]}[rip + {name}]{text[text.index(']', start) + 1:]}"
        return text


def _access(name: str, operand: Any) -> str:
    stores = name in _ALSO_STORES and operand.type == x86.X86_OP_MEM
    return _ACCESS[operand.access & 3 | (capstone.CS_AC_WRITE if stores else 0)]


def disassemble(data: bytes, address: int, symbolize: Symbolize | None = None) -> Iterator[Instruction]:
    """Every 64-bit instruction of ``data``, which lies at ``address``."""
    return Disassembler().listing(data, address, symbolize)
