"""The alphabet of DWARF: its numbers (DWARF 4, section 7) and the ways in which it writes them."""

from __future__ import annotations

from enum import IntEnum

VERSION = 4


class Tag(IntEnum):
    """What an entry describes (7.5.4)."""

    ARRAY_TYPE = 0x01
    ENUMERATION_TYPE = 0x04
    FORMAL_PARAMETER = 0x05
    MEMBER = 0x0D
    POINTER_TYPE = 0x0F
    COMPILE_UNIT = 0x11
    STRUCTURE_TYPE = 0x13
    UNSPECIFIED_PARAMETERS = 0x18
    SUBRANGE_TYPE = 0x21
    BASE_TYPE = 0x24
    CONSTANT = 0x27
    ENUMERATOR = 0x28
    SUBPROGRAM = 0x2E
    VARIABLE = 0x34


class At(IntEnum):
    """An attribute of an entry (7.5.4)."""

    LOCATION = 0x02
    NAME = 0x03
    BYTE_SIZE = 0x0B
    STMT_LIST = 0x10
    LOW_PC = 0x11
    HIGH_PC = 0x12
    LANGUAGE = 0x13
    COMP_DIR = 0x1B
    CONST_VALUE = 0x1C
    LOWER_BOUND = 0x22
    PRODUCER = 0x25
    PROTOTYPED = 0x27
    UPPER_BOUND = 0x2F
    DATA_MEMBER_LOCATION = 0x38
    DECL_FILE = 0x3A
    DECL_LINE = 0x3B
    ENCODING = 0x3E
    EXTERNAL = 0x3F
    FRAME_BASE = 0x40
    TYPE = 0x49
    NORETURN = 0x87


class Form(IntEnum):
    """How an attribute's value is written (7.5.4)."""

    ADDR = 0x01
    DATA2 = 0x05
    DATA8 = 0x07
    STRING = 0x08
    UDATA = 0x0F
    REF_ADDR = 0x10
    SEC_OFFSET = 0x17
    EXPRLOC = 0x18
    FLAG_PRESENT = 0x19


class Encoding(IntEnum):
    """Of a base type (7.8)."""

    BOOLEAN = 0x02
    SIGNED = 0x05
    UNSIGNED = 0x07
    UNSIGNED_CHAR = 0x08


LANGUAGE_ASSEMBLER = 0x8001                               # DW_LANG_Mips_Assembler, which all assemblers use
OP_ADDR = 0x03                                            # location expressions (7.7.1)
OP_REG0 = 0x50                                            # a register, by its number from here on
OP_FBREG = 0x91                                           # at an offset from the frame base
OP_CALL_FRAME_CFA = 0x9C

REGISTERS = {
    "rax": 0, "rdx": 1, "rcx": 2, "rbx": 3, "rsi": 4, "rdi": 5, "rbp": 6, "rsp": 7, "r8": 8, "r9": 9, "r10": 10,
    "r11": 11, "r12": 12, "r13": 13, "r14": 14, "r15": 15, "rip": 16, "rflags": 49,
}  # fmt: skip
"""DWARF's numbers for registers (System V ABI for AMD64, figure 3.36); 16 is the return address."""


def uleb(value: int) -> bytes:
    """An unsigned number in 7-bit groups, the lowest first (7.6)."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def sleb(value: int) -> bytes:
    """A signed number in 7-bit groups, the lowest first (7.6)."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        done = value == -(low >> 6)
        out.append(low if done else low | 0x80)
        if done:
            return bytes(out)


def text(value: str) -> bytes:
    """A string with a NUL behind it."""
    return value.encode() + b"\0"


def unit(body: bytes, size: int = 4) -> bytes:
    """A contribution to a section: its length, then itself."""
    return len(body).to_bytes(size, "little") + body
