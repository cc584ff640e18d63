"""The allocator under test on its kernel: booted once, brought back to the same moment for every script."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from ..abi import ARENA_BASE, BOOT_INFO_PHYS, DIRECT_MAP, KERNEL_BASE, MAX_ORDER, STACK_SLOT, STACKS_BASE
from ..address import PAGE_SHIFT, PAGE_SIZE, align_up
from ..errors import CalleeSavedError, GuestError, GuestFault, GuestLimit, GuestPanic, GuestStop, SandboxError
from ..guest.actions import DIRECTION, INTERRUPTS, RFLAGS
from ..guest.allocator import Allocator, ForeignAllocator
from ..guest.autopsy import Autopsy
from ..guest.options import BootOptions
from ..kernel import Kernel, boot_images
from ..toolchain import packaged
from ..x86 import PageFaultError, Vector
from .findings import Finding
from .places import Places
from .stores import StoreWatch
from .words import last_lines

RAM = 4 << 20
CONSOLE = 1 << 16
"""Bytes that are kept of what it prints: nothing of it is judged."""
TABLES = 16 * PAGE_SIZE
"""Pages that are left besides for the tables of memory that is mapped."""
INIT_PER_BYTE = 16
"""Instructions that ``init`` may take for each byte of its arena."""
_Result = TypeVar("_Result")


class StateError(SandboxError):
    """A call came back, and the CPU is not as it was: ``what`` is it that is not."""

    def __init__(self, what: str, how: str) -> None:
        self.what = what
        super().__init__(how)


class Subject:
    """A kernel without timer ticks and its allocator; ``limit`` is in instructions, for each call but that of ``init``,
    which may have to go over the whole arena. What the callee-saved registers hold at a call follows from ``seed``."""

    def __init__(self, allocator: ForeignAllocator, limit: int, seed: int = 0) -> None:
        self.ram = ram_for(allocator.options.arena, allocator.image.end - allocator.image.base)
        self.limit = limit
        self.init_limit = max(limit, INIT_PER_BYTE * allocator.options.arena)
        self.kernel: Kernel = boot_images(packaged.kernel_image(), None, BootOptions(ram=self.ram, hz=0), None, CONSOLE,
                                          allocator)
        try:
            self.kernel.actions.canary_seed = f"canaries {seed}"
            leave_free(self.kernel, page_room(allocator.options.arena))
            self.places = Places(self.kernel, page_room(allocator.options.arena))
            self.allocator: Allocator = self.kernel.allocator
            self.watch = StoreWatch(self.kernel, self.places)
            self._autopsy = Autopsy(self.kernel.memory, self.kernel.symbols)
            self._stop_before_last_words()
            self._start = self.kernel.snapshot()
            self._console = self.kernel.console
        except BaseException:
            self.kernel.close()
            raise

    def _stop_before_last_words(self) -> None:
        """A panic prints for ten thousand instructions what nobody reads: end it when its record is complete."""
        machine = weakref.ref(self.kernel.machine)

        def panicked(_address: int) -> None:
            alive = machine()
            if alive is not None:
                alive.request_stop("panic")

        self.kernel.machine.cpu.hook_code([self.kernel.symbols["panic_report"]], panicked)

    def call(self, function: Callable[[], _Result]) -> _Result:
        """Call one of its functions; a panic is one, and a fault too, as soon as the kernel knows of it."""
        cpu = self.kernel.machine.cpu
        flags, gs_base = cpu["rflags"], cpu["gs_base"]
        try:
            result = function()
        except GuestStop:
            if self._autopsy.panicked():
                raise self._autopsy.panic(self.kernel.instructions) from None
            raise
        after = self.kernel.actions.returned[RFLAGS]
        if after & DIRECTION:
            raise StateError("rflags.df", "RFLAGS.DF set, which System V wants clear")
        if (after ^ flags) & INTERRUPTS:
            now, then = ("on", "off") if after & INTERRUPTS else ("off", "on")
            raise StateError("rflags.if", f"interrupts {now} (RFLAGS.IF), and they were {then} at the call")
        if cpu["gs_base"] != gs_base:
            raise StateError("gs_base", f"gs_base changed from 0x{gs_base:x} to 0x{cpu['gs_base']:x}: the kernel finds "
                                        "its CPU there")
        return result

    def fresh(self) -> None:
        """A machine on which nothing has been called."""
        self.kernel.restore(self._start)
        self.watch.reset()

    def printed(self) -> str:
        """The last lines of what was written to the console since the machine was fresh."""
        return last_lines(self.kernel.console.removeprefix(self._console))

    def name(self, role: str) -> str:
        """A function with its source line: ``allocate (mine.asm:12)``."""
        symbols, names = self.kernel.symbols, self.allocator.options.names
        return str(symbols.locate(symbols[names[role]])) if role in names else role

    def judge(self, error: SandboxError, number: int, call: str, role: str) -> Finding:
        """What it means that a call did not come back as it should."""
        who = f"operation {number}, {call}: {self.name(role)}" if number >= 0 else self.name(role)
        if isinstance(error, CalleeSavedError):
            return Finding("registers", error.register, number,
                           f"{who} returns with {error.register} changed from 0x{error.before:x} to 0x{error.after:x}, "
                           "which System V makes callee-saved", True)
        if isinstance(error, StateError):
            return Finding("registers", error.what, number, f"{who} returns with {error}", True)
        where = f" at {error.backtrace[0]}" if isinstance(error, GuestError) and error.backtrace else ""
        if isinstance(error, GuestPanic):
            return Finding("returns", "panic", number, f"{who} panics: {error.message}", True)
        if isinstance(error, GuestLimit):
            return Finding("returns", "limit", number,
                           f"{who} does not return within {error.limit:,} instructions, and stands{where}", True)
        if isinstance(error, GuestFault):
            write = error.vector == Vector.PF and error.error_code & PageFaultError.W.mask
            what = f"writes to 0x{error.address:016x}, outside of its memory,{where}" if write else f"faults: {error}"
            return Finding("confined" if write else "returns", "fault", number, f"{who} {what}", True)
        return Finding("returns", type(error).__name__, number, f"{who} does not come back: {error}", True)

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.kernel.close()


def ram_for(arena: int, image: int = 0) -> int:
    """Bytes of RAM for a kernel with an arena of so many bytes and an allocator whose image has so many."""
    image += image >> 5                          # the kernel's account of its pages: 1/64 of them
    return RAM + sum(align_up(size, 1 << 20) for size in (arena, image) if size > RAM >> 3)


def page_room(arena: int) -> int:
    """Bytes of pages that an allocator finds which takes its memory from there: as many as an arena of so many has, and
    some for page tables."""
    return arena + TABLES


def leave_free(kernel: Kernel, size: int) -> None:
    """Take pages, for good, until no more than ``size`` bytes of them are free: then memory ends as an arena does."""
    for order in range(MAX_ORDER, -1, -1):
        while sum(count << PAGE_SHIFT + each for each, count in enumerate(kernel.heap.pages.nr_free)) - (
                PAGE_SIZE << order) >= size and kernel.call("get_free_pages", order):
            pass


def address_of(place: str, arena: int) -> int:
    """A pointer that no allocator with an arena of so many bytes can have given out
    (:data:`~sandbox.conformance.operations.PLACES`)."""
    return {"arena": ARENA_BASE + (arena // 2 & -16), "behind the arena": ARENA_BASE + arena,
            "kernel text": KERNEL_BASE, "kernel data": DIRECT_MAP + BOOT_INFO_PHYS,
            "stack": STACKS_BASE + STACK_SLOT - 64, "page 0": 64, "no address": 1 << 62}[place]
