"""The variables of C functions that run: what they are called, where they lie, what they hold.

::

    int i = 3
    struct node *list = object 2 of kmalloc-16, allocated (0xffff888000003020)
    struct node a = {value = 1, next = 0}
    char text[8] = "abc"
    int total = (not known here)             optimized away, or not stored yet
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..abi import KERNEL_STACK_SIZE
from ..errors import GuestMemoryError
from ..guest import frames as stack
from ..guest.symbols import Symbols
from ..layout import Readable
from ..toolchain.c.types import Type
from ..toolchain.c.variables import Frame, Place, Variable, Variables
from ..trace.callers import LIBRARY
from .name import Name
from .names import Names
from .prologue import second_line
from .reading import Subject
from .values import number

UNKNOWN = "(not known here)"
ELEMENTS = 8
"""Elements of an array that are told."""
_STRING = 48
_BELOW = 4096
"""Bytes below RSP that an instruction may be about to reach."""
_ANY_CFA = 1 << 40
_TOLD = 40
"""Members of a structure that are told."""
_DEEPEST = 64


@dataclass(frozen=True)
class Local:
    """A variable of a function that runs, ``value`` in words; ``address`` and ``size`` of where it lies in memory,
    None where it does not."""

    variable: Variable
    value: str
    address: int | None

    def __str__(self) -> str:
        return f"{self.variable.declaration} = {self.value}"


@dataclass(frozen=True)
class Seen:
    """A variable that a name means, and where it is: in memory, or as a value; None where that is not known."""

    variable: Variable
    place: Place | None


class Locals:
    """The variables of all frames of a guest at one moment, innermost first; ``registers`` are the general ones."""

    def __init__(self, guest: Subject, registers: Mapping[str, int], memory: Readable) -> None:
        self._guest = guest
        self._registers = registers
        self._memory = memory
        self._seconds: dict[int, int | None] = {}

    @cached_property
    def frames(self) -> Sequence[stack.Frame]:
        """The frames of the stack."""
        symbols = self._guest.symbols
        return stack.frames(self._registers, self._memory, symbols, symbols.unwind)

    @cached_property
    def _c(self) -> Sequence[tuple[int, Frame, list[Variable]]]:
        """Of the frames that are C: their numbers, what places are computed from, and their variables."""
        if not any(image.debug for image in self._guest.symbols.images):
            return ()
        found = []
        for depth, frame in enumerate(self.frames):
            address = frame.rip - (not frame.interrupted)
            variables = self._guest.symbols.variables(address)
            if variables is None or variables.function(address) is None or frame.cfa is None:
                continue
            known = self._registers if depth == 0 else {"rsp": frame.rsp}
            if depth and frame.rbp is not None:
                known = {**known, "rbp": frame.rbp}
            found.append((depth, Frame(address, frame.cfa, self._based(address, known)), variables.at(address)))
        return found

    def _based(self, address: int, known: Mapping[str, int]) -> Mapping[str, int]:
        """Without an RBP that is still the caller's."""
        rule = self._guest.symbols.unwind.rule(address)
        still = rule is not None and rule.cfa_register == "rsp"
        return {name: value for name, value in known.items() if name != "rbp"} if still else known

    def default(self) -> int | None:
        """The number of the frame that is asked about where none is said: the innermost of the program's own C, or
        the one that it stands in."""
        own = (depth for depth, frame, _ in self._c if depth == 0 or not self._is_library(frame.rip))
        return next(own, None)

    def of(self, depth: int) -> list[Local] | None:
        """The variables of a frame, in the order in which they are declared; None where it is no C."""
        for known, frame, variables in self._c:
            if known == depth:
                ordered = sorted(variables, key=lambda variable: not variable.parameter)
                return [self._local(variable, frame) for variable in ordered]
        return None

    def find(self, name: str) -> Local | None:
        """The variable that a name means in the innermost frame, where that is C; else a variable of a file or a static
        one, whose label is called so too."""
        found = self.seen(name)
        if found is None:
            return None
        place = found.place
        value = UNKNOWN if place is None else Contents(self._guest).of(found.variable.type, place)
        return Local(found.variable, value, None if place is None else place.address)

    def seen(self, name: str) -> Seen | None:
        """The same, and where it is."""
        found = self._in_frame(name, 0)
        if found is not None:
            return found
        address = self._guest.symbols.get(name)
        variables = None if address is None else self._guest.symbols.variables(address)
        for at, variable in () if variables is None else variables.globals():
            if at == address:
                return Seen(variable, Place(address=at))
        return None

    def of_a_caller(self, name: str) -> Seen | None:
        """The variable of the frame that is asked about where none is said (:meth:`default`)."""
        depth = self.default()
        return self._in_frame(name, depth) if depth else None

    def _in_frame(self, name: str, depth: int) -> Seen | None:
        frame, variables = next(((frame, known) for at, frame, known in self._c if at == depth), (None, []))
        variable = next((one for one in variables if one.name == name), None)
        if frame is None or variable is None:
            return None
        place = self._place(variable, frame)
        if place is not None and place.register is not None:
            held = frame.registers.get(place.register)
            place = None if held is None else Place(value=held)
        return Seen(variable, place)

    def type_called(self, name: str) -> Type | None:
        """The type that a program calls so."""
        found = (variables.type_called(name) for variables in self._every)
        return next((kind for kind in found if kind is not None), None)

    def enumerator(self, name: str) -> int | None:
        """The value of a constant of an enumeration of the program."""
        found = (variables.enumerator(name) for variables in self._every)
        return next((value for value in found if value is not None), None)

    @property
    def _every(self) -> Iterator[Variables]:
        """The debug information of every image that has some."""
        found = (self._guest.symbols.variables(image.base) for image in self._guest.symbols.images)
        return (variables for variables in found if variables is not None)

    def value(self, name: str) -> int | None:
        """The number that a variable of the innermost frame holds; None where there is none, or no number in it."""
        found = self._in_frame(name, 0)
        if found is None or found.place is None or found.variable.type.kind in ("struct", "array", "other"):
            return None
        return Contents(self._guest).number(found.variable.type, found.place)

    def name(self, address: int) -> Name | None:
        """The variable that lies at an address of the stack: ``i``, ``text[3]``, of a caller ``main::list``."""
        rsp = self._registers["rsp"]
        if not rsp - _BELOW <= address < rsp + KERNEL_STACK_SIZE:
            return None
        for depth, frame, variables in self._c:
            if address >= frame.cfa:
                continue
            for variable in variables:
                place = self._place(variable, frame)
                start = None if place is None else place.address
                size = variable.type.size
                if start is not None and start <= address < start + size:
                    whole = variable.name if depth == 0 else f"{self._function(depth)}::{variable.name}"
                    text, at, width = _part(variable.type, address - start)
                    return Name(address, whole + text, "stack", start, size, text.lstrip("."), start + at, width, "",
                                whole)
            return None
        return None

    def _function(self, depth: int) -> str:
        return self.frames[depth].location.symbol

    def _is_library(self, address: int) -> bool:
        line = self._guest.symbols.line(address)
        return line is not None and line.file.startswith(LIBRARY)

    def _local(self, variable: Variable, frame: Frame) -> Local:
        place = self._place(variable, frame)
        words = UNKNOWN if place is None else Contents(self._guest).of(variable.type, place, frame.registers)
        return Local(variable, words, None if place is None else place.address)

    def _place(self, variable: Variable, frame: Frame) -> Place | None:
        """Where it is; nowhere as long as the function's first line has not stored what it has on the stack."""
        place = variable.place(frame)
        if place is None or place.address is None or variable.follows or self._guest.symbols.image_at(place.address):
            return place
        return None if self._enters(frame.rip) else place

    def _enters(self, address: int) -> bool:
        """Whether an instruction is of the line that a function begins with."""
        symbols = self._guest.symbols
        start = address - symbols.locate(address).offset
        if start not in self._seconds:
            self._seconds[start] = second_line(symbols, start)
        second = self._seconds[start]
        if second is not None:
            return address < second
        rule = symbols.unwind.rule(address)              # all of it is on one line
        return rule is None or rule.cfa_register == "rsp"


class Contents:
    """What variables hold, in words."""

    def __init__(self, guest: Subject) -> None:
        self._guest = guest
        self._names = Names(guest)

    def of(self, kind: Type, place: Place, registers: Mapping[str, int] | None = None) -> str:
        """What is of a type, at a place."""
        if place.address is not None:
            return self._at(kind, place.address)
        value = self.number(kind, place, registers)
        return UNKNOWN if value is None else self._scalar(kind, value)

    def number(self, kind: Type, place: Place, registers: Mapping[str, int] | None = None) -> int | None:
        """The bytes at a place as an unsigned number; None for more than 8, and for what is not there."""
        if not 0 < kind.size <= 8:
            return None
        if place.address is not None:
            return self._names.word(place.address, kind.size)
        value = place.value if place.register is None else (registers or {}).get(place.register)
        return None if value is None else value & ((1 << 8 * kind.size) - 1)

    def _at(self, kind: Type, address: int, depth: int = 0) -> str:
        if kind.kind == "struct" and kind.members and depth < 2:
            members = [f"{name or 'union'} = {self._at(inner, address + offset, depth + 1)}"
                       for name, offset, inner in kind.members[:_TOLD]]
            return "{" + ", ".join(members) + (", ..." if len(kind.members) > _TOLD else "") + "}"
        if kind.kind == "array" and kind.inner is not None and kind.inner.size and depth < 3:
            return self._array(kind, kind.inner, address, depth)
        if kind.kind in ("struct", "array", "other") or not 0 < kind.size <= 8:
            return f"at 0x{address:x}"
        value = self._names.word(address, kind.size)
        return UNKNOWN if value is None else self._scalar(kind, value)

    def _array(self, kind: Type, inner: Type, address: int, depth: int) -> str:
        if inner.kind == "character":
            return self._text(address, min(kind.size, _STRING)) or f"at 0x{address:x}"
        count = kind.size // inner.size
        shown = [self._at(inner, address + index * inner.size, depth + 1) for index in range(min(count, ELEMENTS))]
        return "{" + ", ".join([*shown, *(["..."] if count > ELEMENTS else [])]) + "}"

    def _text(self, address: int, size: int) -> str:
        """Bytes as a string of C, up to the one that ends it."""
        try:
            data = self._guest.memory.read(address, size)
        except GuestMemoryError:
            return ""
        text, end, _ = data.partition(b"\0")
        quoted = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in text)
        return f'"{quoted}"' + ("" if end else "...")

    def _scalar(self, kind: Type, value: int) -> str:
        signed = value - (1 << 8 * kind.size) if value >> (8 * kind.size - 1) else value
        if kind.kind == "boolean":
            return {0: "false", 1: "true"}.get(value, str(value))
        if kind.kind == "character":
            return f"{value} {chr(value)!r}" if 32 <= value < 127 else str(signed if kind.negative else value)
        if kind.kind == "enum":
            name = kind.names.get(signed, kind.names.get(value))
            return str(signed if kind.negative else value) if name is None else f"{name} ({signed})"
        if kind.kind == "pointer":
            return self._pointer(kind, value)
        if kind.kind == "signed":
            return str(signed)
        return str(value) if value < 1 << 16 else number(value, kind.size)

    def _pointer(self, kind: Type, value: int) -> str:
        words = self._names.value(value)
        quoted = ""
        if kind.inner is not None and kind.inner.kind == "character" and value and '"' not in words:
            quoted = self._text(value, _STRING)
        bare = "" if not value or f"{value:x}" in words else f" (0x{value:x})"
        return f"{words}{bare}{f' {quoted}' if quoted else ''}"


def _part(kind: Type, offset: int) -> tuple[str, int, int]:
    """Which part of a variable lies at an offset: ``.next``, ``[3]``; where that begins, and its size."""
    text, at = "", 0
    for _ in range(_DEEPEST):
        inner: Type | None = None
        if kind.kind == "array" and kind.inner is not None and kind.inner.size:
            index = (offset - at) // kind.inner.size
            text, at, inner = f"{text}[{index}]", at + index * kind.inner.size, kind.inner
        elif kind.kind == "struct":
            for name, start, member in kind.members:
                if name and start <= offset - at < start + member.size:
                    text, at, inner = f"{text}.{name}", at + start, member
                    break
        if inner is None:
            break
        kind = inner
    return text + (f"+{offset - at}" if offset > at else ""), at, kind.size


def variable_at(symbols: Symbols, address: int, register: str, displacement: int) -> str:
    """The variable that an operand of the instruction at ``address`` is, ``[rbp - 0x14]`` as RBP and -0x14, in any
    frame of its function: ``i``, ``text[3]``; empty where it is none."""
    variables, rule = symbols.variables(address), symbols.unwind.rule(address)
    if variables is None or rule is None or rule.cfa_register != register:
        return ""
    base = _ANY_CFA - rule.cfa_offset
    frame = Frame(address, _ANY_CFA, {register: base})
    for variable in variables.at(address):
        place = variable.place(frame)
        start = None if place is None else place.address
        if start is not None and start <= base + displacement < start + variable.type.size:
            return variable.name + _part(variable.type, base + displacement - start)[0]
    return ""


def locals_of(guest: Subject, registers: Mapping[str, int]) -> Locals:
    """The variables of a guest that stands still."""
    return Locals(guest, dict(registers), guest.memory)


def told(found: Locals, depth: int | None) -> Iterator[str]:
    """The variables of a frame, one on a line."""
    shown = found.default() if depth is None else depth
    every = None if shown is None else found.of(shown)
    if every is None or shown is None:
        yield "no C function runs" if depth is None else f"frame {depth} has no variables of C"
        return
    yield f"{shown:>4}  {found.frames[shown]}"
    yield from (f"      {one}" for one in every)
    if not every:
        yield "      no variables"
