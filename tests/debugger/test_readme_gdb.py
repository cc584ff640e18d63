"""The gdb session that the README shows is one that gdb has, with the server that the command starts."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox

README = Path(sandbox.__file__).parent.parent / "README.md"
SESSION = re.compile(r"```gdb\n((?:.*\n)*?)```\n")

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None or not README.exists(), reason="gdb is not installed")


def session() -> tuple[list[str], list[str]]:
    """The lines up to the first command of gdb, and those from there on."""
    found = SESSION.search(README.read_text("utf-8"))
    assert found is not None
    lines = found[1].splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("(gdb)"))
    return lines[:first], lines[first:]


@pytest.fixture
def server() -> Iterator[tuple[list[str], str]]:
    """What the README's command prints before it waits, and the script for gdb that it has written."""
    command = shlex.split(session()[0][0].removeprefix("$ sandbox"))
    process = subprocess.Popen([sys.executable, "-m", "sandbox", *command, "--port", "0"], stdout=subprocess.PIPE,
                               text=True, cwd=README.parent)
    try:
        assert process.stdout is not None
        printed = [process.stdout.readline().rstrip() for _ in range(3)]
        yield printed, shlex.split(printed[-1])[-1]
    finally:
        process.terminate()
        process.wait(30)


def test_the_session_in_the_readme_is_real(server: tuple[list[str], str]) -> None:
    printed, script = server
    shown, lines = session()
    assert printed[0] == shown[1] and printed[1].split(" on port")[0] == shown[2].split(" on port")[0]
    commands = [line.removeprefix("(gdb) ") for line in lines if line.startswith("(gdb)")]
    given = [part for command in commands for part in ("-ex", command)]
    done = subprocess.run(["gdb", "-q", "-batch", "-nx", "-x", script, *given], capture_output=True, text=True,
                          timeout=120, check=False)
    said = {"gdb": done.stdout.splitlines(), "monitor": done.stderr.splitlines()}
    at = {"gdb": 0, "monitor": 0}
    source = "gdb"
    for line in lines:
        if line.startswith("(gdb)"):
            source = "monitor" if line.startswith("(gdb) monitor") else "gdb"
        elif line:
            rest = [" ".join(text.split()) for text in said[source][at[source]:]]
            wanted = " ".join(line.split())
            assert wanted in rest, f"{line!r} is not in the rest of what gdb says:\n{done.stdout}\n{done.stderr}"
            at[source] += rest.index(wanted) + 1
