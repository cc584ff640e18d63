"""The parts that the data of packets are made of: hexadecimal numbers, and text for gdb's console."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .packets import PACKET_SIZE

LARGEST_DATA = (PACKET_SIZE - 16) // 2
"""Bytes that fit into a packet as hexadecimal digits."""
_NUMBER = re.compile(rb"[0-9a-fA-F]{1,16}")


class Malformed(Exception):
    """A packet whose parts are not what they should be."""


def number(text: bytes) -> int:
    """A number of up to 64 bits."""
    if not _NUMBER.fullmatch(text):
        raise Malformed
    return int(text, 16)


def numbers(text: bytes) -> tuple[int, int]:
    """Two numbers with a comma between them."""
    first, comma, second = text.partition(b",")
    if not comma:
        raise Malformed
    return number(first), number(second)


def console(text: str) -> Iterator[bytes]:
    """``O`` packets that print a text."""
    data = text.encode()
    for at in range(0, len(data), LARGEST_DATA):
        yield b"O" + data[at : at + LARGEST_DATA].hex().encode()
