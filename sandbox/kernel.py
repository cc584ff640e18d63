"""``Kernel``: what :func:`sandbox.boot` returns, the guest joined with its heap and its trace."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .abi import EMPTY_SLAB_LIMIT
from .errors import GuestError, ProgramError, UsageError
from .guest.boot import load
from .guest.guest import Guest, Snapshot
from .guest.options import BootOptions
from .guest.symbols import Symbols
from .heap.views import Heap
from .heap.whatis import AddressBook, WhatIs
from .machine.machine import Machine
from .toolchain import packaged
from .toolchain.image import Image
from .toolchain.source import Source
from .trace.events import Event
from .trace.tracer import LiveTrace, Tracer


class Kernel(Guest):
    """A booted kernel.

    ``call`` any guest function, ``run`` the program, look through ``heap``, ``memory``, ``physical``, ``symbols``,
    ``console`` and ``whatis``, record with ``trace``, go back with ``rewind``, ``snapshot`` and ``restore``. Close it,
    or use it in a ``with`` block, to give its emulator back early.

    ``machine`` is the PC below. What is done to it directly, past these methods, is not in the journal, and a rewind
    does not do it again.
    """

    def __init__(self, machine: Machine, image: Image, program: Image | None, options: BootOptions) -> None:
        super().__init__(machine, image, program)
        self.options = options
        self.heap = Heap(self)
        self._addresses = AddressBook(self, self.heap, self.symbols, machine.paging)
        self._tracer = Tracer(_Traceable(machine, self.symbols))
        self._traces: list[weakref.ref[LiveTrace]] = []

    def trace(self, on_event: Callable[[Event], None] | None = None) -> LiveTrace:
        """Record what the allocator does, until ``stop()`` or the end of a ``with`` block::

            with kernel.trace() as trace:
                kernel.call("kmalloc", 64)
            [event.kind for event in trace]          # ["alloc"]

        ``on_event`` is called with each event while the guest runs. Rewinding and restoring are not recorded, and
        take nothing away from what was.
        """
        trace = self._tracer.trace(on_event)
        self._traces = [known for known in self._traces if known() is not None] + [weakref.ref(trace)]
        return trace

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
        main = self.line(self.symbols["main"]) if self.program else None
        name = main.file if main else "no program"
        return f"<Kernel with {name}, {len(self.physical) >> 20} MiB, at instruction {self.instructions:,}>"


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
    slab_debug: str = "",
    freelist_hardened: bool = False,
    freelist_random: bool = False,
) -> Kernel:
    """Boot the kernel on a fresh machine, up to where it would call ``main``.

    ``program`` is a path, the number or name of a packaged example (``"01"``), or source text (a str with a line
    break in it); it defines ``main``, which :meth:`Kernel.run` calls. ``ram`` is a number of bytes or a text like
    ``"64M"``. The other options are those of :class:`~sandbox.guest.options.BootOptions`: per-CPU magazines, timer
    ticks a second (0 for none), empty slabs that each cache keeps, a seed for everything random, and Linux's
    ``slab_debug``, ``freelist_hardened`` and ``freelist_random``.

    Raises ``UsageError`` for an option that cannot be, ``ProgramError`` for a file that is missing, is not text or
    has no ``main``, ``AssemblyError`` with file and line for text that does not assemble, and a ``GuestError``, with
    the serial text as its ``console``, when the kernel does not come up.
    """
    chosen = BootOptions(ram, magazines, hz, empty_slab_limit, seed, slab_debug, freelist_hardened, freelist_random)
    image = packaged.kernel_image()
    assembled = None if program is None else assemble_program(program, image)
    machine = Machine(chosen.ram_size)
    try:
        start = load(machine.memory, image, assembled, chosen)
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        return Kernel(machine, image, assembled, chosen)
    except BaseException as error:
        console = machine.serial.text
        machine.close()
        if isinstance(error, GuestError):
            error.console = console
        raise


def assemble_program(program: str | Path, kernel: Image) -> Image:
    """The image of a program, given as :func:`boot` takes it; ``ProgramError`` when it has no ``main``."""
    source = _source(program)
    image = packaged.program_image(source, kernel)
    if "main" not in image.symbols:
        raise ProgramError(source.name, "it does not define main")
    return image


def _source(program: str | Path) -> Source:
    """The text of a program, from wherever it is."""
    if not isinstance(program, (str, Path)):
        raise UsageError(f"a program is a path, an example's number or source text, not {program!r}")
    if isinstance(program, str) and "\n" in program:
        return Source("program.asm", program, Path.cwd())
    try:
        exists = Path(program).exists()
    except (OSError, ValueError):                # a name that no file can have
        exists = False
    if not exists and isinstance(program, str) and "/" not in program:
        return Source.read(packaged.example(program))
    return Source.read(program)
