"""Stock gdb on ``sandbox gdb``, through whole sessions; what it says is compared with the timeline, asked directly."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import DIRECT_MAP, page
from sandbox.address import PAGE_SHIFT
from sandbox.debugger.timeline import Timeline

from .gdb_programs import SHOW, WINDOW

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")

PATIENCE = 60
OPTIONS = {"ram": "4M", "hz": 1000, "magazines": False}
ARGUMENTS = ("--ram", "4M", "--hz", "1000", "--no-magazines")
PROGRAM = SHOW + """
.text
# int main(void)
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov edi, 64
    call kmalloc
    mov rbx, rax                        # rbx = the first object
    mov edi, 64
    call kmalloc
    mov r12, rax                        # r12 = the second one
    mov rdi, rbx
    call kfree
    mov rdi, r12
    call kfree
the_pages:
    mov edi, 0x1111
    call a_page
    mov rbx, rax
    mov edi, 0x2222
    call a_page
    mov r12, rax
    mov rdi, rbx
    call show
    mov rax, WINDOW
    mov rax, [rax]
the_first_reading:
    mov rdi, WINDOW
    call unmap_page
    mov rdi, r12
    call show
    mov rax, WINDOW
    mov rax, [rax]
the_second_reading:
    call a_while
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret

# u64 *a_page(u64 word)
a_page:
    push rbp
    mov rbp, rsp
    push rdi
    push rdi
    xor edi, edi
    call get_free_pages
    pop rdi
    pop rdi
    mov [rax], rdi
    pop rbp
    ret

# void a_while(void)
a_while:
    mov ecx, 40000
.La_while_turn:
    inc qword ptr [rip + turns]
    dec ecx
    jnz .La_while_turn
    ret

.data
.p2align 3
turns:
    .quad 0
"""


def line_of(text: str) -> int:
    """The number of the program's line that begins so."""
    return next(number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.strip().startswith(text))


TURN = f"program.asm:{line_of('inc qword')}"


@dataclass(frozen=True)
class Served:
    """``sandbox gdb`` in a process of its own, and the file of gdb's first commands that it wrote."""

    process: subprocess.Popen[str]
    port: int
    script: Path
    command: str


def serve(program: Path, *arguments: str) -> Served:
    process = subprocess.Popen([sys.executable, "-m", "sandbox", "gdb", str(program), *arguments], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline() for _ in range(3)]
    if not lines[2]:
        process.wait()
        raise AssertionError(f"{lines} {process.stderr.read()}")
    found = re.search(r"port (\d+) of", lines[1])
    assert found is not None, lines
    command = lines[2].strip()
    return Served(process, int(found[1]), Path(command.split()[-1]), command)


def end(served: Served) -> int:
    served.process.send_signal(signal.SIGINT)
    served.process.communicate(timeout=PATIENCE)
    return served.process.returncode


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(PROGRAM, **OPTIONS)
    with recorded.kernel:
        yield recorded


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("gdb")
    program = directory / "program.asm"
    program.write_text(PROGRAM)
    running = serve(program, "--port", "0", "--symbols", str(directory / "k.elf"), *ARGUMENTS)
    yield running
    end(running)


def asked(served: Served, directory: Path, beginning: str, commands: tuple[str, ...]) -> list[str]:
    """What gdb prints for each of the commands, behind those of ``beginning``."""
    script = directory / "script.gdb"
    marked = "".join(f"echo \\n<<<>>>\\n\n{command}\n" for command in commands)
    script.write_text(beginning + marked)
    done = subprocess.run(
        ["gdb", "-q", "-batch", "-nx", "-ex", "set pagination off", "-ex", "set confirm off",
         "-ex", "set width 0", "-x", str(served.script), "-x", str(script)],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    output = done.stdout.removesuffix("[Inferior 1 (Remote target) detached]\n")
    answers = [answer.strip() for answer in output.split("<<<>>>")[1:]]
    assert len(answers) == len(commands), done.stdout
    return answers


@pytest.fixture
def gdb(served: Served, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs gdb on a script, from the beginning of main; gives the lines that each command printed."""
    return lambda *commands: asked(served, tmp_path, "goto 0\nbreak main\ncontinue\ndelete\n", commands)


def main_of(timeline: Timeline[Kernel]) -> int:
    timeline.goto(timeline.start)
    found = timeline.run_to("main")
    assert found is not None
    return found.instruction


def number(text: str) -> int:
    """The value in ``$1 = 0x...``."""
    return int(text.rpartition("=")[2].split()[0], 0)


def test_a_session(served: Served, gdb: Callable[..., list[str]], timeline: Timeline[Kernel]) -> None:
    """Break at a source line, step, watch a field of a slab, go back to the store that changed it, print a backtrace,
    read through a page-table change, detach and attach again."""
    source = timeline.kernel.image
    inc = next(n for n, text in enumerate(source.files["kernel_asm/slab.asm"].splitlines(), 1)
               if "inc word ptr [rsi + page.inuse]" in text)
    answers = gdb(
        f"tbreak program.asm:{line_of('mov rdi, rbx')}",            # 0
        "continue",
        "stepi",
        "print/x $rdi",                                             # 3: the first object
        f"set $page = &((struct page *)mem_map)[((unsigned long)$rdi - {DIRECT_MAP:#x}) >> {PAGE_SHIFT}]",
        "print/x $page",                                            # 5
        "print $page->inuse",
        "watch $page->inuse",
        "reverse-continue",                                         # 8: the second kmalloc
        "backtrace",
        "monitor when",                                             # 10
        "reverse-continue",                                         # the first one
        "monitor when",                                             # 12
        "continue",
        "delete",
        "break the_first_reading",
        "continue",
        f"print/x *(unsigned long *){WINDOW:#x}",                   # 17
        "break the_second_reading",
        "continue",
        f"print/x *(unsigned long *){WINDOW:#x}",                   # 20
        "reverse-continue",
        f"print/x *(unsigned long *){WINDOW:#x}",                   # 22
        f"monitor walk {WINDOW:#x}",
        "detach",                                                   # 24
        f"target remote localhost:{served.port}",
        "backtrace",                                                # 26
        "info breakpoints",
        "reverse-stepi",
        "print/x $pc",                                              # 29
        "monitor when",
    )
    here = line_of("mov rdi, rbx")
    assert f"program.asm, line {here}." in answers[0]
    assert re.search(rf"Temporary breakpoint \d+, main \(\) at \S*program.asm:{here}\n{here}\t", answers[1])
    assert answers[2].startswith(f"{here + 1}\t")
    allocated = [event for event in timeline.trace if event.function == "kmalloc"]
    assert number(answers[3]) == allocated[0].address
    slab = number(answers[5])
    mem_map = timeline.kernel.memory.u64(timeline.kernel.symbols["mem_map"])
    assert slab == mem_map + ((allocated[0].address - DIRECT_MAP) >> PAGE_SHIFT) * page.size
    assert answers[6] == "$3 = 2"

    # the stores, asked of a timeline that gdb knows nothing of
    timeline.goto(main_of(timeline))
    timeline.run_to(f"program.asm:{here}")
    second = timeline.who_wrote(slab + page.inuse.offset, 2)
    assert second is not None
    first = timeline.who_wrote(slab + page.inuse.offset, 2, before=second.instruction)
    assert first is not None
    assert (first.value, second.value) == (1, 2)
    assert "Old value = 2\nNew value = 1\n" in answers[8] and f"slab.asm:{inc}\n" in answers[8]
    assert answers[10].startswith(f"@{second.instruction:,} of {timeline.length:,}  slab_take")
    assert "Old value = 1\nNew value = 0\n" in answers[11]
    assert answers[12].startswith(f"@{first.instruction:,} of ")
    assert "Old value = 0\nNew value = 1\n" in answers[13] and f"slab.asm:{inc + 1}\n" in answers[13]
    timeline.goto(second.instruction)
    frames = [re.sub(r"^#\d+ +(?:0x\w+ in )?(\w+) \(.*\) at .*?([\w./]+:\d+)$", r"\1 \2", line)
              for line in answers[9].splitlines()]
    assert [frame.split()[0] for frame in frames][-2:] == ["main", "kernel_ready"] and len(frames) >= 4
    assert frames[0] == f"slab_take kernel_asm/slab.asm:{inc}" or frames[0].endswith(f"slab.asm:{inc}")

    # one address, two frames
    assert [number(answers[at]) for at in (17, 20, 22)] == [0x1111, 0x2222, 0x1111]
    timeline.goto(main_of(timeline))
    reading = timeline.run_to("the_first_reading")
    assert reading is not None
    assert answers[23] == timeline.kernel.machine.paging.explain(WINDOW)
    assert answers[24].endswith("detached]")
    assert "the_first_reading" in answers[26]
    assert answers[27].splitlines()[0].startswith("Num")             # gdb's own, inserted anew
    before = timeline.goto(reading.instruction - 1)
    assert number(answers[29]) == before.rip and answers[30].startswith(f"@{before.instruction:,} of ")


def test_every_way_backwards(gdb: Callable[..., list[str]], timeline: Timeline[Kernel]) -> None:
    second = line_of("mov r12, rax") - 1                             # the second call of kmalloc
    answers = gdb(
        f"tbreak program.asm:{second}", "continue",
        "next", "reverse-next",                                      # 2, 3: over the call, and back over it
        "step", "reverse-finish",                                    # 4, 5: into it, and back to it
        "step", "finish", "reverse-step", "finish",                  # 6..9: out of it, and in again from behind
        f"until program.asm:{second + 2}",                           # 10
        "reverse-stepi", "reverse-stepi", "stepi", "stepi",          # 11..14
        "break kfree if $rdi == 0", "continue",                      # 15, 16: a condition that never holds
        "reverse-continue",                                          # 17
        "reverse-stepi",
    )
    assert answers[2].startswith(f"{second + 1}\t")
    assert answers[3].startswith(f"{second}\t")
    assert answers[4].startswith("kmalloc (") and answers[5].startswith(("main (", "Run back"))
    assert f"{second}\t" in answers[5]
    assert answers[6].startswith("kmalloc (") and f"{second + 1}\t" in answers[7]
    assert re.match(r"\w+ \(.*\) at .*\d+\n\d+\t +ret$", answers[8]) and f"{second + 1}\t" in answers[9]
    assert f"{second + 2}\t" in answers[10]
    assert answers[11].startswith(f"{second + 1}\t") and answers[14].startswith(f"{second + 2}\t")
    assert "No more reverse-execution history" in answers[16] and timeline.result is not None
    assert "No more reverse-execution history" in answers[17] and "_start" in answers[17]
    assert "No more reverse-execution history" in answers[18]


def test_read_and_access_watchpoints(gdb: Callable[..., list[str]], timeline: Timeline[Kernel]) -> None:
    turns = int(timeline.kernel.symbols["turns"])
    answers = gdb(
        f"rwatch *(unsigned long *){turns:#x}", "continue", "monitor when", "delete",         # 0..3
        f"awatch *(unsigned long *){turns:#x}", "continue", "monitor when", "reverse-continue", "monitor when",
        "delete",
        f"watch *(unsigned long *){turns:#x} if *(unsigned long *){turns:#x} == 5", "continue", "monitor when",
    )
    timeline.goto(main_of(timeline))
    turn = [timeline.run_to(TURN) for _ in range(6)]
    assert all(moment is not None for moment in turn)
    counts = [moment.instruction for moment in turn if moment is not None]
    assert "Hardware read watchpoint" in answers[1] and "Value = " in answers[1]
    assert answers[2].startswith(f"@{counts[0] + 1:,} of")
    assert "Hardware access (read/write) watchpoint" in answers[5]
    assert answers[6].startswith(f"@{counts[1] + 1:,} of")
    assert answers[8].startswith(f"@{counts[1]:,} of")
    assert "New value = 5" in answers[11] and answers[12].startswith(f"@{counts[4] + 1:,} of")


def test_next_does_not_end_in_the_timer(gdb: Callable[..., list[str]], timeline: Timeline[Kernel]) -> None:
    """Over a call in which interrupts happen, and line by line through a moment at which one does."""
    timeline.goto(main_of(timeline))
    timeline.run_to(TURN)
    stub = int(timeline.kernel.symbols["trap_stubs"]) + (32 << timeline.kernel.image.constants["STUB_SHIFT"])
    interrupt = timeline.run_to(stub)
    assert interrupt is not None
    call, turn = line_of("call a_while"), line_of("inc qword")
    answers = gdb(f"goto {interrupt.instruction - 6}", *["next"] * 9, *["reverse-next"] * 9, *["stepi"] * 9,
                  f"tbreak program.asm:{call}", "reverse-continue", "next", "reverse-next")
    lines = [int(answer.split("\t")[0].splitlines()[-1]) for answer in answers[:28]]
    assert set(lines) == {turn, turn + 1, turn + 2}
    forwards = lines[:10]
    assert all(after == (before + 1 if before < turn + 2 else turn)
               for before, after in pairwise(forwards))
    assert lines[9:19] == forwards[::-1] and lines[18:28] == forwards
    assert answers[-2].startswith(f"{call + 1}\t") and answers[-1].startswith(f"{call}\t")


def test_the_callers_of_main_are_shown_and_reverse_finish_goes_to_one(gdb: Callable[..., list[str]]) -> None:
    answers = gdb("backtrace", "reverse-finish", "stepi", "print $_")
    assert answers[0].startswith("#0  main") and re.search("^#1 .* in kernel_ready", answers[0], re.MULTILINE)
    assert answers[1].splitlines()[-1].endswith("call rax") and answers[2].startswith("main (")


def test_monitor_goto_and_what_cannot_be_done(gdb: Callable[..., list[str]], timeline: Timeline[Kernel]) -> None:
    event = timeline.trace[1]
    assert event.function == "kmalloc"
    answers = gdb(f"monitor goto {event.entered}", "print $pc", "goto end", "info registers cr3 efer gs_base cr8",
                  "monitor nonsense", "monitor kmem_verify", "monitor findleaks", "print $xmm0.uint128")
    assert "maintenance" not in answers[0] and "<kmalloc>" in answers[1]
    assert "debug_exit" in answers[2]
    timeline.goto(timeline.length)
    cpu = timeline.kernel.machine.cpu
    for name in ("cr3", "efer", "gs_base"):
        assert re.search(rf"^{name} +{cpu[name]:#x} ", answers[3], re.MULTILINE), name
    assert re.search(r"^efer .*\[ LME LMA NXE \]$", answers[3], re.MULTILINE)
    assert answers[4].startswith("no command is called 'nonsense'")
    assert answers[5] == "heap: sound"
    assert answers[6].splitlines() == list(map(str, timeline.kernel.heap.leaks()))
    assert answers[7].endswith("<unavailable>")


def test_the_past_is_not_written(served: Served, tmp_path: Path) -> None:
    script = tmp_path / "script.gdb"
    for order in ("set var $rax = 5", "set var *(int *)$sp = 5", "print kmalloc(64)"):
        script.write_text(f"goto #0\n{order}\necho was done\\n\n")
        done = subprocess.run(["gdb", "-q", "-batch", "-nx", "-x", str(served.script), "-x", str(script)], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
        assert "was done" not in done.stdout
        assert "this is a recorded run" in done.stdout or "Cannot access memory" in done.stdout, done.stdout


def test_ctrl_c_in_gdb_stops_the_search(served: Served) -> None:
    process = subprocess.Popen(["gdb", "-q", "-nx", "-x", str(served.script)], text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("set confirm off\nset pagination off\ngoto 0\n"
                        f"break {TURN} if $rcx == -5\necho on\\n\ncontinue\n")
    process.stdin.flush()
    seen = ""
    while "Continuing" not in seen:
        seen = process.stdout.readline()
        assert seen
    time.sleep(0.7)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate("print/x $rip == 0\nquit\n", timeout=PATIENCE)
    assert "received signal SIGINT" in out and "$1 = 0x0" in out


# -- the command ------------------------------------------------------------------------------------------------
def test_ctrl_c_ends_the_server_with_130_and_leaves_nothing_behind(tmp_path: Path) -> None:
    served = serve(Path("01"), "--port", "0", "--ram", "4M")
    assert served.command == f"gdb -q -x {served.script}" and served.script.exists()
    assert f"target remote 127.0.0.1:{served.port}\n" in served.script.read_text()
    try:
        taken = subprocess.run([sys.executable, "-m", "sandbox", "gdb", "01", "--port", str(served.port)], text=True,
                               capture_output=True, timeout=PATIENCE, check=False)
        assert (taken.returncode, taken.stdout) == (2, "")
        assert taken.stderr == f"error: cannot listen on port {served.port} of 127.0.0.1: Address already in use\n"
    finally:
        assert end(served) == 130
    assert not served.script.parent.exists()
