"""Raw bytes, as the judges read them: bounded, never raising; and structures taken out of them in one piece.

The views (:mod:`sandbox.heap.views`) follow live fields one by one and raise where something cannot be. A judge wants
the opposite: all of a structure at once, whatever it holds, and None where no memory is.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...abi import PAGE_SIZE, list_head, page
from ...address import U64
from ...errors import GuestMemoryError
from ...layout import Field, NestedField, Struct, TextField
from ..reader import Readable

Record = Any
"""A named tuple with the fields of a structure."""
_LONGEST_READ = 1 << 26
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

FRAME: npt.DTypeLike = np.dtype({
    "names": [field.name for field in page.fields],
    "formats": [f"<u{field.width}" for field in page.fields],
    "offsets": [field.offset for field in page.fields],
    "itemsize": page.size,
})
"""``struct page`` for numpy."""


class Bytes:
    """Guest memory by virtual address, where every address may be asked."""

    def __init__(self, guest: Readable) -> None:
        self._read = guest.memory.read
        self.symbols: Mapping[str, int] = guest.symbols

    def read(self, address: int, size: int) -> bytes | None:
        """``size`` bytes, or None when one of them is nowhere."""
        if not 0 <= address <= U64 - size or size > _LONGEST_READ:
            return None
        try:
            return self._read(address, size)
        except GuestMemoryError:
            return None

    def word(self, address: int, size: int = 8) -> int | None:
        """An integer, or None."""
        data = self.read(address, size)
        return None if data is None else int.from_bytes(data, "little")

    def symbol(self, name: str) -> int | None:
        """The address of a variable of the kernel, or None."""
        return int(self.symbols[name]) if name in self.symbols else None

    def variable(self, name: str, size: int = 8) -> int | None:
        """The value of an integer variable of the kernel, or None."""
        at = self.symbol(name)
        return None if at is None else self.word(at, size)


def decoder(kind: type[Struct]) -> Callable[[bytes], Record]:
    """A function from ``kind.size`` bytes to a named tuple of its fields. Text becomes str, an array a tuple of
    bytes, and a ``struct list_head`` called ``x`` the two fields ``x_next`` and ``x_prev``."""
    names: list[str] = []
    codes = ["<"]
    texts: list[int] = []
    at = 0
    for field in kind.fields:
        codes.append(f"{field.offset - at}x" if field.offset > at else "")
        at = field.offset + field.size
        if isinstance(field, NestedField) and field.struct is list_head and field.count == 1:
            names += [f"{field.name}_next", f"{field.name}_prev"]
            codes.append("QQ")
            continue
        if isinstance(field, TextField):
            texts.append(len(names))
        names.append(field.name)
        codes.append(_CODES[field.width] if _is_number(field) else f"{field.size}s")
    codes.append(f"{kind.size - at}x")
    layout = struct.Struct("".join(codes))
    record = namedtuple(kind.__name__, names, rename=True)  # type: ignore[misc]

    def decode(data: bytes) -> Record:
        values = list(layout.unpack(data))
        for index in texts:
            values[index] = values[index].split(b"\0", 1)[0].decode("latin-1")
        return record._make(values)

    return decode


def _is_number(field: Field) -> bool:
    return field.count == 1 and not isinstance(field, (NestedField, TextField)) and field.width in _CODES


def blocks(slab_order: int) -> int:
    """Bytes of 2^order pages."""
    return PAGE_SIZE << slab_order
