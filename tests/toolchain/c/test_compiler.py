"""C by the host's compilers: what the objects are like, what is kept away from them, and what is said about it.

The oracles are pyelftools and objdump, which know nothing of ours, and the compilers themselves.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from sandbox.errors import CompileError, CompilerMissing, EngineError, ProgramError, UsageError
from sandbox.toolchain.c import process
from sandbox.toolchain.c.compiler import INCLUDE, cflags, compile_c, find_compiler
from sandbox.toolchain.c.inline_assembly import file_directive
from sandbox.toolchain.c.objects import ObjectFile
from sandbox.toolchain.c.options import COptions

COMPILERS = {"gcc": "gcc", "clang": "clang", "zig": f"{sys.executable} -m ziglang cc"}
SECRET = "the-secret-of-another-user"
Compile = Callable[..., ObjectFile]


def here(name: str) -> bool:
    return importlib.util.find_spec("ziglang") is not None if name == "zig" else shutil.which(name) is not None


@pytest.fixture(params=COMPILERS)
def cc(request: pytest.FixtureRequest) -> str:
    """Each of the compilers."""
    if not here(request.param):
        pytest.skip(f"{request.param} is not here")
    return COMPILERS[request.param]


@pytest.fixture
def one() -> str:
    """The first of them, for what does not depend on the compiler."""
    found = next((COMPILERS[name] for name in COMPILERS if here(name)), None)
    return found or pytest.skip("no C compiler is here")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own directory with a secret beside the module's, and an own cache."""
    (tmp_path / "work" / "dir").mkdir(parents=True)
    (tmp_path / "secret.h").write_text(f"#error {SECRET}\n{SECRET} {SECRET};\n")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SANDBOX_CACHE", raising=False)
    return tmp_path / "work"


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def compiled(text: str, cc: str, *flags: str, name: str = "dir/my.c") -> ObjectFile:
    """The object of a source that is written now."""
    return compile_c(write(name, text), name, COptions(cc, flags))


def error(text: str, cc: str, *flags: str) -> CompileError:
    with pytest.raises(CompileError) as caught:
        compiled(text, cc, *flags)
    return caught.value


def elf(made: ObjectFile) -> ELFFile:
    return ELFFile(io.BytesIO(made.data))


def sections(made: ObjectFile) -> set[str]:
    return {section.name for section in elf(made).iter_sections()}


def script(name: str, text: str) -> str:
    """A program of one's own on this host: the command that starts it."""
    path = write(name, f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path.absolute())


def counting(real: str) -> tuple[str, Callable[[], int]]:
    """A compiler that notes each of its starts, and how many there were."""
    log = Path("starts").absolute()
    command = script("bin/counting-cc", f'echo x >> "{log}"\nexec {real} "$@"')
    return command, lambda: log.read_text().count("x") if log.exists() else 0


# -- the object -------------------------------------------------------------------------------------------------
PROGRAM = """
#include <stddef.h>
#include "sub/x.h"
struct big { long words[16]; };
static int common;
extern int elsewhere(int);
int initialised = 5;
void copy(struct big *to, const struct big *from) { *to = *from; }
int choose(int a) { switch (a) { case 0: return 5; case 1: return 9; case 2: return 77; case 3: return 1;
                                 case 4: return 12; case 5: return -4; default: return elsewhere(a); } }
int main(void) { struct big a = {{0}}, b; copy(&b, &a); common += sub(3); return choose(common) + initialised; }
const char *const name = __FILE__;
"""
SUB = """
static inline int sub(int x) { return x + __builtin_strlen(__FILE__); }
const char *const sub_name = __FILE__;
"""


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_an_object_is_kernel_code_at_every_level(cc: str, level: str) -> None:
    write("dir/sub/x.h", SUB)
    made = compiled(PROGRAM, cc, level)
    file = elf(made)
    assert (file["e_machine"], file["e_type"], file.elfclass) == ("EM_X86_64", "ET_REL", 64)
    assert ".debug_frame" in sections(made) and ".debug_line" in sections(made)
    assert not [name for name in sections(made) if "eh_frame" in name]
    kinds = {relocation["r_info_type"] for section in file.iter_sections() if section["sh_type"] == "SHT_RELA"
             for relocation in section.iter_relocations()}
    assert kinds <= {1, 2, 4, 10, 11}                   # R_X86_64_64, PC32, PLT32, 32, 32S: no GOT
    Path("my.o").write_bytes(made.data)
    listing = subprocess.run(["objdump", "-d", "my.o"], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"%[xyz]mm|%st\b|%mm\d|__stack_chk|endbr64", listing) and "<choose>" in listing


def test_leaf_functions_keep_the_frame_pointer_and_the_red_zone_is_not_used(cc: str) -> None:
    made = compiled("int leaf(int *a) { volatile int here[4] = {1}; return here[*a]; }\n", cc)
    Path("my.o").write_bytes(made.data)
    listing = subprocess.run(["objdump", "-d", "my.o"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"push +%rbp", listing) and re.search(r"sub +\$0x\w+,%rsp", listing)


def test_sources_are_called_what_the_user_calls_them(cc: str, place: Path) -> None:
    write("dir/sub/x.h", SUB)
    made = compiled(PROGRAM, cc)
    assert set(made.sources) >= {"dir/my.c", "dir/sub/x.h", "libc/stddef.h"} and made.shown == "dir/my.c"
    assert made.sources["dir/sub/x.h"] == SUB and made.sources["dir/my.c"] == PROGRAM
    assert made.directory == place / "dir"
    assert b"dir/my.c\0" in made.data and b"dir/sub/x.h\0" in made.data       # __FILE__ and the names of lines
    unit = next(iter(elf(made).get_dwarf_info().iter_CUs())).get_top_DIE().attributes
    assert (unit["DW_AT_name"].value, unit["DW_AT_comp_dir"].value) == (b"dir/my.c", b".")
    for hidden in (str(place), "slab-sandbox", "~module", str(INCLUDE)):
        assert hidden.encode() not in made.data


@pytest.mark.parametrize(("shown", "beside"), [("my.c", "sub/x.h"), ("../work/dir/my.c", "../work/dir/sub/x.h"),
                                               ("/a, b/\u00fc/my.c", "/a, b/\u00fc/sub/x.h")])
def test_every_way_to_name_a_file_is_kept(cc: str, shown: str, beside: str) -> None:
    write("dir/sub/x.h", SUB)
    made = compile_c(write("dir/my.c", PROGRAM), shown, COptions(cc))
    with pytest.raises(ProgramError, match="name with '='"):
        compile_c(Path("dir/my.c"), "a=b/my.c", COptions(cc))
    assert shown.encode() + b"\0" in made.data and beside.encode() + b"\0" in made.data and beside in made.sources


def test_the_same_source_gives_the_same_bytes_in_another_directory_on_another_day(
    cc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'{PROGRAM}const char *const when = __DATE__ " " __TIME__ " " __TIMESTAMP__;\n'
    monkeypatch.setenv("SANDBOX_CACHE", "0")
    made = []
    for number in (1, 2):
        write(f"copy {number}/sub/x.h", SUB)
        path = write(f"copy {number}/my.c", text)
        os.utime(path, (number * 10**8, number * 10**8))
        made.append(compile_c(path, "dir/my.c", COptions(cc)))
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert made[0].data == made[1].data and b"Jan  1 1970 00:00:00 Thu Jan  1 00:00:00 1970\0" in made[0].data
    assert made[0].warnings == ""


def test_our_headers_stand_for_the_compilers_own(cc: str) -> None:
    made = compiled("#include <stddef.h>\n#include <stdint.h>\n#include <stdarg.h>\n#include <stdbool.h>\n"
                    "#include <limits.h>\n#include <string.h>\nsize_t n = sizeof(uint32_t);\n", cc)
    assert {name for name in made.sources if not name.startswith("libc/")} == {"dir/my.c"}
    assert made.sources["libc/stdint.h"] == (INCLUDE / "stdint.h").read_text()


def test_headers_of_the_host_are_not_found(cc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("host/host.h", "int from_the_host;\n")
    for variable in ("CPATH", "C_INCLUDE_PATH"):
        monkeypatch.setenv(variable, str(Path("host").absolute()))
    assert "host.h" in error("#include <host.h>\n", cc).output
    assert "linux/types.h" in error("#include <linux/types.h>\n", cc).output


@pytest.mark.parametrize("text", ["", "\n", "\ufeffint after_a_mark;\n", "int lines;\r\nint of_windows;\r\n",
                                  "/* \u00fcber */ int comment;\n", "int no_newline;"])
def test_unusual_texts_compile(one: str, text: str) -> None:
    assert elf(compiled(text, one))["e_machine"] == "EM_X86_64"


# -- flags ------------------------------------------------------------------------------------------------------
def test_the_users_flags_count_after_ours(cc: str) -> None:
    write("dir/inc/z.h", "#define Z 7\n")
    write("dir/forced.h", "#define FORCED 1\n")
    text = ("#include <z.h>\n_Static_assert(NAME == 3 && Z == 7 && FORCED && __STDC_VERSION__ == 199901L, \"\");\n"
            "#ifdef __OPTIMIZE__\n#error optimised\n#endif\nint a;\n")
    made = compiled(text, cc, "-O0", "-D", "NAME=3", "-Iinc", "-std=gnu99", "-include", "forced.h", "-Wno-pedantic")
    assert set(made.sources) == {"dir/my.c", "dir/inc/z.h", "dir/forced.h"}
    assert set(compiled(text, cc, "-O0", "-DNAME=3", "-I", "dir/inc", "-std=gnu99", "-includedir/forced.h").sources)


@pytest.mark.parametrize("flag", [
    "-fpic", "-fPIC", "-fpie", "-fPIE", "-mcmodel=large", "-mcmodel=small", "-m32", "-mx32", "-msse",
    "-msse4.2", "-mavx2", "-mred-zone",
    "-march=native", "-mtune=native", "-mabi=ms", "-o", "-oother.o", "-c", "-S", "-E", "-xc++", "-x",
    "-fplugin=evil.so", "-B/tmp", "-specs=x", "@flags", "-flto", "-flto=auto", "-pg", "-p", "-fsanitize=address",
    "-fstack-protector-all", "-fstack-protector", "-Wa,-I/etc", "-Wl,-x", "-Wp,-MD,x", "-Xclang", "-Xassembler",
    "-ffile-prefix-map=a=b", "-fdebug-prefix-map=a=b", "-save-temps", "-save-temps=obj", "-MD", "-MF", "-M",
    "-fdump-tree-all", "-fstack-usage", "-fprofile-generate", "--sysroot=/", "-gsplit-dwarf", "-gz", "-fmodules",
    "-fdiagnostics-format=json", "-fsyntax-only", "-fshort-enums", "-fhosted", "-lm", "-L/lib", "other.c", "", "-",
    "-fcoverage-compilation-dir=/x", "-fno-integrated-as", "-v", "-###", "-dD", "-fpack-struct", "-Dx\ny"])
def test_flags_that_break_the_contract_are_refused_by_name(one: str, flag: str) -> None:
    with pytest.raises(UsageError, match="flag") as caught:
        compiled("int a;\n", one, flag)
    assert repr(flag)[1:-1] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("flags", [
    ("-O0", "-DNAME", "-DTEXT=\"a b\"", "-UNAME", "-Wextra", "-Wno-unused", "-Werror", "-std=c11", "-g"),
    ("-O2", "-DNAME=1", "-w", "-std=gnu99", "-g3", "-fno-strict-aliasing", "-fwrapv", "-fomit-frame-pointer", "-I."),
    ("-Os", "-pedantic", "-gdwarf-4", "-fno-builtin", "-ffunction-sections", "-fdata-sections", "-fno-inline"),
    ("-O3", "-ggdb", "-mcmodel=kernel", "-mno-red-zone", "-fno-pic", "-Inowhere", "-Wno-error=implicit-int", "-Og"),
])
def test_flags_that_keep_it_are_passed_on(cc: str, flags: tuple[str, ...]) -> None:
    assert elf(compiled("int a;\n", cc, *flags))["e_machine"] == "EM_X86_64"


def test_what_sandbox_cflags_prints_makes_the_same_kind_of_object_without_us(cc: str) -> None:
    if "zig" in cc:
        pytest.skip("zig has headers of its own before those of -isystem")
    write("dir/sub/x.h", SUB)
    write("dir/my.c", PROGRAM)
    subprocess.run([cc, *cflags(), "-O2", "-Werror", "-Wall", "-c", "dir/my.c", "-o", "my.o"], check=True)
    file = ELFFile(io.BytesIO(Path("my.o").read_bytes()))
    assert file.get_section_by_name(".eh_frame") is None and file.get_section_by_name(".debug_frame") is not None


# -- what the compiler says -------------------------------------------------------------------------------------
def test_an_error_is_the_compilers_own_text_once_with_the_place(cc: str) -> None:
    found = error("int a;\nint f(void) { return one; }\nint g(void) { return two; }\n", cc)
    assert (found.file, found.line) == ("dir/my.c", 2) and "return one;" in found.output
    assert len(re.findall(r"dir/my.c:2:\d+: error", found.output)) == 1 == found.output.count("'two'")
    assert "~module" not in str(found) and "slab-sandbox" not in str(found) and "/tmp" not in str(found)


def test_an_error_in_an_included_file_names_that_file(cc: str) -> None:
    write("dir/sub/wrong.h", "\n\nint c = ;\n")
    found = error('int a;\n#include "sub/wrong.h"\n', cc)
    assert (found.file, found.line) == ("dir/sub/wrong.h", 3) and "In file included from dir/my.c:2:" in found.output


def test_a_missing_include_is_told_by_the_compiler(cc: str) -> None:
    found = error('int a;\n#include "nope.h"\n', cc)
    assert found.line == 2 and "nope.h" in found.output and found.output.count("nope.h") <= 2


def test_a_function_that_nobody_declared_is_an_error_with_every_compiler(cc: str) -> None:
    assert error("int main(void) { return nobody(); }\n", cc).line == 1


def test_warnings_of_a_good_source_are_kept(cc: str) -> None:
    text = "int main(void) { int nothing; return 0; }\n"
    made = compiled(text, cc)
    assert "dir/my.c:1:" in made.warnings and "unused variable" in made.warnings
    assert compiled(text, cc).warnings == made.warnings                         # out of the cache as well
    assert compiled(text, cc, "-w").warnings == ""
    assert compiled("int fine;\n", cc).warnings == ""


def test_words_are_the_same_whatever_the_users_language(cc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = error("int b = ;\n", cc).output
    for variable in ("LC_ALL", "LANG", "LANGUAGE", "LC_MESSAGES"):
        monkeypatch.setenv(variable, "de_DE.UTF-8")
    monkeypatch.setenv("GCC_COLORS", "error=01;31")
    assert error("int b = ;\n", cc).output == said and "\x1b" not in said


def test_floating_point_is_explained_behind_the_compilers_words() -> None:
    if not here("gcc"):
        pytest.skip("gcc is not here")
    found = error("int a;\ndouble f(double x) { return x * 2.0; }\n", "gcc")
    assert found.line == 2 and "SSE" in found.output
    assert "kernel code must not use floating point or SSE" in found.output.splitlines()[-1]


def test_an_error_in_inline_assembly_names_the_source(cc: str) -> None:
    found = error('void f(void) {\n    __asm__("bogus %eax, %ebx");\n}\n', cc)
    assert (found.file, found.line) == ("dir/my.c", 2) and "slab-sandbox" not in found.output


# -- files that are no source -----------------------------------------------------------------------------------
def test_what_is_no_source_is_refused_with_its_name(one: str, place: Path) -> None:
    Path("dir/folder.c").mkdir()
    Path("dir/binary.c").write_bytes(b"\x7fELF\0\xff")
    Path("dir/latin.c").write_bytes(b"// \xfc\n")
    Path("dir/large.c").write_bytes(b"\n" * ((1 << 20) + 1))
    Path("dir/link.c").symlink_to(place.parent / "secret.h")
    os.mkfifo("dir/pipe.c")
    write("dir/my.S", "nop\n")
    write("dir/my.cpp", "int a;\n")
    for name, words in (("nowhere", "no such file"), ("folder", "a directory"), ("binary", "not a text file"),
                        ("latin", "not a text file"), ("large", "larger than 1 MiB"), ("pipe", "not a regular file"),
                        ("link", "leads outside"), ("my.S", "assembly is not compiled"), ("my.cpp", "must end in .c")):
        file = f"dir/{name}" if "." in name else f"dir/{name}.c"
        with pytest.raises(ProgramError, match=re.escape(words)) as caught:
            compile_c(Path(file), file, COptions(one))
        assert str(caught.value).startswith(f"{file}: ")


# -- confinement ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "line"), [
    ('#include "{secret}"\n', 1),
    ("#include <{secret}>\n", 1),
    ('int a;\n\n#include "../../secret.h"\n', 3),
    ('/* long\n   comment */ # \\\n  include "../../secret.h"\n', 2),
    ('#include "linked.h"\n', 1),
    ('#include "deeper/further.h"\n', 0),
    ('#define WHERE "../../secret.h"\n#include WHERE\n', 0),
    ('#import "../../secret.h"\n', 1),
    ('#include_next "../../secret.h"\n', 1),
    ('#line 2 "{secret}"\nint b = ;\n', 0),
    ('# 2 "{secret}"\nint b = ;\n', 0),
    ('#line 2 "../secret.h"\nint b = ;\n', 0),
    ('#line 2 "/proc/self/cwd/../secret.h"\nint b = ;\n', 0),
    ('#include "/proc/self/cwd/~module/../../secret.h"\n', 0),
    ('#include "nothing.h"\n#include "../../secret.h"\n', 0),
    ('#include "../../secret.h"\n#include "nothing.h"\n', 1),
], ids=range(16))
def test_a_file_outside_is_refused_before_a_word_of_it_is_shown(cc: str, place: Path, text: str, line: int) -> None:
    secret = place.parent / "secret.h"
    Path("dir/linked.h").symlink_to(secret)
    Path("dir/deeper").symlink_to(place.parent)
    write("../further.h", f"#error {SECRET}\n")
    found = error(text.format(secret=secret), cc)
    assert SECRET not in str(found) and SECRET not in found.output
    if "nothing.h\"\n#" in text:                            # where a compiler may stop before it
        assert "nothing.h" in found.output or "lies outside" in found.output
    else:
        assert "lies outside of the module's directory, dir/" in str(found)
        assert not line or str(found).startswith(f"dir/my.c:{line}: ")
        assert not line or (found.file, found.line) == ("dir/my.c", line)


def test_an_include_that_leaves_and_comes_back_is_the_modules_own(cc: str) -> None:
    write("dir/own.h", "#define OWN 1\n")
    write("dir/sub/x.h", '#include "../own.h"\n')
    assert set(compiled('#include "sub/x.h"\nint a = OWN;\n', cc).sources) == {
        "dir/my.c", "dir/sub/x.h", "dir/sub/../own.h"}


def test_a_generated_source_may_name_the_file_that_it_was_made_from(cc: str) -> None:
    found = error('#line 7 "parser.y"\nint b = ;\n', cc)
    assert (found.file, found.line) == ("parser.y", 7)
    assert b"parser.y" in compiled('#line 7 "parser.y"\nconst char *const file = __FILE__;\n', cc).data


def test_an_include_that_no_compiler_reads_is_no_reason_to_refuse(cc: str) -> None:
    assert compiled('#ifdef _WIN32\n#include "../../secret.h"\n#include <windows.h>\n#endif\nint a;\n', cc).data


@pytest.mark.parametrize("flag", ["-I..", "-I/etc", "-include../secret.h", "-isystem/usr/include", "-iquote..",
                                  "-imacros/etc/passwd", "-Iout"])
def test_flags_that_lead_outside_are_refused(one: str, place: Path, flag: str) -> None:
    Path("dir/out").symlink_to(place.parent)
    write("secret.h", "\n")
    with pytest.raises(UsageError, match="leads outside of the module's directory"):
        compiled("int a;\n", one, flag)


def test_a_file_that_a_flag_includes_must_be_one(one: str) -> None:
    os.mkfifo("dir/pipe.h")
    for name in ("pipe.h", "nowhere.h"):
        with pytest.raises(UsageError, match=f"-include {name}: no such file"):
            compiled("int a;\n", one, "-include", name)


def test_pipes_devices_and_large_files_are_refused_before_a_compiler_reads_them(one: str) -> None:
    os.mkfifo("dir/pipe.h")
    Path("dir/large.h").write_bytes(b"\n" * ((1 << 20) + 1))
    Path("dir/zero.h").symlink_to("/dev/zero")
    Path("dir/folder.h").mkdir()
    start = time.monotonic()
    for name, words in (("pipe.h", "no regular file"), ("/dev/zero", "no regular file"), ("zero.h", "no regular file"),
                        ("large.h", "larger than 1 MiB")):
        found = error(f'int a;\n#include "{name}"\n', one)
        assert (found.file, found.line) == ("dir/my.c", 2) and words in str(found)
    assert "folder.h" in error('#include "folder.h"\n', one).output
    assert time.monotonic() - start < 5


def test_a_pipe_behind_a_macro_ends_with_the_time_that_a_compiler_has(
    cc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_compiler(cc)
    monkeypatch.setattr(process, "SECONDS", 0.5)
    os.mkfifo("dir/pipe.h")
    assert "takes longer than" in str(error('#define WHERE "pipe.h"\n#include WHERE\n', cc))


def test_a_source_that_includes_itself_is_the_compilers_to_refuse(cc: str) -> None:
    found = error('#include "my.c"\n', cc)
    assert "nested" in found.output and len(found.output) < 100_000


def test_a_bomb_of_macros_or_includes_is_bounded(one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_compiler(one)
    monkeypatch.setattr(process, "OUTPUT_BYTES", 1 << 20)
    lines = "".join(f"#define X{n} X{n - 1} X{n - 1} X{n - 1} X{n - 1}\n" for n in range(1, 12))
    start = time.monotonic()
    assert "MiB" in str(error(f"#define X0 int a;\n{lines}X11\n", one))
    write("dir/bomb.h", '#if __INCLUDE_LEVEL__ < 40\n#include "bomb.h"\n#include "bomb.h"\n#include "bomb.h"\n#endif\n')
    assert "MiB" in str(error('#include "bomb.h"\n', one))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("text", [
    'asm(".incbin \\"/etc/passwd\\"");',
    '__asm__(".INCLUDE \\"/etc/passwd\\"");',
    'void f(void) { __asm__ volatile("nop\\n\\t.inc" "bin \\"/etc/passwd\\"" ::: "memory"); }',
    'asm("\\56\\x69ncbin \\"/etc/passwd\\"");',
    'asm(R"(.incbin "/etc/passwd")");',
    'asm(".macro m a b\\n.\\\\a\\\\b \\"/etc/passwd\\"\\n.endm\\nm inc bin");',
    'asm(".macro m a\\n\\\\a\\n.endm\\nm \\".inc\\"");',
    'asm(".altmacro");',
    'void f(void) { asm(".inc%c0bin \\"/etc/passwd\\"" :: "i"(0)); }',
    'void f(void) { asm(".in{c|d}bin \\"/etc/passwd\\""); }',
    'void f(void) { asm("%c0 \\"/etc/passwd\\"" :: "i"(f)); }',
    'int x __attribute__((section(".data\\n.incbin \\"/etc/passwd\\"\\n#")));',
    'extern int y asm("a\\n.incbin \\"/etc/passwd\\"\\n"); int *z = &y;',
    '#define PASTE(a, b) a##b\nPASTE(as, m)(".incbin \\"/etc/passwd\\"");',
    '#pragma x "\nasm(".incbin \\"/etc/passwd\\"");',
    'int w __attribute__((foo(R"y("), foo("\\n.incbin \\"/etc/passwd\\"\\n"), foo(")y")));',
    'int a[9]; int v __attribute__((aligned(sizeof a[a[0]]), section(".data\\n.incbin \\"/etc/passwd\\"\\n#")));',
    '#ident "x\\"\\n.incbin \\"/etc/passwd\\"\\n#"',
], ids=range(18))
def test_inline_assembly_that_reads_files_is_refused(one: str, text: str) -> None:
    found = error(f"int a;\n{text}\n", one)
    assert "root:" not in found.output and "refused: it" in found.output and found.line in (2, 3)
    assert found.output.startswith(f"dir/my.c:{found.line}: ")


def test_a_raw_string_that_only_some_compilers_know_hides_nothing() -> None:
    text = '# 1 "a.c"\n#pragma x R"y(\nasm(".incbin \\"/etc/passwd\\"");\n#pragma x )y"\n'
    assert (file_directive(text) or ())[:2] == ("a.c", 2)
    assert (file_directive('# 1 "a.c"\nf(R"y("); asm(".incbin \\"x\\""); f(")y");\n') or ())[:2] == ("a.c", 1)


def test_every_compiler_is_asked_before_its_assembler_is(cc: str) -> None:
    for text in ('asm(".incbin \\"/etc/passwd\\"");', '__asm__(".include \\"/etc/passwd\\"");'):
        assert error(f"int a;\n\n{text}\n", cc).output.startswith("dir/my.c:3: ")


HIDDEN = (
    'void f(void) { asm(".inc{bin} \\"/etc/passwd\\"" ::); }',
    'extern char g asm(".incbi"); void f(void) { asm("s : %c0n \\"/etc/passwd\\"" :: "i"(&g)); }',
    'extern char g asm(".incbi"); void f(void) { asm("\\"s\\": %c0n \\"/etc/passwd\\"" :: "i"(&g)); }',
    '[ [gnu::section(".s,\\"aw\\"\\ns: .incbin \\"/etc/passwd\\"\\n.section .s")]] int x = 1;',
    'asm(".macro m x\\n.inc\\\\x \\"/etc/passwd\\"\\n.endm");',
)


@pytest.mark.parametrize("text", HIDDEN, ids=range(len(HIDDEN)))
def test_what_inline_assembly_hides_from_readers_of_c_is_seen_in_what_the_assembler_gets(cc: str, text: str) -> None:
    found = error(f"{text}\n", cc)
    assert "root:" not in found.output and ("refused: it" in found.output or "error:" in found.output)


INNOCENT = (
    'const char *words = ".incbin is refused, and .include too";',
    'void f(void) { asm volatile("cli; sti" ::: "memory"); }',
    'long f(void) { long r; asm("{movq %%gs:%c1, %0|mov %0, gs:%c1}" : "=r"(r) : "i"(8)); return r; }',
    'void f(void) { asm volatile("1: jmp 1f\\n.Lhere%=: nop\\n1:" :: "r"(0)); }',
    'unsigned f(unsigned a) { asm("bswap %0" : "+r"(a)); return a; }',
    'int x __attribute__((section(".data.x"), aligned(64)));',
    'void f(int port) { asm volatile("outb %b0, %w1" :: "a"(1), "Nd"(port)); }',
    'int f(int *p, int n) { int r; asm("lock; xaddl %0, %1" : "=r"(r), "+m"(*p) : "0"(n)); return r; }',
    'long f(long a, long b) { asm("add %2, %0" : "=r"(a) : "%0"(a), "r"(b)); return a; }',
)


def test_other_inline_assembly_compiles(cc: str) -> None:
    numbered = (re.sub(r"\b([fx])\b(?=\(| __attr)", rf"\1_{number}", text) for number, text in enumerate(INNOCENT))
    assert compiled("\n".join(numbered), cc).data


def test_a_precompiled_header_is_not_taken(one: str) -> None:
    if one != "gcc":
        pytest.skip("only gcc takes one by itself")
    write("dir/x.h", "int right;\n")
    flags = find_compiler(one).flags
    subprocess.run(["gcc", *flags, "-x", "c-header", "dir/x.h", "-o", "dir/x.h.gch"], check=True)
    try:
        made = compiled('#include "x.h"\n', one)
    except CompileError as refused:
        assert "precompiled" in str(refused)
    else:
        assert b"right" in made.data


# -- the cache --------------------------------------------------------------------------------------------------
def test_compiling_the_same_again_does_not_start_the_compiler(one: str) -> None:
    cc, starts = counting(one)
    write("dir/x.h", "int x;\n")
    first = compiled('#include "x.h"\n#include <string.h>\n', cc)
    before = starts()
    again = compiled('#include "x.h"\n#include <string.h>\n', cc)
    assert starts() == before > 0 and again == first
    compiled('#include "x.h"\n#include <string.h>\n', cc, "-O2")
    assert starts() > before


def test_a_new_process_asks_a_known_compiler_for_its_version_alone(one: str) -> None:
    cc, starts = counting(one)
    compiled("int a;\n", cc)
    before = starts()
    subprocess.run([sys.executable, "-c", "import sys; from pathlib import Path\n"
                    "from sandbox.toolchain.c.compiler import compile_c\n"
                    "from sandbox.toolchain.c.options import COptions\n"
                    "compile_c(Path('dir/my.c'), 'dir/my.c', COptions(sys.argv[1]))", cc],
                   check=True, env={**os.environ, "PYTHONPATH": str(INCLUDE.parents[2])})
    assert starts() == before + 1


@pytest.mark.parametrize("change", ["source", "header", "asked for", "name", "compiler"])
def test_what_went_in_and_changed_is_compiled_again(one: str, change: str) -> None:
    text = '#include "sub/x.h"\n#if __has_include("maybe.h")\nint maybe;\n#endif\n'
    write("dir/sub/x.h", "#include <limits.h>\nint x = 1;\n")
    name, cc = "dir/my.c", script("bin/cc-of-ours", f'exec {one} "$@"')
    before = compiled(text, cc)
    if change == "source":
        text += "int more;\n"
    elif change == "header":
        write("dir/sub/x.h", "#include <limits.h>\nint x = 2;\n")
    elif change == "asked for":
        write("dir/maybe.h", "")
    elif change == "name":
        name = "dir/other.c"
    else:
        cc = script("bin/another-cc", f'exec {one} "$@" -DBY_ANOTHER\n')
        text += "#ifdef BY_ANOTHER\nint another;\n#endif\n"
        before = compiled(text, script("bin/cc-of-ours", f'exec {one} "$@"'))
    after = compiled(text, cc, name=name)
    found = compiled(text, cc, name=name)
    assert after.data == found.data != before.data


def test_a_header_that_appears_before_another_on_the_path_is_seen(one: str) -> None:
    write("dir/two/x.h", "int from_two;\n")
    Path("dir/one").mkdir()
    text, flags = "#include <x.h>\n", ("-Ione", "-Itwo")
    assert b"from_two" in compiled(text, one, *flags).data
    write("dir/one/x.h", "int from_one;\n")
    assert b"from_one" in compiled(text, one, *flags).data
    write("dir/x.h", "int nearest;\n")
    assert b"nearest" in compiled('#include "x.h"\n', one, *flags).data


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b'{"object": 5}', b'{"object": "AAAA", "hash": 1}', None])
def test_a_damaged_entry_is_no_entry(one: str, place: Path, damage: bytes | None) -> None:
    first = compiled("int a;\n", one)
    entries = list((place.parent / "cache").rglob("object-*.json"))
    assert len(entries) == 1
    entries[0].write_bytes(entries[0].read_bytes()[:-40] if damage is None else damage)
    assert compiled("int a;\n", one) == first
    assert compiled("int a;\n", one) == first


def test_a_cache_that_cannot_be_written_is_no_error(one: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("file", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "file"))
    assert compiled("int a;\n", one).data == compiled("int a;\n", one).data
    monkeypatch.setenv("SANDBOX_CACHE", "0")
    assert compiled("int a;\n", one).data


# -- which compiler ---------------------------------------------------------------------------------------------
def test_a_compiler_that_is_not_here_is_missing_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("no-such-compiler", "no-such-compiler -m64", "/nowhere/gcc"):
        with pytest.raises(CompilerMissing, match="install gcc or clang") as caught:
            find_compiler(command)
        assert caught.value.command == command
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(CompilerMissing, match="no-such-compiler"):
        find_compiler(None)
    with pytest.raises(UsageError, match="quotation mark"):
        find_compiler("gcc 'x")


def test_without_any_compiler_the_sentence_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(place / "empty"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CompilerMissing, match=r"no C compiler is here: install gcc or clang .*slab-sandbox\[c\]"):
        find_compiler(None)


def test_gcc_goes_before_clang_before_cc_and_cc_of_the_environment_before_all(
    one: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which(one.split()[0])
    monkeypatch.delenv("CC", raising=False)
    Path("bin").mkdir()
    Path("bin/as").symlink_to(shutil.which("as") or "as")
    for name in ("cc", "clang", "gcc", "mine"):
        path = script(f"bin/{name}", f'exec {real} "$@"')
        monkeypatch.setenv("PATH", f"{place}/bin{os.pathsep}/nowhere{name}")
        if name != "mine":
            assert find_compiler(None).command[0] == path
    monkeypatch.setenv("CC", "mine -DONE")
    assert find_compiler(None).command[:2] == (f"{place}/bin/mine", "-DONE")
    assert find_compiler("gcc").command[0] == f"{place}/bin/gcc"


def test_a_compiler_for_another_machine_is_refused(one: str) -> None:
    for_arm = script("bin/aarch64-linux-gnu-gcc", f"""{one} "$@" || exit 1
for last; do case "$last" in *.o) printf '\\267' | dd of="$last" bs=1 seek=18 conv=notrunc 2>/dev/null;; esac; done""")
    with pytest.raises(EngineError, match=r"aarch64-linux-gnu-gcc .*does not compile for x86-64 ELF"):
        find_compiler(for_arm)
    with pytest.raises(EngineError, match="does not compile for x86-64"):
        find_compiler("true")
    with pytest.raises(EngineError, match="is no C compiler"):
        find_compiler("false")


def test_flags_that_a_compiler_does_not_know_are_dropped_or_replaced(one: str) -> None:
    refusing = ('for flag; do case "$flag" in {0}) echo "cc: error: unknown argument: \'$flag\'" >&2; exit 1;; esac\n'
                f'done\nexec {one} "$@"')
    old = script("bin/old-cc", refusing.format("-fcf-protection=none|-mgeneral-regs-only"))
    flags = find_compiler(old).flags
    assert "-fcf-protection=none" not in flags and "-mno-sse" in flags and "-mno-red-zone" in flags
    assert compiled("int a;\n", old).data
    deaf = f'for flag; do shift; [ "$flag" = -mgeneral-regs-only ] || set -- "$@" "$flag"; done\nexec {one} "$@"'
    assert "-mno-sse" in find_compiler(script("bin/deaf-cc", deaf)).flags          # it says nothing, and does nothing
    with pytest.raises(EngineError, match="does not know -mno-red-zone, which kernel code needs"):
        find_compiler(script("bin/no-cc", refusing.format("-mno-red-zone")))


def test_a_compiler_that_dies_or_never_ends_is_one_sentence(one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = script("bin/dying", f'case "$*" in *unit.o*) kill -SEGV $$;; esac\nexec {one} "$@"')
    assert str(error("int a;\n", dying)) == "dir/my.c: the compiler was ended by signal 11 (Segmentation fault)"
    silent = script("bin/silent", f'case "$*" in *unit.o*) exit 3;; esac\nexec {one} "$@"')
    assert str(error("int a;\n", silent)) == "dir/my.c: the compiler failed and said nothing"
    slow = script("bin/slow", f'case "$*" in *unit.o*) sleep 60;; esac\nexec {one} "$@"')
    find_compiler(slow)
    monkeypatch.setattr(process, "SECONDS", 0.5)
    start = time.monotonic()
    assert "takes longer than" in str(error("int a;\n", slow)) and time.monotonic() - start < 5


def test_nothing_is_left_of_a_compilation(one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    compiled("int a;\n", one)
    error("int b = ;\n", one)
    assert not list((tmp_path / "temporary").iterdir()) and [path.name for path in Path("dir").iterdir()] == ["my.c"]
