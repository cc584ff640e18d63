"""Assembled images kept in files, found by the content of everything that went in.

An entry's key is a hash of the sources' text (not of their names), the base and the kernel's symbols; in the user's
cache, of this toolchain's own code too. Which files a source includes is not known before it is read, so an entry
lists them with their hashes, and counts only while they are unchanged. Texts are not stored: whoever asks has them.

An entry that is damaged, of another version or stale is no entry; a directory that cannot be written is no error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..errors import SandboxError
from .image import VERSION, Image
from .source import MAX_SOURCE_BYTES, Source


@dataclass(frozen=True)
class Entry:
    """An image, its sources' names in order, and every file beside them that went in: relative path -> hash."""

    image: Image
    names: tuple[str, ...]
    dependencies: Mapping[str, str]

    def to_json(self) -> str:
        """The entry without the sources' texts."""
        bare = replace(self.image, files=dict.fromkeys(self.image.files, ""))
        return json.dumps({"names": list(self.names), "dependencies": dict(self.dependencies),
                           "image": json.loads(bare.to_json())}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Entry:
        """Read what :meth:`to_json` wrote; :class:`SandboxError` for anything else."""
        try:
            data = json.loads(text)
            image = Image.from_json(json.dumps(data["image"]))
            return cls(image, tuple(map(str, data["names"])), dict(data["dependencies"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SandboxError(f"not a cache entry: {error!r}") from None

    def fresh(self, sources: Sequence[Source], prelude: Sequence[Source]) -> Image | None:
        """The image with today's names and texts; None when a file that went in has changed."""
        names = dict(zip(self.names, (source.name for source in (*prelude, *sources)), strict=True))
        texts = {source.name: source.text for source in (*prelude, *sources)}
        for path, digest in self.dependencies.items():
            data = read_dependency(sources[0].directory, path)
            if data is None or hash_of(data) != digest:
                return None
            with contextlib.suppress(UnicodeDecodeError):
                name = str(Path(sources[0].name).parent / path)
                names[str(Path(self.names[len(prelude)]).parent / path)] = name
                texts[name] = data.decode("utf-8")
        return renamed(self.image, names, texts)


def renamed(image: Image, names: Mapping[str, str], texts: Mapping[str, str]) -> Image:
    """``image`` with its files called by other names, and with their texts."""
    def place(text: str) -> str:
        file, _, line = text.rpartition(":")
        return f"{names.get(file, file)}:{line}"

    return replace(
        image, files={names.get(name, name): texts.get(names.get(name, name), "") for name in image.files},
        lines={address: (names.get(file, file), line) for address, (file, line) in image.lines.items()},
        origins={name: place(text) for name, text in image.origins.items()})


def hash_of(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def read_dependency(directory: Path, path: str) -> bytes | None:
    """The bytes of a file that a program includes; None when it is gone or too large."""
    try:
        with (directory / path).open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= MAX_SOURCE_BYTES else None


def key_of(sources: Sequence[Source], base: int, externs: Mapping[str, int], prelude: Sequence[Source]) -> str:
    """The key of what these would be assembled to."""
    return hash_of(json.dumps([
        VERSION, base, sorted(externs.items()), [source.text for source in prelude],
        [source.text for source in sources], [Path(source.name).name for source in prelude],
    ]).encode())


@cache
def fingerprint() -> str:
    """A hash of the toolchain's code: what an older one assembled is not taken for today's work."""
    files = sorted(Path(__file__).resolve().parent.glob("*.py"))
    return hash_of(b"".join(path.read_bytes() for path in files))


def user_name(key: str) -> str:
    """What the entry of ``key`` is called in the user's cache."""
    return hash_of(f"{key} {fingerprint()}".encode())


class Store:
    """A directory of entries, one file for each key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, name: str) -> Entry | None:
        """The entry in the file ``name``.json; None when there is none that can be read."""
        try:
            return Entry.from_json((self.directory / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError, SandboxError):
            return None

    def save(self, name: str, entry: Entry) -> None:
        """Write an entry; :class:`OSError` if impossible."""
        self.write(name, entry.to_json())

    def write(self, name: str, text: str) -> None:
        """Write a file ``name``.json in one step, so that a reader sees all of it or nothing."""
        self.directory.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.directory, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(self.directory / f"{name}.json")
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def user_store() -> Store | None:
    """The user's cache; None when SANDBOX_CACHE=0 turns it off, or when there is no home to put it in."""
    if os.environ.get("SANDBOX_CACHE") == "0":
        return None
    root = os.environ.get("XDG_CACHE_HOME", "")
    try:
        directory = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return Store(directory / "slab-sandbox")


def prebuilt_store() -> Store:
    """The entries that travel with the package."""
    return Store(Path(__file__).resolve().parent.parent / "prebuilt")


def find_prebuilt(key: str) -> Entry | None:
    """The entry of the package that was made from just this."""
    store = prebuilt_store()
    try:
        index = json.loads((store.directory / "index.json").read_text("utf-8"))
        name = index[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    entry = store.load(str(name))
    return entry if entry is not None and entry.image.source_hash == key else None
