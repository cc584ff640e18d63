"""kprintf and snprintf against Python's ``%`` operator, which follows C where the two overlap."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sandbox.guest.guest import Guest


def snprintf(guest: Guest, text: str, *arguments: object, size: int = 512) -> tuple[int, str]:
    """What snprintf returns, and what it leaves in a buffer of ``size`` bytes."""
    buffer = bytearray(b"\xaa" * (size + 8))
    length = guest.call("snprintf", buffer, size, text, *arguments)
    assert buffer[size:] == b"\xaa" * 8, "written behind the buffer"
    return length & 0xFFFF_FFFF, bytes(buffer[:size]).split(b"\0")[0].decode("latin-1")


SIGNED = [0, 1, 9, 10, -1, 42, 0x7FFF_FFFF, -0x8000_0000]
UNSIGNED = [0, 1, 9, 10, 255, 0x8000_0000, 0xFFFF_FFFF]


@pytest.mark.parametrize("letter", "dixXou")
def test_integers_print_as_python_prints_them(guest: Guest, letter: str) -> None:
    choose = random.Random(letter)
    for _ in range(120):
        flags = "".join(flag for flag in ("-0+ " if letter in "di" else "-0") if choose.random() < 0.4)
        width = choose.choice(["", "1", "5", "12", "30"])
        precision = choose.choice(["", "", ".1", ".5", ".20"])
        value = choose.choice(SIGNED if letter in "di" else UNSIGNED)
        text = f"<%{flags}{width}{precision}{letter}>"
        if precision and "0" in flags:  # C ignores the flag then, Python does not
            continue
        expected = text % value
        assert snprintf(guest, text, value & 0xFFFF_FFFF) == (len(expected), expected), (text, value)


@pytest.mark.parametrize("length", ["l", "ll", "z"])
def test_long_integers_use_all_64_bits(guest: Guest, length: str) -> None:
    for value in (0, 1, -1, 1 << 62, -(1 << 63), (1 << 63) - 1):
        text = f"%{length}d %25{length}d %-25{length}d|"
        expected = text.replace(length, "") % (value, value, value)
        assert snprintf(guest, text, value, value, value)[1] == expected
    for number in (0, 1 << 32, (1 << 64) - 1):
        text = f"%{length}u %{length}x %{length}X %{length}o %020{length}x"
        expected = text.replace(length, "") % ((number,) * 5)
        assert snprintf(guest, text, *[number] * 5)[1] == expected


def test_short_lengths_keep_the_low_bits_only(guest: Guest) -> None:
    value = 0x1234_5678_9ABC_FEDC
    signed = f"{0x9ABC_FEDC - (1 << 32)} {0xFEDC - 0x10000} {0xDC - 0x100}"
    assert snprintf(guest, "%d %hd %hhd", value, value, value)[1] == signed
    assert snprintf(guest, "%u %hu %hhu", value, value, value)[1] == f"{0x9ABCFEDC} {0xFEDC} {0xDC}"
    assert snprintf(guest, "%x %hx %hhx", value, value, value)[1] == "9abcfedc fedc dc"


def test_text_fields_follow_width_and_precision(guest: Guest) -> None:
    for text in ("<%s>", "<%10s>", "<%-10s>", "<%.3s>", "<%10.3s>", "<%-10.3s>", "<%.0s>", "<%.99s>"):
        expected = text % "kernel"
        assert snprintf(guest, text, "kernel") == (len(expected), expected)
    assert snprintf(guest, "<%*s><%-*s>", 9, "kernel", 9, "kernel")[1] == "<   kernel><kernel   >"
    assert snprintf(guest, "<%*s>", -9, "kernel")[1] == "<kernel   >"
    assert snprintf(guest, "<%.*s>", 2, "kernel")[1] == "<ke>"
    assert snprintf(guest, "%s", 0)[1] == "(null)"


def test_a_precision_keeps_a_text_without_its_end_from_being_read_further(guest: Guest) -> None:
    """The last bytes before an unmapped page: one more, and the guest would fault."""
    last = guest.symbols["boot_cpu"] & ~0xFFF
    while guest.machine.paging.walk(last)[-1].maps_page:
        last += 0x1000
    guest.memory.write(last - 4, b"abcd")
    assert snprintf(guest, "%.4s", last - 4)[1] == "abcd"


def test_characters_and_pointers(guest: Guest) -> None:
    assert snprintf(guest, "%c%c|%3c|%-3c|", ord("o"), ord("k"), ord("x"), ord("y"))[1] == "ok|  x|y  |"
    assert snprintf(guest, "%p %p", 0, 0xFFFF_8880_0000_1000)[1] == "0x0000000000000000 0xffff888000001000"


def test_what_is_no_conversion_stands_as_it_is(guest: Guest) -> None:
    assert snprintf(guest, "100%% %y %5q %")[1] == "100% %y %5q %"
    assert snprintf(guest, "") == (0, "")


def test_arguments_beyond_the_registers_come_from_the_stack_in_order(guest: Guest) -> None:
    values = list(range(20))
    text = " ".join(["%d"] * 20)
    assert snprintf(guest, text, *values)[1] == text % tuple(values)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 7])
def test_a_buffer_that_is_too_small_cuts_the_text_and_still_ends_it(guest: Guest, size: int) -> None:
    buffer = bytearray(b"\xaa" * 16)
    assert guest.call("snprintf", buffer, size, "%s!", "hello") == 6
    written = b"hello!"[: size - 1] + b"\0" if size else b""
    assert bytes(buffer) == written.ljust(16, b"\xaa")


def test_kprintf_prints_on_the_console_and_counts(guest: Guest) -> None:
    before = len(guest.console)
    assert guest.call("kprintf", "%s=%d\n", "answer", 42) == 10
    assert guest.console[before:] == "answer=42\n"


def test_an_enormous_width_is_bounded(guest: Guest) -> None:
    assert guest.call("snprintf", bytearray(8), 8, "%999999999d", 1) == 4096


def test_kprintf_leaves_the_interrupt_flag_as_it_was(boot: Callable[..., Guest]) -> None:
    guest = boot()
    flags = guest.registers["rflags"]
    guest.call("kprintf", "x")
    assert guest.registers["rflags"] & 0x200 == flags & 0x200 == 0x200
