"""What a child process may use of the host."""

from __future__ import annotations

import math
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

RESERVE = 2 << 30
"""Address space that engines and other libraries set aside and hardly touch."""
PS_SECONDS = 5.0


@dataclass(frozen=True)
class Bounds:
    """``seconds`` of the host's time for the boot and as many for the run, and ``memory``, resident bytes of the whole
    process.

    The guest's own bound is its number of instructions, which is the same on every host. Seconds are there for what
    that number cannot see: an engine that no longer comes back from one instruction. Reaching them is an error and
    never a result, so that what a run says does not depend on the host's clock.
    """

    seconds: float = 120.0
    memory: int = 2 << 30

    def __post_init__(self) -> None:
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, (int, float)) or not (
                math.isfinite(self.seconds) and self.seconds > 0):
            raise UsageError(f"seconds is a positive number, not {self.seconds!r}")
        if isinstance(self.memory, bool) or not isinstance(self.memory, int) or self.memory < 64 << 20:
            raise UsageError(f"memory is a number of bytes, at least 64 MiB, not {self.memory!r}")

    def apply(self) -> None:
        """Limit the present process, where the host can: data that it may write to, no core files.

        The address space itself cannot be limited, because much of it is reserved and never used; so this is the
        outer wall, for what grows faster than the parent looks.
        """
        with suppress(ImportError, OSError, ValueError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_DATA, (RESERVE + self.memory,) * 2)


def resident_bytes(process: int) -> int | None:
    """Bytes of RAM that a process occupies; None where the host does not tell, or the process is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None if Path("/proc/self/statm").exists() else _asked_of_ps(process)
    import resource

    return pages * resource.getpagesize()


def _asked_of_ps(process: int) -> int | None:
    """The same on a host without /proc."""
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True,
                              timeout=PS_SECONDS, check=False)
        return int(done.stdout) * 1024
    return None
