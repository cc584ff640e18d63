"""The file for stock gdb: an ELF executable with symbols, lines, types and frames, and its sources beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import ExportError
from .dwarf import debug_sections
from .elf import elf_file
from .image import Image
from .unwind import Unwind


def write_symbols(path: Path, images: Sequence[Image], unwind: Unwind | None = None) -> Path:
    """Write the ELF file of ``images``, the kernel's first, and their sources into the directory ``path`` + ``.src``.

    The sources are those that were assembled, whatever has become of the files since. Returns that directory;
    :class:`ExportError` when something cannot be written.
    """
    directory = path.absolute().with_name(path.name + ".src")
    texts = {name: text for image in images for name, text in image.files.items()}
    paths = source_paths(list(texts))
    sections = debug_sections(images, unwind or Unwind(*images), str(directory), paths)
    try:
        path.write_bytes(elf_file(images, sections))
        for name, text in texts.items():
            file = directory / paths[name]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8", newline="")
    except OSError as error:
        raise ExportError(f"{error.filename or path}: {error.strerror}") from None
    return directory


def source_paths(names: Sequence[str]) -> dict[str, str]:
    """A relative path for each of the names of source files, none of them like another or outside the directory."""
    paths: dict[str, str] = {}
    for name in names:
        inner = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        path = PurePosixPath(*inner)
        while str(path) in paths.values():
            path = PurePosixPath("other", path)
        paths[name] = str(path)
    return paths
