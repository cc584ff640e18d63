"""The whole PC: a CPU, RAM and devices on one clock.

Time is the number of instruction starts since power-on. Devices are told the time at every port access and at every
event that they announced; the run is cut there, so that an interrupt due at ``t`` is delivered before start ``t + 1``
in whatever slices the machine is run.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import FrameType, TracebackType
from typing import Any

from ..errors import UsageError
from ..x86 import Cr0, Cr4, Efer, Rflags, SegmentDescriptor, Vector
from .cpu import LONGEST_SLICE, Cpu
from .devices import DebugExit, Device, Pic, Pit, Serial, State
from .interrupts import Delivery, Event, TripleFault
from .memory import PhysicalMemory
from .paging import Paging, VirtualMemory
from .run import EventKind, Slice

TIMER_LINE, SERIAL_LINE = 0, 4
SHORT_RUN = 10_000  # so few instructions are over before anyone can press Ctrl-C
_IF = Rflags.IF.mask


class StopKind(str, Enum):
    """Why :meth:`Machine.run` returned."""

    DEBUG_EXIT = "debug exit"
    LIMIT = "instruction limit"
    BREAKPOINT = "breakpoint"
    TRIPLE_FAULT = "triple fault"
    HALTED = "halted with interrupts off"
    IDLE = "halted with no interrupt to come"
    NO_MEMORY = "no memory"
    INTERRUPTED = "interrupted"
    REQUESTED = "requested"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Stop:
    """The reason of a stop. ``instructions`` is the clock then, ``rip`` the instruction that comes next."""

    kind: StopKind
    instructions: int
    rip: int
    status: int | None = None  # the value written to the debug-exit port
    address: int | None = None  # the physical address with no memory
    reason: str = ""  # what a hook asked for
    triple_fault: TripleFault | None = None

    @property
    def qemu_status(self) -> int | None:
        """The exit status of a QEMU with isa-debug-exit for the same write."""
        return None if self.status is None else (self.status << 1 | 1) & 0xFF

    def __str__(self) -> str:
        if self.kind is StopKind.DEBUG_EXIT:
            return f"debug exit {self.status} (QEMU status {self.qemu_status})"
        if self.triple_fault is not None:
            return str(self.triple_fault)
        if self.kind is StopKind.NO_MEMORY:
            return f"no memory at physical address {self.address:#x}, used by the instruction at {self.rip:#x}"
        if self.kind is StopKind.LIMIT:
            return f"instruction limit, at {self.rip:#x}"
        if self.kind is StopKind.REQUESTED:
            return f"{self.reason or 'requested'}, at {self.rip:#x}"
        return f"{self.kind} at {self.rip:#x}"


@dataclass(frozen=True)
class Snapshot:
    """All of a machine at one instruction, as values: it may be restored into any machine with as much RAM."""

    ram: bytes
    registers: bytes
    instructions: int
    idle: int
    halted: bool
    injected: tuple[int, ...]
    scheduled: tuple[tuple[int, int], ...]
    devices: tuple[State, ...]


class Machine:
    """A PC with ``ram`` bytes of RAM, switched on. Use it as a context manager, or call :meth:`close`."""

    def __init__(
        self, ram: int = 16 << 20, *, console_limit: int | None = None, instructions_per_tick: int = 16
    ) -> None:
        self.memory = PhysicalMemory(ram)
        self.pic = Pic()
        itself, pic = weakref.ref(self), self.pic
        self.serial = Serial(line=lambda level: pic.set_line(SERIAL_LINE, level), output_limit=console_limit)
        self.pit = Pit(line=lambda level: pic.set_line(TIMER_LINE, level), per_clock=instructions_per_tick)
        self.debug_exit = DebugExit()
        self.devices: tuple[Device, ...] = (self.pic, self.pit, self.serial, self.debug_exit)
        self._ports = {port: device for device in self.devices for port in device.ports}

        def read_port(port: int, size: int) -> int:
            machine = itself()
            return machine._read_port(port, size) if machine is not None else (1 << (8 * size)) - 1

        def write_port(port: int, size: int, value: int) -> None:
            machine = itself()
            if machine is not None:
                machine._write_port(port, size, value)

        self.cpu = Cpu(self.memory, read_port, write_port)
        self.paging: Paging = self.cpu.paging
        self.virtual = VirtualMemory(self.memory, self.paging)
        self._delivery = Delivery(self.memory, self.paging, self.cpu.view)
        self._clock = 0
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
        self.cpu.set_breakpoints(frozenset(until))
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
        exempt, at_site = True, False
        while True:
            stop = self._boundary(end)
            if stop is not None:
                return stop
            result = self.cpu.slice(1 if at_site else self._slice_length(end), exempt, at_site)
            self._clock += result.starts
            exempt = exempt and result.starts == 0
            at_site = result.kind is EventKind.ENABLING
            stop = self._after(result)
            error = self.cpu.take_error()
            if error is not None:
                raise error
            if stop is not None:
                return stop

    def _boundary(self, end: int | None) -> Stop | None:
        """All that happens between two instructions: devices, interrupts, the end of the run."""
        cpu, view = self.cpu, self.cpu.view
        self._let_time_pass()
        if self._halted and not self._wake():
            allowed = view.rflags & _IF
            return self._stop(StopKind.IDLE if allowed else StopKind.HALTED)
        waiting = bool(self._injected) or self.pic.pending
        if waiting and view.rflags & _IF and not view.interrupts_shadowed:
            vector = self._injected.pop(0) if self._injected else self.pic.acknowledge()
            self._halted = False
            triple = self._deliver(Event(vector))
            if triple is not None:
                return self._stop(StopKind.TRIPLE_FAULT, triple_fault=triple)
            waiting = bool(self._injected) or self.pic.pending
        cpu.code.watch_interrupt_flag(waiting and not view.rflags & _IF)
        if self._interrupted:
            return self._stop(StopKind.INTERRUPTED)
        if end is not None and self._clock >= end:
            return self._stop(StopKind.LIMIT)
        return None

    def _let_time_pass(self) -> None:
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
        length = LONGEST_SLICE if end is None else min(end - self._clock, LONGEST_SLICE)
        if view.interrupts_shadowed and (self._injected or self.pic.pending):
            return 1
        due = self._next_event()
        return length if due is None else min(length, due - self._clock)

    def _after(self, result: Slice) -> Stop | None:
        """Deal with what ended a slice."""
        if result.vector >= 0:
            triple = self._deliver(self._exception(result.vector))
            if triple is not None:
                return self._stop(StopKind.TRIPLE_FAULT, triple_fault=triple)
        if result.kind is EventKind.HALT:
            self._halted = True
        elif result.kind is EventKind.BUS_ERROR:
            return self._stop(StopKind.NO_MEMORY, address=result.address)
        elif result.kind is EventKind.BREAKPOINT:
            return self._stop(StopKind.BREAKPOINT)
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
        return self.virtual.u8(self.cpu.view.rip - 1)

    def _deliver(self, event: Event) -> TripleFault | None:
        triple = self._delivery.deliver(event)
        self.cpu.view.end_exception()
        self.cpu.push()
        return triple

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

    # --- the I/O bus ------------------------------------------------------------------------------------------

    def _read_port(self, port: int, size: int) -> int:
        device = self._ports.get(port)
        if device is None or size > device.width:
            return sum(self._read_byte(port + index) << (8 * index) for index in range(size))
        return self._read_byte(port)

    def _read_byte(self, port: int) -> int:
        device = self._ports.get(port)
        if device is None:
            return 0xFF
        with self._watching_lines():
            return device.read(port)

    def _write_port(self, port: int, size: int, value: int) -> None:
        device = self._ports.get(port)
        if device is not None and size <= device.width:
            self._write_device(device, port, value)
            return
        for index in range(size):
            device = self._ports.get(port + index)
            if device is not None:
                self._write_device(device, port + index, value >> (8 * index) & 0xFF)

    def _write_device(self, device: Device, port: int, value: int) -> None:
        with self._watching_lines():
            device.write(port, value)
        if self.debug_exit.value is not None:
            self.cpu.request_stop(EventKind.REQUESTED)

    @contextmanager
    def _watching_lines(self) -> Iterator[None]:
        """Around a port access: cut the slice where it changes when the next interrupt comes."""
        before = self.pic.pending, self.pit.next_event()
        self.pit.advance(self._device_time)
        yield
        if (self.pic.pending, self.pit.next_event()) != before and self.cpu.running:
            self.cpu.request_stop(EventKind.RESCHEDULE)

    # --- snapshots --------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The whole machine as it is. Address translations are forgotten, here as in a restored machine."""
        if self.cpu.running:
            raise UsageError("the machine is running: take snapshots between runs")
        self.cpu.flush_tlb()
        return Snapshot(
            ram=self.memory.image(), registers=self.cpu.save_values(), instructions=self._clock, idle=self._idle,
            halted=self._halted, injected=tuple(self._injected), scheduled=tuple(self._scheduled),
            devices=tuple(device.state() for device in self.devices))  # fmt: skip

    def restore(self, snapshot: Snapshot) -> None:
        """Make the machine what it was when ``snapshot`` was taken, in this machine or another."""
        if self.cpu.running:
            raise UsageError("the machine is running: restore snapshots between runs")
        self.cpu.forget_code_unlike(snapshot.ram)
        self.memory.load_image(snapshot.ram)
        self.cpu.load_values(snapshot.registers)
        self._clock, self._idle, self._halted = snapshot.instructions, snapshot.idle, snapshot.halted
        self._injected, self._scheduled = list(snapshot.injected), list(snapshot.scheduled)
        for device, state in zip(self.devices, snapshot.devices, strict=True):
            device.load(state)
