"""The front door to C: sources and objects to an :class:`~sandbox.toolchain.image.Image` for one slot of the guest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ...abi import HEAP_SLOT
from ...errors import CompileWarning
from ..image import Image
from .compiler import compile_c
from .definitions import Outside
from .files import CFile, Slot
from .library import REPLACES, TOGETHER, file_of, names
from .link import link
from .objects import ObjectFile
from .options import COptions

STANDARD = frozenset((
    "memset", "memcpy", "memmove", "memcmp", "strlen", "strnlen", "strcmp", "strncmp", "strcpy", "snprintf",
    "vsnprintf"))
"""What the kernel and the C library both define: a module may have its own."""


def build(files: Sequence[CFile], slot: Slot, options: COptions, others: Sequence[Image], *, heap_limit: int = 0,
          allocator: Mapping[str, int] | None = None) -> Image:
    """Compile what is to be compiled, and link it all at ``slot``.

    ``others`` are the images that it may use, the kernel's first; of several that define a name the last one counts.
    ``heap_limit`` bounds what sbrk and mmap map, in bytes; 0: nothing but the RAM does. ``allocator`` are addresses of
    functions (``__allocator_allocate``, ...) on which the C library's malloc is to stand, instead of kmalloc.

    Raises what compiling and linking raise: :class:`~sandbox.errors.CompilerMissing`,
    :class:`~sandbox.errors.CompileError`, :class:`~sandbox.errors.LinkError`.
    """
    objects = [_object(file, options, _root(file, files)) for file in files]
    symbols = {name: at for name, at in others[0].exports.items() if name not in REPLACES} if others else {}
    symbols |= {name: at for image in others[1:] for name, at in image.exports.items() if name != "main"}
    symbols |= {"__heap_limit": heap_limit, "__sbrk_base": slot.heap, "__mmap_base": slot.heap + HEAP_SLOT // 2}
    outside = Outside(
        symbols={**symbols, **(allocator or {})}, standard=STANDARD,
        origins={name: place for image in others for name, place in image.origins.items()},
        names=frozenset(name for image in others for name in image.symbols),
        library=partial(_member, options.cc, allocator is not None), library_names=names(allocator is not None),
        together=TOGETHER)
    return link(objects, slot.base, outside)


def _root(file: CFile, files: Sequence[CFile]) -> Path:
    """The highest directory that one of ``files``, given together, lies in, and this one below it."""
    directories = [each.path.parent.resolve() for each in files]
    own = file.path.parent.resolve()
    return min((each for each in directories if own.is_relative_to(each)), key=lambda each: len(each.parts))


def _object(file: CFile, options: COptions, root: Path) -> ObjectFile:
    """An object as it is, or of a source that is compiled now."""
    if file.path.suffix != ".c":
        return ObjectFile.read(file.path, file.shown)
    made = compile_c(file.path, file.shown, options, root)
    if made.warnings:
        warnings.warn(CompileWarning(made.warnings), stacklevel=2)
    return made


def _member(cc: str | None, on_allocator: bool, name: str) -> ObjectFile | None:
    """The object of the C library that defines a name."""
    path = file_of(name, on_allocator)
    return None if path is None else compile_c(path, f"libc/{path.name}", COptions(cc))

