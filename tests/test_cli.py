"""The command line: what is printed, where, in which order, and with which exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sandbox
from sandbox.cli import commands, main
from sandbox.guest.export import QEMU
from sandbox.toolchain.packaged import kernel_image
from sandbox.trace.export import jsonl

from .compilers import needs_compiler

ROOT = str(Path(sandbox.__file__).parent.parent)
Run = Callable[..., tuple[int, str, str]]

BODY = {
    "success": "xor eax, eax",
    "failure": "mov eax, 7",
    "fault": "mov edi, 24\n call kmalloc\n mov rdi, 0x12345000\n mov [rdi], rax",
    "panic": "lea rdi, [rip + main]\n call kfree",
    "fault in the allocator": "mov rdi, 0xffff888000f00000\n call kmem_cache_alloc",
    "loop": ".Lmain_loop: jmp .Lmain_loop",
    "halt": "cli\n hlt",
    "clobbered": "mov rbx, 5\n xor eax, eax",
    "overflow": "call main",
    "nowhere": "mov rax, 0x12345000\n call rax",
    "leak": "mov edi, 24\n call kmalloc\n mov edi, 20000\n call kmalloc\n xor eax, eax",
    "alternating": """mov edi, 1
    call kmalloc
    mov rbx, rax
    lea rdi, [rip + one]
    call kprintf
    mov rdi, rbx
    call kfree
    lea rdi, [rip + two]
    call kprintf
    mov edi, 2
    call kmalloc
    mov rdi, rax
    call kfree
    xor eax, eax""",
    "escape": "lea rdi, [rip + escape]\n call kprintf\n xor eax, eax",
}
PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    push {kept}
    push {kept}
    {body}
    pop {kept}
    pop {kept}
    pop rbp
    ret
.rodata
one: .asciz "after the first\\n"
two: .asciz "before the second\\n"
escape: .asciz "\\033[2Jclear\\n"
"""


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Writes one of the programs and gives its path."""
    def write(name: str) -> str:
        path = tmp_path / f"{name.replace(' ', '_')}.asm"
        path.write_text(PROGRAM.format(body=BODY[name], kept="r12" if name == "clobbered" else "rbx"))
        return str(path)
    return write


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: its status, its output, its errors."""
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())
    return command


# -- exit statuses ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "status", "words"), [
    ("success", 0, "success: main returned 0"),
    ("failure", 1, "failure: main returned 7"),
    ("fault", 3, "page fault: write to 0x0000000012345000: page not present, at main+0x"),
    ("panic", 3, "is not slab memory"),
    ("loop", 3, "limit reached: main has not returned after 200,000 instructions"),
    ("halt", 3, "halted with interrupts off"),
    ("clobbered", 3, "main changed rbx"),
    ("overflow", 3, "stack overflow"),
    ("nowhere", 3, "instruction fetch from 0x0000000012345000"),
])
def test_the_exit_status_tells_how_the_guest_ended_and_a_sentence_says_it(
    run: Run, program: Callable[[str], str], name: str, status: int, words: str
) -> None:
    found, out, err = run("run", program(name), "--limit", 200_000)
    assert found == status and words in out.partition("next\n")[0]
    if status == 3:
        assert err.startswith("error: ") and err.count("\n") == 1 and (words in err or name == "loop")
    else:
        assert err == ""


@pytest.mark.parametrize(("arguments", "words"), [
    (["run"], "Missing argument 'PROGRAM'"),
    (["run", "missing.asm"], "missing.asm: no such file"),
    (["run", "no/such.asm"], "no/such.asm: no such file"),
    (["run", "99"], "99: no such file or example"),
    (["run", "."], "cannot be read"),
    (["run", "11"], "python "),
    (["run", "01", "--ram", "1M"], "the minimum is 4M"),
    (["run", "01", "--ram", "lots"], "is not a size"),
    (["run", "01", "--limit", "0"], "--limit"),
    (["run", "01", "--hz", "1"], "hz is a number from 19"),
    (["run", "01", "--empty-slabs", "-1"], "--empty-slabs"),
    (["run", "01", "--json", "/nonexistent/trace"], "No such file"),
    (["run", "01", "--on", "qemu", "--json", "/dev/null"], "QEMU has no trace"),
    (["run", "\nmain: ret\n"], "a program is a file"),
    (["disasm", "kmaloc"], "did you mean kmalloc"),
    (["disasm", "panic_info"], "panic_info is not code"),
    (["export", "01"], "nothing to write"),
    (["export", "01", "-o", "/nonexistent/image"], "No such file"),
    (["export", "01", "--symbols", "/nonexistent/symbols"], "No such file"),
    (["frobnicate"], "No such command"),
])
def test_bad_usage_is_status_2_and_one_sentence_on_standard_error(run: Run, arguments: list[str], words: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err


@pytest.mark.parametrize(("text", "words"), [
    ("start:\n ret\n", "does not define main"),
    ("main:\n mov rax, [rdi - \n ret\n", "bad.asm:2:"),
    ("main:\n call kmaloc\n ret\n", "bad.asm:2: the symbol 'kmaloc' is not defined"),
    ("main:\n ret\nkfree:\n ret\n", "already defined by the kernel at kernel_asm/kmalloc.asm:"),
    ("main:\n rdtsc\n ret\n", "bad.asm:2:"),
    ("\0\1\2", "not a text file"),
])
def test_a_program_that_cannot_be_is_status_2_and_the_line_is_named(
    run: Run, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "bad.asm"
    path.write_text(text)
    status, out, err = run("run", path)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and words in err and "Traceback" not in err


def test_a_defect_of_the_sandbox_itself_is_a_sentence_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")
    monkeypatch.setattr(commands, "boot", broken)
    status, _, err = run("map")
    assert status == 70
    assert err.startswith("error: the sandbox itself has a defect, ZeroDivisionError") and err.count("\n") == 1


def test_help_and_version_are_success(run: Run) -> None:
    assert run("--version") == (0, f"sandbox, version {sandbox.__version__}\n", "")
    assert run("run", "--help")[0] == 0
    assert run()[0] == 2


# -- what run shows ---------------------------------------------------------------------------------------------
def test_console_lines_and_events_come_in_the_order_in_which_they_happened(
    run: Run, program: Callable[[str], str]
) -> None:
    _, out, _ = run("run", program("alternating"))
    marks = re.findall(r"^after.*|^before.*|(?<=\d  )k\w+\(\w+\)", out, re.M)
    shape = [re.sub(r"0x\w+", "p", mark) for mark in marks]
    assert shape == ["kmalloc(1)", "after the first", "kfree(p)", "before the second", "kmalloc(2)", "kfree(p)"]


def test_what_a_call_does_in_deeper_layers_is_indented_below_it(run: Run, program: Callable[[str], str]) -> None:
    _, out, _ = run("run", program("leak"), "--no-magazines")
    events = re.findall(r"^ *[\d,]+  ( *)(\w+)\(", out, re.M)
    assert [(len(indent) // 2, name) for indent, name in events] == [
        (0, "kmalloc"), (1, "slab_create"), (2, "get_free_pages"), (0, "kmalloc"), (1, "get_free_pages")]


def test_what_was_not_given_back_is_listed_with_the_line_that_took_it(run: Run, program: Callable[[str], str]) -> None:
    path = program("leak")
    source = Path(path).read_text().splitlines()
    calls = [number for number, line in enumerate(source, 1) if "call kmalloc" in line]
    _, out, _ = run("run", path)
    assert "still in use: 2 objects, 32,800 bytes" in out
    assert re.search(rf"0x[0-9a-f]{{16}}  32 bytes of kmalloc-32  by main, line {calls[0]}$", out, re.M)
    assert re.search(rf"0x[0-9a-f]{{16}}  32,768 bytes of whole pages  by main, line {calls[1]}$", out, re.M)
    _, untraced, _ = run("run", path, "--no-trace")
    assert "still in use: 2 objects, 32,800 bytes" in untraced and "by main" not in untraced


def test_the_cells_of_a_touched_slab_add_up_to_the_counts_of_its_cache(
    run: Run, program: Callable[[str], str]
) -> None:
    _, out, _ = run("run", program("leak"))
    found = re.search(r"^kmalloc-32: 32 bytes, 128 in a slab; (\d+) in use, (\d+) in magazines, (\d+) free\n"
                      r"((?:  .*\n)+)", out, re.M)
    assert found is not None
    cells = "".join(re.findall(r"[#o.]{2,}$", found[4], re.M))
    cells += "." * sum(map(int, re.findall(r" and (\d+) free$", found[4], re.M)))
    assert [cells.count(cell) for cell in "#o."] == [int(found[1]), int(found[2]), int(found[3])]
    assert (int(found[1]), len(cells)) == (1, 128)


def test_a_fault_shows_the_backtrace_with_its_source_lines(run: Run, program: Callable[[str], str]) -> None:
    _, out, _ = run("run", program("fault"), "--no-trace")
    assert re.search(r"^   0  main\+0x\w+ \(.*fault.asm:\d+\)\n +mov \[rdi\], rax$", out, re.M)
    assert "is not mapped" in out


def test_quiet_shows_what_the_guest_prints_and_nothing_else(run: Run, program: Callable[[str], str]) -> None:
    assert run("run", program("alternating"), "-q") == (0, "after the first\nbefore the second\n", "")
    status, out, err = run("run", program("loop"), "-q", "--limit", 1000)
    assert (status, out) == (3, "") and err.startswith("error: instruction limit")


@pytest.mark.parametrize("name", ["fault", "panic", "loop", "fault in the allocator", "leak"])
def test_the_json_file_has_every_event_up_to_the_end_whatever_the_end_is(
    run: Run, program: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    path, file = program(name), tmp_path / "trace.jsonl"
    status, out, _ = run("run", path, "--json", file, "--limit", 100_000)
    assert "Traceback" not in out
    events = jsonl.load(file)
    with sandbox.boot(path) as kernel, kernel.trace() as trace:
        kernel.run(limit=100_000)
    assert events == list(trace.walk())
    if name == "fault in the allocator":
        assert status == 3 and events[-1].unfinished and "never returned" in out
    assert json.loads(file.read_text().splitlines()[0])["version"] == 1


def test_the_machine_options_reach_the_machine(run: Run) -> None:
    assert ", 0 in magazines" in run("run", "01", "--no-magazines")[1]
    assert "8192 frames" in run("slabs", "01", "--ram", "32M")[1]


def test_no_command_prints_a_line_that_80_columns_do_not_hold(run: Run) -> None:
    for arguments in (["run", "01"], ["run", "04"], ["run", "12"], ["run", "18"], ["slabs", "03"], ["map", "01"]):
        too_long = [line for line in run(*arguments)[1].splitlines() if len(line) > 80]
        assert too_long == [], arguments


# -- the other commands -----------------------------------------------------------------------------------------
def test_slabs_in_procs_form_is_what_the_guest_itself_prints(run: Run) -> None:
    with sandbox.boot("03") as kernel:
        kernel.run()
        expected = run("slabs", "03", "--proc")[1]
    with sandbox.boot() as kernel:
        kernel.call("slabinfo")
        assert run("slabs", "--proc")[1] == kernel.console
    assert "kmalloc-8k" in expected


def test_the_bytes_beside_the_source_are_the_bytes_of_the_image(run: Run) -> None:
    image = kernel_image()
    text = image.section("text")
    assert text is not None
    for name in ("kmalloc", "kfree", "memcpy", "kprintf"):
        start, end = image.functions[name]
        _, out, _ = run("disasm", name)
        shown = re.findall(r"^(?:\+0x[0-9a-f]+ +| {7})((?:[0-9a-f]{2} ?)+)(?:  |$)", out, re.M)
        assert bytes.fromhex("".join(shown)) == text.data[start - text.address : end - text.address]
        assert f"{name}:" in out


@pytest.mark.parametrize("suffix", [".asm", pytest.param(".c", marks=needs_compiler)])
def test_a_new_program_runs_and_an_existing_file_is_left_alone(run: Run, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"mine{suffix}"
    assert run("new", file)[0] == 0
    status, out, _ = run("run", file)
    assert status == 0 and "an object of 100 bytes is at 0x" in out and "still in use: nothing" in out
    file.write_text("mine")
    status, _, err = run("new", file)
    assert (status, file.read_text()) == (2, "mine") and "left as it is" in err


def test_the_map_is_the_machine_s_own(run: Run) -> None:
    _, out, _ = run("map", "01")
    with sandbox.boot("01") as kernel:
        main_page = kernel.symbols["main"] & ~0xFFF
    line = next(line for line in out.splitlines() if f"{main_page:016x}-" in line)
    assert "r-x" in line and "program" in line


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
def test_the_command_that_export_prints_boots_the_image(run: Run, tmp_path: Path) -> None:
    image = tmp_path / "an image"
    status, out, _ = run("export", "01", "-o", image)
    assert status == 0
    done = subprocess.run(shlex.split(out), stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    quiet = run("run", "01", "-q")
    assert (done.returncode, done.stdout.decode()) == (33, quiet[1])
    assert run("run", "01", "--on", "qemu")[:2] == quiet[:2]


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_the_command_that_export_prints_for_its_symbols_opens_them_in_gdb(run: Run, tmp_path: Path) -> None:
    symbols = tmp_path / "the symbols"
    status, out, _ = run("export", "01", "--symbols", symbols)
    assert status == 0 and (tmp_path / "the symbols.src" / "kernel_asm" / "slab.asm").is_file()
    done = subprocess.run([*shlex.split(out), "-nx", "-batch", "-ex", "list main"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=30, check=True)
    assert "main:" in done.stdout and done.stderr == ""


def test_without_qemu_the_error_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    status, out, err = run("run", "01", "--on", "qemu")
    assert (status, out) == (2, "") and "is not installed" in err and err.count("\n") == 1


# -- as a process -----------------------------------------------------------------------------------------------
def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    return {**kept, "PYTHONPATH": ROOT, "TERM": "xterm", **more}


def on_a_terminal(*arguments: str, until: str = "", **more: str) -> str:
    """The output of a command whose standard streams are a terminal; Ctrl-C is typed once ``until`` has come."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "sandbox", *arguments], environment(**more))
    out, typed, end = b"", False, time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                out += os.read(terminal, 65536)
            except OSError:
                break
        if until and not typed and until.encode() in out:
            os.write(terminal, b"\x03")
            typed = True
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return f"{out.decode()}\nstatus {os.waitstatus_to_exitcode(status)}"


def test_colour_is_for_terminals_alone_and_no_color_is_honoured(run: Run) -> None:
    assert "\x1b" not in run("run", "01")[1]
    coloured = on_a_terminal("run", "01")
    plain = on_a_terminal("run", "01", NO_COLOR="1")
    assert "\x1b[" in coloured and "\x1b" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_a_terminal_does_not_obey_what_the_guest_prints(run: Run, program: Callable[[str], str]) -> None:
    path = program("escape")
    assert run("run", path, "-q")[1] == "\x1b[2Jclear\n"
    shown = on_a_terminal("run", path, "-q", NO_COLOR="1")
    assert "\x1b" not in shown and "\\x1b[2Jclear" in shown


def test_a_long_run_has_a_progress_line_and_ctrl_c_ends_it_in_one_sentence(program: Callable[[str], str]) -> None:
    shown = on_a_terminal("run", program("loop"), until="million a second")
    assert re.search(r"[\d,]+ instructions, [\d,.]+ million a second", shown)
    assert re.search(r"error: interrupted after [\d,]+ instructions, at \S+ \(.*\.asm:\d+\)", shown)
    assert shown.endswith("status 130") and "Traceback" not in shown


def test_ctrl_c_leaves_a_whole_trace_behind(program: Callable[[str], str], tmp_path: Path) -> None:
    path, file = program("leak"), tmp_path / "trace.jsonl"
    Path(path).write_text(Path(path).read_text().replace("xor eax, eax", ".Lmain_loop: jmp .Lmain_loop"))
    process = subprocess.Popen([sys.executable, "-m", "sandbox", "run", path, "--json", file], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    end = time.monotonic() + 30
    while time.monotonic() < end and not (file.exists() and "20000" in file.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in out + err
    assert err.startswith("error: interrupted") and err.count("\n") == 1
    assert [event.function for event in jsonl.load(file) if event.parent is None] == ["kmalloc", "kmalloc"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m sandbox run 04 | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False,
                          env=environment())
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
