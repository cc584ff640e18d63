"""The safety net: what was assembled, decoded again, must be what the source line says.

Keystone turns some forms into other instructions without a word. So every instruction's bytes go through Capstone,
and mnemonic, registers, numbers, displacements and branch targets are compared with the values of the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .disassembler import Decoded, DecodedMemory
from .expression import Linear
from .operands import BRANCHES, REGISTERS, ImmediateOperand, Instruction, MemoryOperand, Operand, RegisterOperand

U64 = (1 << 64) - 1
_CONDITIONS = {"z": "e", "nz": "ne", "c": "b", "nae": "b", "nc": "ae", "nb": "ae", "na": "be", "nbe": "a",
               "nge": "l", "nl": "ge", "ng": "le", "nle": "g", "pe": "p", "po": "np"}
_SAME: Mapping[str, str] = {
    **{f"{stem}{old}": f"{stem}{new}" for stem in ("j", "set", "cmov") for old, new in _CONDITIONS.items()},
    "sal": "shl", "movabs": "mov", "movsxd": "movsx", "loopz": "loope", "loopnz": "loopne", "xlat": "xlatb",
    "fwait": "wait", "icebp": "int1",
}
"""Two names of one instruction: the other name -> Capstone's."""

_MEANT = {"iret": "iretq", "pushf": "pushfq", "popf": "popfq", "sysret": "sysretq", "retf": "retfq"}
"""What a source in 64-bit code means by a name that assemblers take for a narrower form."""

_PREFIX = {"repe": "rep", "repz": "rep", "repnz": "repne"}
_SHIFTS = frozenset({"shl", "shr", "sar", "rol", "ror", "rcl", "rcr"})
_UNORDERED = frozenset({"xchg", "test"})


def difference(source: Instruction, decoded: Decoded | None, address: int, size: int,
               resolve: Callable[[Linear], int]) -> str:
    """In what the ``size`` bytes at ``address`` differ from ``source``; empty when in nothing."""
    if decoded is None:
        return "no instruction at all"
    if decoded.size != size:
        return f"{decoded.mnemonic!r} of {decoded.size} bytes in {size}"
    meant = _MEANT.get(source.mnemonic, source.mnemonic)
    if _name(decoded.mnemonic.split()) != _name([*source.prefixes, meant]):
        return f"another instruction, {decoded.mnemonic!r}"
    wanted = _explicit(source)
    found = list(decoded.operands)
    if not wanted:
        return ""
    if source.mnemonic.startswith("f") and len(wanted) != len(found):
        wanted = [operand for operand in wanted if not (isinstance(operand, RegisterOperand)
                                                        and operand.name in ("st", "st0"))]
        found = [operand for operand in found if operand not in ("st", "st0", "st(0)")]
    if len(wanted) != len(found):
        return f"{len(found)} operands"
    width = {"ret": 2, "retfq": 2, "enter": 2}.get(source.mnemonic) or _width(wanted[0])
    pairs = list(zip(wanted, found, strict=True))
    problem = _first_problem(source, pairs, width, address + size, resolve)
    if problem and source.mnemonic in _UNORDERED and len(found) == 2:
        return _first_problem(source, list(zip(wanted, found[::-1], strict=True)), width, address + size,
                              resolve) and problem
    return problem


def _name(words: list[str]) -> tuple[str, ...]:
    *prefixes, mnemonic = words
    return (*sorted(_PREFIX.get(prefix, prefix) for prefix in prefixes), _SAME.get(mnemonic, mnemonic))


def _explicit(source: Instruction) -> list[Operand]:
    """The source's operands with those written that the syntax lets one leave out."""
    operands = list(source.operands)
    if source.mnemonic in _SHIFTS | {"sal"} and len(operands) == 1:
        operands.append(ImmediateOperand(Linear(1)))
    if source.mnemonic == "imul" and len(operands) == 2 and isinstance(operands[1], ImmediateOperand):
        operands.insert(0, operands[0])
    return operands


def _width(operand: Operand) -> int:
    """How many bytes the instruction computes with, as its first operand tells; 8 where it does not."""
    if isinstance(operand, RegisterOperand):
        return min(REGISTERS[operand.name], 8)
    return min(operand.size, 8) or 8 if isinstance(operand, MemoryOperand) else 8


def _first_problem(source: Instruction, pairs: list[tuple[Operand, str | int | DecodedMemory]], width: int,
                   end: int, resolve: Callable[[Linear], int]) -> str:
    for wanted, found in pairs:
        if isinstance(wanted, RegisterOperand):
            problem = "" if found == wanted.name or _same_register(wanted.name, found) else f"{found} for {wanted.name}"
        elif isinstance(wanted, ImmediateOperand):
            bits = 64 if source.mnemonic in BRANCHES else 8 * width
            problem = _number_problem(resolve(wanted.value), found, bits)
        else:
            problem = _memory_problem(wanted, found, end, resolve)
        if problem:
            return problem
    return ""


def _same_register(name: str, found: object) -> bool:
    return isinstance(found, str) and found.replace("(", "").replace(")", "") in (name, f"{name}0" * (name == "st"))


def _number_problem(wanted: int, found: object, bits: int) -> str:
    if not isinstance(found, int):
        return f"{found} for the number {wanted:#x}"
    if not -(1 << (bits - 1)) <= wanted < 1 << bits:
        return f"{wanted:#x} does not fit in {bits} bits"
    return "" if (wanted - found) % (1 << bits) == 0 else f"{found & U64:#x} for {wanted & U64:#x}"


def _memory_problem(wanted: MemoryOperand, found: object, end: int, resolve: Callable[[Linear], int]) -> str:
    if not isinstance(found, DecodedMemory):
        return f"{found} for a memory operand"
    if wanted.size and wanted.size != found.size:
        return f"an access of {found.size} bytes instead of {wanted.size}"
    if wanted.segment != found.segment:
        return f"the segment {found.segment or 'ds'}"
    if _roles(wanted.base, wanted.index, wanted.scale) != _roles(found.base, found.index, found.scale):
        return "other address registers"
    target = resolve(wanted.displacement)
    reached = found.displacement + (end if found.base == "rip" else 0)
    if (target - reached) & U64:
        return f"the displacement {reached & U64:#x} instead of {target & U64:#x}"
    return ""


def _roles(base: str, index: str, scale: int) -> tuple[object, ...]:
    index = "" if index in ("riz", "eiz") else index
    return ("sum", *sorted((base, index))) if scale == 1 or not index else (base, index, scale)
