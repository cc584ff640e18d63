"""Variables of C: what is called how, where it lies, and of which type it is (DWARF 5, sections 3 and 4).

A compiler tells for each scope (a function, a block, a copy of a function that it has put into another one) which
variables it has, and for each variable where it is found, which in optimized code changes from instruction to
instruction. All is read when it is first asked for; what is damaged, or computed in ways that are not known here, has
no place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...address import U64
from ..dwarf_encoding import REGISTERS
from ..image import Image
from .debug_info import dwarf_of
from .declarations import Entries, declared, name_of, variable
from .types import Type, described, guarded, type_of

_REGISTER_NAMES = {number: name for name, number in REGISTERS.items()}
_SCOPES = frozenset({"DW_TAG_subprogram", "DW_TAG_inlined_subroutine", "DW_TAG_lexical_block"})
_NAMED = frozenset({"DW_TAG_variable", "DW_TAG_formal_parameter"})
_DEEPEST = 64
_TYPES = frozenset({"DW_TAG_typedef", "DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_enumeration_type"})
_TAGS = {"DW_TAG_structure_type": "struct ", "DW_TAG_union_type": "union ", "DW_TAG_enumeration_type": "enum "}


@dataclass(frozen=True)
class Place:
    """Where a value is: at an address, in a register, or nowhere because it is known (``value``)."""

    address: int | None = None
    register: str | None = None
    value: int | None = None


@dataclass(frozen=True)
class Frame:
    """What places are computed from: registers that are known, the CFA, and the address of the instruction."""

    rip: int
    cfa: int
    registers: Mapping[str, int]


@dataclass(frozen=True)
class Variable:
    """A variable in scope: its name, its declaration, its type; ``place(frame)`` is None where it has none there.
    ``follows``: what is told of it changes with the code, so that it holds at each instruction."""

    name: str
    declaration: str
    type: Type
    parameter: bool
    follows: bool
    place: Callable[[Frame], Place | None]


@dataclass
class _Scope:
    """A scope that has code: its entry, and the one around it. ``function`` is the function that it is of."""

    entry: Any
    entries: Entries
    around: _Scope | None
    ranges: list[tuple[int, int]]
    number: int

    @property
    def is_function(self) -> bool:
        """Whether it is one, and no block inside."""
        return bool(self.entry.tag != "DW_TAG_lexical_block")


class Variables:
    """The variables of an image by where in the code they are seen."""

    def __init__(self, image: Image) -> None:
        self._scopes: list[_Scope] = []
        self._units: list[Entries] = []
        self._lists: Any = None
        self._known: dict[int, list[Variable]] = {}
        if ".debug_info" in image.debug:
            read = _Reader(image.debug)
            self._scopes, self._units, self._lists = read.scopes, read.units, read.lists
        self._pieces = sorted((start, end, scope.number) for scope in self._scopes for start, end in scope.ranges)
        self._starts = [start for start, _, _ in self._pieces]

    def function(self, address: int) -> int | None:
        """A number of the function, or the copy of one inside of another, that the code at ``address`` is of."""
        scope = self._innermost(address)
        while scope is not None and not scope.is_function:
            scope = scope.around
        return None if scope is None else scope.number

    def copies(self, name: str) -> list[int]:
        """Where the copies of a function begin that a compiler has put into others."""
        return sorted(min(scope.ranges)[0] for scope in self._scopes if scope.entry.tag == "DW_TAG_inlined_subroutine"
                      and guarded(partial(_name, scope.entry)) == name)

    def at(self, address: int) -> list[Variable]:
        """Parameters and variables that the code at ``address`` sees, innermost scope first; of several with one name
        the first is meant. Of a copy inside another function, those of the copy alone."""
        found: dict[str, Variable] = {}
        scope = self._innermost(address)
        while scope is not None:
            for known in self._of(scope):
                found.setdefault(known.name, known)
            scope = None if scope.is_function else scope.around
        return list(found.values())

    def _of(self, scope: _Scope) -> list[Variable]:
        """The variables of one scope."""
        if scope.number not in self._known:
            entries = [entry for entry in scope.entries.below(scope.entry)
                       if entry.tag in _NAMED and not self._is_external(entry)]
            every = [guarded(partial(self._variable, scope, entry)) for entry in entries]
            self._known[scope.number] = [one for one in every if one is not None and one.name]
        return self._known[scope.number]

    def globals(self) -> Iterator[tuple[int, Variable]]:
        """The variables with an address of their own, with that: of files, and static ones of functions."""
        nowhere = Frame(0, 0, {})
        for entries in self._units:
            for entry in entries.every(_NAMED):
                known = guarded(partial(self._place, entry, None, nowhere))
                if known is None or known.address is None:
                    continue
                found = guarded(partial(_variable, entries, entry, partial(_fixed, known)))
                if found is not None and found.name:
                    yield known.address, found

    def type_called(self, name: str) -> Type | None:
        """The type that a program calls ``struct order`` or ``size_t``; None where its debug information has none."""
        for entries in self._units:
            for entry in entries.every(_TYPES):
                if "DW_AT_declaration" in entry.attributes:
                    continue
                if name == _TAGS.get(entry.tag, "") + (guarded(partial(name_of, entry)) or ""):
                    found: Type | None = guarded(partial(described, entries, entry, name))
                    return found
        return None

    def enumerator(self, name: str) -> int | None:
        """The value of a constant of an enumeration."""
        for entries in self._units:
            for entry in entries.every(("DW_TAG_enumerator",)):
                if guarded(partial(name_of, entry)) == name and "DW_AT_const_value" in entry.attributes:
                    return int(entry.attributes["DW_AT_const_value"].value)
        return None

    def _innermost(self, address: int) -> _Scope | None:
        """Ranges lie inside each other; of those that hold the address the one that begins last, and is smallest."""
        best: tuple[int, _Scope] | None = None
        for at in range(bisect_right(self._starts, address) - 1, -1, -1):
            start, end, number = self._pieces[at]
            if address < end and (best is None or end - start < best[0]):
                best = end - start, self._scopes[number]
            if best is not None and self._scopes[number].entry.tag == "DW_TAG_subprogram" and address < end:
                break
        return None if best is None else best[1]

    @staticmethod
    def _is_external(entry: Any) -> bool:
        return "DW_AT_external" in entry.attributes or "DW_AT_declaration" in entry.attributes

    def _variable(self, scope: _Scope, entry: Any) -> Variable:
        return _variable(scope.entries, entry, lambda frame: guarded(partial(self._place, entry, scope, frame)))

    def _place(self, entry: Any, scope: _Scope | None, frame: Frame) -> Place | None:
        constant = entry.attributes.get("DW_AT_const_value")
        if constant is not None and isinstance(constant.value, int):
            return Place(value=constant.value & U64)
        expression = self._expression(entry, frame.rip)
        return None if expression is None else _Machine(entry.cu, frame, _base_of(scope)).place(expression)

    def _expression(self, entry: Any, address: int) -> Any:
        """The bytes of the expression that holds at an address."""
        location = entry.attributes.get("DW_AT_location")
        if location is None:
            return None
        if _is_expression(location):
            return location.value
        if self._lists is None:
            return None
        base = entry.cu.get_top_DIE().attributes["DW_AT_low_pc"].value if \
            "DW_AT_low_pc" in entry.cu.get_top_DIE().attributes else 0
        for found in self._lists.parse_from_attribute(location, entry.cu["version"], entry):
            if type(found).__name__ == "BaseAddressEntry":
                base = found.base_address
                continue
            shift = 0 if getattr(found, "is_absolute", False) else base
            if found.begin_offset + shift <= address < found.end_offset + shift:
                return found.loc_expr
        return None


class _Reader:
    """Everything of an image's debug sections; what is damaged ends it."""

    def __init__(self, debug: Mapping[str, bytes]) -> None:
        from elftools.dwarf.locationlists import LocationParser

        self.scopes: list[_Scope] = []
        self.units: list[Entries] = []
        self.lists: Any = None
        dwarf = dwarf_of(debug)
        self._ranges = guarded(dwarf.range_lists)
        self.lists = guarded(lambda: LocationParser(dwarf.location_lists()))
        for unit in guarded(lambda: list(dwarf.iter_CUs())) or ():
            entries = guarded(partial(Entries, unit))
            if entries is not None:
                self.units.append(entries)
                for entry in entries.below(unit.get_top_DIE()):
                    self._read(entries, entry, None)

    def _read(self, entries: Entries, entry: Any, around: _Scope | None, depth: int = 0) -> None:
        if entry.tag not in _SCOPES or depth > _DEEPEST:
            return
        ranges = guarded(lambda: list(self._ranges_of(entry))) or []
        scope = around
        if ranges:
            scope = _Scope(entry, entries, around, ranges, len(self.scopes))
            self.scopes.append(scope)
        for child in entries.below(entry):
            self._read(entries, child, scope, depth + 1)

    def _ranges_of(self, entry: Any) -> Iterator[tuple[int, int]]:
        attributes = entry.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            yield low, high.value if high.form == "DW_FORM_addr" else low + high.value
        elif "DW_AT_ranges" in attributes and self._ranges is not None:
            top = entry.cu.get_top_DIE().attributes
            base = top["DW_AT_low_pc"].value if "DW_AT_low_pc" in top else 0
            for found in self._ranges.get_range_list_at_offset(attributes["DW_AT_ranges"].value, entry.cu):
                if type(found).__name__ == "BaseAddressEntry":
                    base = found.base_address
                elif found.begin_offset < found.end_offset:
                    shift = 0 if found.is_absolute else base
                    yield found.begin_offset + shift, found.end_offset + shift


# -- places -----------------------------------------------------------------------------------------------------
def _is_expression(location: Any) -> bool:
    """Whether a location is one expression, and no list of them."""
    return location is not None and location.form in (
        "DW_FORM_exprloc", "DW_FORM_block1", "DW_FORM_block2", "DW_FORM_block4")


def _variable(entries: Entries, entry: Any, place: Callable[[Frame], Place | None]) -> Variable:
    origin = declared(entry)
    return Variable(name_of(origin), variable(entries, entry), type_of(entries, origin),
                    entry.tag == "DW_TAG_formal_parameter", not _is_expression(entry.attributes.get("DW_AT_location")),
                    place)


def _name(entry: Any) -> str:
    return name_of(declared(entry))


def _fixed(place: Place, frame: Frame) -> Place:
    """A place that is the same in every frame."""
    return place


def _base_of(scope: _Scope | None) -> Any:
    """The expression of the frame base of the function around a scope."""
    while scope is not None:
        if "DW_AT_frame_base" in scope.entry.attributes:
            return scope.entry.attributes["DW_AT_frame_base"].value
        scope = scope.around
    return None


class _Machine:
    """Evaluates expressions (DWARF 5, section 2.5), those that compilers write for simple variables."""

    def __init__(self, unit: Any, frame: Frame, base: Any) -> None:
        from elftools.dwarf.dwarf_expr import DWARFExprParser

        self._unit = unit
        self._parser = DWARFExprParser(unit.structs)
        self._frame = frame
        self._base = base

    def place(self, expression: Any) -> Place | None:
        """Where it leads; ValueError or KeyError for what is not known here."""
        operations = self._parser.parse_expr(list(expression))
        if not operations:
            return None
        first = operations[0]
        if first.op_name.startswith("DW_OP_reg") and len(operations) == 1:
            number = first.args[0] if first.op_name == "DW_OP_regx" else int(first.op_name[len("DW_OP_reg") :])
            return Place(register=_REGISTER_NAMES[number])
        stack: list[int] = []
        for operation in operations:
            if operation.op_name == "DW_OP_stack_value":
                return Place(value=stack[-1] & U64)
            self._do(operation.op_name.removeprefix("DW_OP_"), operation.args, stack)
        return Place(address=stack[-1] & U64)

    def _do(self, name: str, operands: list[int], stack: list[int]) -> None:
        if name == "fbreg":
            stack.append(self._frame_base() + operands[0])
        elif name == "call_frame_cfa":
            stack.append(self._frame.cfa)
        elif name == "bregx":
            stack.append(self._frame.registers[_REGISTER_NAMES[operands[0]]] + operands[1])
        elif name.startswith("breg"):
            stack.append(self._frame.registers[_REGISTER_NAMES[int(name[4:])]] + operands[0])
        elif name.startswith("lit"):
            stack.append(int(name[3:]))
        elif name == "addrx":
            stack.append(self._unit.dwarfinfo.get_addr(self._unit, operands[0]))
        elif name == "addr" or (name.startswith("const") and operands):
            stack.append(operands[0])
        elif name == "plus_uconst":
            stack.append(stack.pop() + operands[0])
        elif name in ("plus", "minus", "mul", "and", "or", "xor"):
            right, left = stack.pop(), stack.pop()
            stack.append({"plus": left + right, "minus": left - right, "mul": left * right, "and": left & right,
                          "or": left | right, "xor": left ^ right}[name])
        elif name == "neg":
            stack.append(-stack.pop())
        elif name == "not":
            stack.append(~stack.pop())
        else:
            raise ValueError(f"the operation {name} is not known here")

    def _frame_base(self) -> int:
        place = None if self._base is None else self.place(self._base)
        if place is None:
            raise ValueError("the function has no frame base")
        if place.register is not None:
            return self._frame.registers[place.register]
        return int(place.address or 0)
