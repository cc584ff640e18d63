"""Variables of C by name, against the values that the program hands to a function at that very moment."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

import pytest

import sandbox
from sandbox import Kernel
from sandbox.debugger.locals import UNKNOWN, Local, Locals, locals_of
from sandbox.debugger.timeline import Timeline
from sandbox.toolchain.c.variables import Frame, Variables

from ..compilers import is_here

PROGRAM = r"""
#include <stdbool.h>
#include <stdlib.h>
#define NOINLINE __attribute__((noinline))
enum colour { RED, GREEN = 5, BLUE = -7 };
struct point { int x; short y; };
struct shape { struct point at; const char *name; enum colour colour; bool filled; };
typedef unsigned char byte;

volatile long noted;
int counter = 70000;
static const char *words[] = {"zero", "one"};

NOINLINE void note(long a, long b, const void *c, long d)
{
    noted += a + b + d + (c != 0);
}

NOINLINE int walk(struct shape *shape, int from, byte to)
{
    long total = -5;
    for (int i = from; i < to; i++) {
        total *= i;
        note(i, total, shape, to);
    }
    return (int)total;
}

int main(void)
{
    struct shape mine = {{-3, 4}, "square", BLUE, true};
    char text[6] = "a\"c";
    unsigned long big = 0x123456789ab;
    void *block = malloc(40);
    int (*function)(struct shape *, int, byte) = walk;
    int numbers[10] = {1, -2};
    note(big, numbers[1], &mine, text[0]);
    counter += function(&mine, 2, 6);
    note(counter, (long)words[counter & 1], block, mine.filled);
    free(block);
    return 0;
}
"""
NOTES = 6
BUILDS = [(cc, flags) for cc in ("gcc", "clang") for flags in ("-O0", "-O2")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Timeline[Kernel]]]:
    """Runs of the program by compiler and flags, each recorded once."""
    program = tmp_path_factory.mktemp("variables") / "variables.c"
    program.write_text(PROGRAM)
    with ExitStack() as stack:

        @cache
        def record(cc: str, flags: str) -> Timeline[Kernel]:
            if not is_here(cc):
                pytest.skip(f"{cc} is not here")
            return stack.enter_context(sandbox.record(program, ram="4M", cc=cc, cflags=flags))

        yield record


@pytest.fixture(params=BUILDS, ids=" ".join)
def timeline(request: pytest.FixtureRequest, recorded: Callable[[str, str], Timeline[Kernel]]) -> Timeline[Kernel]:
    return at_main(recorded(*request.param))


@pytest.fixture(params=["gcc", "clang"])
def plain(request: pytest.FixtureRequest, recorded: Callable[[str, str], Timeline[Kernel]]) -> Timeline[Kernel]:
    return at_main(recorded(request.param, "-O0"))


def at_main(timeline: Timeline[Kernel]) -> Timeline[Kernel]:
    timeline.goto(timeline.start)
    timeline.run_to("*main")
    return timeline


def here(timeline: Timeline[Kernel]) -> Locals:
    return locals_of(timeline.kernel, timeline.kernel.registers)


def known(found: list[Local] | None) -> dict[str, str]:
    return {one.variable.name: one.value for one in found or () if one.value != UNKNOWN}


def notes(timeline: Timeline[Kernel]) -> Iterator[tuple[int, int, int, int]]:
    """Each call of ``note``, about to run, with its arguments as C has them."""
    at_main(timeline)
    while timeline.run_to("*note") is not None:
        registers = timeline.kernel.registers
        first, second, third, fourth = (registers[name] for name in ("rdi", "rsi", "rdx", "rcx"))
        entered = timeline.position
        timeline.back()
        yield signed(first), signed(second), third, signed(fourth)
        timeline.goto(entered)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def test_what_is_told_is_what_the_program_hands_over(timeline: Timeline[Kernel], request: pytest.FixtureRequest
                                                     ) -> None:
    told, calls = 0, 0
    for first, second, third, fourth in notes(timeline):
        calls += 1
        values = known(here(timeline).of(0))
        if timeline.moment.line.endswith(":24"):
            expected = {"i": str(first), "total": str(second), "to": str(fourth)}
            for name in expected.keys() & values.keys():
                assert values[name].partition(" ")[0] == expected[name], f"{name} at {timeline.moment}"
                told += 1
            if "shape" in values:
                assert f"(0x{third:x})" in values["shape"]
    assert calls == NOTES
    assert told == 12 if "-O0" in request.node.name else told >= 2


def test_each_type_is_told_in_its_own_way(plain: Timeline[Kernel]) -> None:
    every = list(notes(plain))
    at_main(plain)
    plain.run_to("*note")
    plain.back()
    mine = every[0][2]
    assert mine
    found = {str(one) for one in here(plain).of(0) or ()}
    block = next(value for first, _, value, _ in every if first > 60000 and value != mine)
    assert {"char text[6] = \"a\\x22c\"", "unsigned long big = 0x123456789ab",
            "int numbers[10] = {1, -2, 0, 0, 0, 0, 0, 0, ...}"} <= found
    assert any(text.startswith('struct shape mine = {at = {x = -3, y = 4}, name = "square" at ')
               and text.endswith("colour = BLUE (-7), filled = true}") for text in found), found
    assert f"void *block = object 0 of kmalloc-64, allocated (0x{block:x})" in found
    assert any(text.startswith("int (*function)(struct shape *, int, byte) = walk") for text in found)


def test_before_they_are_stored_variables_are_not_told(plain: Timeline[Kernel]) -> None:
    plain.run_to("*walk")
    assert known(here(plain).of(0)) == {}
    assert known(here(plain).of(1))["big"] == "0x123456789ab"
    plain.next_line()
    values = known(here(plain).of(0))
    assert values["from"] == "2" and values["to"] == "6"


def test_the_bytes_of_a_variable_have_its_name_also_from_a_callee(plain: Timeline[Kernel]) -> None:
    _, _, mine, _ = next(notes(plain))
    named = here(plain).name
    assert [str(named(mine + offset)) for offset in (0, 4, 8, 16)] == ["mine.at.x", "mine.at.y", "mine.name",
                                                                      "mine.colour"]
    assert named(plain.kernel.registers["rsp"] - 512) is None and named(0) is None
    plain.run_to("*walk")
    assert str(here(plain).name(mine)) == "main::mine.at.x"


def test_operands_of_instructions_are_told_by_the_variables_they_are(plain: Timeline[Kernel]) -> None:
    plain.run_to("variables.c:23")
    seen = set()
    while plain.moment.line.endswith(":23"):
        told = plain.explain()
        seen |= {operand.name.text for operand in (*told.reads, *told.writes) if operand.name is not None}
        plain.step()
    assert {"total", "i"} <= seen


def test_variables_of_files_are_found_by_their_names(timeline: Timeline[Kernel]) -> None:
    found = here(timeline).find("counter")
    assert found is not None and str(found) == "int counter = 70000"
    assert found.address == int(timeline.kernel.symbols["counter"])
    assert here(timeline).find("kmalloc") is None and here(timeline).find("nothing") is None


def test_in_assembly_there_are_none(plain: Timeline[Kernel]) -> None:
    plain.run_to("kmalloc")
    found = here(plain)
    assert found.of(0) is None and found.value("big") is None
    assert found.default() == 2                                   # main, below malloc
    assert known(found.of(2))["big"] == "0x123456789ab"


def test_damaged_debug_information_is_no_more_than_unknown_variables(plain: Timeline[Kernel]) -> None:
    image = plain.kernel.program
    assert image is not None
    seeded, places = random.Random(6), [plain.kernel.symbols["walk"] + 20, plain.kernel.symbols["main"] + 40]
    for _ in range(12):
        debug = {name: bytearray(data) for name, data in image.debug.items()}
        for _ in range(3):
            section = debug[seeded.choice(sorted(name for name, data in debug.items() if data))]
            section[seeded.randrange(len(section))] = seeded.randrange(256)
        damaged = Variables(replace(image, debug={name: bytes(data) for name, data in debug.items()}))
        for address in map(int, places):
            damaged.function(address)
            for variable in damaged.at(address):
                variable.place(Frame(address, 1 << 40, {"rbp": 1 << 40}))
                for kind in (variable.type, variable.type.inner):
                    assert kind is None or len(kind.members) < 100
        list(damaged.globals())
        damaged.copies("walk")
        damaged.type_called("struct shape")
        damaged.enumerator("GREEN")
