"""The debug sections of an executable: lines, functions, variables, types and frames, as DWARF 4 has them.

One compile unit for each image. Every label in the code is a function, up to the next label, as everywhere here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

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


def debug_sections(images: Sequence[Image], unwind: Unwind, directory: str, paths: Mapping[str, str],
                   ) -> dict[str, bytes]:
    """The sections by name. ``directory`` is where the sources are, ``paths`` maps their names to paths in it."""
    units, lines, code = [], bytearray(), []
    types = Types()
    functions = Functions(types)
    for image in images:
        files = FileTable(image, paths)
        units.append(_unit(image, files, directory, len(lines)))
        units[-1].children += functions.of(image, files, unwind)
        lines += line_program(image, files)
        code += [Ruled(*item) for item in unwind.rules(image)]
    variables = [variable for image in images for variable in _variables(image, types)]
    units[0].children += [*types.entries, *variables]     # behind all that may have asked for a type
    info, abbreviations, starts = sections(units)
    labels = {at for image in images for at in image.symbols.values()}
    return {
        ".debug_line": bytes(lines), ".debug_info": info, ".debug_abbrev": abbreviations,
        ".debug_aranges": b"".join(_ranges(image, start) for image, start in zip(images, starts, strict=True)),
        ".debug_frame": debug_frame(code, labels), ".debug_loc": bytes(functions.locations),
    }


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
