"""How gdb moves: a step is one of the program's instructions, whatever interrupts happen in between."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import DIRECT_MAP
from sandbox.debugger.gdb.breakpoints import ACCESS, SOFTWARE, WRITE, Breakpoints
from sandbox.debugger.gdb.motion import STEPPED, Motion, Mover, Stop
from sandbox.debugger.timeline import Timeline

from .gdb_programs import SHOW, WINDOW

IRQ_VECTOR, PAGE_FAULT = 32, 14
LOOP = """
.text
main:
    push rbp
    mov rbp, rsp
    mov ecx, 30000
the_turn:
    inc qword ptr [rip + turns]
    dec ecx
    jnz the_turn
the_filling:
    lea rdi, [rip + filled]
    mov ecx, 512
    mov eax, 7
    rep stosb
the_end:
    mov edi, 64
    call kmalloc
    mov rdi, rax
    call kfree
    xor eax, eax
    pop rbp
    ret
.data
.p2align 3
turns:
    .quad 0
filled:
    .zero 512
"""


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(LOOP, ram="4M", hz=1000)
    with recorded.kernel:
        yield recorded


def finished(motion: Motion) -> Stop:
    while True:
        try:
            next(motion)
        except StopIteration as end:
            stop: Stop = end.value
            return stop


def handler(timeline: Timeline[Kernel], vector: int) -> int:
    """The first instruction of a vector's handler: the stubs lie in a row."""
    return int(timeline.kernel.symbols["trap_stubs"]) + (vector << timeline.kernel.image.constants["STUB_SHIFT"])


def rip(timeline: Timeline[Kernel]) -> int:
    return timeline.kernel.registers["rip"]


def at_interrupt(timeline: Timeline[Kernel]) -> int:
    """The moment at which the first interrupt of the loop has been delivered."""
    timeline.goto(timeline.start)
    timeline.run_to("the_turn")
    found = timeline.run_to(handler(timeline, IRQ_VECTOR))
    assert found is not None
    return found.instruction


def test_steps_pass_over_an_interrupt_in_both_directions(timeline: Timeline[Kernel]) -> None:
    interrupt = at_interrupt(timeline)
    turn = int(timeline.kernel.symbols["the_turn"])
    loop = [turn, turn + 7, turn + 9]
    mover = Mover(timeline, Breakpoints())
    timeline.goto(interrupt - 5)
    moments, rips = [timeline.position], [rip(timeline)]
    for _ in range(9):
        assert finished(mover.step()) is STEPPED
        moments.append(timeline.position)
        rips.append(rip(timeline))
    first = loop.index(rips[0])
    assert rips == [loop[(first + number) % 3] for number in range(10)]
    gaps = [after - before for before, after in pairwise(moments)]
    assert gaps[:4] == gaps[5:8] + gaps[:1] == [1, 1, 1, 1] and gaps[4] > 50     # the handler is in there
    for moment in reversed(moments[:-1]):
        assert finished(mover.step_back()) is STEPPED
        assert timeline.position == moment


def test_interrupts_are_stepped_into_when_gdb_asks_for_it(timeline: Timeline[Kernel]) -> None:
    interrupt = at_interrupt(timeline)
    mover = Mover(timeline, Breakpoints())
    mover.hide_interrupts = False
    timeline.goto(interrupt - 1)
    finished(mover.step())
    assert (timeline.position, rip(timeline)) == (interrupt, handler(timeline, IRQ_VECTOR))
    finished(mover.step_back())
    assert timeline.position == interrupt - 1


def test_a_breakpoint_inside_the_handler_stops_the_step(timeline: Timeline[Kernel]) -> None:
    interrupt = at_interrupt(timeline)
    breakpoints = Breakpoints()
    breakpoints.insert(SOFTWARE, timeline.kernel.symbols["trap_handle"], 1)
    timeline.goto(interrupt - 1)
    assert finished(Mover(timeline, breakpoints).step()).reason == "swbreak:;"
    assert rip(timeline) == timeline.kernel.symbols["trap_handle"] and timeline.position > interrupt


def test_a_step_inside_the_handler_is_one_instruction_and_its_end_leads_back(timeline: Timeline[Kernel]) -> None:
    interrupt = at_interrupt(timeline)
    mover = Mover(timeline, Breakpoints())
    timeline.goto(interrupt - 1)
    finished(mover.step())
    behind, there = timeline.position, rip(timeline)
    timeline.goto(behind - 1)
    assert timeline.kernel.memory.read(rip(timeline), 2) == b"\x48\xcf"          # iretq
    assert finished(mover.step()) is STEPPED
    assert (timeline.position, rip(timeline)) == (behind, there)
    timeline.goto(interrupt)
    assert finished(mover.step()) is STEPPED and timeline.position == interrupt + 1


def test_an_interrupt_that_restarts_a_critical_section_is_passed_over_too() -> None:
    """The handler's end does not go back to where it came from, but to the section's beginning."""
    options = {"ram": "4M", "hz": 20}
    timeline = sandbox.record(LOOP, **options)
    with timeline.kernel as kernel:
        timeline.goto(timeline.start)
        timeline.run_to("the_end")
        rows, end = (int(kernel.symbols[name]) for name in ("critical_sections", "critical_sections_end"))
        sections = {kernel.memory.u64(row): kernel.memory.u64(row + 16) for row in range(rows, end, 24)}
        entered = timeline.run_to(lambda kernel: kernel.registers["rip"] in sections, limit=1000)
        assert entered is not None
        start = entered.rip
    with sandbox.boot(LOOP, **options) as kernel:
        kernel.interrupt_at(entered.instruction + 2, 0)
        timeline = sandbox.record(kernel)
        kernel.run()
        timeline.goto(entered.instruction + 1)
        mover = Mover(timeline, Breakpoints())
        assert finished(mover.step()) is STEPPED
        assert timeline.position > entered.instruction + 50, "no interrupt came"
        assert rip(timeline) == sections[start] <= start
        assert finished(mover.step_back()) is STEPPED
        assert timeline.position == entered.instruction + 1


def test_exceptions_are_stepped_into_in_both_directions() -> None:
    timeline = sandbox.record("12", ram="4M")
    with timeline.kernel:
        timeline.goto(timeline.start)
        timeline.run_to("main")
        fault = timeline.run_to(handler(timeline, PAGE_FAULT))
        assert fault is not None
        mover = Mover(timeline, Breakpoints())
        timeline.goto(fault.instruction - 1)
        guilty = rip(timeline)
        finished(mover.step())
        assert timeline.position == fault.instruction
        retry = timeline.run_to(guilty)
        assert retry is not None and finished(mover.step_back()) is STEPPED
        assert timeline.position == retry.instruction - 1


NESTED = """
.set NOWHERE, 0xffffd00012345000
.text
main:
    push rbp
    mov rbp, rsp
    mov edi, 128
    lea rsi, [rip + on_int]
    call set_trap_handler
    mov edi, 14
    lea rsi, [rip + on_page_fault]
    call set_trap_handler
    mov edi, 32
    lea rsi, [rip + on_timer]
    call set_trap_handler
    mov ecx, 30000
the_turn:
    dec ecx
    jnz the_turn
    mov rax, NOWHERE
    mov rax, [rax]                      # faults on the same stack as the interrupts of the loop
behind_the_fault:
    xor eax, eax
    pop rbp
    ret
on_timer:
    push rbp
    mov rbp, rsp
    int 0x80                            # its end is not that of the interrupt
    mov eax, 1
    pop rbp
    ret
on_int:
    mov eax, 1
    ret
on_page_fault:
    add qword ptr [rdi + pt_regs.rip], 3
    mov eax, 1
    ret
"""


@pytest.fixture(scope="module")
def nested() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(NESTED, ram="4M", hz=1000)
    with recorded.kernel:
        assert recorded.result is not None and recorded.result.ok
        yield recorded


def test_an_interrupt_ends_with_its_own_return_and_no_other(nested: Timeline[Kernel]) -> None:
    interrupt, turn = at_interrupt(nested), int(nested.kernel.symbols["the_turn"])
    mover = Mover(nested, Breakpoints())
    nested.goto(interrupt - 1)
    finished(mover.step())
    assert turn <= rip(nested) < turn + 5 and nested.position > interrupt + 50
    finished(mover.step_back())
    assert nested.position == interrupt - 1


def test_the_end_of_an_exception_is_not_taken_for_that_of_an_earlier_interrupt(nested: Timeline[Kernel]) -> None:
    nested.goto(nested.start)
    behind = nested.run_to("behind_the_fault")
    assert behind is not None
    finished(Mover(nested, Breakpoints()).step_back())
    assert nested.position == behind.instruction - 1


def test_a_range_ends_behind_a_string_instruction_that_repeats(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.start)
    timeline.run_to("the_filling")
    begin, end = (int(timeline.kernel.symbols[name]) for name in ("the_filling", "the_end"))
    mover = Mover(timeline, Breakpoints())
    before = timeline.position
    assert finished(mover.step_range(begin, end)) is STEPPED
    assert rip(timeline) == end and timeline.position >= before + 3 + 513
    breakpoints = Breakpoints()
    breakpoints.insert(WRITE, timeline.kernel.symbols["filled"] + 100, 1)
    timeline.goto(before)
    assert finished(Mover(timeline, breakpoints).step_range(begin, end)).reason.startswith("watch:")
    assert timeline.kernel.memory.u8(timeline.kernel.symbols["filled"] + 100) == 7
    assert timeline.kernel.memory.u8(timeline.kernel.symbols["filled"] + 101) == 0


def test_what_the_processor_writes_for_an_interrupt_is_watched(timeline: Timeline[Kernel]) -> None:
    """The frame: forwards the stop is behind its delivery, backwards before it."""
    interrupt = at_interrupt(timeline)
    frame = timeline.kernel.registers["rsp"]
    timeline.goto(interrupt - 3)
    breakpoints = Breakpoints()
    breakpoints.insert(WRITE, frame, 8)
    mover = Mover(timeline, breakpoints)
    assert finished(mover.run()).reason == f"watch:{frame:x};"
    assert timeline.position == interrupt
    assert finished(mover.run_back()).reason == f"watch:{frame:x};"
    assert timeline.position == interrupt - 1
    assert finished(mover.step()).reason == f"watch:{frame:x};"
    assert timeline.position == interrupt


REMAPPED = SHOW + """
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    xor edi, edi
    call get_free_pages
    mov rbx, rax                        # rbx = the first page
    xor edi, edi
    call get_free_pages
    mov r12, rax                        # r12 = the second one
    mov rdi, rbx
    call show
    mov rax, WINDOW
    mov qword ptr [rax + 8], 1
the_first_store_is_over:
    mov rdi, WINDOW
    call unmap_page
    mov qword ptr [rbx + 8], 99         # nobody sees this at WINDOW
    mov rdi, r12
    call show
    mov rax, WINDOW
    mov qword ptr [rax + 8], 2
the_second_store_is_over:
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret
"""


def test_a_watchpoint_follows_its_address_through_changes_of_the_page_tables() -> None:
    """It is set where nothing is mapped, and then sees both stores, each to a frame of its own, and none past it."""
    timeline = sandbox.record(REMAPPED, ram="4M")
    with timeline.kernel as kernel:
        breakpoints = Breakpoints()
        breakpoints.insert(WRITE, WINDOW + 8, 8)
        mover = Mover(timeline, breakpoints)
        timeline.goto(timeline.start)
        timeline.run_to("main")
        places = []
        for motion in (*[mover.run] * 3, *[mover.run_back] * 3):
            places.append((finished(motion()).reason.partition(":")[0], kernel.symbolize(rip(timeline)).symbol))
        assert places == [("watch", "the_first_store_is_over"), ("watch", "the_second_store_is_over"),
                          ("replaylog", places[2][1]), ("watch", "the_first_store_is_over"), ("watch", "main"),
                          ("replaylog", "_start")]


def test_a_page_table_entry_can_be_watched_itself() -> None:
    timeline = sandbox.record(REMAPPED, ram="4M")
    with timeline.kernel as kernel:
        timeline.goto(timeline.length)
        entry = int(kernel.machine.paging.walk(WINDOW)[-1].address) + DIRECT_MAP
        breakpoints = Breakpoints()
        breakpoints.insert(WRITE, entry, 8)
        breakpoints.insert(WRITE, WINDOW + 8, 8)
        breakpoints.insert(ACCESS, entry, 4)
        mover = Mover(timeline, breakpoints)
        finished(mover.run_back())
        assert kernel.symbolize(rip(timeline)).symbol == "the_first_store_is_over"    # the store of 2
        found = timeline.who_wrote(entry, 8)
        assert found is not None
        reasons = set()
        while timeline.position > found.instruction:
            reasons.add(finished(mover.run_back()).reason)
        assert timeline.position == found.instruction
        assert reasons & {f"watch:{entry:x};", f"awatch:{entry:x};"}
