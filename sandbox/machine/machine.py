"""The whole PC: a CPU, RAM and devices on one clock.

Time is the number of instruction starts since power-on. Devices are told the time at every port access and at every
event that they announced; the run is cut there, so that an interrupt due at ``t`` is delivered before start ``t + 1``
in whatever slices the machine is run.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ..errors import EngineError, GuestMemoryError, PhysicalAddressError, UsageError
from ..x86 import Cr0, Cr4, Efer, Rflags, SegmentDescriptor, Vector, vector_name
from .cpu import Cpu
from .devices import DebugExit, Device, Pic, Pit, Serial
from .interrupts import Delivery, Event
from .memory import PhysicalMemory
from .paging import Paging, VirtualMemory
from .ports import Ports
from .run import EventKind, Slice
from .snapshot import Companion, Interventions, Snapshot
from .stop import Stop, StopKind

TIMER_LINE, SERIAL_LINE = 0, 4
SHORT_RUN = 10_000  # so few instructions are over before anyone can press Ctrl-C
CONSOLE_BYTES = 16 << 20
"""Of what a guest writes to its serial port so much is kept, the newest, unless told otherwise."""
PERIOD = 1 << 19
"""The processor forgets its address translations whenever the clock is a multiple of this. A real one drops them at
times of its own; here that happens at the same ones in every run, so that a snapshot taken then changes nothing. It is
the longest slice too: so often control returns to Python, and Ctrl-C is heard."""
STUCK_AFTER = 10_000
"""Slices in a row in which nothing starts, after which nothing ever will: more than a stack of 400 KiB takes frames."""
_IF = Rflags.IF.mask


class Machine:
    """A PC with ``ram`` bytes of RAM, switched on. Use it as a context manager, or call :meth:`close`.

    Of what the guest writes to the serial port the newest ``console_limit`` bytes are kept.
    """

    def __init__(
        self, ram: int = 16 << 20, *, console_limit: int = CONSOLE_BYTES, instructions_per_tick: int = 16
    ) -> None:
        if type(console_limit) is not int or console_limit <= 0:
            raise UsageError(f"a console limit is a positive number of bytes, not {console_limit!r}")
        self.memory = PhysicalMemory(ram)
        self.pic = Pic()
        itself, pic = weakref.ref(self), self.pic
        self.serial = Serial(line=lambda level: pic.set_line(SERIAL_LINE, level), output_limit=console_limit)
        self.pit = Pit(line=lambda level: pic.set_line(TIMER_LINE, level), per_clock=instructions_per_tick)
        self.debug_exit = DebugExit()
        self.companions: list[Companion] = []
        self.at_period: Callable[[], None] | None = None  # called, stopped, when the clock is a multiple of PERIOD
        self.interventions: Interventions | None = None
        self._until: frozenset[int] = frozenset()
        self.devices: tuple[Device, ...] = (self.pic, self.pit, self.serial, self.debug_exit)
        ports = Ports(self.devices, lambda: _alive(itself)._port_access())
        self.cpu = Cpu(self.memory, ports.read, ports.write)
        self.paging: Paging = self.cpu.paging
        self.virtual = VirtualMemory(self.memory, self.paging)
        self._delivery = Delivery(self.memory, self.paging, self.cpu.view)
        self._clock = 0
        self._period_ends = PERIOD
        self._idle = 0  # time that passed for the devices while the CPU was halted
        self._halted = False
        self._injected: list[int] = []  # vectors, oldest first
        self._scheduled: list[tuple[int, int]] = []  # (instruction count, interrupt line), ascending
        self._interrupted = False

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the engine and its address space back. Memory and registers stay readable."""
        self.cpu.close()

    # --- time -------------------------------------------------------------------------------------------------

    @property
    def instructions(self) -> int:
        """The clock: instruction starts since power-on. Inside a code hook the hooked instruction is not yet one."""
        return self._clock + self.cpu.progress

    @property
    def _device_time(self) -> int:
        return self.instructions + self._idle

    @property
    def halted(self) -> bool:
        """Whether the CPU waits for an interrupt, after ``hlt``. It may be set, by who gives it something to do."""
        return self._halted

    @halted.setter
    def halted(self, halted: bool) -> None:
        self._halted = halted

    # --- running ----------------------------------------------------------------------------------------------

    def start_long_mode(self, *, cr3: int, rip: int, rsp: int, rdi: int = 0) -> None:
        """Leave the CPU as a boot loader does: paging on under ``cr3``, interrupts off, flat 64-bit segments.

        CR0 is PE MP ET NE WP PG, CR4 is PAE, EFER is LME LMA NXE; other general registers are 0.
        """
        cpu, view = self.cpu, self.cpu.view
        cpu["cr3"] = cr3
        cpu["cr4"] = int(Cr4.of("PAE"))
        cpu["efer"] = int(Efer.of("LME", "LMA", "NXE"))
        cpu["cr0"] = int(Cr0.of("PE", "MP", "ET", "NE", "WP", "PG"))
        for name in view.registers():
            if name not in ("rip", "rflags"):
                view.set_general(name, 0)
        view.rip, view.rsp, view.rflags = rip, rsp, int(Rflags.FIXED.mask)
        view.set_general("rdi", rdi)
        view.set_segment("cs", 0x08, 0, 0xFFFF_FFFF, int(SegmentDescriptor.code64()) >> 32)
        view.set_segment("ss", 0x10, 0, 0xFFFF_FFFF, int(SegmentDescriptor.data()) >> 32)
        cpu.push()
        cpu.flush_tlb()
        self._halted = False

    def run(self, limit: int | None = None, until: Collection[int] = ()) -> Stop:
        """Run until something stops the machine, at most ``limit`` instruction starts.

        ``until`` are virtual addresses before whose execution the run stops; its very first instruction passes.
        An exception that a hook raises stops the machine and comes out here.
        """
        if self.cpu.running:
            raise UsageError("the machine is running: a hook cannot run it again")
        if self.cpu.closed:
            raise UsageError("the machine is closed")
        if limit is not None and limit < 0:
            raise UsageError(f"a limit of {limit} instructions")
        end = None if limit is None else self._clock + limit
        self._until = frozenset(until)
        self.cpu.set_breakpoints(self._until | self.interventions.addresses if self.interventions else self._until)
        if limit is not None and limit <= SHORT_RUN:
            self._interrupted = False
            return self._loop(end)
        with self._listening_to_ctrl_c():
            return self._loop(end)

    def step(self, count: int = 1) -> Stop:
        """Run exactly ``count`` instruction starts, unless something stops the machine before."""
        return self.run(count)

    def request_stop(self, reason: str) -> None:
        """From a hook: stop with kind ``requested``, before the hooked instruction or after the hooked access."""
        self.cpu.request_stop(EventKind.REQUESTED, reason)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Run what has run before, as a replay does: code and memory hooks and the serial listener hear nothing."""
        listener, self.serial.listener = self.serial.listener, None
        self.cpu.silence(True)
        try:
            yield
        finally:
            self.serial.listener = listener
            self.cpu.silence(False)

    def inject_interrupt(self, vector: int) -> None:
        """Let an external interrupt wait for the next boundary at which the guest allows it."""
        self._injected.append(vector)
        self.cpu.stop_soon()

    def interrupt_at(self, instruction: int, line: int) -> None:
        """Pulse interrupt line ``line`` (0-15) when the clock is ``instruction``, before the next start."""
        if instruction < self.instructions:
            raise UsageError(f"instruction {instruction} is past: the clock is at {self.instructions}")
        self._scheduled = sorted([*self._scheduled, (instruction, line)])
        self.cpu.stop_soon()

    def _loop(self, end: int | None) -> Stop:
        exempt, at_site, stuck = True, False, 0
        while True:
            stop = self._boundary(end)
            if stop is None and self.interventions is not None:
                stop, exempt = self._intervene(self.interventions, exempt)
            if stop is not None:
                return stop
            result = self.cpu.slice(1 if at_site else self._slice_length(end), exempt, at_site)
            self._clock += result.starts
            exempt = exempt and result.starts == 0
            stuck = 0 if result.starts else stuck + 1
            at_site = result.kind is EventKind.ENABLING
            stop = self._after(result)
            error = self.cpu.take_error()
            if error is not None:
                raise error
            if stop is not None:
                return stop
            if stuck == STUCK_AFTER:
                # A fetch that faults is no start, so a handler that cannot be fetched would hold the clock for ever.
                cause = "" if result.vector < 0 else f", the last a {vector_name(result.vector)}"
                return self._stop(StopKind.STUCK, reason=f"{stuck:,} attempts in a row{cause}")

    def _boundary(self, end: int | None) -> Stop | None:
        """All that happens between two instructions: devices, interrupts, the end of the run."""
        cpu, view = self.cpu, self.cpu.view
        if self._clock >= self._period_ends:
            self._end_period()
        self._let_time_pass()
        if self._halted and not self._wake():
            allowed = view.rflags & _IF
            return self._stop(StopKind.IDLE if allowed else StopKind.HALTED)
        waiting = bool(self._injected) or self.pic.pending
        if waiting and view.rflags & _IF and not view.interrupts_shadowed:
            vector = self._injected.pop(0) if self._injected else self.pic.acknowledge()
            self._halted = False
            stop = self._deliver(Event(vector))
            if stop is not None:
                return stop
            waiting = bool(self._injected) or self.pic.pending
        cpu.code.watch_interrupt_flag(waiting and not view.rflags & _IF)
        if self._interrupted:
            return self._stop(StopKind.INTERRUPTED)
        if end is not None and self._clock >= end:
            return self._stop(StopKind.LIMIT)
        return None

    def _end_period(self) -> None:
        self._period_ends = (self._clock // PERIOD + 1) * PERIOD
        self.cpu.flush_tlb()
        if self.at_period is not None:
            self.at_period()

    def _intervene(self, interventions: Interventions, exempt: bool) -> tuple[Stop | None, bool]:
        """Before an instruction at one of the chosen addresses; returns a stop, or whether the next instruction passes
        breakpoints."""
        rip = self.cpu.view.rip
        if rip not in interventions.addresses:
            return None, exempt
        if rip in self._until and not exempt:
            return self._stop(StopKind.BREAKPOINT), exempt
        if interventions.reach(rip, self._clock):
            self.cpu.push()
            return None, False
        return None, True

    def _let_time_pass(self) -> None:
        if self.interventions is not None:
            self.interventions.pass_time(self._clock)
        while self._scheduled and self._scheduled[0][0] <= self._clock:
            self.pic.pulse(self._scheduled.pop(0)[1])
        self.pit.advance(self._clock + self._idle)

    def _wake(self) -> bool:
        """Bring the next event forward, as no instruction starts while the CPU is halted; False when none can come."""
        if not self.cpu.view.rflags & _IF:
            return False
        while not (self._injected or self.pic.pending):
            due = self._next_event()
            if due is None:
                return False
            self._idle += due - self._clock
            self._scheduled = [(max(at - (due - self._clock), self._clock), line) for at, line in self._scheduled]
            self._let_time_pass()
        return True

    def _next_event(self) -> int | None:
        """The value of the clock at which a device, or a schedule, next does something."""
        tick = self.pit.next_event()
        due = None if tick is None else tick - self._idle
        if self._scheduled:
            at = self._scheduled[0][0]
            due = at if due is None else min(due, at)
        return due

    def _slice_length(self, end: int | None) -> int:
        view = self.cpu.view
        length = (self._period_ends if end is None else min(end, self._period_ends)) - self._clock
        if view.interrupts_shadowed and (self._injected or self.pic.pending):
            return 1
        due = self._next_event()
        if self.interventions is not None and (change := self.interventions.due()) is not None:
            due = change if due is None else min(due, change)
        return length if due is None else min(length, due - self._clock)

    def _after(self, result: Slice) -> Stop | None:
        """Deal with what ended a slice."""
        if result.vector >= 0:
            stop = self._deliver(self._exception(result.vector))
            if stop is not None:
                return stop
        if result.kind is EventKind.HALT:
            self._halted = True
        elif result.kind is EventKind.BUS_ERROR:
            return self._stop(StopKind.NO_MEMORY, address=result.address)
        elif result.kind is EventKind.BREAKPOINT:
            return self._stop(StopKind.BREAKPOINT) if self.cpu.view.rip in self._until else None
        elif result.kind is EventKind.REQUESTED:
            value = self.debug_exit.take()
            if value is not None:
                return self._stop(StopKind.DEBUG_EXIT, status=value)
            return self._stop(StopKind.REQUESTED, reason=result.reason)
        return None

    def _exception(self, vector: int) -> Event:
        """What the engine reported, as an event to deliver."""
        view = self.cpu.view
        if view.is_software_interrupt:
            length = 1 if vector == Vector.BP and self._byte_before_rip() == 0xCC else 2
            return Event(vector, software=True, instruction=view.rip - length)
        return Event.exception(vector, view.error_code, view.control(2))

    def _byte_before_rip(self) -> int:
        try:
            return self.virtual.u8(self.cpu.view.rip - 1)
        except GuestMemoryError:  # the page was taken away, and its translation was not yet forgotten
            return 0

    def _deliver(self, event: Event) -> Stop | None:
        triple, absent = None, None
        try:
            triple = self._delivery.deliver(event)
        except PhysicalAddressError as error:  # a descriptor table or a stack lies on a page with no RAM behind it
            absent = error.address
        self.cpu.view.end_exception()
        self.cpu.push()
        if triple is not None:
            return self._stop(StopKind.TRIPLE_FAULT, triple_fault=triple)
        return None if absent is None else self._stop(StopKind.NO_MEMORY, address=absent)

    def _stop(self, kind: StopKind, **details: Any) -> Stop:
        return Stop(kind, self._clock, self.cpu.view.rip, **details)

    @contextmanager
    def _listening_to_ctrl_c(self) -> Iterator[None]:
        """During a run in the main thread, Ctrl-C stops the machine between two instructions."""
        self._interrupted = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            self._interrupted = True
            self.cpu.stop_soon()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def _port_access(self) -> Iterator[None]:
        """Around an access to a device: cut the slice where it ends the run or changes when an interrupt comes."""
        before = self.pic.pending, self.pit.next_event()
        self.pit.advance(self._device_time)
        yield
        if not self.cpu.running:
            return
        if self.debug_exit.value is not None:
            self.cpu.request_stop(EventKind.REQUESTED)
        elif (self.pic.pending, self.pit.next_event()) != before:
            self.cpu.request_stop(EventKind.RESCHEDULE)

    # --- snapshots --------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The whole machine as it is. Address translations are forgotten, here as in a restored machine."""
        if self.cpu.running:
            raise UsageError("the machine is running: take snapshots between runs")
        self.cpu.flush_tlb()
        return Snapshot(
            ram=self.memory.pages(), registers=self.cpu.save_values(), instructions=self._clock, idle=self._idle,
            halted=self._halted, injected=tuple(self._injected), scheduled=tuple(self._scheduled),
            devices=tuple(device.state() for device in self.devices),
            companions=tuple(companion.state() for companion in self.companions))  # fmt: skip

    def restore(self, snapshot: Snapshot) -> None:
        """Make the machine what it was when ``snapshot`` was taken, in this machine or another."""
        if self.cpu.running:
            raise UsageError("the machine is running: restore snapshots between runs")
        self.cpu.forget_code_unlike(snapshot.ram)
        self.memory.load_pages(snapshot.ram)
        self.cpu.load_values(snapshot.registers)
        self._clock, self._idle, self._halted = snapshot.instructions, snapshot.idle, snapshot.halted
        self._period_ends = (self._clock // PERIOD + 1) * PERIOD
        self._injected, self._scheduled = list(snapshot.injected), list(snapshot.scheduled)
        for device, state in zip(self.devices, snapshot.devices, strict=True):
            device.load(state)
        for index, companion in enumerate(self.companions):
            companion.load(snapshot.companions[index] if index < len(snapshot.companions) else None)


def _alive(reference: weakref.ref[Machine]) -> Machine:
    machine = reference()
    if machine is None:
        raise EngineError("this machine is gone")
    return machine
