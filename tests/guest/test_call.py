"""Calling guest functions from Python: what goes in, what comes out, and every way in which a call can go wrong."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

import sandbox
from sandbox import Kernel
from sandbox.errors import (
    CalleeSavedError,
    EngineError,
    GuestError,
    GuestFault,
    GuestLimit,
    GuestNeedsRewind,
    GuestPanic,
    GuestStop,
    SymbolNotFound,
    TranslationError,
    UsageError,
)
from sandbox.guest.history import ENTRY_WORK, RAM_PER_WORK
from sandbox.guest.journal import Flush

PROGRAM = """
.text
main:
    xor eax, eax
    ret

# u64 weigh(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 g, u64 h)
# 1a + 2b + ... + 8h, so that no two arguments can change places unseen.
weigh:
    mov rax, rdi
    lea rax, [rax + rsi * 2]
    imul rdx, rdx, 3
    add rax, rdx
    lea rax, [rax + rcx * 4]
    imul r8, r8, 5
    add rax, r8
    imul r9, r9, 6
    add rax, r9
    mov rdx, [rsp + 8]
    imul rdx, rdx, 7
    add rax, rdx
    mov rdx, [rsp + 16]
    lea rax, [rax + rdx * 8]
    ret

# u64 stack_at_entry(void)
stack_at_entry:
    mov rax, rsp
    ret

# u64 flags_at_entry(void)
flags_at_entry:
    pushfq
    pop rax
    ret

# void fill(void *buffer, u64 length)
fill:
    mov byte ptr [rdi + rsi - 1], 0x41
    dec rsi
    jnz fill
    ret

# u64 sum_text(const char *text, ...)
sum_text:
    xor eax, eax
.Lsum_text_next:
    movzx edx, byte ptr [rdi]
    add rax, rdx
    inc rdi
    test edx, edx
    jnz .Lsum_text_next
    ret

# void spin(void)
spin:
    jmp spin

# void outer(u64 depth)
outer:
    push rbp
    mov rbp, rsp
    call middle
    pop rbp
    ret

# void middle(u64 depth)
middle:
    push rbp
    mov rbp, rsp
    call wild_read
    pop rbp
    ret

# u64 wild_read(u64 address)
wild_read:
    mov rax, [rdi]
    ret

# u64 wild_write(u64 address)
wild_write:
    mov [rdi], rax
    ret

# void jump_to(u64 address)
jump_to:
    push rbp
    mov rbp, rsp
    call rdi
    pop rbp
    ret

# void recurse(void)
recurse:
    push rbp
    mov rbp, rsp
    call recurse
    pop rbp
    ret

# void illegal(void)
illegal:
    ud2

# u64 divide(u64 by)
divide:
    xor edx, edx
    mov eax, 100
    div rdi
    ret

# void leave(u64 value)
leave_machine:
    mov eax, edi
    out 0xf4, al
    ret

# void sleep_for_ever(void)
sleep_for_ever:
    cli
    hlt
    jmp sleep_for_ever

# void complain(u64 number)
complain:
    push rbp
    mov rbp, rsp
    mov rsi, rdi
    lea rdi, [rip + complaint]
    xor eax, eax
    call panic
""" + "".join(f"""
spoil_{register}:
    xor {register}, 1
    ret
""" for register in ("rbx", "rbp", "r12", "r13", "r14", "r15")) + """
spoil_rsp:
    pop rdx
    sub rsp, 64
    jmp rdx

.rodata
complaint:
    .asciz "number %d is wrong"
"""


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.fixture(scope="module")
def booted() -> Iterator[tuple[Kernel, object]]:
    with sandbox.boot(PROGRAM) as kernel:
        yield kernel, kernel.snapshot()


@pytest.fixture
def kernel(booted: tuple[Kernel, object]) -> Kernel:
    kernel, snapshot = booted
    kernel.restore(snapshot)
    return kernel


# -- what goes in and comes out ---------------------------------------------------------------------------------
def test_eight_arguments_arrive_each_in_its_place(kernel: Kernel) -> None:
    values = (3, 5, 7, 11, 13, 17, 19, 23)
    assert kernel.call("weigh", *values) == sum(weight * value for weight, value in enumerate(values, 1))


def test_the_result_is_unsigned_and_negative_arguments_are_twos_complement(kernel: Kernel) -> None:
    assert kernel.call("weigh", -1, 0, 0, 0, 0, 0, 0, 0) == 2**64 - 1


def test_a_function_starts_with_rsp_8_mod_16_and_the_direction_flag_clear(kernel: Kernel) -> None:
    assert kernel.call("stack_at_entry") % 16 == 8
    assert kernel.call(kernel.symbols["flags_at_entry"]) & 0x400 == 0


def test_every_register_is_as_before_after_a_call(kernel: Kernel) -> None:
    before = dict(kernel.registers)
    kernel.call("weigh", 1, 2, 3, 4, 5, 6, 7, 8)
    kernel.call("kmalloc", 64)
    assert dict(kernel.registers) == before


def test_text_is_given_as_a_terminated_copy_and_more_arguments_may_follow_an_ellipsis(kernel: Kernel) -> None:
    assert kernel.call("sum_text", "AB") == 0x41 + 0x42
    assert kernel.call("sum_text", "AB", 1, 2, 3, 4, 5, 6, 7, "x") == 0x41 + 0x42
    assert kernel.call("strlen", "hello") == 5


def test_a_bytearray_is_filled_by_the_guest_and_bytes_stay_what_they_are(kernel: Kernel) -> None:
    buffer = bytearray(100)
    kernel.call("fill", buffer, 99)
    assert buffer == b"A" * 99 + b"\0"
    constant = bytes(4)
    kernel.call("fill", constant, 4)
    assert constant == bytes(4)


def test_a_call_prints_on_the_console(kernel: Kernel) -> None:
    before = kernel.console
    kernel.call("kprintf", "%s has %d of %d\n", "eight", 3, 4, 5, 6, 7, 8)
    assert kernel.console == before + "eight has 3 of 4\n"


# -- bad usage: refused before the guest runs -------------------------------------------------------------------
def test_an_unknown_function_is_named_with_its_neighbours(kernel: Kernel) -> None:
    with pytest.raises(SymbolNotFound, match="kmaloc") as caught:
        kernel.call("kmaloc", 64)
    assert "kmalloc" in caught.value.suggestions


@pytest.mark.parametrize(("function", "arguments", "words"), [
    ("kmalloc", (), "kmalloc takes 1 argument, and 0 were given"),
    ("kmalloc", (1, 2), "kmalloc takes 1 argument, and 2 were given"),
    ("stack_at_entry", (1,), "takes 0 arguments"),
    ("sum_text", (), "takes at least 1 argument"),
    ("kmalloc", (64.0,), "argument 1 is float"),
    ("kmalloc", (None,), "argument 1 is NoneType"),
    ("kmalloc", (1 << 64,), "64 bits"),
    ("strlen", ("x" * 5000,), "at most 4096"),
    (None, (), "name or an address"),
    (-1, (), "name or an address"),
])
def test_wrong_arguments_are_refused_before_the_guest_runs(
    kernel: Kernel, function: str, arguments: tuple[object, ...], words: str
) -> None:
    before = kernel.instructions
    with pytest.raises(UsageError, match=words):
        kernel.call(function, *arguments)
    assert kernel.instructions == before
    assert kernel.failure is None


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many", True])
def test_a_limit_is_a_positive_number(kernel: Kernel, limit: object) -> None:
    with pytest.raises(UsageError, match="limit"):
        kernel.call("stack_at_entry", limit=limit)


# -- what a guest can do wrong ----------------------------------------------------------------------------------
UNMAPPED = 0x1234_5000


def test_a_wild_read_is_a_page_fault_with_its_address_and_the_whole_chain_of_callers(kernel: Kernel) -> None:
    with pytest.raises(GuestFault) as caught:
        kernel.call("outer", UNMAPPED)
    fault = caught.value
    assert (fault.vector, fault.address, fault.error_code) == (14, UNMAPPED, 0)
    assert fault.rip == kernel.symbols["wild_read"]
    assert fault.registers["rdi"] == UNMAPPED
    assert [frame.split()[0].split("+")[0] for frame in fault.backtrace] == ["wild_read", "middle", "outer"]
    assert "wild_read" in str(fault) and "page fault" in str(fault)


def test_a_write_to_the_kernels_text_is_a_protection_fault(kernel: Kernel) -> None:
    text = kernel.symbols["kmalloc"]
    with pytest.raises(GuestFault) as caught:
        kernel.call("wild_write", text)
    assert (caught.value.vector, caught.value.address, caught.value.error_code & 3) == (14, text, 3)


@pytest.mark.parametrize("target", [0, UNMAPPED, 0xFFFF_8880_0010_0000])
def test_a_jump_to_nowhere_is_a_fetch_fault_with_the_target_as_address(kernel: Kernel, target: int) -> None:
    with pytest.raises(GuestFault) as caught:
        kernel.call("jump_to", target)
    fault = caught.value
    assert (fault.vector, fault.address, fault.rip) == (14, target, target)
    assert fault.error_code & 0x10
    assert fault.backtrace[1].startswith("jump_to+")


def test_calling_an_address_where_no_code_is_faults_there(kernel: Kernel) -> None:
    with pytest.raises(GuestFault) as caught:
        kernel.call(UNMAPPED)
    assert caught.value.address == caught.value.rip == UNMAPPED


def test_a_stack_overflow_is_a_double_fault_and_names_the_function(kernel: Kernel) -> None:
    with pytest.raises(GuestFault) as caught:
        kernel.call("recurse")
    fault = caught.value
    assert fault.vector == 8
    assert fault.backtrace[0].startswith("recurse")
    assert fault.address == (fault.registers["rsp"] - 8)


@pytest.mark.parametrize(("function", "argument", "vector"), [("illegal", (), 6), ("divide", (0,), 0)])
def test_other_exceptions_come_with_their_vector_and_instruction(
    kernel: Kernel, function: str, argument: tuple[int, ...], vector: int
) -> None:
    with pytest.raises(GuestFault) as caught:
        kernel.call(function, *argument)
    assert caught.value.vector == vector
    assert caught.value.backtrace[0].startswith(function)
    assert caught.value.address == caught.value.rip


def test_a_panic_carries_its_message_registers_and_callers(kernel: Kernel) -> None:
    with pytest.raises(GuestPanic) as caught:
        kernel.call("complain", 42)
    assert caught.value.message == "number 42 is wrong"
    assert str(caught.value) == "kernel panic: number 42 is wrong"
    assert caught.value.backtrace[0].startswith("complain+")
    assert "kernel panic: number 42 is wrong" in kernel.console


def test_a_loop_ends_at_its_limit_and_says_where_it_stands(kernel: Kernel) -> None:
    before = kernel.instructions
    with pytest.raises(GuestLimit, match="spin") as caught:
        kernel.call("spin", limit=10_000)
    assert caught.value.limit == 10_000
    assert kernel.instructions == before + 10_000
    assert kernel.registers["rip"] == kernel.symbols["spin"]


def test_a_limit_that_cuts_a_panic_short_does_not_hide_it(kernel: Kernel) -> None:
    with pytest.raises(GuestPanic, match="number 7 is wrong"):
        kernel.call("complain", 7, limit=3000)


@pytest.mark.parametrize(("function", "arguments", "words"), [
    ("leave_machine", (0x21,), "67"), ("sleep_for_ever", (), "interrupts off"),
])
def test_a_machine_that_stops_in_a_call_says_how(
    kernel: Kernel, function: str, arguments: tuple[int, ...], words: str
) -> None:
    with pytest.raises(GuestStop, match=words) as caught:
        kernel.call(function, *arguments)
    assert caught.value.stop is not None


@pytest.mark.parametrize("register", ["rbx", "rbp", "r12", "r13", "r14", "r15", "rsp"])
def test_a_changed_callee_saved_register_is_named(kernel: Kernel, register: str) -> None:
    with pytest.raises(CalleeSavedError) as caught:
        kernel.call(f"spoil_{register}")
    error = caught.value
    assert (error.register, error.function) == (register, f"spoil_{register}")
    assert error.before ^ error.after == 1 or register == "rsp"


# -- afterwards -------------------------------------------------------------------------------------------------
FAILURES = [
    ("wild_read", (UNMAPPED,)), ("jump_to", (0,)), ("recurse", ()), ("complain", (1,)), ("spin", ()),
    ("sleep_for_ever", ()), ("leave_machine", (0x10,)), ("spoil_rbx", ()), ("spoil_rsp", ()),
]


@pytest.mark.parametrize(("function", "arguments"), FAILURES, ids=[function for function, _ in FAILURES])
def test_after_a_failure_all_is_readable_and_rewinding_restores_every_byte(
    kernel: Kernel, function: str, arguments: tuple[int, ...]
) -> None:
    kept = kernel.call("kmalloc", 100)
    kernel.memory[kept : kept + 4] = b"kept"
    kernel.call("kfree", kernel.call("kmalloc", 2000))
    ram, registers = kernel.physical[0:0x9000], dict(kernel.registers)
    image, count, console = kernel.machine.memory.image(), kernel.instructions, kernel.console

    with pytest.raises(GuestError) as caught:
        kernel.call(function, *arguments, limit=100_000)
    assert kernel.failure is caught.value
    assert kernel.memory[kept : kept + 4] == b"kept"
    assert kernel.heap.cache("kmalloc-128").inuse == 1
    for _ in range(2):
        with pytest.raises(GuestNeedsRewind, match="rewind"):
            kernel.call("kmalloc", 8)
    with pytest.raises(GuestNeedsRewind):
        kernel.snapshot()

    kernel.memory.write_u64(kept, 0)
    kernel.rewind()
    assert kernel.memory[kept : kept + 4] == b"kept"
    assert (kernel.instructions, kernel.console) == (count, console)
    assert dict(kernel.registers) == registers
    assert kernel.machine.memory.image() == image
    assert kernel.physical[0:0x9000] == ram
    assert kernel.call("ksize", kept) == 128


def test_a_guest_without_a_stack_cannot_be_called_and_nothing_is_lost(kernel: Kernel) -> None:
    stack = kernel.registers["rsp"]
    kernel.registers["rsp"] = UNMAPPED
    with pytest.raises(TranslationError) as caught:
        kernel.call("kmalloc", 8)
    assert caught.value.address == UNMAPPED - 8
    assert kernel.failure is None
    kernel.registers["rsp"] = stack
    assert kernel.call("kmalloc", 8)


def test_rewinding_a_sound_kernel_is_refused(kernel: Kernel) -> None:
    with pytest.raises(UsageError, match="nothing to rewind"):
        kernel.rewind()


def test_a_hundred_failures_in_a_row_are_rewound(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    count = kernel.instructions
    for number in range(100):
        with pytest.raises(GuestFault):
            kernel.call("wild_read", UNMAPPED + 4096 * number)
        kernel.rewind()
    assert kernel.instructions == count
    assert kernel.heap.find(pointer).state == "allocated"


def test_rewinding_replays_calls_runs_writes_and_registers_across_checkpoints(kernel: Kernel) -> None:
    """Enough calls for several checkpoints, and every kind of entry between them, then one failure."""
    for number in range(3000):
        pointer = kernel.call("kmalloc", number % 300)
        if number % 2:
            kernel.call("kfree", pointer)
        elif pointer > 4096:
            kernel.memory.write_u64(pointer, number)
    kernel.physical.write(0x5000, b"physical")
    kernel.registers["r15"] = 0x5EED
    kernel.run(limit=3)
    kernel.interrupt_at(kernel.instructions + 10, 7)
    kernel.receive("typed")
    kernel.call("kmalloc", 2000)
    image, registers, count = kernel.machine.memory.image(), dict(kernel.registers), kernel.instructions
    stack = registers["rsp"] & ~15
    with pytest.raises(GuestFault):
        kernel.call("illegal")
    kernel.rewind()
    assert kernel.machine.memory.image() == image
    assert (dict(kernel.registers), kernel.instructions) == (registers, count)
    assert kernel.call("stack_at_entry") == stack - 8


def test_ctrl_c_stops_a_call_as_python_expects_and_rewinding_repairs_it(kernel: Kernel) -> None:
    count = kernel.instructions
    with ctrl_c_after(0.2), pytest.raises(KeyboardInterrupt):
        kernel.call("spin", limit=10**12)
    assert any(frame.startswith("spin") for frame in kernel.backtrace())    # a tick's handler may stand above it
    with pytest.raises(GuestNeedsRewind, match="interrupted"):
        kernel.call("kmalloc", 8)
    kernel.rewind()
    assert kernel.instructions == count


def test_ctrl_c_stops_a_run_which_can_go_on() -> None:
    with sandbox.boot(".text\nmain:\n    jmp main\n", ram="4M") as kernel:
        with ctrl_c_after(0.2), pytest.raises(KeyboardInterrupt):
            kernel.run()
        count = kernel.instructions
        assert kernel.failure is None
        assert kernel.run(limit=10).kind == "limit"
        with pytest.raises(GuestFault):
            kernel.call(0)
        kernel.rewind()
        assert kernel.instructions == count + 10


def test_an_exception_in_a_hook_comes_out_and_rewinding_repairs_it(kernel: Kernel) -> None:
    def object_to(address: int) -> None:
        raise ZeroDivisionError(hex(address))

    hook = kernel.machine.cpu.hook_code([kernel.symbols["kfree"]], object_to)
    pointer = kernel.call("kmalloc", 64)
    with pytest.raises(ZeroDivisionError, match=hex(kernel.symbols["kfree"])):
        kernel.call("kfree", pointer)
    hook.remove()
    with pytest.raises(GuestNeedsRewind, match="ZeroDivisionError"):
        kernel.call("kfree", pointer)
    kernel.rewind()
    assert kernel.call("kfree", pointer) is not None
    assert kernel.heap.cache("kmalloc-64").inuse == 0


def test_hooks_hear_nothing_of_a_replay(kernel: Kernel) -> None:
    heard: list[int] = []
    hook = kernel.machine.cpu.hook_code([kernel.symbols["kmalloc"]], heard.append)
    pointers = [kernel.call("kmalloc", 8) for _ in range(5)]
    with pytest.raises(GuestPanic):
        kernel.call("complain", 1)
    assert len(heard) == 5
    kernel.rewind()
    assert len(heard) == 5
    kernel.call("kmalloc", 8)
    assert len(heard) == 6
    hook.remove()
    assert kernel.heap.find(pointers[0]).state == "allocated"


def test_a_machine_that_was_run_behind_the_journals_back_is_noticed_by_a_rewind(kernel: Kernel) -> None:
    kernel.machine.run(limit=5)
    kernel.call("kmalloc", 8)
    with pytest.raises(GuestFault):
        kernel.call("illegal")
    with pytest.raises(EngineError, match="entries again ended at instruction"):
        kernel.rewind()


def test_two_sessions_with_the_same_calls_keep_the_same_journal_and_checkpoints_come_often_enough() -> None:
    def session() -> tuple[object, ...]:
        with sandbox.boot(ram="4M") as kernel:
            for number in range(1000):
                kernel.call("kfree", kernel.call("kmalloc", number))
            return kernel.journal.entries()

    first = session()
    assert first == session()
    marks = [position for position, entry in enumerate(first) if isinstance(entry, Flush)]
    longest = (4 << 20) // RAM_PER_WORK // ENTRY_WORK + 1
    assert marks
    assert max(later - earlier for earlier, later in pairwise([0, *marks, len(first)])) <= longest + 1


def test_a_call_that_failed_leaves_no_entry_in_the_journal(kernel: Kernel) -> None:
    kernel.call("kmalloc", 1)
    length = len(kernel.journal)
    with pytest.raises(GuestFault):
        kernel.call("illegal")
    assert len(kernel.journal) == length
