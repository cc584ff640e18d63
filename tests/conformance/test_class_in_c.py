"""What a class hands in that is written in C: static memory of any size, text on the console, and several files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from sandbox.cli import main
from sandbox.conformance import LINES, Report, check, source_of_test, workloads
from sandbox.conformance.batch import Row
from sandbox.conformance.findings import Play
from sandbox.conformance.formats import csv_header, csv_row, gradescope
from sandbox.conformance.operations import Script
from sandbox.conformance.outcome import Outcome
from sandbox.conformance.player import play
from sandbox.conformance.rubric import default_rubric, parse
from sandbox.conformance.subject import RAM, Subject, ram_for
from sandbox.guest.allocator import AllocatorOptions
from sandbox.guest.images import assemble_allocator
from sandbox.toolchain import packaged

from ..compilers import needs_compiler

pytestmark = needs_compiler

CLASSES = """
#include <sandbox.h>
#include <stdio.h>
static char heap[HEAP];
static u64 used;
static struct node {{ struct node *next; }} *lists[64];

void *malloc(u64 size)
{{
    unsigned power = 5;
    {more}
    if (size > sizeof heap)
        return 0;
    while (((u64)1 << power) < size + 16)
        power++;
    struct node *chunk = lists[power];
    if (chunk) {{
        lists[power] = chunk->next;
    }} else {{
        if (((u64)1 << power) > sizeof heap - used)
            return 0;
        chunk = (void *)(heap + used);
        used += (u64)1 << power;
    }}
    *(u64 *)chunk = power;
    return (char *)chunk + 16;
}}

void free(void *pointer)
{{
    struct node *chunk = pointer ? (void *)((char *)pointer - 16) : 0;
    if (!chunk)
        return;
    u64 power = *(u64 *)chunk;
    chunk->next = lists[power];
    lists[power] = chunk;
}}
"""
SOME = ("allocate", 0, 40), ("allocate", 1, 100), ("free", 0)


def source(heap: str, more: str = "") -> str:
    return CLASSES.replace("HEAP", heap).format(more=more)


def written(tmp_path: Path, text: str, name: str = "allocator.c") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def played(file: Path) -> Play:
    with Subject(assemble_allocator(file, packaged.kernel_image(), AllocatorOptions(arena=4096)), 200_000) as subject:
        return play(subject, Script("some", SOME))


# -- memory -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of an allocator with 20 MiB of its own."""
    with patch.object(workloads, "LENGTH", 24):
        return check(written(tmp_path_factory.mktemp("large"), source("20 << 20")), arena="8K", shorten=False)


def test_an_allocator_with_much_static_memory_has_ram_for_it_and_can_be_exhausted(large: Report) -> None:
    assert [line.name for line in large.failed] == ["double_free", "wild_free"]
    assert large["exhaustion"].figures["large_capacity"] * large["exhaustion"].figures["large_size"] < 20 << 20


def test_a_saved_list_of_it_boots_as_much_ram(large: Report) -> None:
    assert large.options["ram"] > RAM + (20 << 20)
    assert f"{large.options['ram']}" in source_of_test(large, large["double_free"])


def test_ram_is_what_it_was_for_an_image_that_is_not_large() -> None:
    assert [ram_for(arena, 300 << 10) for arena in (8 << 10, 64 << 10, 2 << 20)] == [RAM, RAM, RAM + (2 << 20)]


# -- the console --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("more", ['printf("malloc %lu\\n", (unsigned long)size);', 'puts("malloc");', "putchar('m');",
                                  'fprintf(stderr, "%d", 1);', 'perror("malloc");', 'kprintf("malloc");'])
def test_text_on_the_console_is_no_breach(more: str, tmp_path: Path) -> None:
    found = played(written(tmp_path, source("64 << 10", more)))
    assert found.findings == [] and found.done == len(SOME)


@pytest.mark.parametrize("more", ["extern u32 console_lock; console_lock = 0;",
                                  "extern u32 console_lock; memset(&console_lock, 0, 4);",
                                  "extern u32 console_lock; (&console_lock)[1] = 1;"])
def test_a_store_of_its_own_into_the_consoles_lock_or_beside_it_is_a_breach(more: str, tmp_path: Path) -> None:
    text = source("64 << 10", more).replace("#include <stdio.h>", "#include <string.h>")
    found = played(written(tmp_path, text)).found("confined")
    assert found is not None and "the kernel's data" in found.reason


# -- points -------------------------------------------------------------------------------------------------------
def test_the_points_of_stats_are_nobodys_where_it_is_not_there(large: Report) -> None:
    assert "stats" not in {line.name for line in large} and len(large.lines) == len(LINES) - 1
    passing = replace(large, lines=tuple(replace(line, passed=True, reason="") for line in large.lines))
    grade = default_rubric().grade(passing)
    assert (int(grade.points), int(grade.possible), grade.passed) == (98, 98, True)
    assert parse("pass = 10\n[points]\nstats = 2\nleak = 8", "r.toml").grade(passing).passed
    assert not default_rubric().grade(large).passed


def test_a_table_has_an_empty_cell_for_it_and_gradescope_no_test(large: Report) -> None:
    rubric = default_rubric()
    outcome, grade = Outcome("a.c", 0, large), rubric.grade(large)
    [row] = csv.DictReader(io.StringIO(f"{csv_header(rubric)}\n{csv_row(Row('ada', outcome, grade))}\n"))
    assert (row["stats"], row["instructions"], row["points"]) == ("", "3", "86")
    assert row["reason"].startswith("double_free: ")
    results = gradescope(outcome, grade)
    assert len(results["tests"]) == len(LINES) - 1 and sum(test["max_score"] for test in results["tests"]) == 98
    assert all(mark["line"] != "stats" for mark in grade.to_dict()["marks"])


# -- files --------------------------------------------------------------------------------------------------------
def test_a_folder_with_several_files_is_one_allocator_and_its_lists_are_saved_with_all(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "class" / "ada"
    folder.mkdir(parents=True)
    text = source("64 << 10", "size = rounded(size);")
    written(folder, text.replace("#include <stdio.h>", '#include "util.h"'))
    written(folder, "u64 rounded(u64 size);\n", "util.h")
    written(folder, '#include <sandbox.h>\n#include "util.h"\nu64 rounded(u64 size) { return size; }\n', "util.c")
    assert main(["check", "--batch", str(tmp_path / "class"), "--arena", "8K", "--save", str(tmp_path / "lists")]) == 1
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["error"], row["returns"], row["overlap"]) == ("", "8", "10")
    saved = next((tmp_path / "lists" / "ada").glob("*.py")).read_text()
    assert str(folder / "util.c") in saved and str(folder / "allocator.c") in saved
