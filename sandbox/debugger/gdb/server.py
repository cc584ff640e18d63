"""The sockets: one port, one client at a time, one loop without threads.

A second client is turned away at once, with a sentence. One that hangs hangs alone: nothing here waits for it, and
Ctrl-C ends the server at any time.
"""

from __future__ import annotations

import contextlib
import selectors
import socket

from ...errors import UsageError
from .packets import frame
from .session import Session
from .stub import Stub

LOOPBACK = "127.0.0.1"
_CHUNK = 1 << 12
"""Bytes that are read at a time: what answers them is at most some megabytes."""
_TAKEN = b"+" + frame(b"E.another debugger is attached to this run")
_MOST_TURNED_AWAY = 8
"""Clients that are waited for to read why they were turned away."""
_MOST_OUTPUT = 1 << 20
"""Bytes that may wait for a client that does not read; until it does, it is not listened to."""


class GdbServer:
    """Listens on ``host`` and ``port`` (0 takes a free one); :class:`UsageError` when that cannot be.

    ``port`` is then the one that was taken. Whoever connects waits until :meth:`serve`.
    """

    def __init__(self, host: str = LOOPBACK, port: int = 0) -> None:
        self._listener = _listen(host, port)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._client: socket.socket | None = None
        self._session: Session | None = None
        self._turned_away: list[socket.socket] = []

    def __enter__(self) -> GdbServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and free the port."""
        self._hang_up()
        while self._turned_away:
            self._forget(self._turned_away[0])
        self._selector.close()
        self._listener.close()

    @property
    def connected(self) -> bool:
        """Whether a client is there."""
        return self._client is not None

    def serve(self, stub: Stub) -> None:
        """Serve one client after the other, until an exception ends it: ``KeyboardInterrupt``."""
        while True:
            self.turn(stub)

    def turn(self, stub: Stub, patience: float | None = None) -> None:
        """Once around: what has come, what can go, and a piece of the motion if there is one. Waits for at most
        ``patience`` seconds, for ever when it is None, and not at all while there is work."""
        session = self._session
        busy = session is not None and session.running and len(session.output) <= _MOST_OUTPUT
        for key, events in self._selector.select(0 if busy else patience):
            if key.fileobj is self._listener:
                self._accept(stub)
            elif key.fileobj is self._client:
                self._exchange(self._client, events)
            elif isinstance(key.fileobj, socket.socket):
                self._hear_out(key.fileobj)
        if session is not None and session is self._session and busy:
            session.work()
        self._settle()

    def _accept(self, stub: Stub) -> None:
        with contextlib.suppress(OSError):       # it may be gone again
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if self._client is not None:
                self._turn_away(connection)
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._client, self._session = connection, Session(stub)
            self._selector.register(connection, selectors.EVENT_READ)

    def _turn_away(self, connection: socket.socket) -> None:
        """Say why, and that nothing more comes. It is closed when the other side is done: a socket that is closed with
        bytes that nobody has read resets the connection, and the sentence would be lost."""
        self._turned_away.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)
        if len(self._turned_away) > _MOST_TURNED_AWAY:
            self._forget(self._turned_away[0])
        connection.send(_TAKEN)
        connection.shutdown(socket.SHUT_WR)

    def _hear_out(self, connection: socket.socket) -> None:
        """Take what somebody says who was turned away, and close when that is all."""
        with contextlib.suppress(BlockingIOError):
            try:
                data = connection.recv(_CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._turned_away.remove(connection)
        self._selector.unregister(connection)
        connection.close()

    def _exchange(self, client: socket.socket, events: int) -> None:
        session = self._session
        assert session is not None
        try:
            if events & selectors.EVENT_READ:
                data = client.recv(_CHUNK)
                if not data:
                    self._hang_up()
                    return
                session.receive(data)
            if session.output:
                sent = client.send(session.output)
                del session.output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up()

    def _settle(self) -> None:
        """Send what is there, and choose what to wait for: a client with much to read is not asked for more."""
        session, client = self._session, self._client
        if session is None or client is None:
            return
        if session.output:
            with contextlib.suppress(OSError):   # the next turn will meet it, too
                del session.output[: client.send(session.output)]
        if session.ended and not session.output:
            self._hang_up()
            return
        reading = selectors.EVENT_READ if len(session.output) <= _MOST_OUTPUT else 0
        writing = selectors.EVENT_WRITE if session.output else 0
        self._selector.modify(client, reading | writing)

    def _hang_up(self) -> None:
        client, session = self._client, self._session
        self._client = self._session = None
        if session is not None:
            session.close()
        if client is not None:
            self._selector.unregister(client)
            client.close()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket."""
    if not 0 <= port <= 0xFFFF:
        raise UsageError(f"a port is a number from 0 to 65535, not {port}")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise UsageError(f"{host} is no address of this computer: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen()
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on port {port} of {host}: {error.strerror or error}") from None
    return listener
