"""Physical RAM on one anonymous ``mmap``, and the memory map that a PC's firmware would report.

The mapping is shared with the emulated CPU, so that Python reads and writes guest memory without calling it.
Byte ``n`` of the mapping is physical address ``n``; the hole between 640 KiB and 1 MiB, where a PC has its video
memory and its firmware, has no RAM behind it for the guest nor for Python.
"""

from __future__ import annotations

import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from ctypes import addressof, c_char
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..address import PAGE_SIZE
from ..errors import GuestMemoryError, PhysicalAddressError, UsageError
from .ram_pages import PageKeeper, RamPages

HOLE_START = 0xA0000  # video memory, option ROMs, firmware
HOLE_END = 0x100000
MINIMUM_RAM = 0x200000
MAXIMUM_RAM = 0xC0000000  # from 3 GiB up lie the devices of a PC


@dataclass(frozen=True)
class MemoryRegion:
    """One row of the E820-style memory map: physical bytes ``start`` up to, but not including, ``end``."""

    start: int
    end: int
    kind: str  # "usable" or "reserved"

    @property
    def size(self) -> int:
        """Bytes in the region."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"0x{self.start:012x}-0x{self.end:012x} {self.kind}"


class ByteAccess(ABC):
    """Integers, strings and slices on top of ``read`` and ``write``, the same for either kind of address.

    ``memory[a:b]`` is the bytes from ``a`` up to ``b``; ``memory[a:b] = data`` stores exactly ``b - a`` bytes;
    ``memory[a]`` is one byte as an int. All integers are unsigned and little-endian.
    """

    @abstractmethod
    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address`` on, or a ``GuestMemoryError`` with the first byte that is not there."""

    @abstractmethod
    def write(self, address: int, data: bytes) -> None:
        """Store all of ``data`` from ``address`` on, or nothing of it and raise."""

    def u8(self, address: int) -> int:
        """The byte at ``address``."""
        return self.read(address, 1)[0]

    def u16(self, address: int) -> int:
        """The 2-byte integer at ``address``."""
        return int.from_bytes(self.read(address, 2), "little")

    def u32(self, address: int) -> int:
        """The 4-byte integer at ``address``."""
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        """The 8-byte integer at ``address``."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u8(self, address: int, value: int) -> None:
        """Store the low byte of ``value``."""
        self.write(address, bytes((value & 0xFF,)))

    def write_u16(self, address: int, value: int) -> None:
        """Store the low 2 bytes of ``value``."""
        self.write(address, (value & 0xFFFF).to_bytes(2, "little"))

    def write_u32(self, address: int, value: int) -> None:
        """Store the low 4 bytes of ``value``."""
        self.write(address, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """Store the low 8 bytes of ``value``."""
        self.write(address, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    def cstring(self, address: int, limit: int = 4096) -> bytes:
        """The bytes before the first NUL; ``GuestMemoryError`` when none comes within ``limit`` bytes."""
        found = bytearray()
        while len(found) < limit:
            at = address + len(found)
            piece = self.read(at, min(PAGE_SIZE - at % PAGE_SIZE, limit - len(found)))
            end = piece.find(b"\0")
            if end >= 0:
                return bytes(found + piece[:end])
            found += piece
        raise GuestMemoryError(address, f"no NUL within {limit} bytes from 0x{address:x} on")

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            start, stop = self._bounds(key)
            return self.read(start, stop - start)
        return self.u8(self._index(key))

    def __setitem__(self, key: int | slice, value: int | bytes | bytearray | memoryview) -> None:
        if not isinstance(key, slice):
            if not isinstance(value, int) or not 0 <= value <= 0xFF:
                raise UsageError(f"one byte of memory is assigned an int from 0 to 255, not {value!r}; use a slice for "
                                 "more")
            self.write(self._index(key), bytes((value,)))
            return
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise UsageError(f"a slice of memory is assigned bytes, not {type(value).__name__}")
        start, stop = self._bounds(key)
        if len(value) != stop - start:
            raise UsageError(f"{len(value)} bytes do not fill the slice of {stop - start} bytes at 0x{start:x}")
        self.write(start, bytes(value))

    def _bounds(self, key: slice) -> tuple[int, int]:
        """Where a slice begins and ends. Memory with a length has a beginning and an end to leave out or count from."""
        size = self._length()
        start = 0 if key.start is None and size is not None else key.start
        stop = size if key.stop is None else key.stop
        if key.step is not None or start is None or stop is None:
            raise UsageError("a slice of memory needs a start, an end behind it, and no step")
        start, stop = self._index(start), self._index(stop)
        if stop < start:
            raise UsageError("a slice of memory needs a start, an end behind it, and no step")
        return start, stop

    def _index(self, address: object) -> int:
        """A number as an address; one below 0 counts from the end where there is one."""
        if not isinstance(address, int):
            raise UsageError(f"an address is an int, not {type(address).__name__}")
        size = self._length()
        return int(address) + size if size is not None and -size <= address < 0 else int(address)

    def _length(self) -> int | None:
        """How many bytes there are, None for a space of addresses with gaps."""
        return None


class PhysicalMemory(ByteAccess):
    """The RAM of a machine, ``size`` bytes by physical address from 0 up; ``len()`` is ``size``.

    ``changed(start, end)`` is called, when it is set, before every write that Python makes from outside, ``stored``
    before those that it makes for the processor: the CPU keeps translations of code and of page tables, of which
    the processor's own stores touch the code alone. Each of ``listeners`` is called with ``(address, data, by the
    processor)`` after either.
    """

    def __init__(self, size: int) -> None:
        if size % PAGE_SIZE or not MINIMUM_RAM <= size <= MAXIMUM_RAM:
            raise UsageError(
                f"RAM of {size} bytes: it must be a multiple of 4096 from {MINIMUM_RAM >> 20} MiB to "
                f"{MAXIMUM_RAM >> 20} MiB")  # fmt: skip
        self.size = size
        self.changed: Callable[[int, int], None] | None = None
        self.stored: Callable[[int, int], None] | None = None
        self.listeners: list[Callable[[int, bytes, bool], None]] = []
        self._ram = mmap.mmap(-1, size)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._ram, dtype=np.uint8)
        self._keeper: PageKeeper | None = None           # from the first moment that is kept
        # RAM as unsigned 8-byte integers, live and read-only: index n is physical address 8 * n. For page walks.
        self.words = memoryview(self._ram).cast("Q").toreadonly()
        self.regions: tuple[MemoryRegion, ...] = (
            MemoryRegion(0, HOLE_START, "usable"),
            MemoryRegion(HOLE_START, HOLE_END, "reserved"),
            MemoryRegion(HOLE_END, size, "usable"),
        )

    def __len__(self) -> int:
        return self.size

    def _length(self) -> int:
        return self.size

    @property
    def ram(self) -> tuple[MemoryRegion, ...]:
        """The regions that have RAM."""
        return tuple(region for region in self.regions if region.kind == "usable")

    @property
    def host_address(self) -> int:
        """Where the mapping lies in this process."""
        return addressof(c_char.from_buffer(self._ram))

    def array(self) -> npt.NDArray[np.uint8]:
        """All of RAM as a read-only numpy array of bytes, live; the hole reads as zeros."""
        view: npt.NDArray[np.uint8] = self._bytes.view()
        view.flags.writeable = False
        return view

    def contains(self, address: int, size: int = 1) -> bool:
        """Whether all of these bytes are RAM."""
        end = address + size
        return address >= 0 and (end <= HOLE_START or (address >= HOLE_END and end <= self.size))

    def read(self, address: int, size: int) -> bytes:
        if not self.contains(address, size):
            self._refuse(address, size)
        return self._ram[address : address + size]

    def write(self, address: int, data: bytes) -> None:
        end = address + len(data)
        if not self.contains(address, len(data)):
            self._refuse(address, len(data))
        if self.changed is not None:
            self.changed(address, end)
        self._ram[address:end] = data
        for listener in self.listeners:
            listener(address, data, False)

    def store(self, address: int, data: bytes) -> None:
        """Write as the processor does in the course of an instruction or of an interrupt's delivery."""
        end = address + len(data)
        if not self.contains(address, len(data)):
            self._refuse(address, len(data))
        if self.stored is not None:
            self.stored(address, end)
        self._ram[address:end] = data
        for listener in self.listeners:
            listener(address, data, True)

    def u64(self, address: int) -> int:
        if not self.contains(address, 8):
            self._refuse(address, 8)
        return int.from_bytes(self._ram[address : address + 8], "little")

    def image(self) -> bytes:
        """A copy of all of RAM."""
        return self._ram[:]

    def load_image(self, image: bytes) -> None:
        """Make RAM what :meth:`image` returned, without telling ``changed``."""
        if len(image) != self.size:
            raise UsageError(f"an image of {len(image)} bytes for a RAM of {self.size} bytes")
        self._bytes[:] = np.frombuffer(image, dtype=np.uint8)

    def pages(self) -> RamPages:
        """All of RAM as it is, sharing what did not change with the moments before."""
        if self._keeper is None:
            self._keeper = PageKeeper(self._bytes)
        return self._keeper.take()

    def load_pages(self, moment: RamPages) -> None:
        """Make RAM what :meth:`pages` returned, here or in another machine, without telling ``changed``."""
        if self._keeper is None:
            self._keeper = PageKeeper(self._bytes)
        self._keeper.put(moment)

    def pages_that_differ(self, image: bytes) -> npt.NDArray[np.intp]:
        """The numbers of the 4 KiB frames in which RAM differs from ``image``, ascending."""
        now = self._bytes.view(np.uint64).reshape(-1, PAGE_SIZE // 8)
        then = np.frombuffer(image, dtype=np.uint64).reshape(-1, PAGE_SIZE // 8)
        return np.flatnonzero((now != then).any(axis=1))

    def _refuse(self, address: int, size: int) -> None:
        if size < 0:
            raise UsageError(f"a size of {size} bytes")
        first = address
        if 0 <= address < HOLE_START:
            first = HOLE_START
        elif HOLE_END <= address < self.size:
            first = self.size
        raise PhysicalAddressError(first)
