"""The README tells the truth: each transcript is what the command prints, the Python in it runs, the C in it compiles.

``python -m tests.test_readme`` writes the transcripts anew, for a look at the difference.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox.cli import main
from sandbox.toolchain.packaged import examples_directory

from .compilers import needs_compiler

README = Path(sandbox.__file__).parent.parent / "README.md"
TRANSCRIPT = re.compile(r"```console\n\$ (?P<command>sandbox .*)\n(?P<output>(?:.*\n)*?)```\n")
PYTHON = re.compile(r"```python\n((?:.*\n)*?)```\n")
TEXTS = re.compile(r"```text\n((?:.*\n)*?)```\n")
C_SOURCE = re.compile(r"```c\n(// (?P<name>\w+\.c)\n(?:.*\n)*?)```\n")
OFFSET = re.compile(r"\+0x[0-9a-f]+")
"""Where in a function an instruction is: each compiler has its own opinion."""
SESSION = re.compile(r"```pycon\n((?:.*\n)*?)```\n")

pytestmark = pytest.mark.skipif(not README.exists(), reason="only a checkout has a README")


def text() -> str:
    return README.read_text("utf-8") if README.exists() else ""


@contextlib.contextmanager
def among_its_sources() -> Iterator[None]:
    """In a directory with the README's own C sources."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        for found in C_SOURCE.finditer(text()):
            (Path(directory) / found["name"]).write_text(found[1], "utf-8")
        os.chdir(directory)
        try:
            yield
        finally:
            os.chdir(before)


def output_of(command: str) -> str:
    out = io.StringIO()
    with among_its_sources(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(shlex.split(command)[1:])
    return out.getvalue()


def is_c(command: str) -> bool:
    return ".c " in f"{command} "


@pytest.mark.parametrize("transcript", [
    pytest.param(found, id=found["command"], marks=needs_compiler if is_c(found["command"]) else ())
    for found in TRANSCRIPT.finditer(text())])
def test_a_transcript_is_what_the_command_prints(transcript: re.Match[str]) -> None:
    printed, shown = output_of(transcript["command"]), str(transcript["output"])
    if is_c(transcript["command"]):
        printed, shown = (OFFSET.sub("", each) for each in (printed, shown))
    assert printed == shown


def test_the_readme_has_transcripts_and_python() -> None:
    assert len(TRANSCRIPT.findall(text())) >= 2 and PYTHON.search(text())


@pytest.mark.parametrize("code", PYTHON.findall(text()), ids=lambda code: str(code.split("\n")[0]))
def test_the_tests_in_the_readme_pass(code: str, tmp_path: Path) -> None:
    file = tmp_path / "test_from_the_readme.py"
    file.write_text(code)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", file],
                          cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": str(README.parent)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{code.count('def test_')} passed" in done.stdout


def test_the_red_test_that_it_shows_is_that_of_the_lesson() -> None:
    shown = next(block for block in TEXTS.findall(text()) if block.startswith("E  "))
    assert shown in (examples_directory() / "19_test_your_heap.out").read_text("utf-8")


def test_the_python_session_prints_what_it_shows() -> None:
    session = doctest.DocTestParser().get_doctest("\n".join(SESSION.findall(text())), {}, "README.md", str(README), 0)
    runner = doctest.DocTestRunner()
    runner.run(session)
    assert runner.summarize().failed == 0 and runner.summarize().attempted > 10


def test_both_set_up_commands_are_whole_lines_that_need_nothing_but_python() -> None:
    commands = [line for line in text().splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("sandbox run 01") and "pytest" in commands[1]
    assert all(" && .venv/bin/pip install -q -e " in command for command in commands)


def write_transcripts() -> None:
    """Make every transcript and every answer of the Python session in the README anew."""
    session: dict[str, object] = {}

    def transcript(found: re.Match[str]) -> str:
        return f"```console\n$ {found['command']}\n{output_of(found['command'])}```\n"

    def answers(found: re.Match[str]) -> str:
        asked = "".join(f"{line}\n" for line in found[1].splitlines() if line.startswith((">>>", "...")))
        lines = []
        for example in doctest.DocTestParser().get_examples(asked):
            first, *rest = example.source.splitlines()
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(example.source, str(README), "single"), session)
            lines += [f">>> {first}", *(f"... {line}" for line in rest), *out.getvalue().splitlines()]
        return "```pycon\n" + "".join(f"{line}\n" for line in lines) + "```\n"

    README.write_text(SESSION.sub(answers, TRANSCRIPT.sub(transcript, text())), "utf-8")


if __name__ == "__main__":
    write_transcripts()
