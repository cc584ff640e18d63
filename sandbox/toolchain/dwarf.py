"""The debug sections of an executable: lines, functions, variables, types and frames, as DWARF 4 has them.

One compile unit for each image of assembly, in which every label in the code is a function, up to the next label, as
everywhere here. What compilers wrote of theirs is put behind it. The frames of all code are written here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from posixpath import dirname, join

from .debug_sections import append, renamed
from .dwarf_encoding import LANGUAGE_ASSEMBLER, At, Form, Tag, text, unit
from .dwarf_entries import Entry, address, named, offset, sections
from .dwarf_frame import Ruled, debug_frame
from .dwarf_functions import Functions, size
from .dwarf_lines import FileTable, line_program
from .dwarf_types import Types
from .image import Image
from .unwind import Unwind

PRODUCER = "slab-sandbox"
_ARANGES_VERSION = 2
_LEFT_OUT = frozenset({".debug_macro", ".debug_macinfo", ".debug_frame"})
"""Of what compilers wrote: macros, which come in many sections of one name, and frames, which are written here."""


def debug_sections(images: Sequence[Image], unwind: Unwind, directory: str, paths: Mapping[str, str],
                   ) -> dict[str, bytes]:
    """The sections by name. ``directory`` is where the sources are, ``paths`` maps their names to paths in it."""
    units, lines = [], bytearray()
    types = Types()
    functions = Functions(types)
    assembled = [image for image in images if not image.debug]
    for image in assembled:
        files = FileTable(image, paths)
        units.append(_unit(image, files, directory, len(lines)))
        units[-1].children += functions.of(image, files, unwind)
        lines += line_program(image, files)
    variables = [variable for image in assembled for variable in _variables(image, types)]
    units[0].children += [*types.entries, *variables]     # behind all that may have asked for a type
    info, abbreviations, starts = sections(units)
    labels = {at for image in images for at in image.symbols.values()}
    code = [Ruled(*item) for image in images for item in unwind.rules(image)]
    found = {
        ".debug_line": lines, ".debug_info": bytearray(info), ".debug_abbrev": bytearray(abbreviations),
        ".debug_aranges": bytearray().join(_ranges(*pair) for pair in zip(assembled, starts, strict=True)),
        ".debug_frame": bytearray(debug_frame(code, labels)), ".debug_loc": functions.locations,
    }
    for image in images:
        compiled = {name: data for name, data in image.debug.items() if name not in _LEFT_OUT}
        append(found, renamed(compiled, image.debug_offsets, _renaming(image, directory, paths)), image.debug_offsets)
    return {name: bytes(data) for name, data in found.items()}


def _renaming(image: Image, directory: str, paths: Mapping[str, str]) -> Callable[[str, str], str | None]:
    """Where a debugger finds what a compiler called so: its files, their directories, and the one that it ran in, which
    is no more, and from which a line table counts."""
    places: dict[str, str] = {}
    for name in image.files:
        if name != paths[name]:
            places |= {name: join(directory, paths[name]), dirname(name): join(directory, dirname(paths[name]))}

    def rename(section: str, name: str) -> str | None:
        if name == ".":
            return "" if section == ".debug_line" else directory
        return places.get(name) if name else None

    return rename


def _unit(image: Image, files: FileTable, directory: str, lines: int) -> Entry:
    return Entry(Tag.COMPILE_UNIT, [
        (At.PRODUCER, Form.STRING, text(PRODUCER)),
        (At.LANGUAGE, Form.DATA2, LANGUAGE_ASSEMBLER.to_bytes(2, "little")),
        named(files.main), (At.COMP_DIR, Form.STRING, text(directory)),
        address(At.LOW_PC, image.base), size(image.text_end - image.base),
        offset(At.STMT_LIST, lines),
    ])


def _variables(image: Image, types: Types) -> list[Entry]:
    found = []
    starts = sorted({*image.symbols.values(), *(section.end for section in image.sections)})
    for name, at in image.symbols.items():
        section = image.section_at(at)
        if section is not None and "x" not in section.rights:
            variable = types.variable(image, name, starts[bisect_left(starts, at) + 1] - at)
            found += [variable] if variable else []
    return found


def _ranges(image: Image, start: int) -> bytes:
    """Which addresses an image's unit describes (6.1.2); entries are aligned to their own size of 16."""
    header = _ARANGES_VERSION.to_bytes(2, "little") + start.to_bytes(4, "little") + bytes([8, 0])
    padding = bytes(-(4 + len(header)) % 16)
    pair = image.base.to_bytes(8, "little") + (image.text_end - image.base).to_bytes(8, "little")
    return unit(header + padding + pair + bytes(16))
