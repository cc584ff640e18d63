"""``sandbox step`` as it is used: in a real terminal, and line by line from a script.

``python -m tests.test_step`` prints the README's picture of the stepper anew.
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sandbox
from sandbox.cli import main
from sandbox.view.step.screen import picture
from sandbox.view.step.stepper import Stepper

from .pseudo_terminal import PseudoTerminal

COLOUR = re.compile(rb"\x1b\[[0-9;]*?(?<![0-9])(?:3[0-9]|4[0-9]|9[0-7]|10[0-7])[0-9;]*m")
README = Path(sandbox.__file__).parent.parent / "README.md"
README_COMMAND = "sandbox step 14"
README_KEYS = ("G", "w", "=0xffff88800025e020 1", "enter")


def moment(text: str) -> int:
    """The instruction count in the head of a screen."""
    found = re.match(r"@([\d,]+) of", text)
    return int(found[1].replace(",", "")) if found else -1


# -- in a terminal ----------------------------------------------------------------------------------------------
def test_in_a_terminal_of_80_x_24_one_steps_searches_and_asks_who_wrote() -> None:
    with PseudoTerminal("step", "15") as terminal:
        start = moment(terminal.wait("? help"))
        assert "main (examples/15_use_after_free.asm:" in terminal.text
        terminal.type("s")
        terminal.wait(f"@{start + 1:,} of")
        terminal.type("25s")
        terminal.wait(f"@{start + 26:,} of")
        terminal.type("25S")
        terminal.wait(f"@{start + 1:,} of")
        terminal.type("/kind=free\r")
        free = moment(terminal.wait(lambda text: "kfree(0xffff" in text.splitlines()[-1]
                                    and "  kfree (kernel_asm/kmalloc.asm:" in text.splitlines()[0]))
        terminal.type("[")
        terminal.wait("no earlier event is like 'kind=free'")
        terminal.type("]")
        terminal.wait(lambda text: moment(text) > free)
        terminal.type("[")
        terminal.wait(lambda text: moment(text) == free)
        terminal.type("w")
        terminal.wait(lambda text: "who wrote: 0xffff" in text)
        terminal.type("\r")
        wrote = re.compile(r"^@([\d,]+) main", re.MULTILINE)
        found = wrote.search(terminal.wait(lambda text: "(enter goes" in text and wrote.search(text) is not None))
        assert found
        terminal.type("\r")
        terminal.wait(lambda text: moment(text) == int(found[1].replace(",", ""))
                      and "> mov qword ptr [rbx], 100" in re.sub(r">\s+\d+\s+", "> ", text))
        terminal.type("q")
        assert terminal.end() == 0


def test_the_help_lies_over_the_panes_and_goes_away_and_colours_are_the_terminals_own() -> None:
    with PseudoTerminal("step", "01") as terminal:
        terminal.wait("? help")
        terminal.type("?")
        text = terminal.wait("q closes")
        assert "finish: to this function's return" in text and "registers" not in text
        terminal.type("q")
        terminal.wait("registers")
        terminal.type("?s")
        start = terminal.wait("main+0x1 (")
        assert "q closes" not in start
        terminal.type(":info program\r")
        terminal.wait("success: main returned 0")
        terminal.type("qq")
        assert terminal.end() == 0
        assert COLOUR.search(terminal.raw) and b"38;2;" not in terminal.raw


def test_it_follows_the_size_of_the_terminal_and_says_when_that_is_too_small() -> None:
    with PseudoTerminal("step", "01") as terminal:
        terminal.wait("? help")
        terminal.resize(40, 10)
        text = terminal.wait(lambda text: "has 40 x 10: make it larger" in " ".join(text.split()))
        assert "registers" not in text
        terminal.resize(130, 40)
        text = terminal.wait(lambda text: "─ stack ─" in text and "─ trace" in text and "? help" in text)
        assert len(text.splitlines()) == 40
        terminal.resize(80, 24)
        terminal.wait(lambda text: "? help" in text and len(text.splitlines()) == 24)
        terminal.type("s")
        terminal.wait("main+0x1 (")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "vt100"}], ids=["NO_COLOR", "vt100"])
def test_without_colour_no_colour_is_sent(environment: dict[str, str]) -> None:
    with PseudoTerminal("step", "01", **environment) as terminal:
        terminal.wait("? help")
        terminal.type("sw")
        terminal.wait("who wrote:")
        terminal.type("0x1000\r")
        terminal.wait("does not translate")
        terminal.type("?q")
        terminal.wait("registers")
        assert COLOUR.findall(terminal.raw) == []


def test_a_terminal_without_a_screen_gets_a_prompt() -> None:
    with PseudoTerminal("step", "01", TERM="dumb") as terminal:
        terminal.wait("(step)")
        terminal.type("step 2\r")
        terminal.wait("main+0x4")
        terminal.type("frob\r")
        terminal.wait("no command is called 'frob'")
        terminal.type("quit\r")
        assert terminal.end() == 0


def test_sigterm_gives_the_terminal_back_and_ends_the_stepper_as_it_ends_others() -> None:
    with PseudoTerminal("step", "01", TERM="dumb") as terminal:
        terminal.wait("(step)")
        terminal.signal(signal.SIGTERM)
        plain = terminal.end()
    with PseudoTerminal("step", "01") as terminal:
        before = terminal.attributes
        terminal.wait("? help")
        assert terminal.attributes != before and b"\x1b[?1049h" in terminal.raw
        terminal.signal(signal.SIGTERM)
        assert terminal.end() == plain == -signal.SIGTERM            # a shell says 143
        assert terminal.attributes == before
        assert terminal.raw.rindex(b"\x1b[?1049l") > terminal.raw.rindex(b"\x1b[?1049h")
        assert terminal.raw.rindex(b"\x1b[?25h") > terminal.raw.rindex(b"\x1b[?25l")


# -- line by line -----------------------------------------------------------------------------------------------
def scripted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, *arguments: str
             ) -> tuple[int, str, str]:
    """The status, standard output and standard error of a script."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(script))
    status = main(["step", *arguments])
    return (status, *capsys.readouterr())


def test_a_script_gets_its_answers_without_a_prompt_and_without_an_echo(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = scripted(monkeypatch, capsys, "step\n\n# nothing\nback\nquit\nstep\n", "01")
    lines = out.splitlines()
    assert (status, err) == (0, "") and len(lines) == 6 and lines[0] == lines[4] and "(step)" not in out
    assert scripted(monkeypatch, capsys, "step\n\n# nothing\nback\nquit\nstep\n", "01") == (0, out, "")


def test_a_script_goes_on_after_what_cannot_be_done_and_its_status_says_so(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = scripted(monkeypatch, capsys, "frob\nstep\n", "--plain", "01")
    assert status == 1 and err == "error: no command is called 'frob': help lists them\n"
    assert out.count("@") == 2


def test_a_long_sentence_about_the_end_of_the_run_is_wrapped(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "triple.asm").write_text("main: push 0\n push 0\n lidt [rsp]\n ud2\n")
    monkeypatch.chdir(tmp_path)
    status, out, _ = scripted(monkeypatch, capsys, "goto end\ninfo program\n", "triple.asm")
    lines = out.splitlines()
    assert status == 0 and "triple fault" in out and max(map(len, lines)) <= 80, out
    assert len([line for line in lines if line.startswith("the end of the run: ")]) == 2
    assert len(" ".join(lines[lines.index(next(line for line in lines if line.startswith("the end"))) :])) > 160


def test_at_the_end_the_line_is_told_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                         tmp_path: Path) -> None:
    program = tmp_path / "bad.asm"
    program.write_text("main:\n    mov edi, 24\n    call kmalloc\n    mov byte ptr [rax + 24], 1\n    ret\n")
    _, out, _ = scripted(monkeypatch, capsys, "", str(program), "--shadow", "--at", "end")
    lines = out.splitlines()
    assert lines[1] == "     4  mov byte ptr [rax + 24], 1" and lines[2].startswith("the end of the run: out-of-bounds")


def test_a_key_of_the_screen_that_is_no_command_names_the_command(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = scripted(monkeypatch, capsys, "G\n>\n<\n", "01")
    assert status == 1 and err.splitlines() == [
        f"error: no command is called {key!r}: it is a key of the screen; write goto {place}"
        for key, place in (("G", "end"), (">", "end"), ("<", "start"))]


def test_what_an_instruction_writes_is_told_before_and_after(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program = tmp_path / "store.asm"
    program.write_text("main: mov qword ptr [rip + cell], 7\nthe_store: mov qword ptr [rip + cell], 1234\n"
                       " xor eax, eax\n ret\n.data\ncell: .quad 0\n")
    _, out, _ = scripted(monkeypatch, capsys, "explain\nprint rip - the_store\n", str(program), "--at", "the_store")
    assert "[rip + cell]: 7 -> 1234" in out and out.endswith("0x0 = 0\n"), out
    with sandbox.record(program) as timeline:
        timeline.goto(timeline.start)
        timeline.run_to("the_store")
        told = " ".join(row.text.strip() for row in picture(Stepper(timeline), 80, 24)[1:3])
        assert "now 7" in told and "becomes 1234" in told, told


def test_it_begins_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for at, words in (("kfree", "kfree (kernel_asm/kmalloc.asm:"), ("1,000", "@1,000 of"), ("end", "end of the run"),
                      ("01_first_allocation.asm:1", "main ("), ("kmalloc+0x4", "kmalloc+0x4 (")):
        status, out, _ = scripted(monkeypatch, capsys, "", "01", "--at", at)
        assert status == 0 and words in out


@pytest.mark.parametrize(("arguments", "words"), [
    (("01", "--at", "nothing.asm:3"), "no source file"),
    (("nothing.asm",), "nothing.asm"), (("01", "--at", "999,999,999"), "999,999,999"),
    (("01", "--at", "krealloc"), "krealloc is never reached"), (("nothing.rec",), "nothing.rec"),
    (("nothing.rec", "--ram", "32M"), "a record has its own options: --ram"), (("01", "--hz", "-1"), "--hz")])
def test_wrong_usage_is_one_sentence_and_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                  arguments: tuple[str, ...], words: str) -> None:
    status, _, err = scripted(monkeypatch, capsys, "", *arguments)
    assert status == 2 and words in err and len(err.splitlines()) == 1


def test_the_machine_options_are_those_of_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
                                              ) -> None:
    _, out, _ = scripted(monkeypatch, capsys, "goto end\nslabs kmalloc-64\n", "01", "--no-magazines")
    assert "0 in magazines, 64 free" in out
    _, out, _ = scripted(monkeypatch, capsys, "goto end\n", "14", "--shadow")
    assert "out-of-bounds: the_overflow" in out


def test_a_saved_record_is_opened_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                        tmp_path: Path) -> None:
    file = str(tmp_path / "run.rec")
    script = "until kfree\nbacktrace\n"
    status, out, err = scripted(monkeypatch, capsys, f"save {file}\n{script}", "01")
    assert (status, err) == (0, "")
    status, again, err = scripted(monkeypatch, capsys, script, file)
    assert (status, err) == (0, "") and again == out.replace(f"saved {file}\n", "")


def test_textual_is_loaded_by_the_application_alone() -> None:
    package = Path(sandbox.__file__).parent
    users = [path for path in package.rglob("*.py") if re.search(r"^\s*(from|import) textual", path.read_text(), re.M)]
    assert sorted(path.relative_to(package).as_posix() for path in users) == ["cli/step.py", "view/step/app.py"]
    code = "import sys, sandbox.cli; assert 'textual' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_textual_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    with pytest.raises(sandbox.UsageError, match=r"slab-sandbox\[tui\].*--plain"):
        import_module("sandbox.cli.step").require_textual()


# -- the picture in the README ----------------------------------------------------------------------------------
def readme_picture() -> str:
    """The screen of 80 x 24 that the README shows."""
    program, *_ = README_COMMAND.removeprefix("sandbox step ").split()
    timeline = sandbox.record(program)
    with timeline.kernel:
        timeline.goto(timeline.start)
        timeline.run_to("main")
        stepper = Stepper(timeline)
        for key in README_KEYS:
            if key.startswith("="):
                stepper.submit(key[1:])
            else:
                stepper.press(key)
        return "\n".join(row.text.rstrip() for row in picture(stepper, 80, 24)) + "\n"


@pytest.mark.skipif(not README.exists() or README_COMMAND not in README.read_text("utf-8"), reason="no picture there")
def test_the_picture_in_the_readme_is_what_the_stepper_shows() -> None:
    assert readme_picture() in README.read_text("utf-8")


if __name__ == "__main__":
    sys.stdout.write(readme_picture())
