"""The file for gdb, of a guest with C in it: read back by gdb and readelf, without a guest."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sandbox
from sandbox.toolchain.debug_sections import append, renamed
from sandbox.toolchain.image import DebugOffset
from sandbox.toolchain.symbols_file import write_symbols

from ...compilers import is_here

ASM = """
.text
main:
    push rbp
    mov rbp, rsp
    mov edi, 5
    call outer
    xor eax, eax
    pop rbp
    ret
"""
MODULE = """\
#include "pair.h"

static int twice(int x)
{
    return 2 * x;
}

int outer(int x)
{
    struct pair pair = {x, twice(x)};
    return pair.first + pair.second;
}
"""
HEADER = "struct pair { int first, second; };\n"
ALLOCATOR = """\
static char *next, *limit;

static long twice(long x)
{
    return 2 * x;
}

void init(char *start, unsigned long size)
{
    next = start;
    limit = start + size;
}

void *allocate(unsigned long size)
{
    char *made = next;
    if (size > (unsigned long)(limit - next))
        return 0;
    next += (size + 15) & ~15ul;
    return made + 0 * twice(0);
}

void deallocate(void *p)
{
    (void)p;
}

void stats(unsigned long *out)
{
    out[0] = 0;
}
"""
STRIPPED = "int stripped(int x)\n{\n    return x + 5;\n}\n"


KINDS = [("gcc", "-O1 -g3 -gdwarf-4"), ("clang", "-O2")]


@pytest.fixture(scope="module", params=KINDS, ids=" ".join)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of ``k.elf``, a file for a guest with four images."""
    cc, flags = request.param
    if not is_here(cc) or shutil.which("gdb") is None or shutil.which("readelf") is None:
        pytest.skip(f"no {cc}, or no gdb")
    tmp_path = tmp_path_factory.mktemp("c")
    for name, text in (("main.asm", ASM), ("module.c", MODULE), ("pair.h", HEADER), ("mine.c", ALLOCATOR),
                       ("stripped.c", STRIPPED)):
        (tmp_path / name).write_text(text)
    subprocess.run([cc, "-O1", "-ffreestanding", "-mcmodel=kernel", "-mno-red-zone", "-fno-pic", "-c", "stripped.c"],
                   cwd=tmp_path, check=True)
    with sandbox.boot(tmp_path / "main.asm", modules=[tmp_path / "module.c", tmp_path / "stripped.o"],
                      allocator=tmp_path / "mine.c", cc=cc, cflags=flags, ram="4M", hz=0) as kernel:
        write_symbols(tmp_path / "k.elf", kernel.symbols.images)
    return tmp_path


def ask(directory: Path, *commands: str) -> str:
    """What gdb answers."""
    arguments = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(["gdb", "-nx", "-q", "-batch", *arguments, "k.elf"], cwd=directory, capture_output=True,
                          text=True, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def line_of(text: str, source: str) -> int:
    return next(number for number, line in enumerate(source.splitlines(), 1) if text in line)


def test_gdb_knows_all_images_their_lines_types_and_sources(written: Path) -> None:
    out = ask(written, "info symbol outer", "info symbol allocate", "info symbol main", "info line outer",
                  f"list mine.c:{line_of('char *made', ALLOCATOR)},+0", "ptype struct pair", "whatis outer",
                  "whatis allocate", "info line main", "list pair.h:1,1", "print sizeof(struct page)",
                  "info symbol stripped", "info line stripped", "whatis kmalloc")
    for expected in ("outer in section .text.modules", "allocate in section .text.allocator",
                     "main in section .text.program", "stripped in section .text.modules", "char *made = next;",
                     "int first;", "type = int (int)", "type = void *(unsigned long)", HEADER.strip(),
                     "type = void *(u64)"):
        assert expected in out
    line = re.search(r'^Line (\d+) of ".*module.c" starts at', out, re.MULTILINE)
    assert line and line_of("int outer", MODULE) <= int(line[1]) <= line_of("return pair", MODULE)
    assert re.search(r'^Line \d of ".*main.asm" starts', out, re.MULTILINE)
    assert re.search("^No line number information available for address .* <stripped>", out, re.MULTILINE)
    beside = written / "k.elf.src"
    assert {path.name for path in beside.rglob("*.[ch]")} >= {"module.c", "pair.h", "mine.c"}


def test_static_names_are_local_symbols(written: Path) -> None:
    done = subprocess.run(["readelf", "--wide", "--symbols", "k.elf"], cwd=written, capture_output=True, text=True,
                          check=True)
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" +\d+: ", line)]
    bindings = {row[7]: row[4] for row in rows if len(row) == 8}
    assert bindings["outer"] == bindings["kmalloc"] == "GLOBAL" and bindings["next"] == "LOCAL"
    assert [row[4] for row in rows] == sorted((row[4] for row in rows), reverse=True)
    assert not any("@" in name for name in bindings) and done.stderr == ""


# -- putting sections together ----------------------------------------------------------------------------------
def test_sections_are_appended_and_what_leads_into_them_is_moved() -> None:
    into = {".debug_info": bytearray(b"12345678"), ".debug_str": bytearray(b"abc\0")}
    fields = [DebugOffset(".debug_info", 4, 4, ".debug_str"), DebugOffset(".debug_info", 0, 2, ".debug_abbrev"),
              DebugOffset(".debug_info", 6, 8, ".debug_str"), DebugOffset(".debug_none", 0, 4, ".debug_str")]
    moved = append(into, {".debug_info": b"\1\0xy\2\0\0\0", ".debug_str": b"x\0y\0"}, fields)
    assert moved == [DebugOffset(".debug_info", 12, 4, ".debug_str"), DebugOffset(".debug_info", 8, 2, ".debug_abbrev")]
    assert into == {".debug_info": b"12345678\1\0xy\6\0\0\0", ".debug_str": b"abc\0x\0y\0"}


def test_names_of_files_are_replaced_and_no_other_ones() -> None:
    sections = {".debug_info": b"\0\0\0\0\2\0\0\0\x04\0\0\0", ".debug_str": b".\0.\0name\0"}
    fields = [DebugOffset(".debug_info", at, 4, ".debug_str") for at in (0, 4, 8)]
    out = renamed(sections, fields, lambda section, name: "/home" if (section, name) == (".debug_info", ".") else None)
    assert out == {".debug_info": b"\x09\0\0\0\x09\0\0\0\x04\0\0\0", ".debug_str": b".\0.\0name\0/home\0"}
