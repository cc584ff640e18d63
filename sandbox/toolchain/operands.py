"""Instructions as structure: mnemonic and operands, read from Intel syntax and written back in one plain form.

The plain form has no constant and no arithmetic left in it: every number is a literal, and a memory operand is
``[base + index*scale + number]`` or ``[rip + label]``. Keystone misreads many richer forms in silence
(``[rdi - K]``, ``[rdi + K*2]``, ``and rax, -K``), so it never sees one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from .expression import ExpressionError, Linear, evaluate, tokenize
from .source import split_operands

SIZES = {"byte": 1, "word": 2, "dword": 4, "fword": 6, "qword": 8, "tbyte": 10, "oword": 16, "xmmword": 16,
         "ymmword": 32}
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss")
PREFIXES = frozenset({"lock", "rep", "repe", "repz", "repne", "repnz"})
_LEGACY = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
REGISTERS: dict[str, int] = {
    **{f"r{name}": 8 for name in _LEGACY}, **{f"e{name}": 4 for name in _LEGACY}, **dict.fromkeys(_LEGACY, 2),
    **{f"{letter}{half}": 1 for letter in "abcd" for half in "lh"},
    **dict.fromkeys(("sil", "dil", "bpl", "spl"), 1),
    **{f"r{index}{suffix}": size for index in range(8, 16) for suffix, size in
       (("", 8), ("d", 4), ("w", 2), ("b", 1))},
    **dict.fromkeys(SEGMENTS, 2),
    **{f"cr{index}": 8 for index in range(16)}, **{f"dr{index}": 8 for index in range(16)},
    **{f"xmm{index}": 16 for index in range(16)}, **{f"ymm{index}": 32 for index in range(16)},
    **{f"mm{index}": 8 for index in range(8)}, **{f"k{index}": 8 for index in range(8)},
    **{f"st{index}": 10 for index in range(8)},
    "st": 10, "rip": 8, "eip": 4,
}
"""Every register name and its size in bytes."""



def words(text: str) -> frozenset[str]:
    """The set of the words of a text, for tables of names."""
    return frozenset(text.split())


_CONDITION_CODES = words("o no b c nae ae nb nc e z ne nz be na a nbe s ns p pe np po l nge ge nl le ng g nle")
BRANCHES = (words("call jmp loop loope loopne loopz loopnz jrcxz jecxz xbegin")
            | {f"j{code}" for code in _CONDITION_CODES})
"""The instructions whose plain operand is a place in the code."""

RESERVED = frozenset(REGISTERS) | frozenset(SIZES) | PREFIXES | words(
    "ptr offset short near far and or not xor shl shr mod eq ne lt le gt ge flat eiz riz mmword zmmword")
"""Names that no label or constant may have: some assembler reads them as something else."""


@dataclass(frozen=True)
class RegisterOperand:
    """A register by its lower-case name."""

    name: str


@dataclass(frozen=True)
class ImmediateOperand:
    """A number, or a label where a branch goes."""

    value: Linear


@dataclass(frozen=True)
class MemoryOperand:
    """``size ptr segment:[base + index*scale + displacement]``; a base of ``rip`` makes it relative."""

    size: int
    segment: str
    base: str
    index: str
    scale: int
    displacement: Linear

    @property
    def absolute(self) -> bool:
        """Whether it is a plain number, without registers."""
        return not self.base and not self.index and self.displacement.constant


Operand = RegisterOperand | ImmediateOperand | MemoryOperand
_NARROW = {**{name: f"e{name}" for name in _LEGACY}, **{f"r{name}": f"e{name}" for name in _LEGACY},
           **{f"r{index}{suffix}": f"r{index}d" for index in range(8, 16) for suffix in ("", "w")}}
_SIZE_PREFIX = re.compile(r"(?i)(\w+)\s+ptr\b\s*")
_SEGMENT_PREFIX = re.compile(rf"(?i)({'|'.join(SEGMENTS)})\s*:\s*")
_SIZE_NAMES = {1: "byte", 2: "word", 4: "dword", 6: "fword", 8: "qword", 10: "tbyte", 16: "xmmword", 32: "ymmword"}


@dataclass(frozen=True)
class Instruction:
    """One instruction as the source says it."""

    prefixes: tuple[str, ...]
    mnemonic: str
    operands: tuple[Operand, ...]

    @classmethod
    def parse(cls, text: str, lookup: Callable[[str], Linear]) -> Instruction:
        """Read a statement that is no directive; :class:`ExpressionError` says what is wrong with it."""
        prefixes: list[str] = []
        while True:
            word, _, rest = text.replace("\t", " ").partition(" ")
            if word.lower() not in PREFIXES:
                break
            prefixes.append(word.lower())
            text = rest.strip()
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", word):
            raise ExpressionError(f"{word!r} is no instruction" if word else "a prefix without an instruction")
        operands = tuple(parse_operand(operand, lookup) for operand in split_operands(rest.strip()))
        return cls(tuple(prefixes), word.lower(), operands)

    def render(self, symbol: Callable[[Linear], str], needs_index: bool = False) -> str:
        """The plain form; ``symbol`` names the assembler's symbol for a value that holds a label.

        ``needs_index`` is the assembler's, see :class:`sandbox.toolchain.backend.Backend`.
        """
        head = " ".join((*self.prefixes, self.mnemonic))
        needs_index = needs_index and self.mnemonic != "movabs"
        shown = (render_operand(operand, symbol, needs_index) for operand in self.operands)
        return f"{head} {', '.join(shown)}".rstrip()

    def mapped(self, change: Callable[[Linear], Linear]) -> Instruction:
        """The same with ``change`` applied to every number and displacement."""
        operands = tuple(
            operand if isinstance(operand, RegisterOperand)
            else ImmediateOperand(change(operand.value)) if isinstance(operand, ImmediateOperand)
            else replace(operand, displacement=change(operand.displacement)) for operand in self.operands)
        return replace(self, operands=operands)

    def symbols(self) -> list[str]:
        """The labels that the operands mention."""
        values = [operand.displacement if isinstance(operand, MemoryOperand) else operand.value
                  for operand in self.operands if not isinstance(operand, RegisterOperand)]
        return [name for value in values for name, _ in value.terms]

    def narrowed(self) -> Instruction:
        """Moves from and to a segment register as 32-bit ones: GNU as drops the needless prefixes, Keystone not."""
        if self.mnemonic != "mov" or len(self.operands) != 2:
            return self
        names = [operand.name if isinstance(operand, RegisterOperand) else "" for operand in self.operands]
        if names[0] in SEGMENTS and names[1] in _NARROW:
            return Instruction(self.prefixes, "mov", (self.operands[0], RegisterOperand(_NARROW[names[1]])))
        if names[1] in SEGMENTS and REGISTERS.get(names[0]) == 8 and names[0] in _NARROW:
            return Instruction(self.prefixes, "mov", (RegisterOperand(_NARROW[names[0]]), self.operands[1]))
        return self


def parse_operand(text: str, lookup: Callable[[str], Linear]) -> Operand:
    """A register, an immediate or a memory operand."""
    lowered = text.lower()
    if lowered in REGISTERS:
        return RegisterOperand(lowered)
    if found := re.fullmatch(r"st\s*\(\s*([0-7])\s*\)", lowered):
        return RegisterOperand(f"st{found.group(1)}")
    if not text:
        raise ExpressionError("an operand is missing between commas")
    size, segment = 0, ""
    if found := _SIZE_PREFIX.match(text):
        name = found.group(1).lower()
        if name not in SIZES:
            raise ExpressionError(f"{name!r} is no operand size (byte, word, dword, qword, xmmword)")
        size, text = SIZES[name], text[found.end():]
    if found := _SEGMENT_PREFIX.match(text):
        segment, text = found.group(1).lower(), text[found.end():]
    if text.startswith("["):
        if not text.endswith("]") or "[" in text[1:] or "]" in text[:-1]:
            raise ExpressionError("a memory operand is written as one [ ... ] with everything inside")
        return _memory(size, segment, text[1:-1], lookup)
    if "[" in text:
        raise ExpressionError("a memory operand is written as one [ ... ] with everything inside")
    if size or segment:
        raise ExpressionError("a memory operand needs its [ ] brackets")
    for kind, token in tokenize(text):
        if kind == "name" and token.lower() in RESERVED:
            raise ExpressionError(_reserved_reason(token.lower()))
    return ImmediateOperand(evaluate(text, lookup))


def _reserved_reason(word: str) -> str:
    if word == "offset":
        return "'offset' is not understood: write lea register, [rip + label]"
    if word in ("short", "near"):
        return f"'{word}' is not needed: the assembler takes the shortest branch"
    return f"{word!r} cannot stand in an expression"


def _memory(size: int, segment: str, body: str, lookup: Callable[[str], Linear]) -> MemoryOperand:
    registers: list[tuple[str, int]] = []
    rest: list[tuple[str, str]] = []
    for sign, term in _terms(body):
        names = [token.lower() for kind, token in term if kind == "name" and token.lower() in RESERVED]
        if not names:
            rest.append((sign, _joined(term)))
            continue
        if names[0] not in REGISTERS:
            raise ExpressionError(_reserved_reason(names[0]))
        if sign == "-":
            raise ExpressionError(f"a memory operand cannot subtract the register {names[0]}")
        registers.append(_scaled(term, names[0], lookup))
    text = "".join(f" {sign} {term}" for sign, term in rest).strip()
    displacement = evaluate(text, lookup) if text else Linear()
    base, index, scale = _roles(registers)
    return MemoryOperand(size, segment, base, index, scale, displacement)


_NEEDS_RIGHT = words("* / % & | ^ << >> ~")


def _terms(body: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The operand's tokens cut at the + and - outside parentheses, each part with its sign."""
    parts: list[tuple[str, list[tuple[str, str]]]] = [("+", [])]
    depth = 0
    for token in tokenize(body):
        if token[0] == "operator" and token[1] in "+-" and not parts[-1][1]:
            sign = "-" if (token[1] == "-") != (parts[-1][0] == "-") else "+"
            parts[-1] = (sign, [])
            continue
        depth += {"(": 1, ")": -1}.get(token[1], 0) if token[0] == "operator" else 0
        current = parts[-1][1]
        if depth == 0 and token[0] == "operator" and token[1] in "+-" and current[-1][1] not in _NEEDS_RIGHT:
            parts.append((token[1], []))
        else:
            current.append(token)
    if any(not term for _, term in parts):
        raise ExpressionError("a memory operand is empty, or ends in an operator")
    return parts


def _joined(term: list[tuple[str, str]]) -> str:
    return " ".join(token for _, token in term)


def _scaled(term: list[tuple[str, str]], register: str, lookup: Callable[[str], Linear]) -> tuple[str, int]:
    """``register`` or ``register*scale`` or ``scale*register``; scale 0 stands for none written."""
    if len(term) == 1:
        return register, 0
    stars = [at for at, token in enumerate(term) if token == ("operator", "*")]
    if len(stars) == 1 and term[0][1].lower() == register and stars[0] == 1:
        factor = term[2:]
    elif len(stars) == 1 and term[-1][1].lower() == register and stars[0] == len(term) - 2:
        factor = term[:-2]
    else:
        raise ExpressionError(f"the register {register} can only be added, or multiplied by 1, 2, 4 or 8")
    scale = evaluate(_joined(factor), lookup)
    if not scale.constant or scale.value not in (1, 2, 4, 8):
        raise ExpressionError(f"the register {register} can only be multiplied by 1, 2, 4 or 8")
    return register, scale.value


def _roles(registers: list[tuple[str, int]]) -> tuple[str, str, int]:
    """Which register is the base and which the index."""
    if len(registers) > 2 or sum(scale > 1 for _, scale in registers) > 1:
        raise ExpressionError("a memory operand has at most a base and one scaled index")
    plain = [name for name, scale in registers if scale == 0]
    scaled = [(name, scale) for name, scale in registers if scale]
    if len(scaled) == 2:
        scaled.sort(key=lambda item: item[1])
        plain, scaled = [scaled[0][0]], scaled[1:]
    if scaled:
        return (plain[0] if plain else "", *scaled[0])
    if len(plain) == 2:
        return (plain[1], plain[0], 1) if plain[1] in ("rsp", "esp") else (plain[0], plain[1], 1)
    return (plain[0] if plain else ""), "", 1


def render_operand(operand: Operand, symbol: Callable[[Linear], str], needs_index: bool) -> str:
    """The operand in plain form; ``needs_index`` as in :class:`sandbox.toolchain.backend.Backend`."""
    if isinstance(operand, RegisterOperand):
        return f"st({operand.name[2:]})" if re.fullmatch(r"st\d", operand.name) else operand.name
    if isinstance(operand, ImmediateOperand):
        return str(operand.value.value) if operand.value.constant else symbol(operand.value)
    parts = [operand.base] if operand.base else []
    if operand.absolute and needs_index:
        parts.append("riz*1")
    if operand.index:
        parts.append(f"{operand.index}*{operand.scale}")
    if not operand.displacement.constant:
        parts.append(symbol(operand.displacement))
    elif operand.displacement.value or not parts:
        parts.append(str(operand.displacement.value))
    inside = " + ".join(parts).replace("+ -", "- ")
    size = f"{_SIZE_NAMES[operand.size]} ptr " if operand.size else ""
    return f"{size}{operand.segment + ':' if operand.segment else ''}[{inside}]"
