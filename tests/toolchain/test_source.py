"""Reading files, comments, labels, operands and strings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import AssemblyError, ProgramError
from sandbox.toolchain.source import Source, SourceLine, split_labels, split_operands, string_bytes, strip_comment


def line(text: str) -> SourceLine:
    return SourceLine("a.asm", 3, text)


@pytest.mark.parametrize(("text", "left"), [
    ("mov eax, 1  # one", "mov eax, 1"),
    ("# Grüße, \"unbalanced", ""),
    ('.asciz "a # b"  # c', '.asciz "a # b"'),
    (r'.asciz "a \" # b"', r'.asciz "a \" # b"'),
    ("cmp al, '#'  # hash", "cmp al, '#'"),
    (r"cmp al, '\''  # quote", r"cmp al, '\''"),
    ("\tret\t", "ret"),
])
def test_comments_are_taken_away_outside_of_quotes_alone(text: str, left: str) -> None:
    assert strip_comment(line(text)) == left


@pytest.mark.parametrize(("text", "reason"), [
    ("mov eax, 1 ; one", "';' separates statements"),
    ("mov eax, ü", "not ASCII"),
    ('.asciz "open', "no partner"),
    ("cmp al, 'ab'", "one character"),
    ("cmp al, '", "one character"),
    ("mov eax,\x011", "not ASCII text"),
])
def test_text_that_assemblers_read_differently_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(AssemblyError, match=r"a\.asm:3: .*") as caught:
        strip_comment(line(text))
    assert reason in str(caught.value) and caught.value.line == 3


def test_labels_stand_before_the_statement() -> None:
    assert split_labels("a: .Lb: ret", line("")) == (["a", ".Lb"], "ret")
    with pytest.raises(AssemblyError, match="numeric labels"):
        split_labels("1: jmp 1b", line("1: jmp 1b"))


def test_operands_split_at_commas_outside_brackets_and_quotes() -> None:
    assert split_operands("") == []
    assert split_operands(r'"a,\",b", (1,2), [rax,1], ' "',', x") == [r'"a,\",b"', "(1,2)", "[rax,1]", "','", "x"]


def test_strings_know_the_escapes_that_both_assemblers_know() -> None:
    assert string_bytes(r'"a\n\t\\\"\0\101z"', line("")) == b'a\n\t\\"\0Az'
    for wrong in (r'"\q"', r'"\777"', "word", '"a" "b"'):
        with pytest.raises(AssemblyError):
            string_bytes(wrong, line(wrong))


def test_a_file_that_is_missing_or_not_text_is_a_program_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x7fELF\xff\xfe")
    (tmp_path / "zeros").write_bytes(b"ret\0")
    (tmp_path / "huge").write_bytes(b"#" * (1 << 20) + b"#")
    for name, reason in [("none", "no such file"), ("binary", "not a text file"), ("zeros", "not a text file"),
                         ("huge", "larger than"), (".", "cannot be read")]:
        with pytest.raises(ProgramError, match=reason):
            Source.read(tmp_path / name)


def test_lines_are_numbered_from_one_and_lose_their_carriage_returns(tmp_path: Path) -> None:
    (tmp_path / "a.asm").write_bytes(b"one\r\ntwo\n")
    assert [(item.number, item.text) for item in Source.read(tmp_path / "a.asm", "a").lines()] == [
        (1, "one"), (2, "two"), (3, "")]
