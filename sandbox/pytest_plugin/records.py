"""Where the record of a test's run goes, and how it is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from ..debugger.timeline import Timeline
from ..errors import ShadowError
from ..kernel import Kernel
from ..recording import record

DIRECTORY = ".sandbox"
SUFFIX = ".rec"
_LONGEST_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def record_names(nodeids: Iterable[str]) -> dict[str, str]:
    """A file's name for each test: ``test_name_fits``, with its file in front where several tests are called so."""
    every = list(dict.fromkeys(nodeids))
    names = {nodeid: _safe(nodeid.partition("::")[2] or nodeid) for nodeid in every}
    for longer in (_safe, _unmistakable):
        often = Counter(names.values())
        names = {nodeid: longer(nodeid) if often[name] > 1 else name for nodeid, name in names.items()}
    return {nodeid: _unmistakable(nodeid) if len(name) > _LONGEST_NAME else name for nodeid, name in names.items()}


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text.replace("::", ".")).strip("_.") or "test"


def _unmistakable(nodeid: str) -> str:
    return f"{_safe(nodeid)[:_LONGEST_NAME]}-{crc32(nodeid.encode()):08x}"


def record_path(root: Path, name: str, number: int = 0) -> Path:
    """The file for a test's kernel: ``.sandbox/NAME.rec``, for the second one ``NAME-2.rec``, and so on."""
    return root / DIRECTORY / f"{name}{f'-{number + 1}' if number else ''}{SUFFIX}"


def timeline_of(kernel: Kernel) -> Timeline[Kernel]:
    """All that a test has done with a kernel; it stands where the test has left it."""
    timeline = record(kernel)
    if isinstance(kernel.failure, ShadowError):
        timeline.settle()
    return timeline


def save(timeline: Timeline[Kernel], path: Path) -> None:
    """Write a record; ``OSError`` where it cannot be written."""
    path.parent.mkdir(exist_ok=True)
    timeline.save(path)
