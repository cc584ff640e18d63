"""The console's backtrace of a deep recursion: counted where its frames are the same, otherwise cut with a note."""

from __future__ import annotations

import pytest

import sandbox

ONE = """
deep:
    push rbp
    mov rbp, rsp
    dec edi
    jz .Ldeep_end
    call deep
.Ldeep_end:
    nop
    ud2
"""
TWO = ONE.replace("call deep", "call other") + """
other:
    push rbp
    mov rbp, rsp
    call deep
    ud2
"""
MAIN = ".text\nmain:\n push rbp\n mov rbp, rsp\n mov edi, 50\n call deep\n ret\n"


def console_backtrace(text: str) -> list[str]:
    with sandbox.boot(MAIN + text, ram="8M", hz=0) as kernel:
        assert not kernel.run().ok
        return [line.strip() for line in kernel.console.partition("\nbacktrace:\n")[2].splitlines()]


def test_a_recursion_is_counted_and_its_first_caller_still_shown() -> None:
    lines = console_backtrace(ONE)
    assert lines[2] == "... 48 more like this" and len(lines) == 5


@pytest.mark.parametrize("text", [TWO])
def test_frames_that_do_not_repeat_are_cut_with_a_note(text: str) -> None:
    lines = console_backtrace(text)
    assert len(lines) == 33 and lines[-1] == "... and more" and all(line.startswith("0x") for line in lines[:-1])
