"""Freed memory that is not handed out again for a while, so that a stale pointer to it is still caught.

The guest is not changed. When a sound free begins, its argument registers get another object's pointer: that of the
object that has waited longest, once more than ``limit`` wait, and 0 before, which every free accepts and ignores. So
to the allocator, and to the views that read its bytes, an object that waits is still allocated.

A cache that is destroyed takes its objects along: before ``kmem_cache_destroy`` begins, they are freed one by one, in
calls of ``kmem_cache_free`` that return to its first instruction. Bulk frees are not put off.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Mapping
from typing import NamedTuple

from ..machine.machine import Machine
from .functions import Kind, Traced
from .ram import Ram

REGISTERS = ("rdi", "rsi", "rdx")


class Waiting(NamedTuple):
    """A freed object that was not given to the allocator yet; ``cache`` is 0 for a large allocation."""

    pointer: int
    cache: int


class Quarantine:
    """The objects that wait, oldest first."""

    def __init__(self, limit: int, processor: RegisterFile, free: int) -> None:
        self.limit = limit
        self.waiting: list[Waiting] = []
        self._processor = processor
        self._free = free                    # the address of kmem_cache_free
        self._destroying = 0                 # the cache whose objects are being freed
        self._releasing = 0                  # the cache of the free that was called for that, until it begins

    def defer(self, function: Traced, pointer: int, cache: int) -> int:
        """A sound free of ``pointer`` is about to begin; the pointer that is freed in its place, or 0."""
        self.waiting.append(Waiting(pointer, cache))
        leaving = Waiting(0, 0)
        if len(self.waiting) > self.limit:
            found = next((index for index, item in enumerate(self.waiting) if item.cache or function.cache is None), -1)
            if found >= 0:
                leaving = self.waiting.pop(found)
        self._processor.set(REGISTERS[function.object or 0], leaving.pointer)
        if function.cache is not None and leaving.pointer:
            self._processor.set(REGISTERS[function.cache], leaving.cache)
        return leaving.pointer

    def returned(self, function: Traced, argument: int) -> bool:
        """Whether this call was made here; of ``kmem_cache_destroy``, whether objects of the cache must go first."""
        if self._releasing and function.kind is Kind.FREE:
            self._releasing = 0
            return True
        if function.kind is not Kind.CACHE_DESTROY:
            return False
        cache = self._destroying or argument
        for index, item in enumerate(self.waiting):
            if item.cache == cache:
                del self.waiting[index]
                self._destroying = self._releasing = cache
                self._processor.call_first(self._free, {"rdi": cache, "rsi": item.pointer})
                return True
        if self._destroying:
            self._processor.set("rdi", self._destroying)
            self._destroying = 0
        return False

    def state(self) -> tuple[tuple[Waiting, ...], int, int]:
        """All of it, as a value."""
        return tuple(self.waiting), self._destroying, self._releasing

    def load(self, state: tuple[tuple[Waiting, ...], int, int] | None) -> None:
        """Become what :meth:`state` said; without one nothing waits."""
        waiting, self._destroying, self._releasing = state or ((), 0, 0)
        self.waiting = list(waiting)


class RegisterFile:
    """What the quarantine does to a processor that is about to run a function's first instruction."""

    def __init__(self, machine: weakref.ref[Machine], ram: Ram) -> None:
        self._machine = machine
        self._ram = ram

    def set(self, register: str, value: int) -> None:
        """Give a register a value, in a hook."""
        machine = self._machine()
        if machine is not None:
            machine.cpu[register] = value

    def call_first(self, function: int, arguments: Mapping[str, int]) -> None:
        """Let ``function`` run before the present instruction, and come back to it."""
        machine = self._machine()
        if machine is None:
            return
        cpu, memory, ram = machine.cpu, machine.memory, self._ram

        def call() -> None:
            rsp = cpu["rsp"] - 8
            memory.store(ram.translate(rsp, cpu["cr3"]), struct.pack("<Q", cpu["rip"]))
            for name, value in (*arguments.items(), ("rsp", rsp), ("rip", function)):
                cpu[name] = value

        cpu.interpose(call)
