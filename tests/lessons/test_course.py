"""The list of lessons is what the examples say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sandbox.errors import EngineError, UsageError
from sandbox.lessons import Kind, course, following, lesson
from sandbox.toolchain.packaged import examples_directory

EXAMPLES = sorted(path for path in examples_directory().iterdir() if re.fullmatch(r"\d\d_\w+\.(asm|c|py)", path.name))


def test_every_example_is_a_lesson_in_the_order_of_the_numbers() -> None:
    assert [each.path for each in course()] == EXAMPLES
    assert [int(each.number) for each in course()] == [int(path.name[:2]) for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_lessons_title_and_idea_are_its_first_line(path: Path) -> None:
    each = lesson(path.stem)
    first = path.read_text("utf-8").splitlines()[0].strip('#/" ')
    assert f"{each.title}: {each.idea}".lower() == first.lower() or f"{each.title} {each.idea}" == first
    assert each.kind is (Kind.SCRIPT if path.suffix == ".py" else Kind.PROGRAM)
    assert each.command.startswith("sandbox lessons " if path.suffix == ".py" else "sandbox run ")


@pytest.mark.parametrize("name", ["5", "05", "free_list", "05_free_list", "05_free_list.py"])
def test_a_lesson_is_found_by_number_or_name(name: str) -> None:
    assert lesson(name).path.name == "05_free_list.py"


def test_a_lesson_in_c_is_a_program() -> None:
    for name in ("25", "allocator_in_c", "25_allocator_in_c.c"):
        assert (lesson(name).path.name, lesson(name).kind) == ("25_allocator_in_c.c", Kind.PROGRAM)


@pytest.mark.parametrize("name", ["0", "99", "²", "", "-1", "five"])
def test_an_unknown_lesson_is_named_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no lesson '{name}', they are 01 to {course()[-1].number}"):
        lesson(name)


def test_the_nearest_name_is_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean colouring"):
        lesson("coloring")


def test_behind_each_lesson_comes_the_next_and_behind_the_last_none() -> None:
    lessons = course()
    assert [following(each) for each in lessons] == [*lessons[1:], None]


def test_an_example_without_its_title_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "01_nothing.asm").write_text("main:\n    ret\n")
    monkeypatch.setattr("sandbox.lessons.catalogue.examples_directory", lambda: tmp_path)
    with pytest.raises(EngineError, match=r"01_nothing\.asm does not begin with its title"):
        course()


def test_a_constant_of_a_script_is_read_without_running_it() -> None:
    assert "on_tick:" in lesson("13").constant("HANDLER")
    with pytest.raises(EngineError, match="no constant NOTHING"):
        lesson("13").constant("NOTHING")
