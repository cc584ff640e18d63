"""Code that keeps data below RSP, in the red zone of the System V ABI (AMD64 supplement, 3.2.2): user code may, but in
the kernel an interrupt writes its frame there.

::

    rbp   saved rbp
          pushed registers, sub rsp, N      as deep as the function makes its frame
    rsp
          [rsp - 8], [rbp - N - 8]          the red zone
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..disassembler import Outline

WHY = "lies in the red zone below RSP, where interrupts write: compile with -mno-red-zone"
_BELOW = re.compile(r"\[(rsp|rbp)( \+ [^\]]*)? - (0x[0-9a-f]+|\d+)\]")
_DEEPER = re.compile(r"(?:sub rsp, |add rsp, -)(0x[0-9a-f]+|\d+)")
_NO_ACCESS = ("nop", "prefetch")


def red_zone(function: Iterable[Outline]) -> Outline | None:
    """The first instruction of a function that uses memory below what it has made its frame; None when none does.

    The frame counts as deep as it is anywhere in the function. One whose depth is not a number is not judged.
    """
    found: list[tuple[Outline, re.Match[str]]] = []
    depth, framed = 0, False
    for step in function:
        if step.mnemonic == "push":
            depth += 8
        elif step.mnemonic == "mov" and step.operands == "rbp, rsp":
            depth, framed = 0, True
        elif size := _DEEPER.fullmatch(f"{step.mnemonic} {step.operands}"):
            depth += int(size[1], 0)
        elif step.operands.startswith("rsp, ") and step.mnemonic not in ("add", "cmp", "test"):
            return None                          # an array of variable length, an aligned frame, a switch of stacks
        place = _BELOW.search(step.operands)
        if place and not step.mnemonic.startswith(_NO_ACCESS):
            found.append((step, place))
    return next((step for step, place in found if _below(place, depth, framed)), None)


def _below(place: re.Match[str], depth: int, framed: bool) -> bool:
    """Whether an operand lies below the frame; with an index, which may make up for it, only where there is none."""
    register, index, distance = place[1], place[2], int(place[3], 0)
    if register == "rbp" and not framed:
        return False
    if index:
        return depth == 0
    return register == "rsp" or distance > depth
