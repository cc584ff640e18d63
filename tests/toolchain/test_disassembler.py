"""Bytes back to text, with labels; returns and boundaries; data in the text is skipped."""

from __future__ import annotations

import pytest

from sandbox.toolchain.disassembler import Disassembler, disassemble
from sandbox.toolchain.image import Image

from .conftest import BASE, Assemble

TEXT = """\
main:
    call helper
    jne main
    lea rdi, [rip + message]
    mov rax, [rip + table + 8]
    ret
table: .quad 0xc3c3c3c3c3c3c3c3, main
helper:
    cmp eax, 5
    je .Lout
    rep stosb
    ret 8
.Lout:
    ret
.rodata
message: .asciz "hi"
"""


@pytest.fixture
def image(asm: Assemble) -> Image:
    """A text with a table in the middle of its code."""
    return asm(TEXT)


def test_branches_and_relative_operands_show_labels(image: Image) -> None:
    shown = [found.text for found in Disassembler().code(image, *image.functions["main"])]
    assert shown == ["call helper", "jne main", "lea rdi, [rip + message]", "mov rax, qword ptr [rip + table+0x8]",
                     "ret"]


def test_without_symbols_addresses_are_numbers(image: Image) -> None:
    first = next(disassemble(image.bytes(), BASE))
    assert (first.address, first.size, first.bytes[0], first.mnemonic) == (BASE, 5, 0xE8, "call")
    assert first.operands == f"0x{image.symbols['helper']:x}" and first.end == BASE + 5


def test_returns_are_found_in_code_and_not_in_data(image: Image) -> None:
    main, helper = image.symbols["main"], image.symbols["helper"]
    text = Disassembler()
    assert text.rets(image, "main") == (main + 21,)
    assert text.rets(image, "helper") == (helper + 7, helper + 10)
    assert text.rets(image) == (main + 21, helper + 7, helper + 10)
    assert text.rets(image, "table") == ()


def test_bytes_that_are_no_instruction_are_shown_as_bytes() -> None:
    listing = list(disassemble(b"\x06\x90\x0f", 0x1000))
    assert [(found.text, found.size) for found in listing] == [(".byte 0x06", 1), ("nop", 1), (".byte 0x0f", 1)]
    assert Disassembler().disassemble(b"", 0).size == 1


def test_an_instruction_is_decoded_into_registers_numbers_and_addresses() -> None:
    decoded = Disassembler().decode(bytes.fromhex("65488b4cb7f8"), 0)
    assert decoded is not None
    register, memory = decoded.operands
    assert register == "rcx" and memory == type(memory)(8, "gs", "rdi", "rsi", 4, -8)       # type: ignore[call-arg]
    assert Disassembler().decode(b"\x06", 0) is None


def test_code_for_32_bits_is_decoded_as_such() -> None:
    assert Disassembler(32).disassemble(b"\x40", 0).text == "inc eax"
