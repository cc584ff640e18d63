"""The child process that assembles: a request on standard input, its answer on standard output.

``python -m sandbox.toolchain.worker`` is started by :func:`sandbox.toolchain.assembler.assemble` for text that nobody
vouches for. It may use a bounded amount of memory and time, so that a program which confuses an assembler costs the
host nothing.
"""

from __future__ import annotations

import contextlib
import sys

from .assembler import CHILD_SECONDS, serve

MEMORY_BYTES = 2 << 30


def main() -> None:
    """Answer one request."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (int(CHILD_SECONDS), int(CHILD_SECONDS) + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(serve(sys.stdin.buffer.read().decode("utf-8")))


if __name__ == "__main__":
    main()
