"""RAM at one moment, as pages that moments share.

Between two snapshots a kernel touches few of its pages, so that a copy of all of them is mostly a copy of the last
copy. Here the pages that did not change are the same ``bytes`` objects: a hundred snapshots cost what changed between
them, and a page is gone when the last moment that has it is. (The idea is that of copy-on-write checkpoints, as in
rr's fork server and in VM snapshots.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..address import PAGE_SIZE
from ..errors import UsageError

_ZEROS = bytes(PAGE_SIZE)


@dataclass(frozen=True)
class RamPages:
    """All of RAM at one moment, by frame number; ``len()`` is in bytes."""

    pages: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.pages) * PAGE_SIZE

    def __bytes__(self) -> bytes:
        return b"".join(self.pages)

    def __repr__(self) -> str:
        return f"<RamPages of {len(self) >> 20} MiB>"

    def beyond(self, other: RamPages) -> int:
        """How many bytes this moment takes that ``other`` does not share with it."""
        return PAGE_SIZE * sum(page is not known for page, known in zip(self.pages, other.pages, strict=True))


class PageKeeper:
    """Takes and puts back the pages of one RAM, an array of bytes. It has a copy of the moment that it last took or
    put back, and compares with that."""

    def __init__(self, ram: npt.NDArray[np.uint8]) -> None:
        self._ram = ram.reshape(-1, PAGE_SIZE)
        self._copy = np.zeros_like(self._ram)
        self._pages: tuple[bytes, ...] = (_ZEROS,) * len(self._ram)

    def take(self) -> RamPages:
        """The present moment."""
        changed = np.flatnonzero((self._ram.view(np.uint64) != self._copy.view(np.uint64)).any(axis=1))
        if len(changed):
            pages = list(self._pages)
            for number in changed.tolist():
                pages[number] = self._ram[number].tobytes()
            self._copy[changed] = self._ram[changed]
            self._pages = tuple(pages)
        return RamPages(self._pages)

    def put(self, moment: RamPages) -> None:
        """Make RAM what it was at ``moment``, of this RAM or another of its size."""
        if len(moment) != self._ram.size:
            raise UsageError(f"an image of {len(moment)} bytes for a RAM of {self._ram.size} bytes")
        if moment.pages is not self._pages:
            for number, (page, known) in enumerate(zip(moment.pages, self._pages, strict=True)):
                if page is not known:
                    self._copy[number] = np.frombuffer(page, np.uint8)
            self._pages = moment.pages
        self._ram[:] = self._copy
