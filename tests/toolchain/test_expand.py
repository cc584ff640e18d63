"""Macros, repetition, conditions, constants, sections and includes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.errors import AssemblyError
from sandbox.toolchain.assembler import assemble
from sandbox.toolchain.source import Source

from .conftest import BASE, Assemble

Code = Callable[..., bytes]


def refused(asm: Assemble, text: str, *arguments: object) -> AssemblyError:
    with pytest.raises(AssemblyError) as caught:
        asm(text, *arguments)
    return caught.value


def test_macros_take_arguments_defaults_keywords_and_the_rest(code: Code) -> None:
    text = """
    .macro both first:req, second=3, rest:vararg
        .byte \\first, \\second\\()0
        .byte \\rest
    .endm
    both 1, 2, 7, 8
    both second=4, 6, , 9
    """
    assert code(text) == bytes([1, 20, 7, 8, 6, 40, 9])
    with pytest.raises(AssemblyError, match="needs its argument 'first'"):
        code(text + "both\n")


def test_each_expansion_of_a_macro_can_make_labels_of_its_own(code: Code) -> None:
    assert code("""
    .macro spin
    .Lspin\\@: jmp .Lspin\\@
    .endm
    spin
    spin
    """) == bytes.fromhex("ebfeebfe")


def test_repetition_and_lists(code: Code) -> None:
    assert code(".rept 2\n.irp n, 1, 2\n.byte \\n\n.endr\n.endr\n") == bytes([1, 2, 1, 2])
    assert code(".set n, 0\n.rept 3\n.byte n\n.set n, n + 1\n.endr\n") == bytes([0, 1, 2])
    assert code(".irp r, rax, rbx\npush \\r\n.endr") == bytes.fromhex("5053")


@pytest.mark.parametrize(("condition", "taken"), [
    (".if K == 8", 1), (".if K", 1), (".if K - 8", 2), (".ifdef K", 1), (".ifndef K", 2), (".ifdef kmalloc", 1),
    (".ifdef nothing", 2), (".ifb", 1), (".ifnb x", 1),
])
def test_conditions_choose_one_branch(code: Code, condition: str, taken: int) -> None:
    text = f".set K, 8\n{condition}\n.byte 1\n.else\n.byte 2\n.endif\n"
    assert code(text, {"kmalloc": BASE - 4096}) == bytes([taken])


def test_a_branch_not_taken_may_hold_anything_that_has_an_end(code: Code) -> None:
    assert code(".if 0\nno such thing [[\n.if 1\n.endif\n.macro m\n.endif\n.endm\n.elseif 1\n.byte 5\n.endif") == b"\5"


def test_sections_gather_their_pieces_in_order_over_all_sources(tmp_path: Path) -> None:
    texts = [".data\n.byte 1\n.text\nnop\n.rodata\n.byte 2\n", "ret\n.data\n.byte 3\n.bss\nroom: .zero 5000\n"]
    image = assemble([Source(f"{at}.asm", text, tmp_path) for at, text in enumerate(texts)], BASE, cache=False)
    text, rodata, data = image.sections
    assert [section.name for section in image.sections] == ["text", "rodata", "data"]
    assert (text.data[:2], rodata.data[:1], data.data[:2]) == (b"\x90\xc3", b"\2", b"\1\3")
    assert (text.rights, rodata.rights, data.rights) == ("r-x", "r--", "rw-")
    assert [len(section.data) for section in image.sections] == [2 * 4096, 4096, 2 * 4096]
    assert image.symbols["room"] == data.address + 64
    assert all(section.address % 4096 == 0 for section in image.sections)


def test_the_text_ends_in_a_whole_page_of_int3(asm: Assemble) -> None:
    for count in (1, 4095, 4096):
        text = asm(f".zero {count}, 0x90").section("text")
        assert text is not None
        assert set(text.data[count:]) == {0xCC} and len(text.data) - count >= 4096


def test_alignment_pads_code_with_no_operations_and_data_with_zeros(code: Code, asm: Assemble) -> None:
    assert code("ret\n.p2align 3\nret\n.balign 4, 0xcc\nret") == bytes.fromhex("c30f1f8000000000c3ccccccc3")
    image = asm("nop\n.data\n.byte 1\n.p2align 3\nx: .quad x")
    assert image.symbols["x"] == image.base + 8192 + 8


def test_alignment_in_every_section_holds_for_the_address(asm: Assemble) -> None:
    image = asm("".join(f".{name}\n.byte {at}\n.p2align 12\n{name}_page: .zero 8\n"
                        for at, name in enumerate(("text", "rodata", "data", "bss"), -3)))
    assert [address % 4096 for address in image.symbols.values()] == [0, 0, 0, 0]


def test_the_length_of_data_is_a_number_at_once(code: Code) -> None:
    text = '.rodata\nmsg: .ascii "hello"\nend: .set len, . - msg\n.text\nmov ecx, len\nmov ecx, end - msg\n'
    assert code(text) == b"\xb9\5\0\0\0" * 2


def test_a_constant_changes_in_its_own_file_alone(tmp_path: Path, code: Code) -> None:
    assert code(".set K, 1\n.byte K\n.set K, 2\n.byte K") == b"\1\2"
    first = Source("a.asm", ".set K, 1\n", tmp_path)
    assert assemble([first, Source("b.asm", ".set K, 1\n", tmp_path)], BASE, cache=False).constants == {"K": 1}
    with pytest.raises(AssemblyError, match=r"b\.asm:1: .*already defined at a\.asm:1"):
        assemble([first, Source("b.asm", ".set K, 2\n", tmp_path)], BASE, cache=False)


def test_section_symbols_are_there_when_they_are_mentioned(asm: Assemble) -> None:
    names = [f"{name}_{side}" for name in ("text", "rodata", "data", "bss") for side in ("start", "end")]
    names.append("image_end")
    image = asm("nop\n.rodata\n.byte 1\n.bss\n.zero 9\n.data\n" + "".join(f".quad __{name}\n" for name in names))
    rodata, data = image.sections[1:]
    values = [int.from_bytes(data.data[at : at + 8], "little") for at in range(0, 8 * len(names), 8)]
    assert values == [image.base, image.base + 1, rodata.address, rodata.address + 1, data.address, data.address + 72,
                      data.address + 128, data.address + 137, image.end]
    assert not [name for name in image.symbols if name.startswith("__")]


@pytest.mark.parametrize(("text", "reason"), [
    ("a: nop\na: nop", "already defined at program.asm:1"),
    (".set a, 1\na: nop", "already defined at program.asm:1"),
    ("a: nop\n.set a, 1", "already defined at program.asm:1"),
    ("rax: nop", "register"), ("offset: nop", "register or of assembler syntax"), ("__text_end: nop", "defines"),
    ("jmp nowhere", "'nowhere' is not defined"), (".quad nowhere", "'nowhere' is not defined"),
    ("mov eax, LATER\n.set LATER, 5", "used before its definition at program.asm:2"),
    (".data\nnop", "code belongs in .text"), (".bss\n.byte 1", "only zeros"), (".byte 256", "does not fit in 8 bits"),
    (".byte", "a value is missing"), (".long main - 1\nmain:", "does not fit in 32 bits"),
    (".macro m\nnop", "has no .endm"), (".rept 2", "has no .endr"), (".if 1", "no .endif"), (".endif", "without .if"),
    (".endm", "without its beginning"), (".if 1\n.else\n.else\n.endif", "after .else"), (".rept x\n.endr", "not known"),
    (".macro m\nm\n.endm\nm", "nested more than 40"), (".macro m a\n.byte \\a\n.endm\nm 1, 2", "takes 1 arguments"),
    (".p2align 13", "must be 0 to 12"), (".balign 24", "power of two"), (".zero -1", "must be 0 to"),
    (".zero 5000000", "must be 0 to"), (".rept 3\n.zero 4000000\n.endr", "larger than 4 MiB"),
    (".rept 4000000\n.endr", "more than 100000 lines"), (".error \"stop here\"", "stop here"),
    (".org 5", ".org is not understood"), (".cfi_startproc", "is not known here"), (".file \"x\"", "is not known here"),
    (".section .text, \"ax\"", "without flags"), (".assciz \"x\"", "did you mean .asciz"),
    ("x = 5", ".set name, value"),
    ("x equ 5", "another dialect"), ("msg db 5", "another dialect"), (".intel_syntax prefix", "noprefix"),
])
def test_what_is_wrong_is_named_with_its_line(asm: Assemble, text: str, reason: str) -> None:
    error = refused(asm, text)
    assert reason in error.reason
    assert error.file == "program.asm" and error.text == text.split("\n")[error.line - 1].strip()


def test_a_growing_macro_argument_is_stopped(asm: Assemble) -> None:
    text = ".macro m a\nm \\a\\a\n.endm\nm 11111111\n"
    assert "nested" in refused(asm, text).reason or "characters" in refused(asm, text).reason


def test_an_error_in_a_macro_is_told_at_the_line_that_invoked_it(asm: Assemble) -> None:
    error = refused(asm, ".macro outer\ninner\n.endm\n.macro inner\n.byte 300\n.endm\nnop\nouter\n")
    assert (error.line, error.text) == (8, "outer")
    assert "program.asm:5" in error.reason and ".byte 300" in error.reason


def test_all_undefined_symbols_are_named_and_the_nearest_name_suggested(asm: Assemble) -> None:
    error = refused(asm, "main: call kmaloc\ncall kfre\nret", {"kmalloc": BASE - 64, "kfree": BASE - 32})
    assert "did you mean 'kmalloc'" in error.reason and "'kfre' (program.asm:2)" in error.reason and error.line == 1


# ---- files

@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program's directory inside a larger one."""
    (tmp_path / "secret.inc").write_text("nop\n")
    root = tmp_path / "program"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "one.inc").write_text('.include "two.inc"\n.byte 1\n')
    (root / "lib" / "two.inc").write_text("two: .byte 2\n")
    (root / "data.bin").write_bytes(bytes(range(10)))
    (root / "link.inc").symlink_to(tmp_path / "secret.inc")
    (root / "loop.inc").write_text('.include "loop.inc"\n')
    (root / "binary.inc").write_bytes(b"\xff\xfe")
    return root


def built(root: Path, text: str, prelude: tuple[Source, ...] = ()) -> bytes:
    image = assemble([Source("p/main.asm", text, root)], BASE, prelude=prelude, cache=False)
    return image.bytes()[: image.text_end - image.base]


def test_an_include_is_found_beside_the_file_that_includes_it(program: Path) -> None:
    assert built(program, '.include "lib/one.inc"') == b"\2\1"
    image = assemble([Source("p/main.asm", '.include "lib/one.inc"', program)], BASE, cache=False)
    assert image.origins["two"] == "p/lib/two.inc:1" and image.files["p/lib/two.inc"] == "two: .byte 2\n"


@pytest.mark.parametrize(("rest", "data"), [("", bytes(range(10))), (", 7", b"\7\10\11"), (", 2, 3", b"\2\3\4")])
def test_a_binary_file_becomes_bytes(program: Path, rest: str, data: bytes) -> None:
    assert built(program, f'.incbin "data.bin"{rest}') == data


@pytest.mark.parametrize(("text", "reason"), [
    ('.include "../secret.inc"', "outside"), ('.include "link.inc"', "outside"), ('.include "/etc/passwd"', "outside"),
    ('.incbin "/dev/zero"', "outside"), ('.incbin "../secret.inc"', "outside"), ('.include "loop.inc"', "itself"),
    ('.include "none.inc"', "no file"), ('.incbin "none"', "no file"), ('.include "lib"', "no file"),
    ('.include "binary.inc"', "not a text file"), ('.incbin "data.bin", 11', "10 bytes"),
    ('.incbin "data.bin", 0, 11', "10 bytes"), (".macro m\n.include \"lib/one.inc\"\n.endm\nm", "macro"),
    (".include", ".include"), (".include file", "quotation marks"),
])
def test_no_file_outside_the_programs_directory_is_ever_read(program: Path, text: str, reason: str) -> None:
    with pytest.raises(AssemblyError, match=r"\.asm:|\.inc:") as caught:
        built(program, text)
    assert reason in caught.value.reason


def test_the_kernels_definitions_are_there_and_can_be_included_by_name(program: Path) -> None:
    definitions = Source("kernel_asm/abi.inc", ".set K, 5\n", program)
    assert built(program, '.include "abi.inc"\n.byte K\n', (definitions,)) == b"\5"
    with pytest.raises(AssemblyError, match=r"already defined at kernel_asm/abi\.inc:1"):
        built(program, "K: nop", (definitions,))
    with pytest.raises(AssemblyError, match=r"already defined at kernel_asm/abi\.inc:1"):
        built(program, ".set K, 6", (definitions,))
    assert built(program, ".set K, 5\nnop", (definitions,)) == b"\x90"
