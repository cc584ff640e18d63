"""What an assembler must do for us, and which one this host has."""

from __future__ import annotations

from typing import Protocol

from ..errors import EngineError


class Rejected(Exception):
    """An assembler does not take the text; ``line`` is the number of the line, from 1, where it says so."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.reason = reason
        self.line = line
        super().__init__(reason)


class Backend(Protocol):
    """An assembler of plain text: labels, instructions, ``.set``, ``.zero``, ``.byte``, ``.p2align``, ``.quad``."""

    @property
    def needs_index(self) -> bool:
        """Whether an address without registers must be written with the empty index register, ``[riz*1 + n]``."""
        ...

    def assemble(self, text: str, base: int) -> bytes:
        """The bytes of ``text`` linked at ``base``; :class:`Rejected` when there are none."""
        ...


def default_backend() -> Backend:
    """Keystone, or GNU as, or clang, whichever is there first; :class:`EngineError` when none is."""
    from .gnu import find_assembler
    from .keystone import Keystone

    try:
        return Keystone()
    except EngineError:
        assembler = find_assembler()
    if assembler is None:
        raise EngineError("no assembler for x86-64 is here: install keystone-engine (pip install keystone-engine), "
                          "or where it has no wheel, GNU binutils for x86-64 or clang")
    return assembler
