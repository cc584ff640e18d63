"""The stepper's panes and its screen, as text: what a moment looks like, at every size, without a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import kmem_cache, page
from sandbox.debugger.timeline import Timeline
from sandbox.view.step import console, heap, registers, source, stack, trace
from sandbox.view.step.layout import PANES, SMALLEST, layout
from sandbox.view.step.rows import Mark, Row, block, harmless, window, wrapped
from sandbox.view.step.run import Run
from sandbox.view.step.scene import Scene
from sandbox.view.step.screen import picture
from sandbox.view.step.stepper import Stepper, help_lines

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
    mov qword ptr [rbx], 0x1234
    mov rdi, rbx
    call kfree
the_second:
    mov edi, 40
    call kmalloc
    lea rdi, [rip + text]
    call kprintf
    xor eax, eax
    pop rbx
    pop rbx
    pop rbp
    ret
.rodata
text: .asciz "first line\\n\\033[31mred\\n"
"""
LINES = PROGRAM.split("\n")


def number_of(text: str) -> int:
    return next(number for number, line in enumerate(LINES, 1) if text in line)


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(PROGRAM)
    with recorded.kernel:
        yield recorded


@pytest.fixture
def stepper(timeline: Timeline[Kernel]) -> Stepper:
    """At the first instruction of main."""
    timeline.goto(timeline.start)
    timeline.run_to("main")
    return Stepper(timeline)


def scene_at(timeline: Timeline[Kernel], place: str | int) -> Scene:
    """The moment at which a line of the program, or a function, is reached first after main."""
    timeline.goto(timeline.start)
    timeline.run_to("main")
    if place != "main":
        assert timeline.run_to(f"program.asm:{place}" if isinstance(place, int) else place) is not None
    return Scene(Run(timeline))


def texts(rows: list[Row]) -> list[str]:
    return [row.text.rstrip() for row in rows]


def screen(stepper: Stepper, width: int = 80, height: int = 24) -> str:
    rows = picture(stepper, width, height)
    assert len(rows) == height and {row.width for row in rows} == {width}
    return "\n".join(texts(rows))


# -- rows -------------------------------------------------------------------------------------------------------
def test_a_row_fits_any_width_and_says_where_something_is_missing() -> None:
    row = Row.of("ab", ("cdef", "place"))
    assert row.fit(8).text == "abcdef  " and row.fit(6) == row
    assert row.fit(4) == Row("abc…", (Mark(2, 4, "place"),)) and row.fit(2) == Row("a…") and row.fit(0).text == ""
    assert (row + row).marks == (Mark(2, 6, "place"), Mark(8, 12, "place"))


def test_wide_characters_count_as_the_two_cells_that_they_take() -> None:
    row = Row("日本語")
    assert row.width == 6 and row.fit(8).text == "日本語  " and row.fit(5).width == 5 and row.fit(4).width == 4


def test_a_block_is_exactly_as_large_as_it_is_asked_for() -> None:
    assert texts(block([Row("a"), Row("b"), Row("c")], 3, 2)) == ["a", "b"]
    assert [row.text for row in block([], 2, 2)] == ["  ", "  "]
    assert texts(wrapped("one two three four", 9, 2)) == ["one two", "three fo…"] and texts(wrapped("", 5, 2)) == [""]


@pytest.mark.parametrize(("count", "height", "at", "shown"), [
    (10, 4, 0, range(4)), (10, 4, 5, range(3, 7)), (10, 4, 9, range(6, 10)), (3, 5, 1, range(3)), (0, 5, 0, range(0))])
def test_a_window_shows_its_row_near_the_middle(count: int, height: int, at: int, shown: range) -> None:
    assert window(count, height, at) == shown


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert harmless("\x1b[31m\t\x07é") == "\\x1b[31m    \\x07é"


# -- the source -------------------------------------------------------------------------------------------------
def test_the_source_marks_the_line_that_comes_and_has_its_bytes_below(timeline: Timeline[Kernel]) -> None:
    at = number_of("mov rbx, rax")
    scene = scene_at(timeline, at)
    assert texts(source.rows(scene, 46, 5)) == [
        f"  {at - 2:>4}     mov edi, 40", f"  {at - 1:>4}     call kmalloc",
        f" >{at:>4}     mov rbx, rax  # rbx = pointer", "     > 48 89 c3",
        f"  {at + 1:>4}     mov qword ptr [rbx], 0x1234"]
    assert source.title(scene) == "program.asm"


def test_where_there_is_room_every_line_has_its_bytes_beside_it(timeline: Timeline[Kernel]) -> None:
    at = number_of("mov rbx, rax")
    rows = texts(source.rows(scene_at(timeline, at), 100, 3))
    assert rows == [f"  {at - 1:>4} {timeline.kernel.memory.read(address_of(timeline, at - 1), 5).hex(' '):<22}"
                    "    call kmalloc",
                    f" >{at:>4} 48 89 c3                  mov rbx, rax                    # rbx = pointer",
                    f"  {at + 1:>4} 48 c7 03 34 12 00 00      mov qword ptr [rbx], 0x1234"]


def address_of(timeline: Timeline[Kernel], line: int) -> int:
    program = timeline.kernel.program
    assert program is not None
    return min(address for address, (_, number) in program.lines.items() if number == line)


def test_a_macro_shows_its_instructions_and_which_of_them_comes(timeline: Timeline[Kernel]) -> None:
    scene = scene_at(timeline, "kmalloc")
    while "magazine_pop" not in (scene.line.text if scene.line else ""):
        timeline.step()
        scene = Scene(Run(timeline))
    timeline.step(2)
    rows = texts(source.rows(Scene(Run(timeline)), 46, 12))
    below = [row for row in rows if re.match(r"     [ >] ([0-9a-f]{2} )+", row)]
    assert len(below) == source.MACRO_ROWS and [row[5] for row in below].count(">") == 1


def test_breakpoints_stand_beside_their_lines(timeline: Timeline[Kernel]) -> None:
    scene = scene_at(timeline, "main")
    scene.breakpoints = frozenset({int(timeline.kernel.symbols["the_second"])})
    assert [row for row in texts(source.rows(scene, 46, 30)) if row.startswith("*")] == [
        f"* {number_of('the_second') + 1:>4}     mov edi, 40"]


def test_code_without_source_is_disassembled_and_none_is_said_so(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.length)
    kernel = timeline.kernel
    pointer = timeline.trace[-1].address
    kernel.memory.write(pointer, b"\x90\xc3")    # a diversion, as is the jump
    kernel.registers["rip"] = pointer
    rows = texts(source.rows(Scene(Run(timeline)), 60, 4))
    assert rows[0].startswith(f"> 0x{pointer:016x}") and rows[0].endswith("nop") and rows[1].endswith("ret")
    kernel.registers["rip"] = 0x1000
    rows = texts(source.rows(Scene(Run(timeline)), 160, 2))
    assert rows[0] == "> 0x0000000000001000" and "not present" in rows[1]
    timeline.goto(0)


# -- registers and stack ----------------------------------------------------------------------------------------
def test_registers_are_named_where_they_point_and_marked_where_they_changed(timeline: Timeline[Kernel]) -> None:
    before = dict(scene_at(timeline, number_of("mov rbx, rax")).registers)
    pointer = timeline.trace[0].address
    timeline.step()
    scene = Scene(Run(timeline), before)
    rows = texts(registers.rows(scene, 40, 18))
    assert rows[0] == f" rax {pointer:x} kmalloc-64[0]" and rows[1] == f"*rbx {pointer:x} kmalloc-64[0]"
    assert [row[:4] for row in rows if row.startswith("*")] == ["*rbx"] and registers.title(scene) == "1 changed"
    assert rows[16].startswith(" flags ") and "IF" in rows[16] and len(rows) == 18


def test_flags_go_by_their_names() -> None:
    assert registers.flag_names(0x246) == "PF ZF IF" and registers.flag_names(2) == ""


def test_the_stack_tells_return_addresses_links_and_its_end(timeline: Timeline[Kernel]) -> None:
    scene = scene_at(timeline, "kmalloc")
    rows = texts(stack.rows(scene, 78, 10))
    assert f"return to main+0x10 (program.asm:{number_of('call kmalloc')})" in rows[0] and rows[0].startswith("rsp")
    assert any(row.startswith("rbp") and row.endswith("rbp of the caller") for row in rows)
    assert any("return to kernel_ready+" in row for row in rows)
    timeline.goto(timeline.start + 3)
    assert texts(stack.rows(Scene(Run(timeline)), 40, 3))[0].endswith("not mapped")


# -- the heap ---------------------------------------------------------------------------------------------------
def cells_of(rows: list[str]) -> str:
    return "".join(re.findall(r"[#o.?@]+$", row)[0] for row in rows if re.search(r" [#o.?]{8,}$", row))


def test_the_heap_agrees_with_the_views_cell_by_cell(timeline: Timeline[Kernel]) -> None:
    scene = scene_at(timeline, number_of("mov rbx, rax"))
    cache = timeline.kernel.heap.cache("kmalloc-64")
    for width in (46, 100):
        rows = texts(heap.rows(scene, width, 40))
        assert rows[0].startswith("kmalloc-64")           # what the program touched comes first
        cells = cells_of(rows[1 : 1 + (2 if width == 46 else 1)])
        assert (cells.count("#"), cells.count("o"), cells.count(".")) == (cache.inuse, cache.cached, cache.free)


def test_the_object_under_the_cursor_is_told_in_words(timeline: Timeline[Kernel]) -> None:
    first, event = scene_at(timeline, number_of("mov rbx, rax")), timeline.trace[0]
    assert texts(heap.rows(first, 78, 20))[-3:-1] == [
        f"0x{event.address:x}: object 0 of kmalloc-64, allocated",
        f"40 of 64 bytes @{event.entered:,} by main, line {number_of('call kmalloc')}"]
    freed = scene_at(timeline, number_of("the_second") + 1)
    assert texts(heap.rows(freed, 78, 20))[-1].startswith("freed @")
    assert "free in magazine" in texts(heap.rows(freed, 78, 20))[-3]
    other = texts(heap.rows(freed, 78, 20, cursor=event.address + 64))[-3:]
    assert other[0] == f"0x{event.address + 64:x}: object 1 of kmalloc-64, free in magazine"
    assert other[1] == "no allocation of it is known until now"


def test_the_cursor_goes_over_the_cells_and_stays_on_them(timeline: Timeline[Kernel]) -> None:
    shown = heap.HeapMap(scene_at(timeline, number_of("mov rbx, rax")), 46)
    start = shown.moved(None, 1, 0)
    assert start is not None and shown.line_of(start) == 1
    assert shown.moved(start, 1, 0) == start + 64 and shown.moved(start + 64, -1, 0) == start
    assert shown.moved(start, -1, 0) == start and shown.moved(start, 0, 1) == start + 32 * 64
    assert shown.moved(start + 31 * 64, 1, 0) == start + 32 * 64
    last = start
    for _ in range(500):
        last = shown.moved(last, 1, 0)
        assert last is not None
    assert shown.line_of(last) == len(shown.lines) - 1 and shown.moved(last, 0, 1) == last


def test_large_allocations_are_rows_of_their_own() -> None:
    with sandbox.boot() as kernel:
        recorded = sandbox.record(kernel)
        pointer = kernel.call("kmalloc", 20_000)
        rows = texts(heap.rows(Scene(Run(recorded)), 60, 20))
        size = kernel.heap.large_allocations[0].size
        assert rows[rows.index("large allocations") + 1] == f" {pointer:016x} # 20,000 of {size:,} bytes"


def test_before_there_is_a_heap_it_says_so(timeline: Timeline[Kernel]) -> None:
    timeline.goto(100)
    assert texts(heap.rows(Scene(Run(timeline)), 60, 6))[0].startswith("there is no heap yet")


@pytest.mark.parametrize("field", ["freelist", "partial", "slab_caches"])
def test_a_corrupt_heap_shows_what_can_be_shown(timeline: Timeline[Kernel], field: str) -> None:
    scene = scene_at(timeline, number_of("mov rbx, rax"))
    kernel = timeline.kernel
    cache = kernel.heap.cache("kmalloc-64")
    where = {"freelist": cache.slabs[0].page.address + page.freelist.offset,
             "partial": cache.address + kmem_cache.partial.offset, "slab_caches": int(kernel.symbols["slab_caches"])}
    kernel.memory.write_u64(where[field], 0x1235)
    rows = texts(heap.rows(Scene(scene.run), 100, 14))
    if field == "freelist":
        assert "?" * 64 in rows[1] and any("0x1235" in row for row in rows)
    else:
        assert any(row.startswith("corrupt: ") and "0x1235" in row for row in rows)
    assert any("magazine" in row for row in rows) == (field != "slab_caches")
    timeline.goto(0)


# -- trace and console ------------------------------------------------------------------------------------------
def test_the_trace_marks_what_has_been_entered_last(timeline: Timeline[Kernel]) -> None:
    scene = scene_at(timeline, "kfree")
    rows = texts(trace.rows(scene, 90, 20))
    current = [row for row in rows if row.startswith(">")]
    assert len(current) == 1 and "kfree(0x" in current[0] and current[0].endswith(f"line {number_of('call kfree')}")
    assert len(rows) == 20 and sum(bool(row) for row in rows) == len(scene.run.events.every)
    assert trace.title(scene).endswith(f"of {len(scene.run.events.every)} events")
    assert all(len(row) - len(row.lstrip(" >0123456789,")) >= 9 for row in rows if row)
    cursor = trace.rows(scene, 90, 20, cursor=0)[0]
    assert cursor.marks[0] == Mark(0, len(cursor.text.rstrip()), "cursor")


def test_the_console_has_what_was_printed_until_now_and_obeys_nothing(timeline: Timeline[Kernel]) -> None:
    assert texts(console.rows(scene_at(timeline, "main"), 30, 2)) == ["nothing yet", ""]
    timeline.goto(timeline.length)
    scene = Scene(Run(timeline))
    assert texts(console.rows(scene, 30, 3)) == ["first line", "\\x1b[31mred", ""]
    assert texts(console.rows(scene, 30, 1)) == ["\\x1b[31mred"]
    assert texts(console.rows(scene, 30, 1, offset=-1)) == ["first line"]
    assert texts(console.rows(scene, 6, 4)) == ["first", "line", "\\x1b[3", "1mred"]


# -- the layout -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(72, 20), (80, 24), (100, 30), (110, 24), (120, 40), (200, 60), (300, 100)])
@pytest.mark.parametrize("focus", PANES)
def test_at_every_size_the_boxes_fill_the_body_and_the_focus_is_among_them(size: tuple[int, int], focus: str) -> None:
    width, height = size[0], size[1] - 4
    chosen = layout(width, height, focus, "heap")
    assert sum(box.height for box in chosen.left) == sum(box.height for box in chosen.right) == height
    assert chosen.left[0].width + 1 + chosen.right[0].width == width
    shown = [box.pane for box in (*chosen.left, *chosen.right)]
    assert focus in shown and len(set(shown)) == len(shown)
    assert set(PANES) == {*shown, *(tab for box in chosen.left for tab in box.tabs)}
    zoomed = layout(width, height, focus, "heap", zoomed=True)
    assert [(box.pane, box.width, box.height) for box in zoomed.left] == [(focus, width, height)]


def test_a_large_screen_shows_every_pane_at_once(stepper: Stepper) -> None:
    text = screen(stepper, 200, 60)
    for name in PANES:
        assert re.search(rf"─[ \[]{name}[ \]]─", text), name


@pytest.mark.parametrize("size", [(80, 24), SMALLEST, (79, 23), (133, 43), (240, 67)])
def test_a_screen_has_exactly_the_size_of_its_terminal(stepper: Stepper, size: tuple[int, int]) -> None:
    for key in ("", "tab", "tab", "tab", "tab", "tab", "z", "?"):
        stepper.press(key or "escape")
        screen(stepper, *size)


@pytest.mark.parametrize("size", [(71, 24), (80, 19), (20, 5), (1, 1)])
def test_a_terminal_that_is_too_small_gets_one_sentence(stepper: Stepper, size: tuple[int, int]) -> None:
    text = screen(stepper, *size)
    assert "registers" not in text and (size[0] < 20 or f"{size[0]} x {size[1]}" in " ".join(text.split()))


# -- the keys ---------------------------------------------------------------------------------------------------
def press(stepper: Stepper, *keys: str) -> str:
    """Keys, and lines for prompts (``=kmalloc``); the screen afterwards."""
    for key in keys:
        if key.startswith("=") and len(key) > 1:
            stepper.submit(key[1:])
        else:
            stepper.press(key)
    return screen(stepper)


def test_the_head_says_where_it_is_and_what_the_instruction_does(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    call = number_of("call kmalloc")
    rows = press(stepper, "5", "s").splitlines()
    assert re.fullmatch(rf"@{timeline.position:,} of {timeline.length:,}  main\+0xb \(program.asm:{call}\) +\d+%",
                        rows[0])
    assert "calls kmalloc (kernel_asm/kmalloc.asm:" in rows[1]


def test_capitals_go_back_and_numbers_repeat(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    start = timeline.position
    press(stepper, "2", "5", "s")
    assert timeline.position == start + 25
    press(stepper, "1", "0", "S", "S")
    assert timeline.position == start + 14
    assert "25  times" in press(stepper, "2", "5") and "times" not in press(stepper, "escape")


def test_what_cannot_be_done_is_one_sentence_in_the_last_row(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    for keys, words in ((("g", "=999999999"), "999,999,999"), (("b", "=nowhere"), "no symbol is called"),
                        (("w", "=0x1000"), "does not translate"), (("]",), "what is looked for"), (("y",), "no key"),
                        ((">", "s"), "the end of the run"), (("<", "S"), "the start of the run"),
                        ((":", "=frob"), "no command is called 'frob'")):
        text = press(stepper, *keys)
        assert words in " ".join(text.split()), keys
        assert stepper.is_error


def test_an_address_shows_who_wrote_it_and_enter_goes_there(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    press(stepper, "b", "=kfree", "c", "w")
    assert stepper.prompt is not None and stepper.prompt.text == f"{timeline.trace[0].address:#x}"
    text = " ".join(press(stepper, f"={stepper.prompt.text}").split())
    assert "writes 0x0000000000001234" in text and "enter goes there" in text
    press(stepper, "enter")
    assert f"program.asm:{number_of('0x1234')}" in timeline.moment.location
    press(stepper, "enter")                      # the second one goes nowhere


def test_events_are_walked_searched_and_chosen_in_the_trace(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    press(stepper, "e")
    assert timeline.position == timeline.trace[0].entered
    press(stepper, "/", "=kind=free")
    free = timeline.trace.find(kind="free")
    assert free is not None and timeline.position == free.entered
    press(stepper, "E")
    assert timeline.position < free.entered
    assert "enter: #" in press(stepper, "tab", "tab", "up", "up", "down") and stepper.focus == "trace"
    chosen = stepper.cursors.event
    assert chosen is not None
    press(stepper, "enter")
    assert timeline.position == stepper.session.run.events.every[chosen].entered


def test_breakpoints_are_set_listed_and_deleted_with_one_key(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    assert "breakpoint 1: kfree" in press(stepper, "b", "=kfree")
    press(stepper, "c")
    assert timeline.moment.location.startswith("kfree (")
    press(stepper, "b")
    stepper.submit("")
    assert "breakpoint  kfree" in screen(stepper)
    assert "deleted breakpoint 1" in press(stepper, "q", "b", "=-1")
    assert not len(stepper.session.breakpoints)


def test_the_panes_take_the_keys_in_turn_and_one_can_have_the_screen(stepper: Stepper) -> None:
    for name in (*PANES[PANES.index("heap") + 1 :], *PANES[:3]):
        assert f"[{name}]" in press(stepper, "tab")
    assert "[registers]" in press(stepper, "shift+tab") and "registers" in press(stepper, "z")
    assert "source" not in screen(stepper) and "source" in press(stepper, "z")


def test_other_panes_scroll_and_a_move_brings_them_back(stepper: Stepper) -> None:
    press(stepper, "shift+tab", "shift+tab")
    before = screen(stepper)
    assert press(stepper, "down", "down", "pagedown") != before and press(stepper, "escape") == before


def test_the_cursor_in_the_heap_tells_histories(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    assert "no object is chosen" in press(stepper, "h")
    press(stepper, "b", "=the_second", "c")
    text = press(stepper, "enter")
    assert ": 2 lives" in text and text.count("(to come)") == 1
    press(stepper, "q", "right")
    assert stepper.cursors.object == timeline.trace[0].address + 64
    press(stepper, "s")
    assert stepper.cursors.object == timeline.trace[0].address + 64       # it stays on its object


def test_the_help_fits_on_80_x_24_and_names_every_key(stepper: Stepper) -> None:
    text = press(stepper, "?")
    assert all(line in text for line in help_lines()) and len(help_lines()) <= 22
    for key in "sSnNlLiIfFuUcCeE/gwrb[]<>hxz:?q":
        assert re.search(rf"(^|\s){re.escape(key)}(\s|$)", text), key


def test_long_answers_lie_over_the_panes_and_scroll(stepper: Stepper) -> None:
    assert "q closes" in press(stepper, ":", "=help")
    first = screen(stepper)
    assert press(stepper, "pagedown") != first and "registers" in press(stepper, "q")
    assert "push rbp" in press(stepper, "x") and stepper.popup is not None and stepper.popup.title == "explain"


def test_quitting_ends_it(stepper: Stepper) -> None:
    press(stepper, "q")
    assert stepper.ended
