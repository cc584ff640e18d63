"""Wrong arguments from Python, and what a guest says of itself: one clear error each, before anything happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox.errors import CalleeSavedError, GuestPanic, GuestStop, UsageError
from sandbox.guest.arguments import _is_number
from sandbox.guest.options import HZ_MAXIMUM

MAIN = ".text\nmain:\n {}\n"


@pytest.fixture(scope="module")
def kernel() -> Iterator[sandbox.Kernel]:
    with sandbox.boot(ram="8M", hz=0) as kernel:
        yield kernel


# -- calls --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrong", ["64", b"64", bytearray(b"64")])
def test_text_for_a_number_is_refused_with_the_arguments_c_type(kernel: sandbox.Kernel, wrong: Any) -> None:
    with pytest.raises(UsageError, match="argument 1 of kmalloc is 'size_t size', a number"):
        kernel.call("kmalloc", wrong)


def test_pointers_take_text_bytes_and_numbers(kernel: sandbox.Kernel) -> None:
    assert kernel.call("strlen", "four") == kernel.call("strlen", b"four\0") == 4
    assert kernel.call("strlen", kernel.symbols["name_rsp"]) == 3


@pytest.mark.parametrize(("parameter", "number"), [
    ("size_t size", True), ("unsigned int order", True), ("u32 flags", True), ("const void *p", False),
    ("void (*ctor)(void *)", False), ("u64 found[7]", False), ("trap_handler *handler", False),
    ("trap_handler handler", False)])
def test_a_c_parameter_is_a_number_or_not(parameter: str, number: bool) -> None:
    assert _is_number(parameter) is number


def test_data_are_no_function(kernel: sandbox.Kernel) -> None:
    with pytest.raises(UsageError, match="mem_map is data, not a function"):
        kernel.call("mem_map")


@pytest.mark.parametrize("register", ["rbx", "r12", "r13", "r14", "r15"])
def test_a_callee_saved_register_set_to_0_is_noticed_in_the_first_call(register: str) -> None:
    with sandbox.boot(MAIN.format(f"xor {register}, {register}\n ret"), ram="8M", hz=0) as kernel:
        for _ in range(2):                       # the same values each time
            with pytest.raises(CalleeSavedError, match=f"main changed {register}") as caught:
                kernel.call("main")
            assert caught.value.after == 0 != caught.value.before
            kernel.rewind()
        registers = dict(kernel.registers)
        kernel.call("kmalloc", 8)
        assert dict(kernel.registers) == registers


# -- addresses ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wrong", [-1, 1 << 64, None, "0x10", 1.5])
@pytest.mark.parametrize("ask", ["find", "slab_at", "whatis", "symbolize", "line", "u8", "index", "slice", "read"])
def test_what_is_no_address_is_refused_everywhere(kernel: sandbox.Kernel, ask: str, wrong: Any) -> None:
    asked: dict[str, Callable[[Any], object]] = {
        "find": kernel.heap.find, "slab_at": kernel.heap.slab_at, "whatis": kernel.whatis,
        "symbolize": kernel.symbolize, "line": kernel.line, "u8": kernel.memory.u8,
        "index": lambda at: kernel.memory[at], "slice": lambda at: kernel.memory[at:4 if at == -1 else 1 << 65],
        "read": lambda at: kernel.memory.read(at, 8)}
    with pytest.raises(UsageError):
        asked[ask](wrong)


def test_bytes_of_memory_are_assigned_bytes(kernel: sandbox.Kernel) -> None:
    at = kernel.call("kmalloc", 64)
    for store in (lambda m: m.__setitem__(at, 300), lambda m: m.__setitem__(at, -1),
                  lambda m: m.__setitem__(slice(at, at + 4), "abcd"), lambda m: m.write(at, "abcd")):
        with pytest.raises(UsageError):
            store(kernel.memory)


def test_physical_memory_has_an_end_to_count_from(kernel: sandbox.Kernel) -> None:
    physical, end = kernel.physical, len(kernel.physical)
    physical[-4:] = b"last"
    assert physical[end - 4 :] == physical[-4:] == b"last" and physical[-1] == physical[end - 1] == ord("t")
    assert physical[:16] == physical[0:16]
    with pytest.raises(UsageError):
        _ = kernel.memory[-4:]


# -- snapshots ----------------------------------------------------------------------------------------------------
def test_snapshots_are_short_in_words(kernel: sandbox.Kernel) -> None:
    snapshot = kernel.snapshot()
    assert len(repr(snapshot)) < 100 and "8 MiB" in repr(snapshot)
    assert len(repr(snapshot.machine)) < 100 and "8 MiB" in repr(snapshot.machine)


def test_a_snapshot_of_another_guest_is_refused_and_one_of_the_same_program_is_not(kernel: sandbox.Kernel) -> None:
    with sandbox.boot("01", ram="8M") as one, sandbox.boot("01", ram="8M") as same, sandbox.boot("01") as larger:
        snapshot = one.snapshot()
        same.restore(snapshot)
        with pytest.raises(UsageError, match="another program"):
            kernel.restore(snapshot)
        with pytest.raises(UsageError, match="8 MiB"):
            larger.restore(snapshot)
        for wrong in (None, snapshot.machine, 5):
            with pytest.raises(UsageError, match="a snapshot is what"):
                one.restore(wrong)  # type: ignore[arg-type]


# -- ends ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("body", "ok", "returned", "words"), [
    ("xor eax, eax\n ret", True, 0, "success: main returned 0 "),
    ("mov eax, 7\n ret", False, 7, "failure: main returned 7 "),
    ("mov rax, 0xffffffff\n ret", False, -1, "failure: main returned -1 "),
    ("mov al, 0x10\n out 0xf4, al\n jmp main", True, None, "success: the program wrote to the debug exit itself "),
    ("mov edi, 0x11\n jmp debug_exit", False, None, "failure: the program wrote to the debug exit itself ")])
def test_the_end_says_what_main_returned_or_that_it_did_not(body: str, ok: bool, returned: int | None,
                                                            words: str) -> None:
    with sandbox.boot(MAIN.format(body), ram="8M", hz=0) as kernel:
        result = kernel.run()
        assert (result.ok, result.returned) == (ok, returned) and result.sentence.startswith(words)


def test_a_halt_is_named_by_the_hlt_itself() -> None:
    with sandbox.boot(MAIN.format("cli\n hlt\n ret"), ram="8M") as kernel:
        with pytest.raises(GuestStop, match=r"halted with interrupts off at main\+0x1 \(program.asm:4\)") as caught:
            kernel.call("main")
        assert caught.value.backtrace[0] == "main+0x1 (program.asm:4)"
        kernel.rewind()
        assert kernel.run().sentence == "halted with interrupts off at main+0x1 (program.asm:4)"


def test_the_fastest_tick_leaves_the_program_most_of_the_time_and_a_faster_one_is_refused() -> None:
    def instructions(hz: int) -> int:
        with sandbox.boot(MAIN.format("mov ecx, 100000\n.Lmain_next:\n dec ecx\n jnz .Lmain_next\n xor eax, eax\n ret"),
                          ram="8M", hz=hz) as kernel:
            result = kernel.run(limit=2_000_000)
            assert result.ok
            return result.instructions

    assert instructions(HZ_MAXIMUM) < 1.2 * instructions(0)
    with pytest.raises(UsageError, match="a tick would come before the last one's handler is done"):
        sandbox.boot(hz=HZ_MAXIMUM + 1)


def test_a_closed_kernel_is_read_and_refuses_to_be_written() -> None:
    kernel = sandbox.boot(ram="8M")
    at = kernel.call("kmalloc", 64)
    kernel.close()
    assert kernel.heap.find(at) and kernel.memory.read(at, 64) and kernel.registers["rip"]
    for act in (lambda: kernel.memory.write(at, b"x"), lambda: kernel.physical.write(0x2000, b"x"),
                lambda: kernel.call("kmalloc", 1), lambda: kernel.rewind()):
        with pytest.raises(UsageError, match="this kernel is closed"):
            act()


# -- small --------------------------------------------------------------------------------------------------------
def test_a_byte_order_mark_before_a_source_is_no_text_of_it(tmp_path: Path) -> None:
    path = tmp_path / "marked.asm"
    path.write_bytes(b"\xef\xbb\xbf" + MAIN.format("xor eax, eax\n ret").encode())
    with sandbox.boot(path, ram="8M") as kernel:
        assert kernel.run().ok


def test_the_first_interface_rewinds_and_says_how_it_is_made() -> None:
    with pytest.raises(UsageError, match=r"SlabAllocator\.new\(\)"):
        sandbox.SlabAllocator()
    with sandbox.SlabAllocator.new(ram="8M") as allocator:
        with pytest.raises(GuestPanic):
            allocator.deallocate(0x1234)
        allocator.rewind()
        assert allocator.allocate(64)
