"""The CPU: an engine of Unicorn, made exact.

The engine runs in slices of a given number of instruction starts. Between slices its registers are a block of bytes
(:class:`~sandbox.machine.context.RegisterView`), which is read and patched in place and loaded back before the next
slice. The engine delivers no exception and knows no interrupt: it reports, and :mod:`sandbox.machine.interrupts`
does what the hardware does.
"""

from __future__ import annotations

import ctypes
import struct
import weakref
from collections.abc import Callable, Iterable
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, c_bool, c_int, c_int64, c_uint16, c_uint32, c_uint64, c_void_p
from functools import lru_cache
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.arch.types import uc_hook_h
from unicorn.unicorn_py3.unicorn import uclib

from ..address import PAGE_SIZE, page_down
from ..errors import EngineError, GuestMemoryError, UsageError
from ..x86 import GENERAL_REGISTERS, SEGMENT_REGISTERS, Msr, PageFaultError, Vector
from .calibration import SCRATCH_RAM, calibrate
from .code_watch import CodeWatch
from .context import ContextLayout, RegisterView
from .filter import AddressFilter
from .memory import PhysicalMemory
from .paging import Paging, PagingControls
from .run import EventKind, Run, Slice

# The longest slice: control returns to Python at least this often, so that Ctrl-C is heard.
LONGEST_SLICE = 4_000_000
LONGEST_INSTRUCTION = 15

_INTR = CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
_CODE = CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_void_p)
_MEM = CFUNCTYPE(None, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p)
_MEM_INVALID = CFUNCTYPE(c_bool, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p)
_INVALID = CFUNCTYPE(c_bool, c_void_p, c_void_p)
_IN = CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_int, c_void_p)
_OUT = CFUNCTYPE(None, c_void_p, c_uint32, c_int, c_uint32, c_void_p)
_SYSCALL = CFUNCTYPE(None, c_void_p, c_void_p)
_READ_BATCH = PYFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int)


class _Block(ctypes.Structure):
    """A translation block, as the engine describes it."""

    _fields_ = (("pc", c_uint64), ("instructions", c_uint16), ("size", c_uint16))


_EDGE = CFUNCTYPE(None, c_void_p, POINTER(_Block), POINTER(_Block), c_void_p)

REGISTER_IDS: dict[str, int] = {
    name: getattr(x86_const, f"UC_X86_REG_{name.upper()}")
    for name in (*GENERAL_REGISTERS, *SEGMENT_REGISTERS, "rip", "cr0", "cr2", "cr3", "cr4", "fs_base", "gs_base")
} | {"rflags": x86_const.UC_X86_REG_EFLAGS}
_MSRS = {"efer": Msr.EFER, "k_gs_base": Msr.KERNEL_GS_BASE}



_GENERAL = frozenset(GENERAL_REGISTERS)
_WITHOUT_FLAGS = 17 * 8  # of the packed registers, those before RFLAGS
_IN_BLOCK = _GENERAL | {"rip", "rflags", "cr2"}


class Hook:
    """A hook on the CPU; :meth:`remove` ends it, and a second time does nothing."""

    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove: Callable[[], None] | None = remove

    def remove(self) -> None:
        """Take the hook away."""
        remove, self._remove = self._remove, None
        if remove is not None:
            remove()


class Cpu:
    """One x86-64 CPU in 64-bit mode on ``memory``. ``read_port(port, size)`` and ``write_port(port, size, value)``
    are the I/O bus."""

    def __init__(
        self, memory: PhysicalMemory, read_port: Callable[[int, int], int],
        write_port: Callable[[int, int, int], None], *, native_filter: bool = True,
    ) -> None:  # fmt: skip
        self._layout = _layout()
        self.memory = memory
        self._uc: Any = _open_engine()
        self._engine: int = self._uc._uch.value
        for region in memory.ram:
            self._uc.mem_map_ptr(region.start, region.size, uc_const.UC_PROT_ALL, memory.host_address + region.start)
        engine = self._engine
        self._run = Run(self._engine, self._layout, lambda: uclib.uc_emu_stop(engine))
        self._saved = self._uc.context_save()
        self._context = self._saved.context
        raw = (ctypes.c_ubyte * self._layout.size).from_address(self._context.value)
        self.view = RegisterView(memoryview(raw).cast("B"), self._layout)
        self._callbacks: dict[int, Any] = {}
        self._marks: dict[int, int] = {}  # by address: how many want it, or the engine's hook without a filter
        self._filter: AddressFilter | None = None
        self._breakpoints: frozenset[int] = frozenset()
        itself = weakref.ref(self)
        self.paging = Paging(memory, lambda: _alive(itself).paging_controls())
        self.code = CodeWatch(memory, self.paging, self._run, lambda: _alive(itself))
        memory.changed, memory.stored = self._run.memory_changed, self._run.memory_stored
        self._add_engine_hooks(read_port, write_port)
        self._add_code_hook(native_filter)

    def close(self) -> None:
        """Give the engine back; registers stay readable, and nothing runs any more. A second call does nothing."""
        if not self.closed:
            self.view.block = memoryview(bytes(self.view.block))
        self.memory.changed = self.memory.stored = None
        self._callbacks.clear()
        self._uc = self._saved = None

    @property
    def closed(self) -> bool:
        """Whether the engine was given back."""
        return self._uc is None

    # --- running ----------------------------------------------------------------------------------------------

    def slice(self, count: int, exempt: bool = False, exempt_site: bool = False) -> Slice:
        """Run at most ``count`` instruction starts from the present state.

        ``exempt`` lets the first instruction pass breakpoints, ``exempt_site`` pass a watch on the interrupt flag.
        """
        run = self._run
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
        if self._emulate(count):
            if count > 1:
                # The last store is not done: the caller's next slice begins with it.
                return Slice(count - 1, EventKind.NONE, -1, 0, "")
            # Alone in its slice it is interrupted again and again: grant it the second start that it needs.
            run.begin(exempt, exempt_site)
            run.granted = True
            self._emulate(2)
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
        self._uc.ctl_flush_tb()
        self._uc.ctl_set_exits([at for at in after if page_down(at) == page_down(view.rip)])
        run.begin(run.exempt and not starts, run.exempt_site and not starts)
        self._emulate(1)
        self._uc.ctl_set_exits([])
        run.flush_code = True
        result = self._result()
        return result._replace(starts=result.starts + starts)

    def _emulate(self, count: int) -> bool:
        """Let the engine run; whether it stopped between the two starts of a store into the running code."""
        run = self._run
        run.active = True
        try:
            status = uclib.uc_emu_start(self._engine, self.view.rip, 0, 0, count)
        finally:
            run.active = False
        uclib.uc_context_save(self._engine, self._context)
        if status and run.vector < 0 and run.kind is not EventKind.BUS_ERROR:
            raise EngineError(f"the emulator stopped: {uclib.uc_strerror(status).decode('ascii')}")
        return bool(run.store_state and run.store_count == run.limit.value < run.counter.value
                    and run.store_state == self.view.general_bytes()[:_WITHOUT_FLAGS])  # fmt: skip

    def _past_hlt(self) -> bool:
        try:
            return self.memory.read(self.paging.translate(self.view.rip - 1), 1) == b"\xf4"
        except GuestMemoryError:
            return False

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
        uclib.uc_context_restore(self._engine, self._context)

    def pull(self) -> None:
        """Read the engine's registers into the block."""
        uclib.uc_context_save(self._engine, self._context)

    @property
    def running(self) -> bool:
        """Whether the present code was called by a hook."""
        return self._run.active

    @property
    def progress(self) -> int:
        """Inside a hook, the instruction starts of the present slice; in a code hook its own is not yet one."""
        return self._run.counter.value - 1 + self._run.access if self._run.active else 0

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
        return self.view.registers() | {"rflags": self._read_engine("rflags")}

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
        return self._read_engine(name)

    def __setitem__(self, name: str, value: int) -> None:
        value &= (1 << 64) - 1
        if name in SEGMENT_REGISTERS or name == "cpl":
            raise UsageError(f"{name} cannot be set from outside: its hidden part comes from a descriptor")
        if self._run.active or name not in _IN_BLOCK:
            self._write_engine(name, value)
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

    def _read_engine(self, name: str) -> int:
        if name in _MSRS:
            return int(self._uc.msr_read(_MSRS[name]))
        try:
            return int(self._uc.reg_read(REGISTER_IDS[name]))
        except KeyError:
            raise UsageError(f"no register is called {name!r}") from None

    def _write_engine(self, name: str, value: int) -> None:
        if name in _MSRS:
            self._uc.msr_write(_MSRS[name], value)
        elif name in REGISTER_IDS:
            self._uc.reg_write(REGISTER_IDS[name], value)
        else:
            raise UsageError(f"no register is called {name!r}")

    def register_reader(self, names: Iterable[str]) -> Callable[[], tuple[int, ...]]:
        """A function that reads these registers as fast as the engine can be asked, for use inside hooks."""
        listed = tuple(names)
        count = len(listed)
        ids = (c_int * count)(*(REGISTER_IDS[name] for name in listed))
        values = (c_uint64 * count)()
        start = ctypes.addressof(values)
        pointers = (c_void_p * count)(*(start + 8 * index for index in range(count)))
        # Every argument is converted once, here: that halves the time of a call.
        read_batch = _READ_BATCH(ctypes.cast(uclib.uc_reg_read_batch, c_void_p).value or 0)
        arguments = (c_void_p(self._engine), c_void_p(ctypes.addressof(ids)), c_void_p(ctypes.addressof(pointers)),
                     c_int(count))  # fmt: skip
        unpack, found, kept = struct.Struct(f"<{count}Q").unpack_from, memoryview(values).cast("B"), (ids, pointers)

        def read() -> tuple[int, ...]:
            read_batch(*arguments)
            return unpack(found)

        read.__dict__["kept"] = kept  # what the addresses in ``arguments`` lead to
        return read

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
            self._uc.ctl_flush_tb()
            self._run.code_pages.clear()
            self._run.learned.clear()
        if self._run.flush_tlb:
            self._uc.ctl(uc_const.UC_CTL_TLB_FLUSH, uc_const.UC_CTL_IO_WRITE)
        self._run.flush_code = self._run.flush_tlb = False

    def forget_code_unlike(self, image: bytes) -> None:
        """Before RAM becomes ``image``: forget the translated code, if any of its bytes are going to change."""
        pages = ((number * PAGE_SIZE, (number + 1) * PAGE_SIZE) for number in self._run.code_pages)
        if any(self.memory.contains(start) and self.memory.read(start, PAGE_SIZE) != image[start:end]
               for start, end in pages):  # fmt: skip
            self._run.flush_code = True

    @property
    def code_pages(self) -> set[int]:
        """Numbers of the physical frames whose bytes are translated code."""
        return self._run.code_pages

    # --- hooks ------------------------------------------------------------------------------------------------

    def hook_code(self, addresses: Iterable[int], callback: Callable[[int], None]) -> Hook:
        """Call ``callback(address)`` before each execution of the instruction at each of these virtual addresses."""
        listed, itself = sorted(set(addresses)), weakref.ref(self)
        for at in listed:
            self.mark(at, callback, self._run.callbacks)

        def remove() -> None:
            cpu = itself()
            if cpu is not None and cpu._uc is not None:
                for at in listed:
                    cpu.unmark(at, callback, cpu._run.callbacks)

        return Hook(remove)

    def mark(self, at: int, handler: Callable[[int], None], table: dict[int, list[Callable[[int], None]]]) -> None:
        """Let ``handler`` be called before the instruction at ``at``."""
        table[at] = [*table.get(at, ()), handler]
        if self._filter is not None:
            self._filter.add(at)
        elif at not in self._marks:
            self._marks[at] = self._add(uc_const.UC_HOOK_CODE, self._on_code, at, at)

    def unmark(self, at: int, handler: Callable[[int], None], table: dict[int, list[Callable[[int], None]]]) -> None:
        """Take back one :meth:`mark`."""
        left = list(table[at])
        left.remove(handler)
        if left:
            table[at] = left
        else:
            del table[at]
        if self._filter is not None:
            self._filter.remove(at)
        elif at not in self._run.handlers and at not in self._run.callbacks:
            self.remove_hooks([self._marks.pop(at)])

    def _add_code_hook(self, native: bool) -> None:
        """The one hook behind all hooked addresses, or none where the host cannot filter natively."""
        run = self._run
        handlers, callbacks = run.handlers, run.callbacks

        def reached(engine: int, address: int, size: int, user: int) -> None:
            if run.counter.value > run.limit.value:
                return  # the run ends before this instruction
            try:
                if address in handlers:
                    for handler in handlers[address]:
                        handler(address)
                if address in callbacks and not run.silent and run.starts < 0:
                    if run.called and run.counter.value == 1:
                        return  # they were called, and stopped the last slice here
                    for callback in callbacks[address]:
                        callback(address)
            except BaseException as error:
                run.fail(error)
            if run.starts >= 0 and address in callbacks and run.kind is EventKind.REQUESTED:
                run.called_at = address

        self._on_code = _CODE(reached)
        if native:
            try:
                self._filter = AddressFilter(ctypes.cast(self._on_code, c_void_p).value or 0)
            except OSError:
                return
            self._add(uc_const.UC_HOOK_CODE, c_void_p(self._filter.entry), 1, 0, user=self._filter.user)

    def hook_memory(
        self, begin: int, end: int, callback: Callable[[str, int, int, int], None], *,
        read: bool = False, write: bool = False, read_after: bool = False,
    ) -> Hook:  # fmt: skip
        """Call ``callback(kind, address, size, value)`` for accesses to physical bytes ``begin`` up to ``end``.

        ``kind`` is ``"read"``, ``"write"`` or ``"read after"``; a write is reported before it happens, with its
        value (as an unsigned integer of ``size`` bytes); a read's value is known to ``read_after`` alone.
        """
        run = self._run
        kinds = {uc_const.UC_MEM_READ: "read", uc_const.UC_MEM_WRITE: "write", uc_const.UC_MEM_READ_AFTER: "read after"}

        def accessed(engine: int, access: int, address: int, size: int, value: int, user: int) -> None:
            if run.silent:
                return
            run.access = 1
            try:
                callback(kinds[access], address, size, value & ((1 << (8 * min(size, 8))) - 1))
            except BaseException as error:
                run.fail(error)
            finally:
                run.access = 0

        wanted = (read * uc_const.UC_HOOK_MEM_READ | write * uc_const.UC_HOOK_MEM_WRITE
                  | read_after * uc_const.UC_HOOK_MEM_READ_AFTER)  # fmt: skip
        if not wanted or begin >= end:
            raise UsageError("a memory hook needs a range and at least one kind of access")
        handle, itself = self._add(wanted, _MEM(accessed), begin, end - 1), weakref.ref(self)

        def remove() -> None:
            cpu = itself()
            if cpu is not None and cpu._uc is not None:
                cpu.remove_hooks([handle])

        return Hook(remove)

    def watch_stores(self, begin: int, end: int, callback: Callable[[int, int], None]) -> None:
        """For :class:`CodeWatch`: ``callback(address, size)`` at stores to physical ``begin`` up to ``end``."""
        run = self._run

        def stored(engine: int, access: int, address: int, size: int, value: int, user: int) -> None:
            try:
                callback(address, size)
            except BaseException as error:
                run.fail(error)

        self._add(uc_const.UC_HOOK_MEM_WRITE, _MEM(stored), begin, end - 1)

    def _add(self, kind: int, function: Any, begin: int = 1, end: int = 0, *extra: Any, user: int = 0) -> int:
        handle = uc_hook_h()
        status = uclib.uc_hook_add(
            self._engine, ctypes.byref(handle), kind,
            ctypes.cast(function, c_void_p), c_void_p(user), c_uint64(begin), c_uint64(end), *extra)  # fmt: skip
        if status:
            raise EngineError(f"the emulator refuses a hook: {uclib.uc_strerror(status).decode('ascii')}")
        self._callbacks[handle.value] = function
        self._run.flush_code = True
        return int(handle.value)

    def remove_hooks(self, handles: list[int]) -> None:
        """End hooks by their engine handles."""
        for handle in handles:
            uclib.uc_hook_del(self._engine, handle)
        self._run.retired.extend(self._callbacks.pop(handle) for handle in handles)
        self._run.flush_code = True

    def silence(self, silent: bool) -> None:
        """Pass over the callbacks of :meth:`hook_code` and :meth:`hook_memory`, or call them again."""
        self._run.silent = silent

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Stop before instructions at these virtual addresses, until the next call."""
        if addresses == self._breakpoints:
            return
        for at in self._breakpoints - addresses:
            self.unmark(at, self._run.at_breakpoint, self._run.handlers)
        for at in addresses - self._breakpoints:
            self.mark(at, self._run.at_breakpoint, self._run.handlers)
        self._breakpoints = addresses

    def _add_engine_hooks(
        self, read_port: Callable[[int, int], int], write_port: Callable[[int, int, int], None]
    ) -> None:
        """The hooks through which the engine reports what it leaves to others."""
        run, itself = self._run, weakref.ref(self)

        def interrupt(engine: int, vector: int, user: int) -> None:
            run.exception(vector)

        def invalid(engine: int, user: int) -> bool:
            run.exception(Vector.UD)
            return True

        # EFER.SCE is off and no SYSENTER_CS is set in this machine: both are errors. The engine skips them.
        def syscall(engine: int, user: int) -> None:
            run.address_of_syscall = _alive(itself)._read_engine("rip")
            run.exception(Vector.UD)

        def sysenter(engine: int, user: int) -> None:
            run.address_of_syscall = _alive(itself)._read_engine("rip")
            run.exception(Vector.GP)

        def no_memory(engine: int, access: int, address: int, size: int, value: int, user: int) -> bool:
            run.kind, run.address, run.starts = EventKind.BUS_ERROR, address, run.counter.value
            return False

        def port_in(engine: int, port: int, size: int, user: int) -> int:
            run.access = 1
            try:
                return read_port(port & 0xFFFF, size)
            except BaseException as error:
                run.fail(error)
                return (1 << (8 * size)) - 1
            finally:
                run.access = 0

        def port_out(engine: int, port: int, size: int, value: int, user: int) -> None:
            run.access = 1
            try:
                write_port(port & 0xFFFF, size, value & ((1 << (8 * size)) - 1))
            except BaseException as error:
                run.fail(error)
            finally:
                run.access = 0

        def new_block(engine: int, block: Any, previous: Any, user: int) -> None:
            try:
                code, now, last = _alive(itself).code, block.contents, previous.contents
                code.learn(now.pc, now.size)
                if last.instructions == 1:
                    code.doubt(last.pc, last.size)
            except BaseException as error:
                run.fail(error)

        insn = uc_const.UC_HOOK_INSN
        self._add(uc_const.UC_HOOK_INTR, _INTR(interrupt))
        self._add(uc_const.UC_HOOK_INSN_INVALID, _INVALID(invalid))
        self._add(uc_const.UC_HOOK_MEM_UNMAPPED, _MEM_INVALID(no_memory))
        self._add(uc_const.UC_HOOK_EDGE_GENERATED, _EDGE(new_block))
        self._add(insn, _SYSCALL(syscall), 1, 0, c_int(x86_const.UC_X86_INS_SYSCALL))
        self._add(insn, _SYSCALL(sysenter), 1, 0, c_int(x86_const.UC_X86_INS_SYSENTER))
        self._add(insn, _IN(port_in), 1, 0, c_int(x86_const.UC_X86_INS_IN))
        self._add(insn, _OUT(port_out), 1, 0, c_int(x86_const.UC_X86_INS_OUT))


def _alive(reference: weakref.ref[Cpu]) -> Cpu:
    cpu = reference()
    if cpu is None:
        raise EngineError("this machine is closed")
    return cpu


def _open_engine() -> Any:
    """A fresh engine that no exit address stops (the default one walks the guest's tables at the end of a run)."""
    engine = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
    engine.ctl_exits_enabled(True)
    return engine


class _Scratch:
    """The engine that calibration experiments on."""

    def __init__(self) -> None:
        self._uc: Any = _open_engine()
        self._uc.mem_map(0, SCRATCH_RAM)
        self._vector: int | None = None

        def interrupt(engine: Any, vector: int, user: Any) -> None:
            self._vector = vector
            engine.emu_stop()

        self._uc.hook_add(uc_const.UC_HOOK_INTR, interrupt)

    def write_memory(self, address: int, data: bytes) -> None:
        self._uc.mem_write(address, data)
        self._uc.ctl_flush_tb()

    def write_register(self, name: str, value: int) -> None:
        if name in _MSRS:
            self._uc.msr_write(_MSRS[name], value)
        else:
            self._uc.reg_write(REGISTER_IDS[name], value)

    def write_table(self, name: str, base: int, limit: int) -> None:
        register = {"gdtr": x86_const.UC_X86_REG_GDTR, "idtr": x86_const.UC_X86_REG_IDTR}[name]
        self._uc.reg_write(register, (0, base, limit, 0))

    def run(self, address: int, count: int) -> int | None:
        self._vector = None
        self._uc.emu_start(address, 0, 0, count)
        return self._vector

    def context(self) -> bytes:
        saved = self._uc.context_save()
        return ctypes.string_at(saved.context.value, uclib.uc_context_size(self._uc._uch))

    def words(self, count: int) -> tuple[int, ...]:
        return tuple((c_uint64 * count).from_address(self._uc._uch.value))


@lru_cache(maxsize=1)
def _layout() -> ContextLayout:
    """The layout of this process's engine; found once."""
    return calibrate(_Scratch())
