"""Numbers of C: their types, what they are converted to, and how they wrap (C11, sections 6.2.5, 6.3.1 and 6.4.4)."""

from __future__ import annotations

from ..toolchain.c.types import Type

INT, LONG = Type("signed", 4, negative=True, spelled="int"), Type("signed", 8, negative=True, spelled="long")
UNSIGNED, ULONG = Type("unsigned", 4, spelled="unsigned int"), Type("unsigned", 8, spelled="unsigned long")
VOID = Type("other", 0, spelled="void")
_WORDS = {"char": Type("character", 1, negative=True, spelled="char"), "_Bool": Type("boolean", 1, spelled="_Bool"),
          "bool": Type("boolean", 1, spelled="bool"), "void": VOID,
          "char unsigned": Type("character", 1, spelled="unsigned char"),
          "char signed": Type("character", 1, negative=True, spelled="signed char"),
          "short": Type("signed", 2, negative=True, spelled="short"),
          "short unsigned": Type("unsigned", 2, spelled="unsigned short"),
          "": INT, "unsigned": UNSIGNED, "long": LONG, "long unsigned": ULONG,
          "long long": Type("signed", 8, negative=True, spelled="long long"),
          "long long unsigned": Type("unsigned", 8, spelled="unsigned long long")}


def builtin(name: str) -> Type | None:
    """A type that C has without any declaration, its words in any order."""
    words = name.split()
    counted = sorted(word for word in words if word != "int" and (word != "signed" or "char" in words))
    return _WORDS.get(" ".join(counted)) if words else None


def literal(value: int, suffix: str) -> Type:
    """The first type that a number fits into (C11, 6.4.4.1)."""
    decimal = "x" not in suffix
    wanted = [kind for kind in (INT, UNSIGNED, LONG, ULONG)
              if ("u" not in suffix or not kind.negative) and ("l" not in suffix or kind.size == 8)
              and (not decimal or "u" in suffix or kind.negative or kind is ULONG)]
    return next(kind for kind in wanted if value < 1 << (8 * kind.size - kind.negative))


def wrapped(value: int, kind: Type) -> int:
    """A number as it is in a type."""
    bits = 8 * kind.size
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind.negative and value >> (bits - 1) else value


def pointer(inner: Type) -> Type:
    """The type of a pointer to something of a type."""
    return Type("pointer", 8, spelled=f"{inner.spelled}{'' if inner.spelled.endswith('*') else ' '}*", to=lambda: inner)


def promoted(kind: Type) -> Type:
    """A number of at least an int's size."""
    if kind.kind in ("pointer", "array"):
        return ULONG
    if kind.size < 4:
        return INT
    if kind.kind == "enum":
        return INT if kind.negative else UNSIGNED
    return kind


def common(left: Type, right: Type) -> Type:
    """The type in which two numbers meet."""
    left, right = promoted(left), promoted(right)
    if left.size != right.size:
        return left if left.size > right.size else right
    return left if not left.negative else right
