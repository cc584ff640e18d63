"""string.asm against Python's bytes."""

from __future__ import annotations

import random

import pytest

from sandbox.guest.guest import Guest

E2BIG = 7


def signed(value: int) -> int:
    """EAX as a C int."""
    return (value & 0xFFFF_FFFF) - ((value & 0x8000_0000) << 1)


@pytest.fixture
def arena(guest: Guest) -> int:
    """The address of a free page."""
    return guest.call("get_free_pages", 0)


@pytest.fixture
def choose() -> random.Random:
    return random.Random(20)


def test_memset_and_memcpy_change_their_bytes_and_no_others(guest: Guest, arena: int, choose: random.Random) -> None:
    for _ in range(40):
        model = bytearray(choose.randbytes(256))
        guest.memory.write(arena, bytes(model))
        start, size, value = choose.randrange(64), choose.randrange(64), choose.randrange(1 << 16)
        assert guest.call("memset", arena + start, value, size) == arena + start
        model[start : start + size] = bytes([value & 0xFF]) * size
        target = 128 + choose.randrange(64)
        assert guest.call("memcpy", arena + target, arena + start, size) == arena + target
        model[target : target + size] = model[start : start + size]
        assert guest.memory.read(arena, 256) == model


def test_memmove_is_right_for_every_overlap(guest: Guest, arena: int) -> None:
    for size in (0, 1, 7, 8, 9, 24, 31):
        for distance in (-17, -9, -8, -7, -1, 0, 1, 7, 8, 9, 17):
            model = bytearray(range(128))
            guest.memory.write(arena, bytes(model))
            assert guest.call("memmove", arena + 48 + distance, arena + 48, size) == arena + 48 + distance
            model[48 + distance : 48 + distance + size] = bytes(range(48, 48 + size))
            assert guest.memory.read(arena, 128) == model, (size, distance)


def test_memcmp_has_the_sign_of_the_first_unsigned_difference(guest: Guest) -> None:
    for left, right in ((b"", b""), (b"abc", b"abc"), (b"abc", b"abd"), (b"\xff", b"\x01"), (b"\0a", b"\0b")):
        result = signed(guest.call("memcmp", left, right, len(left)))
        assert (result > 0) - (result < 0) == (left > right) - (left < right)
    assert guest.call("memcmp", b"abX", b"abY", 2) == 0


def test_string_lengths(guest: Guest) -> None:
    for text in ("", "a", "seven b", "x" * 300):
        assert guest.call("strlen", text) == len(text)
        assert guest.call("strnlen", text, 7) == min(len(text), 7)


def test_strcmp_orders_as_bytes_do(guest: Guest) -> None:
    words = [b"", b"a", b"ab", b"abc", b"abd", b"b", b"\x80", b"\xff\x01"]
    for left in words:
        for right in words:
            result = signed(guest.call("strcmp", left + b"\0", right + b"\0"))
            assert (result > 0) - (result < 0) == (left > right) - (left < right), (left, right)
            cut = signed(guest.call("strncmp", left + b"\0", right + b"\0", 2))
            assert (cut > 0) - (cut < 0) == (left[:2] > right[:2]) - (left[:2] < right[:2]), (left, right)


def test_strcpy_copies_the_nul_too(guest: Guest) -> None:
    buffer = bytearray(b"\xaa" * 8)
    guest.call("strcpy", buffer, "slab")
    assert buffer == b"slab\0\xaa\xaa\xaa"


@pytest.mark.parametrize("size", range(7))
def test_strscpy_never_writes_more_than_size_and_always_ends_the_text(guest: Guest, size: int) -> None:
    buffer = bytearray(b"\xaa" * 8)
    result = guest.call("strscpy", buffer, "slab", size)
    copied = b"slab"[: size - 1] + b"\0" if size else b""
    assert buffer == copied.ljust(8, b"\xaa")
    assert result == (4 if size > 4 else (1 << 64) - E2BIG)
