"""Guest memory as a booted kernel's users see it: by virtual and by physical address, every write in the journal.

Both answer like a debugger: wherever a page is mapped they read and write, whatever the page's rights are, and
looking changes nothing in the guest.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, SupportsIndex, overload

from ..address import PAGE_SHIFT, PAGE_SIZE, U64, PhysAddr
from ..errors import UsageError
from ..machine.machine import Machine
from ..machine.memory import ByteAccess
from .journal import Write

_OFFSET = PAGE_SIZE - 1


class TranslatedMemory(ByteAccess):
    """Virtual memory through the present page tables; an address that no page maps raises ``TranslationError``.

    While the machine stands still its page tables do too, so translations are kept until it has moved or
    :meth:`forget` is called.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ram = machine.memory
        self._frames: dict[int, int] = {}        # page number -> physical address of the page
        self._moment = -1                        # the instruction count at which they were read

    def translate(self, address: int) -> PhysAddr:
        """The physical address behind a virtual one; ``TranslationError`` tells the walk that fails."""
        return PhysAddr(self._translate(address))

    def _translate(self, address: int) -> int:
        if self._moment != self._machine.instructions:
            self._frames.clear()
            self._moment = self._machine.instructions
        frame = self._frames.get(address >> PAGE_SHIFT)
        if frame is None:
            frame = self._frames[address >> PAGE_SHIFT] = self._walk(_checked(address)) & ~_OFFSET
        return frame | address & _OFFSET

    def _walk(self, address: int) -> int:
        """A walk of the page tables, the quick one where nothing about the page is remarkable."""
        cpu, paging = self._machine.cpu, self._machine.paging
        found = paging.reach(address, False, cpu["cr3"] if cpu.running else cpu.view.control(3))
        return int(paging.translate(address)) if found is None else found

    def read(self, address: int, size: int) -> bytes:
        if not isinstance(address, int):
            raise UsageError(f"an address is an int, not {type(address).__name__}")
        if not isinstance(size, int):
            _size(size)
        if 0 < size <= PAGE_SIZE - (address & _OFFSET):
            return self._ram.read(self._translate(address), size)
        return b"".join(self._ram.read(physical, length) for physical, length in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        if 0 < len(data) <= PAGE_SIZE - (_checked(address) & _OFFSET):
            self._ram.write(self._translate(address), data)
            self._frames.clear()                 # what was written may be a page table
            return
        done = 0
        for physical, length in self._pieces(address, len(data)):
            self._ram.write(physical, data[done : done + length])
            done += length
        self._frames.clear()

    def require_stopped(self) -> None:
        """Refuse a write from inside a hook, for the journal has no place for what happens in the middle of a run, and
        to a kernel that is closed."""
        if self._machine.cpu.closed:
            raise UsageError("this kernel is closed")
        if self._machine.cpu.running:
            raise UsageError("the machine is running: a hook can read, and cannot write")

    def forget(self) -> None:
        """Translate anew: the machine went to another state, perhaps with the same instruction count."""
        self._frames.clear()

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """The physical ranges behind ``size`` bytes, split at page edges; all of them translate, or it raises."""
        _size(size)
        pieces = []
        while size > 0:
            length = min(PAGE_SIZE - (address & _OFFSET), size)
            pieces.append((self._translate(address), length))
            address, size = address + length, size - length
        return pieces


class GuestBytes(bytes):
    """What ``memory[a:b]`` gives: bytes like any others, that know where they were read.

    ``address`` is that of the first one, ``memory()`` the memory, None when it is gone. Slices of them know it too,
    and a copy or a pickle are plain bytes.
    """

    address: int
    memory: weakref.ref[Any]

    @classmethod
    def read(cls, data: bytes, address: int, memory: weakref.ref[Any]) -> GuestBytes:
        """``data``, which were read at an address."""
        found = cls(data)
        found.address, found.memory = address, memory
        return found

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> int | bytes:
        found = super().__getitem__(key)
        if isinstance(key, slice) and isinstance(found, bytes):
            start, _, step = key.indices(len(self))
            if step == 1:
                return self.read(found, self.address + start, self.memory)
        return found

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (bytes(self),)


class VirtualMemory(ByteAccess):
    """Virtual memory with a record of every write: what ``kernel.memory`` is."""

    def __init__(self, memory: TranslatedMemory, record: Callable[[Write], None]) -> None:
        self._memory = memory
        self._record = record
        self._itself = weakref.ref(self)

    def read(self, address: int, size: int) -> bytes:
        return self._memory.read(address, size)

    def __getitem__(self, key: int | slice) -> Any:
        found = super().__getitem__(key)
        return GuestBytes.read(found, self._bounds(key)[0], self._itself) if isinstance(key, slice) else found

    def write(self, address: int, data: bytes) -> None:
        self._memory.require_stopped()
        self._memory.write(address, _bytes(data))
        self._record(Write(int(address), bytes(data), physical=False))

    def translate(self, address: int) -> PhysAddr:
        """The physical address behind a virtual one; ``TranslationError`` tells the walk that fails."""
        return self._memory.translate(address)


class PhysicalMemory(ByteAccess):
    """RAM by physical address with a record of every write, ``len()`` bytes: what ``kernel.physical`` is."""

    def __init__(self, machine: Machine, memory: TranslatedMemory, record: Callable[[Write], None]) -> None:
        self._ram = machine.memory
        self._memory = memory
        self._record = record
        self._itself = weakref.ref(self)

    def __getitem__(self, key: int | slice) -> Any:
        found = super().__getitem__(key)
        return GuestBytes.read(found, PhysAddr(self._bounds(key)[0]), self._itself) if isinstance(key, slice) else found

    def __len__(self) -> int:
        return len(self._ram)

    def _length(self) -> int:
        return len(self._ram)

    def read(self, address: int, size: int) -> bytes:
        return self._ram.read(_checked(address), _size(size))

    def write(self, address: int, data: bytes) -> None:
        self._memory.require_stopped()
        self._ram.write(_checked(address), _bytes(data))
        self._memory.forget()
        self._record(Write(int(address), bytes(data), physical=True))


def _checked(address: int) -> int:
    if not isinstance(address, int):
        raise UsageError(f"an address is an int, not {type(address).__name__}")
    if not 0 <= address <= U64:
        raise UsageError(f"{address:#x} is no 64-bit address")
    return address


def _bytes(data: bytes) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UsageError(f"memory is written bytes, not {type(data).__name__}")
    return bytes(data)


def _size(size: int) -> int:
    if not isinstance(size, int) or size < 0:
        raise UsageError(f"a size of {size!r} bytes")
    return size
