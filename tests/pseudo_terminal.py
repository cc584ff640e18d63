"""A program in a terminal of its own: a pseudo-terminal, and an emulator that keeps what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

import sandbox

ROOT = Path(sandbox.__file__).parent.parent
PATIENCE = 20.0
"""Seconds until a test gives up waiting for a screen; a loaded host may be slow."""


class PseudoTerminal:
    """Runs ``python -m sandbox``, or another module, with some arguments in a terminal of ``columns`` x ``rows``."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, module: str = "sandbox",
                 directory: Path = ROOT, **environment: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.raw = b""
        self.status: int | None = None
        self._stream = pyte.ByteStream(self.screen)
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM")}
            os.chdir(directory)
            os.execve(sys.executable, [sys.executable, "-m", module, *arguments],
                      {**kept, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8",
                       "COLUMNS": "", "LINES": "", **environment})
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """The user pulls at the window's corner."""
        self.screen.resize(rows, columns)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self._pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Keys; ``\\r`` is enter."""
        os.write(self._file, text.encode())

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        os.kill(self._pid, number)

    @property
    def attributes(self) -> list[object]:
        """How the terminal is set: ``tcgetattr``."""
        return list(termios.tcgetattr(self._file))

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, wanted: str | Callable[[str], bool]) -> str:
        """Until a text is on the screen, or the screen is as it should be; returns the screen."""
        holds = wanted if callable(wanted) else lambda text: str(wanted) in text
        end = time.monotonic() + PATIENCE
        while not holds(self.text):
            assert time.monotonic() < end, f"{wanted!r} did not come:\n{self.text}"
            assert self._read(0.5) or self.status is None, f"the program ended, {wanted!r} did not come:\n{self.text}"
        return self.text

    def end(self) -> int:
        """Until the program has ended; its exit status."""
        end = time.monotonic() + PATIENCE
        while self.status is None:
            assert time.monotonic() < end, f"it does not end:\n{self.text}"
            self._read(0.5)
        return self.status

    def _read(self, seconds: float) -> bool:
        """Take what has been written; whether there was anything."""
        if self.status is not None:
            return False
        if not select.select([self._file], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:                          # Linux says so when the other end is closed
            data = b""
        if not data:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def close(self) -> None:
        """End the program, if it has not by itself."""
        if self.status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self.status = -signal.SIGKILL
        os.close(self._file)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
