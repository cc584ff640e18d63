"""Finding the registers inside the engine's saved context, whose layout is private to each build of it.

A scratch engine gets registers of values that occur nowhere else, and meets faults of known error codes; each offset
must then be found exactly once, or no machine is made. Nothing is taken from a table of versions.
"""

from __future__ import annotations

import struct
from typing import Protocol

from ..errors import EngineError
from ..x86 import GENERAL_REGISTERS, PageFaultError, PageTableEntry, SegmentDescriptor, Vector
from .context import HFLAGS_CS64, SEGMENT_STRIDE, ContextLayout

# The scratch machine: 2 MiB of RAM, mapped where it is for everyone, and once more read-only from 2 MiB up.
SCRATCH_RAM = 2 << 20
PML4, PDPT, PD, GDT, CODE, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x8000
READ_ONLY = 2 << 20

BAD_SELECTOR = 0x1238
USER_CODE, USER_DATA = 0x18 | 3, 0x20 | 3
_GENERAL_VALUES = tuple(0x5A11_0000_0000_0000 + 0x0101_0101 * (index + 1) for index in range(16))
_FS_BASE, _GS_BASE, _CR2 = 0x5A22_0000_1111_2222, 0x5A22_0000_3333_4444, 0x5A22_0000_5555_6666
_IDT_BASE, _IDT_LIMIT = 0x5A33_0000_7777, 0x6FF
_FLAGS = 0x202
_EFER, _EFER_NX = 0x500, 0xD00

NOP = b"\x90"
MOV_DS_AX = b"\x8e\xd8"
MOV_RBX_AL = b"\x88\x03"
INT3 = b"\xcc"
IRETQ = b"\x48\xcf"


class ScratchEngine(Protocol):
    """What calibration asks of a fresh engine in 64-bit mode with ``SCRATCH_RAM`` bytes of RAM from 0 up."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Store bytes in RAM."""

    def write_register(self, name: str, value: int) -> None:
        """Set a register by its name in lower case, EFER included."""

    def write_table(self, name: str, base: int, limit: int) -> None:
        """Set ``gdtr`` or ``idtr``."""

    def run(self, address: int, count: int) -> int | None:
        """Run at most ``count`` instructions; the vector of the exception that stopped them, or None."""

    def context(self) -> bytes:
        """The saved context."""

    def words(self, count: int) -> tuple[int, ...]:
        """The first u64s of the engine's own structure."""


def calibrate(engine: ScratchEngine) -> ContextLayout:
    """The layout of this build's context; ``EngineError`` where anything is not found, or found twice."""
    _build_tables(engine)
    emu_counter = _find_counter(engine)
    block = _magic_registers(engine)
    general = _find(block, struct.pack("<16QQQ", *_GENERAL_VALUES, CODE, _FLAGS), "the general registers")
    fs_base = _find(block, struct.pack("<Q", _FS_BASE), "the base of FS")
    idtr = _find(block, struct.pack("<QI", _IDT_BASE, _IDT_LIMIT), "IDTR")
    segments = fs_base - 8 - 4 * SEGMENT_STRIDE
    _require(struct.unpack_from("<Q", block, fs_base + SEGMENT_STRIDE)[0] == _GS_BASE, "the base of GS")
    _require(idtr == segments + 9 * SEGMENT_STRIDE + 8, "the descriptor-table registers")
    control = _find(block, struct.pack("<QQ", _CR2, PML4), "CR2 and CR3") - 16
    efer = _find_efer(engine, block)
    error_code, old_exception = _find_exception(engine)
    hflags = _find_hflags(engine, segments)
    return ContextLayout(
        size=len(block), general=general, hflags=hflags, segments=segments, control=control, efer=efer,
        error_code=error_code, exception_is_int=error_code + 4, old_exception=old_exception,
        emu_counter=emu_counter)  # fmt: skip


def _build_tables(engine: ScratchEngine) -> None:
    """Long mode on two large pages, flat segments for rings 0 and 3."""
    table = int(PageTableEntry.of("P", "RW", "US"))
    large = int(PageTableEntry.of("P", "RW", "US", "PS"))
    read_only = int(PageTableEntry.of("P", "US", "PS"))
    engine.write_memory(PML4, struct.pack("<Q", PDPT | table))
    engine.write_memory(PDPT, struct.pack("<Q", PD | table))
    engine.write_memory(PD, struct.pack("<QQ", large, read_only))
    descriptors = (0, SegmentDescriptor.code64(), SegmentDescriptor.data(), SegmentDescriptor.code64(3),
                   SegmentDescriptor.data(3))  # fmt: skip
    engine.write_memory(GDT, struct.pack("<5Q", *descriptors))
    engine.write_memory(CODE, NOP * 64)
    engine.write_table("gdtr", GDT, 8 * len(descriptors) - 1)
    for name, value in (("cr3", PML4), ("cr4", 0x20), ("efer", _EFER_NX), ("cr0", 0x8001_0033), ("rsp", STACK)):
        engine.write_register(name, value)


def _find_counter(engine: ScratchEngine) -> int:
    """The offset of the instruction counter behind the engine handle; the run's limit is the word after it."""
    found: set[int] | None = None
    for count in (5, 9, 23):
        engine.run(CODE, count)
        words = engine.words(256)
        here = {8 * at for at in range(len(words) - 1) if words[at : at + 2] == (count + 1, count)}
        found = here if found is None else found & here
    if not found or len(found) != 1:
        raise EngineError("the emulator's instruction counter is not where any known version keeps it")
    return found.pop()


def _magic_registers(engine: ScratchEngine) -> bytes:
    """The context with a value of its own in every register that is looked for."""
    for name, value in zip(GENERAL_REGISTERS, _GENERAL_VALUES, strict=True):
        engine.write_register(name, value)
    for name, value in (("rip", CODE), ("rflags", _FLAGS), ("fs_base", _FS_BASE), ("gs_base", _GS_BASE),
                        ("cr2", _CR2)):  # fmt: skip
        engine.write_register(name, value)
    engine.write_table("idtr", _IDT_BASE, _IDT_LIMIT)
    return engine.context()


def _find_efer(engine: ScratchEngine, block: bytes) -> int:
    engine.write_register("efer", _EFER)
    without = engine.context()
    engine.write_register("efer", _EFER_NX)
    at = [offset for offset in range(0, len(block) - 7, 8)
          if _u64(block, offset) == _EFER_NX and _u64(without, offset) == _EFER]  # fmt: skip
    _require(len(at) == 1, "EFER")
    return at[0]


def _find_exception(engine: ScratchEngine) -> tuple[int, int]:
    """Offsets of the error code and of the exception that the engine believes to be in delivery."""
    blocks = [engine.context()]
    cases: tuple[tuple[bytes, dict[str, int], Vector], ...] = (
        (MOV_DS_AX, {"rax": BAD_SELECTOR}, Vector.GP),
        (MOV_RBX_AL, {"rbx": READ_ONLY}, Vector.PF),
        (INT3, {}, Vector.BP),
    )
    for code, registers, vector in cases:
        engine.write_memory(CODE, code)
        for name, value in registers.items():
            engine.write_register(name, value)
        if engine.run(CODE, 1) != vector:
            raise EngineError("the emulator does not raise the exceptions that it should")
        blocks.append(engine.context())

    def history(offset: int) -> tuple[int, ...]:
        return tuple(struct.unpack_from("<i", block, offset)[0] for block in blocks)

    write_denied = int(PageFaultError.of("P", "W"))
    offsets = range(0, len(blocks[0]) - 7, 4)
    codes = [at for at in offsets
             if history(at)[1:] == (BAD_SELECTOR, write_denied, 0) and history(at + 4)[1:] == (0, 0, 1)]  # fmt: skip
    old = [at for at in offsets if history(at) == (-1, Vector.GP, Vector.PF, Vector.PF)]
    _require(len(codes) == 1, "the error code")
    _require(len(old) == 1, "the exception in delivery")
    return codes[0], old[0]


def _find_hflags(engine: ScratchEngine, segments: int) -> int:
    """The word whose low two bits become 3 when ``iretq`` enters ring 3."""
    before = engine.context()
    engine.write_memory(CODE, IRETQ)
    engine.write_memory(STACK, struct.pack("<5Q", CODE + 16, USER_CODE, _FLAGS, STACK, USER_DATA))
    engine.write_register("rsp", STACK)
    engine.run(CODE, 1)
    after = engine.context()
    selectors = tuple(struct.unpack_from("<I", after, segments + SEGMENT_STRIDE * index)[0] for index in (1, 2))
    _require(selectors == (USER_CODE, USER_DATA), "the selectors")

    def is_hflags(offset: int) -> bool:
        old, new = (struct.unpack_from("<I", block, offset)[0] for block in (before, after))
        return bool(old & 3 == 0 and new & 3 == 3 and old & new & HFLAGS_CS64)

    at = [offset for offset in range(0, segments, 4) if is_hflags(offset)]
    _require(len(at) == 1, "the privilege level")
    return at[0]


def _u64(block: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", block, offset)[0])


def _find(block: bytes, pattern: bytes, what: str) -> int:
    _require(block.count(pattern) == 1, what)
    return block.find(pattern)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise EngineError(f"the emulator keeps {what} where no known version does: this build cannot be used")
