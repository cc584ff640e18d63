"""Expressions of C at a prompt, against what the compiler's own code makes of the same texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox import Kernel
from sandbox.debugger.timeline import Timeline
from sandbox.view.step.session import Session

from ..compilers import is_here, needs_compiler

pytestmark = needs_compiler

NUMBERS = (
    "order->pieces", "order->next->pieces", "order->next->next->pieces", "(*order->next).pieces", "(**pointer).pieces",
    "*squares", "squares[9]", "squares[i + 1]", "*(squares + 3)", "3[squares]", "&squares[7] - squares", "order->grade",
    "order->state == BAKED", "order->state + 1", "order->letter", "order->flag", "order->whole", "order->part[1]",
    "order->grid[1][2]", "*order->grid[1]", "(*pointer)->grid[1][0]", "order->inside.deep", "whole_order.pieces",
    "sizeof(struct order)", "sizeof *order", "sizeof order->grid", "sizeof(order_t *)", "sizeof squares / sizeof 1",
    "sizeof(unsigned char) + sizeof order->grid[0]", "i / 2", "i % 4", "-i / 2", "-i % 4", "-i >> 1", "~i", "!i",
    "!order->flag", "same->pieces",
    "big * 3", "big >> 60", "i * 1000000000", "tiny + 1", "tiny < i", "tiny > 4000000000u", "-1 < 1u", "-1 < 1ul",
    "(unsigned char)-1", "(char)200", "(signed char)(i + 250)", "(short)70000", "(unsigned)-1", "(_Bool)8", "1 << 20",
    "0x80000000", "2147483648", "i - 0x80000000", "i + 017 + 0x1f", "'a' + '\\n'", "i && order->next",
    "0 || order->part[0]",
    "i > 2 == 1", "1 + 2 * 3 - 4 / 2", "(1 + 2) * 3", "i & 3 | 4 ^ 1", "i << 2 + 1", "order != order->next",
    "((struct order *)(long)order)->pieces", "(order + 1) - order", "(long)(order + 1) - (long)order",
    "(char *)&order->pieces - (char *)order", "*&i", "&*order == order", "counter + 1", "*text", "text[2]",
    "order->next->next->next == 0",
)
PROGRAM = r"""
#include <stdbool.h>
#include <stdlib.h>
enum state { PLACED, BAKED = 4 };
typedef struct order order_t;
struct order {
    struct order *next; int pieces; enum state state; union { long whole; char part[8]; }; bool flag;
    unsigned char grade; char letter; short grid[2][3]; struct { int deep; } inside;
};
int squares[10], counter = -5;
struct order whole_order = {.pieces = 77};
volatile long results[200];
int main(void)
{
    struct order *order = calloc(1, sizeof *order), **pointer = &order;
    order_t *const same = order;
    const char *text = "abc";
    int i = 7;
    unsigned int tiny = 4000000005u;
    unsigned long big = 0xfedcba9876543210;
    order->next = calloc(1, sizeof *order);
    order->next->next = calloc(1, sizeof *order);
    order->pieces = 5; order->next->pieces = -9; order->next->next->pieces = 12;
    order->state = BAKED; order->whole = 0x4142; order->flag = true; order->grade = 200; order->letter = -3;
    order->grid[1][2] = -7; order->grid[1][0] = 11; order->inside.deep = 31;
    for (int j = 0; j < 10; j++) squares[j] = j * j;
RESULTS
    return 0;   /* the end */
}
"""
LINES = PROGRAM.replace("RESULTS", "\n".join(f"    results[{number}] = (long)({text});"
                                             for number, text in enumerate(NUMBERS)))
END = f"expressions.c:{LINES[:LINES.index('/* the end')].count(chr(10)) + 1}"


@pytest.fixture(scope="module", params=["gcc", "clang"])
def timeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline[Kernel]]:
    if not is_here(request.param):
        pytest.skip(f"{request.param} is not here")
    program = tmp_path_factory.mktemp("expressions") / "expressions.c"
    program.write_text(LINES)
    with sandbox.record(program, ram="4M", cc=request.param, cflags="-O0 -w") as found:
        yield found


@pytest.fixture
def session(timeline: Timeline[Kernel]) -> Session:
    timeline.goto(timeline.start)
    assert timeline.run_to(END) is not None
    return Session(timeline)


def told(session: Session, command: str) -> str:
    answer = session.execute(command)
    assert not answer.error, answer.error
    return "\n".join(answer.lines)


def test_every_expression_has_the_value_that_the_compiler_gives_it(session: Session) -> None:
    kernel = session.timeline.kernel
    wrong = {}
    for number, text in enumerate(NUMBERS):
        expected = kernel.memory.u64(int(kernel.symbols["results"]) + 8 * number)
        found = session.value(text)
        if found != expected:
            wrong[text] = f"{found:#x}, and not {expected:#x}"
    assert not wrong


def test_what_is_printed_has_its_type_and_its_place(session: Session) -> None:
    order, memory = session.value("order"), session.timeline.kernel.memory
    assert told(session, "print order->pieces") == f"order->pieces = 5    at 0x{order + 8:x}"
    assert told(session, "p order->state").startswith("order->state = BAKED (4)    at 0x")
    assert told(session, "p order->grade").startswith("order->grade = 200 ")
    assert told(session, "p *order").startswith("*order = {next = object 1 of kmalloc-64, allocated ")
    assert "pieces = 5, state = BAKED (4)" in told(session, "p *order")
    assert "grid = {{0, 0, 0}, {11, 0, -7}}" in told(session, "p *order")
    assert told(session, "p squares[9]") == f"squares[9] = 81    at 0x{session.value('&squares[9]'):x}"
    assert told(session, "p/x order->next") == hex(memory.u64(order)) == told(session, "p/x *(long *)order")
    assert told(session, "p/d order->next->pieces") == "-9"
    assert told(session, "p text").endswith(f"at 0x{session.value('&text'):x}") and '"abc"' in told(session, "p text")
    assert told(session, "p sizeof(struct order)").startswith("sizeof(struct order) = ")


def test_memory_is_asked_for_by_expressions(session: Session) -> None:
    assert told(session, "x/2xw squares + 2").endswith("0x00000004  0x00000009")
    assert "writes 0x00000051 (4 bytes)" in told(session, "who-wrote squares[9]")
    assert "writes 0xfffffff7 (4 bytes)" in told(session, "who-wrote order->next->pieces")
    assert told(session, "watch order->next->pieces").startswith("watch 1: 4 bytes at 0x")
    assert "order->next->pieces = -9;" in told(session, "reverse-continue")


def test_whatis_tells_the_type_and_the_place_of_a_variable(session: Session) -> None:
    order, place = session.value("order"), session.value("&order")
    rows = told(session, "whatis order").splitlines()
    assert rows[0] == f"struct order *order, 8 bytes at 0x{place:x}" and rows[1].startswith(f"0x{order:016x} is the ")
    assert told(session, "whatis order->next").startswith(f"order->next: struct order *, 8 bytes at 0x{order:x}")
    assert "is on the boot CPU's kernel stack" in told(session, "whatis i")
    assert told(session, "whatis squares").startswith("int squares[10], 40 bytes at 0x")
    session.timeline.goto(session.timeline.start)
    session.timeline.run_to("*main")
    assert told(session, "whatis order") == "struct order *order (not known here)"


def test_assembly_stays_assembly(session: Session) -> None:
    registers, kernel = session.timeline.kernel.registers, session.timeline.kernel
    rsp = registers["rsp"]
    assert session.value("rsp + 8") == session.value("$rsp + 8") == rsp + 8
    assert session.value("[rsp]") == kernel.memory.u64(rsp)
    assert session.value("dword ptr [order + 8]") == 5
    assert session.value("kmalloc+0x12") == int(kernel.symbols["kmalloc"]) + 0x12
    assert session.value("(long)&order - rsp") == session.value("&order") - rsp


def test_in_assembly_that_c_has_called_its_variables_are_seen(session: Session) -> None:
    allocation = [event for event in session.timeline.trace.walk() if event.kind == "alloc"][-1]
    session.timeline.goto(allocation.entered)
    assert not (session.timeline.moment.line or "").split(":")[0].endswith(".c")
    assert session.value("i * 2") == 14 and told(session, "p i").startswith("i = 7    at 0x")


@pytest.mark.parametrize(("text", "words"), [
    ("order->nothing", "no member 'nothing'"), ("order.pieces", "write ->pieces"), ("i->next", "needs a pointer"),
    ("*i", "needs a pointer"), ("order->next->next->next->next", "this one is 0"),
    ("nothing->next", "called 'nothing'"),
    ("i = 3", "only look"), ("i++", "only look"), ("i += 2", "only look"), ("main(1)", "call no function"),
    ("order->", "ends too early"), ("squares[1", "']' is missing"), ("(i", "')' is missing"), ("i i", "missing before"),
    ("i / 0", "division by zero"), ("i << 40", "shifted by 40"), ("order + order", "no sum"), ("&3", "no address"),
    ("sizeof(struct nothing)", "no type is called"), ("struct order", "is a type"), ("i ? 1 : 2", "'?'"),
    ("*order + 1", "is no number"), ("[rsp] > 1", "compares in C"), ("(" * 60 + "i", "inside of each other"),
    ("order->3", "name of a member"), ("i + 99999999999999999999", "64 bits"), ("i @ 3", "cannot read"),
])
def test_what_cannot_be_told_is_one_sentence_about_c(session: Session, text: str, words: str) -> None:
    error = session.execute(f"print {text}").error
    assert words in error and ".if" not in error


@pytest.mark.parametrize("function", ["outer", "one_line", "large"])
@pytest.mark.parametrize("cc", ["gcc", "clang"])
def test_a_function_by_its_name_is_behind_its_prologue(tmp_path: Path, cc: str, function: str) -> None:
    if not is_here(cc):
        pytest.skip(f"{cc} is not here")
    program = tmp_path / "places.c"
    program.write_text("int one_line(int a, char b) { return a + b; }\n"
                       "int large(int a, char b)\n{\n    volatile char room[9000];\n    room[a] = b;\n"
                       "    return room[a] + a;\n}\n"
                       "int outer(int a, char b)\n{\n    int sum = one_line(a, b);\n    return sum + large(a, b);\n}\n"
                       "int main(void)\n{\n    return outer(3, 4) - 14;\n}\n")
    with sandbox.record(program, ram="4M", cc=cc, cflags="-O0") as timeline:
        entry = int(timeline.kernel.symbols[function])
        session = Session(timeline)
        session.timeline.goto(timeline.start)
        assert f"{function}+0x" in told(session, f"break {function}")
        told(session, f"until {function}")
        assert session.value("a") == 3 and session.value("b") == 4
        assert "int a = 3" in told(session, "locals")
        behind = timeline.position
        told(session, f"until {'main' if function == 'main' else 'debug_exit'}")
        assert timeline.back_to(function) is not None and timeline.position == behind
        for first in (f"*{function}", f"{function}+0", entry):
            timeline.goto(behind)
            moment = timeline.back_to(first)
            assert moment is not None and moment.rip == entry
        assert timeline.run_to(function) is not None and timeline.position == behind


@pytest.mark.parametrize(("cc", "flags"), [("gcc", "-O1"), ("gcc", "-O2"), ("clang", "-O1"), ("clang", "-O2")])
def test_in_optimized_code_nothing_of_the_source_is_skipped(tmp_path: Path, cc: str, flags: str) -> None:
    if not is_here(cc):
        pytest.skip(f"{cc} is not here")
    program = tmp_path / "places.c"
    program.write_text("volatile int seen;\n"
                       "__attribute__((noinline)) void bare(void)\n{\n    if (seen)\n        return;\n"
                       "    seen = 1;\n}\n__attribute__((noinline)) int add(int a, int b)\n{\n    seen += a;\n"
                       "    return a + b;\n}\nint main(void)\n{\n    bare();\n    return add(1, 2) - 3;\n}\n")
    with sandbox.record(program, ram="4M", cc=cc, cflags=flags) as timeline:
        for function in ("bare", "add"):
            timeline.goto(timeline.start)
            assert timeline.run_to(function) is not None
            assert timeline.kernel.memory.u32(int(timeline.kernel.symbols["seen"])) == (function == "add")
            assert timeline.run_to(function) is None
