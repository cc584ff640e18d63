"""The building of a :class:`Unit`, one statement at a time: names, sections, data and instructions.

Data never reaches an assembler: its bytes are laid out here, with a :class:`Fixup` wherever the address of a label
goes in once it is known. So the distance of two labels in a data section is a number at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from ..address import align_up
from ..errors import AssemblyError
from . import lint
from .expression import Linear, evaluate
from .operands import RESERVED, Instruction
from .source import NAME, SourceLine, string_bytes
from .unit import SECTION_NAMES, Align, Blob, Code, Fixup, Label, Mode, Unit

MAX_OUTPUT_BYTES = 4 << 20
"""The largest program, in bytes."""

_LONGEST = 15
_WIDTHS = {".byte": 1, ".word": 2, ".short": 2, ".long": 4, ".int": 4, ".quad": 8}
_SECTION_SYMBOL = re.compile(r"__(?:(?:text|rodata|data|bss)_(?:start|end)|image_end)")


class Builder:
    """A unit that is being built; ``invocation`` is the line that statements of a macro are blamed on."""

    def __init__(self, externs: Mapping[str, int], origins: Mapping[str, str]) -> None:
        self.unit = Unit()
        self.externs = externs
        self.origins = origins
        self.invocation: SourceLine | None = None
        self.in_prelude = False
        self._section = "text"
        self._bits = 64
        self._symbolic: dict[str, Linear] = {}
        self._output = 0
        self._deferred: list[AssemblyError] = []

    def begin(self) -> None:
        """A new source begins: in the text, in 64-bit code."""
        self.in_prelude = False
        if self._bits != 64:
            self.unit.text.append(Mode(64))
        self._section, self._bits = "text", 64

    def finish(self) -> Unit:
        """The unit, when every name in it is defined."""
        self._late_names()
        if self._deferred:
            raise self._deferred[0]
        return self.unit

    def error(self, line: SourceLine, reason: str) -> AssemblyError:
        """The error for a line, told at the line that invoked the macro when it comes out of one."""
        if self.invocation is None or self.invocation is line:
            return line.error(reason)
        return AssemblyError(self.invocation.file, self.invocation.number,
                             f"{reason} (in {line.text.strip()!r}, {line})", self.invocation.text)

    # ---- statements

    def label(self, name: str, line: SourceLine) -> None:
        """A label at this place of the current section."""
        self._claim(name, line, "label")
        self._grow(line, 0)
        if self._section == "text":
            self.unit.labels[name] = ("text", 0)
            self.unit.text.append(Label(name))
        else:
            self.unit.labels[name] = (self._section, self.unit.sizes[self._section])

    def instruction(self, statement: str, word: str, line: SourceLine) -> None:
        """An instruction, read and looked at by the linter; ``word`` is its first word."""
        if re.match(rf"{NAME}\s*=(?!=)", statement):
            raise self.error(line, "a constant is defined by .set name, value")
        reason = lint.refused(statement, word.lower())
        if reason:
            raise self.error(line, reason)
        instruction = Instruction.parse(statement, lambda name: self._lookup(name, line)).mapped(self.fold)
        reason = lint.check(instruction, self._bits)
        if reason and any(name not in self.unit.labels for name in instruction.symbols()):
            self._deferred.append(self.error(line, reason))      # its name may turn out to be defined nowhere
        elif reason:
            raise self.error(line, reason)
        if self._section != "text":
            raise self.error(line, f"an instruction in .{self._section}: code belongs in .text")
        self._grow(line, _LONGEST)
        self.unit.text.append(Code(instruction.narrowed(), self.invocation or line, statement, self._bits))

    def defined(self, name: str) -> bool:
        """Whether something is called ``name`` by now."""
        return name in self.unit.places or name in self.externs

    def directive(self, word: str, operands: list[str], line: SourceLine) -> bool:
        """Handle a directive about sections, constants or data; False when ``word`` is no such directive."""
        if word[1:] in SECTION_NAMES:
            self._section = word[1:]
        elif word == ".section":
            name = operands[0] if operands else "."
            if len(operands) != 1 or name[1:] not in SECTION_NAMES or name[0] != ".":
                raise self.error(line, "the sections are .text, .rodata, .data and .bss, without flags")
            self._section = name[1:]
        elif word in (".set", ".equ"):
            self._set(operands, line)
        elif word in _WIDTHS:
            self._values(_WIDTHS[word], operands, line)
        elif word in (".ascii", ".asciz", ".string"):
            self._strings(word, operands, line)
        elif word in (".zero", ".skip", ".space"):
            self._zero(word, operands, line)
        elif word in (".p2align", ".balign"):
            self._align(word, operands, line)
        elif word in (".code32", ".code64"):
            self._grow(line, 0)
            self._bits = int(word[5:])
            self.unit.text.append(Mode(self._bits))
        elif word == ".intel_syntax":
            if operands != ["noprefix"]:
                raise self.error(line, "the syntax is always '.intel_syntax noprefix'")
        elif word not in (".globl", ".global"):
            return False
        return True

    def _strings(self, word: str, operands: list[str], line: SourceLine) -> None:
        tail = b"" if word == ".ascii" else b"\0"
        if not operands:
            raise self.error(line, f"{word} needs a string")
        self.emit(b"".join(string_bytes(operand, line) + tail for operand in operands), line)

    def _set(self, operands: list[str], line: SourceLine) -> None:
        """``.set``: a constant may get another value in the file that defined it, and the same one anywhere."""
        if len(operands) != 2 or not re.fullmatch(NAME, operands[0]):
            raise self.error(line, "a constant is defined by .set name, value")
        name, value = operands[0], self._value(operands[1], line)
        place = self.invocation or line
        old = self._symbolic.get(name, Linear(self.unit.constants[name]) if name in self.unit.constants else None)
        if old == value:
            return
        if old is None or self.unit.places[name].file != place.file:
            self._claim(name, line, "constant")
        self.unit.places[name] = place
        self.unit.constants.pop(name, None)
        self._symbolic.pop(name, None)
        if value.constant:
            self.unit.constants[name] = value.value
        else:
            self._symbolic[name] = value

    def _values(self, width: int, operands: list[str], line: SourceLine) -> None:
        if not operands:
            raise self.error(line, "a value is missing")
        data, fixups = bytearray(), []
        for operand in operands:
            value = self._value(operand, line)
            if value.constant:
                data += self.encode(value.value, width, line)
                continue
            fixups.append(Fixup(len(data), width, value, self.invocation or line))
            data += bytes(width)
        self.emit(bytes(data), line, tuple(fixups))

    def encode(self, value: int, width: int, line: SourceLine) -> bytes:
        """``value`` in ``width`` bytes; an error when it does not fit, signed or unsigned."""
        if not -(1 << (8 * width - 1)) <= value < 1 << (8 * width):
            raise self.error(line, f"{value:#x} does not fit in {8 * width} bits")
        return (value & ((1 << (8 * width)) - 1)).to_bytes(width, "little")

    def _zero(self, word: str, operands: list[str], line: SourceLine) -> None:
        if not 1 <= len(operands) <= 2:
            raise self.error(line, f"{word} count[, value]")
        count = self.number(operands[0], line, "count")
        fill = self.number(operands[1], line, "value", -128, 255) if len(operands) == 2 else 0
        self._grow(line, 0)
        if self._output + count > MAX_OUTPUT_BYTES:
            raise self.error(line, f"the program is larger than {MAX_OUTPUT_BYTES >> 20} MiB")
        self.emit(bytes([fill & 0xFF]) * count, line)

    def _align(self, word: str, operands: list[str], line: SourceLine) -> None:
        if not 1 <= len(operands) <= 2:
            raise self.error(line, f"{word} takes an alignment and at most a fill value")
        if word == ".balign":
            size = self.number(operands[0], line, "alignment", 1, 4096)
            if size & (size - 1):
                raise self.error(line, "an alignment is a power of two")
            power = size.bit_length() - 1
        else:
            power = self.number(operands[0], line, "alignment", 0, 12)
        filled = len(operands) == 2
        fill = self.number(operands[1], line, "fill value", 0, 255) if filled else 0
        if self._section == "text":
            self._grow(line, 1 << power)
            self.unit.text.append(Align(power, fill if filled else None, self.invocation or line))
        else:
            size = self.unit.sizes[self._section]
            self.unit.alignment[self._section] = max(self.unit.alignment[self._section], 1 << power)
            if padding := align_up(size, 1 << power) - size:
                self.emit(bytes([fill]) * padding, line)


    def _claim(self, name: str, line: SourceLine, kind: str) -> None:
        """Refuse a name that something else has, naming both places; else note where it is defined."""
        if name.lower() in RESERVED:
            raise self.error(line, f"the {kind} {name!r} has the name of a register or of assembler syntax")
        if name == "." or _SECTION_SYMBOL.fullmatch(name):
            raise self.error(line, f"the {kind} {name!r} has a name that the assembler defines")
        place = self.invocation or line
        if name in self.unit.places:
            raise self.error(line, f"the {kind} {name!r} is already defined at {self.unit.places[name]}")
        if name in self.externs:
            where = self.origins.get(name)
            raise self.error(line, f"the {kind} {name!r} (at {place}) is already defined by the kernel"
                                   f"{f' at {where}' if where else ''}: choose another name")
        self.unit.places[name] = place

    # ---- names

    def _lookup(self, name: str, line: SourceLine) -> Linear:
        """The value of a name inside an expression."""
        if name == ".":
            return self._here(line)
        if name in self.unit.constants:
            return Linear(self.unit.constants[name])
        if name in self._symbolic:
            return self._symbolic[name]
        self.unit.used.setdefault(name, self.invocation or line)
        return Linear(0, ((name, 1),))

    def _here(self, line: SourceLine) -> Linear:
        """``.``: a hidden label at this place."""
        name = f".Lhere.{len(self.unit.labels)}"
        if self._section == "text":
            self.unit.text.append(Label(name))
        self.unit.labels[name] = (self._section, self.unit.sizes.get(self._section, 0))
        return Linear(0, ((name, 1),))

    def _value(self, text: str, line: SourceLine, *, conditional: bool = False) -> Linear:
        """An expression, with differences of labels in one data section already worked out."""
        value = evaluate(text, lambda name: self._lookup(name, line), conditional=conditional)
        return self.fold(value)

    def fold(self, value: Linear) -> Linear:
        """Replace ``a - b`` by its number where both labels lie in the same section, not the text."""
        for name, count in value.terms:
            section, offset = self.unit.labels.get(name, ("text", 0))
            if section == "text":
                continue
            for other, other_count in value.terms:
                if other_count == -count and self.unit.labels.get(other, ("", 0))[0] == section and other != name:
                    distance = offset - self.unit.labels[other][1]
                    rest = tuple(term for term in value.terms if term[0] not in (name, other))
                    return self.fold(Linear(value.value + count * distance, rest))
        return value

    def number(self, text: str, line: SourceLine, what: str, low: int = 0, high: int = MAX_OUTPUT_BYTES) -> int:
        """An expression that must be a number now, in a range."""
        value = self._value(text, line, conditional=what == "condition")
        if not value.constant:
            names = ", ".join(name for name, _ in value.terms)
            raise self.error(line, f"the {what} must be a number here, and {names} is not known yet")
        if not low <= value.value <= high:
            raise self.error(line, f"the {what} is {value.value}, and must be {low} to {high}")
        return value.value

    def _late_names(self) -> None:
        """Every name that was used before anything defined it must be a label by now."""
        for name, line in self.unit.used.items():
            if name in self.unit.labels or name in self.externs or _SECTION_SYMBOL.fullmatch(name):
                continue
            if name in self.unit.places:
                raise line.error(f"the constant {name!r} is used before its definition at {self.unit.places[name]}")
            known = sorted({*self.unit.labels, *self.externs, *self.unit.constants})
            close = difflib.get_close_matches(name, [item for item in known if item[:2] != ".L"], 1)
            others = [f"{other!r} ({where})" for other, where in self.unit.used.items() if other != name
                      and other not in self.unit.places and other not in self.externs
                      and other not in self.unit.labels and not _SECTION_SYMBOL.fullmatch(other)]
            hint = f"; did you mean {close[0]!r}?" if close else ""
            more = f"; undefined too: {', '.join(others[:4])}{' ...' if others[4:] else ''}" if others else ""
            raise line.error(f"the symbol {name!r} is not defined{hint}{more}")

    # ---- output

    def _grow(self, line: SourceLine, size: int) -> None:
        if self.in_prelude:
            raise self.error(line, "a file of definitions may not hold code, data or labels")
        self._output += size
        if self._output > MAX_OUTPUT_BYTES:
            raise self.error(line, f"the program is larger than {MAX_OUTPUT_BYTES >> 20} MiB")

    def emit(self, data: bytes, line: SourceLine, fixups: tuple[Fixup, ...] = ()) -> None:
        """Append data to the current section."""
        self._grow(line, len(data))
        place = self.invocation or line
        if self._section == "text":
            self.unit.text.append(Blob(data, place, fixups))
            return
        if self._section == "bss" and (fixups or data.strip(b"\0")):
            raise self.error(line, "only zeros can lie in .bss")
        self.unit.blobs[self._section].append(Blob(data, place, fixups, self.unit.sizes[self._section]))
        self.unit.sizes[self._section] += len(data)
