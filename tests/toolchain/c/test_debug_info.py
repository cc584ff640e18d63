"""What is read out of DWARF, against what gdb and readelf read there; ld places the objects."""

from __future__ import annotations

import io
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo
from elftools.elf.elffile import ELFFile

import sandbox
from sandbox.errors import LinkError, UsageError
from sandbox.toolchain.c.debug_info import DebugInfo, debug_info, merged_lines
from sandbox.toolchain.c.definitions import Outside
from sandbox.toolchain.c.link import link
from sandbox.toolchain.c.objects import ObjectFile, Placed
from sandbox.toolchain.disassembler import Disassembler
from sandbox.toolchain.image import FrameRow, Image, Section
from sandbox.toolchain.prototype import prototypes

from ...compilers import is_here

BASE = 0xFFFF_FFFF_A000_0000
FLAGS = ("-ffreestanding", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fno-pic", "-fno-pie",
         "-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer",
         "-ffunction-sections", "-Wno-deprecated-non-prototype", "-Wno-strict-prototypes")
HEADER = """\
extern int calls;
static inline long clamp(long x, long most)
{
    if (x > most) {
        calls += 2;
        x = most;
    }
    return x;
}
"""
SOURCE = """\
#include "sub/clamp.h"
typedef unsigned long size_t;
typedef int (*compare)(const void *, const void *);
struct node { struct node *next; int value; };
enum colour { RED, GREEN };
int calls;

int f() { return 3; }
int old(a, b) int a; long b; { return a + b; }
void *allocate(size_t size) { static char room[64]; return room + size % 64; }
int apply(compare c, struct node *const n, const char *s, ...) { return c(n, s) + n->value; }
int (*pick(int which))(const void *, const void *) { return which ? 0 : (compare)f; }
void raw(void (*fn)(int, char **), int (*grid)[4], unsigned char c, enum colour e, _Bool b, unsigned long long n)
{
    fn(c + e + b + (int)n, 0);
    (*grid)[2] = 3;
}
void take(struct node n, volatile int *p, const unsigned short *const q) { *p = n.value + *q; }
_Noreturn void die(void) { for (;;) ; }

static __attribute__((noinline)) long many(long a, long b, long c)
{
    long total = 0;
    for (long i = 0; i < a; i++) {
        total += clamp(i * b, c);
        if (total > 100)
            calls++;
    }
    return total;
}

int main(void)
{
    int x = (int)many(7, 1, 2);
    take((struct node){0, x}, &x, (const unsigned short[]){1});
    return x;
}
"""
DECLARED = {
    "f": "int f(void)", "old": "int old(int a, long b)", "allocate": "void *allocate(size_t size)",
    "apply": "int apply(compare c, struct node *const n, const char *s, ...)",
    "pick": "int (*pick(int which))(const void *, const void *)",
    "raw": "void raw(void (*fn)(int, char **), int (*grid)[4], unsigned char c, enum colour e, _Bool b, "
           "unsigned long long n)",
    "take": "void take(struct node n, volatile int *p, const unsigned short *const q)", "die": "void die(void)",
    "main": "int main(void)",
}  # fmt: skip
COMPILERS = [("gcc", "-gdwarf-2", "-O2"), ("gcc", "-gdwarf-3", "-O1"), ("gcc", "-gdwarf-4", "-Os"),
             ("gcc", "-gdwarf-5", "-O2"), ("clang", "-gdwarf-4", "-O2"), ("clang", "-gdwarf-5", "-O0")]


class Compiled:
    """A source, compiled and placed by ld."""

    def __init__(self, directory: Path, command: tuple[str, ...]) -> None:
        self.directory = directory
        self.command = command
        self.executable = directory / "my.elf"
        (directory / "sub").mkdir()
        (directory / "sub/clamp.h").write_text(HEADER)
        (directory / "my.c").write_text(SOURCE)
        self.run(*command, *FLAGS, "-c", "my.c", "-o", "my.o")
        self.run("ld", "-o", "my.elf", "--entry", "main", f"-Ttext={BASE:#x}", "my.o")
        self.placed = placed(self.executable, "examples/my.c")
        self.info = debug_info(self.placed)

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def image(self) -> Image:
        """Just enough of one to be asked for lines."""
        with self.executable.open("rb") as file:
            text = ELFFile(file).get_section_by_name(".text")
            data = text.data()
        assert text["sh_addr"] == BASE
        return Image(BASE, (Section("text", BASE, data, "r-x"),), {name: start for name, start, _ in
                                                                  self.placed.functions},
                     lines=self.info.lines, files=self.info.files, text_end=BASE + len(data))


def placed(path: Path, shown: str) -> Placed:
    """What our own linker would hand over, out of a file that ld linked."""
    data = path.read_bytes()
    elf: Any = ELFFile(io.BytesIO(data))
    found = list(enumerate(elf.iter_sections()))
    functions = sorted(((symbol.name, symbol["st_value"], symbol["st_value"] + symbol["st_size"])
                        for symbol in elf.get_section_by_name(".symtab").iter_symbols()
                        if symbol["st_info"]["type"] == "STT_FUNC"), key=lambda item: item[1])
    return Placed(ObjectFile(shown, data, path.parent),
                  {number: section["sh_addr"] for number, section in found if section["sh_flags"] & 2},
                  {section.name: section.data() for _, section in found if section.name.startswith(".debug_")},
                  tuple(functions))


@pytest.fixture(scope="module", params=COMPILERS, ids=" ".join)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    if not is_here(request.param[0]) or shutil.which("ld") is None:
        pytest.skip(f"no {request.param[0]}, or no ld")
    return Compiled(tmp_path_factory.mktemp("c"), request.param)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    if not is_here("gcc") or shutil.which("ld") is None:
        pytest.skip("no gcc, or no ld")
    return Compiled(tmp_path_factory.mktemp("c"), ("gcc", "-g", "-O1"))


# -- lines ------------------------------------------------------------------------------------------------------
def test_every_instruction_has_the_line_that_gdb_shows(compiled: Compiled) -> None:
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")
    image = compiled.image()
    code = [found.address for found in Disassembler().code(image, BASE, image.text_end)]
    script = compiled.directory / "script.gdb"
    script.write_text("set width 0\n" + "".join(f"info line *{address:#x}\n" for address in code))
    out = compiled.run("gdb", "-nx", "-q", "-batch", "-x", "script.gdb", "my.elf").splitlines()
    assert len(out) == len(code) > 60
    for address, answer in zip(code, out, strict=True):
        found = re.match(r'Line (\d+) of "(?:.*/)?([\w.]+)"', answer)
        line = image.line(address)
        shown = None if line is None else (str(line.number), line.file.rpartition("/")[2])
        assert shown == (found.groups() if found else None), answer
    assert {file for file, _ in compiled.info.lines.values()} <= {"examples/my.c", "examples/sub/clamp.h"}
    assert compiled.info.files["examples/my.c"] == SOURCE
    if compiled.command[0] == "gcc":                      # clang leaves nothing of it
        assert any(file.endswith("clamp.h") for file, _ in compiled.info.lines.values())


def test_where_a_function_ends_its_lines_end(one: Compiled) -> None:
    image = one.image()
    starts = {start for _, start, _ in one.placed.functions}
    ends = {end for _, _, end in one.placed.functions} - starts
    assert all(one.info.lines[end][1] == 0 and image.line(end) is None for end in ends)
    assert {one.info.lines[start][1] > 0 for start in starts} == {True}


def test_lines_are_of_the_placed_code_alone(one: Compiled) -> None:
    elsewhere = debug_info(replace(one.placed, addresses={1: BASE + 0x10_0000}))
    assert (dict(elsewhere.lines), elsewhere.frames) == ({}, ())


def test_code_without_debug_information_has_no_line_beside_code_that_has_some(tmp_path: Path) -> None:
    if not is_here("gcc"):
        pytest.skip("no gcc")
    objects = []
    for name, flags in (("first", ("-g",)), ("second", ()), ("third", ("-g",))):
        (tmp_path / f"{name}.c").write_text(f"int {name}(int x) {{\n    return x + 1;\n}}\n")
        subprocess.run(["gcc", *FLAGS, *flags, "-O1", "-falign-functions=1", "-c", f"{name}.c"], cwd=tmp_path,
                       check=True)
        objects.append(ObjectFile(f"{name}.o", (tmp_path / f"{name}.o").read_bytes(), tmp_path))
    image = link(objects, BASE, Outside({}))
    found = {name: image.line(address) for name, address in image.symbols.items()}
    assert [str(found[name]) for name in ("first", "third")] == ["first.c:2", "third.c:2"]
    assert found["second"] is None
    assert image.line(image.symbols["second"] + 3) is None
    assert image.line(image.symbols["third"] + 3) is not None
    assert Image.from_json(image.to_json()) == image


def test_what_begins_at_an_address_counts_and_not_what_ends_there() -> None:
    ends, begins = DebugInfo({1: ("z.c", 4), 5: ("z.c", 0)}), DebugInfo({5: ("a.c", 9), 7: ("a.c", 0)})
    for order in ((ends, begins), (begins, ends)):
        assert merged_lines(order) == {1: ("z.c", 4), 5: ("a.c", 9), 7: ("a.c", 0)}


# -- names of sources -------------------------------------------------------------------------------------------
def test_sources_outside_of_the_objects_directory_are_named_and_not_read(tmp_path: Path) -> None:
    if not is_here("gcc") or shutil.which("ld") is None:
        pytest.skip("no gcc, or no ld")
    here = tmp_path / "here"
    here.mkdir()
    for name in ("secret", "hidden"):
        (tmp_path / f"{name}.h").write_text(f"static int {name}(int x) {{ return x + 1; }}\n")
    (here / "link.h").symlink_to(tmp_path / "hidden.h")
    text = '#include "../secret.h"\n#include "link.h"\nint main(void) { return secret(3) + hidden(4); }\n'
    (here / "my.c").write_text(text)
    subprocess.run(["gcc", *FLAGS, "-g", "-O0", "-c", "my.c"], cwd=here, check=True)
    subprocess.run(["ld", "-o", "my", "--entry", "main", f"-Ttext={BASE:#x}", "my.o"], cwd=here, check=True)
    info = debug_info(placed(here / "my", "my.o"))
    assert info.files == {"my.c": text, str(tmp_path / "secret.h"): "", str(here / "link.h"): ""}


def test_texts_that_came_with_an_object_are_believed_more_than_files(one: Compiled) -> None:
    given = {"examples/my.c": "as it was compiled\n"}
    info = debug_info(replace(one.placed, object=replace(one.placed.object, sources=given)))
    assert info.files["examples/my.c"] == given["examples/my.c"] and info.files["examples/sub/clamp.h"] == HEADER


# -- declarations -----------------------------------------------------------------------------------------------
def test_prototypes_are_spelled_as_in_c(compiled: Compiled) -> None:
    found = dict(compiled.info.declarations)
    static = {"many": "long many(long a, long b, long c)", "clamp": "long clamp(long x, long most)"}
    assert {name: found.pop(name, text) for name, text in static.items()} == static     # some were cloned, or inlined
    assert found == DECLARED


def test_the_prototypes_can_be_read(one: Compiled) -> None:
    found = prototypes(Image(BASE, (), {}, declarations={**one.info.declarations, "many@my.c": "long many(long a)"}))
    assert {name: len(prototype.parameters) for name, prototype in found.items() if name != "many"} == {
        "f": 0, "old": 2, "allocate": 1, "apply": 3, "pick": 1, "raw": 6, "take": 3, "die": 0, "main": 0,
        "many@my.c": 1}
    assert found["apply"].variadic and found["apply"].accepts(4) and not found["apply"].accepts(2)
    assert found["pick"].result == "int (*)(const void *, const void *)"
    assert next(found["raw"].declared()) == ("void (*)()", "fn")


# -- frames -----------------------------------------------------------------------------------------------------
Row = tuple[int, str, dict[str, str]]


def readelf_rows(text: str) -> list[tuple[int, int, str, dict[str, str]]]:
    """Start, end, CFA and the registers of each row of ``readelf --debug-dump=frames-interp``. Of an entry (FDE) that
    says nothing of its own, it shows no row: that is the row of the common entry (CIE)."""
    found: list[tuple[int, int, str, dict[str, str]]] = []
    common: list[Row] = []
    rows: list[Row] = []
    names: list[str] = []
    start = end = 0

    def finish() -> None:
        each = rows or [(start, *common[0][1:])]
        ends = [*(row[0] for row in each[1:]), end]
        found.extend((at, after, cfa, saved) for (at, cfa, saved), after in zip(each, ends, strict=True) if start)

    for line in text.splitlines():
        words = line.split()
        if " CIE " in line or " FDE " in line:
            if start:
                finish()
            rows = common = [] if " CIE " in line else common
            rows = [] if " FDE " in line else rows
            start, end = (int(edge, 16) for edge in line.rpartition("=")[2].split("..")) if " FDE " in line else (0, 0)
        elif words[:2] == ["LOC", "CFA"]:
            names = words[2:]
        elif re.match(" *[0-9a-f]{16} r", line):
            rows.append((int(words[0], 16), words[1], dict(zip(names, words[2:], strict=False))))
    finish()
    return found


def test_the_frames_are_those_that_readelf_shows(compiled: Compiled) -> None:
    def shown(row: FrameRow) -> tuple[int, int, str, dict[str, str]]:
        return (row.start, row.end, f"{row.cfa_register}+{row.cfa_offset}",
                {name.replace("rip", "ra"): f"c{offset:+}" for name, offset in row.saved.items()})

    found = readelf_rows(compiled.run("readelf", "--wide", "--debug-dump=frames-interp", "my.elf"))
    wanted = [(start, end, cfa, {name: how for name, how in saved.items() if how != "u"})
              for start, end, cfa, saved in sorted(found, key=lambda row: row[0]) if start < end and start >= BASE]
    assert [shown(row) for row in compiled.info.frames] == wanted
    assert len(wanted) >= 20


# -- the debug sections of several objects ----------------------------------------------------------------------
def described(dwarf: Any) -> list[tuple[object, ...]]:
    """Every entry of every unit, and every row of every line table, without offsets."""
    found: list[tuple[object, ...]] = []
    lists = dwarf.location_lists()
    for unit in dwarf.iter_CUs():
        for entry in unit.iter_DIEs():
            shown: list[object] = [entry.tag]
            for name, attribute in entry.attributes.items():
                if attribute.form in ("DW_FORM_strp", "DW_FORM_string", "DW_FORM_line_strp", "DW_FORM_addr") or \
                        "strx" in attribute.form or "addrx" in attribute.form:
                    shown.append((name, attribute.value))
                elif name == "DW_AT_type":
                    shown.append((name, entry.get_DIE_from_attribute(name).tag))
                elif name == "DW_AT_location" and attribute.form == "DW_FORM_sec_offset":
                    shown += [tuple(item)[1:] for item in lists.get_location_list_at_offset(attribute.value, entry)]
            found.append(tuple(shown))
        program = dwarf.line_program_for_CU(unit)
        found += [(row.state.address, row.state.line, row.state.file) for row in program.get_entries() if row.state]
    return found


def dwarf_of(sections: Mapping[str, bytes]) -> Any:
    def section(name: str) -> Any:
        data = sections.get(f".debug_{name}")
        return None if data is None else DebugSectionDescriptor(io.BytesIO(data), name, 0, len(data), 0)

    names = ("info", "aranges", "abbrev", "str", "loc", "ranges", "line", "addr", "str_offsets", "line_str", "loclists",
             "rnglists")
    given: dict[str, Any] = {f"debug_{name}_sec": section(name) for name in names}
    return DWARFInfo(config=DwarfConfig(True, "x64", 8), **given, debug_frame_sec=None, eh_frame_sec=None,
                     debug_pubtypes_sec=None, debug_pubnames_sec=None, debug_sup_sec=None, gnu_debugaltlink_sec=None,
                     debug_types_sec=None)


@pytest.mark.parametrize("command", [("gcc", "-gdwarf-4"), ("gcc", "-gdwarf-5"), ("clang", "-gdwarf-4"),
                                     ("clang", "-gdwarf-5")], ids=" ".join)
def test_the_debug_sections_of_several_objects_are_joined_as_ld_joins_them(command: tuple[str, ...],
                                                                           tmp_path: Path) -> None:
    if not is_here(command[0]) or shutil.which("ld") is None:
        pytest.skip(f"no {command[0]}, or no ld")
    objects = []
    for name in ("first", "second", "third"):
        (tmp_path / f"{name}.c").write_text(
            f"struct {name}_pair {{ int a; struct {name}_pair *b; }};\nint x_{name};\nint more(struct {name}_pair *);\n"
            f"int {name}(struct {name}_pair *p, int n)\n{{\n    int at = n;\n    while (at--)\n        p = p->b;\n"
            f"    x_{name} += n;\n    return p->a + x_{name};\n}}\n".replace("int more(struct", "int more_(struct"))
        subprocess.run([*command, "-O2", *[flag for flag in FLAGS if flag != "-ffunction-sections"], "-c", f"{name}.c"],
                       cwd=tmp_path, check=True)
        objects.append(ObjectFile(f"{name}.o", (tmp_path / f"{name}.o").read_bytes(), tmp_path))
    image = link(objects, BASE, Outside({}))
    subprocess.run(["ld", "-o", "all", "--entry", "first", f"-Ttext={BASE:#x}",
                    f"-Tbss={image.symbols['x_first']:#x}", *(each.shown for each in objects)], cwd=tmp_path,
                   check=True)
    with (tmp_path / "all").open("rb") as file:
        elf = ELFFile(file)
        symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        if {name: symbols[name] for name in image.symbols} != dict(image.symbols):
            pytest.fail("ld lays objects out in another way")
        assert described(dwarf_of(image.debug)) == described(elf.get_dwarf_info())


# -- damage -----------------------------------------------------------------------------------------------------
def refused(broken: Placed) -> str:
    with pytest.raises(LinkError) as caught:
        debug_info(broken)
    assert caught.value.file == "examples/my.c" and len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_damaged_debug_information_is_one_sentence(one: Compiled) -> None:
    debug = dict(one.placed.debug)
    cut = replace(one.placed, debug={**debug, ".debug_line": debug[".debug_line"][:-9]})
    assert refused(cut).startswith("its debug information is damaged (.debug_line is cut off at 0x0)")
    assert "objcopy -g" in refused(replace(one.placed, debug={**debug, ".debug_abbrev": b"\1"}))
    assert "version 9" in refused(replace(one.placed, debug={**debug, ".debug_line": b"\4\0\0\0\x09\0\0\0"}))
    none = debug_info(replace(one.placed, debug={}))
    assert (dict(none.lines), dict(none.declarations), none.frames) == ({}, {}, ())


@pytest.mark.parametrize("format_count", [0, 1])
def test_a_count_that_cannot_be_is_not_believed(one: Compiled, format_count: int) -> None:
    header = bytes([5, 0, 8, 0, 0x40, 0, 0, 0, 1, 1, 1, 0xFB, 14, 10, *bytes(9), format_count, *(1, 8) * format_count])
    body = header + b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x\0" * 40
    data = len(body).to_bytes(4, "little") + body
    assert "damaged (.debug_line" in refused(replace(one.placed, debug={**one.placed.debug, ".debug_line": data}))


@pytest.mark.parametrize("command", [("gcc", "-gdwarf-5"), ("clang", "-gdwarf-4")], ids=" ".join)
def test_no_damage_is_a_traceback(command: tuple[str, ...], tmp_path: Path) -> None:
    if not is_here(command[0]) or shutil.which("ld") is None:
        pytest.skip(f"no {command[0]}, or no ld")
    good = Compiled(tmp_path, (*command, "-O1")).placed
    chooser = random.Random(20261122)
    names = [name for name in sorted(good.debug) if good.debug[name]]
    refusals = 0
    for _ in range(90):
        name = chooser.choice(names)
        data = bytearray(good.debug[name])
        for _ in range(chooser.choice([1, 1, 2, 8])):
            at = chooser.randrange(len(data))
            data[at] = chooser.choice([0, 1, 0x7F, 0x80, 0xFF, chooser.randrange(256)])
        if chooser.randrange(4) == 0:
            del data[chooser.randrange(len(data)) :]
        try:
            info = debug_info(replace(good, debug={**good.debug, name: bytes(data)}))
            assert all(line >= 0 and file in info.files for file, line in info.lines.values())
            assert all(row.start < row.end for row in info.frames)
            prototypes(Image(BASE, (), {}, declarations=info.declarations))
        except LinkError:
            refusals += 1
    assert refusals > 15




def test_a_call_from_python_is_checked_against_the_prototype(tmp_path: Path) -> None:
    if not is_here("gcc"):
        pytest.skip("no gcc")
    (tmp_path / "my.c").write_text("#include <stdint.h>\nlong add(uint64_t a, long b) { return (long)a + b; }\n"
                                   "int any(int n, ...) { return n; }\n")
    with sandbox.boot(modules=[tmp_path / "my.c"], ram="4M", cc="gcc") as kernel:
        assert kernel.call("add", 40, 2) == 42 and kernel.call("any", 1) == kernel.call("any", 1, 2, 3) == 1
        with pytest.raises(UsageError, match=re.escape("add takes 2 arguments, and 1 were given: long add(uint64_t")):
            kernel.call("add", 1)
        with pytest.raises(UsageError, match="argument 1 of add is 'uint64_t a', a number, and str was given"):
            kernel.call("add", "text", 1)
        with pytest.raises(UsageError, match="any takes at least 1 argument"):
            kernel.call("any")
