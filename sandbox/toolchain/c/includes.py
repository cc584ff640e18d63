"""Which files go into a module, and whether they may: below the module's directory, or our own headers.

The sources are read here first, without a preprocessor, for what could hang a compiler; which files it then really
opens, it tells itself (``-H``, and the line markers of ``-E``). Nothing that a compiler says about a file is shown
before that file is known to be one of the module's.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import CompileError
from ..source import MAX_SOURCE_BYTES
from .flags import INCLUDE

MODULE, LIBRARY = "~module", "libc"
"""What the module's directory and our headers are called where the compiler runs: links, so that no path of the host
is ever seen by it."""

_PIECES = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_SPLICE = re.compile(r"\\[ \t]*\r?\n")
_DIRECTIVE = re.compile(r"\s*(?:#|%:)\s*(include|include_next|import|embed)\b\s*(?:\"([^\"]+)\"|<([^>]+)>)?")
_ASKED = re.compile(r"__has_(?:include|include_next|embed)\s*\(\s*[\"<]([^\">]+)[\">]")
_OPENED = re.compile(r"^(?:\.+|!) (.+)$", re.MULTILINE)
_MARKER = re.compile(r'^# \d+ "((?:[^"\\\n]|\\.)*)"( 1\b)?', re.MULTILINE)
_LINE = "\x01"


@dataclass(frozen=True)
class Directive:
    """An ``#include`` as it is written; ``name`` is None where a macro gives it."""

    kind: str
    name: str | None
    quoted: bool
    line: int


@dataclass(frozen=True)
class Module:
    """A source with its surroundings: the directory that its files lie below, links resolved, the way to it from
    there, and the name that a user gave to the file."""

    directory: Path
    file: str
    shown: str

    @property
    def beside(self) -> Path:
        """The directory that the source itself lies in."""
        return (self.directory / self.file).parent

    @property
    def prefix(self) -> str:
        """What stands before the names of the module's files for a user: ``examples/`` or nothing."""
        return self.shown[: len(self.shown) - len(self.file)]

    @property
    def main(self) -> str:
        """The source as the compiler knows it."""
        return f"{MODULE}/{self.file}"

    def path(self, name: str) -> Path:
        """The file that the compiler calls ``name``."""
        first, _, rest = name.partition("/")
        return {MODULE: self.directory, LIBRARY: INCLUDE}.get(first, Path("/", first)) / rest

    def show(self, text: str) -> str:
        """A compiler's text with the names that the user knows."""
        return text.replace(f"./{MODULE}/", self.prefix).replace(f"{MODULE}/", self.prefix)

    def holds(self, path: Path) -> bool:
        """Whether a file may go in, links resolved."""
        real = Path(os.path.realpath(path))
        return any(root in real.parents for root in (self.directory, Path(os.path.realpath(INCLUDE))))


@dataclass(frozen=True)
class Survey:
    """What the sources say by themselves: the place that names a file, by its real path, and every name they use."""

    places: dict[Path, tuple[str, int, str]]
    names: frozenset[str]


def kind_of(path: Path) -> str:
    """``file``, ``directory``, ``other`` (a pipe, a device), or nothing when nothing is there that can be looked at."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    return "file" if stat.S_ISREG(mode) else "directory" if stat.S_ISDIR(mode) else "other"


def read(path: Path) -> bytes | None:
    """The bytes of a regular file; None when there is none, or it is larger than a source may be."""
    try:
        if kind_of(path) != "file":
            return None
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= MAX_SOURCE_BYTES else None


def _directory(name: str) -> str:
    return name.rpartition("/")[0]


def directives(text: str) -> Iterator[Directive]:
    """Every ``#include`` and its kin, in order, whatever ``#if`` they are under."""
    def keep_strings(match: re.Match[str]) -> str:
        piece = match.group()
        return piece if piece[0] in "\"'" else " " + _LINE * (piece.count("\n") + piece.count(_LINE))

    number = 1
    for line in _PIECES.sub(keep_strings, _SPLICE.sub(_LINE, text)).split("\n"):
        if found := _DIRECTIVE.match(line.replace(_LINE, "")):
            before = re.split(r"#|%:", line, maxsplit=1)[0].count(_LINE)
            yield Directive(found[1], found[2] or found[3], found[2] is not None, number + before)
        number += 1 + line.count(_LINE)


def survey(module: Module, searched: Sequence[str]) -> Survey:
    """Follow the includes from the module's source; ``searched`` are the directories of -I, as the compiler knows them.

    :class:`CompileError` for a file that no compiler should be given: a pipe, a device, one that is too large.
    """
    places: dict[Path, tuple[str, int, str]] = {}
    names: set[str] = set()
    seen, waiting = {module.main}, [module.main]
    while waiting:
        current = waiting.pop(0)
        data = read(module.path(current))
        text = "" if data is None else data.decode("utf-8", "replace")
        names.update(_ASKED.findall(text))
        for directive in directives(text):
            where = module.show(current)
            if directive.kind == "embed":
                raise CompileError(where, directive.line, f"{where}:{directive.line}: #embed is not for guest modules")
            if directive.name is None:
                continue
            names.add(directive.name)
            own = [_directory(current)] if directive.quoted else []
            for root in (*own, *searched, LIBRARY):
                found = f"{root}/{directive.name}" if not directive.name.startswith("/") else directive.name
                path = module.path(found)
                kind = kind_of(path)
                if kind in ("", "directory"):
                    continue
                places.setdefault(Path(os.path.realpath(path)), (where, directive.line, directive.name))
                if kind == "other" or (module.holds(path) and read(path) is None):
                    reason = "no regular file" if kind == "other" else f"larger than {MAX_SOURCE_BYTES >> 20} MiB"
                    raise CompileError(where, directive.line,
                                       f"{where}:{directive.line}: {directive.name} cannot be included: it is {reason}")
                if module.holds(path) and found not in seen:
                    seen.add(found)
                    waiting.append(found)
                if directive.kind != "include_next":
                    break
    return Survey(places, frozenset(names))


def opened(module: Module, text: str, messages: str, surveyed: Survey) -> tuple[str, ...]:
    """The files that a preprocessor has opened, as it calls them, the module's source first.

    ``text`` is what it wrote, ``messages`` what it said under ``-H``. :class:`CompileError` when one of them, or one
    that ``#line`` names, lies outside.
    """
    names = {module.main: True}
    for name in _OPENED.findall(messages):
        names.setdefault(name.removeprefix("./"), True)
    for quoted, entered in _MARKER.findall(text):
        name = re.sub(r"\\(.)", r"\1", quoted).removeprefix("./")
        names[name] = names.get(name, False) or bool(entered)
    result = []
    for name, included in names.items():
        if name.startswith("<") or name.endswith("/"):      # <built-in>, the working directory
            continue
        ours = name.startswith((f"{MODULE}/", f"{LIBRARY}/"))
        if not (ours or included or name.startswith("/") or os.path.normpath(name).startswith("..")):
            continue                                        # what #line calls a file that a program was made from
        path = module.path(name)
        if ours and not included and kind_of(path) != "file":
            continue
        if not ours or not module.holds(path):
            file, line, spelled = surveyed.places.get(Path(os.path.realpath(path)), (module.shown, 0, name))
            place = f"{file}:{line}" if line else file
            raise CompileError(file, line, f"{place}: {module.show(spelled)} lies outside of the module's directory, "
                                           f"{module.prefix or './'}, and is not read")
        if path.suffix in (".gch", ".pch"):
            raise CompileError(module.shown, 0, f"{module.show(name)}: a precompiled header is not read: remove it")
        if included:
            if read(path) is None:
                raise CompileError(module.shown, 0, f"{module.show(name)} cannot be included: it is no regular file, "
                                                    f"or larger than {MAX_SOURCE_BYTES >> 20} MiB")
            result.append(name)
    return tuple(result)


def absent(module: Module, files: Sequence[str], names: frozenset[str], searched: Sequence[str]) -> tuple[str, ...]:
    """The files that are not there, and that would be taken for one of ``files`` if they were."""
    roots = dict.fromkeys((*(_directory(name) for name in files), *searched, LIBRARY))
    spelled = set(names)
    for name in files:
        spelled.update(name[len(root) + 1:] for root in roots if name.startswith(f"{root}/"))
    candidates = (f"{root}/{name}" for root in roots for name in spelled if not name.startswith("/"))
    return tuple(sorted(name for name in candidates if not kind_of(module.path(name))))
