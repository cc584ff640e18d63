"""A unit to an image: plain text for an assembler, its bytes back, and everything put in its place.

The assembler sees one section, in this order; what follows the code is cut off again, so the code is not changed
by it (and is compared with GNU as in the tests)::

    Lunit:                        at the unit's base
    L0:  mov rax, [rdi + 8]       a label before every statement
    L1:  .zero 24                 data in the text: its bytes are put in afterwards
    ...
    Lend:  .p2align 12 ... 4096 more bytes             the rest of the page and a page of int3
    Lrodata:                      where the data begins
    .set A0, Lrodata + 128        each label that an instruction mentions, as a real label plus a number
    .quad L0 ... .quad Lend       the addresses

A symbol of the kernel that a program mentions is ``Lunit - distance``: an absolute ``.set`` comes out wrong in
``[rip + symbol]`` with Keystone, this comes out right everywhere, in GNU as too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..address import PAGE_SIZE, align_up, page_up
from ..errors import AssemblyError
from .backend import Backend, Rejected
from .disassembler import MAX_INSTRUCTION, Disassembler
from .expression import Linear
from .image import Image, Section
from .operands import ImmediateOperand, Instruction
from .unit import Align, Blob, Code, Fixup, Label, Mode, Unit
from .verify import difference

U64 = (1 << 64) - 1
INT3 = b"\xcc"
_NOPS = tuple(bytes.fromhex(code) for code in (
    "", "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000",
    "660f1f840000000000", "662e0f1f840000000000", "66662e0f1f840000000000"))
"""The recommended no-operations of 0 to 9 bytes (Intel SDM volume 2, NOP), and two more that GNU as pads with."""


def link(unit: Unit, base: int, externs: Mapping[str, int], backend: Backend) -> Image:
    """Assemble ``unit`` at the page-aligned ``base``, and decode every instruction again to be sure."""
    return _Linker(unit, base, externs, backend).image()


class _Linker:
    """The state of one :func:`link`."""

    def __init__(self, unit: Unit, base: int, externs: Mapping[str, int], backend: Backend) -> None:
        self.unit = unit
        self.base = base
        self.externs = externs
        self.backend = backend
        self.aliases: dict[Linear, str] = {}
        self.definitions: list[str] = []
        self.addresses: dict[str, int] = {}
        self.marks = [f"L{at}" for at in range(len(unit.text))]
        self.mark_of = {item.name: mark for item, mark in zip(unit.text, self.marks, strict=True)
                        if isinstance(item, Label)}
        rodata, data = page_up(unit.sizes["rodata"]), align_up(unit.sizes["data"], unit.alignment["bss"])
        self.offsets = {"rodata": 0, "data": rodata, "bss": rodata + data}
        self.data_size = rodata + page_up(data + unit.sizes["bss"])

    # ---- text for the assembler

    def plain(self, item: Code | Blob | Align | Label | Mode) -> str:
        """One statement of the text as the assembler gets it."""
        if isinstance(item, Code):
            fixed = fixed_encoding(item.instruction) if item.bits == 64 else None
            if fixed is not None:
                return ".byte " + ", ".join(str(byte) for byte in fixed)
            return item.instruction.render(self.alias, self.backend.needs_index and item.bits == 64)
        if isinstance(item, Align):
            return f".p2align {item.power}, 0xcc"
        if isinstance(item, Mode):
            return f".code{item.bits}"
        return f".zero {len(item.data)}" if isinstance(item, Blob) and item.data else ""

    def alias(self, value: Linear) -> str:
        """The assembler's name for a label plus a number."""
        if value not in self.aliases:
            if len(value.terms) != 1 or value.terms[0][1] != 1:
                raise ValueError("an instruction takes one label plus a number")
            label, number = self.anchor(value.terms[0][0])
            number += value.value
            name = self.aliases[value] = f"A{len(self.aliases)}"
            self.definitions.append(f".set {name}, {label} {'-' if number < 0 else '+'} {abs(number)}")
        return self.aliases[value]

    def anchor(self, symbol: str) -> tuple[str, int]:
        """A label of the text, and how far behind it ``symbol`` is."""
        if symbol in self.unit.labels:
            section, offset = self.unit.labels[symbol]
            if section == "text":
                return self.mark_of[symbol], 0
            return "Lrodata", self.offsets[section] + offset
        if symbol in self.externs:
            return "Lunit", self.externs[symbol] - self.base
        if symbol == "__image_end":
            return "Lrodata", self.data_size
        section, _, side = symbol[2:].rpartition("_")
        if section == "text":
            return ("Lunit" if side == "start" else "Lend"), 0
        return "Lrodata", self.offsets[section] + (self.unit.sizes[section] if side == "end" else 0)

    def whole(self, statements: Sequence[str]) -> str:
        """The unit's text, with the table of addresses at its end."""
        lines = ["Lunit:"]
        for mark, statement in zip(self.marks, statements, strict=True):
            lines.append(f"{mark}:")
            lines.append(statement)
        lines += ["Lend:", ".p2align 12, 0xcc", f".zero {PAGE_SIZE}", "Lrodata:", *self.definitions, ".p2align 3"]
        lines += [f".quad {mark}" for mark in self.marks]
        return "\n".join([*lines, ".quad Lend", ""])

    # ---- bytes back

    def image(self) -> Image:
        """The finished image."""
        statements = [self.plain(item) for item in self.unit.text]
        data, table = self.assembled(statements)
        end = table[-1]
        code = bytearray(data[: end - self.base])
        rodata = page_up(end) + PAGE_SIZE
        self.resolve(table, rodata)
        self.verify(code, table)
        lines: dict[int, tuple[str, int]] = {}
        data_in_text: list[tuple[int, int]] = []
        self.complete_text(code, table, lines, data_in_text)
        block = self.data_block(rodata, lines)
        split = self.offsets["data"]
        text = bytes(code).ljust(rodata - self.base, INT3)
        sections = (Section("text", self.base, text, "r-x"), Section("rodata", rodata, bytes(block[:split]), "r--"),
                    Section("data", rodata + split, bytes(block[split:]), "rw-"))
        symbols = {name: self.addresses[name] for name in self.unit.labels if not name.startswith(".L")}
        places = {name: str(place) for name, place in self.unit.places.items() if not name.startswith(".L")}
        return Image(
            base=self.base, sections=tuple(section for section in sections if section.data),
            symbols=dict(sorted(symbols.items(), key=lambda item: item[1])), constants=dict(self.unit.constants),
            lines=dict(sorted(lines.items())), files=dict(self.unit.files), origins=places, text_end=end,
            data_in_text=tuple(data_in_text))

    def assembled(self, statements: Sequence[str]) -> tuple[bytes, list[int]]:
        """The assembler's bytes, and the address of every statement and of the end."""
        try:
            data = self.backend.assemble(self.whole(statements), self.base)
        except Rejected as error:
            raise self.blame(statements, error) from None
        tail = 8 * (len(self.marks) + 1)
        table = [int.from_bytes(data[at : at + 8], "little") for at in range(len(data) - tail, len(data), 8)]
        if len(data) < tail or any(not self.base <= at <= self.base + len(data) for at in table):
            raise self.blame(statements, Rejected("the assembler lost its place"))
        return data, table

    def blame(self, statements: Sequence[str], error: Rejected) -> AssemblyError:
        """The error with its line: the first statement that turns a good unit into a rejected one."""
        if error.line is not None:
            at = (error.line - 2) // 2
            if 0 <= at < len(self.unit.text) and isinstance(item := self.unit.text[at], Code):
                return item.error(error.reason)
        harmless = ["nop" if isinstance(item, Code) else statement
                    for item, statement in zip(self.unit.text, statements, strict=True)]
        good, bad, reason = 0, len(statements), error.reason
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                self.backend.assemble(self.whole([*statements[:middle], *harmless[middle:]]), self.base)
                good = middle
            except Rejected as found:
                bad, reason = middle, found.reason
        item = self.unit.text[bad - 1]
        if isinstance(item, Label | Mode):
            return AssemblyError(next(iter(self.unit.files), "?"), 1, reason)
        return item.error(reason) if isinstance(item, Code) else item.line.error(reason)

    def resolve(self, table: Sequence[int], rodata: int) -> None:
        """Find the address of every label, extern and section symbol that occurs."""
        at = dict(zip(self.marks, table, strict=False))
        at.update({"Lunit": self.base, "Lend": table[-1], "Lrodata": rodata})
        for name in (*self.unit.labels, *self.unit.used):
            if name not in self.unit.constants and name not in self.addresses:
                label, offset = self.anchor(name)
                self.addresses[name] = at[label] + offset

    def value(self, value: Linear) -> int:
        """A number, now that every address is known."""
        return value.resolve(self.addresses.__getitem__)

    def verify(self, code: bytearray, table: Sequence[int]) -> None:
        """Compare every instruction with its source; prefixes take their order here."""
        engines = {bits: Disassembler(bits) for bits in (32, 64)}
        for item, address, after in zip(self.unit.text, table, table[1:], strict=False):
            if not isinstance(item, Code):
                continue
            at, size = address - self.base, after - address
            if item.instruction.prefixes:
                code[at : at + size] = ordered_prefixes(bytes(code[at : at + size]))
            engine = engines[item.bits]
            decoded = engine.decode(bytes(code[at : at + MAX_INSTRUCTION]), address)
            reason = difference(item.instruction, decoded, address, size, self.value)
            if reason:
                shown = engine.disassemble(bytes(code[at : at + max(size, 1)]), address).text
                raise item.error(f"this would be assembled as {shown!r}, which differs ({reason})")

    def complete_text(self, code: bytearray, table: Sequence[int], lines: dict[int, tuple[str, int]],
                      data_in_text: list[tuple[int, int]]) -> None:
        """Put data and padding into the text, and note the line of each statement."""
        for item, address, after in zip(self.unit.text, table, table[1:], strict=False):
            at, end = address - self.base, after - self.base
            if isinstance(item, Blob):
                code[at:end] = item.data
                self.fix(code, at, item.fixups)
                data_in_text.append((address, after))
            elif isinstance(item, Align):
                code[at:end] = padding(end - at, item.fill)
                if item.fill is not None and end > at:
                    data_in_text.append((address, after))
            if not isinstance(item, Label | Mode) and after > address:
                lines[address] = (item.line.file, item.line.number)

    def data_block(self, rodata: int, lines: dict[int, tuple[str, int]]) -> bytearray:
        """The bytes of .rodata, .data and .bss, from ``rodata`` on."""
        block = bytearray(self.data_size)
        for name, blobs in self.unit.blobs.items():
            for blob in blobs:
                at = self.offsets[name] + blob.start
                block[at : at + len(blob.data)] = blob.data
                self.fix(block, at, blob.fixups)
                if blob.data:
                    lines[rodata + at] = (blob.line.file, blob.line.number)
        return block

    def fix(self, data: bytearray, at: int, fixups: Sequence[Fixup]) -> None:
        """Put the values of expressions with labels into data."""
        for fixup in fixups:
            value, bits = self.value(fixup.value), 8 * fixup.width
            if bits < 64 and not -(1 << (bits - 1)) <= value < 1 << bits:
                raise fixup.line.error(f"{value & U64:#x} does not fit in {bits} bits")
            data[at + fixup.offset : at + fixup.offset + fixup.width] = (
                value & ((1 << bits) - 1)).to_bytes(fixup.width, "little")


def padding(count: int, fill: int | None) -> bytes:
    """``count`` bytes of one value, or of no-operations when no value is asked for."""
    if fill is not None:
        return bytes([fill]) * count
    longest = len(_NOPS) - 1
    return _NOPS[longest] * (count // longest) + _NOPS[count % longest]


_FIXED = {("sysretq",): "480f07", ("endbr64",): "f30f1efa", ("movsd",): "a5", ("rep", "movsd"): "f3a5"}
_LAST_PREFIXES = b"\xf0\xf2\xf3"
_PREFIX_BYTES = b"\x64\x65\x66\x67" + _LAST_PREFIXES


def fixed_encoding(instruction: Instruction) -> bytes | None:
    """The bytes of the few forms that Keystone does not know, or gets wrong (``push 0xffff``); None for others."""
    if not instruction.operands:
        known = _FIXED.get((*instruction.prefixes, instruction.mnemonic))
        return bytes.fromhex(known) if known else None
    operand = instruction.operands[0]
    if instruction.mnemonic == "push" and isinstance(operand, ImmediateOperand) and operand.value.constant:
        value = operand.value.value
        short = -128 <= value < 128
        return (b"\x6a" if short else b"\x68") + value.to_bytes(1 if short else 4, "little", signed=True)
    return None


def ordered_prefixes(code: bytes) -> bytes:
    """``code`` with LOCK and REP behind the other legacy prefixes, as GNU as has them; the order means nothing."""
    count = 0
    while count < len(code) and code[count] in _PREFIX_BYTES:
        count += 1
    return bytes(sorted(code[:count], key=lambda byte: byte in _LAST_PREFIXES)) + code[count:]
