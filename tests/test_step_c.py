"""What readers see of C: in the stepper, while a program runs, and in listings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox import Kernel
from sandbox.debugger.narrate import narrate
from sandbox.debugger.timeline import Timeline
from sandbox.trace.callers import Caller, caller, caller_of
from sandbox.view.disasm import disassembly
from sandbox.view.live import EventLines, place
from sandbox.view.step.screen import picture
from sandbox.view.step.session import Session
from sandbox.view.step.stepper import Stepper
from sandbox.view.trace import lines

from .compilers import is_here, needs_compiler

pytestmark = needs_compiler

LIST = r"""#include <stdlib.h>     // for malloc
#include "list.h"

int counter;

static int helper(int x) { counter += x; return x * 3; }

int main(void)
{
    struct node *list = NULL;

    for (int i = 0; i < 3; i++)
        list = push(list, helper(i));
    while (list) {
        struct node *next = list->next;
        free(list);
        list = next;
    }
    return 0;
}
"""
HEADER = "struct node { struct node *next; int value; };\nstruct node *push(struct node *list, int value);\n"
MORE = r"""#include <stdlib.h>
#include "list.h"

static int helper(int x) { return x + 1; }

struct node *push(struct node *list, int value)
{
    struct node *node = malloc(sizeof *node);
    node->next = list;
    node->value = helper(value);
    return node;
}
"""


@pytest.fixture(scope="module")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline[Kernel]]:
    directory = tmp_path_factory.mktemp("list")
    for name, text in (("list.c", LIST), ("list.h", HEADER), ("more.c", MORE)):
        (directory / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        with sandbox.record("list.c", modules=["more.c"], ram="4M", cflags="-O0") as found:
            yield found


@pytest.fixture
def session(timeline: Timeline[Kernel]) -> Session:
    timeline.goto(timeline.start)
    timeline.run_to("*main")
    return Session(timeline)


def told(session: Session, *commands: str) -> list[str]:
    found: list[str] = []
    for command in commands:
        answer = session.execute(command)
        assert not answer.error, answer.error
        found += answer.lines
    return found


# -- who asked --------------------------------------------------------------------------------------------------
def test_the_line_of_an_event_is_that_outside_of_the_library(timeline: Timeline[Kernel]) -> None:
    roots = list(timeline.trace)
    assert {event.call_site.partition("+")[0] for event in roots} == {"malloc", "free"}
    assert [str(caller_of(event)).partition(" ")[2] for event in roots] == ["(more.c:8)"] * 3 + ["(list.c:16)"] * 3
    live = [EventLines("list.c").line(event) for event in roots]
    assert live[0].endswith("  push, more.c:8") and live[-1].endswith("  main, line 16")
    assert "(more.c:8)" in next(lines(roots)) and "libc" not in next(lines(roots))


def test_a_caller_is_the_innermost_frame_that_is_not_the_librarys() -> None:
    frames = ["malloc+0x1d (libc/malloc.c:49)", "strdup+0x8 (libc/string.c:9)", "main+0x12 (my prog.c:12)"]
    assert caller(frames) == Caller("main+0x12", "my prog.c", 12)
    assert caller(frames[:2]) == Caller("malloc+0x1d", "libc/malloc.c", 49)
    assert caller(["0xffffffff80001000"]) == Caller("0xffffffff80001000") and caller([]) == Caller("")
    assert place(Caller("slab_alloc+0x3", "kernel_asm/slab.asm", 9), "my.c") == "slab_alloc"
    assert place(Caller("Python"), "my.c") == "Python"


def test_events_are_found_by_who_asked(session: Session) -> None:
    assert len(told(session, "events push")) == len(told(session, "events malloc")) == 3
    assert len(told(session, "events more.c:8")) == 3 and len(told(session, "events kind=free list.c:16")) == 3


# -- moving -----------------------------------------------------------------------------------------------------
def line_after(session: Session, *commands: str) -> str:
    told(session, *commands)
    return session.timeline.moment.line


def test_lines_are_stepped_by_commands_and_by_keys(session: Session) -> None:
    assert line_after(session, "next-line 3") == "list.c:13"
    assert line_after(session, "step-line") == "list.c:6" and line_after(session, "sl") == "more.c:7"
    assert line_after(session, "nl", "nl") == "more.c:9"
    assert line_after(session, "reverse-step-line 3") == "list.c:6"
    assert line_after(session, "rnl") == "list.c:13" and line_after(session, "") == "list.c:12"
    stepper = Stepper(session.timeline)
    for key, line in (("l", "list.c:13"), ("i", "list.c:6"), ("i", "more.c:7"), ("I", "list.c:6"), ("L", "list.c:13"),
                      ("2", "list.c:13"), ("l", "list.c:13")):
        stepper.press(key)
        assert session.timeline.moment.line == line, key
    assert not stepper.is_error


def test_before_the_first_line_and_behind_the_last_there_is_none(session: Session) -> None:
    assert "no line of the program has run before" in session.execute("rsl").error
    position = session.timeline.position
    assert session.execute("rnl").error and session.timeline.position == position
    assert "the end of the run" in " ".join(told(session, "next-line 10000"))
    assert session.execute("next-line").error.startswith("this is the end of the run")
    assert line_after(session, "rnl") == "list.c:20"


def test_until_goes_on_to_later_lines_of_c(session: Session) -> None:
    assert [line_after(session, "until") for _ in range(3)] == ["list.c:10", "list.c:12", "list.c:13"]
    assert line_after(session, "until", "until") in ("list.c:14", "list.c:16", "list.c:15")


# -- places -----------------------------------------------------------------------------------------------------
def test_a_line_is_broken_at_once_in_each_function_where_it_begins(session: Session) -> None:
    assert told(session, "break 12")[0].count("list.c:12") == 1
    assert told(session, "break list.c:5")[1:] == ["line 5 has no code; the next that has is 6"]
    assert told(session, "break more.c:9")[0].endswith("(more.c:9)")
    assert told(session, "break *helper@more.c")[0] == "breakpoint 4: helper@more.c (more.c:4)"
    behind = told(session, "break helper@more.c")[0]
    assert behind.startswith("breakpoint 5: helper@more.c+0x") and behind.endswith(" (more.c:4)")
    told(session, "delete 5")
    assert line_after(session, "delete 2", "continue") == "list.c:12"
    assert [line_after(session, "continue") for _ in range(4)] == ["more.c:9", "more.c:4"] * 2
    assert "did you mean helper" in session.execute("break helper@nothing.c").error


def test_of_a_function_that_is_only_inlined_every_copy_is_a_place(tmp_path: Path) -> None:
    (tmp_path / "inlined.c").write_text("static inline __attribute__((always_inline)) int twice(volatile int *x)\n{\n"
                                        "    *x += 1;\n    return *x * 2;\n}\nvolatile int cell;\n"
                                        "int main(void)\n{\n    twice(&cell);\n    return twice(&cell) - 4;\n}\n")
    with sandbox.record(tmp_path / "inlined.c", ram="4M", cflags="-O2") as timeline:
        timeline.goto(timeline.start)
        session = Session(timeline)
        assert told(session, "break inlined.c:3")[0].count("inlined.c:3") == 2
        assert told(session, "break twice")[0].count("inlined.c:3") == 2


# -- looking ----------------------------------------------------------------------------------------------------
def test_variables_are_listed_printed_watched_and_asked_for(session: Session) -> None:
    told(session, "until more.c:9")
    shown = told(session, "locals")
    assert shown[0].startswith("   0  push+0x") and "      int value = 0" in shown
    assert any(row.startswith("      struct node *node = object 0 of kmalloc-16") for row in shown)
    assert "      int i = 0" in told(session, "info locals 1")
    assert told(session, "print value") [0].startswith("int value = 0    at 0x")
    assert told(session, "print counter")[0].startswith("int counter = 0    at 0x")
    node = told(session, "print /x node")[0]
    assert told(session, "print /x node+8")[0] == hex(int(node, 16) + 8 * 16)
    assert told(session, "print /x helper@more.c")[0] == hex(session.timeline.kernel.symbols["helper@more.c"])
    assert told(session, "whatis counter") and told(session, "x/2xg node")
    assert "watch 1: 4 bytes at 0x" in told(session, "watch counter")[0]
    assert line_after(session, "continue 2") == "list.c:6"
    assert "writes" in told(session, "who-wrote counter")[0] and "4 bytes" in told(session, "who-wrote counter")[0]
    assert "no variables of C" in told(session, "locals 7")[0]


def test_the_source_of_c_is_listed_with_the_line_that_runs(session: Session) -> None:
    told(session, "next-line 2")
    rows = told(session, "list")
    assert rows[0] == "list.c" and ">   12      for (int i = 0; i < 3; i++)" in rows
    assert told(session, "list push")[0] == "more.c"


def test_in_80_x_24_a_line_has_the_instructions_below_it(session: Session) -> None:
    told(session, "next-line 3", "step")
    rows = [row.text.partition("│")[0].rstrip() for row in picture(Stepper(session.timeline), 80, 24)]
    assert len(rows) == 24
    at = rows.index(" >  13         list = push(list, helper(i));")
    below = list(rows[at + 1 : at + 5])
    assert all(row.startswith(("       ", "     > ")) for row in below)
    assert sum(row.startswith("     > ") for row in below) == 1
    assert rows[at + 5].startswith("    14     while (list) {")
    assert rows[-1].startswith("l line  i into")


def test_a_comment_and_an_include_of_c_are_what_they_are(session: Session) -> None:
    stepper = Stepper(session.timeline)
    for key in ("shift+tab", "shift+tab", "z"):
        stepper.press(key)
    wide = [row.text for row in picture(stepper, 120, 24)]
    first = next(row for row in wide if "#include <stdlib.h>" in row)
    assert "#include <stdlib.h>" in first and "// for malloc" in first
    assert not any("#include" in row and row.index("#include") > 30 for row in wide)


def test_a_function_of_c_is_disassembled_line_by_line(timeline: Timeline[Kernel]) -> None:
    rows = list(disassembly(timeline.kernel.symbols, "push"))
    assert rows[0].startswith("push  0x") and rows[0].endswith("more.c:7")
    sources = [row for row in rows[2:] if not row.startswith("+")]
    assert "    8      struct node *node = malloc(sizeof *node);" in sources
    assert any(row.endswith("call malloc") for row in rows) and any(row.endswith("call helper@more.c") for row in rows)
    assert not any("int3" in row or "nop" in row or row.lstrip().startswith("=") for row in rows)
    assert any(row.endswith("# node") for row in rows) and any(row.endswith("# value") for row in rows)
    assert max(map(len, rows)) <= 80


def test_an_allocator_in_c_is_narrated_with_its_variables(tmp_path: Path) -> None:
    (tmp_path / "bump.c").write_text(
        "#include <stddef.h>\n#include <stdint.h>\nstatic char *next, *last;\n"
        "void init(void *start, size_t size) { next = start; last = next + size; }\n"
        "void *allocate(size_t size)\n{\n    char *found = next;\n    if ((size_t)(last - found) < size)\n"
        "        return NULL;   /* full */\n    next = found + (size + 15) / 16 * 16;\n    return found;\n}\n"
        "void deallocate(void *pointer) { (void)pointer; }\nvoid stats(size_t *out) { out[0] = 0; }\n")
    with sandbox.boot(allocator=tmp_path / "bump.c", ram="4M", cflags="-O0") as kernel:
        timeline = sandbox.record(kernel)
        kernel.call("allocate", 24)
        text = str(narrate(timeline, timeline.trace.find(function="allocate")))
    assert "char *found = next;" in text and "return found;" in text
    assert "found = " in text and "size = 24" in text


@pytest.mark.skipif(not is_here("clang"), reason="clang is not here")
def test_reports_name_functions_of_the_program_and_not_of_the_library(tmp_path: Path,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    from sandbox.cli import main

    program = tmp_path / "claims.c"
    program.write_text("#include <assert.h>\nstatic int one(void) { assert(1 == 2); return 1; }\n"
                       "int main(void)\n{\n    return one();\n}\n")
    assert main(["run", str(program), "--cc", "clang", "--cflags", "-O0"]) != 0
    out = capsys.readouterr().out
    assert "sandbox disasm one " in out and "libc/assert.c" in out
