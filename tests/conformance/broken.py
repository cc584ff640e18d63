"""Allocators that are wrong in one way each: one of the three good ones with a few lines changed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from sandbox.conformance import Report, check, workloads

ALLOCATORS = Path(__file__).parent / "allocators"
ARENA = "16K"


class Broken(NamedTuple):
    """``changes`` are texts of the allocator ``base``, each there once, and what stands there instead; ``line`` fails,
    and ``reason`` is a pattern of what it says. ``shortest`` is the length of the shortest list that shows it."""

    name: str
    base: str
    changes: tuple[tuple[str, str], ...]
    line: str
    reason: str
    shortest: int

    @property
    def source(self) -> str:
        """Its text."""
        text = (ALLOCATORS / f"{self.base}.asm").read_text()
        for before, after in self.changes:
            assert text.count(before) == 1, f"{self.name}: {before!r} is there {text.count(before)} times"
            text = text.replace(before, after)
        return text


BROKEN = (
    Broken("misaligned", "bump", ((".set GRAIN, 16", ".set GRAIN, 8"), (".set GRAIN_SHIFT, 4", ".set GRAIN_SHIFT, 3")),
           "alignment", r"allocate\(\d+\) for chunk \d+: allocate \(allocator.asm:\d+\) gives 0x[0-9a-f]+8, "
           r"which is no multiple of 16", 2),
    Broken("overlaps by eight bytes", "bump", (("    add [rip + next], rdi\n",
                                                "    add [rip + next], rdi\n    sub qword ptr [rip + next], 8\n"),),
           "overlap", r"overlaps chunk \d+, \d+ bytes at 0x[0-9a-f]+ that are held", 2),
    Broken("loses freed memory", "freelist", (("    mov [rip + list], rdi\n", ""),),
           "leak", r"gives 0, and gave 0x[0-9a-f]+ in the first round", 1),
    Broken("takes a double free", "freelist", (("    jne .Ldeallocate_twice\n", ""),),
           "double_free", r"after that free, operation \d+, .*overlaps chunk \d+, .* the very chunk", 5),
    Broken("clobbers rbx", "freelist", (("    mov rax, [rip + list]\n    mov [rdi], rax",
                                         "    mov rbx, [rip + list]\n    mov [rdi], rbx"),),
           "registers", r"deallocate \(allocator.asm:\d+\) returns with rbx changed from 0x[0-9a-f]+ to 0x", 1),
    Broken("writes a header behind the arena", "bump", (("    inc qword ptr [rip + in_use]\n",
                                                         "    inc qword ptr [rip + in_use]\n"
                                                         "    mov qword ptr [rax + rdi], 0\n"),),
           "confined", r"writes to 0xffffca0000004000, outside of its memory, at allocate\+0x[0-9a-f]+ "
           r"\(allocator.asm:", -1),
    Broken("gives the last chunk twice", "freelist", (
        ("    test rax, rax\n    jz .Lallocate_out\n    mov rcx, [rax]\n",
         "    mov rcx, [rax]\n    test rcx, rcx\n    jz .Lallocate_out\n"),),
           "exhaustion", r"overlaps chunk \d+, .* the very chunk", -1),
    Broken("loops for size 0", "bump", (("    inc rdi\n.Lallocate_round", "    jmp allocate\n.Lallocate_round"),),
           "sizes", r"allocate\(0\) for chunk \d+: allocate .* does not return within 200,000 instructions, and stands "
           r"at allocate ", 1),
    Broken("believes in small numbers", "bump", (("    cmp rdi, rdx\n    ja .Lallocate_out\n    test rdi, rdi",
                                                  "    cmp edi, edx\n    ja .Lallocate_out\n    test rdi, rdi"),
                                                 ("    cmp rdi, rdx\n    ja .Lallocate_out\n    mov rax",
                                                  "    mov rax")),
           "sizes", r"allocate\(0x[0-9a-f]+\) .* it has [0-9,]+ bytes", 1),
    Broken("corrupts the next chunk", "freelist", (("    mov [rip + list], rdi\n",
                                                    "    mov [rip + list], rdi\n    mov [rdi + BLOCK], rdi\n"),),
           "overlap", r"deallocate\+0x[0-9a-f]+ \(allocator.asm:\d+\) writes 8 bytes at 0x[0-9a-f]+ in its arena, into "
           r"byte 0 of chunk \d+, which is held", 3),
    Broken("counts wrong", "bitmap", (("    dec qword ptr [rip + in_use]\n", ""),),
           "stats", r"stats \(allocator.asm:\d+\) says that 1 are in use, and (0 are|everything was freed)", 1),
    Broken("says that all is free", "bitmap", (("    mov rax, [rip + free]\n    shl rax, GRAIN_SHIFT\n",
                                                "    mov rax, [rip + grains]\n    shl rax, GRAIN_SHIFT\n"),),
           "stats", r"bytes are free, and said [0-9,]+ before [0-9,]+ were given out", 3),
    Broken("prints ok and leaves", "freelist", (("    dec qword ptr [rip + free]\n", """    dec qword ptr [rip + free]
    cmp qword ptr [rip + free], 20
    ja .Lallocate_go_on
    lea rdi, [rip + ok]
    call kprintf
    mov eax, 0x10
    mov edx, DEBUG_EXIT_PORT
    out dx, eax
.Lallocate_go_on:
"""), (".rodata\n", ".rodata\nok:\n    .asciz \"ok\\n\"\n")),
           "returns", r"allocate \(allocator.asm:\d+\) does not come back: allocate did not return: debug exit", -1),
    Broken("counts in the kernel", "freelist", (
        ("    dec qword ptr [rip + free]\n", "    dec qword ptr [rip + free]\n    inc qword ptr [rip + max_pfn]\n"),),
           "confined", r"allocate\+0x[0-9a-f]+ \(allocator.asm:\d+\) writes 8 bytes at 0x[0-9a-f]+ in the kernel's "
           r"data \(max_pfn\)", 1),
    Broken("clears the kernel", "freelist", (
           ("    inc qword ptr [rip + free]\n", """    inc qword ptr [rip + free]
    lea rdi, [rip + mem_map]
    xor esi, esi
    mov edx, 8
    push rbp
    call memset
    pop rbp
"""),), "confined", r"deallocate\+0x[0-9a-f]+ \(allocator.asm:\d+\) writes .* in the kernel's data \(mem_map\)", 2),
    Broken("patches the kernel", "freelist", (("    dec qword ptr [rip + free]\n",
                                               "    dec qword ptr [rip + free]\n    mov [rip + kmalloc], rcx\n"),),
           "confined", r"writes to 0xffffffff8[0-9a-f]+, outside of its memory, at allocate\+0x[0-9a-f]+ "
           r"\(allocator.asm:\d+\)", 1),
    Broken("takes any pointer", "freelist", (("    jnz .Ldeallocate_wild\n", ""),
                                             ("    jae .Ldeallocate_wild\n", "    jae .Ldeallocate_out\n")),
           "wild_free", r"after that free, .* deallocate\+0x[0-9a-f]+ \(allocator.asm:\d+\) writes 8 bytes at .*, into "
           r"byte \d+ of chunk \d+", 2),
    Broken("triple faults", "freelist", (("    dec qword ptr [rip + free]\n", """    dec qword ptr [rip + free]
    push 0
    push 0
    lidt [rsp]
    int3
"""),), "returns", r"does not come back: allocate did not return: triple fault", 1),
    Broken("never begins", "freelist", (("init:\n", "init:\n    jmp init\n"),),
           "returns", r"init \(allocator.asm:\d+\) does not return within [0-9,]+ instructions", -1),
    Broken("forgets all of it", "bump", (("    mov rax, [rip + first]\n    mov [rip + next], rax\n.Ldeallocate_out",
                                          ".Ldeallocate_out"),),
           "reuse", r"chunks of 4096 bytes were allocated and freed, and after that none of that memory is handed out "
           r"again", -1),
)
SHRUNK = ("misaligned", "takes a double free", "clobbers rbx", "counts wrong", "takes any pointer")
"""Whose lists are shrunk."""


@cache
def report_of(broken: Broken) -> Report:
    """What the pack says of it, with workloads that are shorter: it is no close matter."""
    with patch.object(workloads, "LENGTH", 60):
        return check(broken.source, arena=ARENA, refused=-1 if broken.base == "bitmap" else None,
                     shorten=broken.name in SHRUNK)
