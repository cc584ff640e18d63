"""A class's allocators: one row for each folder whatever is in it, in the same order, with the same marks."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sandbox.conformance.batch import Batch, Row
from sandbox.conformance.folders import Folder, folders
from sandbox.conformance.formats import batch_to_data, csv_header, csv_row
from sandbox.conformance.outcome import CheckOptions
from sandbox.conformance.rubric import parse
from sandbox.errors import UsageError
from sandbox.isolated import Bounds

WORKER = "tests.conformance.hostile_checker"
SMALL = CheckOptions(seed=5, arena="8K", shorten=False)
GOOD = (Path(__file__).parent / "allocators" / "freelist.asm").read_text()
RUBRIC = parse("[points]\nreturns = 4\nregisters = 2\nconfined = 2.5\nping_pong = 1", "r.toml")


def hostile(body: str) -> str:
    """An allocator whose ``allocate`` is these instructions."""
    return f".text\ninit:\n    ret\nallocate:\n    {body}\ndeallocate:\n    ret\nstats:\n    ret\n"


SOURCES: dict[str, tuple[str | bytes, str]] = {
    "clobbers": (hostile("xor ebx, ebx\n ret"), "rbx"),
    "crashes": ("# crash\n", "the emulator broke down: the guest's process was ended by SIGABRT: qemu: assertion"),
    "exits": (hostile("mov edi, 0xf4\n mov edx, edi\n mov eax, 0x10\n out dx, al\n jmp allocate"), "exit"),
    "halts": (hostile("cli\n hlt"), "halt"),
    "loops": (hostile("jmp allocate"), "does not return within 200,000 instructions"),
    "ok": (hostile("lea rdi, [rip + words]\n sub rsp, 8\n call kprintf\n mov edi, 0\n call panic")
           + ".rodata\nwords: .asciz \"ok\\n\"\n", "panic"),
    "overwrites": (hostile("lea rax, [rip + panic]\n mov [rax], rax\n ret"), "outside of its memory"),
    "quits": ("# quit\n", "the emulator broke down: the guest's process left with status 7"),
    "stackless": (hostile("xor esp, esp\n push rax\n ret"), "fault"),
    # none of these is assembled
    "binary": (b"\x7fELF\0\1\2", "not a text file"),
    "bomb": (".rept 100000000\n nop\n.endr\n", "bomb/allocator.asm:1: "),
    "reads_etc": (hostile("ret") + '.data\n.incbin "/etc/passwd"\n', "lies outside the program's directory"),
    "reads_others": ('.include "../good/allocator.asm"\n', "lies outside the program's directory"),
    "reads_link": (hostile("ret") + '.data\n.incbin "secret"\n', "lies outside the program's directory"),
    "reads_clock": (hostile("rdtsc\n ret"), "rdtsc reads the host"),
    "nameless": ("my_alloc:\n ret\n", "it does not define init, allocate, deallocate, stats"),
    "typo": (hostile("move rax, 1"), "typo/allocator.asm:5: "),
}
STRANGE = {
    "=HYPERLINK(1)": "there is no .asm or .c file in it",
    "device": "allocator.asm is not a file",
    "dangling": "cannot be read: No such file or directory",
    "directory": "allocator.asm is not a file",
    "empty": "there is no .asm or .c file in it",
    "hidden": "there is no .asm or .c file in it",
    "linked away": "allocator.asm is a link to a file outside of the folder",
    "linked": "allocator.asm is a link to a file outside of the folder",
    "loop": "cannot be read: ",
    "loop inside": "cannot be read: ",
    "new\nline": "there is no .asm or .c file in it",
    "two": "there are 2 .asm files in it (a.asm, b.asm), and none is called allocator.asm or allocator.c",
}


@pytest.fixture(scope="module")
def class_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("class")
    for name, (source, _) in SOURCES.items():
        (root / name).mkdir()
        (root / name / "allocator.asm").write_bytes(source if isinstance(source, bytes) else source.encode())
    (root / "reads_link" / "secret").symlink_to("/etc/passwd")
    (root / "good").mkdir()
    (root / "good" / "mine.asm").write_text(GOOD)
    (root / "good" / "README").write_text("beside it")
    for name in STRANGE:
        if name == "loop":
            (root / name).symlink_to("loop")
        elif name == "dangling":
            (root / name).symlink_to("nowhere")
        else:
            (root / name).mkdir()
    os.mkfifo(root / "device" / "allocator.asm")
    (root / "directory" / "allocator.asm").mkdir()
    (root / "hidden" / ".allocator.asm").write_text(GOOD)
    (root / "linked away" / "allocator.asm").symlink_to("/etc/passwd")
    (root / "linked" / "allocator.asm").symlink_to("../good/mine.asm")
    (root / "loop inside" / "allocator.asm").symlink_to("allocator.asm")
    for name in ("a.asm", "b.asm", "._a.asm"):
        (root / "two" / name).write_text(GOOD)
    (root / "marks.csv").write_text("beside them")
    (root / ".hidden").mkdir()
    return root


@pytest.fixture(scope="module")
def rows(class_directory: Path) -> list[Row]:
    return list(Batch(class_directory, folders(class_directory, "allocator.asm"), SMALL, RUBRIC, worker=WORKER).rows())


# -- thirty folders ---------------------------------------------------------------------------------------------
def test_thirty_folders_end_with_thirty_rows_in_order_of_their_names(rows: list[Row]) -> None:
    assert len(rows) == 30
    assert [row.student for row in rows] == sorted([*SOURCES, *STRANGE, "good"])


@pytest.mark.parametrize("student", SOURCES)
def test_a_hostile_source_is_a_row_with_the_reason(rows: list[Row], student: str) -> None:
    [row] = [row for row in rows if row.student == student]
    said = row.outcome.error or row.first_failure
    assert SOURCES[student][1] in said and said and "\n" not in said
    assert not row.grade.passed
    assert (row.outcome.report is None) == bool(row.outcome.error) == (row.first_failure == "")


@pytest.mark.parametrize("student", STRANGE)
def test_a_folder_without_a_source_of_its_own_is_a_row_with_the_reason(rows: list[Row], student: str) -> None:
    [row] = [row for row in rows if row.student == student]
    assert row.outcome.error.startswith(STRANGE[student])
    assert (row.grade.points, row.outcome.report, row.outcome.loaded) == (0, None, False)


def test_the_only_source_is_taken_whatever_it_is_called_and_earns_its_points(rows: list[Row]) -> None:
    [row] = [row for row in rows if row.student == "good"]
    assert row.outcome.report is not None and row.outcome.report.allocator == "good/mine.asm"
    assert (row.grade.points, row.grade.passed, row.outcome.error) == (row.grade.possible, True, "")


def test_what_a_guest_prints_earns_nothing(rows: list[Row]) -> None:
    [row] = [row for row in rows if row.student == "ok"]
    assert row.grade.points <= 4.5 and not row.grade.by_line["returns"].passed


def test_an_allocator_whose_emulator_breaks_is_told_apart_from_one_that_cannot_be_loaded(rows: list[Row]) -> None:
    loaded = {row.student: row.outcome.loaded for row in rows if row.outcome.report is None}
    assert loaded["crashes"] and loaded["quits"] and not loaded["typo"] and not loaded["binary"]


def test_an_emulator_that_hangs_is_ended_and_the_row_says_that_the_host_has_decided(tmp_path: Path) -> None:
    found = write(tmp_path, a="# hang\n")
    [row] = Batch(tmp_path, found, SMALL, RUBRIC, bounds=Bounds(seconds=1.5), worker=WORKER).rows()
    assert "took more than 1.5 seconds and was ended" in row.outcome.error and row.outcome.loaded
    assert row.outcome.error.endswith("(this bound alone depends on the host; every other one is in instructions)")


# -- as a table and as data -------------------------------------------------------------------------------------
def test_the_table_has_a_line_for_each_row_and_reads_back(rows: list[Row]) -> None:
    lines = [csv_header(RUBRIC), *map(csv_row, rows)]
    assert not any("\n" in line for line in lines)
    table = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert list(table[0]) == ["student", "points", "returns", "registers", "confined", "ping_pong", "reason", "error"]
    good = next(row for row in table if row["student"] == "good")
    assert list(good.values()) == ["good", "9.5", "4", "2", "2.5", "1", "", ""]
    clobbers = next(row for row in table if row["student"] == "clobbers")
    assert "rbx" in clobbers["reason"] and clobbers["error"] == ""
    for row, cells in zip(rows, table, strict=True):
        assert float(cells["points"]) == sum(float(cells[name]) for name in RUBRIC.points) == row.grade.points


def test_a_name_that_is_a_formula_or_breaks_the_line_is_only_text_in_the_table(rows: list[Row]) -> None:
    table = {row.student: next(csv.reader([csv_row(row)]))[0] for row in rows}
    assert table["=HYPERLINK(1)"] == "'=HYPERLINK(1)" and table["new\nline"] == "new\\nline"


def test_the_data_says_the_same_as_the_table(rows: list[Row]) -> None:
    data = json.loads(json.dumps(batch_to_data(rows, 30, SMALL.seed)))
    assert (data["format"], data["version"], data["complete"], data["seed"]) == ("sandbox check --batch", 1, True, 5)
    for row, student in zip(rows, data["students"], strict=True):
        assert student["student"] == row.student and student["error"] == row.outcome.error
        assert student["points"] == float(row.grade.points)
        assert (student["report"] is None) == (row.outcome.report is None)


def test_the_same_class_gets_the_same_marks_one_at_a_time(class_directory: Path, rows: list[Row]) -> None:
    some = [folder for folder in folders(class_directory, "allocator.asm") if folder.student in ("good", "two")]
    again = list(Batch(class_directory, some, SMALL, RUBRIC, jobs=1, worker=WORKER).rows())
    assert again == [row for row in rows if row.student in {folder.student for folder in some}]


# -- interrupted ------------------------------------------------------------------------------------------------
def write(root: Path, **sources: str) -> list[Folder]:
    for name, source in sources.items():
        (root / name).mkdir()
        (root / name / "allocator.asm").write_text(source)
    return folders(root, "allocator.asm")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_rows_that_are_done_are_kept_when_the_iteration_is_closed_and_no_process_is_left(tmp_path: Path) -> None:
    found = write(tmp_path, a="nothing: ret\n", b="# wait\n", c="nothing: ret\n", d="# hang\n")
    batch = Batch(tmp_path, found, SMALL, RUBRIC, jobs=2, worker=WORKER)
    with closing(batch.rows()) as rows:
        assert next(rows).student == "a"
        wait_for(lambda: batch.done() == 2 and (tmp_path / "waiting").exists())
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert [row.student for row in batch.rest()] == ["c"]
    assert batch.running() == []


def test_ctrl_c_keeps_the_rows_that_are_done(tmp_path: Path) -> None:
    write(tmp_path, a="nothing: ret\n", b="# wait\n")
    (tmp_path / "c").mkdir()
    code = ("import sys; from sandbox.conformance import batch; from sandbox.cli import main; "
            f"batch.WORKER = {WORKER!r}; sys.exit(main(sys.argv[1:]))")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", "--batch", str(tmp_path), "--jobs", "2", "-o", str(tmp_path / "out.csv")],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True)
    wait_for(lambda: (tmp_path / "waiting").exists() and "does not define" in (tmp_path / "out.csv").read_text())
    time.sleep(0.2)                              # c, which needs no process, is done behind a, while b waits
    os.killpg(process.pid, signal.SIGINT)        # as a terminal does: the children hear it too
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "") and err.endswith("error: interrupted\n")
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["student"] for row in table] == ["a", "c"]
    assert table[1]["error"] == "there is no .asm or .c file in it"


# -- what is no batch -------------------------------------------------------------------------------------------
def test_a_directory_that_is_no_class_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory, words in ((tmp_path / "no", "No such file"), (tmp_path / "file", "Not a directory"),
                             (tmp_path, "there is no folder in it")):
        with pytest.raises(UsageError, match=words):
            folders(directory, "allocator.asm")


def test_options_that_cannot_be_end_the_batch_and_are_no_rows(tmp_path: Path) -> None:
    found = write(tmp_path, a=GOOD)
    with pytest.raises(UsageError, match="an arena is a multiple of 4096"):
        list(Batch(tmp_path, found, CheckOptions(arena=5), RUBRIC).rows())
    with pytest.raises(UsageError, match="at least one job"):
        Batch(tmp_path, found, SMALL, RUBRIC, jobs=0)


def test_the_named_source_is_taken_from_several(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("helper.asm", "mine.asm", "malloc.s"):
        (tmp_path / "a" / name).touch()
    assert folders(tmp_path, "mine.asm") == [Folder("a", Path("a/mine.asm"))]
    assert folders(tmp_path, "malloc.s") == [Folder("a", Path("a/malloc.s"))]
    assert folders(tmp_path, "other.asm")[0].source is None


@pytest.mark.parametrize(("files", "taken"), [
    ("allocator.c util.c", "allocator.c util.c"), ("z.c allocator.c a.c", "allocator.c a.c z.c"),
    ("b.c a.c", "a.c b.c"), ("a.o b.c", "b.c a.o"), ("a.o b.o", "a.o b.o"), ("a.c a.o b.o", "a.c b.o"),
    ("allocator.asm util.c", "allocator.asm"), ("mine.asm", "mine.asm"), ("mine.asm .util.c", "mine.asm"),
    ("mine.asm allocator.c util.c", "allocator.c util.c"),
])
def test_all_files_in_c_are_one_allocator_the_named_one_first(files: str, taken: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "deeper").mkdir(parents=True)
    for name in (*files.split(), "memlib.h", "deeper/more.c"):
        (tmp_path / "a" / name).touch()
    [folder] = folders(tmp_path, "allocator.asm")
    assert folder.source is not None and folder.error == ""
    assert [path.name for path in (folder.source, *folder.modules)] == taken.split()


@pytest.mark.parametrize("files", ["mine.asm util.c", "mine.asm util.o", "a.asm b.asm"])
def test_files_of_both_kinds_of_which_none_is_named_are_an_error(files: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in files.split():
        (tmp_path / "a" / name).touch()
    [folder] = folders(tmp_path, "allocator.asm")
    assert folder.source is None and folder.error.endswith("and none is called allocator.asm or allocator.c")


def test_a_module_that_links_away_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "allocator.c").touch()
    (tmp_path / "a" / "util.c").symlink_to("/etc/passwd")
    [folder] = folders(tmp_path, "allocator.asm")
    assert folder.source is None and folder.error == "util.c is a link to a file outside of the folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0)
    assert folders(tmp_path, "x.asm") == [Folder("a", None, "cannot be read: Permission denied")]


def test_a_batch_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    (tmp_path / "a").mkdir()
    assert len(list(Batch(tmp_path, folders(tmp_path, "x.asm"), SMALL, RUBRIC).rows())) == 1
    assert threading.active_count() == before
