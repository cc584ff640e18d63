"""A guest to experiment on: long mode, descriptor tables and stacks built by Python, code assembled on the spot."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from keystone import KS_ARCH_X86, KS_MODE_64, Ks

from sandbox.machine import Machine
from sandbox.x86 import PageTableEntry, SegmentDescriptor, SystemType, Tss, idt_gate, tss_descriptor

CODE = 0x100000  # the program
HANDLERS = 0x110000  # its handlers, 4 KiB below a page that stays free
DATA = 0x200000  # room to play in, mapped in 4 KiB pages
STACK = 0x300000  # grows down
IST1, IST2, RSP0 = 0x310000, 0x320000, 0x330000
GDT, IDT, TSS, LOADER = 0x10000, 0x11000, 0x12000, 0x13000
TABLES = 0x20000
NOWHERE = 0x4000_0000  # mapped by nothing
KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA, TASK = 0x08, 0x10, 0x1B, 0x23, 0x28

P, RW, US, NX = (bit.mask for bit in (PageTableEntry.P, PageTableEntry.RW, PageTableEntry.US, PageTableEntry.NX))

_keystone = Ks(KS_ARCH_X86, KS_MODE_64)


def assemble(text: str, address: int = CODE) -> bytes:
    """One instruction per line or between semicolons; ``#`` starts a comment."""
    lines = "\n".join(line.split("#")[0] for line in text.splitlines())
    return bytes(_keystone.asm(lines, address)[0])


class Rig:
    """A machine about to execute ``code`` at ``CODE`` in ring 0.

    ``handlers`` maps vectors to assembly text, or to ``(text, options)`` with options of :func:`idt_gate`.
    """

    def __init__(self, code: str | bytes, handlers: dict[int, object] | None = None, ram: int = 16 << 20) -> None:
        self.machine = Machine(ram)
        self._next_table = TABLES
        memory = self.machine.memory
        self.machine.cpu["cr3"] = self.table()
        paging = self.machine.paging
        paging.allocate = self.table
        for page in range(0, ram, 2 << 20):
            if page != DATA:
                paging.map(page, page, RW | US, 2 << 20)
        paging.map_range(DATA, DATA, 2 << 20, RW | US)
        memory.write(CODE, code if isinstance(code, bytes) else assemble(code))
        self.build_descriptors()
        at = HANDLERS
        for vector, handler in (handlers or {}).items():
            text, options = handler if isinstance(handler, tuple) else (handler, {})
            body = text if isinstance(text, bytes) else assemble(text, at)
            memory.write(at, body)
            self.gate(vector, at, **options)
            at += (len(body) + 15) & ~15
        self.machine.start_long_mode(cr3=self.machine.cpu["cr3"], rip=CODE, rsp=STACK)
        self.load_descriptors()

    def table(self) -> int:
        """A fresh frame for a page table."""
        self._next_table += 0x1000
        self.machine.memory.write(self._next_table, bytes(4096))
        return self._next_table

    def gate(self, vector: int, handler: int, selector: int = KERNEL_CODE, **options: object) -> None:
        """Write one gate of the IDT."""
        self.machine.memory.write(IDT + 16 * vector, idt_gate(handler, selector, **options))  # type: ignore[arg-type]

    def build_descriptors(self) -> None:
        """GDT and TSS."""
        memory = self.machine.memory
        segments = (0, SegmentDescriptor.code64(), SegmentDescriptor.data(), SegmentDescriptor.code64(3),
                    SegmentDescriptor.data(3))
        memory.write(GDT, struct.pack("<5Q", *segments) + tss_descriptor(TSS))
        memory.write(TSS, Tss.pack(rsp=(RSP0, 0, 0), ist=(IST1, IST2, 0, 0, 0, 0, 0), iomap_base=Tss.size))

    def load_descriptors(self) -> None:
        """Let a few guest instructions load GDTR, IDTR and TR, then go back to the program."""
        machine = self.machine
        pointers, loader = LOADER, LOADER + 0x80
        machine.memory.write(pointers, struct.pack("<HQ6xHQ", 0x37, GDT, 0xFFF, IDT))
        code = assemble(f"mov ebx, {pointers}; lgdt [rbx]; lidt [rbx + 16]; mov ax, {TASK}; ltr ax; xor eax, eax;"
                        "xor ebx, ebx", loader)
        machine.memory.write(loader, code)
        machine.cpu["rip"] = loader
        machine.run(4 + 3)
        machine.cpu["rip"] = CODE
        machine.cpu["rflags"] = 2

    def __getitem__(self, name: str) -> int:
        return self.machine.cpu[name]

    def run(self, limit: int | None = 100_000, until: Iterable[int] = ()):
        """Run the machine."""
        return self.machine.run(limit, tuple(until))

    def close(self) -> None:
        """Close the machine."""
        self.machine.close()


FRAME = ("error_code", "rip", "cs", "rflags", "rsp", "ss")


def frame(rig: Rig, stack: int, error_code: bool = False) -> dict[str, int]:
    """The interrupt frame at ``stack`` by name."""
    names = FRAME if error_code else FRAME[1:]
    values = struct.unpack(f"<{len(names)}Q", rig.machine.memory.read(stack, 8 * len(names)))
    return dict(zip(names, values, strict=True))


__all__ = ["FRAME", "Rig", "SystemType", "assemble", "frame"]
