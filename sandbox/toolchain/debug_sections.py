"""Debug sections that a compiler wrote: put one behind the other, as a linker does, and given other file names.

Within such a section nothing moves: references inside of a unit count from the start of the unit. What leads from one
section to another counts from the start of the section, so each of those fields is raised by what lay there already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .image import DebugOffset

_STRINGS = frozenset({".debug_str", ".debug_line_str"})


def append(into: dict[str, bytearray], sections: Mapping[str, bytes],
           offsets: Sequence[DebugOffset]) -> list[DebugOffset]:
    """Put ``sections`` behind those in ``into``, with every field of ``offsets`` moved; the fields where they are now.

    A field that does not lie in its section is dropped: damaged debug information stays what it is.
    """
    before = {name: len(data) for name, data in into.items()}
    for name, data in sections.items():
        into.setdefault(name, bytearray()).extend(data)
    moved = []
    for section, at, width, target in offsets:
        start = before.get(section, 0)
        if at < 0 or at + width > len(sections.get(section, b"")):
            continue
        field = slice(start + at, start + at + width)
        value = int.from_bytes(into[section][field], "little") + before.get(target, 0)
        into[section][field] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        moved.append(DebugOffset(section, start + at, width, target))
    return moved


def renamed(sections: Mapping[str, bytes], offsets: Sequence[DebugOffset],
            rename: Callable[[str, str], str | None]) -> dict[str, bytes]:
    """``sections`` with other file names: ``rename(section, text)`` says what is to stand instead of a string, to which
    something in ``section`` leads, None when it is none of its names.

    The new ones are put behind the tables of strings, and what led to an old one leads there. Strings that stand among
    other things stay what they are, as do the file names in the line tables before DWARF 5.
    """
    out = {name: bytearray(data) for name, data in sections.items()}
    places: dict[tuple[str, str], int] = {}
    for section, at, width, table in offsets:
        if table not in _STRINGS or table not in sections or section not in out:
            continue
        start = int.from_bytes(out[section][at : at + width], "little")
        old = sections[table][start : max(sections[table].find(b"\0", start), start)]
        new = rename(section, old.decode("utf-8", "replace"))
        if new is not None:
            if (table, new) not in places:
                places[table, new] = len(out[table])
                out[table] += new.encode() + b"\0"
            out[section][at : at + width] = places[table, new].to_bytes(width, "little")
    return {name: bytes(data) for name, data in out.items()}
