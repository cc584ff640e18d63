"""The course: every example prints what lies beside it, by itself, from the command, and in QEMU. Those about wrong
programs name a command in their first lines; what that finds lies beside them too, as ``NAME.found.out``.

Those in C need a compiler, and each compiler makes other instructions: what is told of them is compared but for the
clock and the offsets within functions.

``python -m tests.test_examples`` writes the expected outputs anew, for a look at the difference.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox.cli import main
from sandbox.guest.export import QEMU, export, run_qemu
from sandbox.guest.images import assemble_program
from sandbox.guest.options import BootOptions
from sandbox.guest.outcome import RunKind
from sandbox.toolchain.packaged import examples, examples_directory, kernel_directory, kernel_image

from .compilers import needs_compiler

PROGRAMS = examples()
SCRIPTS = sorted(examples_directory().glob("[0-9][0-9]_*.py"))
COURSE = ("first_allocation", "free_and_reuse", "size_classes", "life_of_a_slab", "free_list", "buddy", "magazines",
          "colouring", "constructor", "fragmentation", "page_walk", "page_fault", "interrupt", "overflow",
          "use_after_free", "double_free", "free_list_attack", "the_seed", "test_your_heap", "your_allocator")
LONGEST = 60
"""Lines of a lesson: what fits a screen or two."""
SUSPECTS = [path for path in PROGRAMS if path.with_suffix(".found.out").exists()]
COMMAND = re.compile(r"^#   sandbox run (?P<number>\d\d)(?P<options>(?:[^\\\n]|\\\n#)*)$", re.M)
SELFTEST = kernel_directory() / "selftest.asm"

COMPILED = re.compile(r"@[\d,]+|\+0x[0-9a-f]+")
"""What the clock and the offsets look like."""

needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")


def name(path: Path) -> str:
    return path.stem


def is_c(path: Path) -> bool:
    """Whether it is in C, or records what is."""
    return path.suffix == ".c" or '.c"' in path.read_text("utf-8")


def marked(paths: Sequence[Path]) -> list[Any]:
    """The parameters of tests about examples: those in C are skipped without a compiler."""
    return [pytest.param(path, id=name(path), marks=needs_compiler if is_c(path) else ()) for path in paths]


def console(path: Path) -> str:
    """What a program prints in the emulator."""
    with sandbox.boot(path) as kernel:
        assert kernel.run(limit=100_000_000).kind is RunKind.SUCCESS
        return kernel.console


def script_output(path: Path) -> str:
    """What a script for the host prints."""
    root = str(Path(sandbox.__file__).parent.parent)
    wishes = ("PYTEST_", "PY_COLORS", "FORCE_COLOR")         # of whoever runs us, for a pytest that is ours
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith(wishes)},
                   "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, path], capture_output=True, encoding="utf-8", timeout=60, check=False,
                          env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r"(?m)^E? +\^+\n", "", done.stdout)      # Python 3.11 marks the call in a traceback, 3.10 does not


def found(path: Path) -> tuple[int, str]:
    """The exit status of the command in an example's first lines, and its output but for the error's one sentence."""
    command = COMMAND.search(path.read_text())
    assert command is not None and path.name.startswith(command["number"])
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = main(["run", command["number"], *shlex.split(command["options"].replace("\\\n#", " "))])
    return status, out.getvalue()


def test_the_course_has_its_programs_and_scripts_each_with_its_expected_output() -> None:
    stems = {path.stem for path in (*PROGRAMS, *SCRIPTS)}
    numbered = {int(stem[:2]): stem[3:] for stem in stems}
    assert [numbered[number] for number in range(1, 21)] == list(COURSE)
    assert set(numbered.values()) >= {"from_python", "leak", "who_corrupted", "three_lives", "allocator_in_c",
                                      "endless_list"}
    assert {path.stem for path in examples_directory().glob("*.out")} == {
        *(path.stem for path in (*PROGRAMS, *SCRIPTS)), *(f"{path.stem}.found" for path in SUSPECTS)}
    assert {path.stem[3:] for path in SUSPECTS} == {"overflow", "use_after_free", "double_free", "leak", "the_seed"}
    assert len({stem[:2] for stem in stems}) == len(stems)


def test_a_lesson_is_short_ends_its_lines_in_time_and_begins_with_its_title_and_its_one_idea() -> None:
    for path in (*PROGRAMS, *SCRIPTS):
        lines = path.read_text().splitlines()
        assert len(lines) <= LONGEST or int(path.stem[:2]) > len(COURSE), path
        assert max(map(len, lines)) <= 120, path
        assert re.match(r'(# |// |""")[^:?]+[:?] [^ ].*[^ ]', lines[0]), path


@pytest.mark.parametrize("path", marked(PROGRAMS))
def test_a_program_prints_exactly_what_lies_beside_it(path: Path) -> None:
    assert console(path) == path.with_suffix(".out").read_text()


@pytest.mark.parametrize("path", marked(SCRIPTS))
def test_a_script_prints_exactly_what_lies_beside_it(path: Path) -> None:
    printed, expected = script_output(path), path.with_suffix(".out").read_text()
    if is_c(path):
        printed, expected = (COMPILED.sub("", text) for text in (printed, expected))
    assert printed == expected


@pytest.mark.parametrize("path", marked(PROGRAMS))
def test_the_command_shows_the_same_console_and_succeeds(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", path.stem[:2], "--quiet"]) == 0
    assert capsys.readouterr() == (path.with_suffix(".out").read_text(), "")
    assert main(["run", path.stem[:2]]) == 0
    shown = capsys.readouterr().out.splitlines()
    printed = path.with_suffix(".out").read_text().splitlines()
    assert [line for line in shown if line in printed][: len(printed)] == printed


@pytest.mark.parametrize("path", SUSPECTS, ids=name)
def test_what_is_wrong_with_a_program_is_found_by_the_command_in_its_first_lines(path: Path) -> None:
    status, text = found(path)
    assert text == path.with_suffix(".found.out").read_text()
    assert status == (0 if path.stem.endswith("leak") else 3)


@pytest.mark.parametrize(("number", "kind", "label"), [
    ("14", "out-of-bounds", "the_overflow"), ("15", "use-after-free", "the_read"),
    ("16", "double-free", "the_second_free")])
def test_the_shadow_stops_a_wrong_program_at_its_label(number: str, kind: str, label: str) -> None:
    with sandbox.boot(number, shadow=True) as kernel:
        error = kernel.run().error
        assert isinstance(error, sandbox.ShadowError)
        assert (error.kind, error.rip) == (kind, kernel.symbols[label])


@needs_compiler
def test_the_program_that_a_script_tells_about_is_found_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "orders.c", "--limit", "20000"]) == 3
    shown = capsys.readouterr()
    assert "10 pieces are to be baked\n" in shown.out and "(examples/orders.c:" in shown.err


@needs_qemu
@pytest.mark.parametrize("path", marked([*PROGRAMS, SELFTEST]))
def test_qemu_prints_the_same_bytes_and_exits_with_the_same_status(path: Path) -> None:
    options = BootOptions()
    kernel = kernel_image()
    there = run_qemu(export(kernel, assemble_program(path, kernel), options), options)
    with sandbox.boot(path) as here:
        result = here.run(limit=200_000_000)
        assert there.console == here.console
        assert there.status == result.status == 33


def write_expected() -> None:
    """Make every expected output anew."""
    for path in PROGRAMS:
        path.with_suffix(".out").write_text(console(path))
    for path in SUSPECTS:
        path.with_suffix(".found.out").write_text(found(path)[1])
    for path in SCRIPTS:
        path.with_suffix(".out").write_text(script_output(path))


if __name__ == "__main__":
    write_expected()
