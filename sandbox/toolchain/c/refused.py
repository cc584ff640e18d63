"""What code in a linked module may not be: floating point and vectors, what reads the host, and data below RSP.

The kernel saves general registers only when it is interrupted, and every run must be the same. Compilers keep to that
with ``-mgeneral-regs-only``; prebuilt objects and inline assembly are looked at here, instruction by instruction (Intel
SDM volume 1, chapters 8 to 15). An instruction is judged by the registers that it uses: ``popcnt``, ``crc32``,
``movnti``, fences and prefetches came with SSE, but use none of its registers.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from ..disassembler import Disassembler, Outline
from ..lint import OF_THE_HOST
from .red_zone import WHY as RED_ZONE
from .red_zone import red_zone

SHOWN = 10
"""How many lines of code are named."""

_NO_REGISTERS = "the kernel saves no floating point registers; compile with -mgeneral-regs-only, or use integers"
_NEWER = "is newer than the guest's processor: compile with -march=x86-64 -mgeneral-regs-only"

# Register files by the names of their registers, as they stand in operands; the widest decides.
_FILES = (("AVX-512", re.compile(r"\bzmm\d|\bk[0-7]\b|\{")), ("AMX", re.compile(r"\btmm\d")),
          ("AVX", re.compile(r"\bymm\d")), ("SSE", re.compile(r"\bxmm\d")),
          ("MMX", re.compile(r"\bmm[0-7]\b")), ("x87", re.compile(r"\bst\b")))
_ANY_FILE = re.compile(r"mm\d|\bk[0-7]\b|\bst\b|\{")

# Instructions of those files that need not name a register.
_UNNAMED = re.compile(r"(?P<AMX>ldtilecfg|sttilecfg|tilerelease)"
                      r"|(?P<AVX>vzeroupper|vzeroall|v(?:ld|st)mxcsr|vcvtt?s[sdh]2u?si)"
                      r"|(?P<SSE>(?:ld|st)mxcsr|fxsave(?:64)?|fxrstor(?:64)?|xsave\w*|xrstor\w*|cvtt?s[sd]2si)"
                      r"|(?P<MMX>f?emms)|(?P<x87>wait|f\w+)")
_SUSPECTS = ("f", "v", "ldmx", "stmx", "xs", "xr", "cvt", "emms", "wait", "ldt", "stt", "tile", "rd")

_VEX_OR_EVEX = (0x62, 0xC4, 0xC5)           # in 64-bit code nothing else (SDM volume 2, 2.3 and 2.7)

_FLOAT = "[hbsdxtk]f"
_HELPER = re.compile(rf"__(?:(?:add|sub|mul|div){_FLOAT}3|(?:mul|div)[hsdxtk]c3|(?:neg|powi){_FLOAT}2"
                     rf"|(?:cmp|unord|eq|ne|ge|gt|le|lt){_FLOAT}2|(?:extend|trunc){_FLOAT}{_FLOAT}2"
                     rf"|fix(?:uns)?{_FLOAT}[sdt]i|float(?:un)?[sdt]i{_FLOAT}|gnu_[hfd]2[hfd]_ieee|(?:bid|dpd)_\w+)")


def floating_point_helper(name: str) -> bool:
    """Whether a function is one by which compilers do floating point without its instructions: libgcc's and
    compiler-rt's ``__adddf3``, ``__floatsidf`` and their kin (GCC internals, "Soft float library routines")."""
    return _HELPER.fullmatch(name) is not None


def refused(text: bytes, base: int, functions: Sequence[tuple[str, int, int]],
            line_of: Callable[[int], str]) -> list[str]:
    """A sentence for each source line with an instruction that a module may not have, by address, the first
    :data:`SHOWN` of them, and one for the rest.

    ``text`` lies at ``base``; ``functions`` are name, start and end (exclusive), ascending; ``line_of`` names the place
    of an address in the source.
    """
    lines: dict[str, str] = {}
    for found, why in _judged(text, base, functions):
        place = line_of(found.address)
        if place not in lines:
            written = f"{found.mnemonic} {found.operands}".rstrip()
            lines[place] = f"{place}: {written!r}{_inside(functions, found.address)} {why}"
    shown = list(lines.values())
    return shown if len(shown) <= SHOWN else [*shown[:SHOWN], f"... and {len(shown) - SHOWN} more"]


def _judged(text: bytes, base: int, functions: Sequence[tuple[str, int, int]]) -> Iterator[tuple[Outline, str]]:
    """The instructions that are refused, and why.

    Decoding begins anew where a function begins or ends, so that padding and data between two cannot hide the beginning
    of the second. What belongs to no function is code as far as it decodes: objects of assemblers know no functions.
    """
    decoder, end = Disassembler(), base + len(text)
    edges = {edge for _, start, behind in functions for edge in (start, behind) if base < edge < end}
    for start, behind in pairwise((base, *sorted(edges), end)):
        at, function = start, bool(_inside(functions, start))
        steps = list(decoder.sweep(text[start - base : behind - base], start))
        if function and (found := red_zone(steps)) is not None:
            yield found, RED_ZONE
        for found in steps:
            if found.address != at:
                if not function:
                    break
                yield from _newer(text, base, at)
            at = found.address + found.size
            if (_ANY_FILE.search(found.operands) or found.mnemonic.startswith(_SUSPECTS)) and (why := _why(found)):
                yield found, why
        if at != behind and function:
            yield from _newer(text, base, at)


def _newer(text: bytes, base: int, address: int) -> Iterator[tuple[Outline, str]]:
    """An instruction that is newer than the disassembler, and so than the emulator, told by its prefix: as bytes."""
    data = text[address - base : address - base + 6]
    if data[0] in _VEX_OR_EVEX:
        yield Outline(address, 1, ".byte", ", ".join(map(hex, data))), _NEWER


def _why(found: Outline) -> str:
    name = found.mnemonic.split()[-1]
    if name in OF_THE_HOST:
        return f"is refused: {OF_THE_HOST[name]}"
    kind = next((kind for kind, registers in _FILES if registers.search(found.operands)), "")
    if kind == "SSE" and name.startswith("v"):
        kind = "AVX"
    if not kind and (unnamed := _UNNAMED.fullmatch(name)):
        kind = str(unnamed.lastgroup)
    return f"is {kind} code: {_NO_REGISTERS}" if kind else ""


def _inside(functions: Sequence[tuple[str, int, int]], address: int) -> str:
    at = bisect_right(functions, address, key=lambda function: function[1]) - 1
    return f" in {functions[at][0]}()" if at >= 0 and address < functions[at][2] else ""
