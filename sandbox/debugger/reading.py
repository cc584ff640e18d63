"""What names are made from: one moment's memory and heap, asked so that nothing raises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Protocol, TypeVar

from ..abi import kmem_cache, magazine
from ..errors import GuestMemoryError, HeapCorruption, UsageError
from ..guest.symbols import Symbols
from ..heap.caches import KmemCache
from ..heap.magazines import Magazine
from ..heap.reader import GuestReader, symbol, walk_list
from ..heap.views import Heap
from ..layout import Writable
from ..machine.paging import Paging
from .name import Name, field_of

_Answer = TypeVar("_Answer")
_MANY_CACHES = 4096


class HasPaging(Protocol):
    """A machine, as far as names need it."""

    @property
    def paging(self) -> Paging:
        """The page tables in force."""
        ...


class Subject(Protocol):
    """What is named: a kernel, or a captured state of one."""

    @property
    def memory(self) -> Writable:
        """Virtual memory."""
        ...

    @property
    def symbols(self) -> Symbols:
        """The labels of the kernel and of the program."""
        ...

    @property
    def heap(self) -> Heap:
        """The allocator's state."""
        ...

    @property
    def machine(self) -> HasPaging:
        """The machine below."""
        ...


class Reading:
    """One moment of a guest. What a question has found out serves the next."""

    def __init__(self, guest: Subject) -> None:
        self.guest = guest
        self.reader = GuestReader(guest)
        self.symbols = guest.symbols
        self.heap = guest.heap
        self.paging = guest.machine.paging

    def attempt(self, question: Callable[[], _Answer]) -> _Answer | None:
        """The answer to a question about guest memory, None where the memory contradicts itself or is not there."""
        with suppress(HeapCorruption, GuestMemoryError, UsageError, ValueError):
            return question()
        return None

    def word(self, address: int, size: int = 8) -> int | None:
        """The number in ``size`` bytes of virtual memory, None where nothing is mapped."""
        data = self.attempt(lambda: self.guest.memory.read(address, size))
        return None if data is None else int.from_bytes(data, "little")

    # -- caches and magazines ---------------------------------------------------------------------------------
    @cached_property
    def caches(self) -> dict[int, KmemCache]:
        """The caches on ``slab_caches`` by address, up to where that list is broken."""
        found: dict[int, KmemCache] = {}
        with suppress(HeapCorruption, UsageError):
            head = symbol(self.reader, "slab_caches")
            if self.word(head):
                for at in walk_list(self.reader, head, kmem_cache.list, _MANY_CACHES, "slab_caches"):
                    found[at] = KmemCache(self.reader, self.heap.pages, at)
        return found

    def cache_at(self, address: int) -> KmemCache | None:
        """The cache whose struct kmem_cache lies at an address, on the list or not; None where none can be."""
        return self.caches.get(address) or self.attempt(lambda: KmemCache(self.reader, self.heap.pages, address))

    @cached_property
    def slots(self) -> dict[int, str]:
        """The names of the caches by the GS offset of their struct kmem_cache_cpu."""
        return {int(cache.struct.cpu): cache.name for cache in self.caches.values()}

    @cached_property
    def _magazines(self) -> dict[int, tuple[KmemCache, Magazine]]:
        """The magazines in service by address."""
        found = {}
        for cache in self.caches.values():
            for held in self.attempt(lambda cache=cache: cache.magazines) or ():  # type: ignore[misc]
                found[held.address] = cache, held
        return found

    def cache_field(self, address: int, start: int) -> Name:
        """A byte of the struct kmem_cache at ``start``."""
        view = self.cache_at(start)
        title = (view.name if view else "") or f"at 0x{start:x}"
        return field_of(kmem_cache, address, start, f"kmem_cache({title})", "kmem_cache", owner=view)

    def magazine_field(self, address: int, start: int) -> Name:
        """A byte of the struct magazine at ``start``, in service or not."""
        cache, held = self._magazines.get(start, (None, None))
        whose = f"{held.role} magazine of {cache.name}" if held and cache else f"spare magazine at 0x{start:x}"

        def text(field: str) -> str:
            return f"{whose} {field.removeprefix('objects')}" if field.startswith("objects") else f"{field} of {whose}"

        return field_of(magazine, address, start, whose, "magazine", owner=held, text=text)
