"""The parent's end of the line: a Python process that answers requests, watched.

No fork of this process and no pickle: the child is a fresh interpreter, and what passes is JSON. A child that dies,
says nothing for too long, grows too large or talks nonsense is ended, and the request raises what happened.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import EngineCrashed, EngineError, EngineHung, EngineTooLarge, UsageError
from .bounds import Bounds, resident_bytes

LOOK_SECONDS = 0.05
"""How often the child's size and the time are looked at."""
MESSAGE_BYTES = 64 << 20
"""The longest message; a longer one is no message."""
WAITING = 1024
"""Messages that may wait for the parent; the child then waits too."""
LAST_WORDS = 4000
"""Bytes kept of what the child wrote to standard error."""
EXIT_SECONDS = 2.0
"""How long a process that has closed its output may take to be gone."""

Message = dict[str, Any]


class Child:
    """``python -m module``, which serves requests through a :class:`~sandbox.isolated.channel.Channel`.

    Use it as a context manager. After an error the process is gone, and the next request starts another one.
    """

    def __init__(self, module: str, bounds: Bounds | None = None) -> None:
        self.module = module
        self.bounds = bounds or Bounds()
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.Queue[Message | None] = queue.Queue(WAITING)
        self._errors = bytearray()
        self._threads: list[threading.Thread] = []

    @property
    def process(self) -> int | None:
        """The number of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def ask(self, **request: Any) -> Iterator[Message]:
        """Send a request; gives the messages as they come, the last of which has a true ``done``.

        The seconds of the bounds count from the request, and anew from each message with a true ``begins``. Raises
        ``EngineCrashed``, ``EngineHung`` or ``EngineTooLarge``, all of them ``EngineError``. An iteration that is given
        up ends the child.
        """
        process = self._start()
        deadline = time.monotonic() + self.bounds.seconds
        finished = False
        try:
            self._write(process, request)
            while not finished:
                message = self._next(process, deadline)
                finished = bool(message.get("done"))
                if message.get("begins"):
                    deadline = time.monotonic() + self.bounds.seconds
                yield message
        finally:
            if not finished:
                self.close()

    def _write(self, process: subprocess.Popen[bytes], request: Message) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):          # it is dead, which reading will tell
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()

    def _next(self, process: subprocess.Popen[bytes], deadline: float) -> Message:
        while True:
            try:
                message = self._messages.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                message = {}
            if message is None:
                raise self._death(process)
            size = resident_bytes(process.pid)
            if size is not None and size > self.bounds.memory:
                raise EngineTooLarge(size, self.bounds.memory)
            if message:
                return message
            if time.monotonic() > deadline:
                raise EngineHung(self.bounds.seconds)

    def _death(self, process: subprocess.Popen[bytes]) -> EngineError:
        """What a child that says no more died of."""
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return EngineError("the guest's process said something that is no message, and was ended")
        self._threads[1].join(EXIT_SECONDS)
        words = self._errors.decode("utf-8", "replace").strip()
        return EngineCrashed(process.returncode, words)

    def kill(self) -> None:
        """End the process from another thread: a request that waits raises ``EngineCrashed`` there."""
        process = self._process
        if process is not None:
            process.kill()

    # -- the process ------------------------------------------------------------------------------------------
    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        if not sys.executable:
            raise EngineError("this Python cannot start another process")
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH", ""))))
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": path})
        except OSError as error:
            raise EngineError(f"no process for the guest can be started: {error}") from None
        assert process.stdout is not None and process.stderr is not None
        self._process, self._messages, self._errors = process, queue.Queue(WAITING), bytearray()
        self._threads = [threading.Thread(target=_read_messages, args=(process.stdout, self._messages), daemon=True),
                         threading.Thread(target=_read_errors, args=(process.stderr, self._errors), daemon=True)]
        for thread in self._threads:
            thread.start()
        return process

    def close(self) -> None:
        """End the process. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        while any(thread.is_alive() for thread in self._threads):
            with suppress(queue.Empty):          # a reader that waits for room
                self._messages.get(timeout=LOOK_SECONDS)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()


def _read_messages(stream: IO[bytes], messages: queue.Queue[Message | None]) -> None:
    """Pass on what the child says; None is the end, also of a child that talks nonsense."""
    with suppress(OSError, ValueError, UsageError):
        while line := stream.readline(MESSAGE_BYTES):
            message = json.loads(line)
            if not isinstance(message, dict):
                break
            messages.put(message)
    messages.put(None)


def _read_errors(stream: IO[bytes], kept: bytearray) -> None:
    with suppress(OSError, ValueError):
        while piece := stream.read1(LAST_WORDS):  # type: ignore[attr-defined]
            kept += piece
            del kept[:-LAST_WORDS]
