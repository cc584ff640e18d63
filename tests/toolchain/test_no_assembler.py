"""Booting needs no assembler: the kernel and the examples travel assembled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def sandbox(*arguments: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The command, with no Keystone, nothing on PATH and an empty cache."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "keystone.py").write_text("raise ImportError('not on this host')\n")
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path),
                   "PYTHONPATH": os.pathsep.join([str(broken), str(ROOT)])}
    return subprocess.run([sys.executable, "-m", "sandbox", *arguments], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, check=False)


def test_the_first_example_runs_with_no_assembler_at_all(tmp_path: Path) -> None:
    done = sandbox("run", "01", "--no-trace", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith((ROOT / "examples" / "01_first_allocation.out").read_text())


def test_a_program_of_ones_own_says_what_to_install(tmp_path: Path) -> None:
    program = tmp_path / "mine.asm"
    program.write_text(".text\nmain:\n    xor eax, eax\n    ret\n")
    done = sandbox("run", str(program), tmp_path=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "keystone-engine" in done.stderr and "binutils" in done.stderr
