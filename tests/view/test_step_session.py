"""The commands of ``sandbox step``, forwards and backwards, on a run whose events and source are known."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Kernel
from sandbox.debugger.timeline import Timeline
from sandbox.view.step.commands import COMMANDS
from sandbox.view.step.session import Session

PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov edi, 40
    call kmalloc
    mov rbx, rax                        # rbx = pointer
    mov ecx, 5
the_loop:
    mov byte ptr [rbx + rcx], 0x61      # five times
    dec ecx
    jnz the_loop
    mov rdi, rbx
    call kfree
    mov edi, 40
    call kmalloc
    mov rdi, rax
    call kfree
    lea rdi, [rip + text]
    call kprintf
    xor eax, eax
    pop rbx
    pop rbx
    pop rbp
    ret
.rodata
text: .asciz "done\\n"
"""
LINES = PROGRAM.split("\n")
LOOP = LINES.index("the_loop:") + 2
STORE = LOOP


@pytest.fixture(scope="module")
def recorded() -> Iterator[Timeline[Kernel]]:
    timeline = sandbox.record(PROGRAM)
    with timeline.kernel:
        yield timeline


@pytest.fixture
def session(recorded: Timeline[Kernel]) -> Session:
    """A session at the first instruction of main."""
    recorded.goto(recorded.start)
    assert recorded.run_to("main") is not None
    return Session(recorded)


def said(session: Session, *commands: str) -> list[str]:
    """What the last of some commands says; all of them can be done."""
    lines: tuple[str, ...] = ()
    for command in commands:
        answer = session.execute(command)
        assert answer.error == "", answer.error
        lines = answer.lines
    return list(lines)


def refused(session: Session, command: str) -> str:
    """Why a command cannot be done: one sentence, after which nothing has moved."""
    before = session.timeline.position
    answer = session.execute(command)
    assert answer.error and answer.failed and not answer.lines and "\n" not in answer.error
    assert session.timeline.position == before
    return answer.error


def line_of(session: Session) -> int:
    line = session.scene.line
    assert line is not None
    return line.number


def at(session: Session) -> int:
    return session.timeline.position


# -- moving -----------------------------------------------------------------------------------------------------
def test_every_move_says_where_it_is_and_which_line_comes(session: Session) -> None:
    start = at(session)
    assert said(session, "step") == [
        f"@{start + 1:,} of {session.timeline.length:,}  main+0x1 (program.asm:5)", "     5  mov rbp, rsp"]


@pytest.mark.parametrize(("there", "back", "count"), [
    ("step", "back", 1), ("s 25", "S 25", 25), ("stepi 3", "reverse-step 3", 3), ("step 1,000", "back 1_000", 1000)])
def test_steps_count_instructions_in_both_directions(session: Session, there: str, back: str, count: int) -> None:
    start = at(session)
    said(session, there)
    assert at(session) == start + count
    said(session, back)
    assert at(session) == start


def test_next_takes_a_call_as_one_and_reverse_next_takes_it_back(session: Session) -> None:
    said(session, "n 5")
    assert line_of(session) == LINES.index("    call kmalloc") + 1
    before = at(session)
    said(session, "next")
    assert line_of(session) == LINES.index("    call kmalloc") + 2 and at(session) > before + 20
    said(session, "N")
    assert at(session) == before


def test_finish_and_its_reverse_go_to_the_ends_of_the_function(session: Session) -> None:
    said(session, "n 5")
    call = at(session)
    said(session, "s 4", "f")
    assert line_of(session) == LINES.index("    call kmalloc") + 2
    said(session, "S", "F")
    assert at(session) == call


def test_until_leaves_a_loop_at_a_label_inside_the_function_and_goes_back_into_it(session: Session) -> None:
    said(session, f"u {LOOP + 2}")
    assert session.timeline.kernel.registers["rcx"] == 4 and line_of(session) == LOOP + 2
    said(session, "until")
    assert line_of(session) == LOOP + 3 and session.timeline.kernel.registers["rcx"] == 0
    said(session, "U")
    assert line_of(session) == LOOP + 2 and session.timeline.kernel.registers["rcx"] == 0


def test_until_in_the_last_line_of_a_function_goes_to_its_caller(session: Session) -> None:
    said(session, f"until {LINES.index('    ret') + 1}")
    assert session.scene.instruction is not None and session.scene.instruction.mnemonic == "ret"
    said(session, "until")
    assert session.timeline.moment.location.startswith("kernel_ready+")


def test_until_a_place_goes_there_and_back_to_it(session: Session) -> None:
    start = at(session)
    said(session, "until kfree")
    assert session.timeline.moment.location.startswith("kfree (")
    said(session, "back-to main")
    assert at(session) == start
    assert "not reached before" in refused(session, "back-to kfree")


@pytest.mark.parametrize(("text", "where"), [
    ("start", lambda line: line.start), ("end", lambda line: line.length), ("0%", lambda line: line.start),
    ("100%", lambda line: line.length), ("1,000", lambda line: 1000), ("@1000", lambda line: 1000),
    ("#0", lambda line: line.trace.by_sequence(0).entered), ("50%", lambda line: line.length // 2)])
def test_goto_takes_numbers_parts_and_events(session: Session, text: str, where) -> None:
    said(session, f"goto {text}")
    assert at(session) == where(session.timeline)


def test_goto_counts_from_here_with_a_sign(session: Session) -> None:
    start = at(session)
    said(session, "g +10", "g -3", "goto .")
    assert at(session) == start + 7


@pytest.mark.parametrize(("command", "words"), [
    ("goto 999999999", "999,999,999"), ("goto 101%", "101%"), ("goto x%", "x%"), ("goto", "which instruction"),
    ("goto #99", "no event has the number"), ("goto -999999999", "outside"), ("step 0", "number of times"),
    ("until nowhere", "no symbol"), ("until nofile.asm:3", "nofile.asm"), ("step 3 4", "unexpected '4'")])
def test_what_is_not_in_the_run_is_one_sentence(session: Session, command: str, words: str) -> None:
    assert words in refused(session, command)


def test_the_ends_of_the_run_are_said_and_nothing_lies_behind_them(session: Session) -> None:
    assert said(session, "step 999999999")[-1] == f"the end of the run: {session.timeline.result}"
    assert "the end of the run: success: main returned 0" in refused(session, "next")
    said(session, "back 999999999")
    assert at(session) == session.timeline.start and "start of the run" in refused(session, "back")


# -- stopping ---------------------------------------------------------------------------------------------------
def test_a_breakpoint_stops_in_both_directions_and_the_ends_stop_the_rest(session: Session) -> None:
    calls = [event.entered for event in session.timeline.trace if event.function == "kmalloc"]
    place = session.timeline.kernel.symbolize(symbol(session, "kmalloc"))
    assert said(session, "b kmalloc") == [f"breakpoint 1: {place}"]
    assert said(session, "c")[0] == "breakpoint 1, kmalloc" and at(session) == calls[0]
    said(session, "c")
    assert at(session) == calls[1]
    said(session, "c")
    assert at(session) == session.timeline.length
    said(session, "C 2")
    assert at(session) == calls[0]
    said(session, "rc")
    assert at(session) == session.timeline.start


def symbol(session: Session, name: str) -> int:
    return int(session.timeline.kernel.symbols[name])


def test_a_breakpoint_may_be_a_line_of_this_file_a_file_and_line_or_an_address(session: Session) -> None:
    said(session, f"break {LOOP}", f"break program.asm:{LOOP}", f"break *{symbol(session, 'the_loop'):#x}", "break")
    points = [known.addresses for known in session.breakpoints]
    assert points[:3] == [(symbol(session, "the_loop"),)] * 3 and points[3] == (symbol(session, "main"),)


def test_watchpoints_stop_before_the_access_in_both_directions(session: Session) -> None:
    pointer = session.timeline.trace[0].address
    said(session, f"until {LOOP}")
    assert said(session, f"watch {pointer + 3:#x},1")[0].startswith("watch 1: 1 byte at ")
    lines = said(session, "continue")
    assert lines[0] == f"watch 1, {pointer + 3:#x}" and "writes 0x61" in lines[1]
    assert line_of(session) == STORE and session.timeline.kernel.registers["rcx"] == 3
    store = at(session)
    said(session, "c")
    assert at(session) == session.timeline.length
    said(session, "C")
    assert at(session) == store and session.timeline.kernel.memory.u8(pointer + 3) == 0


def test_breakpoints_are_listed_and_deleted_by_number(session: Session) -> None:
    assert said(session, "info breakpoints") == ["no breakpoints"]
    said(session, "b main", "b kfree", "delete 1")
    assert [line.split()[:3] for line in said(session, "info break")] == [["2", "breakpoint", "kfree"]]
    assert "no breakpoint has the number 1; there are 2" in refused(session, "delete 1")
    assert said(session, "delete") == ["1 deleted"]


# -- finding ----------------------------------------------------------------------------------------------------
def test_events_are_chosen_by_their_attributes_by_words_and_by_address(session: Session) -> None:
    frees = [event for event in session.timeline.trace.walk() if event.kind == "free"]
    assert len(said(session, "events kind=free")) == len(said(session, "events kfree")) == len(frees) == 2
    assert len(said(session, "events")) == len(list(session.timeline.trace.walk()))
    assert [line.split("kmalloc(")[1][:2] for line in said(session, "events kmalloc size=40")] == ["40", "40"]
    inside = said(session, f"events kind=alloc {session.timeline.trace[0].address + 8:#x}")
    assert len(inside) == 2
    assert said(session, "events size>40 kind=free")
    assert said(session, "events cache=nobody") == ["no event is like that"]


def test_an_address_is_taken_as_the_panes_show_it(session: Session) -> None:
    address = session.timeline.trace[0].address
    for command in ("events", "history", "whatis", "who-wrote", "x/2xg"):
        said(session, "goto end")
        assert said(session, f"{command} {address:016x}") == said(session, f"{command} {address:#x}"), command


@pytest.mark.parametrize(("text", "words"), [
    ("knid=free", "kind"), ("kind=fere", "no event is of kind 'fere'"), ("cache>3", "no number"),
    ("failed=perhaps", "true or false")])
def test_a_question_about_events_that_makes_no_sense_is_one_sentence(session: Session, text: str, words: str) -> None:
    assert words in refused(session, f"events {text}")


def test_a_search_goes_to_events_forwards_and_backwards_and_goes_on(session: Session) -> None:
    frees = [event.entered for event in session.timeline.trace.events(kind="free")]
    said(session, "/ kind=free")
    assert at(session) == frees[0]
    said(session, "search")
    assert at(session) == frees[1]
    assert "no later event is like 'kind=free'" in refused(session, "search")
    said(session, "search-back")
    assert at(session) == frees[0]
    assert "what is looked for" in refused(Session(session.timeline), "search")


def test_next_and_previous_event_walk_through_the_trace(session: Session) -> None:
    entered = sorted({event.entered for event in session.timeline.trace.walk()})
    for expected in entered:
        said(session, "e")
        assert at(session) == expected
    assert "no event comes after" in refused(session, "e")
    said(session, "E")
    assert at(session) == entered[-2]


def test_who_wrote_names_the_store_and_the_moment_before_it(session: Session) -> None:
    pointer = session.timeline.trace[0].address
    line, source = said(session, f"until {LOOP + 3}", f"who-wrote {pointer + 2:#x} 1")
    found = re.match(r"@([\d,]+) the_loop \(program.asm:\d+\) writes 0x61", line)
    assert found and source.split()[0] == str(STORE)
    said(session, f"goto {found[1]}")
    assert session.timeline.kernel.registers["rcx"] == 2 and line_of(session) == STORE


def test_memory_that_was_never_written_has_no_writer(session: Session) -> None:
    text = symbol(session, "text")
    assert said(session, f"w {text:#x} 1") == [f"nobody has written the 1 bytes at 0x{text:016x} before"]
    assert "not present" in refused(session, "who-wrote 0x1000")


def test_a_history_tells_every_life_with_its_stacks(session: Session) -> None:
    first, last = session.timeline.trace.events(kind="alloc", function="kmalloc")
    lines = said(session, f"history {first.address:#x}")
    assert lines[0] == f"0x{first.address:016x}: 2 lives"
    assert sum("allocated @" in line for line in lines) == sum("freed @" in line for line in lines) == 2
    assert lines[1].startswith("1. ") and lines[lines.index(f"  allocated @{last.entered:,} kmalloc(40)") - 1] == \
        f"2. 0x{first.address:016x}, 64 bytes of kmalloc-64  (to come)"
    assert any("main+" in line and "program.asm" in line for line in lines)


# -- looking ----------------------------------------------------------------------------------------------------
def test_values_are_printed_with_what_they_point_to(session: Session) -> None:
    pointer = session.timeline.trace[0].address
    said(session, f"until {LOOP}")
    assert said(session, "p rbx")[0].startswith(f"{pointer:#x} = object ")
    assert said(session, "print 40 + 2") == ["0x2a = 42"] and said(session, "p/x $") == ["0x2a"]
    assert said(session, "p/d -1") == ["-1"] and said(session, "p/t 5") == ["101"]


def test_memory_is_examined_as_gdb_does(session: Session) -> None:
    kernel, text = session.timeline.kernel, symbol(session, "text")
    assert said(session, "x/s text") == [f'0x{text:016x} <text>:  "done\\n"']
    row = said(session, "x/5xb text")[0]
    assert row == f"0x{text:016x} <text>:  0x64  0x6f  0x6e  0x65  0x0a"
    assert len(said(session, "x/16xb rsp")) == 2 and len(said(session, "x/4xg rsp")) == 2
    assert said(session, "x rsp")[0].endswith(f"0x{kernel.memory.u64(kernel.registers['rsp']):016x}")
    code = said(session, "x/2i rip")
    assert code[0].startswith("=> ") and code[0].endswith("push rbp") and code[1].endswith("mov rbp, rsp")
    words = [str(kernel.memory.u32(text)), str(kernel.memory.u32(text + 4))]
    assert said(session, "x/2dw text")[0].split()[-2:] == words


@pytest.mark.parametrize("text", ["x/9q rsp", "x", "x/0x rsp", "x/99999x rsp", "x/xd rsp", "x 0", "x/s 0x1000"])
def test_memory_that_cannot_be_examined_is_one_sentence(session: Session, text: str) -> None:
    refused(session, text)


def test_a_dump_shows_what_is_mapped_and_says_where_it_ends(session: Session) -> None:
    said(session, "goto start")
    top = session.timeline.kernel.registers["rsp"]
    lines = said(session, f"x/4xg {top - 8:#x}")
    assert len(lines) == 2 and lines[1] == f"0x{top:016x} is not mapped"


def test_registers_are_marked_that_changed_since_the_last_moment(session: Session) -> None:
    said(session, "step 3")
    lines = said(session, "step", "info registers")
    assert [line.split()[0] for line in lines if line.startswith("*")] == ["*rsp"]
    assert len(said(session, "info registers rax rip flags")) == 3
    assert "no register" in refused(session, "info registers raxx")


def test_the_source_is_listed_around_here_and_around_a_place(session: Session) -> None:
    lines = said(session, "list")
    assert lines[0] == "program.asm" and [line for line in lines if line.startswith(">")] == [">    4      push rbp"]
    assert any("the_loop:" in line for line in said(session, f"list {LOOP}"))
    assert said(session, "list kfree")[0] == "kernel_asm/kmalloc.asm"


def test_the_rest_of_what_can_be_looked_at(session: Session) -> None:
    pointer = session.timeline.trace[0].address
    said(session, f"until {LOOP}")
    assert said(session, "bt")[0] == f"   0  the_loop (program.asm:{LOOP})"
    assert "kmalloc-64" in said(session, f"whatis {pointer + 4:#x}")[0]
    assert "supervisor read at" in said(session, "walk rsp")[0]
    assert said(session, "slabs")[1].startswith("name") and said(session, "slabs kmalloc-64")[-1].startswith("# in use")
    assert any("the_loop" in line for line in said(session, "explain"))
    assert said(session, "validate") == ["heap: sound"] and said(session, "console") == []
    assert said(session, "goto end", "console")[0] == "done"
    assert said(session, "info program")[0].startswith("program.asm: instructions ")
    assert "no cache is called" in refused(session, "slabs kmalloc-65")
    assert "info shows registers" in refused(session, "info")
    assert "no-such-directory/run.rec: " in refused(session, "save no-such-directory/run.rec")


def test_a_validation_that_finds_something_is_a_failed_check(session: Session) -> None:
    kernel, pointer = session.timeline.kernel, session.timeline.trace[0].address
    said(session, f"until {LOOP}")
    slab = kernel.heap.slab_at(pointer)
    assert slab is not None
    kernel.memory.write_u64(slab.page.address + type(slab.page).freelist.offset, 0x1234)      # a diversion
    answer = session.execute("validate")
    assert answer.failed and not answer.error and answer.lines
    said(session, "step", "back")
    assert said(session, "validate") == ["heap: sound"]


def test_two_moments_differ_by_what_happened_between_them(session: Session) -> None:
    start = at(session)
    assert said(session, f"diff {start} +4")
    assert at(session) == start and "two moments" in refused(session, "diff 3")


# -- the session ------------------------------------------------------------------------------------------------
def test_an_empty_line_repeats_the_last_move_and_nothing_else(session: Session) -> None:
    start = at(session)
    said(session, "step 2", "", "")
    assert at(session) == start + 6
    assert said(session, "p 1", "") == [] and at(session) == start + 6
    assert said(session, "# a remark") == []


def test_commands_have_short_names_and_unique_beginnings(session: Session) -> None:
    assert COMMANDS.find("reverse-c").name == "reverse-continue" and COMMANDS.find("bt").name == "backtrace"
    assert "may be" in refused(session, "reverse") and "did you mean" in refused(session, "stepp")
    assert "help lists them" in refused(session, "%!")


def test_the_help_has_every_command_and_each_tells_its_use(session: Session) -> None:
    lines = said(session, "help")
    for group in COMMANDS.groups.values():
        for command in group:
            assert any(command.usage in line and command.summary in line for line in lines), command.name
            assert said(session, f"help {command.name}")[0].startswith(command.usage)
    assert max(map(len, lines)) <= 120


def test_quit_ends_the_session(session: Session) -> None:
    said(session, "quit")
    assert session.ended
