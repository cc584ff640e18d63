"""The child's end of the line: requests on standard input, messages on what was standard output, one JSON text each.

Whatever else in the process prints goes to standard error, so that nothing can garble a message. When the parent is
gone, standard input ends, and the child with it, whatever its engine is doing.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

ORPHANED = 3


class Channel:
    """Made once, at the start of a child process."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="backslashreplace")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        kept = b""
        while piece := os.read(0, 1 << 16):      # not sys.stdin, which an interpreter that ends must be able to lock
            *lines, kept = (kept + piece).split(b"\n")
            for line in lines:
                self._requests.put(json.loads(line))
        os._exit(ORPHANED)

    def requests(self) -> Iterator[dict[str, Any]]:
        """What the parent asks, one after the other, for ever."""
        while True:
            yield self._requests.get()

    def send(self, **message: Any) -> None:
        """Tell the parent something."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()
