"""A class's work on disk: a directory with one folder for each student, and the allocator's source in each.

A source is assembly or C. One in C may include and use what else is in its folder, but one file is the allocator: that
with the name that was asked for, whichever of the two suffixes it has, or else the only one there is.

Nothing in a folder is trusted: a source is a file of its own folder, links followed, and every folder that has none is
one with the reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

SUFFIXES = (".asm", ".c")
SHOWN = 4


@dataclass(frozen=True)
class Folder:
    """One student's: ``source`` is relative to the batch's directory, None with the ``error`` why there is none."""

    student: str
    source: Path | None
    error: str = ""


def folders(directory: Path, name: str) -> list[Folder]:
    """The folders in order of their names; files beside them, and hidden ones, are none of them.

    The source is the file called ``name``, or that name with the other suffix, or else the only one that ends in
    ``.asm`` or ``.c``.
    """
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries
                           if not entry.name.startswith(".") and (entry.is_symlink() or not entry.is_file()))
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}") from None
    if not names:
        raise UsageError(f"{directory}: there is no folder in it; a batch has one for each student")
    return [_folder(directory, student, name) for student in names]


def _folder(directory: Path, student: str, name: str) -> Folder:
    try:
        files = sorted(path.name for path in (directory / student).iterdir())
        found = [file for file in files if file == name or (file.lower().endswith(SUFFIXES) and file[0] != ".")]
        named = next((other for other in _names(name) if other in found), "")
        chosen = named or (found[0] if len(found) == 1 else "")
        error = _refused(directory / student, chosen) if chosen else _unclear(found, name)
    except (OSError, RuntimeError) as trouble:   # RuntimeError: a loop of links, before Python 3.13
        return Folder(student, None, f"cannot be read: {getattr(trouble, 'strerror', None) or 'a loop of links'}")
    return Folder(student, None, error) if error else Folder(student, Path(student, chosen))


def _names(name: str) -> list[str]:
    """The name, and the same with the other suffix."""
    stem, dot, suffix = name.rpartition(".")
    return [name, *(stem + other for other in SUFFIXES if dot and f".{suffix}" in SUFFIXES and other != f".{suffix}")]


def _unclear(found: list[str], name: str) -> str:
    if not found:
        return f"there is no {' or '.join(SUFFIXES)} file in it"
    kinds = [suffix for suffix in SUFFIXES if any(file.lower().endswith(suffix) for file in found)]
    shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    return f"there are {len(found)} {' and '.join(kinds)} files in it ({shown}), and none is called {name}"


def _refused(folder: Path, chosen: str) -> str:
    """Why a file is not taken: what it links to lies elsewhere, or it is no file at all."""
    path = (folder / chosen).resolve(strict=True)
    if not path.is_relative_to(folder.resolve(strict=True)):
        return f"{chosen} is a link to a file outside of the folder"
    return "" if path.is_file() else f"{chosen} is not a file"
