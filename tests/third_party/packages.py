"""Source packages of registries, fetched once and never committed: what is in them is compiled as it is."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest

TIMEOUT = 30
"""Seconds without a byte after which a registry is given up."""
LARGEST = 16 << 20
"""No package here is larger, in bytes."""


@dataclass(frozen=True)
class Package:
    """An archive of one version: where it is (the first address that answers), its SHA-256, and where its files go."""

    urls: tuple[str, ...]
    sha256: str
    files: Mapping[str, str]

    @property
    def archive(self) -> Path:
        """The archive in the user's cache, fetched if it is not there; several processes may ask at once.

        Without a network the test is skipped, and fails where ``CI`` is set.
        """
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slab-sandbox"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            cache = Path(tempfile.gettempdir())
        path = cache / self.sha256
        with (cache / f"{self.sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file() or self._differs(path.read_bytes()):
                whole = path.with_suffix(".part")
                whole.write_bytes(self._fetched())
                whole.replace(path)
        return path

    def extract(self, directory: Path) -> None:
        """Put the files into ``directory``, under the names that :attr:`files` gives them and no others."""
        wanted = dict(self.files)
        with tarfile.open(self.archive) as archive:
            for member in archive:
                if member.isfile() and member.name in wanted:
                    source = archive.extractfile(member)
                    assert source is not None
                    target = directory / wanted.pop(member.name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(source.read())
                if not wanted:
                    return
        raise FileNotFoundError(f"{self.urls[0]} has no {', '.join(wanted)}")

    def _differs(self, data: bytes) -> bool:
        return hashlib.sha256(data).hexdigest() != self.sha256

    def _fetched(self) -> bytes:
        reasons = []
        for url in self.urls:
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                    data: bytes = answer.read(LARGEST)
            except (OSError, HTTPException) as error:
                reasons.append(f"{url}: {error}")
                continue
            assert not self._differs(data), f"{url}: it is not what it was, for its SHA-256 is another"
            return data
        reason = "; ".join(reasons)
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
