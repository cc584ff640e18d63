"""``sandbox explain``: what it prints, and one sentence for what cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: its status, its output, its errors."""
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())
    return command


def test_an_event_is_told_by_the_number_that_the_trace_has_for_it(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    assert run("run", "01", "-q", "--json", file)[0] == 0
    events = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    number = next(event["sequence"] for event in events if event["function"] == "kfree")
    status, out, err = run("explain", "01", "--event", number)
    assert (status, err) == (0, "")
    first, *rest = out.splitlines()
    assert first == f"event {number}: kfree(0x{events[number]['address']:x})"
    assert f"{events[number]['entered']:,}  cmp rdi, ZERO_SIZE_PTR; jbe .Lkfree_nothing" in out
    assert "kmem_cache_cpu(kmalloc-64).free_fastpath: 0 -> 1" in out and all(len(line) <= 80 for line in rest)


def test_the_first_allocation_is_told_when_nothing_is_asked_for(run: Run) -> None:
    status, out, _ = run("explain", "01")
    assert status == 0 and out.startswith("event 0: kmalloc(40) = 0x")
    assert "kmalloc_by_size[4] = kmem_cache(kmalloc-64)" in out
    shallow = run("explain", "01", "--depth", 0)[1]
    deep = run("explain", "01", "--depth", 3)[1]
    assert len(shallow.splitlines()) < len(deep.splitlines())


def test_an_instruction_is_told_at_its_count_with_what_it_writes(run: Run) -> None:
    event = run("explain", "01")[1].splitlines()[3].split("from ")[1].split()[0]
    status, out, err = run("explain", "01", "--at", event)
    assert (status, err) == (0, "")
    assert out.startswith(f"@{event} kmalloc (kernel_asm/kmalloc.asm:")
    assert "rax: " in out and "-> 39 (0x27)" in out
    assert run("explain", "01", "--at", event.replace(",", ""))[1] == out
    assert run("explain", "01", "--at", "kmalloc")[1] == out


def test_a_fault_is_told_before_it_happens(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "fault.asm"
    path.write_text("main:\n xor eax, eax\nthe_fault:\n mov rcx, [rax]\n ret\n")
    status, out, _ = run("explain", path, "--at", "the_fault")
    assert status == 0
    assert "faults with #PF (page fault): supervisor read of a page that is not present" in out
    assert "handled at trap_stubs+0xe0" in out and "and no further" in out


def test_options_of_the_machine_are_the_run_s(run: Run) -> None:
    plain, direct = run("explain", "01")[1], run("explain", "01", "--no-magazines")[1]
    assert "magazine_prepare" in plain and "slab_take" in direct and "magazine_load" not in direct


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--event", 70], "no event has the number 70"),
    (["--at", "999,999,999"], "instruction 999,999,999 is outside the run"),
    (["--at", "no_such_function"], "no_such_function"),
    (["--at", 5, "--event", 1], "--at tells one instruction: --event does not go with it"),
    (["--at", 5, "--depth", 1], "--at tells one instruction: --depth does not go with it"),
    (["--event", "x"], "x"),
    (["--depth", 99], "99"),
])
def test_what_cannot_be_told_is_one_sentence(run: Run, arguments: list[object], sentence: str) -> None:
    status, out, err = run("explain", "01", *arguments)
    assert (status, out) == (2, "") and sentence in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_run_without_allocations_says_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "nothing.asm"
    path.write_text("main:\n xor eax, eax\n ret\n")
    assert run("explain", path) == (2, "", "error: this run allocates nothing: there is no event to tell\n")
