"""Forms that are refused, each with the reason or with what to write instead.

Three kinds: what an assembler gets wrong in silence or aborts on (measured on Keystone 0.9.2), what Keystone and
GNU as encode differently, and what would make one run differ from another (``rdtsc`` and its kin read the host).
Everything here is about one statement, before it is assembled; :mod:`sandbox.toolchain.verify` looks at the bytes.
"""

from __future__ import annotations

import difflib
import re

from .expression import Linear
from .operands import (
    BRANCHES,
    REGISTERS,
    SEGMENTS,
    ImmediateOperand,
    Instruction,
    MemoryOperand,
    RegisterOperand,
    words,
)

_HOST = "reads the host, and every run must be the same: use the instruction count (the timer)"
OF_THE_HOST: dict[str, str] = {
    "rdtsc": f"rdtsc {_HOST}",
    "rdtscp": f"rdtscp {_HOST}",
    "rdrand": "rdrand is random, and every run must be the same: use a seed",
    "rdseed": "rdseed is random, and every run must be the same: use a seed",
}
"""Instructions that would make one run differ from another, and why they are refused, in machine code too."""
_REFUSED: dict[str, str] = {
    **OF_THE_HOST,
    "iret": "plain iret is the 16-bit form: write iretq",
    "iretd": "iretd returns to 32-bit code with a 32-bit frame: write iretq",
    "sysret": "assemblers disagree about plain sysret: write sysretq",
    "sysexit": "assemblers disagree about plain sysexit: use sysretq",
    "pushf": "plain pushf is 16 bits wide for some assemblers: write pushfq",
    "popf": "plain popf is 16 bits wide for some assemblers: write popfq",
    "retf": "assemblers disagree about the width of plain retf: write retfq",
    "finit": "finit is fwait and fninit: write fninit",
    "lret": "write retfq",
    "lretq": "write retfq",
    "ljmp": "a far jump is written as retfq, or as its bytes",
    "lcall": "a far call is written as its bytes",
    "db": "write .byte", "dw": "write .word", "dd": "write .long", "dq": "write .quad",
    "equ": "write .set name, value", "section": "write .text, .rodata, .data or .bss",
    "global": "write .globl", "extern": "kernel symbols are known without a declaration",
    "bits": "the code is always 64-bit", "org": "the address is chosen by the loader",
    "resb": "write .zero", "resq": "write .zero 8 * count", "times": "write .rept ... .endr",
}
_DIRECTIVES = words(".text .rodata .data .bss .section .globl .global .set .equ .byte .word .short .long .int .quad "
                    ".ascii .asciz .string .zero .skip .space .p2align .balign .include .incbin .macro .endm .rept "
                    ".irp .endr .if .ifdef .ifndef .ifb .ifnb .else .elseif .endif .error .code32 .code64")
_HIGH_BYTES = frozenset({"ah", "bh", "ch", "dh"})
_STRING = frozenset(f"{stem}{width}" for stem in ("movs", "stos", "lods", "scas", "cmps", "ins", "outs")
                    for width in ("", "b", "w", "d", "q"))
_NEEDS_SIZE = words("mov add or adc sbb and sub xor cmp test inc dec neg not mul imul div idiv shl sal shr sar "
                    "rol ror rcl rcr bt bts btr btc push pop movzx movsx nop")
_ANY_64_BIT = frozenset({"mov", "movabs"})
_IMMEDIATE_BYTES: dict[str, int] = {
    **dict.fromkeys(("shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd", "bt", "bts", "btr",
                     "btc", "int", "in", "out"), 1), "ret": 2, "retfq": 2, "enter": 2}
_I32_LOW, _I32_HIGH = -(1 << 31), 1 << 31
_U64 = (1 << 64) - 1


def refused(statement: str, word: str) -> str:
    """Why this statement may not be used as it is written, empty when it may."""
    if found := re.match(r"(?i)(?:[\w.]+\s*,?\s+)(?:equ|db|dw|dd|dq)\b", statement):
        other = found.group().split()[-1]
        return f"{other!r} belongs to another dialect: {_REFUSED[other.lower()]}"
    return _REFUSED.get(word, "")


def unknown_directive(word: str) -> str:
    """The sentence for a directive that is not ours."""
    if word == ".org":
        return ".org is not understood: the address is chosen by the loader, and .p2align aligns"
    close = difflib.get_close_matches(word, sorted(_DIRECTIVES), 1)
    return f"the directive {word} is not known here" + (f"; did you mean {close[0]}?" if close else "")


def check(instruction: Instruction, bits: int = 64) -> str:
    """Why this instruction may not be used, empty when it may."""
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic in _REFUSED:
        return _REFUSED[mnemonic]
    if bits == 32 and mnemonic in ("lgdt", "lidt"):
        return f"{mnemonic} in 32-bit code comes out 16-bit: write its bytes"
    if mnemonic in _STRING and operands and not any(
            isinstance(operand, RegisterOperand) and operand.name.startswith("xmm") for operand in operands):
        return f"{mnemonic} is written without operands"
    if mnemonic in ("nop", "xlat", "xlatb", "monitor", "mwait") and operands:
        return f"{mnemonic} is written without operands"
    if mnemonic == "nop" and instruction.prefixes:
        return "write pause" if instruction.prefixes == ("rep",) else "nop takes no prefix"
    if mnemonic == "int" and operands == (ImmediateOperand(Linear(3)),):
        return "assemblers disagree about int 3: write int3"
    if mnemonic == "xchg" and len(operands) == 2 and operands[0] == operands[1] and "ax" in str(operands[0]):
        return "exchanging the accumulator with itself is encoded as nop: write nop"
    memories = [operand for operand in operands if isinstance(operand, MemoryOperand)]
    if mnemonic == "mov" and memories and any(
            isinstance(operand, RegisterOperand) and operand.name in SEGMENTS for operand in operands):
        return "a segment register is moved from and to a general register"
    if mnemonic in ("str", "sldt") and any(
            isinstance(operand, RegisterOperand) and REGISTERS[operand.name] == 8 for operand in operands):
        return f"{mnemonic} gives 16 bits: take a 32-bit register"
    registers = [operand.name for operand in operands if isinstance(operand, RegisterOperand)]
    return (_high_byte(instruction, registers, memories, bits)
            or next(filter(None, (_memory(memory, mnemonic, bits) for memory in memories)), "")
            or _size(instruction, registers, memories)
            or _immediates(instruction, registers, memories))


def _high_byte(instruction: Instruction, registers: list[str], memories: list[MemoryOperand], bits: int) -> str:
    """AH-DH cannot stand in an instruction with a REX prefix (SDM volume 2, 2.2.1.2); Keystone aborts on them."""
    if bits != 64 or not _HIGH_BYTES & set(registers):
        return ""
    others = registers + [name for memory in memories for name in (memory.base, memory.index)]
    wide = [name for name in others if name in ("sil", "dil", "bpl", "spl") or re.match(r"r\d", name)]
    wide += [name for name in registers if REGISTERS[name] == 8]
    return f"ah, bh, ch and dh cannot stand beside {wide[0]}" if wide else ""


def _memory(memory: MemoryOperand, mnemonic: str, bits: int) -> str:
    value = memory.displacement
    if memory.base in ("rip", "eip"):
        if memory.index:
            return "rip takes no index register"
        if value.constant:
            return "[rip + number] comes out wrong: rip needs a label"
        return _one_label(value)
    for name in (memory.base, memory.index):
        if name and (name in SEGMENTS or REGISTERS[name] not in (4, 8) or not re.match(r"[er]", name)):
            return f"{name} cannot be part of an address"
    if memory.base and memory.index and REGISTERS[memory.base] != REGISTERS[memory.index]:
        return "an address mixes 64-bit and 32-bit registers"
    if memory.index in ("rsp", "esp") and (memory.scale != 1 or memory.base in ("rsp", "esp")):
        return f"{memory.index} cannot be an index"
    if memory.segment in ("cs", "ds", "es", "ss") and bits == 64:
        return f"the segment {memory.segment} means nothing in 64-bit code"
    if not value.constant:
        if not memory.base and not memory.index and bits == 64:
            return "a label in memory is written [rip + label]"
        return _one_label(value)
    wide = not memory.base and not memory.index and mnemonic == "movabs"
    if not wide and not _signed_32(value.value):
        return f"the displacement {value.value:#x} does not fit in 32 bits, sign-extended"
    return ""


def _one_label(value: Linear) -> str:
    if len(value.terms) != 1 or value.terms[0][1] != 1:
        return "an instruction takes one label plus a number; differences of labels belong in data"
    return ""


def _signed_32(value: int) -> bool:
    return _I32_LOW <= value < _I32_HIGH or value >= (1 << 64) - (1 << 31)


def _size(instruction: Instruction, registers: list[str], memories: list[MemoryOperand]) -> str:
    """A memory operand whose size nothing tells."""
    mnemonic = instruction.mnemonic
    if not memories or memories[0].size or mnemonic not in _NEEDS_SIZE:
        return ""
    counts = mnemonic in ("shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr")
    if registers and not counts and mnemonic not in ("movzx", "movsx"):
        return ""
    return "how many bytes? write byte, word, dword or qword ptr before the ["


def _immediates(instruction: Instruction, registers: list[str], memories: list[MemoryOperand]) -> str:
    mnemonic = instruction.mnemonic
    for operand in instruction.operands:
        if not isinstance(operand, ImmediateOperand):
            continue
        if not operand.value.constant:
            if mnemonic not in BRANCHES and len(operand.value.terms) == 1:
                return ("the address of a label is taken by lea register, [rip + label], "
                        "and what lies there is [rip + label]")
            if reason := _one_label(operand.value):
                return reason
            continue
        if mnemonic in BRANCHES:
            return f"{mnemonic} needs a label, or a register that holds the address"
        if reason := _fits(mnemonic, operand.value.value, registers, memories):
            return reason
    return ""


def _fits(mnemonic: str, value: int, registers: list[str], memories: list[MemoryOperand]) -> str:
    """Whether an immediate fits its instruction."""
    if mnemonic in _IMMEDIATE_BYTES:
        bits = 8 * _IMMEDIATE_BYTES[mnemonic]
        return "" if 0 <= value < 1 << bits else f"{value:#x} does not fit in {bits} bits"
    if mnemonic == "push":
        return "" if _I32_LOW <= value < _I32_HIGH else (
            f"push takes 32 bits, sign-extended, and {value:#x} does not fit: use mov and push a register")
    sizes = [REGISTERS[name] for name in registers] + [memory.size for memory in memories]
    width = sizes[0] if sizes else 0
    if width not in (1, 2, 4, 8):
        return ""
    if not -(1 << (8 * width - 1)) <= value < 1 << (8 * width):
        return f"{value:#x} does not fit in {8 * width} bits"
    if width == 8 and not (mnemonic in _ANY_64_BIT and registers and not memories) and not _signed_32(value):
        return f"{mnemonic} takes 32 bits, sign-extended, and {value:#x} does not fit: put it in a register first"
    return ""
