"""The CPU: an engine of Unicorn, made exact.

The engine runs in slices of a given number of instruction starts. Between slices its registers are a block of bytes
(:class:`~sandbox.machine.context.RegisterView`), which is read and patched in place and loaded back before the next
slice. The engine delivers no exception and knows no interrupt: it reports, and :mod:`sandbox.machine.interrupts`
does what the hardware does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping

from ..address import PAGE_SIZE, page_down
from ..errors import EngineError, GuestMemoryError, UsageError
from ..x86 import GENERAL_REGISTERS, SEGMENT_REGISTERS, PageFaultError, Vector
from .code_watch import CodeWatch
from .context import RegisterView
from .engine import Engine, context_layout, native_reading
from .hooks import Hooks
from .memory import PhysicalMemory
from .paging import Paging, PagingControls
from .ram_pages import RamPages
from .run import EventKind, Recorder, Run, Slice

LONGEST_INSTRUCTION = 15

_GENERAL = frozenset(GENERAL_REGISTERS)
_WITHOUT_FLAGS = 17 * 8  # of the packed registers, those before RFLAGS
_IN_BLOCK = _GENERAL | {"rip", "rflags", "cr2"}

class Cpu(Hooks):
    """One x86-64 CPU in 64-bit mode on ``memory``. ``read_port(port, size)`` and ``write_port(port, size, value)``
    are the I/O bus."""

    def __init__(
        self, memory: PhysicalMemory, read_port: Callable[[int, int], int],
        write_port: Callable[[int, int, int], None], *, native_filter: bool = True,
    ) -> None:  # fmt: skip
        self._layout = context_layout()
        self.memory = memory
        self._engine = Engine()
        for region in memory.ram:
            self._engine.map_ram(region.start, region.size, memory.host_address + region.start)
        self._run = Run(self._engine.handle, self._layout, self._engine.stop)
        self.view = RegisterView(self._engine.block(self._layout.size), self._layout)
        itself = weakref.ref(self)
        self.paging = Paging(memory, lambda: _alive(itself).paging_controls())
        self.code = CodeWatch(memory, self.paging, self._run, lambda: _alive(itself))
        memory.changed, memory.stored = self._run.memory_changed, self._run.memory_stored
        self._add_engine_hooks(read_port, write_port)
        super().__init__(self._engine, self._run, native_filter)

    def close(self) -> None:
        """Give the engine back; registers stay readable, and nothing runs any more. A second call does nothing."""
        if not self.closed:
            self.view.block = memoryview(bytes(self.view.block))
        self.memory.changed = self.memory.stored = None
        self._engine.close()

    @property
    def closed(self) -> bool:
        """Whether the engine was given back."""
        return self._engine.closed

    # --- running ----------------------------------------------------------------------------------------------

    def slice(self, count: int, exempt: bool = False, exempt_site: bool = False) -> Slice:
        """Run at most ``count`` instruction starts from the present state.

        ``exempt`` lets the first instruction pass breakpoints, ``exempt_site`` pass a watch on the interrupt flag.
        """
        result = self._slice(count, exempt, exempt_site)
        if self._run.recorder is not None:
            self._run.recorder.end(result.starts)
        return result

    def _slice(self, count: int, exempt: bool, exempt_site: bool) -> Slice:
        run = self._run
        if run.between is not None:
            between, run.between = run.between, None
            between()
        if run.flush_tlb or run.flush_code:
            self._flush()
        run.called, run.called_at = run.called_at == self.view.rip, -1
        self.code.rights_are(self.view.control(0), self.view.control(3))
        run.begin(exempt, exempt_site)
        self.code.learn(self.view.rip, 1)
        if run.flush_code:
            self._flush()
            self.code.learn(self.view.rip, 1)
        cr2 = self.view.control(2)
        before = self.view.general_bytes()[:_WITHOUT_FLAGS] if count == 1 else b""
        restarted = self._emulate(count)
        if run.undo is not None:
            return self._take_back(run.undo)
        if restarted:
            if count > 1:
                # The last store is not done: the caller's next slice begins with it.
                return Slice(count - 1, EventKind.NONE, -1, 0, "")
            # Alone in its slice it is interrupted again and again: grant it the second start that it needs.
            run.begin(exempt, exempt_site)
            run.granted = True
            self._emulate(2)
            if run.undo is not None:
                return self._take_back(run.undo)
        elif before == self.view.general_bytes()[:_WITHOUT_FLAGS] and self.code.watch_what_became_writable():
            return Slice(0, EventKind.NONE, -1, 0, "")  # nothing happened: a store in a frame that was not watched
        if run.vector == Vector.PF and self._fetched_too_far():
            return self._one_by_one(run.starts, count, cr2)
        return self._result()

    def _result(self) -> Slice:
        """What the hooks and the counter say about the slice that ended."""
        run = self._run
        counted, limit = run.counter.value, run.limit.value
        starts = run.starts if run.starts >= 0 else min(counted, limit)
        kind = run.kind
        if run.vector >= 0:
            if run.address_of_syscall is not None:
                self.view.rip = run.address_of_syscall
                self.view.begin_exception()
        elif kind is EventKind.NONE and run.starts < 0 and counted <= limit and self._past_hlt():
            kind = EventKind.HALT
        return Slice(starts, kind, run.vector, run.address, run.reason)

    def _take_back(self, undo: Callable[[], None]) -> Slice:
        """Undo the instruction that a hook refused; its error is what comes of the slice."""
        run = self._run
        starts = run.starts if run.starts >= 0 else min(run.counter.value, run.limit.value)
        try:
            undo()
        finally:
            run.undo = None
        return Slice(starts - run.undone, EventKind.REQUESTED, -1, 0, "")

    # The engine translates whole blocks. When an instruction reaches into the next page and that one is missing, it
    # raises the fetch fault at the start of the block, before anything of it has run.

    def _fetched_too_far(self) -> bool:
        view = self.view
        missing = view.control(2)
        return bool(view.error_code & PageFaultError.I.mask and missing == page_down(view.rip) + PAGE_SIZE)

    def _one_by_one(self, starts: int, count: int, cr2: int) -> Slice:
        """Take the fault back and run one instruction alone; if that is the one that reaches too far, it faults."""
        run, view = self._run, self.view
        view.set_cr2(cr2)
        view.end_exception()
        self.push()
        if starts >= count:
            return Slice(starts, EventKind.NONE, -1, 0, "")
        after = range(view.rip + 1, view.rip + LONGEST_INSTRUCTION + 1)
        self._engine.forget_code()
        self._engine.set_exits([at for at in after if page_down(at) == page_down(view.rip)])
        run.begin(run.exempt and not starts, run.exempt_site and not starts, starts)
        self._emulate(1)
        self._engine.set_exits([])
        run.flush_code = True
        result = self._result()
        return result._replace(starts=result.starts + starts)

    def _emulate(self, count: int) -> bool:
        """Let the engine run; whether it stopped between the two starts of a store into the running code."""
        run = self._run
        run.active = True
        try:
            complaint = self._engine.run(self.view.rip, count)
        finally:
            run.active = False
        self._engine.save()
        if complaint and run.vector < 0 and run.kind is not EventKind.BUS_ERROR:
            raise EngineError(f"the emulator stopped: {complaint}")
        return bool(run.store_state and run.store_count == run.limit.value < run.counter.value
                    and run.store_state == self.view.general_bytes()[:_WITHOUT_FLAGS])  # fmt: skip

    def _past_hlt(self) -> bool:
        try:
            return self.memory.read(self.paging.translate(self.view.rip - 1), 1) == b"\xf4"
        except GuestMemoryError:
            return False

    def refuse(
        self, error: BaseException, store: Iterable[tuple[int, bytes]], registers: Mapping[str, int], starts: int = 1
    ) -> None:
        """From a hook: end the run with ``error``, in the state ``starts`` starts ago: before the present instruction.

        ``registers`` are what :meth:`registers` says now, or, from a code hook, what it would have said before the
        call that led here; ``store`` are physical addresses and the bytes that the instruction may change there.
        """
        run, itself = self._run, weakref.ref(self)
        values = self.save_values()

        def undo() -> None:
            cpu = _alive(itself)
            for address, data in store:
                cpu.memory.store(address, data)
            cpu.load_values(values)
            for name, value in registers.items():
                cpu[name] = value

        run.refuse(error, undo, starts)

    @property
    def refusing(self) -> bool:
        """Whether the present instruction is going to be undone (:meth:`refuse`)."""
        return self._run.undo is not None

    def interpose(self, callback: Callable[[], None]) -> None:
        """From a code hook: stop before the present instruction, call ``callback``, which may change registers and
        memory, and go on."""
        self._run.between = callback
        self._run.stop_before(EventKind.RESCHEDULE)

    @property
    def silent(self) -> bool:
        """Whether what runs has run before (:meth:`silence`)."""
        return self._run.silent

    def native_reading(self, *names: str) -> tuple[int, ...]:
        """For native callbacks: the host address of ``int read(engine, int number, u64 *value)``, and the numbers of
        these registers."""
        return native_reading(*names)

    @property
    def counter_address(self) -> int:
        """Where the engine keeps the number of starts of the present slice, a live u64 of this process."""
        return self._engine.handle + self._layout.emu_counter

    @property
    def recorder(self) -> Recorder | None:
        """Who is told which of the starts that hooks see are counted."""
        return self._run.recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self._run.recorder = recorder

    def stop_soon(self) -> None:
        """End the slice after the present instruction; for a signal handler, which may run inside any hook."""
        if self._run.active:
            self._run.stop_soon()

    def take_error(self) -> BaseException | None:
        """The exception that a hook raised, once."""
        error, self._run.error = self._run.error, None
        return error

    def push(self) -> None:
        """Load the patched register block into the engine."""
        self._engine.load()

    def pull(self) -> None:
        """Read the engine's registers into the block."""
        self._engine.save()

    @property
    def running(self) -> bool:
        """Whether the present code was called by a hook."""
        return self._run.active

    @property
    def progress(self) -> int:
        """Inside a hook, the instruction starts of the present slice; in a code hook its own is not yet one."""
        run = self._run
        return run.done + run.counter.value - 1 + run.access if run.active else 0

    def request_stop(self, kind: EventKind, reason: str = "") -> None:
        """From a hook: stop before the present instruction (code hook) or after it (memory, port)."""
        self._run.reason = reason
        self._run.stop(kind)

    # --- registers --------------------------------------------------------------------------------------------

    def registers(self) -> dict[str, int]:
        """rax to r15, rip and rflags; also inside a hook."""
        if not self._run.active:
            return self.view.registers()
        self.pull()
        return self.view.registers() | {"rflags": self._engine.read("rflags")}

    def __getitem__(self, name: str) -> int:
        """A register by its lower-case name: general ones, rip, rflags, cr0 cr2 cr3 cr4, efer, segment selectors,
        fs_base gs_base k_gs_base, cpl."""
        if name == "cpl":
            if self._run.active:
                self.pull()
            return self.view.cpl
        if not self._run.active:
            if name in _GENERAL:
                return self.view.general(name)
            if name == "rip":
                return self.view.rip
            if name == "rflags":
                return self.view.rflags
            if name in SEGMENT_REGISTERS:
                return self.view.selector(name)
        return self._engine.read(name)

    def __setitem__(self, name: str, value: int) -> None:
        value &= (1 << 64) - 1
        if name in SEGMENT_REGISTERS or name == "cpl":
            raise UsageError(f"{name} cannot be set from outside: its hidden part comes from a descriptor")
        if self._run.active or name not in _IN_BLOCK:
            self._engine.write(name, value)
            if not self._run.active:
                self.pull()
            return
        if name == "rip":
            self.view.rip = value
        elif name == "rflags":
            self.view.rflags = value | 2
        elif name == "cr2":
            self.view.set_cr2(value)
        else:
            self.view.set_general(name, value)
        self.push()

    def register_reader(self, names: Iterable[str]) -> Callable[[], tuple[int, ...]]:
        """A function that reads these registers as fast as the engine can be asked, for use inside hooks."""
        return self._engine.reader(names)

    def paging_controls(self) -> PagingControls:
        """The control registers that rule translation, now."""
        view = self.view
        if self._run.active:
            self.pull()
        return PagingControls(view.control(3), view.control(0), view.control(4), view.efer)

    def save_values(self) -> bytes:
        """All registers as values: no pointer of this process is among them."""
        return bytes(self.view.block[self._layout.values])

    def load_values(self, values: bytes) -> None:
        """Return to what :meth:`save_values` said; translations are forgotten."""
        self.view.block[self._layout.values] = values
        self.view.end_exception()
        self.push()
        self._run.flush_tlb = True
        self._run.called_at = -1

    # --- caches -----------------------------------------------------------------------------------------------

    def flush_tlb(self) -> None:
        """Forget all address translations before the next slice."""
        self._run.flush_tlb = True

    def flush_code(self) -> None:
        """Forget all translated code before the next slice."""
        self._run.flush_code = True

    def _flush(self) -> None:
        if self._run.flush_code:
            self._engine.forget_code()
            self._run.code_pages.clear()
            self._run.learned.clear()
        if self._run.flush_tlb:
            self._engine.forget_translations()
        self._run.flush_code = self._run.flush_tlb = False

    def forget_code_unlike(self, moment: RamPages) -> None:
        """Before RAM becomes what it was at ``moment``: forget the translated code, if any of its bytes change."""
        if any(self.memory.contains(number * PAGE_SIZE) and
               self.memory.read(number * PAGE_SIZE, PAGE_SIZE) != moment.pages[number]
               for number in self._run.code_pages):  # fmt: skip
            self._run.flush_code = True

    @property
    def code_pages(self) -> set[int]:
        """Numbers of the physical frames whose bytes are translated code."""
        return self._run.code_pages

    # --- what the engine reports --------------------------------------------------------------------------------

    def _add_engine_hooks(
        self, read_port: Callable[[int, int], int], write_port: Callable[[int, int, int], None]
    ) -> None:
        """The hooks through which the engine reports what it leaves to others."""
        run, itself = self._run, weakref.ref(self)

        # EFER.SCE is off and no SYSENTER_CS is set in this machine: both are errors. The engine skips them.
        def system_call(vector: int) -> None:
            run.address_of_syscall = _alive(itself)._engine.read("rip")
            run.exception(vector)

        def no_memory(address: int) -> None:
            run.kind, run.address, run.starts = EventKind.BUS_ERROR, address, run.counter.value

        def port_in(port: int, size: int) -> int:
            run.access = 1
            try:
                return read_port(port, size)
            except BaseException as error:
                run.fail(error)
                return (1 << (8 * size)) - 1
            finally:
                run.access = 0

        def port_out(port: int, size: int, value: int) -> None:
            run.access = 1
            try:
                write_port(port, size, value)
            except BaseException as error:
                run.fail(error)
            finally:
                run.access = 0

        def new_block(pc: int, size: int, left: int, left_size: int, left_instructions: int) -> None:
            try:
                code = _alive(itself).code
                code.learn(pc, size)
                if left_instructions == 1:
                    code.doubt(left, left_size)
            except BaseException as error:
                run.fail(error)

        engine = self._engine
        engine.on_exception(run.exception)
        engine.on_invalid_instruction(lambda: run.exception(Vector.UD))
        engine.on_no_memory(no_memory)
        engine.on_new_block(new_block)
        engine.on_system_call(lambda: system_call(Vector.UD), lambda: system_call(Vector.GP))
        engine.on_port(port_in, port_out)


def _alive(reference: weakref.ref[Cpu]) -> Cpu:
    cpu = reference()
    if cpu is None:
        raise EngineError("this machine is closed")
    return cpu
