"""From source lines to the statements of one unit: includes, conditions, macros and repetition.

Everything that assemblers do differently, or that could read the host's files or run without end, is done here
under limits, so that what reaches an assembler is instructions and labels alone. Statements are taken in the order
of the text over all sources; a constant and a macro are defined before they are used. The sections (``.text``,
``.rodata``, ``.data``, ``.bss``) are ours: each gathers its pieces in that same order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import AssemblyError, ProgramError
from . import lint
from .builder import Builder
from .expression import ExpressionError
from .macro import Macro, substituted
from .source import (
    MAX_SOURCE_BYTES,
    NAME,
    Source,
    SourceLine,
    split_labels,
    split_operands,
    string_bytes,
    strip_comment,
)
from .unit import Unit

MAX_LINES = 100_000
MAX_LINE_LENGTH = 10_000
MAX_DEPTH = 40
"""Limits on what is read: lines (expanded ones included), characters of one, nesting of macros and of files."""

_CONDITIONS = frozenset({".if", ".ifdef", ".ifndef", ".ifb", ".ifnb", ".else", ".elseif", ".endif"})
_BLOCKS = {".macro": ".endm", ".rept": ".endr", ".irp": ".endr"}


def expand(sources: Sequence[Source], externs: Mapping[str, int], origins: Mapping[str, str],
           prelude: Sequence[Source] = ()) -> Unit:
    """Read ``prelude`` and ``sources`` into one :class:`Unit`; :class:`AssemblyError` for the first wrong line."""
    return _Expander(externs, origins, prelude, sources[0]).run(sources)


@dataclass
class _Condition:
    line: SourceLine
    taken: bool
    active: bool
    outer: bool
    seen_else: bool = False


class _Expander:
    """The state of one :func:`expand`."""

    def __init__(self, externs: Mapping[str, int], origins: Mapping[str, str], prelude: Sequence[Source],
                 top: Source) -> None:
        self.builder = Builder(externs, origins)
        self.unit = self.builder.unit
        self.prelude = {Path(source.name).name: source for source in prelude}
        self.root = top.directory.resolve()
        self.top = Path(top.name).parent
        self.macros: dict[str, Macro] = {}
        self.conditions: list[_Condition] = []
        self.open_files: list[str] = []
        self.line_count = 0
        self.expansions = 0
        self.depth = 0

    def run(self, sources: Sequence[Source]) -> Unit:
        """Expand the prelude, then every source in order."""
        self.builder.in_prelude = True
        for source in self.prelude.values():
            self.file(source)
        for source in sources:
            self.builder.begin()
            self.file(source)
        return self.builder.finish()

    def file(self, source: Source) -> None:
        """Expand one file."""
        self.unit.files[source.name] = source.text
        self.open_files.append(source.name)
        self.lines(list(source.lines()), source.directory)
        self.open_files.pop()

    def lines(self, lines: Sequence[SourceLine], directory: Path) -> None:
        """Expand lines that belong together: conditions and definitions must end among them."""
        outer, self.conditions = self.conditions, []
        at = 0
        while at < len(lines):
            at = self._line(lines, at, directory)
        if self.conditions:
            raise self.error(self.conditions[-1].line, "this condition has no .endif")
        self.conditions = outer

    # ---- one line

    def _line(self, lines: Sequence[SourceLine], at: int, directory: Path) -> int:
        """Handle the line at ``at``, and give the index of the next one."""
        line = lines[at]
        self._count(line)
        if len(line.text) > MAX_LINE_LENGTH:
            raise self.error(line, f"a line of more than {MAX_LINE_LENGTH} characters")
        active = all(condition.active for condition in self.conditions)
        try:
            text = strip_comment(line)
            if not active:
                return self._inactive(text, line, lines, at)
            labels, statement = split_labels(text, line)
            for label in labels:
                self.builder.label(label, line)
            word, _, rest = statement.replace("\t", " ").partition(" ")
            if word.lower() in _BLOCKS:
                return self._block(word.lower(), rest.strip(), lines, at, directory)
            if statement:
                self._statement(statement, line, directory)
        except ExpressionError as error:
            raise self.error(line, str(error)) from None
        except AssemblyError as error:
            if self.builder.invocation is not None and (error.file, error.line) == (line.file, line.number):
                raise self.error(line, error.reason) from None
            raise
        return at + 1

    def _count(self, line: SourceLine) -> None:
        """One more line, or turn of a repetition."""
        self.line_count += 1
        if self.line_count > MAX_LINES:
            raise self.error(line, f"the program expands to more than {MAX_LINES} lines")

    def _inactive(self, text: str, line: SourceLine, lines: Sequence[SourceLine], at: int) -> int:
        """A line in a branch not taken: only its conditions, and the ends of definitions, count."""
        word = text.split(None, 1)[0].lower() if text else ""
        if word in _CONDITIONS:
            self._condition(word, text[len(word):].strip(), line)
        elif word in _BLOCKS:
            return self._end_of_block(word, lines, at) + 1
        return at + 1

    def _statement(self, statement: str, line: SourceLine, directory: Path) -> None:
        """A statement that is no block: a macro, a directive or an instruction."""
        word, _, rest = statement.replace("\t", " ").partition(" ")
        rest = rest.strip()
        if word in self.macros:
            self._invoke(self.macros[word], rest, line, directory)
        elif not word.startswith("."):
            self.builder.instruction(statement, word, line)
        elif word.lower() in _CONDITIONS:
            self._condition(word.lower(), rest, line)
        elif not self.builder.directive(word.lower(), split_operands(rest), line):
            self._file_directive(word.lower(), split_operands(rest), line, directory)

    def _file_directive(self, word: str, operands: list[str], line: SourceLine, directory: Path) -> None:
        if word == ".include":
            self._include(operands, line, directory)
        elif word == ".incbin":
            self._incbin(operands, line, directory)
        elif word == ".error":
            raise self.error(line, string_bytes(operands[0], line).decode("latin-1") if operands else ".error")
        elif word in (".endm", ".endr"):
            raise self.error(line, f"{word} without its beginning")
        else:
            raise self.error(line, lint.unknown_directive(word))

    # ---- files

    def _path(self, operand: str, line: SourceLine, directory: Path) -> Path:
        """The file that a quoted name means: below the program's directory, links followed."""
        name = string_bytes(operand, line).decode("latin-1")
        try:
            path = (directory / name).resolve()
            if not path.is_relative_to(self.root):
                raise self.error(line, f"{name!r} lies outside the program's directory")
            if not path.is_file():
                raise self.error(line, f"there is no file {name!r} in the program's directory")
        except (OSError, ValueError, RuntimeError):
            raise self.error(line, f"{name!r} cannot be opened") from None
        return path

    def _include(self, operands: list[str], line: SourceLine, directory: Path) -> None:
        if len(operands) != 1:
            raise self.error(line, '.include "file"')
        name = string_bytes(operands[0], line).decode("latin-1")
        if self.depth:
            raise self.error(line, ".include cannot stand in a macro or a repetition")
        if name in self.prelude:
            return
        path = self._path(operands[0], line, directory)
        try:
            shown = str(path.relative_to(self.root))
            source = Source.read(path, str(self.top / shown))
        except ProgramError as error:
            raise self.error(line, f"{name!r}: {error.reason}") from None
        if source.name in self.open_files:
            raise self.error(line, f"{name!r} includes itself")
        if len(self.open_files) > MAX_DEPTH:
            raise self.error(line, f"files are included more than {MAX_DEPTH} deep")
        self.unit.dependencies[path] = source.text.encode("utf-8")
        self.file(source)

    def _incbin(self, operands: list[str], line: SourceLine, directory: Path) -> None:
        if not 1 <= len(operands) <= 3:
            raise self.error(line, '.incbin "file"[, skip[, count]]')
        path = self._path(operands[0], line, directory)
        skip = self.builder.number(operands[1], line, "skip") if len(operands) > 1 else 0
        count = self.builder.number(operands[2], line, "count") if len(operands) > 2 else None
        with path.open("rb") as file:
            data = file.read(MAX_SOURCE_BYTES + 1)
        self.unit.dependencies[path] = data
        if len(data) > MAX_SOURCE_BYTES:
            raise self.error(line, f"{operands[0]} is larger than {MAX_SOURCE_BYTES >> 20} MiB")
        end = len(data) if count is None else skip + count
        if skip > len(data) or end > len(data):
            raise self.error(line, f"{operands[0]} has {len(data)} bytes, and {end} are asked for")
        if data[skip:end]:
            self.builder.emit(data[skip:end], line)

    # ---- conditions

    def _condition(self, word: str, rest: str, line: SourceLine) -> None:
        if word.startswith(".if"):
            outer = all(condition.active for condition in self.conditions)
            taken = outer and self._holds(word, rest, line)
            self.conditions.append(_Condition(line, taken, taken, outer))
            return
        if not self.conditions:
            raise self.error(line, f"{word} without .if")
        condition = self.conditions[-1]
        if word == ".endif":
            self.conditions.pop()
            return
        if condition.seen_else:
            raise self.error(line, f"{word} after .else")
        condition.seen_else = word == ".else"
        condition.active = condition.outer and not condition.taken and (
            word == ".else" or self._holds(".if", rest, line))
        condition.taken = condition.taken or condition.active

    def _holds(self, word: str, rest: str, line: SourceLine) -> bool:
        if word == ".if":
            return self.builder.number(rest, line, "condition", -(1 << 63), 1 << 64) != 0
        if word in (".ifb", ".ifnb"):
            return (not rest) == (word == ".ifb")
        if not re.fullmatch(NAME, rest):
            raise self.error(line, f"{word} needs one name")
        return self.builder.defined(rest) == (word == ".ifdef")

    # ---- macros and repetition

    def _end_of_block(self, word: str, lines: Sequence[SourceLine], at: int) -> int:
        """The index of the line that ends the definition or repetition begun at ``at``."""
        closing, depth = _BLOCKS[word], 0
        for index in range(at, len(lines)):
            found = strip_comment(lines[index]).split(None, 1)
            head = found[0].lower() if found else ""
            depth += (_BLOCKS.get(head) == closing) - (head == closing)
            if depth == 0:
                return index
        raise self.error(lines[at], f"{word} has no {closing}")

    def _block(self, word: str, rest: str, lines: Sequence[SourceLine], at: int, directory: Path) -> int:
        """Handle a definition or repetition, and give the index of the line behind it."""
        line, end = lines[at], self._end_of_block(word, lines, at)
        body = lines[at + 1 : end]
        if word == ".macro":
            self._define(rest, body, line)
        elif word == ".rept":
            for _ in range(self.builder.number(rest, line, "count")):
                self._expand(body, line, directory)
        else:
            name, *values = split_operands(rest) or [""]
            if not re.fullmatch(NAME, name):
                raise self.error(line, ".irp name, value, ...")
            for value in values or [""]:
                self._expand(self._substituted(body, {name: value}), line, directory)
        return end + 1

    def _define(self, rest: str, body: Sequence[SourceLine], line: SourceLine) -> None:
        macro = Macro.parse(rest, tuple(body), line)
        if macro.name in self.macros:
            raise self.error(line, f"the macro {macro.name!r} is already defined at {self.macros[macro.name].line}")
        self.macros[macro.name] = macro

    def _invoke(self, macro: Macro, rest: str, line: SourceLine, directory: Path) -> None:
        """Expand a macro; all that comes out counts as the line of its outermost invocation."""
        body = self._substituted(macro.body, macro.bind(split_operands(rest)))
        outer = self.builder.invocation
        self.builder.invocation = outer or line
        self._expand(body, line, directory)
        self.builder.invocation = outer

    def _substituted(self, body: Sequence[SourceLine], values: Mapping[str, str]) -> list[SourceLine]:
        self.expansions += 1
        return substituted(body, values, self.expansions - 1)

    def _expand(self, body: Sequence[SourceLine], line: SourceLine, directory: Path) -> None:
        """Expand the lines of a macro or repetition."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(line, f"macros and repetitions are nested more than {MAX_DEPTH} deep")
        self._count(line)
        self.lines(body, directory)
        self.depth -= 1

    def error(self, line: SourceLine, reason: str) -> AssemblyError:
        """The error for a line, told at the line that invoked the macro when it comes out of one."""
        return self.builder.error(line, reason)
