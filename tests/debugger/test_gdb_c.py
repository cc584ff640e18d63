"""Stock gdb on a program in C, by ``sandbox gdb``: what it says of lines, locals and calls, in both directions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox import Kernel
from sandbox.debugger.timeline import Timeline

from ..compilers import is_here
from .test_gdb_session import Served, asked, end, serve

pytestmark = [
    pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed"),
    pytest.mark.skipif(not is_here("gcc"), reason="gcc is not installed"),
]

HEADER = """\
struct node { struct node *next; int value; };
static inline int twice(int x)
{
    return 2 * x;
}
"""
PROGRAM = """\
#include "list.h"
#include <sandbox.h>
#include <stdlib.h>

static struct node *head;

static struct node *push(int value)
{
    struct node *made = malloc(sizeof *made);
    made->value = value;
    made->next = head;
    head = made;                        // the store
    return made;
}

static int sum(struct node *list)
{
    int total = 0;
    for (struct node *at = list; at; at = at->next)
        total += twice(at->value);      // the addition
    return total;
}

int main(void)
{
    int total;
    for (int i = 1; i <= 3; i++)
        push(i * 10);                   // the call
    total = sum(head);
    head->next->value = 7;              // the change
    total += sum(head);                 // the second sum
    return total == 0;
}
"""


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(PROGRAM.splitlines(), 1) if text in line)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gdb")
    (path / "list.c").write_text(PROGRAM)
    (path / "list.h").write_text(HEADER)
    return path


@pytest.fixture(scope="module")
def timeline(directory: Path) -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(directory / "list.c", cc="gcc", cflags="-O0", ram="4M", hz=0)
    with recorded.kernel:
        yield recorded


@pytest.fixture(scope="module")
def served(directory: Path) -> Iterator[Served]:
    running = serve(directory / "list.c", "--port", "0", "--symbols", str(directory / "k.elf"), "--cc", "gcc",
                    "--cflags", "-O0", "--ram", "4M", "--hz", "0")
    yield running
    end(running)


@pytest.fixture
def gdb(served: Served, tmp_path: Path) -> Callable[..., list[str]]:
    """Runs gdb on a script, from the beginning of main; gives the lines that each command printed."""
    return lambda *commands: asked(served, tmp_path, "goto 0\nbreak *main\ncontinue\ndelete\n", commands)


def frames_of(backtrace: str) -> list[str]:
    """``function file:line`` of each frame."""
    return [re.sub(r"^#\d+ +(?:0x\w+ in )?(\w+) \(.*\) at (?:.*/)?([\w.]+:\d+)$", r"\1 \2", line)
            for line in backtrace.splitlines()]


def test_a_session_in_c(gdb: Callable[..., list[str]], timeline: Timeline[Kernel]) -> None:
    """Break at lines, look at locals, go up through assembly and C, and back to the store that changed a field."""
    allocations = [event.address for event in timeline.trace if event.function == "kmalloc"]
    assert len(allocations) == 3
    store, call, change = line_of("the store"), line_of("the call"), line_of("the change")
    answers = gdb(
        f"break list.c:{store}", "continue", "info locals", "print *made", "print value", "backtrace",      # 0..5
        "finish", "delete",
        "tbreak twice", "continue", "backtrace", "up", "info locals", "print *at", "finish", "delete",       # 8..15
        "tbreak kmalloc", "reverse-continue", "backtrace", "up", "up", "print value",                       # 16..21
        f"tbreak list.c:{change}", "continue", "next", "print *head->next",                                 # 22..25
        "watch head->next->value", "reverse-continue", "backtrace", "delete",                               # 26..29
        "watch head", "reverse-continue", "backtrace", "info locals", "reverse-continue", "print value",    # 30..35
        "reverse-finish", "backtrace",                                                                      # 36
        "ptype struct node", "whatis sum", "info line list.h:4", "print sizeof(struct kmem_cache)",         # 38..41
    )
    assert f"list.c, line {store}." in answers[0]
    assert answers[1].endswith(f"list.c:{store}\n{store}\t{PROGRAM.splitlines()[store - 1]}")
    assert answers[2] == f"made = {allocations[0]:#x}"
    assert answers[3].endswith("= {next = 0x0, value = 10}") and answers[4].endswith("= 10")
    assert frames_of(answers[5])[:2] == [f"push list.c:{store}", f"main list.c:{call}"]
    assert frames_of(answers[5])[2].startswith("kernel_ready init.asm:") and len(frames_of(answers[5])) == 3
    assert "main ()" in answers[6] and f"(struct node *) {allocations[0]:#x}" in answers[6]

    assert "list.h:4" in answers[9]
    assert [frame.split()[0] for frame in frames_of(answers[10])] == ["twice", "sum", "main", "kernel_ready"]
    assert re.fullmatch(rf"at = {allocations[2]:#x}\ntotal = 0", answers[12])
    assert answers[13].endswith(f"= {{next = {allocations[1]:#x}, value = 30}}") and answers[14].endswith("= 120")

    assert re.search(r"kmalloc \(size=.*\) at kernel_asm/kmalloc.asm", answers[17])
    assert [frame.split()[0] for frame in frames_of(answers[18])] == ["kmalloc", "malloc", "push", "main",
                                                                      "kernel_ready"]
    assert answers[20].splitlines()[0].endswith("list.c:9") and answers[21].endswith("= 30")

    assert answers[24].startswith(f"{change + 1}\t") and answers[25].endswith("value = 7}")
    assert "Old value = 7\nNew value = 20" in answers[27] and f"list.c:{change}\n" in answers[27]
    timeline.goto(timeline.start)
    assert timeline.run_to(f"list.c:{line_of('the second sum')}") is not None
    written = timeline.who_wrote(allocations[1] + 8, 4)
    assert written is not None and f"list.c:{change}" in str(written)
    assert "(struct node *)" in answers[31] and f"list.c:{store}\n" in answers[31]
    assert frames_of(answers[32])[:2] == [f"push list.c:{store}", f"main list.c:{call}"]
    assert answers[33] == f"made = {allocations[2]:#x}" and answers[35].endswith("= 20")
    assert frames_of(answers[37])[0] == f"main list.c:{call}"
    assert answers[38].splitlines()[1:3] == ["    struct node *next;", "    int value;"]
    assert answers[39] == "type = int (struct node *)" and re.match(r'Line 4 of ".*list\.h"', answers[40])
    assert int(answers[41].rpartition("=")[2]) > 100


def test_next_and_step_go_through_c_line_by_line_and_back(gdb: Callable[..., list[str]]) -> None:
    change = line_of("the change")
    answers = gdb(f"tbreak list.c:{change}", "continue", "next", "step", "step", "step", "reverse-step", "reverse-next",
                  "reverse-next", "reverse-next", "finish", "reverse-stepi")

    def at(answer: str) -> int:
        return int(answer.splitlines()[-1].split("\t")[0])

    start = line_of("int total = 0")
    assert [at(answer) for answer in answers[1:6]] == [change, change + 1, start, start + 1, start + 2]
    assert [at(answer) for answer in answers[6:9]] == [start + 1, start, change + 1]
    assert at(answers[9]) == change
