"""Switching the trace on and off: hooks on the allocator's entries and exits.

The guest needs no change and notices nothing: its instruction count, its memory and its registers are the same with
a trace and without. Hooks are added and removed while the machine is stopped; events can be read at any time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from types import TracebackType
from typing import Protocol

from ..errors import SymbolNotFound, UsageError
from ..guest.symbols import Symbols
from ..machine.hooks import Hook
from ..machine.machine import Machine
from ..toolchain.disassembler import Disassembler
from .builder import Names
from .events import Event
from .foreign_functions import returns
from .functions import ALLOCATOR_FILES, TRACED, Traced
from .ram import Ram
from .recorder import AT_ENTRY, AT_EXIT, Recorder
from .trace import KEPT, Trace

OnEvent = Callable[[Event], None]
RECORDS = 250_000
"""Raw records that wait for being read; then they become events, or are dropped."""


class Traceable(Protocol):
    """What the tracer needs of a guest."""

    @property
    def machine(self) -> Machine:
        """The machine that the guest runs on."""
        ...

    @property
    def symbols(self) -> Symbols:
        """The labels of the kernel and of the program."""
        ...


class LiveTrace(Trace):
    """A trace that can go on recording. As a context manager it records inside the block::

        with kernel.trace() as trace:
            kernel.call("kmalloc", 64)
    """

    def __init__(self, tracer: Tracer, on_event: OnEvent | None, keep: int, replayed: bool) -> None:
        machine = tracer.guest.machine
        super().__init__(tracer.recorder(), tracer.names, lambda: machine.instructions, keep)
        self._tracer = tracer
        self._replayed = replayed
        self._hooks: list[Hook] = []
        self._on_event = on_event
        if on_event is not None:
            self._recorder.settled = self._tell
        else:
            self._recorder.settled = _sweeper(self, self._recorder)

    def _tell(self) -> None:
        """Hand over the events of the tree that has just been completed, parents first."""
        if self._on_event is not None:
            for event in self.settle():
                self._on_event(event)

    @property
    def recording(self) -> bool:
        """Whether the hooks are in place."""
        return bool(self._hooks)

    def start(self) -> LiveTrace:
        """Record from now on; the machine must be stopped. Does nothing when it records already."""
        if not self._hooks:
            self._hooks = self._tracer.attach(self._recorder, self._replayed)
        return self

    def stop(self) -> None:
        """Record no more. Frames that are open stay unfinished, and the events stay readable."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._recorder.give_up()

    def give_up_open_frames(self) -> None:
        """The guest was taken to another state, and will not return to what it was doing."""
        self._recorder.give_up()

    def __enter__(self) -> LiveTrace:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.stop()


class OwnTrace(LiveTrace):
    """What ``kernel.trace`` is. Called, it makes another trace, as :meth:`Tracer.trace` does; it is a trace itself,
    which is empty until :meth:`restart`. ``made`` is the list that every new trace is added to."""

    def __init__(self, tracer: Tracer, made: list[weakref.ref[LiveTrace]]) -> None:
        super().__init__(tracer, None, KEPT, False)
        self._made = made
        made.append(weakref.ref(self))

    def __call__(self, on_event: OnEvent | None = None) -> LiveTrace:
        """Record what the allocator does, until ``stop()`` or the end of a ``with`` block::

            with kernel.trace() as trace:
                kernel.call("kmalloc", 64)
            [event.kind for event in trace]          # ["alloc"]

        ``on_event`` is called with each event while the guest runs. Rewinding and restoring are not recorded, and
        take nothing away from what was.
        """
        trace = self._tracer.trace(on_event)
        self._made[:] = [*(known for known in self._made if known() is not None), weakref.ref(trace)]
        return trace

    def restart(self) -> OwnTrace:
        """Forget what was recorded, and record from now on."""
        self._recorder.give_up()
        self._recorder.discard()
        self.forget()
        self.start()
        return self


def _sweeper(trace: LiveTrace, recorder: Recorder) -> Callable[[], None]:
    """What keeps records from piling up: they become events of the trace, or nothing when nobody has it any more.
    The recorder holds this function, so the function holds neither of the two."""
    weak_trace, weak_recorder = weakref.ref(trace), weakref.ref(recorder)

    def sweep() -> None:
        trace, recorder = weak_trace(), weak_recorder()
        if recorder is not None and len(recorder.entries) >= RECORDS:
            if trace is not None:
                trace.settle()
            else:
                recorder.discard()

    return sweep


class Tracer:
    """Makes traces of one guest; ``more`` are functions that are traced besides the kernel's."""

    def __init__(self, guest: Traceable, more: Sequence[Traced] = ()) -> None:
        self.guest = guest
        self.more = tuple(more)
        self.names = Names(guest.symbols)

    def trace(self, on_event: OnEvent | None = None, keep: int = KEPT, replayed: bool = False) -> LiveTrace:
        """A trace that records from now on, until ``stop()`` or the end of a ``with`` block.

        ``on_event`` is called with each event while the guest runs: when the outermost call that it belongs to has
        returned, callers before what they called. It must not run the guest; an exception in it stops the run. The
        trace keeps the first ``keep`` events; ``on_event`` gets them all. ``replayed``: what only happens again is
        recorded too.
        """
        return LiveTrace(self, on_event, keep, replayed).start()

    @cached_property
    def functions(self) -> dict[int, Traced]:
        """The traced functions that this guest has, by address."""
        symbols = self.guest.symbols
        found = {int(symbols[function.name]): function for function in (*TRACED, *self.more)
                 if function.name in symbols}
        if not found:
            raise UsageError("this kernel has none of the functions that are traced")
        return found

    @cached_property
    def rets(self) -> tuple[int, ...]:
        """Every ``ret`` in the files that hold the kernel's allocator, and in an image that brings one of its own: a
        function of C may end in another one, to which it jumps."""
        disassembler = Disassembler()
        kernel, *others = self.guest.symbols.images
        lines = {name: kernel.line(start) for name, (start, _) in kernel.functions.items()}
        files = {name: line.file.rsplit("/", 1)[-1] for name, line in lines.items() if line is not None}
        homes = ALLOCATOR_FILES | {files[name] for name, (start, _) in kernel.functions.items()
                                   if start in self.functions and name in files}
        found = list(disassembler.rets(kernel, *(name for name, file in files.items() if file in homes)))
        for image in others:
            if any(start in self.functions for start, _ in image.functions.values()):
                found += returns(self.guest.symbols, image, disassembler)
        return tuple(sorted(set(found)))

    def ram(self) -> Ram:
        """The guest's RAM, for hooks."""
        return Ram(self.guest.machine.memory.array().data, self._physical("mem_map"), self._physical("max_pfn"))

    def _physical(self, name: str) -> int:
        if name not in self.guest.symbols:
            raise SymbolNotFound(name)
        return int(self.guest.machine.paging.translate(self.guest.symbols[name]))

    def recorder(self) -> Recorder:
        """A recorder that nothing calls yet."""
        machine, ram, cpu_data = self.guest.machine, self.ram(), self._physical("boot_cpu")
        itself = weakref.ref(machine)                # the hooks belong to the machine: they must not keep it alive

        def clock() -> int:
            alive = itself()
            return 0 if alive is None else alive.instructions

        reader = machine.cpu.register_reader
        return Recorder(self.functions, ram, reader(AT_ENTRY), reader(AT_EXIT), clock, cpu_data)

    def attach(self, recorder: Recorder, replayed: bool = False) -> list[Hook]:
        """Hook a recorder to the guest."""
        cpu = self.guest.machine.cpu
        return [cpu.hook_code(self.functions, recorder.enter, replayed=replayed),
                cpu.hook_code(self.rets, recorder.leave, replayed=replayed)]
