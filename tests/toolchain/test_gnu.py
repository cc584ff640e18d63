"""GNU as as the independent oracle: the same bytes from Keystone, from GNU as behind our front end, and from GNU as
and ld alone on the untouched source."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from sandbox.errors import AssemblyError, EngineError, ProgramError
from sandbox.toolchain import packaged
from sandbox.toolchain.assembler import assemble
from sandbox.toolchain.backend import Rejected
from sandbox.toolchain.gnu import GnuAssembler, link_text
from sandbox.toolchain.image import Image
from sandbox.toolchain.source import Source

from .conftest import BASE, Assemble

REGISTERS = ("al", "r8b", "sil", "ah", "ax", "r9w", "eax", "ecx", "rax", "rsp", "r13")
ADDRESSES = ("[rax]", "[rbp]", "[rsp]", "[r12]", "[r13]", "[rdi + 127]", "[rdi - 128]", "[rdi + 128]",
             "[rdi + 0x12345]", "[rdi + rsi]", "[rax + rsp]", "[rbp + rax]", "[r13 + r12*2]", "[rsi*8]",
             "[rsi*1 + rdi]", "gs:[0]", "gs:[8]", "gs:[rdi]", "gs:[rax*8 + 16]", "[16]", "[-8]", "[edi + 4]",
             "[rip + place]", "[place + rax*8]", "[rip + kernel + 8]", "[kernel + rbx]")
NUMBERS = (0, -1, 127, 128, -128, -129, 0x8000, 0x7FFFFFFF, -0x80000000, 0xFFFFFFFF, 0xFFFFFFFF80000000,
           0xFFFF888000000000)
ARITHMETIC = ("mov", "add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "test")
UNARY = ("inc", "dec", "neg", "not", "mul", "div", "idiv", "imul")
ALONE = """ret;ret 8;retfq;leave;nop;pause;hlt;cli;sti;cld;std;clc;stc;cmc;lahf;sahf;cpuid;syscall;sysretq;iretq;swapgs;
rdmsr;wrmsr;wbinvd;invd;clts;ud2;int3;int 0x80;cbw;cwde;cdqe;cwd;cdq;cqo;pushfq;popfq;lfence;mfence;sfence;xlatb;
movsb;movsw;movsd;movsq;stosb;stosw;stosd;stosq;lodsb;lodsq;scasb;cmpsq;insb;outsb;rep movsb;rep movsw;rep movsd;
rep movsq;rep stosb;rep stosw;rep stosq;repe cmpsb;repne scasb;rep outsb;fninit;emms;fwait;endbr64;push fs;pop gs;
in al, dx;in eax, 0x80;out dx, al;out 0x20, al;enter 16, 0;push 5;push -1;push 0xffff;push 0x7fffffff;push 127;push 128;
mov ds, ax;mov ds, eax;mov rax, ds;mov ax, ds;mov es, rcx;mov cr3, rax;mov rax, cr2;mov cr8, rax;mov dr7, rax;ltr ax;
lldt ax;str ax;smsw eax;lmsw ax;bswap rax;bswap r9d;xchg rax, r8;xchg r8, rax;xchg ecx, eax;movzx eax, al;movsx rax, al;
movsxd rax, eax;movsx rax, ecx;cmove rax, rbx;setz al;bsf rax, rbx;bt rax, 63;shld rax, rbx, 3;shrd eax, ecx, cl;
imul rax, rbx, 24;imul rax, 1000;imul rax, rax, -1;popcnt rax, rbx;crc32 eax, bl;movq xmm0, rax;movaps xmm0, xmm9;
pxor xmm1, xmm1;fld st(1);fstp st(0);movabs rax, 0x123456789abcdef0;jmp place;call place;jz place;jmp kernel;je kernel;
call kernel;jmp rax;call r11;loop place;jrcxz place;lea rax, [rip + kernel];jmp [place + rax*8];call [rip + kernel]"""


def forms() -> Iterator[str]:
    """Many instructions; the linter refuses some of them."""
    for name, register, address in itertools.product(ARITHMETIC, REGISTERS, ADDRESSES):
        yield f"{name} {register}, {address}"
        yield f"{name} {address}, {register}"
    for name, register, other in itertools.product((*ARITHMETIC, "xchg", "xadd", "cmpxchg"), REGISTERS, REGISTERS):
        yield f"{name} {register}, {other}"
    for name, register, number in itertools.product((*ARITHMETIC, "shl", "sar", "ror"), REGISTERS, NUMBERS):
        yield f"{name} {register}, {number}"
    for address, size in itertools.product(ADDRESSES, ("byte", "word", "dword", "qword")):
        yield from (f"{name} {size} ptr {address}" for name in UNARY)
        yield from (f"{name} {size} ptr {address}, {number}" for name in ("mov", "add", "test") for number in NUMBERS)
        yield from (f"lock {name} {size} ptr {address}, 1" for name in ("add", "or"))
        yield f"shl {size} ptr {address}, cl"
    for address in ADDRESSES:
        yield from (text % address for text in (
            "lea rax, %s", "lea ecx, %s", "movzx eax, byte ptr %s", "movsx rax, word ptr %s",
            "movsxd rdx, dword ptr %s", "imul rax, %s, 500", "cmove rax, %s", "sete byte ptr %s",
            "lock cmpxchg %s, rcx", "lock xadd %s, eax",
            "lock cmpxchg16b %s", "lgdt %s", "lidt %s", "sidt %s", "invlpg %s", "fxsave %s", "ldmxcsr %s", "call %s",
            "jmp qword ptr %s", "push qword ptr %s", "pop qword ptr %s", "movaps xmm0, %s", "movdqu xmm9, %s",
            "movq %s, xmm0", "bts qword ptr %s, 3", "bt %s, rax", "xchg rax, %s", "prefetcht0 %s", "clflush %s"))
    yield from (text.strip() for text in ALONE.split(";"))


def accepted() -> list[str]:
    """The forms that the linter lets through and that name operands of one size."""
    from sandbox.toolchain import lint
    from sandbox.toolchain.expression import Linear
    from sandbox.toolchain.operands import REGISTERS as SIZES
    from sandbox.toolchain.operands import Instruction, RegisterOperand

    result = []
    for text in dict.fromkeys(forms()):
        instruction = Instruction.parse(text, lambda name: Linear(0, ((name, 1),)))
        sizes = {SIZES[item.name] for item in instruction.operands if isinstance(item, RegisterOperand)}
        mixed = len(sizes) > 1 and instruction.mnemonic in (*ARITHMETIC, "xchg", "xadd", "cmpxchg")
        if not (lint.refused(text, text.split()[0]) or lint.check(instruction) or mixed):
            result.append(text)
    return result


def test_thousands_of_instructions_are_the_same_bytes_in_keystone_and_gnu_as(asm: Assemble, gnu: GnuAssembler) -> None:
    pytest.importorskip("keystone")
    chosen = accepted()
    near = {"loop place", "jrcxz place"}
    text = "place: nop\n" + "".join(f"{item}\n" for item in chosen if item in near)
    text += "".join(f"{item}\n" for item in chosen if item not in near)
    externs = {"kernel": BASE - 0x20000000 + 0x1234}
    ours, theirs = asm(text, externs), asm(text, externs, backend=gnu)
    assert len(chosen) > 5_000
    for address, (_, number) in ours.lines.items():
        assert theirs.lines.get(address) == ("program.asm", number), text.split("\n")[number - 1]
    assert ours.bytes() == theirs.bytes()


# ---- GNU as and ld, without any of our code

def with_includes(source: Source) -> str:
    """The text of a program with what it includes; the kernel's own includes are among the sources already."""
    def included(found: re.Match[str]) -> str:
        path = packaged.examples_directory() / found[1]
        return path.read_text() if path.exists() else ""

    return re.sub(r'(?m)^\s*\.include\s+"([^"]*)".*$', included, source.text)


def native(sources: Sequence[Source], image: Image, externs: Mapping[str, int], directory: Path) -> dict[str, bytes]:
    """The sections that ``as`` and ``ld`` make of the untouched text, at the addresses of ``image``."""
    text = ".intel_syntax noprefix\n" + "".join(f".text\n{with_includes(source)}\n" for source in sources)
    text = re.sub(r"(?m)^(\s*)\.rodata\b", r"\1.section .rodata", text)
    (directory / "native.s").write_text(text)
    subprocess.run(["as", "--64", "-o", "native.o", "native.s"], cwd=directory, check=True)
    rodata, data = image.section("rodata"), image.section("data")
    sections = {".text": image.base, ".rodata": rodata.address if rodata else 0, ".data": data.address if data else 0}
    used = subprocess.run(["nm", "-u", "native.o"], cwd=directory, check=True, capture_output=True, text=True).stdout
    defined = dict(externs) | {"__text_start": image.base, "__text_end": image.text_end, "__image_end": image.end}
    for name in ("rodata", "data"):
        section = image.section(name)
        if section:
            defined |= {f"__{name}_start": section.address, f"__{name}_end": section.end}
    shown = subprocess.run(["nm", "native.o"], cwd=directory, check=True, capture_output=True, text=True).stdout
    for value, name in re.findall(r"(?m)^(\w+) [bB] (\w\S*)$", shown):
        sections[".bss"] = image.symbols[name] - int(value, 16)
    options = [f"--section-start={name}={address:#x}" for name, address in sections.items() if address]
    options += [f"--defsym={name}={defined[name]:#x}" for name in used.split()[1::2] if name in defined]
    subprocess.run(["ld", "-e", "0", "-o", "native.elf", *options, "native.o"], cwd=directory, check=True)
    result = {}
    for name in (".text", ".rodata", ".data"):
        subprocess.run(["objcopy", "-O", "binary", "-j", name, "native.elf", "native.bin"], cwd=directory, check=True)
        path = directory / "native.bin"
        result[name] = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
    return result


def assert_native(sources: Sequence[Source], image: Image, externs: Mapping[str, int], directory: Path) -> None:
    for name, data in native(sources, image, externs, directory).items():
        section = image.section(name[1:])
        if name == ".text":
            assert image.bytes()[: image.text_end - image.base] == data
        elif section is not None:
            assert section.data[: len(data)] == data
        else:
            assert not data


TOOLS = pytest.mark.skipif(any(shutil.which(name) is None for name in ("as", "ld", "nm", "objcopy")),
                           reason="no GNU binutils")
DIALECT = r"""
.set SHIFT, 12
.set list.next, 8
.set MASK, ~((1 << SHIFT) - 1)
.macro both first, second=5
    mov eax, \first
.Lat\@:
    cmp ecx, \second
    jne .Lat\@
.endm
.rodata
message: .asciz "a # b \"c\"\n\101"
.set length, . - message
.text
.ifdef SHIFT
main:
    both 1
    both SHIFT, (1 << 3) | 2
.else
    .error "no"
.endif
    and rax, MASK
    mov rax, [rdi - list.next]
    mov rax, [rdi + list.next*2 + 4]
    mov rcx, -SHIFT
    call kmalloc
    lea rsi, [rip + message]    # "unbalanced
    mov ecx, length
    jmp [table + rax*8]
    mov rax, [rip + kernel_data + 8]
    .p2align 4
.Lback:
    .rept 3
    dec ecx
    .endr
    jnz .Lback
    .irp register, rax, rbx, r12
    push \register
    .endr
    .balign 8, 0xcc
inside: .quad main, inside - main, kmalloc + 4
    .byte 'a', '\n', '#', -1, 255
.rodata
.p2align 2
    .long length, message - message, 0xffffffff, -1
.data
table: .quad main, message, table + 8, kmalloc
    .word 0x1234, -1
    .zero 3, 7
    .p2align 3
.bss
    .zero 64
room: .skip 100
.text
last: mov qword ptr [rip + room], 5
    mov al, [rip + room + 1]
    ret
"""


@TOOLS
def test_the_dialect_means_the_same_to_gnu_as_and_ld_alone(tmp_path: Path) -> None:
    source = Source("dialect.asm", DIALECT, tmp_path)
    externs = {"kmalloc": BASE - 0x1FFFF000, "kernel_data": BASE - 0x10000000}
    image = assemble([source], BASE, externs, cache=False)
    assert_native([source], image, externs, tmp_path)


@TOOLS
def test_the_kernel_means_the_same_to_gnu_as_and_ld_alone(tmp_path: Path) -> None:
    try:
        sources = packaged.kernel_sources()
    except (EngineError, ProgramError):
        pytest.skip("the kernel has no list of sources")
    image = packaged.kernel_image()
    assert_native(sources, image, {}, tmp_path)
    for path in packaged.assembled_examples():
        source = Source.read(path)
        program = packaged.program_image(source, image)
        assert_native([*packaged.prelude(), source], program, image.symbols, tmp_path)


# ---- the back end itself

def test_gnu_as_names_the_line_that_it_rejects(asm: Assemble, gnu: GnuAssembler) -> None:
    with pytest.raises(AssemblyError) as caught:
        asm("nop\nnop\nfrobnicate rax\nnop\n", backend=gnu)
    assert (caught.value.line, caught.value.text) == (3, "frobnicate rax")


def test_an_object_file_that_is_none_is_an_engine_error() -> None:
    for data in (b"", b"\x7fELF\x01\x01" + bytes(100), b"MZ" * 100):
        with pytest.raises(EngineError, match="64-bit ELF"):
            link_text(data, 0)


def test_what_the_text_does_not_define_cannot_be_linked(gnu: GnuAssembler) -> None:
    with pytest.raises(Rejected, match="relocation"):
        gnu.assemble("call nowhere", 0x1000)
