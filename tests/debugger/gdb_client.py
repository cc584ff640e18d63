"""A raw client of the remote protocol, and a server beside it in the same thread: what happens is one sequence."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Iterator

from sandbox.debugger.gdb import GdbServer, Stub

PATIENCE = 20.0


def packet(data: bytes) -> bytes:
    """``data``, which has no byte to escape, as it goes over the wire."""
    return b"$" + data + b"#%02x" % (sum(data) % 256)


class Client:
    """One connection; every wait lets the server have its turns."""

    def __init__(self, server: GdbServer, stub: Stub) -> None:
        self._server, self._stub = server, stub
        self.socket = socket.create_connection((server.host, server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        left = memoryview(data)
        while left and not self.closed:
            with contextlib.suppress(BlockingIOError):
                try:
                    left = left[self.socket.send(left) :]
                except ConnectionError:
                    self.closed = True
            self.turn()

    def turn(self) -> None:
        """One turn of the server's, and what it sent."""
        self._server.turn(self._stub, 0)
        while select.select([self.socket], [], [], 0)[0] and not self.closed:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionError:
                data = b""
            self.closed = not data
            self.received += data

    def reply(self) -> bytes:
        """The next packet from the server, acknowledgements and escapes dealt with."""
        end = time.monotonic() + PATIENCE
        while (found := re.match(rb"[+-]*\$((?:[^#])*)#([0-9a-f]{2})", self.received, re.DOTALL)) is None:
            assert time.monotonic() < end, f"no answer but {self.received!r}"
            assert not self.closed, f"closed after {self.received!r}"
            self.turn()
        self.received = self.received[found.end() :]
        assert int(found[2], 16) == sum(found[1]) % 256
        return re.sub(rb"\}(.)", lambda escaped: bytes((escaped[1][0] ^ 0x20,)), found[1], flags=re.DOTALL)

    def ask(self, data: bytes) -> bytes:
        """A packet, and its answer."""
        self.send(packet(data))
        return self.reply()

    def settle(self, turns: int = 20) -> bytes:
        """All that is to be had without asking, taken away."""
        for _ in range(turns):
            self.turn()
        taken, self.received = self.received, b""
        return taken

    def monitor(self, command: str) -> str:
        """What ``monitor command`` prints."""
        text, answer = "", self.ask(b"qRcmd," + command.encode().hex().encode())
        while answer.startswith(b"O") and answer != b"OK":
            text += bytes.fromhex(answer[1:].decode()).decode()
            answer = self.reply()
        assert answer == b"OK"
        return text

    def stop(self, data: bytes) -> tuple[bytes, str]:
        """An order to move: its stop reply, and what was printed before it."""
        text, answer = "", self.ask(data)
        while answer.startswith(b"O"):
            text += bytes.fromhex(answer[1:].decode()).decode()
            answer = self.reply()
        return answer, text

    def register(self, number: int) -> int:
        """One register's value."""
        return int.from_bytes(bytes.fromhex(self.ask(b"p%x" % number).decode()), "little")

    def close(self) -> None:
        """Hang up, and let the server notice."""
        refused = self.closed
        self.socket.close()
        end = time.monotonic() + PATIENCE
        while self._server.connected and not refused:
            assert time.monotonic() < end
            self._server.turn(self._stub, 0)


@contextlib.contextmanager
def connected(server: GdbServer, stub: Stub) -> Iterator[Client]:
    """A client that is served."""
    client = Client(server, stub)
    try:
        client.turn()
        yield client
    finally:
        client.close()
