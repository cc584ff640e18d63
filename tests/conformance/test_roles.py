"""The pack and what C allocators do: memory from the page allocator, no init, and the rest of malloc's family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import sandbox
from sandbox.conformance import Report, Script, check, source_of_test, workloads
from sandbox.conformance.findings import Play
from sandbox.conformance.folders import folders
from sandbox.conformance.operations import Operation
from sandbox.conformance.outcome import CheckOptions, outcome_of
from sandbox.conformance.player import play
from sandbox.conformance.report import LINES, OPTIONAL, ROLE_OF
from sandbox.conformance.rubric import default_rubric, parse
from sandbox.conformance.subject import Subject, page_room
from sandbox.guest.allocator import AllocatorOptions
from sandbox.guest.images import assemble_allocator
from sandbox.toolchain import packaged
from sandbox.toolchain.c.options import DEFAULT, COptions

from ..compilers import needs_compiler

pytestmark = needs_compiler

SOURCES = Path(__file__).parents[1] / "trace" / "allocators"
TAGS, MERGING = SOURCES / "tags.c", SOURCES / "merging.c"
ON_BREAK = COptions(None, ("-DON_BREAK",))
LIMIT = 200_000
ARENA = 32 << 10


def subject_of(source: Path, options: COptions = DEFAULT) -> Subject:
    allocator = AllocatorOptions(arena=ARENA)
    return Subject(assemble_allocator(source, packaged.kernel_image(), allocator, options), LIMIT)


def changed(tmp_path: Path, before: str, after: str) -> Path:
    """The boundary tags with one thing else."""
    text = TAGS.read_text()
    assert text.count(before) == 1, before
    path = tmp_path / "tags.c"
    path.write_text(text.replace(before, after))
    return path


def played(source: Path, *operations: Operation, rounds: int = 1, options: COptions = DEFAULT) -> Play:
    with subject_of(source, options) as subject:
        return play(subject, Script("some", operations, rounds))


# -- pages --------------------------------------------------------------------------------------------------------
def test_pages_that_it_takes_are_its_own_until_it_gives_them_back() -> None:
    operations = ("allocate", 0, 100), ("allocate", 1, 5000), ("allocate", 2, 2000), ("free", 1)
    with subject_of(TAGS) as subject:
        found = play(subject, Script("some", operations))
        assert found.findings == [] and subject.places.takes_pages
        assert found.pages == 1 + 2 + 1          # two of the large chunk, and as many data pages as there are: one
        assert len(subject.places.frames) == 1
        subject.fresh()
        assert subject.places.frames == set()
        again = play(subject, Script("some", operations))
    assert (again.served, again.calls, again.pages) == (found.served, found.calls, found.pages)


def test_memory_of_sbrk_is_its_own_and_ends_where_an_arena_would() -> None:
    sizes: list[Operation] = [("allocate", number, 2000) for number in range(40)]
    found = played(MERGING, *sizes, rounds=2, options=ON_BREAK)
    assert found.findings == [] and len(found.served[0]) == len(found.served[1])
    assert 0 < len(found.served[0]) <= ARENA // 2000


def test_pages_end_where_an_arena_would() -> None:
    sizes: list[Operation] = [("allocate", number, 4000) for number in range(60)]
    found = played(TAGS, *sizes, rounds=2)
    assert found.findings == [] and 0 < len(found.served[0]) <= page_room(ARENA) // 4096
    assert len(found.served[1]) == len(found.served[0])


def test_a_page_that_was_given_back_is_not_its_own_any_more(tmp_path: Path) -> None:
    broken = changed(tmp_path, "        free_pages((void *)(DIRECT_MAP + unmap_page(at)), 0);",
                     "{ u64 *page = (u64 *)(DIRECT_MAP + unmap_page(at)); free_pages(page, 0); page[8] = 1; }")
    found = played(broken, ("allocate", 0, 5000), ("free", 0)).findings
    assert found and found[0].line == "confined" and "tags.c:102) writes" in found[0].reason


def test_a_chunk_in_pages_that_is_given_twice_overlaps(tmp_path: Path) -> None:
    broken = changed(tmp_path, "    large += (pages + 1) * PAGE_SIZE;\n    if (map(at, pages) != 0)",
                     "    if (*walk_page(at) == 0 && map(at, pages) != 0)")
    broken.write_text(broken.read_text().replace("*walk_page(at) == 0", "(walk_page(at) == 0 || *walk_page(at) == 0)"))
    found = played(broken, ("allocate", 0, 5000), ("allocate", 1, 5000)).findings
    assert found and found[0].line == "overlap"


def test_a_pointer_to_pages_of_the_kernel_is_not_confined(tmp_path: Path) -> None:
    broken = changed(tmp_path, "        return large_chunk(size);",
                     "        return (void)large_chunk, (void *)(DIRECT_MAP + 0x200000);")
    found = played(broken, ("allocate", 0, 100), ("allocate", 1, 4000)).findings
    assert found and (found[0].line, found[0].way) == ("confined", "chunk")
    assert "pages that it took" in found[0].reason


# -- the rest of the family ---------------------------------------------------------------------------------------
FAMILY: list[Operation] = [
    ("allocate", 0, 40), ("resize", 0, 300), ("allocate", 1, 40), ("resize", 1, 1 << 30), ("resize", 0, 20),
    ("free", 1), ("zeroed", 2, 5, 9), ("aligned", 3, 128, 256), ("free", 0), ("zeroed", 4, 1 << 33, 1 << 33),
    ("resize", 2, 4000), ("free", 2), ("zeroed", 5, 30, 10)]
WRONG = {
    "resize": ("    memcpy(moved, chunk, size < room - 16 ? size : room - 16);",
                   "    memcpy(moved, chunk, (size < room - 16 ? size : room - 16) / 2);", "reallocate of chunk"),
    "zeroed": ("    return chunk != NULL ? memset(chunk, 0, bytes) : NULL;", "    return chunk;",
                        "and it must be 0x00"),
    "aligned": ("    block = ((chunk + LEAST + alignment - 1) & ~(alignment - 1)) - 8;",
                         "    block = ((chunk + LEAST + 31) & ~31ul) - 8;", "is no multiple of 128"),
}


def test_the_family_does_what_c_says() -> None:
    found = played(TAGS, *FAMILY)
    assert found.findings == [] and found.done == len(FAMILY)
    roles = {call.role for call in found.calls}
    assert roles == {"allocate", "deallocate", *(ROLE_OF[line] for line in OPTIONAL)}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_in_the_family_is_found_on_its_line(line: str, tmp_path: Path) -> None:
    before, after, reason = WRONG[line]
    more: list[Operation] = [("aligned", number, 128, 64) for number in range(10, 14)]
    found = played(changed(tmp_path, before, after), *FAMILY, *more).found(line)
    assert found is not None and reason in found.reason


@cache
def report() -> Report:
    with patch.object(workloads, "LENGTH", 60):
        return check(MERGING, arena="32K", seed=4, cflags="-DON_BREAK -O2", shorten=False)


def test_an_allocator_without_init_that_takes_its_memory_by_sbrk_passes_all_that_it_can() -> None:
    assert [line.name for line in report().failed] == ["double_free", "wild_free"]
    assert [line.name for line in report()] == [*(name for name in LINES if name != "stats"), "resize", "zeroed"]
    assert report().options["cflags"] == ["-DON_BREAK", "-O2"] and report().options["init"] is None
    assert 0 < report()["pages"].figures["pages"] <= 2 + (32 >> 2)


def test_lines_of_functions_that_it_has_not_count_where_a_rubric_asks_for_them() -> None:
    assert not set(default_rubric().points) & set(OPTIONAL)
    grade = parse("[points]\nresize = 2\naligned = 3\n", "r.toml").grade(report())
    assert [(int(mark.points), mark.reason) for mark in grade.marks] == [(2, ""), (0, "it was not played")]


def test_a_failing_list_over_pages_is_a_test_that_fails_and_passes_when_it_is_mended(tmp_path: Path) -> None:
    before, after, _ = WRONG["resize"]
    broken = changed(tmp_path, before, after)
    script = Script("some", (("allocate", 0, 40), ("allocate", 1, 40), ("resize", 0, 300)))
    found = replace(report(), allocator=str(broken), options=AllocatorOptions(
        init=None, allocate="malloc", deallocate="free", stats=None, reallocate="realloc").to_dict())
    line = replace(found["resize"], script=script, broken="resize", reason="bytes are lost")
    names: dict[str, Any] = {}
    exec(compile(source_of_test(found, line), "saved", "exec"), names)
    with pytest.raises(AssertionError, match="bytes were lost"):
        names["test_resize"]()
    broken.write_text(TAGS.read_text())
    names["test_resize"]()


# -- sources ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "words"), [
    ("int x = ;\n", "x.c:1"), ("int main(void) { return 0; }\n", "does not define"),
    ("void *nowhere(unsigned long);\nvoid *malloc(unsigned long n) { return nowhere(n); }\n", "nowhere")])
def test_a_source_in_c_that_cannot_be_loaded_says_why(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text(text)
    outcome = outcome_of(tmp_path / "x.c", CheckOptions())
    assert not outcome.loaded and outcome.report is None and words in outcome.error


def test_a_compiler_that_is_missing_is_the_hosts_fault(tmp_path: Path) -> None:
    with pytest.raises(sandbox.CompilerMissing):
        outcome_of(TAGS, CheckOptions(cc="no-such-compiler"))


def test_several_files_are_one_allocator(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("#include <stddef.h>\nvoid *take(size_t);\n"
                                  "void *malloc(size_t n) { return take(n); }\nvoid free(void *p) { (void)p; }\n")
    (tmp_path / "b.c").write_text("#include <stddef.h>\nstatic char pool[64]; static size_t at;\nvoid *take(size_t n)\n"
                                  "{ if (n > 64 - at) return 0; at += (n + 15) & ~15ul; return pool + at - 16; }\n")
    with sandbox.boot(allocator=[tmp_path / "a.c", tmp_path / "b.c"]) as kernel:
        assert kernel.allocator.allocate(8)


def test_a_students_source_may_be_in_c(tmp_path: Path) -> None:
    for student, files in {"one": ["allocator.c"], "two": ["mine.c"], "three": ["a.c", "b.c"],
                           "four": ["allocator.c", "more.c"], "five": ["allocator.c", "allocator.asm"]}.items():
        (tmp_path / student).mkdir()
        for file in files:
            (tmp_path / student / file).write_text("")
    found = {folder.student: folder for folder in folders(tmp_path, "allocator.asm")}
    assert {name: folder.source and folder.source.name for name, folder in found.items()} == {
        "one": "allocator.c", "two": "mine.c", "three": "a.c", "four": "allocator.c", "five": "allocator.asm"}
