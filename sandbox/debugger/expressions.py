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

_GROUPED = re.compile(r"(?<![\w.])[0-9]{1,3}(?:[,_][0-9]{3})+(?![\w.])")
_LAST = re.compile(r"\$(?!\w)")
_SIGIL = re.compile(r"\$(?=\w)")
_MEMORY = re.compile(r"(?:\b(?P<size>byte|word|dword|qword)\s+(?:ptr\s*)?)?\[(?P<address>[^\[\]]*)\]")
_BARE = re.compile(r"(?<![\w.])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{16}(?![\w.])")
_SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8}


def is_bare_address(text: str) -> bool:
    """Whether a text is 16 hexadecimal digits without ``0x``, a letter among them."""
    return _BARE.fullmatch(text) is not None


class Expressions:
    """Evaluates against one state of a guest: what ``registers`` and ``memory`` say when asked."""

    def __init__(self, symbols: Symbols, registers: Mapping[str, int], memory: Readable,
                 variables: Callable[[str], int | None] = lambda name: None) -> None:
        self.last = 0
        self._symbols = symbols
        self._registers = registers
        self._memory = memory
        self._variables = variables

    def value(self, text: str) -> int:
        """The value of ``text``, an unsigned number of 64 bits.

        :class:`UsageError` for what cannot be read, :class:`SymbolNotFound` for a name that nobody defines,
        :class:`TranslationError` for memory that is not mapped.
        """
        plain = _GROUPED.sub(lambda found: found[0].replace(",", "").replace("_", ""), text.strip())
        plain = _SIGIL.sub("", _LAST.sub(f"{self.last:#x}", plain))
        for name in self._symbols.qualified:
            plain = plain.replace(name, f"{int(self._symbols[name]):#x}")
        plain = _BARE.sub(lambda found: found[0] if self._find(found[0]) else f"0x{found[0]}", plain)
        while True:
            plain, count = _MEMORY.subn(self._read, plain)
            if not count:
                break
        return self._evaluate(plain)

    def _read(self, found: re.Match[str]) -> str:
        size = _SIZES[found["size"] or "qword"]
        return f"{int.from_bytes(self._memory.read(self._evaluate(found['address']), size), 'little'):#x}"

    def _evaluate(self, text: str) -> int:
        if not text.strip():
            raise UsageError("an address or an expression is missing")
        try:
            return evaluate(text, self._lookup).value & U64
        except ExpressionError as error:
            raise UsageError(str(error)) from None

    def _find(self, name: str) -> Linear | None:
        """What a name stands for; None where nobody defines it."""
        if name in set(self._registers):
            return Linear(self._registers[name])
        held = self._variables(name)
        if held is not None:
            return Linear(held)
        if name in self._symbols:
            return Linear(int(self._symbols[name]))
        return next((Linear(image.constants[name]) for image in self._symbols.images if name in image.constants), None)

    def _lookup(self, name: str) -> Linear:
        found = self._find(name)
        if found is not None:
            return found
        known = [*self._registers, *self._symbols, *(key for image in self._symbols.images for key in image.constants)]
        raise SymbolNotFound(name, get_close_matches(name, known, n=3))
