"""Image: what assembling or linking yields, and all that anything later needs to know about it.

Bytes at an address, in three sections that page tables can protect::

    base      text     r-x   code; ends in a page of int3, so that no instruction straddles its end
              rodata   r--
              data     rw-   .data, then .bss

with the symbols, the constants, the source line of every address, and the sources themselves.
"""

from __future__ import annotations

import base64
import json
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ..errors import SandboxError
from .source import SourceLine

VERSION = 1
"""Of the JSON form; another one is not read."""


@dataclass(frozen=True)
class Section:
    """Page-aligned bytes with one set of rights: ``r-x``, ``r--`` or ``rw-``."""

    name: str
    address: int
    data: bytes
    rights: str

    @property
    def end(self) -> int:
        """The address just past the last byte."""
        return self.address + len(self.data)


class FrameRow(NamedTuple):
    """Call frame information of the code from ``start`` up to ``end``: CFA = ``cfa_register`` + ``cfa_offset``, and
    what the caller has in the registers of ``saved``, RIP among them, lies at an offset from the CFA."""

    start: int
    end: int
    cfa_register: str
    cfa_offset: int
    saved: Mapping[str, int]


class DebugOffset(NamedTuple):
    """A field of a debug section that is an offset into another one: to be moved when those are appended to others."""

    section: str
    at: int
    width: int
    target: str


@dataclass(frozen=True)
class Image:
    """A unit, linked at ``base``.

    ``symbols`` maps labels to addresses, lowest address first, without ``.L`` labels; ``constants`` maps the names
    of ``.set``; ``lines`` maps the address of each statement to (file, line), lowest first, line 0 where code of none
    begins; ``files`` maps a file's name to its text; ``source_hash`` is of everything that went in; ``origins`` maps
    symbols and constants to their ``file:line``; the code ends at ``text_end``, and ``data_in_text`` are the ranges
    before it that are not code.

    A compiled image has more: ``local`` are the symbols that other images do not see, ``declarations`` the C
    prototypes of its functions by name, ``frames`` the compilers' call frame information, ``debug`` their debug
    sections with every address final, and ``debug_offsets`` the fields in those that lead from one to another.
    """

    base: int
    sections: tuple[Section, ...]
    symbols: Mapping[str, int]
    constants: Mapping[str, int] = field(default_factory=dict)
    lines: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    source_hash: str = ""
    text_end: int = 0
    data_in_text: tuple[tuple[int, int], ...] = ()
    local: frozenset[str] = frozenset()
    declarations: Mapping[str, str] = field(default_factory=dict)
    frames: tuple[FrameRow, ...] = ()
    debug: Mapping[str, bytes] = field(default_factory=dict)
    debug_offsets: tuple[DebugOffset, ...] = ()

    @property
    def compiled(self) -> bool:
        """Whether a compiler made it, and no assembler of ours."""
        return bool(self.local or self.declarations or self.debug or self.frames)

    @property
    def exports(self) -> Mapping[str, int]:
        """The symbols that other images may use."""
        return {name: address for name, address in self.symbols.items() if name not in self.local}

    @property
    def end(self) -> int:
        """The address just past the last section."""
        return max((section.end for section in self.sections), default=self.base)

    def bytes(self) -> bytes:
        """Every byte from ``base`` to ``end``."""
        return b"".join(section.data for section in self.sections)

    def section(self, name: str) -> Section | None:
        """The section called ``name``, None when the image has none."""
        return next((section for section in self.sections if section.name == name), None)

    def section_at(self, address: int) -> Section | None:
        """The section that ``address`` lies in."""
        return next((section for section in self.sections if section.address <= address < section.end), None)

    def symbolize(self, address: int) -> str | None:
        """``kmalloc+0x12``, the nearest label at or below ``address``; None outside the image."""
        section = self.section_at(address)
        if section is None:
            return None
        at = bisect_right(self._symbol_addresses, address) - 1
        if at < 0 or self._symbol_addresses[at] < section.address:
            return None
        name, start = self._symbol_items[at]
        return name if start == address else f"{name}+0x{address - start:x}"

    def line(self, address: int) -> SourceLine | None:
        """The source line whose bytes hold ``address``; None where there is none, as in padding, and outside."""
        section = self.section_at(address)
        at = bisect_right(self._line_addresses, address) - 1
        if section is None or at < 0 or self._line_addresses[at] < section.address:
            return None
        if section.name == "text" and address >= self.text_end:
            return None
        file, line = self.lines[self._line_addresses[at]]
        return SourceLine(file, line, self._line_text(file, line)) if line else None

    def data_end(self, address: int) -> int | None:
        """Where the data in the text that ``address`` lies in ends; None when it is code."""
        at = bisect_right(self.data_in_text, (address, 1 << 64)) - 1
        return self.data_in_text[at][1] if at >= 0 and address < self.data_in_text[at][1] else None

    @cached_property
    def functions(self) -> Mapping[str, tuple[int, int]]:
        """Each label of the text with its range [start, end): up to the next label, or to the end of the code."""
        text = self.section("text")
        if text is None:
            return {}
        names = [(name, address) for name, address in self._symbol_items if text.address <= address < self.text_end]
        starts = sorted({address for _, address in names})
        ends = dict(zip(starts, [*starts[1:], self.text_end], strict=False))     # without code, there are none
        return {name: (address, ends[address]) for name, address in names}

    def _line_text(self, file: str, number: int) -> str:
        lines = self._split_files.get(file)
        if lines is None:
            lines = self._split_files[file] = self.files.get(file, "").split("\n")
        return lines[number - 1].rstrip("\r") if number <= len(lines) else ""

    @cached_property
    def _split_files(self) -> dict[str, list[str]]:
        return {}

    @cached_property
    def _symbol_items(self) -> list[tuple[str, int]]:
        return sorted(self.symbols.items(), key=lambda item: item[1])

    @cached_property
    def _symbol_addresses(self) -> list[int]:
        return [address for _, address in self._symbol_items]

    @cached_property
    def _line_addresses(self) -> list[int]:
        return sorted(self.lines)

    def to_json(self) -> str:
        """The image as text; :meth:`from_json` gives it back."""
        numbers = {name: number for number, name in enumerate(self.files)}
        compiled = {"local": sorted(self.local), "declarations": dict(self.declarations),
                    "frames": [[row.start - self.base, row.end - self.base, *row[2:4], dict(row.saved)]
                               for row in self.frames],
                    "debug": {name: base64.b64encode(zlib.compress(data)).decode("ascii")
                              for name, data in self.debug.items()},
                    "debug_offsets": [list(place) for place in self.debug_offsets]}
        return json.dumps({
            "version": VERSION, "base": self.base, "source_hash": self.source_hash, "text_end": self.text_end,
            "sections": [{"name": section.name, "address": section.address, "rights": section.rights,
                          "size": len(section.data),
                          "data": base64.b64encode(section.data.rstrip(b"\0")).decode("ascii")}
                         for section in self.sections],
            "symbols": dict(self.symbols), "constants": dict(self.constants), "origins": dict(self.origins),
            "files": dict(self.files),
            "data_in_text": [[start - self.base, end - self.base] for start, end in self.data_in_text],
            "lines": [[address - self.base, numbers[file], line] for address, (file, line) in self.lines.items()],
            **{name: value for name, value in compiled.items() if value},
        }, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Image:
        """Read what :meth:`to_json` wrote; :class:`SandboxError` for anything else."""
        try:
            data = json.loads(text)
            if data["version"] != VERSION:
                raise SandboxError(f"an image of version {data['version']}, and this program reads {VERSION}")
            names = list(data["files"])
            sections = tuple(
                Section(item["name"], int(item["address"]),
                        base64.b64decode(item["data"], validate=True).ljust(int(item["size"]), b"\0"),
                        item["rights"])
                for item in data["sections"])
            base = int(data["base"])
            return cls(
                base=base, sections=sections, symbols=dict(data["symbols"]), constants=dict(data["constants"]),
                lines={base + at: (names[file], line) for at, file, line in data["lines"]},
                files=dict(data["files"]), origins=dict(data["origins"]), source_hash=data["source_hash"],
                text_end=int(data["text_end"]),
                data_in_text=tuple((base + start, base + end) for start, end in data["data_in_text"]),
                local=frozenset(data.get("local", ())), declarations=dict(data.get("declarations", {})),
                frames=tuple(FrameRow(base + start, base + end, register, offset, dict(saved))
                             for start, end, register, offset, saved in data.get("frames", ())),
                debug={name: zlib.decompress(base64.b64decode(packed, validate=True))
                       for name, packed in data.get("debug", {}).items()},
                debug_offsets=tuple(DebugOffset(*place) for place in data.get("debug_offsets", ())))
        except (zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise SandboxError(f"not an assembled image: {error!r}") from None
