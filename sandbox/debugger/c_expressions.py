"""Expressions of C at one moment: what they are, where that lies, and what it holds.

::

    order->pieces        *order        squares[i + 1]        &list->next        list->next->value * 2
    sizeof(struct order)               ((struct order *)rdi)->next
    $ and $rax           the last value, and a register

Numbers are computed as C does, with its types and conversions (C11, sections 6.3 and 6.5); a pointer plus 1 is the next
element. A name is a variable in scope, an enumerator, a register, a label, a constant, or, in assembly that C has
called, a variable of that C; in this order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..address import U64
from ..errors import UsageError
from ..toolchain.c.types import Type
from ..toolchain.c.variables import Place
from .c_numbers import INT, LONG, ULONG, VOID, builtin, common, literal, pointer, promoted, wrapped
from .c_syntax import Tree, names, parse, tokens
from .locals import Contents, Locals
from .reading import Subject

_SIZED = re.compile(r"\b(?:byte|word|dword|qword)\s+(?:ptr\s*)?\[|(?:^|[-+*/%&|^~!<>(\[=,])\s*\[")
_OWN = re.compile(r"->|[<>=!]=|&&|\|\||(?<!<)<(?!<)|(?<!>)>(?!>)|\w\s*\[|^\s*[*&]|\b(?:sizeof|struct|union|enum)\b|"
                  r"[A-Za-z_]\w*\s*\(|\(\s*(?:char|short|int|long|signed|unsigned|void|_Bool|bool)\b")


def is_of_c(text: str, is_variable: Callable[[str], bool]) -> bool:
    """Whether a text is meant as C: a variable is in it, and no memory operand of assembly."""
    if _SIZED.search(text):
        return False
    try:
        return any(is_variable(name) for name in names(tokens(text)))
    except UsageError:
        return False


def looks_like_c(text: str) -> bool:
    """Whether a text has what only C has: ``->``, ``a[1]``, ``*p``, a comparison."""
    return not _SIZED.search(text) and _OWN.search(text) is not None


@dataclass(frozen=True)
class Value:
    """What an expression is: its type, and its place, in memory or nowhere. ``text`` is the expression."""

    text: str
    type: Type
    place: Place


class CExpressions:
    """Evaluates against the innermost frame of a guest that stands still. ``other`` are the names of assembly, and
    raises for one that nobody knows."""

    def __init__(self, guest: Subject, found: Locals, other: Callable[[str], int | None],
                 refuse: Callable[[str], Exception]) -> None:
        self._guest = guest
        self._locals = found
        self._other = other
        self._refuse = refuse
        self._contents = Contents(guest)

    def is_variable(self, name: str) -> bool:
        """Whether a name is that of a variable of C here."""
        return self._locals.seen(name) is not None or (
            self._other(name) is None and self._locals.of_a_caller(name) is not None)

    def evaluate(self, text: str) -> Value:
        """What an expression is. :class:`UsageError` where it is none, :class:`GuestMemoryError` for memory that is not
        mapped."""
        tree = parse(text, lambda name: not self.is_variable(name) and self._other(name) is None
                     and self._locals.type_called(name) is not None)
        found = self._tree(tree)
        return Value(text.strip(), found.type, found.place)

    def number(self, value: Value) -> int:
        """The value as a number of 64 bits; the address of a structure or an array."""
        if value.type.kind in ("struct", "array"):
            return self._address(value)
        return self._number(value) & U64

    def words(self, value: Value) -> str:
        """What it holds, in words."""
        if value.place.address is not None and value.type.size:
            self._guest.memory.read(value.place.address, value.type.size)
        elif value.place.address is not None:
            return f"at 0x{value.place.address:x}"
        return self._contents.of(value.type, value.place)

    # -- trees ------------------------------------------------------------------------------------------------
    def _tree(self, tree: Tree) -> Value:
        kind = tree[0]
        if kind == "number":
            return _constant(tree[1], literal(tree[1], tree[2]))
        if kind in ("name", "address"):
            return self._name(tree[1], kind == "address")
        if kind == "type":
            raise UsageError(f"{self._type(tree).spelled!r} is a type, and has no value: ask for its sizeof")
        if kind == "sizeof":
            return _constant(self._size(self._type(tree[1]) if tree[1][0] == "type" else self._tree(tree[1]).type),
                             ULONG)
        if kind == "cast":
            return self._cast(self._type(tree[1]), self._tree(tree[2]))
        if kind == "member" and tree[1][0] == "name" and not self.is_variable(tree[1][1]):
            constant = self._other(f"{tree[1][1]}.{tree[2]}")             # percpu.slots, as assembly has it
            if constant is not None:
                return _constant(constant, ULONG)
        if kind == "member":
            return self._member(self._tree(tree[1]), tree[2])
        if kind == "->":
            return self._member(self._goal(self._tree(tree[1]), "->"), tree[2])
        if kind == "[]":
            return self._goal(self._sum(self._tree(tree[1]), self._tree(tree[2]), "+"), "[]")
        if kind.startswith("unary "):
            return self._unary(kind[-1], self._tree(tree[1]))
        if kind in ("&&", "||"):
            left = bool(self._number(self._tree(tree[1])))
            both = left if left is (kind == "||") else bool(self._number(self._tree(tree[2])))
            return _constant(both, INT)
        return self._binary(kind, self._tree(tree[1]), self._tree(tree[2]))

    def _name(self, name: str, address: bool) -> Value:
        found = None if name.startswith("$") else self._locals.seen(name)
        if found is None and self._other(name) is None:
            constant = self._locals.enumerator(name)
            if constant is not None:
                return _constant(constant, INT)
            found = self._locals.of_a_caller(name)
        if found is not None:
            if found.place is None:
                raise UsageError(f"{name!r} has no value here: it is optimized away, or not stored yet")
            return Value(name, found.variable.type, found.place)
        other = self._other(name)
        if other is not None:
            return _constant(other, ULONG)
        if address:
            return _constant(int(name, 16), ULONG)
        raise self._refuse(name)

    def _unary(self, operator: str, value: Value) -> Value:
        if operator == "*":
            return self._goal(value, "*")
        if operator == "&":
            return _constant(self._address(value), pointer(value.type))
        number, kind = self._number(value), promoted(value.type)
        if operator == "!":
            return _constant(not number, INT)
        return _constant({"-": -number, "+": number, "~": ~number}[operator], kind)

    def _binary(self, operator: str, left: Value, right: Value) -> Value:
        if operator in ("+", "-") and (_leads(left.type) or _leads(right.type)):
            return self._sum(left, right, operator)
        first, second = self._number(left), self._number(right)
        kind = common(left.type, right.type)
        if operator in ("<<", ">>"):
            kind = promoted(left.type)
            if not 0 <= second < 8 * kind.size:
                raise UsageError(f"{kind.spelled} cannot be shifted by {second} bits")
            return _constant(first << second if operator == "<<" else first >> second, kind)
        first, second = wrapped(first, kind), wrapped(second, kind)
        if operator in ("/", "%"):
            if not second:
                raise UsageError("division by zero")
            quotient = abs(first) // abs(second) * (-1 if (first < 0) != (second < 0) else 1)
            return _constant(quotient if operator == "/" else first - quotient * second, kind)
        compared = {"<": first < second, ">": first > second, "<=": first <= second, ">=": first >= second,
                    "==": first == second, "!=": first != second}
        if operator in compared:
            return _constant(compared[operator], INT)
        return _constant({"+": first + second, "-": first - second, "*": first * second, "&": first & second,
                          "|": first | second, "^": first ^ second}[operator], kind)

    def _sum(self, left: Value, right: Value, operator: str) -> Value:
        """Of a pointer and a number of elements, or the distance of two pointers."""
        if _leads(left.type) and _leads(right.type):
            width = max(self._inner(left).size, 1)
            if operator == "+":
                raise UsageError("two pointers have no sum")
            return _constant((self._pointed(left) - self._pointed(right)) // width, LONG)
        if _leads(right.type) and operator == "+":
            left, right = right, left
        if not _leads(left.type):
            raise UsageError("what is indexed, or subtracted from, is no pointer and no array")
        inner = self._inner(left)
        distance = self._number(right) * max(inner.size, 1)
        at = self._pointed(left) + (distance if operator == "+" else -distance)
        kind = left.type if left.type.kind == "pointer" else pointer(inner)
        return _constant(at, kind)

    # -- what leads elsewhere ---------------------------------------------------------------------------------
    def _goal(self, value: Value, operator: str) -> Value:
        """What a pointer leads to; an array is its first element."""
        if not _leads(value.type):
            raise UsageError(f"{operator!r} needs a pointer, and this is {_article(value.type.spelled or 'a number')}")
        inner = self._inner(value)
        if inner.kind == "other" and not inner.size:
            raise UsageError(f"a pointer to {inner.spelled or 'code'} leads to nothing that is known: "
                             "write (type *) before it")
        at = self._pointed(value)
        if not at:
            raise UsageError(f"{operator!r} needs a pointer that leads somewhere, and this one is 0")
        return Value("", inner, Place(address=at & U64))

    def _inner(self, value: Value) -> Type:
        return self._complete(value.type.inner or VOID)

    def _pointed(self, value: Value) -> int:
        return self._address(value) if value.type.kind == "array" else self._number(value) & U64

    def _member(self, value: Value, name: str) -> Value:
        kind = self._complete(value.type)
        if kind.kind == "pointer":
            raise UsageError(f"this is a pointer: write ->{name} instead of .{name}")
        if kind.kind != "struct":
            raise UsageError(f"{name!r} is asked of {_article(kind.spelled or 'a number')}, which has no members")
        found = _find_member(kind, name)
        if found is None:
            known = ", ".join(member for member, _, _ in kind.members if member)
            raise UsageError(f"{kind.spelled} has no member {name!r} that can be read; it has {known or 'none'}")
        offset, inner = found
        if value.place.address is None:
            number = self._number(value, any_kind=True) >> 8 * offset
            return Value("", inner, Place(value=number & ((1 << 8 * inner.size) - 1)))
        return Value("", inner, Place(address=value.place.address + offset & U64))

    @staticmethod
    def _address(value: Value) -> int:
        if value.place.address is None:
            raise UsageError("this is no place in memory, and has no address")
        return value.place.address

    def _cast(self, kind: Type, value: Value) -> Value:
        if kind.kind in ("struct", "other"):
            raise UsageError(f"nothing can be converted to {kind.spelled}")
        number = self._pointed(value) if value.type.kind == "array" else self._number(value)
        return _constant(bool(number) if kind.kind == "boolean" else number, kind)

    # -- numbers and types ------------------------------------------------------------------------------------
    def _number(self, value: Value, any_kind: bool = False) -> int:
        """The number that is there, negative where its type says so."""
        kind = value.type
        if kind.kind == "array":
            return self._address(value)
        if not any_kind and (kind.kind == "struct" or not 0 < kind.size <= 8):
            raise UsageError(f"{_article(kind.spelled or 'this')} is no number")
        if value.place.address is not None:
            data = self._guest.memory.read(value.place.address, kind.size)
            return wrapped(int.from_bytes(data, "little"), kind)
        return wrapped(value.place.value or 0, kind)

    @staticmethod
    def _size(kind: Type) -> int:
        if not kind.size:
            raise UsageError(f"the size of {kind.spelled or 'this'} is not known")
        return kind.size

    def _complete(self, kind: Type) -> Type:
        """A structure that is only declared where it is used, from where it is defined."""
        if kind.kind == "struct" and not kind.size and not kind.members:
            return self._locals.type_called(re.sub(r"\b(?:const|volatile) ", "", kind.spelled)) or kind
        return kind

    def _type(self, tree: Tree) -> Type:
        """The type that a text names."""
        _, name, stars = tree
        found = builtin(name) or self._locals.type_called(name)
        if found is None:
            raise UsageError(f"no type is called {name!r}")
        for _ in range(stars):
            found = pointer(found)
        return found


def _constant(value: int, kind: Type) -> Value:
    return Value("", kind, Place(value=value & ((1 << 8 * kind.size) - 1)))


def _leads(kind: Type) -> bool:
    return kind.kind in ("pointer", "array")


def _find_member(kind: Type, name: str, depth: int = 8) -> tuple[int, Type] | None:
    """The offset and the type of a member, also of a structure inside that has no name."""
    for member, offset, inner in kind.members:
        if member == name:
            return offset, inner
        found = _find_member(inner, name, depth - 1) if not member and depth else None
        if found is not None:
            return offset + found[0], found[1]
    return None


def _article(text: str) -> str:
    return text if text.startswith(("a ", "this")) else f"{'an' if text[:1] in 'aeio' else 'a'} {text}"
