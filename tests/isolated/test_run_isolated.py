"""A program in a child process ends as it does here, and nothing it does can end this one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import sandbox
from sandbox.errors import AssemblyError, EngineHung, EngineTooLarge, ProgramError, SandboxError, UsageError
from sandbox.isolated import IsolatedResult, run_isolated
from sandbox.isolated.run import packed, revived

LOOP = "main:\n.Lmain_again:\n    jmp .Lmain_again\n"
PRINTS = """main:
    mov edx, 0x3f8
    mov al, 65
.Lmain_again:
    out dx, al
    jmp .Lmain_again
"""
ALLOCATES = """main:
.Lmain_again:
    mov edi, 64
    call kmalloc
    mov rdi, rax
    call kfree
    jmp .Lmain_again
"""
PANICS = """main:
    sub rsp, 8
    lea rdi, [rip + message]
    call panic
.data
message: .asciz "on purpose"
"""


@pytest.fixture(scope="module")
def first() -> IsolatedResult:
    return run_isolated("01")


def test_a_run_in_a_child_is_the_same_as_a_run_here(first: IsolatedResult) -> None:
    with sandbox.boot("01") as kernel, kernel.trace() as trace:
        result = kernel.run()
        here = [event.to_dict() for event in trace.walk()]
        assert (first.kind, first.status, first.instructions, first.sentence) == (
            "success", 33, result.instructions, str(result))
        assert first.ok and first.console == kernel.console and first.console_dropped == 0
        assert list(first.events) == json.loads(json.dumps(here)) and first.events_complete
        assert "success: main returned 0" in first.report and "kmalloc-64" in first.report


def test_the_result_is_plain_data(first: IsolatedResult) -> None:
    assert json.loads(json.dumps(asdict(first)))["kind"] == "success"


def test_the_parent_loads_no_emulator() -> None:
    code = "import sys, sandbox\nprint(sandbox.run_isolated('01').kind, 'unicorn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["success", "False"]


def test_a_panic_and_a_fault_come_with_their_details() -> None:
    panic = run_isolated(PANICS)
    assert (panic.kind, panic.status) == ("panic", 37)
    assert panic.error is not None and panic.error.type == "GuestPanic"
    assert panic.error.details["message"] == "on purpose" and panic.error.backtrace[0].startswith("main+")
    fault = run_isolated("main:\n    mov rax, [rax + 0x1234567]\n")
    assert fault.error is not None and fault.error.type == "GuestFault" and fault.kind == "fault"
    assert fault.error.details["vector"] == 14 and fault.error.registers["rip"] > 1 << 63


def test_the_instruction_limit_is_the_same_as_here() -> None:
    result = run_isolated(LOOP, limit=4_100_000)
    assert (result.kind, result.instructions) == ("limit", 4_100_000)


def test_an_endless_console_is_bounded_on_both_sides() -> None:
    result = run_isolated(PRINTS, limit=60_000, console_limit=1000)
    notice, text = result.console.split("\n", 1)
    assert notice == f"[earlier output is not kept: {result.console_dropped:,} characters]"
    assert text == "A" * 1000 and result.console_dropped > 20_000


def test_an_endless_trace_is_cut_and_says_so() -> None:
    result = run_isolated(ALLOCATES, limit=100_000, event_limit=50)
    assert len(result.events) == 50 and not result.events_complete
    assert [event["sequence"] for event in result.events] == list(range(50))
    assert run_isolated(ALLOCATES, limit=10_000, trace=False).events == ()


def test_a_run_that_takes_too_long_is_one_error_with_what_was_seen() -> None:
    with pytest.raises(EngineHung) as caught:
        run_isolated("main:\n    mov edx, 0x3f8\n    mov al, 10\n    out dx, al\n" + LOOP[6:], limit=1 << 60, seconds=8)
    assert caught.value.console.endswith("\n") and caught.value.seconds == 8


def test_a_run_that_takes_too_much_memory_is_one_error() -> None:
    with pytest.raises(EngineTooLarge):
        run_isolated(LOOP, limit=1 << 60, memory=64 << 20, ram="512M")


@pytest.mark.parametrize(("program", "options", "error"), [
    ("no-such-file", {}, ProgramError),
    ("main:\n    frobnicate\n", {}, AssemblyError),
    ("start:\n    ret\n", {}, ProgramError),
    (LOOP, {"ram": "3M"}, UsageError),
    (LOOP, {"limit": 0}, UsageError),
    (LOOP, {"limit": True}, UsageError),
    (LOOP, {"seconds": -1}, UsageError),
    (LOOP, {"seed": object()}, UsageError),
    (LOOP, {"no_such_option": 1}, UsageError),
])
def test_bad_usage_is_the_error_that_boot_raises(program: str, options: dict[str, object],
                                                 error: type[SandboxError]) -> None:
    with pytest.raises(error):
        run_isolated(program, **options)  # type: ignore[arg-type]


def test_an_error_comes_back_with_its_attributes() -> None:
    error = revived(json.loads(json.dumps(packed(AssemblyError("a.asm", 3, "no such thing", "  foo")))))
    assert isinstance(error, AssemblyError)
    assert (str(error), error.file, error.line, error.text) == ("a.asm:3: no such thing\n    foo", "a.asm", 3, "foo")
    missing = revived(json.loads(json.dumps(packed(ProgramError("x.asm", "is missing")))))
    assert isinstance(missing, ProgramError) and missing.path == Path("x.asm")


def test_the_callbacks_hear_it_as_it_happens_and_may_end_it() -> None:
    heard: list[object] = []
    result = run_isolated("01", on_console=heard.append, on_event=heard.append)
    assert "".join(piece for piece in heard if isinstance(piece, str)) == result.console
    assert [event for event in heard if isinstance(event, dict)] == list(result.events)

    def enough(taken: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_isolated(LOOP, limit=1 << 40, on_progress=enough)
