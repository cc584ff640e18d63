"""Reads of unwritten bytes that a compiler makes of sound C: they are no mistake of anybody's.

- A struct is copied with its padding, a bit-field is read with its neighbours: a load of which some bytes are written.
- A bit-field is set: its unit is loaded, and-ed or or-ed, and stored again.
- The C library moves elements of which it knows nothing but the size (``qsort``).

What such a load brings into registers is not followed. Assembly says what it means, and is judged by each byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..guest.symbols import Symbols
from ..toolchain.disassembler import Disassembler
from .callers import LIBRARY

_MEMORY = re.compile(r"(?:byte|word|dword|qword) ptr (?:\w+:)?(\[[^\]]+\])")
_MASKS = frozenset(("and", "or", "xor", "btr", "bts"))
_AHEAD = 10
"""Instructions between the load of a bit-field's unit and its store."""
_LEAVES = ("j", "call", "ret")


class Compiled:
    """Knows which code is compiled; ``read`` gives bytes of it by address."""

    def __init__(self, symbols: Symbols, read: Callable[[int, int], bytes]) -> None:
        self._symbols = symbols
        self._read = read
        self._disassembler = Disassembler()

    def may_read(self, rip: int, unwritten: int, size: int) -> bool:
        """Whether the instruction at ``rip`` may load ``size`` bytes of which ``unwritten`` were never written."""
        image = self._symbols.image_at(rip)
        if image is None or not image.compiled:
            return False
        line = image.line(rip)
        return unwritten < size or (line is not None and line.file.startswith(LIBRARY)) or self._sets_bits(rip)

    def _sets_bits(self, rip: int) -> bool:
        """Whether what is loaded at ``rip`` is masked and goes back to where it came from."""
        image = self._symbols.image_at(rip)
        section = image.section_at(rip) if image is not None else None
        if section is None:
            return False
        code = self._read(rip, min(15 * _AHEAD, section.end - rip))
        place, masked = None, False
        for number, step in enumerate(self._disassembler.sweep(code, rip)):
            found = _MEMORY.search(step.operands)
            stores = found is not None and step.operands.startswith(found[0])
            masked = masked or step.mnemonic in _MASKS
            if number == 0:
                if found is None or (stores and not masked):
                    return False
                place = found[1]
            if number > _AHEAD or step.mnemonic.startswith(_LEAVES):
                return False
            if found is not None and stores and found[1] == place:
                return masked and step.mnemonic in ("mov", *_MASKS)
        return False
