"""Two kinds of address, never mixed, and the arithmetic of pages.

Intel SDM volume 3A, section 4.5: with 4-level paging a linear (virtual) address has 48 significant bits; bit 47
is copied into bits 48-63, and an address where it is not is called non-canonical.
"""

from __future__ import annotations

from typing import TypeVar

from .errors import UsageError

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
LARGE_PAGE_SHIFT = 21
LARGE_PAGE_SIZE = 1 << LARGE_PAGE_SHIFT
VIRTUAL_BITS = 48
U64 = (1 << 64) - 1

_Address = TypeVar("_Address", bound="_AddressBase")


class _AddressBase(int):
    """An address stays an address of its kind when an offset is added to it."""

    def __add__(self: _Address, offset: int) -> _Address:
        return type(self)(int(self) + int(offset))

    def page(self: _Address) -> _Address:
        """The first byte of the 4 KiB page that this address lies in."""
        return type(self)(page_down(self))

    def __str__(self) -> str:
        return f"0x{int(self):016x}"

    __repr__ = __str__


class PhysAddr(_AddressBase):
    """A physical address: what page tables hold, what RAM is indexed by, what Unicorn's memory hooks report."""


class VirtAddr(_AddressBase):
    """A virtual (linear) address: what registers hold and what Unicorn's code hooks report."""


def check_address(address: object) -> None:
    """Refuse what is no number of 64 bits with :class:`UsageError`."""
    if isinstance(address, bool) or not isinstance(address, int) or not 0 <= address <= U64:
        raise UsageError(f"an address is a number from 0 to 2^64 - 1, not {address!r}")


def page_down(address: int) -> int:
    """The multiple of 4096 at or below ``address``."""
    return address & ~(PAGE_SIZE - 1)


def page_up(address: int) -> int:
    """The multiple of 4096 at or above ``address``."""
    return align_up(address, PAGE_SIZE)


def align_up(value: int, alignment: int) -> int:
    """The multiple of ``alignment`` (a power of two) at or above ``value``."""
    return (value + alignment - 1) & ~(alignment - 1)


def pages(size: int) -> int:
    """How many 4 KiB pages ``size`` bytes take."""
    return page_up(size) >> PAGE_SHIFT


def is_canonical(address: int) -> bool:
    """Whether bits 48-63 repeat bit 47."""
    return canonical(address) == address


def canonical(address: int) -> int:
    """``address`` with bit 47 copied into bits 48-63, as an unsigned 64-bit number."""
    low = address & ((1 << VIRTUAL_BITS) - 1)
    return low | (U64 & ~((1 << VIRTUAL_BITS) - 1)) if low >> (VIRTUAL_BITS - 1) else low
