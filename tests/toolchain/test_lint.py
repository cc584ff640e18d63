"""Forms that are refused before an assembler sees them, and the ones beside them that are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandbox.errors import AssemblyError

from .conftest import Assemble

REFUSED = [
    ("rdtsc", "reads the host"), ("rdtscp", "reads the host"), ("rdrand rax", "random"), ("rdseed eax", "random"),
    ("iret", "write iretq"), ("iretd", "write iretq"), ("sysret", "write sysretq"), ("pushf", "write pushfq"),
    ("popf", "write popfq"), ("retf", "write retfq"), ("[rip]", "no instruction"),
    ("mov rax, [rip + K]", "rip needs a label"), ("mov rax, [rip]", "rip needs a label"),
    ("push 0xdeadbeef", "sign-extended"), ("push -0x80000001", "sign-extended"),
    ("add rax, 0x80000000", "sign-extended"), ("mov qword ptr [rdi], 0xffffffff", "sign-extended"),
    ("imul rax, rbx, 0x100000000", "sign-extended"), ("and rax, ~0x7fffffff - 1", "sign-extended"),
    ("mov eax, 0x100000000", "does not fit in 32 bits"), ("mov al, 256", "does not fit in 8 bits"),
    ("mov word ptr [rdi], 0x10000", "does not fit in 16 bits"), ("mov ecx, -0x80000001", "does not fit"),
    ("shl rax, 256", "does not fit in 8 bits"), ("int 256", "does not fit"), ("int 3", "write int3"),
    ("in al, 0x3f8", "does not fit"), ("out 0x3f8, al", "does not fit"), ("ret 0x10000", "does not fit"),
    ("enter 0x10000, 0", "does not fit"),
    ("mov rax, [rdi + 0x80000000]", "displacement"), ("mov rax, [rdi - 0x80000001]", "displacement"),
    ("mov rax, [0xffff888000000000]", "displacement"), ("mov rax, here", "lea register, [rip + label]"),
    ("push here", "lea register"), ("mov rax, offset here", "offset"), ("lea rax, here", "lea register"),
    ("mov rax, [here]", "written [rip + label]"), ("jmp short here", "not needed"), ("jmp 0x1000", "needs a label"),
    ("call 5", "needs a label"), ("mov rax, [rip + here + there]", "one label"), ("jmp here - there", "one label"),
    ("mov eax, here - there", "one label"),
    ("mov rax, [rdi + rsi*3]", "1, 2, 4 or 8"), ("mov rax, [rdi*2 + rsi*2]", "one scaled index"),
    ("mov rax, [rdi - rsi]", "subtract"), ("mov rax, [rdi + rsi + rdx]", "at most a base"),
    ("mov rax, [rsp*2]", "cannot be an index"), ("mov rax, [rdi + esi]", "mixes"), ("mov rax, [al]", "address"),
    ("mov rax, [cr0]", "address"), ("mov rax, [rdi", "one [ ... ]"), ("mov rax, [rdi][8]", "one [ ... ]"),
    ("mov rax, 8[rdi]", "one [ ... ]"), ("mov rax, []", "empty"), ("mov rax, qword ptr 8", "brackets"),
    ("mov rax, gs:8", "brackets"), ("mov rax, ds:[rdi]", "means nothing"), ("mov eax, cs:[rdi]", "means nothing"),
    ("mov [rdi], 5", "how many bytes"), ("inc [rdi]", "how many bytes"), ("shl [rdi], cl", "how many bytes"),
    ("movzx eax, [rdi]", "how many bytes"), ("push [rdi]", "how many bytes"),
    ("mov ah, r8b", "cannot stand beside r8b"), ("add ah, sil", "beside sil"), ("mov ah, [r8]", "beside r8"),
    ("movzx rax, ah", "beside rax"), ("movsb [rdi], [rsi]", "without operands"), ("nop dword ptr [rax]", "without"),
    ("xchg rax, rax", "write nop"), ("mov [rdi], ds", "segment register"), ("str rax", "32-bit register"),
    ("rep nop", "write pause"), ("mov rax, $", "'$'"), ("mov rax, 5;", "';'"), ("mov rax,, 5", "missing"),
    ("mov rax, 0ffh", "cannot read"), ("mov rax, 010", "octal"), ("lock", "without an instruction"),
    ("ljmp [rdi]", "far jump"), ("finit", "write fninit"), ("db 5", "write .byte"), ("mov rax, foo ptr [rdi]", "size"),
]


@pytest.mark.parametrize(("statement", "reason"), REFUSED)
def test_a_form_that_would_go_wrong_is_refused_with_advice(asm: Assemble, statement: str, reason: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        asm(f".set K, 8\n{statement}\nhere: ret\nthere: ret\n")
    assert reason in caught.value.reason and caught.value.line == 2 and caught.value.text == statement


@pytest.mark.parametrize(("statement", "data"), [
    ("mov rax, [rdi - K]", "488b47f8"), ("mov rax, [rdi + K*2]", "488b4710"), ("mov rax, [rdi + K + L]", "488b4718"),
    ("mov rax, -K", "48c7c0f8ffffff"), ("and rax, -K", "4883e0f8"), ("mov rax, [rdi + rsi*K]", "488b04f7"),
    ("mov rcx, gs:[0]", "65488b0c2500000000"), ("mov rax, gs:[K]", "65488b042508000000"), ("push 0xffff", "68ffff0000"),
    ("mov rax, 0xffffffff80000000", "48c7c000000080"), ("mov rax, 0x80000000", "48b80000008000000000"),
    ("mov ax, gs:[K]", "65668b042508000000"), ("mov ds, ax", "8ed8"), ("mov rax, ds", "8cd8"), ("sysretq", "480f07"),
    ("endbr64", "f30f1efa"), ("movsd", "a5"), ("rep movsd", "f3a5"), ("lock inc qword ptr gs:[rdi]", "65f048ff07"),
    ("mov rax, [rax + rsp]", "488b0404"), ("cmp byte ptr [rdi], 'A'", "803f41"),
    ("mov rax, [rdi + (K | 1)]", "488b4709"),
    ("add eax, 0xfffffff8", "83c0f8"), ("mov rax, [rsi + rdx + -8]", "488b4416f8"), ("MOV RAX, [RDI]", "488b07"),
])
@pytest.mark.parametrize("base", [0x1000, 0xFFFFFFFF80000000])
def test_forms_that_keystone_alone_gets_wrong_come_out_right(code: Callable[..., bytes], statement: str, data: str,
                                                             base: int) -> None:
    assert code(f".set K, 8\n.set L, 16\n{statement}\n", base=base).hex() == data


def test_in_32_bit_code_lgdt_is_refused(asm: Assemble) -> None:
    with pytest.raises(AssemblyError, match="write its bytes"):
        asm(".code32\nlgdt [0x1000]\n")
