"""The shadow: a state for every byte of the heap, kept outside the guest, so that a wrong access stops at its own
instruction. The guest is not recompiled, has no red zones, and notices nothing.

::

    kernel = sandbox.boot("program.asm", shadow=True)
    result = kernel.run()
    result.error.kind                    # "use-after-free"
    print(result.error.report)           # the instruction, the object, who allocated and who freed it, the bytes

What is an error, and of which kind, is decided from the states of the bytes that an access touches
(:class:`~sandbox.trace.shadow_states.State`) and from whose code it is:

- code of the allocator may do anything; ``memset``, ``list_add``, locks and the like have the right of their caller;
- a byte of an object is *unwritten* until its owner writes it. ``memcpy`` and ``memmove`` carry that along, and
  accuse nobody; every other load of such a byte is an error, also one by ``push``, ``cmp`` or a ``rep movs`` that is
  not in one of the two. What ``kzalloc`` zeroed and what a constructor wrote is written;
- the allocator's data (``struct page``, ``struct kmem_cache``, magazines, its variables, free objects) may be read
  by all, but for free objects, and written by it alone;
- accesses from Python, and those of the processor's page walks, are not judged; what Python writes is written.

What it cannot see: a pointer to memory that was handed out again is as good as the new owner's (``quarantine=N``
delays that), and so is one that has run over into a live neighbour; bytes copied to a stack, through registers or
into pages that are no slab's count as written.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..abi import DIRECT_MAP, KERNEL_STACK_SIZE, STACK_SLOT, STACKS_BASE
from ..address import PAGE_SHIFT, PAGE_SIZE, U64
from ..errors import EngineError, ShadowError, TranslationError
from ..guest.symbols import Symbols
from ..heap.views import Heap
from ..layout import Writable
from ..machine.cpu import Cpu
from ..machine.machine import Machine
from ..machine.memory import PhysicalMemory
from ..machine.paging import Paging
from .foreign_functions import functions as foreign_functions
from .functions import Traced
from .recorder import AT_ENTRY, AT_EXIT
from .shadow_adopt import adopt, heap_frames
from .shadow_calls import KSIZE, Calls, Open
from .shadow_code import CodeMap
from .shadow_compiled import Compiled
from .shadow_foreign import Foreign, ForeignState
from .shadow_instruction import Examiner, Seen
from .shadow_native import NativeGate, Registers, Stack
from .shadow_objects import Cause, Held, ObjectTable, TableState
from .shadow_options import ShadowOptions
from .shadow_quarantine import Quarantine, RegisterFile, Waiting
from .shadow_report import Access, Owner, Reporter
from .shadow_states import Code, ShadowKind, State
from .tracer import Tracer

MOST_ERRORS = 1000
"""Errors that are kept; when they are collected, of one kind at one instruction the first alone is."""
EARLY = 63
"""Hooks begin so many bytes before what they guard, because an access belongs to where it begins."""
LARGEST_OPERAND = 576
"""Bytes behind an operand's address that an instruction may store to: those of fxsave, and some."""
_UNWRITTEN, _METADATA = int(State.UNWRITTEN), int(State.METADATA)


@dataclass(frozen=True)
class _Readable:
    """What the heap's views read: virtual memory and symbols, and nothing that keeps the engine alive."""

    memory: Writable
    symbols: Symbols


class ShadowState(NamedTuple):
    """All of a shadow, as a value."""

    table: TableState
    opened: tuple[Open, ...]
    last: tuple[int, int, int]
    tail: tuple[int, int]
    copied: tuple[int, int]
    waiting: tuple[tuple[Waiting, ...], int, int] | None
    foreign: ForeignState | None


class Shadow:
    """The shadow of one guest; it begins when it is made, and goes where the machine goes, also back.

    ``errors`` are all that it found, in order; going back takes none away.
    """

    def __init__(self, machine: Machine, symbols: Symbols, tracer: Tracer, options: ShadowOptions,
                 arena: tuple[int, int] | None = None) -> None:
        self.errors: list[ShadowError] = []
        self.options = options
        self._machine = weakref.ref(machine)     # its hooks hold the shadow: nothing must keep the machine alive
        self._symbols = symbols
        memory = machine.virtual
        self._heap = Heap(_Readable(memory, symbols))
        self._paging = machine.paging
        self._found: set[tuple[str, int]] = set()
        self._copied = (0, 0)
        cpu = machine.cpu
        self._counter = ctypes.c_uint64.from_address(cpu.counter_address)
        self._where = cpu.register_reader(("rip", "rsp", "cr3"))
        self.ram = tracer.ram()
        self.table = ObjectTable(len(machine.memory))
        self.code = CodeMap(symbols, self.ram)
        self._compiled = Compiled(symbols, memory.read)
        self._examiner = Examiner(memory, symbols, lambda: self._cpu["gs_base"])
        self._memory = memory
        self._ram_memory = machine.memory
        self._reporter = Reporter(self.table, symbols, memory, tracer.names)
        functions = {at: known for at, known in tracer.functions.items() if not known.foreign}
        if KSIZE.name in symbols:
            functions[int(symbols[KSIZE.name])] = KSIZE
        at_entry = cpu.register_reader(AT_ENTRY)
        self._calls = Calls(self.table, self.ram, self.code, functions, at_entry, cpu.register_reader(AT_EXIT),
                            self._clock, self._accuse_free)
        self._quarantine = Quarantine(options.quarantine, RegisterFile(self._machine, self.ram),
                                      int(symbols["kmem_cache_free"])) if options.quarantine else None
        self._calls.deferring = self._quarantine
        self._foreign = None if options.allocator is None else Foreign(
            foreign_functions(options.allocator, symbols), symbols, self._paging, self.table, self.ram, at_entry,
            cpu.register_reader(AT_EXIT), self._clock, self._accuse_free,
            self._accuse_overlap, self._divert,
            _physical(self._paging, arena))
        if self._foreign is not None:
            self._calls.pages = self._foreign
            self._reporter.find_more = self._foreign.find
            self._reporter.physical = self._foreign.physical
            self._reporter.verbs |= self._foreign.verbs
        adopt(self.table, self._heap, self.ram, symbols, self._paging, own=True)
        self._gate = self._native_gate(machine)
        self._hook(machine, functions, tracer.rets)
        self._hear_of_writes(machine.memory)
        machine.companions.append(self)

    # -- hooks ------------------------------------------------------------------------------------------------
    @property
    def native(self) -> bool:
        """Whether the common case is decided in native code."""
        return self._gate is not None

    def chunks(self) -> dict[int, Held]:
        """What an allocator of somebody else handed out, by pointer; what was freed is no longer ``live``."""
        return {} if self._foreign is None else self._foreign.chunks()

    def _native_gate(self, machine: Machine) -> NativeGate | None:
        cpu = machine.cpu
        top = STACKS_BASE + STACK_SLOT
        stack = self._paging.translate(top - KERNEL_STACK_SIZE)
        try:
            return NativeGate(self.table.shadow, self.code.start, self.code.table,
                              Registers(*cpu.native_reading("rip", "rsp")),
                              Stack(top - KERNEL_STACK_SIZE, KERNEL_STACK_SIZE, machine.memory.host_address + stack),
                              cpu.counter_address)
        except OSError:
            return None

    def _hook(self, machine: Machine, functions: Mapping[int, Traced], rets: Sequence[int]) -> None:
        cpu = machine.cpu
        cpu.hook_code(functions, self._calls.enter, replayed=True)
        cpu.hook_code(rets, self._calls.leave, replayed=True)
        frames = heap_frames(self.ram, self._symbols, self._paging)
        watched = list(frames)
        if self._foreign is not None:
            self._foreign.hook(cpu)
            watched += self._foreign.data
        gate = self._gate
        for start, end in watched:
            cpu.hook_memory(max(start - EARLY, 0), end, self.accessed, read=True, write=True, replayed=True, gate=gate)
        for start, end in self._guarded(frames):
            cpu.hook_memory(max(start - EARLY, 0), end, self.accessed, write=True, replayed=True, gate=gate)

    def _hear_of_writes(self, memory: PhysicalMemory) -> None:
        """What Python writes is written."""
        before, itself = memory.changed, weakref.ref(self)

        def changed(start: int, end: int) -> None:
            if before is not None:
                before(start, end)
            shadow = itself()
            if shadow is not None:
                shadow.table.shadow[start:end] &= np.uint8(~_UNWRITTEN & 0xFF)

        memory.changed = changed

    def _guarded(self, frames: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The physical ranges outside the heap that hold data of the allocator."""
        pages = np.asarray(self.table.shadow.reshape(-1, PAGE_SIZE).any(axis=1))
        for start, end in frames:
            pages[start >> PAGE_SHIFT : end >> PAGE_SHIFT] = False
        edges = np.flatnonzero(np.diff(np.concatenate(([False], pages, [False]))))
        return [(int(first) << PAGE_SHIFT, int(end) << PAGE_SHIFT) for first, end in edges.reshape(-1, 2)]

    @property
    def _cpu(self) -> Cpu:
        machine = self._machine()
        if machine is None:
            raise EngineError("this machine is closed")
        return machine.cpu

    def _clock(self) -> int:
        machine = self._machine()
        return 0 if machine is None else machine.instructions

    # -- accesses ---------------------------------------------------------------------------------------------
    def accessed(self, what: str, address: int, size: int, value: int) -> None:
        """An access that native code does not let pass, or any where there is none: ``what`` is ``read`` or
        ``write``, the address a physical one. The rules are those of ``shadow_native.asm``."""
        write = what == "write"
        for at, length, offset in self._pieces(address, size):
            if self._foreign is not None and self._foreign.inside:
                self._foreign.touched(at, length, write)
            elif write:
                self._write(at, length, offset, size)
            else:
                self._read(at, length, offset, size)

    def _pieces(self, address: int, size: int) -> list[tuple[int, int, int]]:
        """The access as parts of at most 8 bytes in one page: address, bytes, offset in the access."""
        room = PAGE_SIZE - address % PAGE_SIZE
        parts = [(address, min(size, room), 0)]
        if size > room:
            registers = self._cpu.registers()
            virtual = self._virtual(address, self._examiner.at(registers["rip"], registers))
            with suppress(TranslationError):     # or the access faults, and comes to nothing
                parts.append((int(self._paging.translate(virtual + room)), size - room, room))
        return [(at + skip, min(8, length - skip), offset + skip) for at, length, offset in parts
                for skip in range(0, length, 8)]

    def _read(self, at: int, length: int, offset: int, size: int) -> None:
        states = self.table.shadow[at : at + length].tobytes()
        wrong = [state & ~_METADATA for state in states]
        if not any(wrong):
            return
        rip, rsp, cr3 = self._where()
        code = self.code.of(rip)
        if code == Code.ALLOCATOR:
            return
        if code == Code.COPY:
            unwritten = bytes(state & _UNWRITTEN for state in states)
            wrong = [state & ~_UNWRITTEN for state in wrong]
            if not any(wrong):
                self._set_copied((int.from_bytes(unwritten, "little"), self._counter.value))
                return
        if self.code.responsible(rip, rsp, cr3) == Code.ALLOCATOR:
            return
        if not any(state & ~_UNWRITTEN for state in wrong) and self._compiled.may_read(
                rip, sum(state != 0 for state in wrong), length):
            return
        first = next(index for index, state in enumerate(wrong) if state)
        self._accuse("read", at + first, offset + first, size, State(states[first]))
        self.table.shadow[at : at + length] = [state & ~_UNWRITTEN for state in states]

    def _write(self, at: int, length: int, offset: int, size: int) -> None:
        shadow = self.table.shadow
        states = shadow[at : at + length].tobytes()
        copied, copied_at = self._get_copied()
        if not copied and not any(states):
            return
        rip, rsp, cr3 = self._where()
        code = self.code.of(rip)
        wrong = [state & ~_UNWRITTEN for state in states]
        if not any(wrong):
            new = 0
            if copied and code == Code.COPY:
                self._set_copied((0, 0))
                if 0 <= self._counter.value - copied_at <= 1:
                    new = copied
            shadow[at : at + length] = memoryview(new.to_bytes(8, "little")[:length])
            return
        if self.code.responsible(rip, rsp, cr3) == Code.ALLOCATOR:
            return
        first = next(index for index, state in enumerate(wrong) if state)
        self._accuse("write", at + first, offset + first, size, State(states[first]))
        shadow[at : at + length] = wrong

    def _get_copied(self) -> tuple[int, int]:
        return self._copied if self._gate is None else self._gate.copied

    def _set_copied(self, copied: tuple[int, int]) -> None:
        if self._gate is None:
            self._copied = copied
        else:
            self._gate.copied = copied

    def _divert(self, everything: bool) -> None:
        """Let every access come to Python, or those alone that native code does not decide."""
        if self._gate is not None:
            self._gate.divert = everything

    # -- errors -----------------------------------------------------------------------------------------------
    def forget_errors(self) -> None:
        """Begin anew with finding: what was found before may be found once more."""
        self.errors = []
        self._found.clear()

    def _accuse(self, access: str, first: int, offset: int, size: int, state: State) -> None:
        """The present instruction does what it must not."""
        cpu = self._cpu
        if cpu.silent:
            return
        registers = cpu.registers()
        seen = self._examiner.at(registers["rip"], registers)
        virtual = self._virtual(first - offset, seen) + offset
        kind, owner = self._reporter.judge(state, first, virtual, seen.bases)
        what = Access(kind, access, first, virtual, size, offset, state)
        self._report(what, owner, seen, registers, self._clock() - 1, 1)

    def _accuse_free(self, kind: ShadowKind, pointer: int, cache: int | None, cause: Cause) -> None:
        """The call that has led to the present instruction frees what it must not."""
        cpu = self._cpu
        if cpu.silent:
            return
        registers, instruction, starts = cpu.registers(), self._clock(), 0
        call = self.code.call_before(cause.stack[0], self._memory.read) if cause.stack else None
        if call is not None:
            registers |= {"rip": call, "rsp": registers["rsp"] + 8}
            instruction, starts = instruction - 1, 1
        seen = self._examiner.at(registers["rip"], registers)
        physical = pointer - DIRECT_MAP if self._foreign is None else self._foreign.physical(pointer)
        state = State(int(self.table.shadow[physical])) if 0 <= physical < len(self.table.shadow) else State(0)
        what = Access(kind, "free", physical, pointer, 0, 0, state, cache, cause)
        self._report(what, self._reporter.owner(physical), seen, registers, instruction, starts)

    def _accuse_overlap(self, pointer: int, asked: int, other: Owner, cause: Cause) -> None:
        """The call that is about to return hands out what somebody else has."""
        cpu = self._cpu
        if cpu.silent or self._foreign is None:
            return
        registers, first = cpu.registers(), self._foreign.physical(pointer)
        what = Access(ShadowKind.OVERLAP, "allocate", first, pointer, asked, 0, State(int(self.table.shadow[first])),
                      cause=cause)
        self._report(what, other, self._examiner.at(registers["rip"], registers), registers, self._clock(), 0)

    def _report(self, access: Access, owner: Owner | None, seen: Seen, registers: dict[str, int], instruction: int,
                starts: int) -> None:
        place = str(access.kind), seen.address
        if not self.options.collect and self._cpu.refusing:
            return  # another piece of the access that is being refused
        if self.options.collect and (place in self._found or len(self.errors) >= MOST_ERRORS):
            return
        error = self._reporter.error(access, owner, seen, registers, instruction)
        self._found.add(place)
        self.errors = [*self.errors[-MOST_ERRORS + 1 :], error]
        if not self.options.collect:
            self._cpu.refuse(error, self._stored(access, seen), registers, starts)

    def _virtual(self, physical: int, seen: Seen) -> int:
        """The virtual address with which an instruction names a physical one."""
        for address in seen.addresses:
            try:
                if int(self._paging.translate(address)) == physical:
                    return address
            except TranslationError:
                continue
        return DIRECT_MAP + physical

    def _stored(self, access: Access, seen: Seen) -> list[tuple[int, bytes]]:
        """The memory that an instruction may change, as it is before: around whatever its operands name."""
        if access.access in ("free", "allocate"):
            return []
        memory, kept = self._ram_memory, {}
        for address in (*seen.addresses, access.virtual - access.offset):
            for at in range(address - 64, address + LARGEST_OPERAND, 64):
                try:
                    physical = int(self._paging.translate(at & U64)) & -64
                except TranslationError:
                    continue
                if memory.contains(physical, 64):
                    kept[physical] = memory.read(physical, 64)
        return list(kept.items())

    # -- going back -------------------------------------------------------------------------------------------
    def state(self) -> object:
        """All of it, for a snapshot of the machine."""
        return ShadowState(
            self.table.state(), tuple(self._calls.opened), self._calls.last, self._calls.tail, self._get_copied(),
            None if self._quarantine is None else self._quarantine.state(),
            None if self._foreign is None else self._foreign.state())

    def load(self, state: object | None) -> None:
        """Become what :meth:`state` said; without one, what the machine's bytes say."""
        if isinstance(state, ShadowState):
            self.table.load(state.table)
            self._calls.opened[:] = state.opened
            self._calls.last, self._calls.tail = state.last, state.tail
            self._set_copied(state.copied)
            waiting, foreign = state.waiting, state.foreign
        else:
            self.table.clear()
            adopt(self.table, self._heap, self.ram, self._symbols, self._paging, own=False)
            self._calls.opened.clear()
            self._calls.last, self._calls.tail = (0, 0, -1), (0, 0)
            self._set_copied((0, 0))
            waiting, foreign = None, None
        if self._quarantine is not None:
            self._quarantine.load(waiting)
        if self._foreign is not None:
            self._foreign.load(foreign)


def _physical(paging: Paging, arena: tuple[int, int] | None) -> range:
    """The physical bytes of an arena, which lie in one piece."""
    if arena is None:
        return range(0)
    start = int(paging.translate(arena[0]))
    return range(start, start + arena[1])
