"""Streams that are closed, full or not read any more, runs that are interrupted, heaps that are corrupt: what the
command says, and with which status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sandbox
from sandbox.view.errors import backtrace

ROOT = str(Path(sandbox.__file__).parent.parent)
COMMAND = f"{sys.executable} -m sandbox"
CORRUPT = """
.text
main:
    push rbx
    mov edi, 64
    call kmalloc
    mov rbx, rax
    mov rdi, rbx
    call kfree
    mov rdi, rbx
    call kfree
    xor eax, eax
    pop rbx
    ret
"""
LOOP = """
.text
main:
    mov edi, 24
    call kmalloc
    xor eax, eax
spin:
    jmp spin
"""


def shell(command: str) -> tuple[int, str, str]:
    """A command as a shell runs it: its status, what it printed, what it complained."""
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, "PYTHONPATH": ROOT})
    return done.returncode, done.stdout, done.stderr


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "program.asm"
    path.write_text(text)
    return path


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_reason_to_fail(closed: str) -> None:
    status, _, err = shell(f"{COMMAND} run 01 {closed}")
    assert (status, err) == (0, "")


def test_an_output_that_nobody_reads_ends_as_sigpipe_would() -> None:
    assert shell(f"{COMMAND} run 01 | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}")[0] == 141


def test_a_full_disk_is_named() -> None:
    status, _, err = shell(f"{COMMAND} run 01 >/dev/full")
    assert status == 2 and err == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("more", ["", "--isolated"])
def test_a_trace_that_cannot_be_written_is_named_and_the_run_still_shown(more: str) -> None:
    status, out, err = shell(f"{COMMAND} run 01 --json /dev/full {more}")
    assert status == 2 and err == "error: /dev/full: No space left on device\n"
    assert "success: main returned 0" in out


def test_a_wrong_end_is_one_sentence_on_standard_error_too(tmp_path: Path) -> None:
    path = write(tmp_path, CORRUPT.replace("mov rdi, rbx\n    call kfree", "mov rdi, 0x1234\n    call kfree", 1))
    status, out, err = shell(f"{COMMAND} run {path}")
    assert status == 3 and err == "error: kernel panic: kfree: 0x0000000000001234 is not slab memory\n"
    assert "backtrace, innermost first" in out


def test_ctrl_c_tells_where_the_program_was_and_keeps_the_report(tmp_path: Path) -> None:
    path = write(tmp_path, LOOP)
    child = subprocess.Popen([sys.executable, "-u", "-m", "sandbox", "run", str(path)], text=True, env={
        **os.environ, "PYTHONPATH": ROOT}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    first = child.stdout.readline()                      # the call of kmalloc: main runs
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "kmalloc(24)" in first
    assert err.startswith("error: interrupted after ") and " at spin (" in err and err.count("\n") == 1
    assert "still in use: 1 object, 32 bytes" in out and "stopped: interrupted, after " in out
    assert "kmalloc-32: 32 bytes" in out


def test_a_corrupt_cache_is_said_once_and_the_others_keep_their_rows(tmp_path: Path) -> None:
    path = write(tmp_path, CORRUPT)
    status, out, err = shell(f"{COMMAND} slabs {path}")
    assert status == 3 and "error: the heap is corrupt: 0x" in err and "in magazines twice" in err
    assert any(line.startswith("kmalloc-64 ") and line.endswith("corrupt") for line in out.splitlines())
    assert "kmalloc-128 " in out and "frames:" in out
    _, out, _ = shell(f"{COMMAND} run {path}")
    assert out.count("is in magazines twice") == 1 and "guest memory cannot be read" not in out
    assert "kmalloc-64: the heap is corrupt: 0x" in out and "success: main returned 0" in out


@pytest.mark.parametrize(("limit", "shown"), [("5,000", "5,000"), ("5_000", "5,000"), ("5000", "5,000")])
def test_a_limit_may_be_written_as_it_is_shown(limit: str, shown: str) -> None:
    status, _, err = shell(f"{COMMAND} run 01 -q --limit {limit}")
    assert status == 3 and f"after {shown} instructions" in err


def test_errors_call_options_by_the_name_that_was_typed() -> None:
    assert shell(f"{COMMAND} run 01 --hz 5")[2].startswith("error: --hz is a number from 19")
    assert shell(f"{COMMAND} run 01 --empty-slabs -1")[2].startswith("error: --empty-slabs is a number from 0")


def test_disasm_of_main_without_a_program_says_what_is_missing() -> None:
    status, _, err = shell(f"{COMMAND} disasm main")
    assert status == 2 and "sandbox disasm main PROGRAM" in err


def test_frames_that_repeat_are_counted() -> None:
    with sandbox.boot(ram="8M", hz=0) as kernel:
        frames = ["panic", *["deep+0x9"] * 63, "main"]
        lines = list(backtrace(frames, kernel.symbols))
        assert lines == ["   0  panic", "   1  deep+0x9", "          ... 62 more like this", "  64  main"]
        assert list(backtrace(["a", "a"], kernel.symbols))[-1] == "          ... 1 more like this"
        assert len(list(backtrace(["a", "b", "a"], kernel.symbols))) == 3
