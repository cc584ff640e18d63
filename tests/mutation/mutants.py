"""One-instruction mutants of the allocator, made from the disassembly of its image.

``condition``  a jump, a conditional move or a setcc takes the opposite condition
``boundary``   the same with its boundary moved: above becomes above-or-equal
``constant``   an immediate operand is one larger or one smaller
``store``      a store to memory is left out (nops)
``operand``    the two registers of an instruction change places, or a memory operand goes to or from the next register

A mutant has a name, its function and its source text, that survives edits elsewhere: ``free_pages: cmp r12, MAX_ORDER
[constant+1]``. Which mutants a seed chooses depends on their names alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import capstone
from capstone import x86

from sandbox.toolchain.image import Image

FILES = ("page_alloc", "slab", "slab_layout", "magazine", "slowpath", "fastpath", "bulk", "kmalloc", "krealloc",
         "kmem_cache")
OPERATORS = ("condition", "boundary", "constant", "store", "operand")
NOP = b"\x90"
# Condition codes: b/be, ae/a, l/le, ge/g.
_BOUNDARY = {2: 6, 6: 2, 3: 7, 7: 3, 0xC: 0xE, 0xE: 0xC, 0xD: 0xF, 0xF: 0xD}
_STORES = frozenset({"mov", "inc", "dec", "add", "sub", "or", "and", "xor", "lock inc", "lock dec", "lock add",
                     "btr", "bts", "rep stosb", "rep stosq", "xchg", "stosq"})
_BRANCHES = (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL)
# Opcodes with ModRM whose reg field is a general register of the same kind as a register in rm.
_TWO_OPERANDS = frozenset((0x01, 0x03, 0x09, 0x0B, 0x21, 0x23, 0x29, 0x2B, 0x31, 0x33, 0x39, 0x3B, 0x89, 0x8B))


@dataclass(frozen=True)
class Mutant:
    """``data`` takes the place of as many bytes at ``address``; ``line`` is where the source has the instruction."""

    name: str
    operator: str
    address: int
    data: bytes
    line: str

    def apply(self, image: Image) -> Image:
        """The kernel with this mutation; the symbols and the lines stay."""
        sections = []
        for section in image.sections:
            at = self.address - section.address
            if 0 <= at < len(section.data):
                section = replace(section, data=section.data[:at] + self.data + section.data[at + len(self.data) :])
            sections.append(section)
        return replace(image, sections=tuple(sections))


def every(image: Image) -> list[Mutant]:
    """All mutants of the allocator, by address."""
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    text = image.section("text")
    assert text is not None
    found: list[Mutant] = []
    seen: Counter[str] = Counter()
    for start, end in sorted(set(image.functions.values())):
        first = image.line(start)
        if first is None or first.file.rsplit("/", 1)[-1].removesuffix(".asm") not in FILES:
            continue
        function = next(name for name, span in image.functions.items() if span == (start, end))
        at = start
        while at < end:
            if image.data_end(at) is not None:
                at = image.data_end(at) or end
                continue
            offset = at - text.address
            raw = next(engine.disasm(text.data[offset : offset + 15], at, 1))
            line = image.line(at)
            after = next(engine.disasm(text.data[offset + raw.size : offset + raw.size + 15], at + raw.size, 1), None)
            for operator, detail, data in _of(raw):
                if operator == "operand" and raw.mnemonic == "cmp" and after is not None and _equality(after):
                    continue                     # a == b is b == a
                assert line is not None
                source = " ".join(line.text.partition("#")[0].split())
                name = f"{function}: {source} [{operator}{detail}]"
                seen[name] += 1
                name += f" #{seen[name]}" if seen[name] > 1 else ""
                found.append(Mutant(name, operator, at, data, str(line)))
            at += raw.size
    return found


def chosen(image: Image, seed: int, count: int) -> list[Mutant]:
    """``count`` mutants, those whose names a hash of the seed puts first; every operator has its fifth, if it can."""
    share = -(-count // len(OPERATORS))

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).digest()

    mutants = sorted(every(image), key=rank)
    fair = [mutant for operator in OPERATORS
            for mutant in [one for one in mutants if one.operator == operator][:share]]
    others = [mutant for mutant in mutants if mutant not in fair]
    return sorted([*fair, *others][:count], key=rank)


def _equality(raw: capstone.CsInsn) -> bool:
    """Whether an instruction asks for equal or not equal."""
    return bool(raw.mnemonic in ("je", "jne", "sete", "setne", "cmove", "cmovne"))


def _of(raw: capstone.CsInsn) -> Iterator[tuple[str, str, bytes]]:
    """(operator, detail, bytes) for each mutant of an instruction."""
    code = bytes(raw.bytes)
    yield from _conditions(raw, code)
    branch = any(raw.group(group) for group in _BRANCHES)
    if raw.encoding.imm_size and raw.encoding.imm_offset and not branch and raw.mnemonic != "enter":
        at, size = raw.encoding.imm_offset, raw.encoding.imm_size
        value = int.from_bytes(code[at : at + size], "little")
        for step, sign in ((1, "+1"), (-1, "-1")):
            new = ((value + step) % (1 << 8 * size)).to_bytes(size, "little")
            yield "constant", sign, code[:at] + new + code[at + size :]
    memory = [operand for operand in raw.operands if operand.type == x86.X86_OP_MEM]
    if raw.mnemonic in _STORES and memory and memory[0].access & capstone.CS_AC_WRITE:
        yield "store", "", NOP * raw.size
    yield from _other_operands(raw, code)


def _conditions(raw: capstone.CsInsn, code: bytes) -> Iterator[tuple[str, str, bytes]]:
    opcode = bytes(raw.opcode)
    if 0x70 <= opcode[0] < 0x80:
        at, condition = code.index(opcode[0]), opcode[0] & 0xF
    elif opcode[0] == 0x0F and opcode[1] >> 4 in (4, 8, 9):
        at, condition = code.index(b"\x0f") + 1, opcode[1] & 0xF
    else:
        return
    yield "condition", "", code[:at] + bytes((code[at] ^ 1,)) + code[at + 1 :]
    if condition in _BOUNDARY:
        yield "boundary", "", code[:at] + bytes((code[at] & 0xF0 | _BOUNDARY[condition],)) + code[at + 1 :]


def _other_operands(raw: capstone.CsInsn, code: bytes) -> Iterator[tuple[str, str, bytes]]:
    at = raw.encoding.modrm_offset
    if raw.opcode[0] not in _TWO_OPERANDS or not at or code[at - 1] != raw.opcode[0]:
        return
    modrm = code[at]
    register, other = modrm >> 3 & 7, modrm & 7
    if modrm >> 6 != 3:
        yield "operand", "", code[:at] + bytes((modrm ^ 8,)) + code[at + 1 :]
        return
    rex = at >= 2 and code[at - 2] >> 4 == 4
    extended = code[at - 2] if rex else 0
    if (register, bool(extended & 4)) == (other, bool(extended & 1)):
        return                                   # xor eax, eax
    swapped = code[:at] + bytes((modrm & 0xC0 | other << 3 | register,)) + code[at + 1 :]
    if rex:
        new = extended & ~5 | (extended & 1) << 2 | (extended & 4) >> 2
        swapped = swapped[: at - 2] + bytes((new,)) + swapped[at - 1 :]
    yield "operand", "", swapped
