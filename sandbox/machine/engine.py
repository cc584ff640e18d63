"""Unicorn behind a dozen plain calls: the one file that imports it.

An :class:`Engine` runs, stops, saves and loads its registers as a block of bytes, and calls back. Callbacks are raw C
functions: Unicorn's own wrappers cost several times as much, and lose exceptions. What the engine does with all this,
and what it gets wrong, is the business of :mod:`sandbox.machine.cpu`.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, c_bool, c_int, c_int64, c_uint16, c_uint32, c_uint64, c_void_p
from functools import lru_cache
from typing import Any

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const
from unicorn.unicorn_py3.arch.types import uc_hook_h
from unicorn.unicorn_py3.unicorn import uclib

from ..errors import EngineError, UsageError
from ..x86 import GENERAL_REGISTERS, SEGMENT_REGISTERS, Msr
from .calibration import SCRATCH_RAM, calibrate
from .context import ContextLayout

# The engine's translated code takes at most so much of the host's memory (its own choice is 1 GiB), and is then
# translated anew. A kernel needs 2 MiB; code that changes itself fills any amount.
TRANSLATION_BYTES = 64 << 20

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
_ACCESSES = {
    "read": (uc_const.UC_HOOK_MEM_READ, uc_const.UC_MEM_READ),
    "write": (uc_const.UC_HOOK_MEM_WRITE, uc_const.UC_MEM_WRITE),
    "read after": (uc_const.UC_HOOK_MEM_READ_AFTER, uc_const.UC_MEM_READ_AFTER),
}
_ACCESS_NAMES = {kind: name for name, (_, kind) in _ACCESSES.items()}

CodeCallback = Callable[[int, int, int, int], None]
"""``(engine, address, size, user)``: as it comes, for it comes most often"""
MemoryCallback = Callable[[str, int, int, int], None]
"""``(kind, physical address, size, value)``"""
Gate = Callable[[int], tuple[int, int]]
"""Native code in front of a callback: given the host address of that, its own and a user pointer."""


class Engine:
    """One x86-64 engine in 64-bit mode, with no memory yet. No exit address stops it: the default one walks the
    guest's tables at the end of a run."""

    def __init__(self) -> None:
        self._uc: Any = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64)
        self._uc.ctl_exits_enabled(True)
        self._uc.ctl_set_tcg_buffer_size(TRANSLATION_BYTES)
        self.handle: int = self._uc._uch.value
        self._saved = self._uc.context_save()
        self._context = self._saved.context
        self._callbacks: dict[int, Any] = {}
        self._retired: list[Any] = []  # callbacks of removed hooks, which the engine may still name

    def close(self) -> None:
        """Give the engine and its address space back; a second call does nothing."""
        self._callbacks.clear()
        self._uc = self._saved = None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._uc is None

    def map_ram(self, start: int, size: int, host_address: int) -> None:
        """Let physical ``start`` be the host's memory at ``host_address``."""
        self._uc.mem_map_ptr(start, size, uc_const.UC_PROT_ALL, host_address)

    def run(self, rip: int, count: int) -> str:
        """Run at most ``count`` instruction starts from ``rip``; why the engine gave up, or nothing."""
        status = uclib.uc_emu_start(self.handle, rip, 0, 0, count)
        return uclib.uc_strerror(status).decode("ascii") if status else ""

    def stop(self) -> None:
        """From a hook: leave the run."""
        uclib.uc_emu_stop(self.handle)

    def set_exits(self, addresses: list[int]) -> None:
        """Leave the run before instructions at these addresses."""
        self._uc.ctl_set_exits(addresses)

    def forget_code(self) -> None:
        """Drop all translated code."""
        self._uc.ctl_flush_tb()

    def forget_translations(self) -> None:
        """Drop the TLB."""
        self._uc.ctl(uc_const.UC_CTL_TLB_FLUSH, uc_const.UC_CTL_IO_WRITE)

    # --- registers ----------------------------------------------------------------------------------------------

    def block(self, size: int) -> memoryview:
        """The bytes that :meth:`save` fills and :meth:`load` takes."""
        raw = (ctypes.c_ubyte * size).from_address(self._context.value)
        return memoryview(raw).cast("B")

    def save(self) -> None:
        """Registers to the block."""
        uclib.uc_context_save(self.handle, self._context)

    def load(self) -> None:
        """Registers from the block."""
        uclib.uc_context_restore(self.handle, self._context)

    def read(self, name: str) -> int:
        """A register, one that a run is using included."""
        if name in _MSRS:
            return int(self._uc.msr_read(_MSRS[name]))
        return int(self._uc.reg_read(_register(name)))

    def write(self, name: str, value: int) -> None:
        """Set a register."""
        if name in _MSRS:
            self._uc.msr_write(_MSRS[name], value)
        else:
            self._uc.reg_write(_register(name), value)

    def reader(self, names: Iterable[str]) -> Callable[[], tuple[int, ...]]:
        """A function that reads these registers as fast as the engine can be asked, for use inside hooks."""
        listed = tuple(names)
        count = len(listed)
        ids = (c_int * count)(*(_register(name) for name in listed))
        values = (c_uint64 * count)()
        start = ctypes.addressof(values)
        pointers = (c_void_p * count)(*(start + 8 * index for index in range(count)))
        # Every argument is converted once, here: that halves the time of a call.
        read_batch = _READ_BATCH(ctypes.cast(uclib.uc_reg_read_batch, c_void_p).value or 0)
        arguments = (c_void_p(self.handle), c_void_p(ctypes.addressof(ids)), c_void_p(ctypes.addressof(pointers)),
                     c_int(count))  # fmt: skip
        unpack, found, kept = struct.Struct(f"<{count}Q").unpack_from, memoryview(values).cast("B"), (ids, pointers)

        def read() -> tuple[int, ...]:
            read_batch(*arguments)
            return unpack(found)

        read.__dict__["kept"] = kept  # what the addresses in ``arguments`` lead to
        return read

    # --- hooks --------------------------------------------------------------------------------------------------

    def on_code(self, callback: CodeCallback, begin: int, end: int) -> int:
        """Call ``callback`` before instructions at ``begin`` to ``end``; returns the hook's handle."""
        return self._add(uc_const.UC_HOOK_CODE, _CODE(callback), begin, end)

    def on_every_instruction(self, callback: CodeCallback, gate: Gate | None = None) -> int:
        """Call ``callback`` before the instructions that ``gate`` lets through, before all where there is none.
        ``OSError`` where it cannot be."""
        function = _CODE(callback)
        entry, user = (_host_address(function), 0) if gate is None else gate(_host_address(function))
        handle = self._add(uc_const.UC_HOOK_CODE, c_void_p(entry), 1, 0, user=user)
        self._callbacks[handle] = function
        return handle

    def on_memory(
        self, callback: MemoryCallback, begin: int, end: int, kinds: Iterable[str], gate: Gate | None = None
    ) -> int:
        """Call ``callback`` for these kinds of access (``read``, ``write``, ``read after``) to physical ``begin`` up
        to ``end``; through ``gate``, where there is one."""

        def accessed(engine: int, access: int, address: int, size: int, value: int, user: int) -> None:
            callback(_ACCESS_NAMES[access], address, size, value & ((1 << (8 * min(size, 8))) - 1))

        function = _MEM(accessed)
        entry, user = (function, 0) if gate is None else gate(_host_address(function))
        handle = self._add(sum(_ACCESSES[kind][0] for kind in kinds), entry, begin, end - 1, user=user)
        self._callbacks[handle] = function
        return handle

    def on_exception(self, callback: Callable[[int], None]) -> None:
        """Call ``callback(vector)`` for an exception or ``int n``."""
        self._add(uc_const.UC_HOOK_INTR, _INTR(lambda engine, vector, user: callback(vector)))

    def on_invalid_instruction(self, callback: Callable[[], None]) -> None:
        """Call ``callback()`` for an instruction that the engine does not know."""

        def invalid(engine: int, user: int) -> bool:
            callback()
            return True

        self._add(uc_const.UC_HOOK_INSN_INVALID, _INVALID(invalid))

    def on_no_memory(self, callback: Callable[[int], None]) -> None:
        """Call ``callback(physical address)`` where nothing is mapped; the run ends."""

        def no_memory(engine: int, access: int, address: int, size: int, value: int, user: int) -> bool:
            callback(address)
            return False

        self._add(uc_const.UC_HOOK_MEM_UNMAPPED, _MEM_INVALID(no_memory))

    def on_new_block(self, callback: Callable[[int, int, int, int, int], None]) -> None:
        """Call ``callback(pc, size, previous pc, previous size, previous instructions)`` for each block translated."""

        def new_block(engine: int, block: Any, previous: Any, user: int) -> None:
            now, last = block.contents, previous.contents
            callback(now.pc, now.size, last.pc, last.size, last.instructions)

        self._add(uc_const.UC_HOOK_EDGE_GENERATED, _EDGE(new_block))

    def on_system_call(self, syscall: Callable[[], None], sysenter: Callable[[], None]) -> None:
        """Call these instead of ``syscall`` and ``sysenter``."""
        insn = uc_const.UC_HOOK_INSN
        self._add(insn, _SYSCALL(lambda engine, user: syscall()), 1, 0, c_int(x86_const.UC_X86_INS_SYSCALL))
        self._add(insn, _SYSCALL(lambda engine, user: sysenter()), 1, 0, c_int(x86_const.UC_X86_INS_SYSENTER))

    def on_port(self, read: Callable[[int, int], int], write: Callable[[int, int, int], None]) -> None:
        """Call ``read(port, size)`` for ``in`` and ``write(port, size, value)`` for ``out``."""
        insn = uc_const.UC_HOOK_INSN
        self._add(insn, _IN(lambda engine, port, size, user: read(port & 0xFFFF, size)), 1, 0,
                  c_int(x86_const.UC_X86_INS_IN))  # fmt: skip
        self._add(insn, _OUT(lambda engine, port, size, value, user:
                             write(port & 0xFFFF, size, value & ((1 << (8 * size)) - 1))), 1, 0,
                  c_int(x86_const.UC_X86_INS_OUT))  # fmt: skip

    def _add(self, kind: int, function: Any, begin: int = 1, end: int = 0, *extra: Any, user: int = 0) -> int:
        handle = uc_hook_h()
        status = uclib.uc_hook_add(
            self.handle, ctypes.byref(handle), kind,
            ctypes.cast(function, c_void_p), c_void_p(user), c_uint64(begin), c_uint64(end), *extra)  # fmt: skip
        if status:
            raise EngineError(f"the emulator refuses a hook: {uclib.uc_strerror(status).decode('ascii')}")
        self._callbacks[handle.value] = function
        return int(handle.value)

    def remove(self, hook: int) -> None:
        """End a hook by its handle."""
        uclib.uc_hook_del(self.handle, hook)
        self._retired.append(self._callbacks.pop(hook))


def _host_address(function: Any) -> int:
    return ctypes.cast(function, c_void_p).value or 0


def _register(name: str) -> int:
    try:
        return REGISTER_IDS[name]
    except KeyError:
        raise UsageError(f"no register is called {name!r}") from None


class _Scratch:
    """The engine that calibration experiments on."""

    def __init__(self) -> None:
        self._engine = Engine()
        self._uc = self._engine._uc
        self._uc.mem_map(0, SCRATCH_RAM)
        self._vector: int | None = None

        def interrupt(engine: Any, vector: int, user: Any) -> None:
            self._vector = vector
            engine.emu_stop()

        self._uc.hook_add(uc_const.UC_HOOK_INTR, interrupt)

    def write_memory(self, address: int, data: bytes) -> None:
        self._uc.mem_write(address, data)
        self._engine.forget_code()

    def write_register(self, name: str, value: int) -> None:
        self._engine.write(name, value)

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
        return tuple((c_uint64 * count).from_address(self._engine.handle))


@lru_cache(maxsize=1)
def context_layout() -> ContextLayout:
    """The layout of this process's engine; found once."""
    return calibrate(_Scratch())


def native_reading(*names: str) -> tuple[int, ...]:
    """For native callbacks: the host address of ``int read(engine, int number, u64 *value)``, and the numbers of
    these registers."""
    return _host_address(uclib.uc_reg_read), *(_register(name) for name in names)
