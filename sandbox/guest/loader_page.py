"""The loader's page: a multiboot 1 header, and the way from 32-bit protected mode to the kernel.

A multiboot loader (QEMU's ``-kernel``, GRUB) finds the header in the file's first 8 KiB, copies the file to memory
as the header's addresses say, and jumps to its entry with paging and interrupts off (Multiboot Specification 0.6.96,
sections 3.1 and 3.2). The page is at its place in RAM whoever loads the kernel, so that RAM is the same everywhere.
Our own machine starts in long mode and never executes it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ..abi import KERNEL_CS, LOADER_PHYS
from ..address import PAGE_SIZE
from ..x86 import Cr0, Cr4, Efer, Msr, SegmentDescriptor

MULTIBOOT_MAGIC = 0x1BADB002
MULTIBOOT_ADDRESSES = 1 << 16            # the header says where the file goes; no ELF is looked for
HEADER = struct.Struct("<8I")

CR4 = Cr4.of("PAE")
EFER = Efer.of("LME", "NXE")
CR0 = Cr0.of("PG", "WP", "NE", "ET", "PE")


def loader_page(*, rip: int, rsp: int, rdi: int, cr3: int, end: int, clear: Sequence[tuple[int, int]]) -> bytes:
    """The 4096 bytes at LOADER_PHYS.

    ``end`` is the physical end of what the loader places; the ranges of ``clear`` (multiples of 4) are zeroed
    before the kernel starts, because a PC's firmware has used them. The kernel is entered at ``rip`` on the page
    tables at ``cr3``.
    """
    gdt_at = LOADER_PHYS + HEADER.size
    gdt = struct.pack("<2Q", 0, SegmentDescriptor.code64())
    gdt_pointer_at = gdt_at + len(gdt)
    gdt_pointer = struct.pack("<HI", len(gdt) - 1, gdt_at)
    entry = gdt_pointer_at + len(gdt_pointer)
    header = HEADER.pack(
        MULTIBOOT_MAGIC, MULTIBOOT_ADDRESSES, -(MULTIBOOT_MAGIC + MULTIBOOT_ADDRESSES) & 0xFFFF_FFFF,
        LOADER_PHYS, LOADER_PHYS, end, end, entry)  # header, load start, load end, bss end, entry
    data = header + gdt + gdt_pointer
    data += _protected_mode(cr3, clear, gdt_pointer_at, entry)
    data += _long_mode(rip, rsp, rdi)
    return data.ljust(PAGE_SIZE, b"\0")


def _protected_mode(cr3: int, clear: Sequence[tuple[int, int]], gdt_pointer: int, entry: int) -> bytes:
    """32-bit code at ``entry``: clear memory, turn on long mode and paging, jump to the 64-bit code behind it."""
    code = b"\xfa"                                               # cli
    code += b"\xfc"                                              # cld
    code += b"\x31\xc0"                                          # xor eax, eax
    for start, stop in clear:
        code += b"\xbf" + _u32(start)                            # mov edi, start
        code += b"\xb9" + _u32((stop - start) // 4)              # mov ecx, words
        code += b"\xf3\xab"                                      # rep stosd
    code += b"\xb8" + _u32(CR4) + b"\x0f\x22\xe0"                # mov eax, CR4; mov cr4, eax
    code += b"\xb8" + _u32(cr3) + b"\x0f\x22\xd8"                # mov eax, cr3's value; mov cr3, eax
    code += b"\xb9" + _u32(Msr.EFER)                             # mov ecx, EFER's number
    code += b"\xb8" + _u32(EFER) + b"\x31\xd2" + b"\x0f\x30"     # mov eax, EFER; xor edx, edx; wrmsr
    code += b"\xb8" + _u32(CR0) + b"\x0f\x22\xc0"                # mov eax, CR0; mov cr0, eax
    code += b"\x0f\x01\x15" + _u32(gdt_pointer)                  # lgdt [gdt_pointer]
    far_jump = 7
    code += b"\xea" + _u32(entry + len(code) + far_jump) + struct.pack("<H", KERNEL_CS)  # jmp KERNEL_CS:next
    return code


def _long_mode(rip: int, rsp: int, rdi: int) -> bytes:
    """64-bit code: the first register values, and off."""
    return (b"\x48\xbf" + _u64(rdi)                              # mov rdi, boot_info
            + b"\x48\xbc" + _u64(rsp)                            # mov rsp, stack
            + b"\x48\xb8" + _u64(rip) + b"\xff\xe0")             # mov rax, _start; jmp rax


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)
