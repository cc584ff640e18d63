"""The images that a guest is booted with: the kernel's, and those made of what somebody gives.

A program, its modules and an allocator may be assembly or C. What is C for one slot is linked into one image; assembly
is a unit of its own. So a C program and its C modules are one image, and with a program in assembly its C modules are
another one, which the program may use (and the other way round).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import ProgramError, UsageError
from ..toolchain import packaged
from ..toolchain.c.files import ALLOCATOR, MODULES, OTHERS, PROGRAM, CFile, Slot, is_c
from ..toolchain.c.options import DEFAULT, COptions
from ..toolchain.image import Image
from ..toolchain.source import Source
from .allocator import AllocatorOptions, ForeignAllocator, fitting_options, require_functions

Given: TypeAlias = "str | Path"
Files: TypeAlias = "str | Path | Sequence[str | Path]"


@dataclass(frozen=True)
class Images:
    """What lies in guest memory at boot; ``modules`` is there only where they are not linked with the program."""

    kernel: Image
    program: Image | None = None
    modules: Image | None = None
    allocator: ForeignAllocator | None = None

    @property
    def linked(self) -> tuple[Image, ...]:
        """All of them, the kernel's first; of several that define a name, the last one counts."""
        foreign = None if self.allocator is None else self.allocator.image
        return tuple(image for image in (self.kernel, self.modules, foreign, self.program) if image is not None)


def make_images(kernel: Image, program: Given | None = None, modules: Files = (), allocator: Files | None = None,
                options: AllocatorOptions | None = None, choice: COptions = DEFAULT) -> Images:
    """Assemble, compile and link everything, the allocator first: the others may use it."""
    foreign = None if allocator is None else assemble_allocator(allocator, kernel, options, choice)
    malloc = None if foreign is None else _malloc(foreign)
    around = Images(kernel, allocator=foreign)
    assembled, compiled = _sorted(_listed(modules, "module"))
    main = None if program is None else located(program)
    if isinstance(main, Source):
        if assembled and compiled:
            raise UsageError("beside a program in assembly, its modules are all assembly, or all C")
        if compiled:
            around = replace(around, modules=_linked(compiled, MODULES, choice, around.linked, allocator=malloc))
        elif assembled:
            around = replace(around, modules=packaged.modules_image(assembled, *around.linked))
        made = packaged.program_image(main, *around.linked)
        _require_main(made, main.name)
        return replace(around, program=made)
    if assembled:
        around = replace(around, modules=packaged.modules_image(assembled, *around.linked))
    files = [*([] if main is None else [main]), *compiled]
    if not files:
        return around
    made = _linked(files, PROGRAM, choice, around.linked, allocator=malloc)
    if main is not None:
        _require_main(made, main.shown)
    return replace(around, program=made)


def assemble_program(program: Given, kernel: Image) -> Image:
    """The image of a program alone, given as :func:`sandbox.boot` takes it; ``ProgramError`` without a ``main``."""
    made = make_images(kernel, program).program
    assert made is not None
    return made


def assemble_allocator(allocator: Files, kernel: Image, options: AllocatorOptions | None,
                       choice: COptions = DEFAULT) -> ForeignAllocator:
    """An allocator, given as :func:`sandbox.boot` takes it; ``ProgramError`` names the functions that it has not.

    Without ``options`` it has those that its functions are called by.
    """
    files = _listed(allocator, "allocator")
    if not files:
        raise UsageError("an allocator is at least one file")
    assembled, compiled = _sorted(files)
    wanted = options or AllocatorOptions()
    if len(assembled) > 1 or (assembled and compiled):
        raise UsageError("an allocator is one source in assembly, or C sources and objects")
    if assembled:
        image, shown = packaged.allocator_image(assembled[0], kernel), assembled[0].name
    else:
        image = _linked(compiled, ALLOCATOR, choice, [kernel], heap_limit=wanted.arena)
        shown = compiled[0].shown
    wanted = fitting_options(image, wanted)
    require_functions(image, wanted, shown)
    return ForeignAllocator(image, wanted)


def located(given: Given, what: str = "program") -> Source | CFile:
    """A program or an allocator, from wherever it is: a path, the number or name of an example, or source text."""
    if not isinstance(given, (str, Path)):
        article = "an" if what[0] == "a" else "a"
        raise UsageError(f"{article} {what} is a path, an example's number or source text, not {given!r}")
    if isinstance(given, str) and "\n" in given:
        return Source(f"{what}.asm", given, Path.cwd())
    try:
        exists = Path(given).exists()
    except (OSError, ValueError):                # a name that no file can have
        exists = False
    path, shown = Path(given), str(given)
    if not exists and isinstance(given, str) and "/" not in given:
        path = packaged.example(given)
        shown = f"{path.parent.name}/{path.name}"
    if path.suffix in OTHERS:
        raise ProgramError(shown, f"{OTHERS[path.suffix]}: the guest takes assembly (.asm), C (.c) and objects (.o)")
    return CFile(path, shown) if is_c(path) else Source.read(path, shown)


def _linked(files: Sequence[CFile], slot: Slot, choice: COptions, others: Sequence[Image], **more: Any) -> Image:
    """See :func:`sandbox.toolchain.c.build.build`; who has no C needs none of it."""
    from ..toolchain.c.build import build

    return build(files, slot, choice, others, **more)


def _listed(files: Files, what: str) -> list[Source | CFile]:
    several = [files] if isinstance(files, (str, Path)) else files
    if not isinstance(several, Sequence):
        raise UsageError(f"{what}s are paths, not {files!r}")
    return [located(each, what) for each in several]


def _sorted(files: Sequence[Source | CFile]) -> tuple[list[Source], list[CFile]]:
    """Assembly, and C."""
    return ([file for file in files if isinstance(file, Source)],
            [file for file in files if isinstance(file, CFile)])


def _require_main(image: Image, shown: str) -> None:
    if "main" not in image.exports:
        raise ProgramError(shown, "it does not define main")


def _malloc(foreign: ForeignAllocator) -> Mapping[str, int]:
    """The functions that the C library's malloc stands on, when there is an allocator under test."""
    return {f"__allocator_{role}": foreign.image.symbols[name]
            for role, name in foreign.options.names.items() if role not in ("init", "stats")}
