"""A class's work on disk: a directory with one folder for each student, and the allocator's source in each.

A source is assembly or C. One in assembly is a file alone: that with the name that was asked for, or else the only one
there is. In C, all the files that lie in the folder itself are one allocator, objects (``.o``) among them, where they
are not made of a source beside them; that with the name comes first.

Nothing in a folder is trusted: every file that is taken is one of its own folder, links followed, and every folder that
has none is one with the reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..guest.images import Files

SUFFIXES = (".asm", ".c")
LINKED = (".c", ".o")
"""What is linked together."""
SHOWN = 4


@dataclass(frozen=True)
class Folder:
    """One student's: ``source`` and the ``modules`` that are linked with it are relative to the batch's directory;
    None with the ``error`` why there is no source."""

    student: str
    source: Path | None
    error: str = ""
    modules: tuple[Path, ...] = ()

    @property
    def files(self) -> Files | None:
        """The source, or all files of several, as :func:`~sandbox.conformance.check.check` takes them."""
        return [self.source, *self.modules] if self.source is not None and self.modules else self.source


def folders(directory: Path, name: str) -> list[Folder]:
    """The folders in order of their names; files beside them, and hidden ones, are none of them.

    The source is the file called ``name``, or that name with the other suffix; or else the only one that ends in
    ``.asm``, or the first of those in C where none does. With one in C go all the others in C, and objects.
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
        found = [file for file in files if file == name or file[0] != "."]
        chosen = _chosen(found, name)
        refused = (_refused(directory / student, file) for file in chosen)
        error = next(filter(None, refused), "") if chosen else _unclear(found, name)
    except (OSError, RuntimeError) as trouble:   # RuntimeError: a loop of links, before Python 3.13
        return Folder(student, None, f"cannot be read: {getattr(trouble, 'strerror', None) or 'a loop of links'}")
    if error:
        return Folder(student, None, error)
    source, *modules = (Path(student, file) for file in chosen)
    return Folder(student, source, modules=tuple(modules))


def _chosen(files: list[str], name: str) -> list[str]:
    """The files of an allocator, that which is named first; none where it is not clear which they are."""
    stems = {file[:-2] for file in files if file.lower().endswith(".c")}
    linked = [file for file in files if file.lower().endswith(LINKED)
              and not (file.lower().endswith(".o") and file[:-2] in stems and file != name)]
    named = next((other for other in _names(name) if other in files), "")
    if named and not named.lower().endswith(LINKED):
        return [named]
    assembly = [file for file in files if file.lower().endswith(".asm")]
    if not named and assembly:
        return assembly if len(assembly) == 1 and not linked else []
    return sorted(linked, key=lambda file: (file != named, file.lower().endswith(".o"), file))


def _names(name: str) -> list[str]:
    """The name, and the same with the other suffix."""
    stem, dot, suffix = name.rpartition(".")
    return [name, *(stem + other for other in SUFFIXES if dot and f".{suffix}" in SUFFIXES and other != f".{suffix}")]


def _unclear(files: list[str], name: str) -> str:
    found = [file for file in files if file.lower().endswith(SUFFIXES)]
    if not found:
        return f"there is no {' or '.join(SUFFIXES)} file in it"
    kinds = [suffix for suffix in SUFFIXES if any(file.lower().endswith(suffix) for file in found)]
    shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    names = " or ".join(_names(name))
    return f"there are {len(found)} {' and '.join(kinds)} files in it ({shown}), and none is called {names}"


def _refused(folder: Path, chosen: str) -> str:
    """Why a file is not taken: what it links to lies elsewhere, or it is no file at all."""
    path = (folder / chosen).resolve(strict=True)
    if not path.is_relative_to(folder.resolve(strict=True)):
        return f"{chosen} is a link to a file outside of the folder"
    return "" if path.is_file() else f"{chosen} is not a file"
