"""Allocators that were made for the pack: what they would have to know follows from the seed, and they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.conformance import check_image, scripts, source_of_test
from sandbox.conformance.judges import judge_of
from sandbox.conformance.operations import Script
from sandbox.conformance.player import play
from sandbox.conformance.subject import Subject
from sandbox.guest.allocator import AllocatorOptions, ForeignAllocator
from sandbox.guest.images import assemble_allocator
from sandbox.toolchain import packaged

from .broken import ALLOCATORS

GOOD = (ALLOCATORS / "freelist.asm").read_text()
LIMIT = 10_000


def linked(*changes: tuple[str, str]) -> ForeignAllocator:
    """The free list with some texts changed."""
    text = GOOD
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return assemble_allocator(text, packaged.kernel_image(), AllocatorOptions(arena=16 << 10))


def counting(check: str, most: int) -> ForeignAllocator:
    """It makes one of its checks in the first calls of ``deallocate`` only."""
    jump, label = check.split()
    skip = {"jne": "je", "jnz": "jz"}[jump]
    return linked(("    mov rcx, rdi\n    sub rcx, [rip + first]\n    test ecx",
                   "    inc qword ptr [rip + calls]\n    mov rcx, rdi\n    sub rcx, [rip + first]\n    test ecx"),
                  (f"    {check}\n", f"    {skip} .Lright\n    cmp qword ptr [rip + calls], {most}\n    jbe {label}\n"
                   ".Lright:\n"), ("list:\n    .zero 8\n", "list:\n    .zero 8\ncalls:\n    .zero 8\n"))


def found(allocator: ForeignAllocator, line: str, seed: int) -> list[str]:
    """What the lists of one line find."""
    with Subject(allocator, LIMIT, seed) as subject:
        lists = {"double_free": scripts.double_frees, "wild_free": scripts.wild_frees}[line](subject, seed, 256)
        return [finding.reason for script in lists if (finding := judge_of(line)(play(subject, script))) is not None]


@pytest.mark.parametrize(("line", "check", "most"), [("double_free", "jne .Ldeallocate_twice", 3),
                                                     ("wild_free", "jnz .Ldeallocate_wild", 2)])
def test_one_that_checks_only_the_first_calls_is_found(line: str, check: str, most: int) -> None:
    for seed in range(3):
        assert found(counting(check, most), line, seed)
        assert found(linked(), line, seed) == []


def test_the_lists_of_misuse_follow_from_the_seed_and_each_misuses() -> None:
    with Subject(linked(), LIMIT) as subject:
        def lists(seed: int) -> list[Script]:
            return [*scripts.double_frees(subject, seed, 256), *scripts.wild_frees(subject, seed, 256),
                    scripts.sizes(subject, seed, 256)]

        assert lists(1) == lists(1)
        assert all(first != second for first, second in zip(lists(1), lists(2), strict=True))
        for seed in range(4):
            for script in lists(seed)[:-1]:
                assert play(subject, script).answer.startswith("panic: "), script


@pytest.mark.parametrize(("code", "words"), [
    ("movabs rbx, 0x5ca1ab1e00000001", "rbx changed from 0x"),
    ("movabs r12, 0x5ca1ab1e0000000c", "r12 changed from 0x"),
    ("std", "RFLAGS.DF set, which System V wants clear"),
    ("cli", "interrupts off (RFLAGS.IF), and they were on"),
    ("swapgs", "gs_base changed from 0x"),
], ids=("rbx", "r12", "df", "if", "gs"))
def test_one_that_leaves_the_cpu_otherwise_than_it_was_fails_registers(code: str, words: str) -> None:
    allocator = linked(("    inc qword ptr [rip + free]\n", f"    inc qword ptr [rip + free]\n    {code}\n"))
    with Subject(allocator, LIMIT, 5) as subject:
        again = [play(subject, Script("one", (("allocate", 0, 8), ("free", 0)))).findings for _ in range(2)]
    assert again[0] == again[1]
    assert again[0][0].line == "registers" and words in again[0][0].reason
    assert "deallocate (allocator.asm:" in again[0][0].reason


@pytest.mark.parametrize(("code", "words"), [("std", "RFLAGS.DF"), ("cli", "RFLAGS.IF"), ("swapgs", "gs_base")])
def test_the_report_says_so_and_the_saved_test_too(code: str, words: str, tmp_path: Path) -> None:
    change = "    inc qword ptr [rip + free]\n", f"    inc qword ptr [rip + free]\n    {code}\n"
    report = check_image("x", linked(change), seed=2, limit=LIMIT, shorten=False)
    line = report["registers"]
    assert not line.passed and line.again and words in line.reason
    source = tmp_path / "mine.asm"
    source.write_text(GOOD.replace(*change))
    names: dict[str, Any] = {}
    exec(compile(source_of_test(report, line, source), "saved", "exec"), names)
    with pytest.raises(AssertionError, match=words):
        names["test_registers"]()
    source.write_text(GOOD)
    names["test_registers"]()
