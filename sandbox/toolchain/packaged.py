"""What travels with the package: the kernel's sources, the examples, and both of them assembled, but for those in C.

In a checkout the sources lie beside ``sandbox/``, in an installed wheel in ``sandbox/_data``. ``sandbox/prebuilt``
holds their images, so that booting needs no assembler; an image counts only while its sources are unchanged, and

    python -m sandbox.toolchain.packaged

makes them anew. A test keeps them current.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from ..abi import ALLOCATOR_BASE, KERNEL_BASE, MODULES_BASE, PROGRAM_BASE
from ..errors import EngineError, ProgramError
from .assembler import assemble, build
from .cache import Entry, prebuilt_store
from .image import Image
from .source import Source


def kernel_directory() -> Path:
    """Where the kernel's sources are."""
    return _data("kernel_asm")


def examples_directory() -> Path:
    """Where the examples are."""
    return _data("examples")


def benchmarks_directory() -> Path:
    """Where the programs that ``sandbox bench`` measures are."""
    return Path(__file__).resolve().parent.parent / "bench_asm"


def _data(name: str) -> Path:
    package = Path(__file__).resolve().parent.parent
    for candidate in (package.parent / name, package / "_data" / name):
        if candidate.is_dir() and (candidate.parent == package / "_data"
                                   or (package.parent / "pyproject.toml").is_file()):
            return candidate
    raise EngineError(f"this installation lacks its {name} directory: install it again")


def kernel_sources() -> list[Source]:
    """The kernel's files in link order, as ``kernel_asm/SOURCES`` lists them."""
    directory = kernel_directory()
    listed = Source.read(directory / "SOURCES").text.splitlines()
    names = [line.split("#", 1)[0].strip() for line in listed]
    return [Source.read(directory / name, f"kernel_asm/{name}") for name in names if name]


def prelude() -> list[Source]:
    """The kernel's files of constants and macros, which programs share."""
    return [source for source in kernel_sources() if source.name.endswith(".inc")]


def kernel_image() -> Image:
    """The kernel: the packaged image while its sources are unchanged, else assembled."""
    return assemble(kernel_sources(), int(KERNEL_BASE))


def program_image(source: Source, kernel: Image, *others: Image) -> Image:
    """A program, assembled against ``kernel`` and what else it may use in a child process; its text is not trusted."""
    return _image([source], int(PROGRAM_BASE), kernel, *others)


def modules_image(sources: Sequence[Source], kernel: Image, *others: Image) -> Image:
    """Modules in assembly beside a program in C."""
    return _image(sources, int(MODULES_BASE), kernel, *others)


def allocator_image(source: Source, kernel: Image) -> Image:
    """An allocator of somebody else, assembled as a program is; the two have their own ``.L`` labels and constants."""
    return _image([source], int(ALLOCATOR_BASE), kernel)


def _image(sources: Sequence[Source], base: int, kernel: Image, *others: Image) -> Image:
    symbols, origins = dict(kernel.symbols), dict(kernel.origins)
    for other in others:
        symbols |= {name: address for name, address in other.exports.items() if name != "main"}
        origins |= other.origins
    return assemble(sources, base, symbols, prelude=prelude(), origins=origins, isolated=True)


def examples() -> list[Path]:
    """The example programs for the guest, in the order of the course. Those in C have no image here: each is compiled
    when it is booted, by a compiler that may make other bytes of it than the next one."""
    return sorted(path for path in examples_directory().glob("[0-9][0-9]_*") if path.suffix in (".asm", ".c"))


def assembled_examples() -> list[Path]:
    """Those that need no compiler."""
    return [path for path in examples() if path.suffix == ".asm"]


def example(name: str) -> Path:
    """The example called ``name``: its number (``1``, ``01``), its name with or without the number, or its file. One
    that a script of the course tells about has no number: ``orders.c``.

    :class:`ProgramError` when there is none, with the nearest one.
    """
    wanted = name.removesuffix(".asm").removesuffix(".c")
    found = {path.stem: path for path in examples()}
    for stem, path in found.items():
        number, _, title = stem.partition("_")
        if wanted in (stem, title) or (wanted.isdecimal() and wanted.isascii() and int(wanted) == int(number)):
            return path
    told = next((path for path in examples_directory().glob("[a-z]*.c") if wanted == path.stem), None)
    if told is not None:
        return told
    titles = [stem.partition("_")[2] for stem in found]
    close = difflib.get_close_matches(wanted, [*found, *titles], 1)
    raise ProgramError(name, "no such file or example" + (f"; did you mean {close[0]}?" if close else ""))


def stale() -> list[str]:
    """The names of the packaged images that are missing, or no longer what their sources say."""
    store = prebuilt_store()
    return [name for name, fresh in _built().items()
            if (entry := store.load(name)) is None or entry.to_json() != fresh.to_json()]


def rebuild() -> list[str]:
    """Assemble everything that is packaged anew, and give the names of what was written."""
    store = prebuilt_store()
    index: dict[str, str] = {}
    for name, entry in _built().items():
        store.save(name, entry)
        index[entry.image.source_hash] = name
    for path in store.directory.glob("*.json"):
        if path.stem not in index.values():
            path.unlink()
    (store.directory / "index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")
    return list(index.values())


def _built() -> dict[str, Entry]:
    """All that is packaged, assembled now: ``kernel``, and by their stems the examples and the benchmark's programs."""
    kernel = build(kernel_sources(), int(KERNEL_BASE), {}, (), {})
    entries = {"kernel": kernel}
    for path in (*assembled_examples(), *sorted(benchmarks_directory().glob("*.asm"))):
        source = Source.read(path, f"{path.parent.name}/{path.name}")
        entries[path.stem] = build([source], int(PROGRAM_BASE), kernel.image.symbols, prelude(), kernel.image.origins)
    return entries


if __name__ == "__main__":
    rebuild()
