"""Whose code runs: each address of the kernel's text with its :class:`~sandbox.trace.shadow_states.Code`.

Code of the allocator may touch everything. A helper (``memset``, ``list_add``, a spinlock) has the right of its
caller: the return addresses are looked for on the stack, from RSP upwards, until one is not a helper's. Helpers have
no frames of their own to speak of, so that the first words hold it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from ..guest.symbols import Symbols
from ..toolchain.disassembler import Disassembler
from .ram import Ram
from .shadow_states import ALLOCATOR_CODE, COPY_FUNCTIONS, HELPER_CODE, STACK_WORDS, Code

LONGEST_STATEMENT = 4096
"""Bytes of a statement that a call is looked for in."""


class CodeMap:
    """The classes of a kernel's text, and the questions that the shadow asks about code."""

    def __init__(self, symbols: Symbols, ram: Ram) -> None:
        image = symbols.images[0]
        self.start = image.base
        self.size = image.text_end - image.base
        self._symbols = symbols
        self._ram = ram
        self._disassembler = Disassembler()
        self._statements: dict[int, list[int]] = {}      # where those of an image begin
        # One byte in front, for the byte before a return address at the very beginning.
        self.table: npt.NDArray[np.uint8] = np.zeros(self.size + 1, np.uint8)
        for name, (first, end) in image.functions.items():
            line = image.line(first)
            file = line.file.rsplit("/", 1)[-1] if line is not None else ""
            code = (Code.COPY if name in COPY_FUNCTIONS else Code.ALLOCATOR if file.startswith(ALLOCATOR_CODE)
                    else Code.HELPER if file in HELPER_CODE else Code.OTHER)
            self.table[first - self.start + 1 : end - self.start + 1] = code
        self._classes = bytes(self.table[1:])

    def of(self, address: int) -> int:
        """Whose instruction lies at ``address``, as a :class:`Code`."""
        offset = address - self.start
        return self._classes[offset] if 0 <= offset < self.size else 0

    def responsible(self, rip: int, rsp: int, cr3: int) -> int:
        """Whose access it is that the instruction at ``rip`` makes: a helper's is its caller's."""
        code = self.of(rip)
        if code < Code.HELPER:
            return code
        for index in range(STACK_WORDS):
            word = self._ram.word(rsp + 8 * index, cr3)
            if self._symbols.in_text(word):
                code = self.of(word - 1)
                if code < Code.HELPER:
                    return code
        return Code.OTHER

    def call_before(self, returns: int, read: Callable[[int, int], bytes]) -> int | None:
        """The address of the ``call`` that ends where ``returns`` points, None where there is none.

        A statement begins where the source says, so no bytes are guessed to be an instruction. One of C is many of
        them.
        """
        image = self._symbols.image_at(returns - 1)
        if image is None or not self._symbols.in_text(returns - 1):
            return None
        starts = self._statements.setdefault(image.base, sorted(image.lines))
        index = bisect_right(starts, returns - 2) - 1
        if index < 0:
            return None
        at = starts[index]
        for found in self._disassembler.listing(read(at, min(returns - at, LONGEST_STATEMENT)), at):
            if found.end == returns:
                return found.address if found.mnemonic == "call" else None
        return None


def data_of(symbols: Symbols, files: Iterable[str]) -> list[tuple[int, int]]:
    """The ranges of virtual addresses [start, end) of the kernel's writable data that these files define."""
    image = symbols.images[0]
    section = image.section("data")
    if section is None:
        return []
    wanted = frozenset(files)
    inside = [(at, file.rsplit("/", 1)[-1] in wanted) for at, (file, _) in sorted(image.lines.items())
              if section.address <= at < section.end]
    ends = [at for at, _ in inside[1:]] + [section.end]
    found: list[tuple[int, int]] = []
    for (at, ours), end in zip(inside, ends, strict=True):
        if ours and found and found[-1][1] == at:
            found[-1] = found[-1][0], end
        elif ours:
            found.append((at, end))
    return found
