"""The registers of the emulated CPU as bytes: where they lie, and a view that reads and writes them in place.

The engine can save its registers to a block of memory and load them from it. Inside that block they lie as its
build laid them out; :mod:`sandbox.machine.calibration` finds the offsets when the first machine is made.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from ..x86 import GENERAL_REGISTERS, REGISTERS, SEGMENT_REGISTERS

SEGMENT_STRIDE = 24  # u32 selector, u64 base at +8, u32 limit at +16, u32 descriptor bits at +20
INHIBIT_INTERRUPTS = 1 << 3  # in hflags: the instruction after sti or mov ss
# Bits of hflags that follow the code segment.
HFLAGS_CS32 = 1 << 4
HFLAGS_SS32 = 1 << 5
HFLAGS_ADDSEG = 1 << 6
HFLAGS_CS64 = 1 << 15

_GENERAL = struct.Struct("<16Q")
_EVERY = struct.Struct("<16QQQ")
_U64 = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_SEGMENT = struct.Struct("<I4xQII")
_TABLE = struct.Struct("<QI")
_INDEX = {name: index for index, name in enumerate(GENERAL_REGISTERS)}
_ORDER = tuple((*GENERAL_REGISTERS, "rip", "rflags").index(name) for name in REGISTERS)


@dataclass(frozen=True)
class ContextLayout:
    """Byte offsets into the block. General registers lie in the order in which instructions encode them."""

    size: int
    general: int  # 16 u64, then RIP, then RFLAGS
    hflags: int  # u32: CPL in bits 0-1, the interrupt shadow in bit 3
    segments: int  # ES CS SS DS FS GS LDTR TR GDTR IDTR, SEGMENT_STRIDE bytes each
    control: int  # CR0 to CR4, u64 each
    efer: int  # u64
    error_code: int  # i32
    exception_is_int: int  # i32
    old_exception: int  # i32, -1 when no exception is in delivery
    emu_counter: int  # u64 behind the engine handle; the limit of the run is the next u64

    @property
    def values(self) -> slice:
        """The part of the block that holds values alone, no pointers of the host."""
        return slice(self.general, self.error_code + 16)


class TableRegister(NamedTuple):
    """GDTR or IDTR, or the hidden part of TR: the address of a table and its last valid offset."""

    base: int
    limit: int


class RegisterView:
    """Typed access to the block. Changes reach the CPU when the block is loaded."""

    def __init__(self, block: memoryview, layout: ContextLayout) -> None:
        self.block = block
        self.layout = layout
        self._rip = layout.general + 128
        self._rflags = layout.general + 136
        self._segments = {
            name: layout.segments + SEGMENT_STRIDE * index for index, name in enumerate(SEGMENT_REGISTERS)
        }

    def registers(self) -> dict[str, int]:
        """rax to r15, rip and rflags by name, in the order in which people read them."""
        values = _EVERY.unpack_from(self.block, self.layout.general)
        return {name: values[index] for name, index in zip(REGISTERS, _ORDER, strict=True)}

    def general_bytes(self) -> bytes:
        """The 16 general registers, RIP and RFLAGS, packed."""
        return bytes(self.block[self.layout.general : self.layout.general + _EVERY.size])

    def general(self, name: str) -> int:
        """One of the 16 general registers."""
        return int(_U64.unpack_from(self.block, self.layout.general + 8 * _INDEX[name])[0])

    def set_general(self, name: str, value: int) -> None:
        """Give one of the 16 general registers a value."""
        _U64.pack_into(self.block, self.layout.general + 8 * _INDEX[name], value)

    @property
    def rip(self) -> int:
        """The address of the next instruction."""
        return int(_U64.unpack_from(self.block, self._rip)[0])

    @rip.setter
    def rip(self, value: int) -> None:
        _U64.pack_into(self.block, self._rip, value)

    @property
    def rsp(self) -> int:
        """The stack pointer."""
        return int(_U64.unpack_from(self.block, self.layout.general + 32)[0])

    @rsp.setter
    def rsp(self, value: int) -> None:
        _U64.pack_into(self.block, self.layout.general + 32, value)

    @property
    def rflags(self) -> int:
        """The flags."""
        return int(_U64.unpack_from(self.block, self._rflags)[0])

    @rflags.setter
    def rflags(self, value: int) -> None:
        _U64.pack_into(self.block, self._rflags, value)

    # --- privilege and segments -------------------------------------------------------------------------------

    @property
    def hflags(self) -> int:
        """The engine's own flags: CPL in bits 0-1, the interrupt shadow in bit 3."""
        return int(_U32.unpack_from(self.block, self.layout.hflags)[0])

    @hflags.setter
    def hflags(self, value: int) -> None:
        _U32.pack_into(self.block, self.layout.hflags, value)

    @property
    def cpl(self) -> int:
        """The current privilege level, 0 to 3."""
        return self.hflags & 3

    @property
    def interrupts_shadowed(self) -> bool:
        """Whether the last instruction was an sti or mov ss that holds interrupts off for one more."""
        return bool(self.hflags & INHIBIT_INTERRUPTS)

    def selector(self, name: str) -> int:
        """The selector in a segment register."""
        return int(_U32.unpack_from(self.block, self._segments[name])[0])

    def segment_base(self, name: str) -> int:
        """The base of a segment; only those of FS and GS count in 64-bit mode."""
        return int(_U64.unpack_from(self.block, self._segments[name] + 8)[0])

    def set_segment(self, name: str, selector: int, base: int, limit: int, bits: int) -> None:
        """Load a segment register with its hidden part; ``bits`` is the second u32 of the descriptor."""
        _SEGMENT.pack_into(self.block, self._segments[name], selector, base, limit, bits)

    def _table(self, index: int) -> TableRegister:
        at = self.layout.segments + SEGMENT_STRIDE * index
        return TableRegister(*_TABLE.unpack_from(self.block, at + 8))

    @property
    def ldtr(self) -> TableRegister:
        """The local descriptor table."""
        return self._table(6)

    @property
    def tr(self) -> TableRegister:
        """The task state segment."""
        return self._table(7)

    @property
    def task_selector(self) -> int:
        """The selector in TR."""
        return int(_U32.unpack_from(self.block, self.layout.segments + SEGMENT_STRIDE * 7)[0])

    @property
    def gdtr(self) -> TableRegister:
        """The global descriptor table."""
        return self._table(8)

    @property
    def idtr(self) -> TableRegister:
        """The interrupt descriptor table."""
        return self._table(9)

    def set_idtr(self, base: int, limit: int) -> None:
        """Load the interrupt descriptor table register."""
        struct.pack_into("<QI", self.block, self.layout.segments + SEGMENT_STRIDE * 9 + 8, base, limit)

    # --- control registers ------------------------------------------------------------------------------------

    def control(self, number: int) -> int:
        """CR0 to CR4."""
        return int(_U64.unpack_from(self.block, self.layout.control + 8 * number)[0])

    def set_cr2(self, value: int) -> None:
        """Store the address of a page fault."""
        _U64.pack_into(self.block, self.layout.control + 16, value)

    @property
    def efer(self) -> int:
        """The extended feature enable register."""
        return int(_U64.unpack_from(self.block, self.layout.efer)[0])

    # --- the exception that the CPU raised last ---------------------------------------------------------------

    @property
    def error_code(self) -> int:
        """What the exception pushes, 0 where it pushes nothing."""
        return int(_U32.unpack_from(self.block, self.layout.error_code)[0])

    @property
    def is_software_interrupt(self) -> bool:
        """Whether it came from an ``int n`` instruction; RIP is then past it."""
        return bool(_I32.unpack_from(self.block, self.layout.exception_is_int)[0])

    def begin_exception(self, error_code: int = 0) -> None:
        """Make it look as if the CPU had raised an exception that the engine does not know."""
        _I32.pack_into(self.block, self.layout.error_code, error_code)
        _I32.pack_into(self.block, self.layout.exception_is_int, 0)

    def end_exception(self) -> None:
        """Tell the engine that the exception was delivered: the next one is a first one, not a double fault."""
        _I32.pack_into(self.block, self.layout.old_exception, -1)
