"""A red test's report: its sections, what each tells, and that each fits a screen."""

from __future__ import annotations

import re

import pytest

from sandbox.view.failure import last_words
from tests.pytest_plugin.sessions import fails, run

pytest_plugins = "pytester"

RECORD_ASM = """\
# void *make_record(const char *text)
# Copy 24 bytes into memory of its own, and end them with a NUL.
make_record:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov rbx, rdi
    mov rdi, 24
    call kmalloc
    mov r12, rax                        # r12 = the record
    xor ecx, ecx
.Lmake_record_byte:
    mov dl, [rbx + rcx]
    mov [r12 + rcx], dl
    inc rcx
    cmp rcx, 24
    jb .Lmake_record_byte
    mov rdi, r12
    mov byte ptr [rdi + rcx], 0         # one too many
    mov rax, r12
    pop r12
    pop rbx
    pop rbp
    ret

main:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + text]
    call make_record
    xor eax, eax
    pop rbp
    ret

.rodata
text:
    .asciz "twenty-four characters!!"
"""
SEPARATOR = re.compile(r"-{3,} (.+?) -{3,}")


def sections(told: str) -> dict[str, list[str]]:
    """The sections of the one report that pytest has written: lines by title."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in told.splitlines():
        separator = SEPARATOR.fullmatch(line)
        if separator:
            title = separator[1]
            found[title] = []
        elif re.fullmatch(r"[=_]{3,} .+ [=_]{3,}", line):
            title = ""
        elif title:
            found[title].append(line)
    for title, lines in found.items():
        assert 0 < len(lines) < 24, title
        assert max(map(len, lines)) <= 80, title
    return found


def report(pytester: pytest.Pytester, body: str, marker: str = "", *arguments: str) -> dict[str, list[str]]:
    """The sections about a test with this body."""
    pytester.path.joinpath("record.asm").write_text(RECORD_ASM)
    return sections(fails(pytester, (
        f"import pytest, sandbox\n\n@pytest.mark.sandbox({marker})\ndef test_it(kernel):\n    {body}\n"), *arguments))


def test_a_shadow_error_is_the_picture_in_full(pytester: pytest.Pytester) -> None:
    found = report(pytester, "kernel.call('kmalloc', 24); kernel.call('make_record', b'0123456789abcdef characters!')",
                   "program='record.asm', shadow=True")
    assert list(found) == ["guilty instruction", "object", "last allocations", "look"]
    guilty, thing, calls, look = found.values()
    count = re.match(r"@([0-9,]+)  record\.asm:20  mov byte ptr \[rdi \+ rcx\], 0", guilty[0])
    assert count is not None
    pointer = re.match(r"0x(ffff8880[0-9a-f]{8})  kmalloc-32 #1, asked 24, given 32, allocated", thing[0])
    assert pointer is not None
    assert guilty[1:] == [f"  rdi = object 1 of kmalloc-32, allocated (0x{pointer[1]})", "  rcx = 24 (0x18)",
                          "  make_record+0x2e  <- called by the test"]
    assert thing[1:4] == ["  +0x00  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66",
                          "  +0x10  20 63 68 61 72 61 63 74|00 00 00 00 00 00 00 00",
                          "                                 ^^ first byte past the end"]
    assert re.fullmatch(r"  allocated @[0-9,]+  kmalloc, by make_record\+0x16 \(record\.asm:10\)", thing[4])
    assert re.fullmatch(r"  neighbour #2 0xffff8880[0-9a-f]{8}  free in magazine", thing[5])
    assert [line.split("  ")[-1] for line in calls] == ["by the test", "make_record, line 10"]
    assert look == [f"  sandbox step .sandbox/test_it.rec --at {count[1].replace(',', '')}"]


def test_the_traceback_ends_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    told = fails(pytester, "def test_it(kernel):\n    kernel.call('kfree', 0x1234)\n")
    assert re.search(r">       kernel\.call\('kfree', 0x1234\)\nE       sandbox\.errors\.GuestPanic: kernel panic: "
                     r"kfree: 0x0000000000001234 is not slab memory\n\n\S+\.py:2: GuestPanic\n-", told)
    assert "guest.py" not in told
    told = fails(pytester, "def test_it(kernel):\n    kernel.call('kfree', 0x1234)\n", "--full-trace")
    assert "guest.py" in told


def test_an_error_of_a_run_is_told_when_the_test_only_saw_that_it_failed(pytester: pytest.Pytester) -> None:
    found = report(pytester, "assert kernel.run().ok", "program='record.asm', shadow=True")
    assert list(found) == ["guilty instruction", "object", "last allocations", "look"]
    assert "record.asm:20" in found["guilty instruction"][0]
    frames = found["guilty instruction"][3:]
    assert frames[:2] == ["  make_record+0x2e", "  <- main+0x10 (record.asm:31)"] and "test" not in "".join(frames)


def test_a_use_after_free_tells_who_freed(pytester: pytest.Pytester) -> None:
    found = report(pytester, "p = kernel.call('kmalloc', 40); kernel.call('kfree', p); kernel.call('memset', p, 1, 8)",
                   "shadow=True")
    thing = found["object"]
    assert thing[0].endswith("asked 40, given 64, free in magazine")
    assert [line.split("@")[0] for line in thing[3:5]] == ["  allocated ", "  freed "]
    assert thing[4].endswith("kfree, by the test")
    assert "kernel_asm/string.asm" in found["guilty instruction"][0]


def test_a_double_free_points_at_the_call(pytester: pytest.Pytester) -> None:
    found = report(pytester, "p = kernel.call('kmalloc', 40); kernel.call('kfree', p); kernel.call('kfree', p)",
                   "shadow=True")
    assert {"guilty instruction", "object", "look"} <= set(found)
    assert any(line.startswith("  freed @") for line in found["object"])


def test_a_fault_stands_at_the_guilty_instruction_and_tells_the_address(pytester: pytest.Pytester) -> None:
    found = report(pytester, "kernel.call('kmalloc', 8); kernel.call('memset', 0x100, 7, 5)")
    assert list(found) == ["guilty instruction", "address", "console", "last allocations", "look"]
    guilty = found["guilty instruction"]
    assert "rep stosb byte ptr [rdi], al" in guilty[0] and "  rdi = 256 (0x100)" in guilty and "  al = 7" in guilty
    assert guilty[-1] == "  memset+0x24  <- called by the test"
    assert found["address"][0].startswith("0x0000000000000100 is not mapped")
    count = guilty[0].split()[0].removeprefix("@").replace(",", "")
    assert found["look"] == [f"  sandbox step .sandbox/test_it.rec --at {count}"]
    assert "backtrace:" in found["console"] and "lines before" not in found["console"][0]
    assert found["console"][0].startswith("kernel panic: ") and "0x5ca1ab1e" not in "".join(found["console"])


def test_a_panic_shows_its_caller_with_the_line(pytester: pytest.Pytester) -> None:
    found = report(pytester, "p = kernel.call('kmalloc', 8); kernel.call('kfree', 0x123456)")
    assert found["panic"][1].startswith("   0  kfree+0x") and found["panic"][2] == "          call panic"
    assert found["last allocations"][-1].split(None, 1)[1] == "kfree(0x123456)  never returned  by the test"
    assert re.fullmatch(r"  sandbox step \.sandbox/test_it\.rec --at [0-9]+", found["look"][0])


def test_a_limit_and_a_changed_register_show_where_the_guest_stands(pytester: pytest.Pytester) -> None:
    found = report(pytester, "kernel.call('kmalloc', 40, limit=20)")
    assert list(found) == ["stopped at", "last allocations", "look"]
    assert re.match(r"   0  slab_alloc\+0x[0-9a-f]+ \(kernel_asm/slowpath\.asm:\d+\)", found["stopped at"][1])
    pytester.path.joinpath("bad.asm").write_text("main:\n    ret\nbad:\n    xor ebx, ebx\n    ret\n")
    found = report(pytester, "kernel.call('bad')", "program='bad.asm'")
    assert "stopped at" in found


def test_a_corrupt_heap_names_its_violations_and_who_wrote_there(pytester: pytest.Pytester) -> None:
    found = report(pytester, "kernel.memory.write_u64(kernel.symbols['slab_caches'], 0x10); kernel.heap.caches")
    assert "list-links" in " ".join(found["broken heap"]) and "Python writes 0x0000000000000010" in " ".join(
        found["broken heap"])


def test_a_claim_about_the_trace_shows_the_event_and_its_object(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("record.asm").write_text(RECORD_ASM)
    told = fails(pytester, """
        def test_it(kernel):
            pointer = kernel.call("kmalloc", 40)
            kernel.call("kmalloc", 9)
            kernel.call("kfree", pointer)
            kernel.trace.never(kind="free", cache="kmalloc-64")
    """)
    assert re.search(r"E +sandbox\.trace\.claims\.ClaimError: never kind='free', cache='kmalloc-64', but here:\n"
                     r"E +#\d+ @[0-9,]+ free by kfree: 0xffff8880[0-9a-f]+, kmalloc-64, 64 bytes asked for\n"
                     r"E +Python\n", told)
    found = sections(told)
    assert list(found) == ["object", "last allocations", "look"]
    assert "kmalloc-64 #0, asked 40" in found["object"][0]


# -- comparing guest memory -------------------------------------------------------------------------------------
def test_guest_memory_that_differs_shows_bytes_objects_and_the_last_writer(pytester: pytest.Pytester) -> None:
    told = fails(pytester, """
        def test_it(kernel):
            pointer = kernel.call("kzalloc", 40)
            kernel.memory[pointer : pointer + 5] = b"hello"
            assert kernel.memory[pointer : pointer + 8] == b"hallo!!" + bytes(1)
    """)
    address = "0xffff888000003000"
    assert f"E       AssertionError: assert guest memory at {address} (8 bytes) == b'hallo!!\\x00'\n" in told
    assert ("E         3 of 8 bytes differ, the first at +0x01\n"
            "E           +0x00  68 65 6c 6c 6f 00 00 00   hello...\n"
            "E           wanted .. 61 .. .. .. 21 21 ..\n") in told
    found = sections(told)
    assert list(found) == ["guest memory", "object", "last allocations", "look"]
    assert found["guest memory"][0] == f"{address}: 3 of 8 bytes differ, the first at +0x01"
    assert any(line.startswith("  +0x01  object 0 of kmalloc-64 +0x1 (allocated") for line in found["guest memory"])
    assert "Python writes 0x6f6c6c6568 (5 bytes) at" in " ".join(found["guest memory"])
    assert found["object"][2] == "            ^^ byte 1"


def test_fields_are_named_with_both_their_values(pytester: pytest.Pytester) -> None:
    told = fails(pytester, """
        def test_it(kernel):
            at = kernel.heap.cache("kmalloc-64").address
            wanted = kernel.memory[at : at + 32]
            assert bytes(16) + wanted[16:20] + bytes([65, 0, 0, 0]) + wanted[24:] == kernel.memory[at : at + 32]
    """)
    assert "kmem_cache(kmalloc-64).flags is SLAB_KMALLOC|SLAB_BOOT, wanted 0" in told
    assert "  +0x14  kmem_cache(kmalloc-64).size is 64 (0x40), wanted 65 (0x41)" in sections(told)["guest memory"]


@pytest.mark.parametrize(("expression", "words"), [
    ("kernel.memory[at : at + 8] == bytes(9)", "8 bytes, and 9 were wanted; 1 of 9 bytes differ, the first at +0x08"),
    ("kernel.physical[0x2000 : 0x2008] == bytes([1] * 8)", "8 of 8 bytes differ, the first at +0x00"),
    ("kernel.memory[at : at + 40][8:16] == bytearray(7) + b'!'", "1 of 8 bytes differ, the first at +0x07"),
    ("kernel.memory[at : at + 4000] == bytes(3999) + b'!'", "1 of 4,000 bytes differ, the first at +0xf9f"),
    ("kernel.memory[at : at + 4000] == bytes([1]) * 4000", "4,000 of 4,000 bytes differ"),
])
def test_other_comparisons_of_guest_memory(pytester: pytest.Pytester, expression: str, words: str) -> None:
    found = report(pytester, f"at = kernel.call('get_free_pages', 0); assert {expression}")
    assert words in " ".join(" ".join(found["guest memory"][:2]).split())


@pytest.mark.parametrize("expression", [
    "kernel.memory[at : at + 8] == 'text'", "bytes(8) == bytes(9)", "kernel.memory.read(at, 8) == bytes(9)",
    "kernel.memory[at : at + 8] != bytes(8)",
])
def test_what_is_no_comparison_with_guest_memory_is_pytests_own_business(
        pytester: pytest.Pytester, expression: str) -> None:
    assert set(report(pytester, f"at = kernel.call('kzalloc', 100); assert {expression}")) <= {"look"}


def test_a_comparison_that_was_caught_is_not_told_with_a_later_failure(pytester: pytest.Pytester) -> None:
    told = fails(pytester, """
        def test_it(kernel):
            at = kernel.call("kzalloc", 100)
            try:
                assert kernel.memory[at : at + 8] == bytes(9)
            except AssertionError:
                pass
            assert at == 0
    """)
    assert "guest memory" not in sections(told)


def test_a_long_write_is_told_by_its_size(pytester: pytest.Pytester) -> None:
    found = report(pytester, "at = kernel.call('kzalloc', 40); kernel.memory[at : at + 40] = b'x' * 40; "
                             "assert kernel.memory[at : at + 40] == b'y' * 40")
    assert re.fullmatch(r"last written: @[0-9,]+ Python writes 40 bytes at 0xffff8880[0-9a-f]{8}",
                        found["guest memory"][-1])


# -- the report as a whole --------------------------------------------------------------------------------------
def test_of_several_kernels_the_guilty_one_is_told(pytester: pytest.Pytester) -> None:
    found = sections(fails(pytester, """
        def test_it(kernel, kernel_factory):
            other = kernel_factory(ram="32M")
            kernel.call("kmalloc", 8)
            other.call("kmalloc", 100)
            other.call("kfree", 0x1234)
    """))
    assert "kmalloc(100)" in found["last allocations"][0]
    assert ".sandbox/test_it-2.rec --at" in found["look"][0]


def test_a_section_that_cannot_be_made_says_so_and_hides_nothing(
        pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("sandbox.pytest_plugin.report.last_calls", broken)
    told = fails(pytester, "def test_it(kernel):\n    kernel.call('kfree', 0x1234)\n")
    assert "GuestPanic: kernel panic" in told
    assert sections(told)["last allocations"] == ["this section cannot be made: ZeroDivisionError: by nothing"]


def test_long_sections_are_cut_and_counted(pytester: pytest.Pytester) -> None:
    found = report(pytester, "at = kernel.call('get_free_pages', 0); assert kernel.memory[at:at + 999] == b'7' * 999")
    assert len(found["guest memory"]) == 23 and found["guest memory"][-1].endswith("lines more")
    found = report(pytester, "[kernel.call('kmalloc', n) for n in range(1, 100)]; kernel.call('kfree', 0x1234)")
    assert found["last allocations"][0] == "  92 calls before these" and len(found["last allocations"]) == 9


def test_registers_do_not_push_the_message_of_a_panic_out_of_the_console() -> None:
    row = "rax    0x0000000778000001  rbx    0x5ca1ab1e00000001  rcx    0x0000000000000000"
    assert list(last_words(f"kernel panic: no\n{row}\n{row}  \nbacktrace:\n")) == ["kernel panic: no", "backtrace:"]
    assert next(iter(last_words("a line\n" * 9))) == "(1 line before these)"
    assert next(iter(last_words("a line\n" * 10))) == "(2 lines before these)"


@pytest.mark.parametrize("hooks", ["", "import pytest\n\n@pytest.hookimpl(wrapper=True)\n"
                                       "def pytest_fixture_setup():\n    return (yield)\n"])
def test_a_kernel_that_does_not_come_up_is_an_error_of_the_setup_and_says_where(
        pytester: pytest.Pytester, hooks: str) -> None:
    pytester.makeconftest(hooks)
    pytester.path.joinpath("bad.asm").write_text("init:\n    ud2\nallocate:\n    ret\ndeallocate:\nstats:\n    ret\n")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.sandbox(allocator="bad.asm")
        def test_it(kernel):
            pass
    """)
    result = run(pytester)
    result.assert_outcomes(errors=1)
    told = result.stdout.str()
    assert "E           sandbox.errors.GuestFault: invalid opcode, at init (bad.asm:2)\n" in told
    assert "_pytest/" not in told
    assert sections(told)["stopped at"][1] == "  init (bad.asm:2)"


def test_the_traceback_of_a_factorys_error_ends_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    told = fails(pytester, "def test_it(kernel_factory):\n    kernel_factory(program='no_such')\n")
    assert ">       kernel_factory(program='no_such')\nE       sandbox.errors.ProgramError: no_such: no such" in told


def test_an_expected_failure_and_a_skip_have_no_sections_and_no_record(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.xfail
        def test_expected(kernel):
            kernel.call("kfree", 0x1234)

        def test_skipped(kernel):
            pytest.skip("why not")
    """)
    result = run(pytester, "-rA")
    result.assert_outcomes(xfailed=1, skipped=1)
    assert "look" not in result.stdout.str() and not pytester.path.joinpath(".sandbox").exists()
