"""Names for addresses, addresses for names: the kernel's image and the program's as one table.

A function's C prototype is read from the comment above its label (``# void *kmalloc(size_t size)``), which every
function of the kernel has: the number of arguments of a call can then be checked before the guest runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from ..address import VirtAddr
from ..errors import SymbolNotFound
from ..toolchain.c.variables import Variables
from ..toolchain.image import Image
from ..toolchain.prototype import Prototype, prototypes
from ..toolchain.source import SourceLine
from ..toolchain.unwind import Unwind


@dataclass(frozen=True)
class Location:
    """An address in words; its text is ``kmalloc+0x12 (kmalloc.asm:31)``, the bare address where nothing is known."""

    address: VirtAddr
    symbol: str = ""
    offset: int = 0
    source: SourceLine | None = None

    def __str__(self) -> str:
        if not self.symbol:
            return str(self.address)
        place = f" ({self.source})" if self.source else ""
        return (f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol) + place


class Symbols(Mapping[str, VirtAddr]):
    """Every label of the kernel and of the program; ``symbols["kmalloc"]`` raises :class:`SymbolNotFound`."""

    def __init__(self, *images: Image) -> None:
        self.images = images
        self._addresses = {name: VirtAddr(address) for image in images for name, address in image.symbols.items()}

    def __getitem__(self, name: str) -> VirtAddr:
        try:
            return self._addresses[name]
        except KeyError:
            raise SymbolNotFound(str(name), get_close_matches(str(name), self._addresses, n=3)) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The address of ``name``, or ``default``."""
        return self._addresses.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._addresses

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def __repr__(self) -> str:
        return f"<{len(self)} symbols>"

    def image_at(self, address: int) -> Image | None:
        """The image that ``address`` lies in."""
        return next((image for image in self.images if image.section_at(address)), None)

    def locate(self, address: int) -> Location:
        """The label at or before ``address`` in its section, how far behind it, and the line of the source."""
        image = self.image_at(address)
        section = image.section_at(address) if image else None
        if image is None or section is None:
            return Location(VirtAddr(address))
        starts, names = self._sorted
        at = bisect_right(starts, address) - 1
        if at < 0 or starts[at] < section.address:
            return Location(VirtAddr(address), source=image.line(address))
        return Location(VirtAddr(address), names[at], address - starts[at], image.line(address))

    def end_of(self, address: int) -> int:
        """Where the label behind ``address`` stands; 2^64 behind the last one."""
        starts, _ = self._sorted
        at = bisect_right(starts, address)
        return starts[at] if at < len(starts) else 1 << 64

    def line(self, address: int) -> SourceLine | None:
        """The source line whose bytes hold ``address``."""
        image = self.image_at(address)
        return image.line(address) if image else None

    def in_text(self, address: int) -> bool:
        """Whether code of the kernel or of the program lies at ``address``."""
        image = self.image_at(address)
        section = image.section_at(address) if image else None
        return section is not None and "x" in section.rights

    def prototype(self, name: str) -> Prototype | None:
        """The C prototype written above the function ``name``, None where there is none."""
        return self._prototypes.get(name)

    @cached_property
    def qualified(self) -> tuple[str, ...]:
        """Names like ``helper@more.c``, of what is static in several files; longer ones first."""
        return tuple(sorted((name for name in self._addresses if "@" in name), key=len, reverse=True))

    def variables(self, address: int) -> Variables | None:
        """The variables of the C around ``address``; None outside of any."""
        image = self.image_at(address)
        if image is None or not image.debug:
            return None
        if image.base not in self._variables:
            self._variables[image.base] = Variables(image)
        return self._variables[image.base]

    @cached_property
    def _variables(self) -> dict[int, Variables]:
        return {}

    @cached_property
    def unwind(self) -> Unwind:
        """The rules by which the stack is unwound, worked out when they are first asked for."""
        return Unwind(*self.images)

    @cached_property
    def _sorted(self) -> tuple[list[int], list[str]]:
        """Addresses and names, ascending; of several labels at one address the first that was written."""
        first: dict[int, str] = {}
        for name, address in self._addresses.items():
            first.setdefault(int(address), name)
        starts = sorted(first)
        return starts, [first[start] for start in starts]

    @cached_property
    def _prototypes(self) -> dict[str, Prototype]:
        return {name: found for image in self.images for name, found in prototypes(image).items()}
