"""Source text can be wrong in every way and costs the host nothing: an image or an AssemblyError, always."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from sandbox.errors import AssemblyError
from sandbox.toolchain.assembler import assemble, build
from sandbox.toolchain.source import Source

from .conftest import BASE, Assemble


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


TOKENS = [*words(r"""
    mov add call jmp je lea push pop ret nop rep lock movsb xchg imul shl test cmp loop in out int rax eax al ah r8
    xmm0 ymm1 cr0 dr7 st(1) mm0 k1 gs: [ ] [rax] [rip+a] [rdi+rsi*8] ( ) + - * / | & ~ ! << >> == , , , # " ' ; : a
    b .La kernel K 0 1 -1 0x10 0xffffffffffffffff 010 1b 5h 'x' "str\n" byte ptr qword .text .data .rodata .bss
    .byte .word .long .quad .ascii .asciz .zero .skip .p2align .balign .set .macro .endm .rept .endr .irp .if .else
    .elseif .endif .ifdef .include .incbin .globl .org .code32 .code64 .error .section .cfi_startproc \x \@ \() m1 m2
    a: b: .La: . $ @ % { } `"""), "\u00e9", "\t", "\r", "\0", *["\n"] * 6]
MNEMONICS = words("""
    mov add test xchg imul mul push pop lea shl bt movzx movsxd call jmp je loop jrcxz cmpxchg xadd in out int ret enter
    movq movd movaps pshufd cvtsi2sd fld fstp lgdt invlpg ltr str popcnt crc32 vaddps kmovw bextr pextrq sete bswap
    cmpxchg16b xlatb lods movabs lar bound les movnti vgatherdps insertps bndmov""")
OPERANDS = words("""
    al ah r8b sil ax eax r10d rax rsp r13 xmm0 xmm15 ymm3 mm2 st(3) cr0 cr15 dr15 ds gs k3 0 -1 255 65535 0x80000000
    0xffffffffffffffff a kernel a+4 [rip+a] [rax] [rsp] [r13+r12*4] [rax+rsp] [16] gs:[8] [eax] [a+rbx*8] [xmm0] [rsp*2]
    [rax+ebx] byte|ptr|[rdi] ymmword|ptr|[rdi] tbyte|ptr|[rdi]""")


def attempt(text: str, directory: Path) -> bool:
    """Assemble here, in this process; whether it went well."""
    try:
        build([Source("fuzz.asm", text, directory)], BASE, {"kernel": BASE - 0x20000000}, (), {})
    except AssemblyError:
        return False
    return True


def test_many_soups_of_tokens_end_in_an_image_or_an_error(tmp_path: Path) -> None:
    chance = random.Random(20)
    good = sum(attempt("".join(chance.choice(TOKENS) + chance.choice(("", " ", " ", "\n"))
                               for _ in range(chance.randrange(1, 50))), tmp_path) for _ in range(1500))
    assert good > 0


def test_a_thousand_random_instructions_end_in_an_image_or_an_error(tmp_path: Path) -> None:
    chance = random.Random(21)
    good = 0
    for _ in range(1000):
        operands = ", ".join(chance.choice(OPERANDS).replace("|", " ") for _ in range(chance.randrange(0, 4)))
        prefix = chance.choice(("", "", "lock ", "rep "))
        good += attempt(f"a: {prefix}{chance.choice(MNEMONICS)} {operands}\n", tmp_path)
    assert good > 20


@pytest.mark.parametrize("text", [
    ".rept 100000\n.rept 100000\nnop\n.endr\n.endr",
    ".macro m a, b\nm \\b\\a, \\a\\b\nm \\a, \\b\n.endm\nm 1, 2",
    ".macro m\n.rept 30\nm\n.endr\n.endm\nm",
    ".rept 40000\nnop\nnop\n.endr\n.rept 20000\nnop\n.endr",
    ".zero 4194305", ".p2align 4000000000", ".rept 1 << 40\n.endr", ".rept 5000\n.p2align 12\nnop\n.endr",
    ".set a, 1\n.rept 64\n.set a, a * 2\n.endr", ".byte " + "(" * 5000, ".byte " + "1+" * 4999 + "1", "a" * 100_000,
    ".if 0\n" * 110_000, "x: " * 3000, ".irp x" + ", 1" * 3000 + "\n.irp y" + ", 1" * 3000 + "\nnop\n.endr\n.endr",
])
def test_expansion_without_end_is_cut_off_soon(tmp_path: Path, text: str) -> None:
    start = time.monotonic()
    assert not attempt(text, tmp_path)
    assert time.monotonic() - start < 10


def test_what_would_abort_the_assemblers_process_never_gets_there(asm: Assemble) -> None:
    """Keystone 0.9.2 calls abort() for AH beside a REX prefix."""
    for text in ("mov ah, r8b", "add ah, [r9]", "movzx r8d, ah", "test rax, ah"):
        with pytest.raises(AssemblyError, match="cannot stand beside"):
            asm(text, isolated=True)


def test_deep_hostility_is_survived_by_the_child_too(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match="100000 lines"):
        assemble([Source("a.asm", ".rept 1000\n.rept 1000\nnop\n.endr\n.endr\n", tmp_path)], BASE, isolated=True,
                 cache=False)
