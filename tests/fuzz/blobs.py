"""Random guest code of four kinds, the same for the same seed on every host.

``raw``         random bytes
``stream``      random bytes, kept where a decoder sees an instruction
``mutant``      a function of the kernel with some bytes changed
``privileged``  what a ring-0 attacker writes on purpose: control registers, MSRs, descriptor tables, page tables,
                ports, interrupts, odd returns, with random operands
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sandbox.toolchain.disassembler import Disassembler

KINDS = ("raw", "stream", "mutant", "privileged")
INTERESTING = (
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x1000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000,
    (1 << 47) - 8, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_8000_0000,
    0x8005_0033, 0x8000_0011, 0x20, 0xD00, 0x0007_FFFF, 0xDEAD_BEEF_DEAD_BEEF)  # fmt: skip
MSRS = (0x10, 0x1B, 0x8B, 0xC1, 0x174, 0x175, 0x176, 0x179, 0x17A, 0x186, 0x198, 0x1A0, 0x1D9, 0x200, 0x20F, 0x250,
        0x277, 0x2FF, 0x38F, 0x3A, 0x480, 0x6E0, 0x800, 0x802, 0x808, 0x80B, 0x830, 0xC000_0080, 0xC000_0081,
        0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103, 0xC001_0117,
        0x0, 0xFFFF_FFFF, 0x4000_0000, 0xD90, 0xDA0)  # fmt: skip
PORTS = (0x20, 0x21, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0xA0, 0xA1, 0xCF8, 0xCFC, 0x3F8, 0x3F9,
         0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF, 0xF4, 0xF7, 0, 0xFFFF, 0xFFFE, 0xFFFD)  # fmt: skip


class Place(NamedTuple):
    """Where a blob is going to run: addresses worth attacking. ``code`` is where it begins."""

    code: int
    data: int
    tables: Sequence[int]  # virtual addresses of page tables
    descriptors: Sequence[int]  # of GDT, IDT, TSS
    functions: Sequence[bytes]  # code of the kernel, to be mutated


def make(kind: str, seed: int, place: Place) -> bytes:
    """The blob of a kind with a seed."""
    chosen = random.Random(f"{kind} {seed}")
    return _MAKERS[kind](chosen, place)


def value(chosen: random.Random, place: Place) -> int:
    """A 64-bit number that something might trip over."""
    kind = chosen.randrange(6)
    if kind == 0:
        return chosen.choice(INTERESTING)
    if kind == 1:
        return chosen.getrandbits(64)
    if kind == 2:
        return 1 << chosen.randrange(64)
    if kind == 3:
        return (place.data + chosen.randrange(-64, 8192)) % (1 << 64)
    if kind == 4:
        return (place.code + chosen.randrange(-64, 512)) % (1 << 64)
    return (chosen.choice([*place.tables, *place.descriptors]) + 8 * chosen.randrange(512)) % (1 << 64)


def _raw(chosen: random.Random, place: Place) -> bytes:
    return chosen.randbytes(chosen.choice((16, 64, 256, 1024)))


def _stream(chosen: random.Random, place: Place) -> bytes:
    decode, code, wanted = Disassembler(), b"", chosen.choice((32, 128, 512))
    while len(code) < wanted:
        text = chosen.randbytes(15)
        if chosen.random() < 0.4:
            text = chosen.choice((b"\x0f", b"\x66\x0f", b"\xf2\x0f", b"\xf3\x0f", b"\x48", b"\xf3", b"\x0f\x38",
                                  b"\x0f\x3a", b"\xc5", b"\xc4", b"\xf0", b"\x67", b"\x65", b"\x0f\x01", b"\x0f\xae",
                                  b"\x0f\xc7", b"\xdb", b"\xdf")) + text  # fmt: skip
        found = decode.disassemble(text[:15], 0)
        if found.mnemonic != ".byte":
            code += found.bytes
    return code


def _mutant(chosen: random.Random, place: Place) -> bytes:
    code = bytearray(chosen.choice(place.functions)[:1024])
    for _ in range(chosen.choice((1, 2, 4, 8, 32))):
        at = chosen.randrange(len(code))
        code[at] = chosen.choice((chosen.randrange(256), code[at] ^ 1 << chosen.randrange(8)))
    return bytes(code)


def _load(register: int, number: int) -> bytes:
    """``mov r64, imm64``."""
    return bytes((0x48 | register >> 3, 0xB8 | register & 7)) + struct.pack("<Q", number % (1 << 64))


RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)


def _privileged(chosen: random.Random, place: Place) -> bytes:
    code = b""
    for _ in range(chosen.randrange(1, 24)):
        code += chosen.choice(_ATTACKS)(chosen, lambda: value(chosen, place), place)
    return code + chosen.choice((b"\xeb\xfe", b"\xf4", b"\xc3", b"\xcc", b"\x0f\x0b", b"\xe9" + struct.pack(
        "<i", -len(code) - 5)))


Value = Callable[[], int]


def _control(chosen: random.Random, number: Value, place: Place) -> bytes:
    index = chosen.choice((0, 0, 2, 3, 3, 4, 4, 8, 1, 5, 15))
    flip = 1 << chosen.randrange(32)
    rex = 0x44 if index >= 8 else 0x40
    modrm = 0xC0 | (index & 7) << 3
    read = bytes((rex, 0x0F, 0x20, modrm))
    write = bytes((rex, 0x0F, 0x22, modrm))
    if chosen.random() < 0.5:
        return read + b"\x48\xb9" + struct.pack("<Q", flip) + b"\x48\x31\xc8" + write
    return _load(RAX, number()) + write


def _debug(chosen: random.Random, number: Value, place: Place) -> bytes:
    return _load(RAX, number()) + bytes((0x0F, chosen.choice((0x21, 0x23)), 0xC0 | chosen.randrange(8) << 3))


def _msr(chosen: random.Random, number: Value, place: Place) -> bytes:
    index = chosen.choice(MSRS) if chosen.random() < 0.8 else number()
    value = number()
    return (_load(RCX, index) + _load(RAX, value) + _load(RDX, value >> 32)
            + chosen.choice((b"\x0f\x30", b"\x0f\x30", b"\x0f\x32")))  # fmt: skip


def _table(chosen: random.Random, number: Value, place: Place) -> bytes:
    """lgdt, lidt, lldt, ltr, lmsw, sgdt... of a pseudo-descriptor that lies in the code itself."""
    descriptor = struct.pack("<HQ", chosen.choice((0, 7, 0xF, 0x37, 0xFFF, 0xFFFF)), number())
    jump = bytes((0xEB, len(descriptor)))
    back = struct.pack("<i", -len(descriptor) - 7)
    if chosen.random() < 0.6:
        return jump + descriptor + b"\x0f\x01" + chosen.choice((b"\x15", b"\x1d")) + back
    operation = chosen.choice((b"\x0f\x00\xd0", b"\x0f\x00\xd8", b"\x0f\x01\xf0", b"\x8e\xd0", b"\x8e\xd8", b"\x8e\xe0",
                               b"\x8e\xe8", b"\x0f\x00\xe0", b"\x0f\x00\xe8", b"\x0f\x02\xc0", b"\x0f\x03\xc0"))
    return _load(RAX, chosen.choice((0, 8, 0x10, 0x18, 0x1B, 0x20, 0x23, 0x28, 0x2B, 0x30, 7, 0xFFF8, 0xFFFC,
                                     number() & 0xFFFF))) + operation  # fmt: skip


def _store(chosen: random.Random, number: Value, place: Place) -> bytes:
    """Garbage into a page table or a descriptor table."""
    target = chosen.choice([*place.tables, *place.tables, *place.descriptors]) + 8 * chosen.choice(
        (0, 1, 2, 3, 256, 273, 402, 511, chosen.randrange(512)))
    entry = chosen.choice((number(), number() & ~0xFFF | 7, chosen.choice(place.tables) & 0xFFFFF000 | 0x83, 0,
                           place.tables[0] & 0x7FFF_F000 | 3))  # fmt: skip
    code = _load(RBX, target) + _load(RAX, entry) + b"\x48\x89\x03"
    return code + chosen.choice((b"", b"\x0f\x01\x3b", b"\x0f\x20\xd9\x0f\x22\xd9"))


def _flood_tables(chosen: random.Random, number: Value, place: Place) -> bytes:
    """rep stosq over a table."""
    return (_load(RDI, chosen.choice([*place.tables, *place.descriptors])) + _load(RAX, number())
            + _load(RCX, chosen.choice((1, 16, 512, 4096, 1 << 32))) + b"\xf3\x48\xab")  # fmt: skip


def _port(chosen: random.Random, number: Value, place: Place) -> bytes:
    port = chosen.choice(PORTS)
    if port == 0xF4 and chosen.random() < 0.9:
        port = 0x3F8
    operation = chosen.choice((b"\xee", b"\xef", b"\x66\xef", b"\xec", b"\xed", b"\x66\xed", b"\x6e", b"\x6c", b"\x6f",
                               b"\xf3\x6e", b"\xf3\x6c", b"\xf3\x6f", b"\xf3\x6d"))  # fmt: skip
    return (_load(RDX, port) + _load(RAX, number()) + _load(RSI, number()) + _load(RDI, number())
            + _load(RCX, chosen.choice((0, 1, 5, 1000, 1 << 40))) + operation)  # fmt: skip


def _interrupt(chosen: random.Random, number: Value, place: Place) -> bytes:
    return chosen.choice((bytes((0xCD, chosen.randrange(256))), b"\xcc", b"\x0f\x0b", b"\xf1", b"\xfb", b"\xfa",
                          b"\xfb\xf4", b"\x9d", b"\x48\xcf", b"\xcf", b"\x66\xcf", b"\x48\xcb", b"\xcb", b"\x0f\x05",
        b"\x0f\x34",
                          b"\x48\x0f\x07", b"\x0f\x07", b"\x0f\x35", b"\x48\x0f\x35", b"\xf4"))  # fmt: skip


def _frame(chosen: random.Random, number: Value, place: Place) -> bytes:
    """A return with a random frame."""
    selectors = (0, 8, 0x10, 0x18, 0x1B, 0x20, 0x23, 0x28, 0x30, 0x33, 7)
    flags = chosen.choice((2, 0x202, 0x302, 0x4202, 0x3202, 0x20202, number()))
    code = b""
    for item in (chosen.choice(selectors), number(), flags, chosen.choice(selectors), number()):
        code += _load(RAX, item) + b"\x50"
    return code + chosen.choice((b"\x48\xcf", b"\xcf", b"\x66\xcf", b"\x48\xcb", b"\xcb", b"\x9d", b"\xca\x08\x00"))


def _system(chosen: random.Random, number: Value, place: Place) -> bytes:
    """The rest of the system instructions, with random registers."""
    operation = chosen.choice((
        b"\x0f\x01\xf8", b"\x0f\x01\x3b", b"\x0f\x08", b"\x0f\x09", b"\x0f\x06", b"\x0f\x01\xd0", b"\x0f\x01\xd1",
        b"\x0f\xa2", b"\x0f\x01\xc1", b"\x0f\x01\xc8", b"\x0f\x01\xc9", b"\x0f\x01\xca", b"\x0f\x01\xcb",
        b"\x0f\x01\xd8", b"\x0f\x01\xd9", b"\x0f\x01\xda", b"\x0f\x01\xdb", b"\x0f\x01\xdc", b"\x0f\x01\xdd",
        b"\x0f\x01\xde", b"\x0f\x01\xdf", b"\x0f\xae\x0b", b"\x0f\xae\x03", b"\x0f\xae\x23", b"\x0f\xae\x2b",
        b"\x0f\xae\x33", b"\x0f\xc7\x23", b"\x0f\xc7\x2b", b"\x0f\xc7\x1b", b"\x0f\xc7\x33", b"\xf3\x0f\xc7\x33",
        b"\x66\x0f\xc7\x33", b"\x0f\xc7\x0b", b"\x48\x0f\xc7\x0b", b"\xf0\x0f\xc7\xc8", b"\x0f\xaa", b"\x0f\x33",
        b"\xf3\x0f\xae\xc0", b"\xf3\x0f\xae\xd0", b"\xf3\x48\x0f\xae\xd8", b"\xf3\x90", b"\x0f\x01\xee",
        b"\x0f\x01\xef", b"\x66\x0f\x38\x82\x03", b"\x66\x0f\x38\x80\x03", b"\x66\x0f\x38\x81\x03", b"\xf3\x0f\xb8\xc3",
        b"\xc8\x10\x00\x1f", b"\xc8\xff\xff\x1f", b"\xc9", b"\xd7", b"\x0f\x0d\x0b", b"\x0f\x0e", b"\x0f\x77",
        b"\x9b", b"\xdb\xe3",
        b"\xdd\x23", b"\xdd\x33", b"\xd9\x23", b"\xd9\x33", b"\x0f\x24\xc0", b"\x0f\x26\xc0", b"\x0f\xff",
        b"\x0f\xb9", b"\x0f\x31",
        b"\x0f\x01\xf9", b"\x0f\x18\x03", b"\x66\x0f\xae\x3b", b"\x0f\x01\xfc", b"\x0f\x01\xc0", b"\x0f\x3f\x00\x00"))
    return _load(RAX, number()) + _load(RBX, number()) + _load(RCX, chosen.choice((0, 1, number()))) + _load(
        RDX, number()) + operation


def _move(chosen: random.Random, number: Value, place: Place) -> bytes:
    """A string operation with everything random, or a stack somewhere else."""
    if chosen.random() < 0.3:
        return _load(RSP, number())
    direction = chosen.choice((b"\xfc", b"\xfd"))
    operation = chosen.choice((b"\xf3\xa4", b"\xf3\xaa", b"\xf3\x48\xa5", b"\xf3\x48\xab", b"\xf2\xae", b"\xf3\xa6",
                               b"\xf3\xac", b"\x67\xf3\xa4", b"\x67\xf3\xaa", b"\x65\xf3\xa4"))  # fmt: skip
    return (direction + _load(RSI, number()) + _load(RDI, number()) + _load(RAX, number())
            + _load(RCX, chosen.choice((0, 3, 4096, 1 << 20, (1 << 64) - 1))) + operation)  # fmt: skip


def _jump(chosen: random.Random, number: Value, place: Place) -> bytes:
    return _load(RAX, number()) + chosen.choice((b"\xff\xe0", b"\xff\xd0", b"\xff\x28", b"\x48\xff\x28", b"\xff\x18",
                                                 b"\xff\x30", b"\x8f\x00", b"\x48\x89\x00", b"\xc6\x00\xf4"))


_ATTACKS = (_control, _control, _debug, _msr, _msr, _table, _table, _store, _store, _flood_tables, _port, _port,
            _interrupt, _frame, _system, _system, _move, _jump)  # fmt: skip
_MAKERS: dict[str, Callable[[random.Random, Place], bytes]] = {
    "raw": _raw, "stream": _stream, "mutant": _mutant, "privileged": _privileged}
