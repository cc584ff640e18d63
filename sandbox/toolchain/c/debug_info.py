"""What a compiler wrote about its code (DWARF): source lines, prototypes, and how each call is left again.

Lines are those that gdb shows for an address: the last row of the line table there, and of several at one address the
last that begins a statement. Rows inside of a statement count too, where optimized code mixes lines: a report of a
wrong access must name the line that the instruction came from, not the one that a stepper would stop at. Where a table
ends, and where a compiler says that code comes from nowhere, the line is 0.

Damaged debug information is refused: a guest without lines is a riddle, and ``objcopy -g`` takes it off an object.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from ...address import U64
from ...errors import LinkError
from ..dwarf_encoding import REGISTERS
from ..image import FrameRow
from .damage import damage
from .declarations import declarations
from .line_table import Damaged, Row, line_tables
from .objects import ObjectFile, Placed

MAX_SOURCE_BYTES = 4 << 20
"""The largest source file of a prebuilt object whose text is taken."""
_NAMES = {number: name for name, number in REGISTERS.items()}
_EXECUTABLE = 4                                           # sh_flags
_RIP = REGISTERS["rip"]


@dataclass(frozen=True)
class DebugInfo:
    """What one object knows of itself, at its final addresses.

    ``lines`` maps addresses to (file, line), ascending; each goes up to the next one, and line 0 is none. ``files``
    maps the files' names to their texts, which are empty where they are not known. ``declarations`` are C prototypes
    by the names of functions, ``frames`` the rules of its calls, ascending and without an overlap.
    """

    lines: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    declarations: Mapping[str, str] = field(default_factory=dict)
    frames: tuple[FrameRow, ...] = ()


def debug_info(placed: Placed) -> DebugInfo:
    """Read the debug sections of ``placed``; :class:`LinkError` when they are damaged, or no DWARF 2 to 5."""
    try:
        dwarf = dwarf_of(placed.debug)
        code = _code(placed)
        sources = _Sources(placed.object)
        units = list(dwarf.iter_CUs()) if ".debug_abbrev" in placed.debug else []
        lines = dict(_lines(placed.debug, _directories(units), code, sources))
        return DebugInfo(lines, {**placed.object.sources, **sources.texts},
                         declarations(units, placed.functions), tuple(_frames(dwarf, code)))
    except damage() as error:
        what = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
        raise LinkError(placed.object.shown, [
            f"its debug information is damaged ({what}): compile it anew, or take it off with objcopy -g"]) from None


def merged_lines(infos: Iterable[DebugInfo]) -> dict[int, tuple[str, int]]:
    """The lines of several objects as one table, ascending: what begins at an address counts, not what ends there."""
    found: dict[int, tuple[str, int]] = {}
    for info in infos:
        for address, line in info.lines.items():
            if line[1] or address not in found:
                found[address] = line
    return dict(sorted(found.items()))


class _Code:
    """The ranges of an object's code."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = sorted(ranges)

    def end(self, address: int) -> int:
        """Where the section ends that ``address`` lies in, 0 when there is no code of the object."""
        at = bisect_right(self._ranges, (address, U64)) - 1
        return self._ranges[at][1] if at >= 0 and address < self._ranges[at][1] else 0


def _code(placed: Placed) -> _Code:
    from elftools.elf.elffile import ELFFile

    elf: Any = ELFFile(io.BytesIO(placed.object.data))
    sections = ((address, elf.get_section(number)) for number, address in placed.addresses.items())
    return _Code((address, address + section["sh_size"]) for address, section in sections
                 if section["sh_flags"] & _EXECUTABLE)


def dwarf_of(debug: Mapping[str, bytes]) -> Any:
    """pyelftools' view of debug sections by name."""
    from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

    def section(name: str) -> DebugSectionDescriptor | None:
        data = debug.get(name)
        return None if data is None else DebugSectionDescriptor(io.BytesIO(data), name, 0, len(data), 0)

    plain = ("info", "aranges", "abbrev", "frame", "str", "loc", "ranges", "line", "addr", "str_offsets", "line_str",
             "loclists", "rnglists", "types")
    sections: dict[str, Any] = {f"debug_{name}_sec": section(f".debug_{name}") for name in plain}
    return DWARFInfo(config=DwarfConfig(True, "x64", 8), **sections, eh_frame_sec=section(".eh_frame"),
                     debug_pubtypes_sec=None, debug_pubnames_sec=None, debug_sup_sec=None, gnu_debugaltlink_sec=None)


# -- lines ------------------------------------------------------------------------------------------------------
def _directories(units: Iterable[Any]) -> dict[int, str]:
    """The directory that the compiler ran in, by the offset of a unit's line table."""
    found = {}
    for unit in units:
        top = unit.get_top_DIE().attributes
        if "DW_AT_stmt_list" in top and "DW_AT_comp_dir" in top:
            found[top["DW_AT_stmt_list"].value] = top["DW_AT_comp_dir"].value.decode("utf-8", "replace")
    return found


def _lines(debug: Mapping[str, bytes], directories: Mapping[int, str], code: _Code,
           sources: _Sources) -> Iterator[tuple[int, tuple[str, int]]]:
    """Each address at which a line begins or ends, in order."""
    begun: dict[int, tuple[str, int]] = {}
    ended: dict[int, tuple[str, int]] = {}
    for table in line_tables(debug):
        directory = directories.get(table.offset, table.directory)
        for sequence in _sequences(table.rows):
            limit = code.end(sequence[0].address)
            before: Row | None = None
            for row in _last_rows(sequence):
                if row.address >= limit:
                    break
                if before is None or (row.file, row.line) != (before.file, before.line):
                    begun[row.address] = sources.shown(row.file, directory), row.line
                before = row
            if before is not None:
                ended[min(sequence[-1].address, limit)] = sources.shown(before.file, directory), 0
    yield from sorted({**ended, **begun}.items())


def _sequences(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Pieces of code without a gap, each with the row behind its end."""
    sequence: list[Row] = []
    for row in rows:
        sequence.append(row)
        if row.end:
            yield sequence
            sequence = []


def _last_rows(sequence: list[Row]) -> Iterator[Row]:
    """One row for each address: the last that begins a statement, else the last."""
    chosen: Row | None = None
    for row in sequence:
        if chosen is not None and row.address != chosen.address:
            yield chosen
            chosen = None
        if chosen is None or row.statement or not chosen.statement:
            chosen = row
        if row.end:
            return


class _Sources:
    """The names that messages give to an object's source files, and their texts.

    A name in the debug information is what was given to the compiler, or a path from the directory that it ran in. A
    file at the object's side is named as the object is (``examples/my.c``), any other one by its path. Of files
    elsewhere on this computer, nothing is read.
    """

    def __init__(self, file: ObjectFile) -> None:
        self._file = file
        self._home = file.directory.resolve()
        self._beside = PurePosixPath(file.shown.replace("\\", "/")).parent
        self._shown: dict[tuple[str, str], str] = {}
        self.texts: dict[str, str] = {}

    def shown(self, name: str, directory: str) -> str:
        """The name of a file of a table of lines whose compiler ran in ``directory``."""
        key = name, directory
        if key not in self._shown:
            shown, text = self._found(normpath(name.replace("\\", "/")), directory.replace("\\", "/"))
            self._shown[key] = shown
            self.texts.setdefault(shown, text)
        return self._shown[key]

    def _found(self, name: str, directory: str) -> tuple[str, str]:
        if name in self._file.sources:
            return name, self._file.sources[name]
        path = Path(directory, name)
        inner = self._inner(path if path.is_absolute() else self._home / _relative(path, self._beside))
        if inner is None:
            return normpath(str(path)), ""
        shown = str(self._beside / inner)
        return shown, self._file.sources.get(shown) or _text(self._home / inner)

    def _inner(self, path: Path) -> PurePosixPath | None:
        """The way from the object's directory to a file below it, None for any other."""
        try:
            return PurePosixPath(path.resolve().relative_to(self._home).as_posix())
        except (OSError, ValueError, RuntimeError):
            return None


def _relative(path: Path, directory: PurePosixPath) -> Path:
    """``path`` as it is called from ``directory``, when it is called from where that is."""
    try:
        return path.relative_to(directory)
    except ValueError:
        return path


def _text(path: Path) -> str:
    """A source file as it is now; empty when it is gone, or none."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_SOURCE_BYTES:
            return ""
        return path.read_text("utf-8", "replace")
    except (OSError, ValueError):
        return ""


# -- frames -----------------------------------------------------------------------------------------------------
def _frames(dwarf: Any, code: _Code) -> Iterator[FrameRow]:
    """The rows of ``.debug_frame``, and of ``.eh_frame`` what the other one does not have."""
    entries = [*(dwarf.CFI_entries() if dwarf.has_CFI() else ()),
               *(dwarf.EH_CFI_entries() if dwarf.has_EH_CFI() else ())]
    rows: dict[int, FrameRow] = {}
    for entry in entries:
        if getattr(entry, "cie", None) is not None and b"S" not in entry.cie.header.get("augmentation", b""):
            for row in _rows(entry, code):
                rows.setdefault(row.start, row)
    end = 0
    for start in sorted(rows):
        if start >= end:
            end = rows[start].end
            yield rows[start]


def _rows(entry: Any, code: _Code) -> Iterator[FrameRow]:
    """What an entry (FDE) says of each piece of its code, as far as a row can say it."""
    first = entry["initial_location"] & U64
    limit = min(first + entry["address_range"], code.end(first))
    table = entry.get_decoded().table
    starts = [*((row["pc"] & U64) for row in table), limit]
    for row, start, end in zip(table, starts, starts[1:], strict=False):
        known = _saved(row)
        cfa = row["cfa"]
        if known is not None and cfa.reg in _NAMES and start < min(end, limit):
            yield FrameRow(start, min(end, limit), _NAMES[cfa.reg], cfa.offset, known)


def _saved(row: Mapping[Any, Any]) -> dict[str, int] | None:
    """Where the caller's registers lie; None when one of them is to be computed, or the return address is gone."""
    saved = {}
    for number, name in _NAMES.items():
        rule = row.get(number)
        if rule is None or rule.type == "SAME_VALUE":
            continue
        if rule.type != "OFFSET":
            return None
        saved[name] = rule.arg
    return saved if "rip" in saved else None
