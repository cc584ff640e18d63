"""A child process that does what a broken engine does, on request."""

from __future__ import annotations

import ctypes
import os
import sys
import time

from sandbox.isolated.bounds import Bounds
from sandbox.isolated.channel import Channel


def main() -> None:
    channel = Channel()
    Bounds(memory=256 << 20).apply()
    for request in channel.requests():
        what = request["what"]
        channel.send(began=what)
        if what == "abort":
            sys.stderr.write("qemu: assertion failed: impossible\n")
            sys.stderr.flush()
            os.abort()
        elif what == "segfault":
            ctypes.string_at(8)
        elif what == "exit":
            os._exit(7)
        elif what == "hang":
            while True:
                time.sleep(1)
        elif what == "eat":
            kept = []
            while True:
                kept.append(b"x" * (8 << 20))
                time.sleep(0.01)
        elif what == "print":
            print("{}", "no message")
            os.write(1, b"noise of a library\n")
        elif what == "nonsense":
            os.write(channel._out.fileno(), b"{this is no JSON\n")
            time.sleep(60)
        elif what == "flood":
            for number in range(20_000):
                channel.send(number=number)
        elif what == "raise":
            raise RuntimeError("a defect of the worker")
        channel.send(done=True, pid=os.getpid())


if __name__ == "__main__":
    main()
