"""A failing list becomes a test file that is red for the broken allocator and green for the repaired one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox import UsageError
from sandbox.conformance import check, replay, save, source_of_test
from sandbox.guest.allocator import AllocatorOptions
from sandbox.guest.images import assemble_allocator
from sandbox.toolchain import packaged

from .broken import ALLOCATORS, ARENA, BROKEN, report_of

ROOT = Path(__file__).parents[2]
CASES = {"corrupts the next chunk": "overlap", "takes a double free": "double_free", "counts in the kernel": "confined",
         "clobbers rbx": "registers", "counts wrong": "stats", "loses freed memory": "leak"}


def outcome(text: str, line: str) -> str:
    """Run the test of a file in this process."""
    names: dict[str, Any] = {}
    exec(compile(text, "saved", "exec"), names)
    try:
        names[f"test_{line}"]()
    except (AssertionError, sandbox.GuestError) as error:
        return str(error) or "failed"
    return "passed"


@pytest.mark.parametrize(("name", "line"), CASES.items(), ids=lambda text: text.replace(" ", "-"))
def test_a_saved_list_fails_for_the_broken_allocator_and_passes_for_the_good_one(
        name: str, line: str, tmp_path: Path) -> None:
    broken = next(broken for broken in BROKEN if broken.name == name)
    source = tmp_path / "mine.asm"
    source.write_text(broken.source)
    report = report_of(broken)
    text = source_of_test(report, report[line], source)
    assert "sandbox.boot(allocator=ALLOCATOR" in text and "conformance" not in text
    assert outcome(text, line) != "passed"
    source.write_text((ALLOCATORS / f"{broken.base}.asm").read_text())
    assert outcome(text, line) == "passed"


def test_pytest_runs_a_saved_file(tmp_path: Path) -> None:
    source = tmp_path / "mine.asm"
    source.write_text(BROKEN[0].source)
    report = report_of(BROKEN[0])
    saved = tmp_path / "test_saved.py"
    saved.write_text(source_of_test(report, report["alignment"], source))
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(saved)],
                          capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and "1 failed" in done.stdout and "AssertionError: operation 1" in done.stdout


def test_a_leak_is_shown_by_one_operation_that_is_played_often() -> None:
    report = report_of(next(broken for broken in BROKEN if broken.name == "loses freed memory"))
    script = report["leak"].script
    assert script is not None and len(script.operations) == 1 and script.rounds > 63


def test_each_different_list_is_saved_once_and_a_good_report_saves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "my own.asm"
    source.write_text(BROKEN[0].source)
    report = check(source, arena=ARENA, shorten=False)
    written = save(report, tmp_path / "found")
    assert "test_my_own_alignment.py" in [path.name for path in written]
    assert len({path.read_text().split("OPERATIONS")[1] for path in written}) == len(written)
    for path in written:
        compile(path.read_text(), str(path), "exec")
    with pytest.raises(UsageError, match="has no list of operations"):
        source_of_test(report, report["pages"])


def test_a_list_that_does_not_fail_again_is_said_so() -> None:
    broken = report_of(BROKEN[0])["alignment"]
    assert broken.script is not None
    image = packaged.kernel_image()
    bump = assemble_allocator(ALLOCATORS / "bump.asm", image, AllocatorOptions(arena=16 << 10))
    line = replay(bump, "alignment", broken.script)
    assert line.passed and not line.again and "the list does not fail again" in line.reason
    again = replay(assemble_allocator(BROKEN[0].source, image, AllocatorOptions(arena=16 << 10)), "alignment",
                   broken.script)
    assert not again.passed and "is no multiple of" in again.reason
    with pytest.raises(UsageError, match="'alignement' is no line of a report"):
        replay(bump, "alignement", broken.script)
