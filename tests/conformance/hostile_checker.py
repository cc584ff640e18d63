"""The worker of a check with shorter workloads, that does what a broken engine does when a source asks for it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from sandbox.conformance import worker, workloads


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """As the real one, but for four words in the first line of a source."""
    source = Path(request["directory"], request["allocator"]["path"])
    first = source.read_text("utf-8", "replace").partition("\n")[0]
    if first == "# crash":
        sys.stderr.write("qemu: assertion failed: impossible\n")
        sys.stderr.flush()
        os.abort()
    if first == "# quit":
        os._exit(7)
    if first == "# hang":
        time.sleep(60)
    if first == "# wait":
        Path(request["directory"], "waiting").touch()
        time.sleep(60)
    return real(request)


if __name__ == "__main__":
    real, worker.serve = worker.serve, serve
    workloads.LENGTH = 16
    worker.main()
