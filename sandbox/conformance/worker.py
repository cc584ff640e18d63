"""The child process of :func:`~sandbox.conformance.outcome.isolated_outcome`: one check.

``python -m sandbox.conformance.worker``; a request on standard input, the report on standard output.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import SandboxError
from ..isolated.bounds import Bounds
from ..isolated.channel import Channel
from ..isolated.run import packed
from .check import check


def main() -> None:
    """Serve requests until the parent is gone."""
    channel = Channel()
    Bounds().apply()
    for request in channel.requests():
        try:
            channel.send(done=True, report=serve(request))
        except SandboxError as error:
            channel.send(done=True, error=packed(error))


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Check as the request says; the report as data."""
    os.chdir(request["directory"])
    allocator = request["allocator"]
    files = [_file(each) for each in allocator] if isinstance(allocator, list) else _file(allocator)
    return check(files, **request["options"]).to_dict()


def _file(given: Any) -> str | Path:
    return Path(given["path"]) if isinstance(given, dict) else str(given)


if __name__ == "__main__":
    main()
