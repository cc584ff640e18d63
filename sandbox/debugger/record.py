"""A record: a run as a file. It holds what came from outside, and not the past, so it is small.

The images with their sources and symbols, the options of the boot, and the journal: every call, register and byte that
came from Python, every injected fault, each with its instruction count. Opening it carries all that out once more. ::

    slab-sandbox record 1\\n
    SHA-256 of what follows, in hexadecimal\\n
    JSON, compressed by zlib

The checksum tells a damaged file from a changed kernel: a record runs with the kernel that it was made with.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import RecordError, SandboxError, UsageError
from ..guest.allocator import ForeignAllocator
from ..guest.journal import Entry, Journal, entry_from_data, entry_to_data
from ..guest.options import BootOptions
from ..guest.travel import Travel
from ..machine.machine import Machine
from ..toolchain.image import Image
from ..trace.shadow import Shadow

VERSION = 1
_MAGIC = b"slab-sandbox record "
_LARGEST = 1 << 30
"""Bytes of JSON that are unpacked at most: a file of some kilobytes can ask for any number."""


@dataclass(frozen=True)
class Record:
    """The inputs of a run.

    ``options``: what the kernel was booted with, and its shadow; ``failed``: the entry that
    did not come to its end, or None; ``end``: the last moment, and ``checksum`` the CRC-32 of RAM then; ``position``:
    where the timeline stood.
    """

    kernel: Image
    program: Image | None
    allocator: Image | None
    modules: Image | None
    options: dict[str, Any]
    journal: Journal
    failed: Entry | None
    end: int
    checksum: int
    position: int

    def to_bytes(self) -> bytes:
        """The file."""
        data = {
            "kernel": self.kernel.to_json(), "program": _image(self.program), "allocator": _image(self.allocator),
            "modules": _image(self.modules),
            "options": self.options, "journal": self.journal.to_data(),
            "failed": None if self.failed is None else entry_to_data(self.failed), "end": self.end,
            "checksum": self.checksum, "position": self.position,
        }
        packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)
        digest = hashlib.sha256(packed).hexdigest().encode()
        return b"%s%d\n%s\n%s" % (_MAGIC, VERSION, digest, packed)

    @classmethod
    def from_bytes(cls, path: Path, data: bytes) -> Record:
        """Read what :meth:`to_bytes` made; :class:`~sandbox.errors.RecordError`, about ``path``, for anything else."""
        head, _, rest = data.partition(b"\n")
        if not head.startswith(_MAGIC):
            raise RecordError(path, "it is no record")
        version = head.removeprefix(_MAGIC)
        if version != b"%d" % VERSION:
            raise RecordError(path, f"it is a record of version {version.decode('ascii', 'replace')[:20]}, and this "
                                    f"program reads {VERSION}")
        digest, _, packed = rest.partition(b"\n")
        if hashlib.sha256(packed).hexdigest().encode() != digest:
            raise RecordError(path, "it is damaged: its checksum is not that of its bytes")
        try:
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(packed, _LARGEST)
            if not unpacker.eof:
                raise ValueError("more than a record can be")
            return cls._from_data(json.loads(text))
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError, SandboxError) as error:
            raise RecordError(path, f"it is no record that this program can read: {error}") from None

    @classmethod
    def _from_data(cls, data: Any) -> Record:
        numbers = {name: data[name] for name in ("end", "checksum", "position")}
        if any(type(number) is not int or number < 0 for number in numbers.values()):
            raise ValueError("a count that is none")
        if not isinstance(data["options"], dict):
            raise ValueError("options that are none")
        return cls(
            kernel=Image.from_json(data["kernel"]),
            program=None if data["program"] is None else Image.from_json(data["program"]),
            allocator=None if data["allocator"] is None else Image.from_json(data["allocator"]),
            modules=None if data.get("modules") is None else Image.from_json(data["modules"]),
            options=data["options"], journal=Journal.from_data(data["journal"]),
            failed=None if data["failed"] is None else entry_from_data(data["failed"]), **numbers)


class Recorded(Protocol):
    """What a record is made of: a kernel at the end of its run."""

    machine: Machine
    image: Image
    program: Image | None
    modules: Image | None
    options: BootOptions
    shadow: Shadow | None
    foreign: ForeignAllocator | None
    travel: Travel


def record_of(kernel: Recorded, position: int) -> Record:
    """The record of a kernel that stands at the end of its run."""
    history = kernel.travel.history
    foreign = kernel.foreign
    options = {"boot": asdict(kernel.options), "console_limit": kernel.machine.serial.output_limit,
               "shadow": None if kernel.shadow is None else kernel.shadow.options._asdict(),
               "allocator": None if foreign is None else foreign.options.to_dict()}
    return Record(kernel.image, kernel.program, None if foreign is None else foreign.image, kernel.modules, options,
                  history.journal, history.failed, history.end, checksum(kernel.machine), position)


def checksum(machine: Machine) -> int:
    """The CRC-32 of all of RAM."""
    return zlib.crc32(machine.memory.array().data)


def write(path: str | Path, record: Record) -> None:
    """Write a record to a file, whole or not at all; :class:`~sandbox.errors.RecordError` where that cannot be."""
    if not isinstance(path, (str, Path)):
        raise UsageError(f"a record is written to a path, not to {path!r}")
    target = Path(path)
    try:
        part = target.with_name(target.name + ".part")
        part.write_bytes(record.to_bytes())
        part.replace(target)
    except OSError as error:
        raise RecordError(target, error.strerror or str(error)) from None
    except ValueError:
        raise RecordError(target, "no file can be called so") from None


def _image(image: Image | None) -> str | None:
    return None if image is None else image.to_json()


def read(path: str | Path) -> Record:
    """The record in a file; :class:`~sandbox.errors.RecordError` for a file that is none, or cannot be read."""
    if not isinstance(path, (str, Path)):
        raise UsageError(f"a record is read from a path, not from {path!r}")
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise RecordError(path, getattr(error, "strerror", None) or str(error)) from None
    return Record.from_bytes(Path(path), data)


def is_record(path: str | Path) -> bool:
    """Whether a file begins as a record does."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (OSError, ValueError):
        return False
