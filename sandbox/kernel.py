"""``Kernel``: what :func:`sandbox.boot` returns, the guest joined with its heap and its trace."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from .abi import EMPTY_SLAB_LIMIT
from .errors import GuestError, UsageError
from .guest.allocator import Allocator, AllocatorOptions, ForeignAllocator, allocator_options, own_malloc
from .guest.boot import load
from .guest.guest import Guest, Snapshot
from .guest.images import Files, make_images
from .guest.options import BootOptions
from .guest.symbols import Symbols
from .heap.leaks import Allocation, Running
from .heap.views import Heap
from .heap.whatis import AddressBook, WhatIs
from .machine.machine import CONSOLE_BYTES, Machine
from .toolchain import packaged
from .toolchain.c.options import c_options
from .toolchain.image import Image
from .trace.callers import caller_of
from .trace.foreign_functions import traced_functions
from .trace.functions import Kind, Traced
from .trace.ledger import changes
from .trace.shadow import Shadow
from .trace.shadow_options import ShadowOptions, shadow_options
from .trace.tracer import LiveTrace, OwnTrace, Tracer


class Kernel(Guest):
    """A booted kernel.

    ``call`` any guest function, ``run`` the program, look through ``heap``, ``memory``, ``physical``, ``symbols``,
    ``console`` and ``whatis``, record with ``trace``, go back with ``rewind``, ``snapshot`` and ``restore``. Close it,
    or use it in a ``with`` block, to give its emulator back early.

    ``machine`` is the PC below. What is done to it directly, past these methods, is not in the journal, and a rewind
    does not do it again.
    """

    def __init__(self, machine: Machine, image: Image, program: Image | None, options: BootOptions,
                 shadow: ShadowOptions | None = None, allocator: ForeignAllocator | None = None,
                 modules: Image | None = None) -> None:
        super().__init__(machine, image, program, None if allocator is None else allocator.image, modules)
        self.options = options
        self.foreign = allocator
        self._traces: list[weakref.ref[LiveTrace]] = []
        self.heap = Heap(self, Running(self.registers, machine.paging, self.symbols,
                                       partial(_allocations, self._traces)))
        self._addresses = AddressBook(self, self.heap, self.symbols, machine.paging)
        self.tracer = Tracer(_Traceable(machine, self.symbols), _traced(allocator))
        self.shadow = None if shadow is None else Shadow(machine, self.symbols, self.tracer, shadow,
                                                         None if allocator is None else self.allocator.arena)
        if self.shadow is not None:
            self._history.begin()

    @property
    def allocator(self) -> Allocator:
        """The allocator of somebody else that this kernel was booted with; :class:`UsageError` without one."""
        if self.foreign is None:
            raise UsageError("this kernel was booted without an allocator: sandbox.boot(allocator=FILE)")
        return Allocator(self.call, self.symbols, self.foreign.options)

    @cached_property
    def trace(self) -> OwnTrace:
        """``kernel.trace()`` records what the allocator does, until ``stop()`` or the end of a ``with`` block::

            with kernel.trace() as trace:
                kernel.call("kmalloc", 64)
            [event.kind for event in trace]          # ["alloc"]

        ``kernel.trace`` is a trace too: in a test, of all that the test has done with the kernel
        (:mod:`sandbox.pytest_plugin`), elsewhere since ``kernel.trace.restart()``.
        """
        return OwnTrace(self.tracer, self._traces)

    def whatis(self, address: int) -> WhatIs:
        """What lies at any 64-bit number taken as an address: ``str()`` is a sentence, ``.kind`` one word."""
        return self._addresses.whatis(address)

    def rewind(self) -> None:
        """Restore the state before the call or the run that failed; everything after it is undone too."""
        super().rewind()
        self._give_up_open_frames()

    def restore(self, snapshot: Snapshot) -> None:
        """Go to the state in which ``snapshot`` was taken; a failed one is left behind."""
        super().restore(snapshot)
        self._give_up_open_frames()

    def _give_up_open_frames(self) -> None:
        """Frames that the guest left by going back will never return."""
        for known in self._traces:
            trace = known()
            if trace is not None:
                trace.give_up_open_frames()

    def __repr__(self) -> str:
        main = self.line(self.symbols["main"]) if "main" in self.symbols else None
        name = main.file if main else "no program"
        return f"<Kernel with {name}, {len(self.physical) >> 20} MiB, at instruction {self.instructions:,}>"


def _allocations(traces: list[weakref.ref[LiveTrace]]) -> dict[int, Allocation]:
    """For each address the latest allocation that a trace, one that is still there, has recorded."""
    found: dict[int, Allocation] = {}
    for known in traces:
        trace = known()
        events = [] if trace is None else trace.events()
        pages = [(event.instruction, event) for event in events if event.kind == Kind.PAGE_ALLOC.value]
        for instruction, event in [*pages, *changes(events)]:
            before = found.get(event.address)
            if event.kind != Kind.FREE.value and not event.failed and \
                    (before is None or instruction >= (before.instruction or 0)):
                found[event.address] = Allocation(instruction, caller_of(event).site, event.stack, event.bytes_req)
    return found


def _traced(allocator: ForeignAllocator | None) -> tuple[Traced, ...]:
    """The functions of an allocator that are traced."""
    return () if allocator is None else traced_functions(allocator)


@dataclass(frozen=True)
class _Traceable:
    """What the tracer works on: less than the kernel, so that the two make no cycle that keeps the engine alive."""

    machine: Machine
    symbols: Symbols


def boot(
    program: str | Path | None = None,
    ram: int | str = "16M",
    *,
    magazines: bool = True,
    hz: int = 100,
    empty_slab_limit: int = EMPTY_SLAB_LIMIT,
    seed: int = 0,
    shadow: bool | str = False,
    quarantine: int = 0,
    allocator: Mapping[str, str | int] | Files | None = None,
    symbols: Mapping[str, str | None] | None = None,
    refused: int | None = None,
    arena: int | str = AllocatorOptions.arena,
    modules: Files = (),
    cc: str | None = None,
    cflags: str | Sequence[str] = "",
    slab_debug: str = "",
    freelist_hardened: bool = False,
    freelist_random: bool | int = False,
    console_limit: int = CONSOLE_BYTES,
) -> Kernel:
    """Boot the kernel on a fresh machine, up to where it would call ``main``.

    ``program`` is a path, the number or name of a packaged example (``"01"``), or source text of assembly (a str with a
    line break in it); it defines ``main``, which :meth:`Kernel.run` calls. A path that ends in ``.c`` is compiled, and
    one that ends in ``.o`` taken as it is. ``modules`` are paths of more such files, which the program uses, or which
    Python calls; ``cc`` is the C compiler (otherwise $CC, gcc, clang or zig, whichever is here), and ``cflags`` are put
    behind ours (:mod:`sandbox.toolchain.c.flags`). ``ram`` is a number of bytes or a text like
    ``"64M"``. The other options are those of :class:`~sandbox.guest.options.BootOptions`: per-CPU magazines, timer
    ticks a second (0 for none), empty slabs that each cache keeps, a seed for everything random, and Linux's
    ``slab_debug``, ``freelist_hardened`` and ``freelist_random``. Of the serial text the newest ``console_limit``
    bytes are kept, and the text then begins with how many are not.

    ``shadow=True`` watches every access to the heap, and stops at the first wrong one with a
    :class:`~sandbox.errors.ShadowError`; ``shadow="collect"`` keeps them all in ``kernel.shadow.errors`` and goes on.
    ``quarantine`` is how many freed objects wait before their memory is used again.

    ``allocator`` is an allocator of somebody else, given as a program is, or as several C files: ``kernel.allocator``
    calls it, a program may call its functions, and it is traced and shadowed as the kernel's own
    (:mod:`sandbox.guest.allocator` has the interface). ``init`` is called with an arena of ``arena`` bytes. ``symbols``
    are the names of its functions where they are not ``init``, ``allocate``, ``deallocate``, ``stats``; ``refused`` is
    what its ``deallocate`` returns for a pointer that it does not take. A mapping as ``allocator`` names the functions
    of one that the program itself brings, for the shadow alone (:mod:`sandbox.trace.shadow_foreign`); a program in C
    that defines ``malloc`` and ``free`` needs none.

    Raises ``UsageError`` for an option that cannot be, ``ProgramError`` for a file that is missing, is not text or
    has no ``main``, ``AssemblyError`` with file and line for text that does not assemble, ``CompileError``,
    ``LinkError`` and ``CompilerMissing`` for C, and a ``GuestError``, with the serial text as its ``console``, when the
    kernel does not come up.
    """
    foreign, files = None, None
    if allocator is None or isinstance(allocator, Mapping):
        if symbols is not None or refused is not None or arena != AllocatorOptions.arena:
            raise UsageError("symbols, refused and arena are an allocator's: give its file as allocator=")
    else:
        foreign, files = allocator_options(symbols, refused, arena), allocator
    chosen = BootOptions(ram, magazines, hz, empty_slab_limit, seed, slab_debug, freelist_hardened, freelist_random)
    shadow_options(shadow, quarantine, allocator if isinstance(allocator, Mapping) else None)        # before any work
    images = make_images(packaged.kernel_image(), program, modules, files, foreign, c_options(cc, cflags))
    linked = images.allocator
    watched = linked or own_malloc(images.program)
    roles = allocator if isinstance(allocator, Mapping) else watched.shadowed() if watched and shadow else None
    kernel = boot_images(images.kernel, images.program, chosen, shadow_options(shadow, quarantine, roles),
                         console_limit, linked, images.modules)
    if linked is not None:
        try:
            kernel.allocator.init()
        except BaseException:
            kernel.close()
            raise
    return kernel


def boot_images(image: Image, program: Image | None, options: BootOptions, shadow: ShadowOptions | None = None,
                console_limit: int = CONSOLE_BYTES, allocator: ForeignAllocator | None = None,
                modules: Image | None = None) -> Kernel:
    """Boot a kernel that is assembled already; see :func:`boot`. An allocator's ``init`` is not called."""
    machine = Machine(options.ram_size, console_limit=console_limit)
    try:
        power_on(machine, image, program, options, allocator, modules)
        return Kernel(machine, image, program, options, shadow, allocator, modules)
    except BaseException as error:
        console = machine.serial.text
        machine.close()
        if isinstance(error, GuestError):
            error.console = console
        raise


def power_on(machine: Machine, image: Image, program: Image | None, options: BootOptions,
             allocator: ForeignAllocator | None = None, modules: Image | None = None) -> None:
    """Do what firmware and a boot loader do: everything is in place, and the kernel's first instruction is next."""
    foreign, arena = (None, 0) if allocator is None else (allocator.image, allocator.options.arena)
    start = load(machine.memory, image, program, options, foreign, arena, modules)
    machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
