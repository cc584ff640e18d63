"""Test your heap: a red test names the guilty instruction, the object, and who allocated it.

A test file for ``pytest 19_test_your_heap.py``. Its fixture ``kernel`` is a fresh machine in milliseconds; the marker
says what program it boots and what watches over it. The first test is green. The second one is red, because a name of
24 characters has a NUL behind them: read its report from top to bottom.
"""

import os
import sys
from pathlib import Path

import pytest

PROGRAM = """
.text
main:
    xor eax, eax
    ret
make_record:                        # char *make_record(const char *name): a copy of the name, in 24 bytes
    push rbp
    mov rbp, rsp
    push rdi
    push rdi
    mov edi, 24
    call kmalloc
    pop rsi
    pop rsi                         # rsi = name
    xor ecx, ecx
.Lmake_record_byte:
    mov dl, [rsi + rcx]
    mov [rax + rcx], dl
    inc ecx
    test dl, dl
    jnz .Lmake_record_byte
    pop rbp
    ret
"""


@pytest.mark.sandbox(program=PROGRAM, shadow=True, hz=0)
def test_a_short_name_is_kept(kernel):
    record = kernel.call("make_record", "a short name")
    assert kernel.memory.cstring(record) == b"a short name"


@pytest.mark.sandbox(program=PROGRAM, shadow=True, hz=0)
def test_a_long_name_fits(kernel):
    record = kernel.call("make_record", "exactly 24 characters!!!")
    assert kernel.memory.cstring(record) == b"exactly 24 characters!!!"


if __name__ == "__main__":              # the same as the command, wherever it is run
    here = Path(__file__).resolve()
    os.chdir(here.parent)
    os.environ["COLUMNS"] = "80"
    sys.dont_write_bytecode = True      # nothing is left behind
    sys.exit(pytest.main(["-qq", "-rN", "-c", os.devnull, f"--rootdir={here.parent}", "-p", "no:cacheprovider",
                          "--sandbox-record=never", here.name]) != pytest.ExitCode.TESTS_FAILED)
