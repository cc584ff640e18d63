"""The x86-64 architecture as tables: control registers, page-table entries, descriptors, vectors, error codes.

Only what the processor's manual fixes is here; the numbers that our kernel chose are in :mod:`sandbox.abi`.
References are to the Intel Software Developer's Manual (SDM), volume 3A unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

from .layout import Bit, Register, Struct, u8, u16, u32, u64

# --- control registers and flags ------------------------------------------------------------------------------


class Cr0(Register):
    """Control register 0 (2.5)."""

    PE = Bit(0, "protected mode")
    MP = Bit(1, "wait obeys TS")
    EM = Bit(2, "no x87: its instructions raise #UD")
    TS = Bit(3, "task switched: x87 and SSE instructions raise #NM")
    ET = Bit(4, "always 1")
    NE = Bit(5, "x87 errors as #MF")
    WP = Bit(16, "the supervisor obeys read-only pages too")
    AM = Bit(18, "alignment checks allowed in user mode")
    NW = Bit(29, "no write-through")
    CD = Bit(30, "caches off")
    PG = Bit(31, "paging on")


class Cr4(Register):
    """Control register 4 (2.5)."""

    VME = Bit(0, "virtual-8086 extensions")
    PVI = Bit(1, "protected-mode virtual interrupts")
    TSD = Bit(2, "rdtsc is privileged")
    DE = Bit(3, "debugging extensions")
    PSE = Bit(4, "4 MiB pages outside long mode")
    PAE = Bit(5, "64-bit page-table entries; required in long mode")
    MCE = Bit(6, "machine checks")
    PGE = Bit(7, "global pages")
    PCE = Bit(8, "rdpmc in user mode")
    OSFXSR = Bit(9, "SSE, and fxsave saves its state")
    OSXMMEXCPT = Bit(10, "SSE errors as #XM")
    UMIP = Bit(11, "no sgdt, sidt, sldt, smsw, str in user mode")
    LA57 = Bit(12, "5-level paging")
    FSGSBASE = Bit(16, "rdfsbase and its kin")
    PCIDE = Bit(17, "process-context identifiers")
    OSXSAVE = Bit(18, "xsave")
    SMEP = Bit(20, "the supervisor executes no user page")
    SMAP = Bit(21, "the supervisor touches user pages only with AC set")


class Efer(Register):
    """The extended feature enable register, MSR 0xc0000080 (2.2.1)."""

    SCE = Bit(0, "syscall and sysret")
    LME = Bit(8, "long mode enabled")
    LMA = Bit(10, "long mode active")
    NXE = Bit(11, "page-table bit 63 forbids execution")


class Rflags(Register):
    """The flags register (volume 1, 3.4.3); bit 1 always reads as 1."""

    CF = Bit(0, "carry")
    FIXED = Bit(1, "always 1")
    PF = Bit(2, "parity of the low byte")
    AF = Bit(4, "carry out of bit 3")
    ZF = Bit(6, "zero")
    SF = Bit(7, "sign")
    TF = Bit(8, "trap after each instruction")
    IF = Bit(9, "interrupts allowed")
    DF = Bit(10, "string instructions go down")
    OF = Bit(11, "signed overflow")
    IOPL = Bit(12, "privilege needed for I/O", 2)
    NT = Bit(14, "nested task")
    RF = Bit(16, "no instruction breakpoint on the next instruction")
    VM = Bit(17, "virtual-8086 mode")
    AC = Bit(18, "alignment check, or user pages open under SMAP")
    VIF = Bit(19, "virtual IF")
    VIP = Bit(20, "virtual interrupt pending")
    ID = Bit(21, "cpuid exists")


class Msr(IntEnum):
    """Numbers of the model-specific registers that a kernel of ours meets (volume 4)."""

    EFER = 0xC0000080
    STAR = 0xC0000081
    LSTAR = 0xC0000082
    FMASK = 0xC0000084
    FS_BASE = 0xC0000100
    GS_BASE = 0xC0000101
    KERNEL_GS_BASE = 0xC0000102


# The order in which instructions encode the general registers, which is also the emulator's order in memory.
GENERAL_REGISTERS = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
# The order in which people read them.
REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "rip", "rflags",
)  # fmt: skip
SEGMENT_REGISTERS = ("es", "cs", "ss", "ds", "fs", "gs")

# --- paging ---------------------------------------------------------------------------------------------------


class PageTableEntry(Register):
    """An entry of any of the four levels (4.5, tables 4-15 to 4-20)."""

    P = Bit(0, "present")
    RW = Bit(1, "writable")
    US = Bit(2, "user mode may use it")
    PWT = Bit(3, "write-through")
    PCD = Bit(4, "not cached")
    A = Bit(5, "accessed")
    D = Bit(6, "dirty, in an entry that maps a page")
    PS = Bit(7, "maps a large page, in a PD or PDPT entry")
    G = Bit(8, "global")
    NX = Bit(63, "no execution")

    ADDRESS_MASK = 0x000F_FFFF_FFFF_F000

    @property
    def address(self) -> int:
        """The physical address of the next table, or of the 4 KiB page."""
        return int(self) & self.ADDRESS_MASK


ENTRIES_PER_TABLE = 512


class PageFaultError(Register):
    """The error code of #PF (4.7, figure 4-12)."""

    P = Bit(0, "a protection violation; 0: the page is not present")
    W = Bit(1, "a write")
    U = Bit(2, "in user mode")
    RSVD = Bit(3, "a reserved bit of an entry is set")
    I = Bit(4, "an instruction fetch")  # noqa: E741  (the manual's name)

    def describe(self) -> str:
        """For example ``user write to a page that is not present``."""
        who = "user" if self.U else "supervisor"
        what = "instruction fetch from" if self.I else "write to" if self.W else "read of"
        if self.RSVD:
            return f"{who} {what} a page whose table entry has a reserved bit set"
        if not self.P:
            return f"{who} {what} a page that is not present"
        return f"{who} {what} a page that forbids it"


class SelectorError(Register):
    """The error code of #TS, #NP, #SS, #GP where a selector or a gate is to blame (6.13)."""

    EXT = Bit(0, "during delivery of an event from outside the program")
    IDT = Bit(1, "the index is a vector")
    TI = Bit(2, "the index is into the LDT, not the GDT")
    INDEX = Bit(3, "descriptor index or vector", 13)

    def describe(self) -> str:
        """For example ``IDT gate 0x21`` or ``GDT selector 0x28``; empty for an error code of 0."""
        if not self:
            return ""
        outside = " during delivery of an event" if self.EXT else ""
        if self.IDT:
            return f"IDT gate {self.INDEX:#x}{outside}"
        table = "LDT" if self.TI else "GDT"
        return f"{table} selector {int(self) & 0xFFF8:#x}{outside}"


# --- descriptors ----------------------------------------------------------------------------------------------


class SegmentDescriptor(Register):
    """A code or data segment, or the first half of a system segment (3.4.5, figure 3-8)."""

    LIMIT_LOW = Bit(0, "limit 15:0", 16)
    BASE_LOW = Bit(16, "base 23:0", 24)
    TYPE = Bit(40, "type: accessed, readable or writable, conforming or down, code", 4)
    S = Bit(44, "code or data; 0: a system segment")
    DPL = Bit(45, "privilege", 2)
    P = Bit(47, "present")
    LIMIT_HIGH = Bit(48, "limit 19:16", 4)
    AVL = Bit(52, "free for software")
    L = Bit(53, "64-bit code")
    DB = Bit(54, "32-bit code or stack")
    G = Bit(55, "limit counts 4 KiB units")
    BASE_HIGH = Bit(56, "base 31:24", 8)

    @property
    def base(self) -> int:
        """Bits 0-31 of the base; a system segment in long mode has 32 more in the next 8 bytes."""
        return self.BASE_LOW | self.BASE_HIGH << 24

    @property
    def limit(self) -> int:
        """The last valid offset."""
        limit = self.LIMIT_LOW | self.LIMIT_HIGH << 16
        return limit << 12 | 0xFFF if self.G else limit

    @property
    def is_code(self) -> bool:
        """Whether this is a code segment."""
        return bool(self.S and self.TYPE & 8)

    @property
    def conforming(self) -> bool:
        """Whether less privileged code may enter this code segment without a change of privilege."""
        return bool(self.is_code and self.TYPE & 4)

    @classmethod
    def code64(cls, dpl: int = 0) -> SegmentDescriptor:
        """A 64-bit code segment; base and limit mean nothing in it."""
        return cls(cls.of("S", "P", "L", "G", TYPE=0xB, DPL=dpl, LIMIT_LOW=0xFFFF, LIMIT_HIGH=0xF))

    @classmethod
    def data(cls, dpl: int = 0) -> SegmentDescriptor:
        """A flat, writable data segment."""
        return cls(cls.of("S", "P", "DB", "G", TYPE=0x3, DPL=dpl, LIMIT_LOW=0xFFFF, LIMIT_HIGH=0xF))


class SystemType(IntEnum):
    """Types of system descriptors and gates in long mode (3.5, table 3-2)."""

    LDT = 0x2
    TSS_AVAILABLE = 0x9
    TSS_BUSY = 0xB
    CALL_GATE = 0xC
    INTERRUPT_GATE = 0xE
    TRAP_GATE = 0xF


def tss_descriptor(base: int, limit: int | None = None) -> bytes:
    """The 16 bytes of a GDT slot for an available 64-bit TSS at ``base`` (8.2.3)."""
    limit = Tss.size - 1 if limit is None else limit
    low = SegmentDescriptor.of(
        "P", TYPE=SystemType.TSS_AVAILABLE, LIMIT_LOW=limit, LIMIT_HIGH=limit >> 16,
        BASE_LOW=base, BASE_HIGH=base >> 24)  # fmt: skip
    return int(low).to_bytes(8, "little") + (base >> 32).to_bytes(8, "little")


class Tss(Struct, packed=True):
    """The 64-bit task state segment (8.7, figure 8-11): where stacks for interrupts are found."""

    reserved0 = u32()
    rsp = u64("stacks for rings 0, 1 and 2", 3)
    reserved1 = u64()
    ist = u64("interrupt stacks 1 to 7", 7)
    reserved2 = u64()
    reserved3 = u16()
    iomap_base = u16("offset of the I/O permission bitmap")


class IdtGate(Struct, packed=True):
    """A 64-bit interrupt or trap gate (6.14.1, figure 6-8)."""

    offset_low = u16("handler 15:0")
    selector = u16("code segment of the handler")
    ist = u8("stack from the TSS, 1 to 7; 0: none")
    attributes = u8("type 3:0, DPL 6:5, present 7")
    offset_middle = u16("handler 31:16")
    offset_high = u32("handler 63:32")
    reserved = u32()


def idt_gate(
    handler: int, selector: int, *, ist: int = 0, dpl: int = 0, kind: SystemType = SystemType.INTERRUPT_GATE,
    present: bool = True,
) -> bytes:  # fmt: skip
    """The 16 bytes of an IDT gate for ``handler``."""
    return IdtGate.pack(
        offset_low=handler & 0xFFFF, offset_middle=handler >> 16 & 0xFFFF, offset_high=handler >> 32,
        selector=selector, ist=ist, attributes=kind | dpl << 5 | present << 7)  # fmt: skip


# --- exceptions -----------------------------------------------------------------------------------------------


class ExceptionClass(Enum):
    """What the saved RIP points at (6.5)."""

    FAULT = "fault"  # the instruction itself, which may be restarted
    TRAP = "trap"  # the instruction after it
    ABORT = "abort"  # nothing that can be relied on
    INTERRUPT = "interrupt"  # the instruction that did not start


@dataclass(frozen=True)
class ExceptionInfo:
    """One row of the exception table (6.3.1, table 6-1)."""

    vector: int
    mnemonic: str
    name: str
    kind: ExceptionClass
    has_error_code: bool = False

    def __str__(self) -> str:
        return f"{self.mnemonic} ({self.name})" if self.mnemonic else self.name


class Vector(IntEnum):
    """The first 32 vectors that have names."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    VE = 20
    CP = 21
    HV = 28
    VC = 29
    SX = 30


def _exception_table() -> tuple[ExceptionInfo, ...]:
    fault, trap, abort = ExceptionClass.FAULT, ExceptionClass.TRAP, ExceptionClass.ABORT
    named = {
        Vector.DE: ExceptionInfo(0, "#DE", "divide error", fault),
        Vector.DB: ExceptionInfo(1, "#DB", "debug", trap),
        Vector.NMI: ExceptionInfo(2, "NMI", "non-maskable interrupt", ExceptionClass.INTERRUPT),
        Vector.BP: ExceptionInfo(3, "#BP", "breakpoint", trap),
        Vector.OF: ExceptionInfo(4, "#OF", "overflow", trap),
        Vector.BR: ExceptionInfo(5, "#BR", "bound range exceeded", fault),
        Vector.UD: ExceptionInfo(6, "#UD", "invalid opcode", fault),
        Vector.NM: ExceptionInfo(7, "#NM", "device not available", fault),
        Vector.DF: ExceptionInfo(8, "#DF", "double fault", abort, True),
        Vector.TS: ExceptionInfo(10, "#TS", "invalid TSS", fault, True),
        Vector.NP: ExceptionInfo(11, "#NP", "segment not present", fault, True),
        Vector.SS: ExceptionInfo(12, "#SS", "stack-segment fault", fault, True),
        Vector.GP: ExceptionInfo(13, "#GP", "general protection", fault, True),
        Vector.PF: ExceptionInfo(14, "#PF", "page fault", fault, True),
        Vector.MF: ExceptionInfo(16, "#MF", "x87 floating-point error", fault),
        Vector.AC: ExceptionInfo(17, "#AC", "alignment check", fault, True),
        Vector.MC: ExceptionInfo(18, "#MC", "machine check", abort),
        Vector.XM: ExceptionInfo(19, "#XM", "SIMD floating-point error", fault),
        Vector.VE: ExceptionInfo(20, "#VE", "virtualization exception", fault),
        Vector.CP: ExceptionInfo(21, "#CP", "control protection", fault, True),
        Vector.HV: ExceptionInfo(28, "#HV", "hypervisor injection", fault),
        Vector.VC: ExceptionInfo(29, "#VC", "VMM communication", fault, True),
        Vector.SX: ExceptionInfo(30, "#SX", "security exception", fault, True),
    }
    return tuple(
        named[Vector(vector)] if vector in Vector._value2member_map_ else ExceptionInfo(vector, "", "reserved", fault)
        for vector in range(32)
    )


EXCEPTIONS = _exception_table()

# Exceptions that combine to a double fault (6.15, table 6-5).
CONTRIBUTORY = frozenset({Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP})


def vector_name(vector: int) -> str:
    """``#PF (page fault)`` for an exception, ``interrupt 0x21`` from 32 up."""
    return str(EXCEPTIONS[vector]) if vector < 32 else f"interrupt {vector:#x}"


def describe_exception(vector: int, error_code: int = 0, cr2: int = 0) -> str:
    """One phrase, for example ``#PF (page fault) at 0x10: supervisor read of a page that is not present``."""
    words = vector_name(vector)
    if vector == Vector.PF:
        return f"{words} at {cr2:#x}: {PageFaultError(error_code).describe()}"
    if vector < 32 and EXCEPTIONS[vector].has_error_code and error_code:
        return f"{words} for {SelectorError(error_code).describe()}"
    return words


class Access(IntFlag):
    """What an instruction wants from memory."""

    READ = 1
    WRITE = 2
    EXECUTE = 4
