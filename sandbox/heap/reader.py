"""What the views need from a guest, and how they follow its pointers.

The views work on anything that can read virtual memory and knows the kernel's symbols: a live machine, one that
stopped in a fault, a snapshot, or a heap that a test laid out by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from ..abi import DIRECT_MAP, MAXIMUM_RAM, list_head
from ..address import U64
from ..errors import GuestMemoryError, HeapCorruption, SymbolNotFound
from ..layout import Field, Struct, Writable

_Struct = TypeVar("_Struct", bound=Struct)


class Readable(Protocol):
    """What the views work on: ``memory`` by virtual address, and the kernel's ``symbols``."""

    @property
    def memory(self) -> Writable:
        """Virtual memory."""
        ...

    @property
    def symbols(self) -> Mapping[str, int]:
        """Addresses by name."""
        ...


class GuestReader:
    """Virtual memory by address, and the kernel's symbols, in one.

    Addresses come from the guest's own structures here, so one that is not mapped is a :class:`HeapCorruption`.
    """

    def __init__(self, guest: Readable) -> None:
        self.symbols = guest.symbols
        self.write = guest.memory.write
        self._read = guest.memory.read

    def read(self, address: int, size: int, what: str = "a structure of the allocator") -> bytes:
        """``size`` bytes of ``what``."""
        try:
            return self._read(address, size)
        except GuestMemoryError as error:
            raise HeapCorruption(address, f"{what} should be here, but {error}") from None


def symbol(guest: GuestReader, name: str) -> int:
    """The address of one of the allocator's own variables; :class:`SymbolNotFound` where the kernel has none."""
    try:
        return guest.symbols[name]
    except KeyError:
        raise SymbolNotFound(name) from None


def word(guest: GuestReader, address: int, what: str) -> int:
    """The 64-bit number at ``address``."""
    return int.from_bytes(guest.read(address, 8, what), "little")


def structure(guest: GuestReader, kind: type[_Struct], address: int, what: str) -> _Struct:
    """A view of the structure that a pointer leads to, after a check that it can be one: aligned, in the
    direct map or in the kernel's image, and mapped from its first to its last byte."""
    if address % kind.alignment:
        raise HeapCorruption(address, f"{what}: a struct {kind.__name__} is aligned to {kind.alignment} bytes")
    if not is_kernel_pointer(address):
        raise HeapCorruption(address, f"{what}: no kernel pointer to a struct {kind.__name__}")
    guest.read(address, kind.size, what)
    return kind(guest, address)


def is_kernel_pointer(address: int) -> bool:
    """Whether ``address`` lies in the direct map or in the half-gigabytes of the kernel and the program."""
    return DIRECT_MAP <= address < DIRECT_MAP + MAXIMUM_RAM or 0xFFFF_FFFF_8000_0000 <= address < U64 - 0xFFF


def walk_list(guest: GuestReader, head: int, link: Field, limit: int, what: str) -> Iterator[int]:
    """The addresses of the structures on a circular ``struct list_head``, first to last.

    ``head`` is the list's own head, ``link`` the field through which the structures hang on it. The walk ends at
    the head and nowhere else: a pointer that is 0, wild or misaligned, a second visit to an entry and more than
    ``limit`` entries raise :class:`HeapCorruption` with the address of the link that is wrong.
    """
    at = word(guest, head, what)
    seen: set[int] = set()
    previous = head
    while at != head:
        if at % list_head.alignment or not is_kernel_pointer(at):
            raise HeapCorruption(previous, f"{what}: the link here holds 0x{at:x}, which is no list entry")
        if at in seen:
            raise HeapCorruption(previous, f"{what}: the link here leads back to 0x{at:x}, and never to its head")
        if len(seen) >= limit:
            raise HeapCorruption(previous, f"{what}: more than {limit} entries")
        seen.add(at)
        yield at - link.offset
        previous, at = at, word(guest, at, what)


def byteswap(value: int) -> int:
    """The eight bytes of ``value`` in reverse order."""
    return int.from_bytes(value.to_bytes(8, "little"), "big")
