"""One connection with gdb: acknowledgements, packets in order, and one motion at a time.

It knows no socket: bytes come in by :meth:`Session.receive`, go out of ``output``, and while :attr:`Session.running`
somebody calls :meth:`Session.work`. "Interrupts received while the program is stopped are queued and the program will
be interrupted when it is resumed next time" (GDB manual, E.8).
"""

from __future__ import annotations

from collections import deque

from .motion import Motion
from .packets import Packet, PacketReader, Signal, frame
from .stub import OK, Stub

MOST_WAITING = 1024
"""Packets that may wait for a motion to end; gdb sends none."""
RETRIES = 3
"""How often an answer that came badly is sent again."""


class Session:
    """A conversation of ``stub`` with whoever has just connected."""

    def __init__(self, stub: Stub) -> None:
        self.output = bytearray()
        self._stub = stub
        self._reader = PacketReader()
        self._acknowledging = True
        self._waiting: deque[Packet] = deque()
        self._motion: Motion | None = None
        self._interrupt = False                  # Ctrl-C came while nothing ran: it ends the next motion
        self._last = b""
        self._retries = 0
        stub.connect()

    @property
    def running(self) -> bool:
        """Whether there is a motion to work on."""
        return self._motion is not None

    @property
    def ended(self) -> bool:
        """Whether this connection is to be closed."""
        return self._stub.ended or len(self._waiting) > MOST_WAITING

    def receive(self, data: bytes) -> None:
        """Bytes from the other side."""
        for item in self._reader.feed(data):
            if isinstance(item, Packet):
                self._acknowledge(item)
                self._waiting.append(item)
            elif item is Signal.INTERRUPT:
                self._interrupt = True
            elif item is Signal.NAK and self._retries > 0:
                self._retries -= 1
                self.output += self._last
            self._answer_waiting()

    def work(self) -> None:
        """One piece of the motion."""
        if self._motion is None:
            return
        if self._interrupt:
            self._motion.close()
            self._finish(self._stub.interrupted())
        else:
            try:
                next(self._motion)
            except StopIteration as end:
                self._finish(self._stub.stop_reply(end.value))
        self._answer_waiting()

    def close(self) -> None:
        """The other side is gone; the timeline stays where it is."""
        if self._motion is not None:
            self._motion.close()
            self._motion = None

    def _acknowledge(self, packet: Packet) -> None:
        if self._acknowledging:
            self.output += b"-" if packet.broken else b"+"

    def _answer_waiting(self) -> None:
        while self._waiting and self._motion is None and not self.ended:
            packet = self._waiting.popleft()
            if packet.broken:
                if not self._acknowledging:
                    self._send(self._stub.broken())
            elif packet.data == b"QStartNoAckMode":
                self._send(OK)
                self._acknowledging = False
            else:
                answer = self._stub.answer(packet.data)
                if isinstance(answer, tuple):
                    self._send(*answer)
                else:
                    self._motion = answer

    def _finish(self, stop: bytes) -> None:
        self._motion, self._interrupt = None, False
        self._send(*self._stub.remarks(), stop)

    def _send(self, *answers: bytes) -> None:
        for answer in answers:
            self._last = frame(answer)
            self._retries = RETRIES
            self.output += self._last
