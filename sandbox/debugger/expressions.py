"""Numbers as people write them at a debugger's prompt.

::

    0xffff88800025e000      115,301      rax      $rdi + 8      kmalloc+0x12      boot_cpu + percpu.slots
    [rdi + kmem_cache.partial]           the eight bytes there
    dword ptr [rsp+8]                    four of them
    $                                    the last value
    ffff88800025e020                     an address as the panes show it, 16 digits
    helper@more.c                        of several static names the one of that file

Names are registers, variables of the C function that runs (their numbers and pointers), labels of the kernel and the
program, and the constants of their sources, in this order. A label wins over a constant, and ``-`` is always minus.

A text with a variable of C in it that is no memory operand is an expression of C (:mod:`.c_expressions`), and so is one
with what only C has: ``order->pieces``, ``squares[9]``, ``*list``, ``1 < 2``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from ..address import U64
from ..errors import SymbolNotFound, UsageError
from ..guest.symbols import Symbols
from ..layout import Readable
from ..toolchain.expression import ExpressionError, Linear, evaluate
from .c_expressions import CExpressions, Value, is_of_c, looks_like_c

_GROUPED = re.compile(r"(?<![\w.])[0-9]{1,3}(?:[,_][0-9]{3})+(?![\w.])")
_LAST = re.compile(r"\$(?!\w)")
_SIGIL = re.compile(r"\$(?=\w)")
_MEMORY = re.compile(r"(?:\b(?P<size>byte|word|dword|qword)\s+(?:ptr\s*)?)?\[(?P<address>[^\[\]]*)\]")
_BARE = re.compile(r"(?<![\w.])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{16}(?![\w.])")
_ASSEMBLERS, _OURS = "may stand only in .if conditions", "compares in C alone, and [...] is no C"
_SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8}


def is_bare_address(text: str) -> bool:
    """Whether a text is 16 hexadecimal digits without ``0x``, a letter among them."""
    return _BARE.fullmatch(text) is not None


class Expressions:
    """Evaluates against one state of a guest: what ``registers`` and ``memory`` say when asked."""

    def __init__(self, symbols: Symbols, registers: Mapping[str, int], memory: Readable,
                 variables: Callable[[str], int | None] = lambda name: None,
                 c: Callable[[], CExpressions] | None = None) -> None:
        self.last = 0
        self._c = c
        self._symbols = symbols
        self._registers = registers
        self._memory = memory
        self._variables = variables

    def value(self, text: str) -> int:
        """The value of ``text``, an unsigned number of 64 bits.

        :class:`UsageError` for what cannot be read, :class:`SymbolNotFound` for a name that nobody defines,
        :class:`TranslationError` for memory that is not mapped.
        """
        of_c = self.in_c(text)
        if of_c is not None and self._c is not None:
            return self._c().number(of_c)
        plain = _ungrouped(text)
        plain = _SIGIL.sub("", _LAST.sub(f"{self.last:#x}", plain))
        for name in self._symbols.qualified:
            plain = plain.replace(name, f"{int(self._symbols[name]):#x}")
        plain = _BARE.sub(lambda found: found[0] if self._find(found[0]) else f"0x{found[0]}", plain)
        while True:
            plain, count = _MEMORY.subn(self._read, plain)
            if not count:
                break
        return self._evaluate(plain)

    def in_c(self, text: str) -> Value | None:
        """What a text is as an expression of C; None where it is meant for the assembly around."""
        if self._c is None or not text.strip():
            return None
        c, plain = self._c(), _ungrouped(text)
        if not is_of_c(plain, c.is_variable) and not looks_like_c(plain):
            return None
        return c.evaluate(plain)

    def of_assembly(self, name: str) -> int | None:
        """The value of a register, ``$rax`` or ``rax``, of ``$``, of a label or a constant; None for another name."""
        if name == "$":
            return self.last
        name = name.removeprefix("$")
        if name in set(self._registers):
            return self._registers[name]
        if name in self._symbols:
            return int(self._symbols[name])
        return next((image.constants[name] for image in self._symbols.images if name in image.constants), None)

    def unknown(self, name: str) -> SymbolNotFound:
        """The error for a name that nobody defines."""
        known = [*self._registers, *self._symbols, *(key for image in self._symbols.images for key in image.constants)]
        return SymbolNotFound(name, get_close_matches(name, known, n=3))

    def _read(self, found: re.Match[str]) -> str:
        size = _SIZES[found["size"] or "qword"]
        return f"{int.from_bytes(self._memory.read(self._evaluate(found['address']), size), 'little'):#x}"

    def _evaluate(self, text: str) -> int:
        if not text.strip():
            raise UsageError("an address or an expression is missing")
        try:
            return evaluate(text, self._lookup).value & U64
        except ExpressionError as error:
            raise UsageError(str(error).replace(_ASSEMBLERS, _OURS)) from None

    def _find(self, name: str) -> Linear | None:
        """What a name stands for; None where nobody defines it."""
        held = None if name in set(self._registers) else self._variables(name)
        found = self.of_assembly(name) if held is None else held
        return None if found is None else Linear(found)

    def _lookup(self, name: str) -> Linear:
        found = self._find(name)
        if found is None:
            raise self.unknown(name)
        return found


def _ungrouped(text: str) -> str:
    """Numbers without the commas that the panes show in them."""
    return _GROUPED.sub(lambda found: found[0].replace(",", "").replace("_", ""), text.strip())
