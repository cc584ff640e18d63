"""Functions as DWARF entries: their range, their prototype, and where each argument lies at every instruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from .dwarf_encoding import OP_CALL_FRAME_CFA, OP_FBREG, OP_REG0, REGISTERS, At, Form, Tag, sleb
from .dwarf_entries import Attribute, Entry, address, expression, flag, named, number, offset, typed
from .dwarf_lines import FileTable
from .dwarf_types import Types
from .image import Image
from .prototype import Prototype, prototypes
from .stack_effects import SCRATCH, State, Value
from .unwind import Unwind

ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
"""The registers that arguments are passed in (System V); those behind them lie on the stack, from the CFA up."""

_Code: TypeAlias = "Sequence[tuple[int, int, State | None]]"


class Functions:
    """Writes the functions of one image after the other; ``locations`` is what they have in ``.debug_loc``."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self.locations = bytearray()

    def of(self, image: Image, files: FileTable, unwind: Unwind) -> list[Entry]:
        """An entry for each label in the code, the first one where several have the same address."""
        declared = prototypes(image)
        found: dict[int, Entry] = {}
        for name, (start, end) in image.functions.items():
            if start not in found and start < end:
                place = image.line(start)
                line = [number(At.DECL_FILE, files[place.file]), number(At.DECL_LINE, place.number)] if place else []
                entry = found[start] = Entry(Tag.SUBPROGRAM, [
                    named(name), *line, flag(At.EXTERNAL), address(At.LOW_PC, start), size(end - start),
                    expression(At.FRAME_BASE, bytes([OP_CALL_FRAME_CFA]))])
                if name in declared:
                    code = list(unwind.states_of(image, start, end))
                    self._declare(entry, declared[name], code, image.base)
        return list(found.values())

    def _declare(self, entry: Entry, prototype: Prototype, code: _Code, base: int) -> None:
        """Give a function its result and its parameters."""
        result = self._types.of(prototype.result)
        entry.attributes += [flag(At.PROTOTYPED), *([typed(result)] if result else []),
                             *([flag(At.NORETURN)] if prototype.result == "noreturn" else [])]
        for position, (kind, name) in enumerate(prototype.declared()):
            of_type = self._types.of(kind)
            entry.children.append(Entry(Tag.FORMAL_PARAMETER, [
                *([named(name)] if name else []), *([typed(of_type)] if of_type else []),
                self._location(position, code, base)]))
        if prototype.variadic:
            entry.children.append(Entry(Tag.UNSPECIFIED_PARAMETERS, []))

    def _location(self, position: int, code: _Code, base: int) -> Attribute:
        if position >= len(ARGUMENTS):
            return expression(At.LOCATION, bytes([OP_FBREG]) + sleb(8 * (position - len(ARGUMENTS))))
        at = len(self.locations)
        for start, end, where in _ranges(ARGUMENTS[position], code):
            self.locations += b"".join((edge - base).to_bytes(8, "little") for edge in (start, end))
            self.locations += len(where).to_bytes(2, "little") + where
        self.locations += bytes(16)
        return offset(At.LOCATION, at)


def size(value: int) -> Attribute:
    """DW_AT_high_pc as the size of the range, which a constant form means."""
    return At.HIGH_PC, Form.DATA8, value.to_bytes(8, "little")


def _ranges(register: str, code: _Code) -> Iterator[tuple[int, int, bytes]]:
    """From where to where, and in what, what a register held at the call is to be found."""
    start, end, where = 0, 0, b""
    for at, length, state in code:
        found = _place(register, state) if state else b""
        if found != where or at != end:
            if where:
                yield start, end, where
            start, where = at, found
        end = at + length
    if where:
        yield start, end, where


def _place(register: str, state: State) -> bytes:
    """Where it is safest: a register that calls preserve, the frame, its own register, any other."""
    value = Value("was", register)
    in_registers = [name for name in REGISTERS if state.registers.get(name) == value]
    in_frame = [offset for offset, word in state.words.items() if word == value]
    preserved = [name for name in in_registers if name not in SCRATCH]
    if in_frame and not preserved:
        return bytes([OP_FBREG]) + sleb(max(in_frame))
    holders = [*preserved, *(name for name in in_registers if name == register), *in_registers]
    return bytes([OP_REG0 + REGISTERS[holders[0]]]) if holders else b""
