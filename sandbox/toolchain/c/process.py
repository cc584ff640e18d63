"""Programs of the host, run within bounds: time, memory and the size of what they write."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import EngineError

SECONDS = 30.0
"""How long a compiler may work on one file; a large one takes a second or two."""
MEMORY_BYTES = 8 << 30
OUTPUT_BYTES = 16 << 20
"""The largest file that a compiler may write, its messages among them."""

_VARIABLES = ("PATH", "HOME", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""All that a compiler sees of the environment: many other variables change its work, or let it write files (manual of
gcc, "Environment Variables"; clang's driver)."""


@dataclass(frozen=True)
class Finished:
    """How a program ended: its status (negative: the signal), what it wrote, and whether that, or it, was too much."""

    status: int
    output: str
    messages: str
    too_large: bool
    too_slow: bool


def run(command: Sequence[str], directory: Path) -> Finished:
    """Run ``command`` in ``directory``, where it may write; :class:`EngineError` when it cannot be started."""
    output, messages = directory / ".output", directory / ".messages"
    limited = (f"ulimit -c 0; ulimit -t {SECONDS + 5:.0f}; ulimit -v {MEMORY_BYTES >> 10} 2>/dev/null; "
               f"ulimit -f {OUTPUT_BYTES >> 9}; exec \"$@\"")
    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    environment |= {"LC_ALL": "C", "TMPDIR": str(directory), "PWD": str(directory)}
    too_slow = False
    with output.open("wb") as out, messages.open("wb") as err:
        try:
            process = subprocess.Popen(["/bin/sh", "-c", limited, "sh", *command], cwd=directory, env=environment,
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except (OSError, ValueError) as error:
            raise EngineError(f"{command[0]} does not run: {error}") from None
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            too_slow = True
        finally:
            with contextlib.suppress(OSError):           # its children too: a driver starts the compiler proper
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    too_large = max(output.stat().st_size, messages.stat().st_size) >= OUTPUT_BYTES
    texts = ("", "") if too_large else (output.read_text("utf-8", "replace"), messages.read_text("utf-8", "replace"))
    return Finished(process.returncode, *texts, too_large, too_slow)
