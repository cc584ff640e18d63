"""System V's calling convention, by hand-computed frames."""

from __future__ import annotations

import struct

import pytest

from sandbox.address import VirtAddr
from sandbox.errors import UsageError
from sandbox.guest.arguments import MAX_ARGUMENTS, MAX_COPIED, frame, normalize

RETURN = 0xFFFF_FFFF_8000_1234
RSP = 0xFFFF_C900_0001_0000


def words(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def test_numbers_become_unsigned_64_bit_words() -> None:
    assert normalize((1, -1, True, False, VirtAddr(7), -(1 << 63))) == (1, 2**64 - 1, 1, 0, 7, 1 << 63)
    assert all(type(value) is int for value in normalize((True, VirtAddr(7))))


def test_text_gets_a_nul_and_bytes_do_not() -> None:
    assert normalize(("héap", b"ab", bytearray(b"cd"))) == (b"h\xc3\xa9ap\0", b"ab", b"cd")


def test_something_with_an_address_is_passed_as_its_address() -> None:
    class View:
        address = 0xFFFF_8880_0010_0000

    assert normalize((View(),)) == (0xFFFF_8880_0010_0000,)


@pytest.mark.parametrize(("arguments", "words"), [
    ((1.5,), "argument 1 is float"),
    ((1, None), "argument 2 is NoneType"),
    ((1, [2]), "argument 2 is list"),
    ((1 << 64,), "does not fit in 64 bits"),
    ((-(1 << 63) - 1,), "does not fit in 64 bits"),
    (("a\0b",), "NUL"),
    ((b"x" * (MAX_COPIED + 1),), "at most 4096"),
    ((b"x" * MAX_COPIED, "y"), "at most 4096"),
    ((0,) * (MAX_ARGUMENTS + 1), "65 arguments"),
])
def test_what_no_register_can_hold_is_refused_with_its_position(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        normalize(arguments)


def test_six_numbers_travel_in_registers_and_the_return_address_lies_on_top() -> None:
    placed = frame((1, 2, 3, 4, 5, 6), RSP, RETURN)
    assert placed.registers == (1, 2, 3, 4, 5, 6)
    assert (placed.rsp, words(placed.stack)) == (RSP - 8, [RETURN])


@pytest.mark.parametrize("count", range(20))
@pytest.mark.parametrize("rsp", range(RSP - 16, RSP + 1))
def test_rsp_is_8_mod_16_at_entry_whatever_the_stack_and_the_arguments_are(count: int, rsp: int) -> None:
    placed = frame(tuple(range(100, 100 + count)), rsp, RETURN)
    assert placed.rsp % 16 == 8
    assert placed.rsp + len(placed.stack) <= rsp
    assert words(placed.stack)[: 1 + max(count - 6, 0)] == [RETURN, *range(106, 100 + count)]


def test_copies_lie_above_the_stack_arguments_and_pointers_lead_to_them() -> None:
    values = (b"first\0", 2, 3, 4, 5, 6, b"", b"x" * 33)
    placed = frame(values, RSP - 5, RETURN)
    memory = {placed.rsp + offset: byte for offset, byte in enumerate(placed.stack)}
    on_stack = words(placed.stack[:24])
    assert on_stack == [RETURN, placed.copies[6], placed.copies[7]]
    assert placed.registers == (placed.copies[0], 2, 3, 4, 5, 6)
    for value, copy in zip(values, placed.copies, strict=True):
        if isinstance(value, bytes):
            assert copy % 16 == 0
            assert bytes(memory[copy + offset] for offset in range(len(value))) == value
    assert len({copy for copy in placed.copies if copy}) == 3
    assert placed.rsp + len(placed.stack) <= RSP - 5
