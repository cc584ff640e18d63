"""Guests that run a blob: a bare machine, and main of a booted kernel; and what must hold of every one of them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from sandbox.abi import DIRECT_MAP, PAGE_TABLES_PHYS, PROGRAM_BASE
from sandbox.guest.boot import load
from sandbox.guest.options import BootOptions
from sandbox.kernel import Kernel
from sandbox.machine import Machine
from sandbox.toolchain import packaged
from sandbox.toolchain.image import Image, Section
from sandbox.view.run import Before, summary
from sandbox.x86 import PageTableEntry, SegmentDescriptor, SystemType, Tss

from .blobs import KINDS, Place, make, value

RAM = 4 << 20
TABLES, GDT, IDT, TSS, HANDLERS, CODE, DATA, STACK = (
    0x10000, 0x20000, 0x21000, 0x22000, 0x23000, 0x30000, 0x50000, 0x70000)
RW = PageTableEntry.RW.mask
HIGH = 0xFFFF_8000_0000_0000
# push of an error code there is none of for the others; then rax, the vector's own business, is left alone.
RETRY, SKIP = b"\x48\xcf", b"\x48\xff\x04\x24\x48\xcf"
DROP = b"\x48\x83\xc4\x08"
ERROR_CODES = frozenset((8, 10, 11, 12, 13, 14, 17, 21))


@dataclass(frozen=True)
class Case:
    """One guest: ``where`` is bare or main; ``seed`` makes the blob and all else."""

    where: str
    kind: str
    seed: int


def case(number: int) -> Case:
    """The case with a number: kinds take turns, a third of them are mains."""
    return Case("main" if number % 3 == 2 else "bare", KINDS[number // 3 % len(KINDS)], number)


def bare(name: Case, functions: tuple[bytes, ...]) -> str:
    """Run a blob on a machine with nothing else; the stop in words."""
    chosen = random.Random(f"bare {name.kind} {name.seed}")
    place = Place(CODE, DATA, tuple(range(TABLES, TABLES + 0x4000, 0x1000)), (GDT, IDT, TSS), functions)
    with Machine(RAM, console_limit=1 << 16) as machine:
        cr3 = _tables(machine, user=chosen.random() < 0.3)
        _descriptors(machine, chosen.choice(("none", "retry", "skip", "skip", "skip", "garbage")), chosen, place)
        memory, view = machine.memory, machine.cpu.view
        memory.write(CODE, make(name.kind, name.seed, place))
        machine.start_long_mode(cr3=cr3, rip=LOADER, rsp=STACK)
        machine.run(8)
        for register in view.registers():
            if register not in ("rip", "rsp", "rflags"):
                view.set_general(register, value(chosen, place))
        view.rip = CODE if chosen.random() < 0.9 else value(chosen, place)
        machine.cpu.push()
        before = machine.instructions
        for limit in chosen.choice(((3000,), (1,) * 50, (7, 100, 1000), (1000, 1, 1, 1, 500))):
            start = machine.instructions
            stop = machine.run(limit)
            assert start <= machine.instructions <= start + limit, f"{machine.instructions - start} of {limit}"
            words = str(stop)
        assert machine.instructions <= before + 3000
        machine.cpu.registers()
        machine.paging.mappings() if chosen.random() < 0.05 else None
        return words


LOADER = 0x24000


def _tables(machine: Machine, user: bool) -> int:
    """Identity and one high alias, in 4 KiB pages below 2 MiB so that tables can be attacked page by page."""
    frames = iter(range(TABLES, TABLES + 0x8000, 0x1000))
    machine.cpu["cr3"] = cr3 = next(frames)
    paging = machine.paging
    paging.allocate = lambda: next(frames)
    flags = RW | (PageTableEntry.US.mask if user else 0)
    paging.map_range(0, 0, 0xA0000, flags)
    paging.map(2 << 20, 2 << 20, flags, 2 << 20)
    paging.map(HIGH, 0, flags, 2 << 20)
    return cr3


def _descriptors(machine: Machine, idt: str, chosen: random.Random, place: Place) -> None:
    memory = machine.memory
    segments = (0, SegmentDescriptor.code64(), SegmentDescriptor.data(), SegmentDescriptor.code64(3),
                SegmentDescriptor.data(3))
    low = (Tss.size - 1) | (TSS & 0xFFFFFF) << 16 | int(SystemType.TSS_AVAILABLE) << 40 | 1 << 47
    memory.write(GDT, struct.pack("<7Q", *segments, low, 0))
    memory.write(TSS, Tss.pack(rsp=(STACK - 0x1000, 0, 0), ist=(STACK - 0x2000,) * 7, iomap_base=Tss.size))
    for vector in range(256):
        body = (DROP if vector in ERROR_CODES else b"") + (RETRY if idt == "retry" else SKIP)
        at = HANDLERS + 16 * vector
        memory.write(at, body)
        gate = struct.pack("<HHBBHII", at & 0xFFFF, 8, 0, chosen.choice((0x8E, 0xEE, 0x8F)), at >> 16, 0, 0)
        memory.write(IDT + 16 * vector, gate if idt != "garbage" or chosen.random() < 0.5 else struct.pack(
            "<QQ", value(chosen, place), value(chosen, place)))
    pointers = LOADER + 0x100
    memory.write(pointers, struct.pack("<HQ6xHQ", 0x37, GDT, 0xFFF if idt != "none" else 0, IDT))
    memory.write(LOADER, b"\xbb" + struct.pack("<I", pointers) + b"\x0f\x01\x13" + b"\x0f\x01\x5b\x10"
                 + b"\x66\xb8\x28\x00" + b"\x0f\x00\xd8" + b"\x90" * 16)


class Guests:
    """A kernel that is restored before each blob becomes its main."""

    def __init__(self) -> None:
        image = packaged.kernel_image()
        program = Image(PROGRAM_BASE, (Section("text", PROGRAM_BASE, b"\xcc" * 0x3000, "r-x"),
                                       Section("data", PROGRAM_BASE + 0x3000, bytes(0x1000), "rw-")),
                        {"main": PROGRAM_BASE}, text_end=PROGRAM_BASE + 0x2000)
        options = BootOptions(ram=8 << 20)
        machine = Machine(options.ram_size, console_limit=1 << 16)
        start = load(machine.memory, image, program, options)
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        self.kernel = Kernel(machine, image, program, options)
        self.snapshot = self.kernel.snapshot()
        self.functions = tuple(image.bytes()[start - image.base : end - image.base]
                               for start, end in sorted(set(image.functions.values())) if end - start > 16)
        symbols = self.kernel.symbols
        names = [name for name in ("boot_cpu", "mem_map", "slab_caches", "kmalloc_caches") if name in symbols]
        self.place = Place(PROGRAM_BASE, PROGRAM_BASE + 0x3000,
                           tuple(DIRECT_MAP + PAGE_TABLES_PHYS + 0x1000 * index for index in range(8)),
                           tuple(int(symbols[name]) for name in names) or (DIRECT_MAP,), self.functions)

    def main(self, name: Case) -> str:
        """Run a blob as main; the end of the run in words."""
        kernel, chosen = self.kernel, random.Random(f"main {name.kind} {name.seed}")
        kernel.restore(self.snapshot)
        blob = make(name.kind, name.seed, self.place)
        kernel.memory[PROGRAM_BASE : PROGRAM_BASE + len(blob)] = blob
        limit = chosen.choice((1000, 10_000, 50_000))
        start = kernel.instructions
        heap = Before.of(kernel.heap)
        with kernel.trace() as trace:
            result = kernel.run(limit, progress=(lambda taken: None) if chosen.random() < 0.2 else None)
        assert kernel.instructions - start <= limit
        assert len(list(trace.walk())) < limit
        assert kernel.backtrace() is not None
        if chosen.random() < 0.3:
            assert list(summary(kernel, result, heap, trace.walk()))
        return str(result)

    def run(self, name: Case) -> str:
        """Run one case; how it ended, in words."""
        return self.main(name) if name.where == "main" else bare(name, self.functions)
