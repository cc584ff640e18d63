"""What each relocation writes (System V ABI, AMD64 supplement 1.0, table 4.9).

S is the symbol's address, A the addend, P the place that is written, G the address of the symbol's entry in a table of
addresses (the GOT), Z the symbol's size.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A relocation: its name without R_X86_64_, how many bytes it writes, what, and whether that is a signed number."""

    name: str
    width: int
    value: str
    signed: bool = False


KINDS = {
    1: Kind("64", 8, "S+A"),
    2: Kind("PC32", 4, "S+A-P", True),
    4: Kind("PLT32", 4, "S+A-P", True),          # there is no procedure linkage table: everything is linked already
    9: Kind("GOTPCREL", 4, "G+A-P", True),
    10: Kind("32", 4, "S+A"),
    11: Kind("32S", 4, "S+A", True),
    12: Kind("16", 2, "S+A"),
    13: Kind("PC16", 2, "S+A-P", True),
    14: Kind("8", 1, "S+A"),
    15: Kind("PC8", 1, "S+A-P", True),
    24: Kind("PC64", 8, "S+A-P", True),
    28: Kind("GOTPCREL64", 8, "G+A-P", True),
    32: Kind("SIZE32", 4, "Z+A"),
    33: Kind("SIZE64", 8, "Z+A"),
    41: Kind("GOTPCRELX", 4, "G+A-P", True),
    42: Kind("REX_GOTPCRELX", 4, "G+A-P", True),
}
NONE = 0
THREAD_LOCAL = frozenset((16, 17, 18, 19, 20, 21, 22, 23, 34, 35, 36))
NAMES = {3: "GOT32", 5: "COPY", 6: "GLOB_DAT", 7: "JUMP_SLOT", 8: "RELATIVE", 25: "GOTOFF64", 26: "GOTPC32",
         27: "GOT64", 29: "GOTPC64", 30: "GOTPLT64", 31: "PLTOFF64", 37: "IRELATIVE", 38: "RELATIVE64"}
"""Those that only shared libraries and position-independent code of the large model have."""


def name(kind: int) -> str:
    """``R_X86_64_PC32``, or the bare number of one that nobody knows."""
    known = KINDS[kind].name if kind in KINDS else NAMES.get(kind)
    return f"R_X86_64_{known}" if known else f"of type {kind}"


def encode(kind: Kind, value: int) -> bytes | None:
    """The bytes that are written for a value, which counts modulo 2^64; None when it does not fit."""
    bits = 8 * kind.width
    value &= (1 << 64) - 1
    number = value - (value >> 63 << 64) if kind.signed else value
    if kind.width == 8:
        return value.to_bytes(8, "little")
    if kind.signed:
        fits = -(1 << bits - 1) <= number < 1 << bits - 1
    else:                                        # of the narrow ones, a negative number is one too
        fits = number < 1 << bits or (kind.width < 4 and number >= (1 << 64) - (1 << bits - 1))
    return (value & ((1 << bits) - 1)).to_bytes(kind.width, "little") if fits else None
