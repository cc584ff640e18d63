"""What the tests of slab_debug share: a cache with flags, damage to it, and Linux's lines about it."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.abi import SlabFlag, kmem_cache, page
from sandbox.kernel import Kernel

F, Z, P = SlabFlag.SLAB_CONSISTENCY_CHECKS, SlabFlag.SLAB_RED_ZONE, SlabFlag.SLAB_POISON
U, T, A = SlabFlag.SLAB_STORE_USER, SlabFlag.SLAB_TRACE, SlabFlag.SLAB_FAILSLAB
KMALLOC = SlabFlag.SLAB_KMALLOC
LINE, RULE = "=" * 77, "-" * 77


@dataclass
class Cache:
    """A cache of a test, and what was printed since it was made."""

    kernel: Kernel
    address: int
    printed: int

    def alloc(self, size: int | None = None) -> int:
        """An object of the cache."""
        if size is None:
            return self.kernel.call("kmem_cache_alloc", self.address)
        return self.kernel.call("kmem_cache_alloc_sized", self.address, size)

    def free(self, pointer: int) -> None:
        """Give it back."""
        self.kernel.call("kmem_cache_free", self.address, pointer)

    def validate(self) -> int:
        """Reports and repairs."""
        return self.kernel.call("kmem_cache_validate", self.address)

    @property
    def text(self) -> str:
        """All that the kernel has printed since the cache was made."""
        return self.kernel.console[self.printed:].replace("\r", "")

    @property
    def struct(self) -> kmem_cache:
        """Its bytes."""
        return kmem_cache(self.kernel.memory, self.address)

    def page_of(self, pointer: int) -> page:
        """The struct page of an object's slab."""
        slab = self.kernel.heap.find(pointer).slab
        assert slab is not None
        return slab.page

    @classmethod
    def make(cls, kernel: Kernel, size: int, flags: int = 0, name: str = "test", align: int = 0,
             ctor: int = 0) -> Cache:
        """A new cache."""
        address = kernel.call("kmem_cache_create", name, size, align, int(flags), ctor)
        assert address
        return cls(kernel, address, len(kernel.console))


def poke(cache: Cache, address: int, value: int) -> None:
    """Write a byte."""
    cache.kernel.memory[address : address + 1] = bytes([value])


def dump(label: str, address: int, data: bytes) -> str:
    """Linux's print_hex_dump with 16 bytes on a line."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{label}{address + at:016x}: {' '.join(f'{byte:02x}' for byte in row):<49}{text}\n")
    return "".join(lines)


def head(name: str, what: str) -> str:
    """The first lines of a report."""
    return f"{LINE}\nBUG {name} (Not tainted): {what}\n{RULE}\n\n"


def slab_line(info: page, used: int | None = None, fp: int | None = None) -> str:
    """The line about a slab."""
    return (f"Slab 0x{info.address:016x} objects={info.objects} used={info.inuse if used is None else used} "
            f"fp=0x{info.freelist if fp is None else fp:016x} flags=0x{int(info.flags):x}\n")
