"""Where a function of C begins to do what its source says: behind the code that makes its frame.

A compiler ends that code with the second line of the function (gdb: ``skip_prologue_using_sal``). In optimized code the
first line may hold more than it, and its variables are known from the first instruction on: nothing is skipped then.
"""

from __future__ import annotations

import re

from ..guest.symbols import Symbols
from ..toolchain.disassembler import Disassembler, Outline

_PLAIN = frozenset({"push", "nop", "endbr64"})
_MOVES = frozenset({"mov", "movzx", "movsx", "movsxd", "lea"})
_LONGEST = 256
"""Bytes that are looked at of a function on one line."""
_FRAME = re.compile(r"(?:[a-z]+ ptr )?\[r[bs]p\b")


def second_line(symbols: Symbols, start: int) -> int | None:
    """Where the second line of the function that begins at ``start`` begins; None where there is none."""
    image = symbols.image_at(start)
    if image is None:
        return None
    second = min((at for at in image.lines if start < at < symbols.end_of(start)), default=None)
    return second if second is not None and image.lines[second][1] else None


def behind_prologue(symbols: Symbols, start: int) -> int:
    """The address behind the code that makes the frame of the function of C at ``start``; ``start`` itself where
    nothing is to be skipped: in assembly, without lines, and in optimized code. Of a function on one line, that is
    where something else than registers is moved."""
    variables, image = symbols.variables(start), symbols.image_at(start)
    if variables is None or image is None or variables.function(start) is None or image.line(start) is None:
        return start
    second = second_line(symbols, start)
    end = min(start + _LONGEST, symbols.end_of(start)) if second is None else second
    other = next((found.address for found in Disassembler().outline(image, start, end)
                  if not _makes_a_frame(found, range(start, end), second is None)), None)
    behind = other if second is None else second if other is None else None
    if behind is None or variables.function(behind) != variables.function(start):
        return start
    rule = symbols.unwind.rule(behind)
    made = rule is not None and rule.cfa_register == "rbp"
    return behind if made and not any(one.follows for one in variables.at(behind)) else start


def _makes_a_frame(found: Outline, within: range, registers: bool) -> bool:
    """Whether an instruction is of those that make a frame and move arguments into it; with ``registers``, those from
    registers alone. A large frame is touched page by page, in a loop."""
    target, _, source = found.operands.partition(", ")
    if found.mnemonic in _PLAIN or (found.mnemonic in ("sub", "and") and target == "rsp"):
        return True
    if found.mnemonic in _MOVES:
        loads = "[" in source and (found.mnemonic != "lea" or registers)
        return not loads and ("[" not in target or _FRAME.match(target) is not None) and (
            not registers or source[:1].isalpha())
    if found.mnemonic in ("or", "cmp"):
        return target.endswith("[rsp]") or target == "rsp"
    return found.mnemonic == "jne" and target.startswith("0x") and int(target, 16) in within
