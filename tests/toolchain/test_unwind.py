"""The rules of unwinding: what each instruction does to them, and what a compiler says of its own code.

That every frame is exact at every instruction of a run is tested in tests/guest/test_frames.py.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.toolchain import packaged
from sandbox.toolchain.disassembler import Disassembler
from sandbox.toolchain.dwarf_frame import Ruled, debug_frame
from sandbox.toolchain.image import Image, Section
from sandbox.toolchain.unwind import CALLED, INTERRUPTED, OUTERMOST, Rule, Unwind
from sandbox.x86 import GENERAL_REGISTERS

elftools = pytest.importorskip("elftools")
from elftools.dwarf.callframe import FDE  # noqa: E402
from elftools.elf.elffile import ELFFile  # noqa: E402

DWARF_NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
CALLEE_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")
Rules = dict[str, Rule | None]


@pytest.fixture
def rules(asm: Callable[..., Image]) -> Callable[[str], Rules]:
    """``rules(text)`` is the rule before each instruction that a label ``at...`` stands in front of."""

    def of(text: str) -> Rules:
        # The labels are stripped for the analysis, so that they begin nothing.
        image = asm(".text\nmain:\n" + text)
        places = {name: address for name, address in image.symbols.items() if name.startswith("at")}
        symbols = {name: address for name, address in image.symbols.items() if name not in places}
        bare = Image(image.base, image.sections, symbols, text_end=image.text_end, data_in_text=image.data_in_text)
        unwind = Unwind(bare)
        return {name: unwind.rule(address) for name, address in places.items()}

    return of


def cfa(rule: Rule | None) -> tuple[str, int] | None:
    return None if rule is None else (rule.cfa_register, rule.cfa_offset)


# -- single instructions ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("code", "expected"), [
    ("", ("rsp", 8)),
    ("push rax", ("rsp", 16)),
    ("push rax; pop rcx", ("rsp", 8)),
    ("pushfq; push 5; push qword ptr [rdi]", ("rsp", 32)),
    ("sub rsp, 40; add rsp, 16", ("rsp", 32)),
    ("lea rsp, [rsp - 128]", ("rsp", 136)),
    ("push rbp; mov rbp, rsp; sub rsp, 64; leave", ("rsp", 8)),
    ("push rbp; mov rbp, rsp; push rax; push rax; lea rsp, [rbp - 8]", ("rsp", 24)),
    ("push rbp; mov rbp, rsp; sub rsp, rax", ("rbp", 16)),
    ("push rbp; mov rbp, rsp; and rsp, -64", ("rbp", 16)),
    ("mov r12, rsp; mov rsp, [rdi]", ("r12", 8)),
    ("mov r11, rsp; sub rsp, rax; mov rsp, r11", ("rsp", 8)),
    ("sub rsp, 16; mov [rsp], rsp; mov rsp, [rsp]", ("rsp", 24)),
    ("mov [rsp - 16], rsp; sub rsp, 16; mov rsp, [rsp]", None),        # an interrupt may have come between
    ("sub rsp, rax", None),
    ("mov rsp, rdi", None),
    ("pop rsp", None),
    ("mov esp, ebp", None),
    ("xor rsp, rsp", None),
    ("call rax", ("rsp", 8)),
], ids=lambda value: value if isinstance(value, str) else "")
def test_an_instruction_moves_the_cfa(rules: Callable[[str], Rules], code: str,
                                      expected: tuple[str, int] | None) -> None:
    assert cfa(rules(code.replace("; ", "\n") + "\nat: nop\nret")["at"]) == expected


@pytest.mark.parametrize(("code", "register", "expected"), [
    ("push rbx; xor ebx, ebx", "rbx", -16),
    ("push rbx; push r12; xor r12d, r12d", "r12", -24),
    ("sub rsp, 24; mov [rsp + 8], r13; mov r13, rdi", "r13", -24),
    ("push rbp; mov rbp, rsp; sub rsp, 8; mov [rbp - 8], r14; mov r14d, 1", "r14", -24),
    ("push rbx; mov ebx, 1; pop rbx", "rbx", "kept"),
    ("push rbx; mov ebx, 1; mov rbx, [rsp]; add rsp, 8", "rbx", "kept"),
    ("mov rax, rbx; xor ebx, ebx", "rbx", "rax"),
    ("mov rax, rbx; xor ebx, ebx; xor eax, eax", "rbx", "lost"),
    ("xchg rbx, r10", "rbx", "r10"),
    ("push rbx; xor ebx, ebx; mov dword ptr [rsp], 0", "rbx", "lost"),
    ("push rbx; xor ebx, ebx; add rsp, 8; push rax", "rbx", "lost"),
    ("push rbx; xor ebx, ebx; mov byte ptr [rsp + rcx], 0", "rbx", -16),
    ("mov r12, rdi; call rax", "r12", "lost"),
    ("push rdi; call rax", "rdi", -16),
    ("call rax", "rdi", "lost"),
    ("mov bl, 1", "rbx", "lost"),
    ("cmpxchg [rdi], rcx", "rax", "lost"),
    ("rep movsb", "rsi", "lost"),
    ("xchg [rsp], r9", "rip", "r9"),
    ("xchg [rsp], r9; push r9", "rip", -16),
    ("pop rcx; push rcx", "rip", -8),
    ("pop rcx", "rip", "rcx"),
    ("mov [rsp], rdi", "rip", -8),
    ("mov [rsp], rdi; mov qword ptr [rsp], 0", "rip", -8),
    ("push qword ptr [rsp]; mov [rsp + 8], rdi", "rip", -16),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_callers_register_is_followed_to_where_it_lies(rules: Callable[[str], Rules], code: str, register: str,
                                                         expected: object) -> None:
    rule = rules(code.replace("; ", "\n") + "\nat: nop\nret")["at"]
    assert rule is not None
    found = rule.saved.get(register, rule.held.get(register, "lost" if register in rule.lost else "kept"))
    assert found == expected


def test_a_return_address_that_is_gone_leaves_no_rule(rules: Callable[[str], Rules]) -> None:
    assert rules("pop rcx\nxor ecx, ecx\nat: jmp rdx")["at"] is None


# -- control flow -----------------------------------------------------------------------------------------------
def test_where_two_ways_disagree_nothing_is_certain(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        test edi, edi
        jz .Lother
        push rax
    at_one: nop
    .Lother:
    at_both: nop
        ret
    """)
    assert cfa(found["at_one"]) == ("rsp", 16) and found["at_both"] is None


def test_where_two_ways_agree_the_rule_holds_in_loops_too(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        push rbx
        mov ecx, 10
    .Lagain:
        push rax
    at: pop rax
        dec ecx
        jnz .Lagain
        loop .Lagain
        pop rbx
    at_end: ret
    """)
    assert cfa(found["at"]) == ("rsp", 24) and cfa(found["at_end"]) == ("rsp", 8)


def test_code_behind_a_call_that_never_returns_is_not_reached_from_it(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        push rbx
        call stops
    at: push rcx
    behind:
    at_behind: ret
    stops:
        hlt
        jmp stops
    caller:
        call behind
        ret
    """)
    assert found["at"] is None and found["at_behind"] == CALLED


def test_a_recursion_that_ends_returns_and_one_that_does_not_does_not(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        call ends
    at: call endless
    at_never: nop
    ends:
        dec edi
        jz .Lend
        call ends
    at_back: nop
    .Lend:
        ret
    endless:
        call endless
    at_nowhere: nop
    """)
    assert cfa(found["at"]) == cfa(found["at_back"]) == ("rsp", 8)
    assert found["at_never"] is None and found["at_nowhere"] is None


def test_a_tail_jump_enters_a_function_as_a_call_does(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        push rbx
        mov ebx, 1
        call leaf
        pop rbx
        jmp leaf
    leaf:
    at: nop
        ret
    """)
    rule = found["at"]
    assert rule is not None and cfa(rule) == ("rsp", 8) and "rbx" not in {*rule.lost, *rule.saved}


def test_what_a_function_takes_off_the_stack_is_gone_behind_the_call(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        push 1
        push 2
        call takes_two
    at: ret
    takes_two:
        test edi, edi
        jz .Lsoon
        push rdi
        pop rdi
    .Lsoon:
        ret 16
    """)
    assert cfa(found["at"]) == ("rsp", 8)


def test_what_is_called_by_nobody_is_still_a_function(rules: Callable[[str], Rules]) -> None:
    found = rules("""
        ret
    handler:
        push rbx
    at: pop rbx
        ret
    """)
    assert cfa(found["at"]) == ("rsp", 16)


@pytest.mark.parametrize(("pops", "offset"), [("", 48), ("add rsp, 8", 56)], ids=["interrupt", "error code"])
def test_code_that_ends_in_iretq_was_entered_by_an_interrupt(rules: Callable[[str], Rules], pops: str,
                                                             offset: int) -> None:
    found = rules(f"""
        ret
    handler:
        push rax
    at: call leaf
        pop rax
        {pops}
        iretq
    leaf:
        ret
    to_user:                                # enters no interrupt: it makes the frame itself
        push 0x1b
        push rsi
        pushfq
        push 0x23
        push rdi
    at_user: iretq
    """)
    rule = found["at"]
    assert rule is not None and rule.interrupt and cfa(rule) == ("rsp", offset)
    assert rule.saved["rip"] == -40 and rule.saved["rsp"] == -16 and "rbx" not in rule.lost
    user = found["at_user"]
    assert user is not None and not user.interrupt and cfa(user) == ("rsp", 48)


def test_code_is_where_the_instructions_are_and_nowhere_else(asm: Callable[..., Image]) -> None:
    image = asm(".text\nmain:\n push rax\n movabs rax, 0x1122334455667788\n pop rax\n ret\n.data\n.quad 0\n")
    unwind = Unwind(image)
    inside = [unwind.rule(image.base + 1 + offset) for offset in range(10)]
    assert inside == [inside[0]] * 10 and cfa(inside[0]) == ("rsp", 16)
    assert unwind.rule(image.base - 1) is None and unwind.rule(image.text_end) is None
    assert unwind.rule(image.sections[-1].address) is None and unwind.rule(0) is None


def test_no_code_is_too_strange() -> None:
    chooser = random.Random(20261122)
    base = 0x40_0000
    for _ in range(150):
        data = chooser.randbytes(chooser.randrange(1, 90))
        labels = {f"label{number}": base + chooser.randrange(len(data)) for number in range(4)}
        image = Image(base, (Section("text", base, data, "r-x"),), labels, text_end=base + len(data))
        unwind = Unwind(image)
        rules = [Ruled(*found) for found in unwind.rules(image)]
        assert sum(found.size for found in rules) <= len(data)
        assert debug_frame(rules)


# -- the kernel -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def kernel() -> Image:
    return packaged.kernel_image()


@pytest.fixture(scope="module")
def unwind(kernel: Image) -> Unwind:
    return Unwind(kernel)


def test_every_instruction_of_the_kernel_has_a_rule(kernel: Image, unwind: Unwind) -> None:
    code = list(Disassembler().code(kernel, kernel.base, kernel.text_end))
    assert [kernel.symbolize(found.address) for found in code if unwind.rule(found.address) is None] == []
    assert [(address, size) for address, size, _ in unwind.rules(kernel)] == [
        (found.address, found.size) for found in code]


def test_an_interrupts_frame_is_known_from_its_stub_to_its_return(kernel: Image, unwind: Unwind) -> None:
    stubs = kernel.symbols["trap_stubs"]
    page_fault = unwind.rule(stubs + 14 * 16)
    assert unwind.rule(stubs) == unwind.rule(stubs + 255 * 16) == INTERRUPTED
    assert page_fault is not None and page_fault.cfa_offset == 48 and page_fault.saved == INTERRUPTED.saved
    start, end = kernel.functions["trap_return"]
    found = [unwind.rule(address) for address in range(start, end)]
    assert all(rule is not None and rule.interrupt and rule.saved["rip"] == -40 and not rule.lost for rule in found)


def test_code_that_nobody_called_says_so(kernel: Image, unwind: Unwind) -> None:
    for name in ("_start", "kernel_main", "kernel_ready", "kernel_idle", "call_return"):
        assert unwind.rule(kernel.symbols[name]) == OUTERMOST and OUTERMOST.outermost


@pytest.mark.parametrize("example", [path.stem for path in packaged.assembled_examples()])
def test_every_instruction_of_an_example_has_a_rule(kernel: Image, example: str) -> None:
    path = packaged.example(example)
    image = packaged.program_image(packaged.Source.read(path, f"examples/{path.name}"), kernel)
    unwind = Unwind(kernel, image)
    assert [image.symbolize(address) for address, _, rule in unwind.rules(image) if rule is None] == []


# -- a compiler's opinion ---------------------------------------------------------------------------------------
C = r"""
#include <stdarg.h>
typedef unsigned long u64;
extern u64 sink(u64, ...);
extern void fatal(void) __attribute__((noreturn));
u64 table[64];
u64 leaf(u64 a, u64 b) { return a * 3 + (b >> 2); }
u64 many(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h) {
    u64 kept[8];
    for (int i = 0; i < 8; i++) kept[i] = sink(a + i, b, c, d, e, f, g, h);
    if (kept[3] == 7) fatal();
    return kept[a & 7] + sink(a) + b + c + d + e + f + g + h;
}
u64 recursive(u64 n) { return n < 2 ? n : recursive(n - 1) + recursive(n - 2); }
u64 choose(u64 n) {
    switch (n) {
    case 0: return sink(1, 2, 3, 4, 5, 6, 7, 8, 9);
    case 1: return leaf(n, n);
    case 2: fatal();
    case 3: return many(1, 2, 3, 4, 5, 6, 7, 8);
    default: return n > 50 ? recursive(n) : choose(sink(n));
    }
}
void walk(u64 *p, u64 n, void (*f)(u64)) { for (; n; n--, p++) { if (*p) f(*p); else table[n & 63] = *p; } }
int main(void) { u64 big[512]; walk(big, 512, (void (*)(u64))sink); return (int)(choose(big[5]) + leaf(1, 2)); }
"""


@pytest.fixture(scope="module", params=["-O0 -fomit-frame-pointer", "-O1", "-O2", "-Os", "-O2 -fno-omit-frame-pointer"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Image, list[FDE]]:
    """A C program's code as an image, and the compiler's call frame information."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    directory: Path = tmp_path_factory.mktemp("c")
    (directory / "c.c").write_text(C)
    command = ["gcc", *request.param.split(), "-fno-pie", "-fno-jump-tables", "-fcf-protection=none", "-mno-red-zone",
               "-fno-stack-protector", "-fasynchronous-unwind-tables", "-c", "c.c", "-o", "c.o"]
    if subprocess.run(command, cwd=directory, check=False).returncode:
        pytest.skip("this gcc cannot compile for x86-64")
    linked = ["ld", "--unresolved-symbols=ignore-all", "-e", "main", "-Ttext=0x401000", "c.o", "-o", "c"]
    subprocess.run(linked, cwd=directory, check=True)
    elf = ELFFile(io.BytesIO((directory / "c").read_bytes()))
    text = elf.get_section_by_name(".text")
    symbols = {symbol.name: int(symbol["st_value"]) for symbol in elf.get_section_by_name(".symtab").iter_symbols()
               if symbol["st_info"]["type"] == "STT_FUNC"}
    base, data = int(text["sh_addr"]), text.data()
    image = Image(base, (Section("text", base, data, "r-x"),), symbols, text_end=base + len(data))
    return image, [entry for entry in elf.get_dwarf_info().EH_CFI_entries() if isinstance(entry, FDE)]


def compilers_rows(entries: list[FDE], image: Image) -> Iterator[tuple[int, dict[Any, Any]]]:
    """The compiler's rule before each instruction."""
    for entry in entries:
        rows = entry.get_decoded().table
        start, size = entry["initial_location"], entry["address_range"]
        for found in Disassembler().code(image, start, start + size):
            yield found.address, [row for row in rows if row["pc"] <= found.address][-1]


def test_the_rules_agree_with_a_compilers(compiled: tuple[Image, list[FDE]]) -> None:
    image, entries = compiled
    unwind = Unwind(image)
    compared = 0
    for address, row in compilers_rows(entries, image):
        rule = unwind.rule(address)
        if rule is None:                     # behind a call of fatal, which is nowhere, and so may return
            continue
        saved = {DWARF_NAMES[number]: item.arg for number, item in row.items()
                 if isinstance(number, int) and number < 16}
        where = f"{image.symbolize(address)}"
        if DWARF_NAMES[row["cfa"].reg] == rule.cfa_register:
            assert rule.cfa_offset == row["cfa"].offset, where
            compared += 1
        for name in CALLEE_SAVED:
            if name in rule.saved:
                assert saved.get(name) == rule.saved[name], where
            assert name not in rule.lost and name not in rule.held, where
    assert compared >= 20                    # with a frame pointer, the compiler counts from there


def test_the_names_of_registers_are_those_of_the_processor() -> None:
    assert OUTERMOST.lost == {*GENERAL_REGISTERS, "rip"} - {"rsp"}
