"""Object files to an :class:`~sandbox.toolchain.image.Image`: a static linker for the guest.

::

    base      text     r-x   every object's code, one behind the other, between int3; then a page of int3
              rodata   r--   constants, and a table of addresses (the GOT) for code that wants one
              data     rw-   .data of all, then .bss of all

A name that no object defines is looked for outside (an allocator, the kernel), and then in the C library, of which
only the files that are needed are linked, as from an archive. All that is wrong is collected first, with its lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

from ...address import PAGE_SIZE, align_up, page_up
from ..debug_sections import append
from ..image import DebugOffset, Image, Section
from .debug_info import DebugInfo, debug_info, merged_lines
from .definitions import Definitions, Outside
from .objects import InputSection, InputSymbol, ObjectFile, Parsed, Placed, Relocation, parse
from .refused import refused
from .relocations import KINDS, NONE, THREAD_LOCAL, encode, name
from .troubles import Troubles

MAX_IMAGE_BYTES = 256 << 20
"""The largest image; one that RAM cannot hold is refused at boot, with the size that would do."""
_INT3 = b"\xcc"
_CLASSES = ("text", "rodata", "data", "bss")
_CHOSEN_LATE = ("STT_GNU_IFUNC", "STT_LOOS")
_CONSTRUCTORS = (".init_array", ".fini_array", ".preinit_array", ".ctors", ".dtors")


def link(objects: Sequence[ObjectFile], base: int, outside: Outside) -> Image:
    """Link objects at the page-aligned ``base``; :class:`~sandbox.errors.LinkError` with all that is in the way."""
    return _Linker([parse(each) for each in objects], base, outside).image()


class _Linker:
    """The state of one :func:`link`; the methods follow the order of the work."""

    def __init__(self, objects: list[Parsed], base: int, outside: Outside) -> None:
        self.base = base
        self.outside = outside
        self.shown = [parsed.object.shown for parsed in objects]
        self.troubles = Troubles()
        self.definitions = Definitions(objects, outside, self.troubles)
        self.objects = self.definitions.objects
        self.addresses: dict[tuple[int, int], int] = {}          # of sections, by object and number
        self.common: dict[str, int] = {}
        self.table: dict[object, int] = {}                       # of addresses: where each entry is
        self.bytes: dict[str, bytearray] = {}
        self.starts: dict[str, int] = {}

    def image(self) -> Image:
        """The finished image."""
        self.inspect()
        end = self.lay_out()
        placed = [self.relocate(parsed, number) for number, parsed in enumerate(self.objects)]
        found = [debug_info(one) for one, _ in placed]
        lines = merged_lines(found)
        image = Image(base=self.base, sections=self.sections(), symbols={}, lines=lines, text_end=end,
                      files={file: text for info in found for file, text in info.files.items()})
        self.refuse_code(image, placed)
        self.troubles.complain(self.shown, image)
        symbols, local = self.symbols()
        debug: dict[str, bytearray] = {}
        offsets = [moved for one, fields in placed for moved in append(debug, _described(one), fields)]
        return Image(
            base=self.base, sections=image.sections, symbols=symbols, lines=lines, files=image.files, text_end=end,
            origins={label: str(line) for label, at in symbols.items() if (line := image.line(at))},
            source_hash=self.identity(), local=local, declarations=_declarations(placed, found, symbols),
            frames=tuple(sorted(row for info in found for row in info.frames)),
            debug={section: bytes(data) for section, data in debug.items()}, debug_offsets=tuple(offsets))

    # ---- what cannot be

    def inspect(self) -> None:
        """Refuse whole sections: constructors, code that can be written, what each thread would have of its own."""
        for parsed in self.objects:
            shown = parsed.object.shown
            thread_local = [symbol.name for symbol in parsed.symbols if symbol.kind == "STT_TLS" and symbol.name]
            for section in parsed.sections.values():
                if section.thread_local and not thread_local:
                    thread_local = [section.name]
                if section.loaded and section.name.startswith(_CONSTRUCTORS):
                    self.troubles.note((shown, section.name), f"{section.name}: constructors and destructors are not "
                                                              "run here: call such a function from main", file=shown)
                if section.loaded and section.executable and section.writable:
                    self.troubles.note((shown, section.name), f"section {section.name} is to be written and executed: "
                                                              "no page is both", file=shown)
            for label in thread_local:
                self.troubles.note_thread_local(label, file=shown)
            for symbol in parsed.symbols:
                if symbol.kind in _CHOSEN_LATE and symbol.section != "undefined":
                    self.troubles.note((shown, symbol.name), f"{symbol.name!r} is chosen when a program is loaded "
                                                             "(ifunc): nobody does that here", file=shown)

    def refuse_code(self, image: Image, placed: Sequence[tuple[Placed, object]]) -> None:
        """Refuse instructions that the kernel cannot allow."""
        text = image.section("text")
        if text is None:
            return
        functions = sorted((function for one, _ in placed for function in one.functions), key=lambda item: item[1])

        def place(address: int) -> str:
            return str(image.line(address) or f"0x{address:x}")

        found = refused(text.data[: image.text_end - image.base], image.base, functions, place)
        for number, sentence in enumerate(found):
            self.troubles.note(("instruction", number), sentence)

    # ---- places

    def lay_out(self) -> int:
        """Give every loaded section its address; the address behind the code."""
        at, code_end = self.base, self.base
        for kind in _CLASSES:
            self.starts[kind] = at
            for number, parsed in enumerate(self.objects):
                for section in parsed.sections.values():
                    if section.loaded and section.size and _class(section) == kind:
                        at = align_up(at, section.alignment)
                        self.addresses[number, section.number] = at
                        at += section.size
            if kind == "text":
                code_end = at
                at = page_up(at) + PAGE_SIZE if at > self.base else at
            elif kind == "rodata":
                at = self._lay_out_table(at)
                at = page_up(at)
            elif kind == "bss":
                at = self._lay_out_common(at)
            if at - self.base > MAX_IMAGE_BYTES:
                self.troubles.note("size", f"the image is larger than {MAX_IMAGE_BYTES >> 20} MiB")
                self.troubles.complain(self.shown)
        self.starts["end"] = page_up(at)
        for kind, start, stop in (("text", self.base, self.starts["rodata"]),
                                  ("rodata", self.starts["rodata"], self.starts["data"]),
                                  ("data", self.starts["data"], self.starts["end"])):
            self.bytes[kind] = bytearray(_INT3 * (stop - start) if kind == "text" else stop - start)
        return code_end

    def _lay_out_table(self, at: int) -> int:
        at = align_up(at, 8)
        for number, parsed in enumerate(self.objects):
            for section in parsed.sections.values():
                for relocation in section.relocations if section.loaded else ():
                    kind = KINDS.get(relocation.kind)
                    if kind is not None and kind.value.startswith("G") and relocation.symbol < len(parsed.symbols):
                        key = self._identity(number, parsed, relocation)
                        if key not in self.table:
                            self.table[key] = at
                            at += 8
        return at

    def _lay_out_common(self, at: int) -> int:
        for label, definition in self.definitions.known.items():
            if definition.symbol.section == "common":
                at = align_up(at, max(definition.symbol.value, 1))
                self.common[label] = at
                at += definition.symbol.size
        return at

    @staticmethod
    def _identity(number: int, parsed: Parsed, relocation: Relocation) -> object:
        symbol = parsed.symbols[relocation.symbol]
        return (number, relocation.symbol) if symbol.local else symbol.name

    # ---- bytes

    def relocate(self, parsed: Parsed, number: int) -> tuple[Placed, list[DebugOffset]]:
        """Copy an object's sections to their places and fill in every address, in its debug sections too."""
        debug: dict[str, bytes] = {}
        offsets: list[DebugOffset] = []              # of several sections with one name, one behind the other
        for section in parsed.sections.values():
            address = self.addresses.get((number, section.number))
            if address is not None:
                self._fill(parsed, number, section, address)
            elif section.debug and section.size:
                before = debug.get(section.name, b"")
                debug[section.name] = before + self._described(parsed, number, section, offsets, len(before))
        addresses = {key[1]: address for key, address in self.addresses.items() if key[0] == number}
        functions = [(symbol.name, address, address + symbol.size) for symbol in parsed.symbols
                     if symbol.kind == "STT_FUNC" and (address := self._place(parsed, number, symbol)) is not None]
        functions.sort(key=lambda item: (item[1:], item[0]))
        return Placed(parsed.object, addresses, debug, tuple(functions)), offsets

    def _fill(self, parsed: Parsed, number: int, section: InputSection, address: int) -> None:
        kind = {"bss": "data"}.get(_class(section), _class(section))
        whole, start = self.bytes[kind], self.starts[kind]
        data = bytearray(section.data or bytes(section.size))
        for relocation in section.relocations:
            written = self._value(parsed, number, relocation, address + relocation.offset)
            if written is not None and relocation.offset + len(written) > len(data):
                self.troubles.note((parsed.object.shown, "damaged"), f"it is damaged: a relocation of {section.name} "
                                                                     "lies outside of it", file=parsed.object.shown)
            elif written is not None:
                data[relocation.offset : relocation.offset + len(written)] = written
        whole[address - start : address - start + len(data)] = data

    def _described(self, parsed: Parsed, number: int, section: InputSection, offsets: list[DebugOffset],
                   start: int) -> bytes:
        """A debug section, which begins at ``start``; what cannot be said in it stays 0."""
        data = bytearray(section.data)
        for relocation in section.relocations:
            kind = KINDS.get(relocation.kind)
            if kind is None or relocation.offset + kind.width > len(data) or relocation.symbol >= len(parsed.symbols):
                continue
            symbol = parsed.symbols[relocation.symbol]
            target = parsed.sections.get(symbol.section) if isinstance(symbol.section, int) else None
            if target is not None and target.debug and section.name != ".eh_frame":
                value = symbol.value + relocation.addend
                offsets.append(DebugOffset(section.name, start + relocation.offset, kind.width, target.name))
            else:
                found = self._address(parsed, number, symbol)
                if found is None or kind.value.startswith("G"):
                    continue
                value = found + relocation.addend - (relocation.offset if kind.value.endswith("-P") else 0)
            written = encode(kind, value)
            data[relocation.offset : relocation.offset + kind.width] = written or bytes(kind.width)
        return bytes(data)

    def _value(self, parsed: Parsed, number: int, relocation: Relocation, place: int) -> bytes | None:
        """What a relocation writes at ``place``; None when nothing can be, which is noted then."""
        if relocation.kind == NONE:
            return None
        if relocation.symbol >= len(parsed.symbols):
            self.troubles.note((parsed.object.shown, "symbol"), "it is damaged: a relocation names a symbol that is "
                                                                "not there", file=parsed.object.shown)
            return None
        symbol = parsed.symbols[relocation.symbol]
        label = symbol.name or self._section_name(parsed, symbol)
        kind = KINDS.get(relocation.kind)
        if relocation.kind in THREAD_LOCAL:
            self.troubles.note_thread_local(label, address=place)
            return None
        if kind is None:
            self.troubles.note((relocation.kind, label), f"{label!r} has a relocation that is not supported: "
                                                         f"{name(relocation.kind)}", address=place)
            return None
        address = self._address(parsed, number, symbol)
        if address is None:
            self.troubles.note(("undefined", label), self.definitions.undefined(label), address=place)
            return None
        value = {"S": address, "G": 0, "Z": self._size(symbol)}[kind.value[0]] + relocation.addend
        if kind.value.startswith("G"):
            at = self.table[self._identity(number, parsed, relocation)]
            start = self.starts["rodata"]
            self.bytes["rodata"][at - start : at - start + 8] = (address & (1 << 64) - 1).to_bytes(8, "little")
            value += at
        written = encode(kind, value - place if kind.value.endswith("-P") else value)
        if written is None:
            advice = ": compile with -mcmodel=kernel -fno-pic" if kind.name in ("32", "32S") else ""
            self.troubles.note((kind, label), f"the address of {label!r}, 0x{address:x}, does not fit into the "
                                              f"{8 * kind.width} bits of {name(relocation.kind)}{advice}",
                               address=place)
        return written

    def _size(self, symbol: InputSymbol) -> int:
        definition = None if symbol.local else self.definitions.known.get(symbol.name)
        return definition.symbol.size if definition else symbol.size

    def _address(self, parsed: Parsed, number: int, symbol: InputSymbol) -> int | None:
        """What a symbol stands for; 0 for a weak one that nobody defines, None for any other."""
        if symbol.local or not symbol.name:
            return self._place(parsed, number, symbol)
        definition = self.definitions.known.get(symbol.name)
        if definition is not None:
            return self._place(self.objects[definition.number], definition.number, definition.symbol)
        return self.outside.symbols.get(symbol.name, 0 if symbol.weak else None)

    def _place(self, parsed: Parsed, number: int, symbol: InputSymbol) -> int | None:
        """Where a symbol that an object defines itself lies."""
        if symbol.section == "absolute":
            return symbol.value
        if symbol.section == "common":
            return self.common.get(symbol.name)
        if symbol.section == "undefined":
            return None if symbol.name else 0
        known = self.addresses.get((number, int(symbol.section)))
        if known is None:                        # an empty section, or one that is not loaded
            section = parsed.sections.get(int(symbol.section))
            return None if section is None or not section.loaded else self.starts[_class(section)]
        return known + symbol.value

    @staticmethod
    def _section_name(parsed: Parsed, symbol: InputSymbol) -> str:
        section = parsed.sections.get(symbol.section) if isinstance(symbol.section, int) else None
        return section.name if section else "?"

    # ---- the image

    def sections(self) -> tuple[Section, ...]:
        """The sections that are not empty."""
        rights = {"text": "r-x", "rodata": "r--", "data": "rw-"}
        return tuple(Section(kind, self.starts[kind], bytes(self.bytes[kind]), rights[kind])
                     for kind in rights if self.bytes[kind])

    def symbols(self) -> tuple[dict[str, int], frozenset[str]]:
        """Every label with its address, lowest first, and those that other images do not see."""
        found: dict[str, int] = {}
        local: set[str] = set()
        for label, definition in self.definitions.known.items():
            parsed = self.objects[definition.number]
            address = self._place(parsed, definition.number, definition.symbol)
            if address is None or definition.symbol.section == "absolute":
                continue
            hidden = definition.number >= self.definitions.own or label in self.outside.names
            chosen = self._free_name(label, parsed.object.shown, found)
            found[chosen] = address
            if hidden:
                local.add(chosen)
        for number, parsed in enumerate(self.objects):
            for symbol in parsed.symbols:
                if symbol.local and symbol.kind in ("STT_FUNC", "STT_OBJECT", "STT_NOTYPE") and symbol.name and \
                        not symbol.name.startswith(".L") and isinstance(symbol.section, int) and \
                        (address := self._place(parsed, number, symbol)) is not None:
                    chosen = self._free_name(symbol.name, symbol.file or parsed.object.shown, found)
                    found[chosen] = address
                    local.add(chosen)
        return dict(sorted(found.items(), key=lambda item: item[1])), frozenset(local)

    def _free_name(self, label: str, file: str, found: Mapping[str, int]) -> str:
        """``label``, or ``label@my.c`` where something else has that name."""
        qualified = f"{label}@{Path(file).name}"
        names = chain((label, qualified), (f"{qualified}.{again}" for again in count(2)))
        return next(each for each in names if each not in found and each not in self.outside.names)

    def identity(self) -> str:
        """A hash of everything that went in."""
        digest = hashlib.sha256(repr((self.base, sorted(self.outside.symbols.items()))).encode())
        for parsed in self.objects:
            digest.update(parsed.object.shown.encode() + b"\0" + hashlib.sha256(parsed.object.data).digest())
        return digest.hexdigest()


def _class(section: InputSection) -> str:
    """Which part of the image a section belongs to."""
    if section.executable:
        return "text"
    if not section.writable:
        return "rodata"
    return "bss" if section.kind == "SHT_NOBITS" else "data"


def _described(placed: Placed) -> dict[str, bytes]:
    """What a debugger gets: call frames are written anew for all images together."""
    return {section: data for section, data in placed.debug.items() if section not in (".eh_frame", ".debug_frame")}


def _declarations(placed: Sequence[tuple[Placed, object]], found: Sequence[DebugInfo],
                  symbols: Mapping[str, int]) -> dict[str, str]:
    """The prototypes by the labels that the functions have in the image."""
    labels = {address: label for label, address in symbols.items()}
    return {labels[start]: info.declarations[function] for (one, _), info in zip(placed, found, strict=True)
            for function, start, _ in one.functions if function in info.declarations and start in labels}
