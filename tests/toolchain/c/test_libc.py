"""The C library's sources, headers and index: two compilers are the oracle."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from sandbox.toolchain.c.flags import CONTRACT, INCLUDE
from sandbox.toolchain.c.library import DEFINES, REPLACES, SOURCES, file_of, names
from sandbox.toolchain.packaged import kernel_image

FLAGS = (*CONTRACT, "-std=gnu11", "-nostdinc", f"-I{INCLUDE}", "-fno-common", "-Wall", "-Wextra", "-Werror")
HEADERS = sorted(str(path.relative_to(INCLUDE)) for path in INCLUDE.rglob("*.h"))


def compiler(cc: str) -> str:
    if shutil.which(cc) is None or platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip(f"needs {cc} for x86-64")
    return cc


def defined(path: Path) -> set[str]:
    """The names that an object defines for others."""
    with path.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name for symbol in table.iter_symbols()
                if symbol["st_info"]["bind"] != "STB_LOCAL" and symbol["st_shndx"] != "SHN_UNDEF"}


@pytest.mark.parametrize(("cc", "level"), [
    ("gcc", "-O2"), ("clang", "-Os"),
    *(pytest.param(cc, level, marks=pytest.mark.soak) for cc in ("gcc", "clang") for level in ("-O0", "-O1", "-O3"))])
def test_every_source_compiles_without_a_warning_and_defines_what_the_index_says(
        cc: str, level: str, tmp_path: Path) -> None:
    subprocess.run([compiler(cc), *FLAGS, level, "-c", *sorted(SOURCES.glob("*.c"))], check=True, cwd=tmp_path)
    assert {path.name: defined(path.with_suffix(".o")) for path in map(tmp_path.joinpath, DEFINES)} == \
        {source: set(defined) for source, defined in DEFINES.items()}
    assert {path.name for path in SOURCES.glob("*.c")} == DEFINES.keys()


@pytest.mark.parametrize("cc", ["gcc", pytest.param("clang", marks=pytest.mark.soak)])
def test_every_header_stands_alone(cc: str, tmp_path: Path) -> None:
    for number, header in enumerate(HEADERS):
        (tmp_path / f"{number}.c").write_text(f"#include <{header}>\n")
    subprocess.run([compiler(cc), *FLAGS, "-fsyntax-only", *(f"{number}.c" for number in range(len(HEADERS)))],
                   check=True, cwd=tmp_path)


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("standard", ["-std=c11", "-std=gnu17"])
def test_all_headers_go_together_in_any_order_twice_in_strict_c(cc: str, standard: str, tmp_path: Path) -> None:
    (tmp_path / "all.c").write_text("".join(f"#include <{header}>\n" for header in (*HEADERS, *reversed(HEADERS))))
    subprocess.run([compiler(cc), *FLAGS, standard, "-pedantic", "-fsyntax-only", "all.c"], check=True, cwd=tmp_path)


def test_the_index_finds_every_function_that_a_header_declares(tmp_path: Path) -> None:
    (tmp_path / "all.c").write_text("".join(f"#include <{header}>\n" for header in HEADERS if header != "sandbox.h"))
    subprocess.run([compiler("gcc"), *FLAGS, "-fsyntax-only", "-aux-info", "all.txt", "all.c"], check=True,
                   cwd=tmp_path)
    lines = (tmp_path / "all.txt").read_text().splitlines()
    declared = {line.split("*/ ")[1].split(" (")[0].split()[-1].lstrip("*") for line in lines if "*/ extern" in line}
    assert len(declared) > 120
    assert declared - names(False) - kernel_image().symbols.keys() == set()


def test_what_the_kernel_has_too_is_what_the_library_replaces() -> None:
    assert names(False) & kernel_image().symbols.keys() == REPLACES


def test_malloc_stands_on_the_allocator_where_there_is_one() -> None:
    assert file_of("malloc", False) == SOURCES / "malloc.c"
    assert file_of("realloc", True) == SOURCES / "malloc_allocator.c"
    assert file_of("calloc", True) == file_of("calloc", False) == SOURCES / "calloc.c"
    assert names(True) == names(False)
    assert file_of("kmalloc", True) is None
