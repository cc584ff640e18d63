"""GNU as, or clang, as the back end: for hosts without Keystone, and as the second opinion on its bytes.

Both write an ELF object file (System V ABI, AMD64 supplement, section 4.4: relocations), of which only the text
section, its symbols and its relocations matter; linking at an address is done here, so that no linker is needed.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import EngineError
from .backend import Rejected

SECONDS = 60
_COMMANDS = (
    ("x86_64-linux-gnu-as", "--64", "-o", "{out}", "{in}"),
    ("x86_64-elf-as", "--64", "-o", "{out}", "{in}"),
    ("as", "--64", "-o", "{out}", "{in}"),
    ("clang", "--target=x86_64-unknown-linux-gnu", "-c", "-x", "assembler", "-o", "{out}", "{in}"),
)
_ERROR = re.compile(r":(\d+)(?::\d+)?: (?:Error|error|Fatal error): (.*)")
_RELOCATIONS = {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False),
                12: (2, False), 13: (2, True), 14: (1, False), 15: (1, True), 24: (8, True)}
"""Relocation type -> bytes, and whether it counts from its own place."""


class GnuAssembler:
    """An assembler that is a program of the host."""

    needs_index = False

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def assemble(self, text: str, base: int) -> bytes:
        """The bytes of ``text`` linked at ``base``; the first line that is wrong is named."""
        with tempfile.TemporaryDirectory(prefix="slab-sandbox-") as directory:
            source, target = Path(directory, "unit.s"), Path(directory, "unit.o")
            source.write_text(".intel_syntax noprefix\n.text\n" + text + "\n", "ascii")
            command = [part.format_map({"in": str(source), "out": str(target)}) for part in self.command]
            try:
                done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False,
                                      timeout=SECONDS, stdin=subprocess.DEVNULL)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise EngineError(f"{self.command[0]} does not run: {error}") from None
            if done.returncode or not target.exists():
                found = _ERROR.search(done.stderr)
                if not found:
                    raise Rejected(done.stderr.strip() or f"{self.command[0]} failed")
                raise Rejected(found.group(2), int(found.group(1)) - 2)
            return link_text(target.read_bytes(), base)


def find_assembler() -> GnuAssembler | None:
    """The first program of this host that assembles x86-64 into ELF; None when there is none."""
    for command in _COMMANDS:
        if shutil.which(command[0]) is None:
            continue
        candidate = GnuAssembler(command)
        try:
            if candidate.assemble("L:\nmov rax, [rip + L]\n.quad L", 0x1000) == bytes.fromhex(
                    "488b05f9ffffff0010000000000000"):
                return candidate
        except (Rejected, EngineError):
            continue
    return None


def link_text(elf: bytes, base: int) -> bytes:
    """The ``.text`` of a 64-bit little-endian ELF object, relocated to ``base``."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise EngineError("the assembler does not write 64-bit ELF object files")
    start, entry, count, names = *struct.unpack_from("<Q", elf, 0x28), *struct.unpack_from("<3H", elf, 0x3A)
    headers = [struct.unpack_from("<2I4Q2I2Q", elf, start + at * entry) for at in range(count)]
    strings = headers[names][4]

    def name(header: tuple[int, ...]) -> bytes:
        return elf[strings + header[0] : elf.index(b"\0", strings + header[0])]

    index = next(at for at, header in enumerate(headers) if name(header) == b".text")
    text = bytearray(elf[headers[index][4] : headers[index][4] + headers[index][5]])
    symbols = next((header for header in headers if header[1] == 2), None)
    for header in headers:
        if header[1] != 4 or header[7] != index or symbols is None:
            continue
        for at in range(header[4], header[4] + header[5], 24):
            offset, info, addend = struct.unpack_from("<QQq", elf, at)
            section, value = struct.unpack_from("<HQ", elf, symbols[4] + 24 * (info >> 32) + 6)
            if section != index or info & 0xFFFFFFFF not in _RELOCATIONS:
                raise Rejected(f"a relocation of type {info & 0xFFFFFFFF} against section {section}")
            width, relative = _RELOCATIONS[info & 0xFFFFFFFF]
            target = value + addend + (-offset if relative else base)
            text[offset : offset + width] = (target & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return bytes(text)
