"""The frames of gdb's remote serial protocol: bytes off the wire to packets, and back.

GDB manual, appendix E.1 "Overview": ``$data#cc``, where ``cc`` is the sum of the data's bytes modulo 256 in
hexadecimal; ``}`` before a byte that is XORed with 0x20; ``+`` and ``-`` say that a packet came well or badly; a bare
0x03 asks to stop what runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

PACKET_SIZE = 0x4000
"""Bytes between ``$`` and ``#`` that a packet may have, as ``qSupported`` tells gdb."""
_ESCAPE, _FLIP = 0x7D, 0x20
_ESCAPED = frozenset(b"#$}*")
_OUTSIDE = re.compile(rb"[$+\-\x03]")
_INSIDE = re.compile(rb"[$#]")


class Signal(Enum):
    """What a byte outside of packets says."""

    ACK = b"+"
    NAK = b"-"
    INTERRUPT = b"\x03"


@dataclass(frozen=True)
class Packet:
    """The data of a packet, escapes undone. ``broken`` says why it cannot be used, empty where it can."""

    data: bytes
    broken: str = ""


class PacketReader:
    """Cuts a stream of bytes into packets and signals; noise between them is skipped, however long it is."""

    def __init__(self) -> None:
        self._body: bytearray | None = None      # what came since "$"; None outside of a packet
        self._checksum: bytes | None = None      # the digits behind "#"; None before it
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[Packet | Signal]:
        """What is complete with these bytes, in order."""
        at = 0
        while at < len(data):
            if self._checksum is not None:
                self._checksum += data[at : at + 1]
                at += 1
                if len(self._checksum) == 2:
                    yield self._finish(self._checksum)
            elif self._body is not None:
                at = self._inside(self._body, data, at)
            else:
                found = _OUTSIDE.search(data, at)
                if found is None:
                    return
                at = found.end()
                if found[0] == b"$":
                    self._begin()
                else:
                    yield Signal(found[0])

    def _inside(self, body: bytearray, data: bytes, at: int) -> int:
        """Take the body up to its end. A ``$`` in it begins another packet: this one was cut off."""
        found = _INSIDE.search(data, at)
        end = found.start() if found else len(data)
        self._too_long = self._too_long or len(body) + end - at > PACKET_SIZE
        if not self._too_long:
            body += data[at:end]
        if found is not None and found[0] == b"$":
            self._begin()
        elif found is not None:
            self._checksum = b""
        return end + 1

    def _begin(self) -> None:
        self._body, self._checksum, self._too_long = bytearray(), None, False

    def _finish(self, checksum: bytes) -> Packet:
        body, self._body, self._checksum = bytes(self._body or b""), None, None
        if self._too_long:
            return Packet(b"", f"a packet of more than {PACKET_SIZE:,} bytes")
        if not re.fullmatch(rb"[0-9a-fA-F]{2}", checksum):
            return Packet(b"", "a checksum that is no number")
        if int(checksum, 16) != sum(body) & 0xFF:
            return Packet(b"", "a wrong checksum")
        data = unescape(body)
        return Packet(b"", "an escape with nothing behind it") if data is None else Packet(data)


def unescape(body: bytes) -> bytes | None:
    """The bytes that ``body`` stands for; None where it ends with an escape."""
    first, *rest = body.split(b"}")
    pieces, following = [first], iter(rest)
    for piece in following:
        if piece:
            pieces += [bytes((piece[0] ^ _FLIP,)), piece[1:]]
            continue
        after = next(following, None)            # "}}": the second one is what was escaped
        if after is None:
            return None
        pieces += [bytes((_ESCAPE ^ _FLIP,)), after]
    return b"".join(pieces)


def escape(data: bytes) -> bytes:
    """``data`` as the body of a packet has it."""
    if _ESCAPED.isdisjoint(data):
        return data
    return b"".join(bytes((_ESCAPE, byte ^ _FLIP)) if byte in _ESCAPED else bytes((byte,)) for byte in data)


def frame(data: bytes) -> bytes:
    """The whole packet that carries ``data``."""
    body = escape(data)
    return b"$%s#%02x" % (body, sum(body) & 0xFF)
