"""Exceptions, interrupts and what the kernel says when nobody handles them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.abi import (
    EXIT_PANIC,
    IST_STACK_SIZE,
    KERNEL_STACK_SIZE,
    PANIC_VECTOR,
    STACK_SLOT,
    STACKS_BASE,
    panic_record,
    percpu,
)
from sandbox.errors import GuestFault, GuestPanic
from sandbox.guest.guest import Guest
from sandbox.guest.outcome import RunKind
from sandbox.x86 import EXCEPTIONS

Boot = Callable[..., Guest]
SELFTEST = Path(__file__).parents[2] / "kernel_asm" / "selftest.asm"
STACK_TOP = STACKS_BASE + STACK_SLOT

FRAME = ".text\nmain:\n    push rbp\n    mov rbp, rsp\n"


def last_words(guest: Guest) -> str:
    """The line of the console that says why the kernel gave up."""
    return next(line for line in guest.console.splitlines() if line.startswith("kernel panic: "))


@pytest.mark.parametrize("hz", [0, 100, 10_000])
def test_the_kernels_own_tests_pass_at_any_tick_rate(boot: Boot, hz: int) -> None:
    guest = boot(SELFTEST, hz=hz)
    result = guest.run(limit=100_000_000)
    assert result.kind is RunKind.SUCCESS, f"{result}\n{guest.console}"
    *lines, summary = guest.console.splitlines()
    assert len(lines) >= 24
    assert all(line.endswith(" ... [ok]") for line in lines), guest.console
    assert summary == f"{len(lines)} passed, 0 failed"


FAILING = """
.text
    test_case "arithmetic", test_arithmetic
test_arithmetic:
    cli
    xor ebx, ebx
    push rbx
    cmp ebx, 1
    expect e, "zero is one"
    ret
    test_case "nothing", test_nothing
test_nothing:
    pushfq
    pop rax
    test eax, RFLAGS_IF
    expect nz, "interrupts are on again"
    ret
"""


def test_a_test_that_fails_is_reported_and_the_others_still_run(boot: Boot) -> None:
    before, *_, after = re.split(r"(?m)^\.include .*$", SELFTEST.read_text())
    guest = boot(before + FAILING + after)
    assert guest.run(limit=1_000_000).kind is RunKind.FAILURE
    assert guest.console == "arithmetic ... [failed] zero is one\nnothing ... [ok]\n1 passed, 1 failed\n"


def test_a_boot_prints_nothing(guest: Guest) -> None:
    assert guest.console == ""


def test_ten_thousand_page_faults_in_a_row_are_handled(boot: Boot) -> None:
    """Each store meets an unmapped page, whose handler maps one frame there; afterwards it is taken away again."""
    guest = boot(FRAME + """
    push rbx
    push r12
    mov edi, VECTOR_PAGE_FAULT
    lea rsi, [rip + repair]
    call set_trap_handler
    mov r12d, 10000
    mov rbx, 0xffffd00000000000
next_fault:
    mov byte ptr [rbx + 5], 1
    mov rdi, rbx
    call unmap_page
    dec r12d
    jnz next_fault
    cmp qword ptr [rip + faults], 10000
    setne al
    movzx eax, al
    pop r12
    pop rbx
    pop rbp
    ret
repair:
    push rbp
    mov rbp, rsp
    inc qword ptr [rip + faults]
    mov rdi, cr2
    and rdi, -4096
    mov rsi, 0x300000
    mov rdx, PTE_WRITE | PTE_NX
    call map_page
    mov eax, 1
    pop rbp
    ret
.bss
.p2align 3
faults: .zero 8
""", hz=0)
    assert guest.run(limit=50_000_000).kind is RunKind.SUCCESS, guest.console
    cpu = percpu(guest.memory, guest.symbols["boot_cpu"])
    assert (cpu.interrupts, cpu.interrupt_depth) == (10_000, 0)


FAULTS = {
    "xor eax, eax\n mov [rax], al": "page fault: write to 0x0000000000000000: page not present",
    "mov rax, 0x1234\n mov al, [rax]": "page fault: read from 0x0000000000001234: page not present",
    "lea rax, [rip + main]\n mov [rax], al": "page fault: write to 0xffffffffa0000000: page is read-only",
    "mov rax, 0x4321\n jmp rax":
        "page fault: instruction fetch from 0x0000000000004321: page not present",
    "mov rax, 0xffff888000300000\n jmp rax":
        "page fault: instruction fetch from 0xffff888000300000: page is not executable",
    "xor ecx, ecx\n div ecx": "divide error",
    "int3": "breakpoint",
    "ud2": "invalid opcode",
    "mov eax, 0x38\n mov ds, eax": "general protection, error code 0x38",
    "mov rax, 0x8000000000000000\n mov al, [rax]": "general protection",
    "mov rax, 0x8000000000000000\n mov rsp, rax\n push rax": "double fault",
    "int 0x80": "interrupt 128, which nobody handles",
    "int 0x24": "interrupt 36, which nobody handles",
}


@pytest.mark.parametrize("code", FAULTS, ids=FAULTS.values())
def test_an_unhandled_exception_is_told_in_words(boot: Boot, code: str) -> None:
    guest = boot(f"{FRAME} {code}\n")
    result = guest.run(limit=10_000_000)
    assert last_words(guest) == f"kernel panic: {FAULTS[code]}"
    assert result.status == 2 * EXIT_PANIC + 1
    assert isinstance(result.error, GuestFault)


def test_every_exception_has_the_name_that_the_manual_gives_it(guest: Guest) -> None:
    table = guest.symbols["exception_names"]
    for info in EXCEPTIONS:
        assert guest.memory.cstring(guest.memory.u64(table + 8 * info.vector)) == info.name.encode()


@pytest.mark.parametrize("code", [
    "overflow:\n call overflow",
    f" sub rsp, {KERNEL_STACK_SIZE}\n mov [rsp], rax",
    f" sub rsp, {STACK_SLOT - 64}\n push rax",
    " lea rsp, [rsp - 0x3f00]\n mov [rsp - 0x100], rax",
])
def test_a_stack_overflow_is_called_by_its_name(boot: Boot, code: str) -> None:
    guest = boot(f"{FRAME}{code}\n")
    guest.run(limit=10_000_000)
    words = last_words(guest)
    assert words.startswith("kernel panic: kernel stack overflow at 0x")
    where = int(words.rsplit(" ", 1)[1], 16)
    assert STACKS_BASE <= where < STACK_TOP - KERNEL_STACK_SIZE
    assert panic_record(guest.memory, guest.symbols["panic_info"]).address_ == where


def test_the_double_fault_stack_is_large_enough_for_the_whole_report(boot: Boot) -> None:
    """Its lowest quarter is never touched."""
    guest = boot(f"{FRAME}overflow:\n call overflow\n")
    guest.run(limit=10_000_000)
    bottom = STACKS_BASE + 2 * STACK_SLOT - IST_STACK_SIZE
    assert guest.memory.read(bottom, IST_STACK_SIZE // 4) == bytes(IST_STACK_SIZE // 4)
    assert guest.memory.read(bottom, IST_STACK_SIZE) != bytes(IST_STACK_SIZE)


def test_panic_says_its_message_and_keeps_every_register_of_its_caller(boot: Boot) -> None:
    registers = [f"r{number}" for number in range(8, 16)] + ["rax", "rbx", "rcx", "rdx", "rsi"]
    values = {name: 0x1000 + 16 * at for at, name in enumerate(registers)}
    loads = "".join(f" mov {name}, {value}\n" for name, value in values.items())
    guest = boot(f"{FRAME}{loads} lea rdi, [rip + text]\n push 8\n push 7\n std\n call panic\nbehind:\n nop\n"
                 '.rodata\ntext: .asciz "%d %d %d %d %d %d %d"\n')
    result = guest.run(limit=10_000_000)
    expected = [values[name] for name in ("rsi", "rdx", "rcx", "r8", "r9")]
    message = " ".join(map(str, [*expected, 7, 8]))
    assert last_words(guest) == f"kernel panic: {message}"
    assert isinstance(result.error, GuestPanic)
    assert result.error.message == message
    found = result.error.registers
    assert {name: found[name] for name in values} == values
    assert found["rdi"] == guest.symbols["text"]
    assert found["rip"] == guest.symbols["behind"]
    assert (found["rbp"], found["rsp"]) == (STACK_TOP - 16, STACK_TOP - 32)
    assert found["rflags"] & 0x400
    record = panic_record(guest.memory, guest.symbols["panic_info"])
    assert (record.active, record.vector, record.message) == (1, PANIC_VECTOR, message)
    for name, value in found.items():
        assert f"{name:6} 0x{value:016x}" in guest.console


def test_a_panic_starts_on_a_line_of_its_own(boot: Boot) -> None:
    for text, expected in (("half", "half\nkernel panic: x\n"), ("whole\\n", "whole\nkernel panic: x\n")):
        guest = boot(f'{FRAME} lea rdi, [rip + text]\n call kprintf\n lea rdi, [rip + x]\n call panic\n'
                     f'.rodata\ntext: .asciz "{text}"\nx: .asciz "x"\n')
        guest.run(limit=10_000_000)
        assert guest.console.startswith(expected)


def test_a_panic_whose_own_message_faults_ends_at_once(boot: Boot) -> None:
    guest = boot(f'{FRAME} lea rdi, [rip + text]\n mov esi, 0x21\n call panic\n.rodata\ntext: .asciz "%s"\n')
    result = guest.run(limit=10_000_000)
    assert guest.console.endswith("kernel panic: a panic inside a panic\n")
    assert result.status == 2 * EXIT_PANIC + 1


def test_a_bad_pointer_given_to_kprintf_does_not_deadlock_on_the_console(boot: Boot) -> None:
    guest = boot(f'{FRAME} lea rdi, [rip + text]\n mov esi, 0x21\n call kprintf\n.rodata\ntext: .asciz "a %s"\n')
    guest.run(limit=10_000_000)
    assert guest.console.startswith(
        "a \nkernel panic: page fault: read from 0x0000000000000021: page not present\n")


def test_the_backtrace_walks_through_an_interrupt(boot: Boot) -> None:
    """main calls a function whose breakpoint has a handler that panics: all of them stand in the trace."""
    guest = boot(FRAME + """
    mov edi, VECTOR_BREAKPOINT
    lea rsi, [rip + handler]
    call set_trap_handler
    call inner
    pop rbp
    ret
inner:
    push rbp
    mov rbp, rsp
    int3
behind:
    pop rbp
    ret
handler:
    push rbp
    mov rbp, rsp
    lea rdi, [rip + text]
    call panic
.rodata
text: .asciz "enough"
""")
    guest.run(limit=10_000_000)
    trace = [int(line, 16) for line in guest.console.partition("backtrace:\n")[2].split()]
    names = [guest.symbolize(address - 1).symbol for address in trace]
    order = [names.index(name) for name in ("handler", "trap_handle", "inner", "main")]
    assert order == sorted(order)
    assert guest.symbols["behind"] in trace


def test_a_broken_frame_chain_ends_the_backtrace_and_nothing_else(boot: Boot) -> None:
    for rbp in ("0x5555", "0xffffc9000000c123", "0xffffc9000000fff8", "0xffffffff80000000"):
        guest = boot(f"{FRAME} mov rbp, {rbp}\n ud2\n")
        assert guest.run(limit=10_000_000).status == 2 * EXIT_PANIC + 1
        assert last_words(guest) == "kernel panic: invalid opcode"


@pytest.mark.parametrize("register", ["rbx", "rbp", "r12", "r13", "r14", "r15"])
def test_a_main_that_changes_a_callee_saved_register_is_told_which(boot: Boot, register: str) -> None:
    guest = boot(f".text\nmain:\n xor eax, eax\n mov {register}, 0x77\n ret\n")
    result = guest.run(limit=10_000_000)
    assert result.kind is RunKind.PANIC
    assert last_words(guest).startswith(f"kernel panic: main changed {register}, which System V makes callee-saved: 0x")
    assert last_words(guest).endswith("at the call, 0x77 at the return")


def test_a_main_that_returns_with_a_wrong_stack_pointer_is_told(boot: Boot) -> None:
    guest = boot(".text\nmain:\n xor eax, eax\n ret 8\n")
    guest.run(limit=10_000_000)
    assert last_words(guest) == (
        "kernel panic: main changed rsp, which System V makes callee-saved: "
        f"0x{STACK_TOP:x} at the call, 0x{STACK_TOP + 8:x} at the return")


@pytest.mark.parametrize(("result", "kind"), [(0, RunKind.SUCCESS), (1, RunKind.FAILURE), (-1, RunKind.FAILURE)])
def test_the_result_of_main_is_the_exit_status(boot: Boot, result: int, kind: RunKind) -> None:
    guest = boot(f".text\nmain:\n mov rax, 0x1200000000\n add rax, {result}\n ret\n")
    assert guest.run(limit=1_000_000).kind is kind


def test_main_is_entered_as_system_v_wants(boot: Boot) -> None:
    guest = boot(".text\nmain:\n mov rax, rsp\n and eax, 15\n sub eax, 8\n pushfq\n pop rcx\n and ecx, 0x600\n"
                 " sub ecx, 0x200\n or eax, ecx\n ret\n")
    assert guest.run(limit=1_000_000).kind is RunKind.SUCCESS


@pytest.mark.parametrize("vector", [0x27, 0x2F])
def test_a_spurious_interrupt_passes_without_a_trace(boot: Boot, vector: int) -> None:
    """The controller names its input 7 when a request has vanished; nothing is in service then."""
    guest = boot(f"{FRAME} int {vector}\n xor eax, eax\n pop rbp\n ret\n")
    assert guest.run(limit=1_000_000).kind is RunKind.SUCCESS


def test_ticks_are_counted_and_the_depth_returns_to_zero(boot: Boot) -> None:
    guest = boot(".text\nmain:\n hlt\n jmp main\n", hz=1000)
    guest.run(limit=100)
    cpu = percpu(guest.memory, guest.symbols["boot_cpu"])
    before = cpu.ticks
    guest.run(limit=1000)
    assert cpu.ticks > before
    assert cpu.interrupts == cpu.ticks
    assert (cpu.cpu, cpu.self, cpu.restarts) == (0, guest.symbols["boot_cpu"], 0)


def test_without_ticks_the_timer_never_interrupts(boot: Boot) -> None:
    guest = boot(".text\nmain:\n mov ecx, 1000000\nspin:\n dec ecx\n jnz spin\n xor eax, eax\n ret\n", hz=0)
    assert guest.run(limit=10_000_000).kind is RunKind.SUCCESS
    assert percpu(guest.memory, guest.symbols["boot_cpu"]).interrupts == 0


def test_a_tick_at_any_instruction_of_a_trap_changes_nothing(boot: Boot) -> None:
    """From before the breakpoint, through entry, a handler that turns interrupts on, and exit, to behind it."""
    guest = boot(FRAME + """
    mov edi, VECTOR_BREAKPOINT
    lea rsi, [rip + handler]
    call set_trap_handler
    lea r8, [rsp - 8]
    mov r9d, 0x999
    stc
    int3
    setnc al
    movzx eax, al
    lea rcx, [rsp - 8]
    xor rcx, r8
    xor r9d, 0x999
    or eax, ecx
    or eax, r9d
    mov ecx, dword ptr gs:[percpu.interrupt_depth]
    or eax, ecx
    pop rbp
    ret
handler:
    sti
    xor r8d, r8d
    xor r9d, r9d
    mov eax, 1
    ret
""")
    fresh = guest.snapshot()
    plain = guest.run(limit=1_000_000)
    assert plain.kind is RunKind.SUCCESS
    cpu = percpu(guest.memory, guest.symbols["boot_cpu"])
    guest.restore(fresh)
    assert cpu.ticks == 0
    start = guest.instructions
    for moment in range(plain.instructions - 10):
        guest.machine.interrupt_at(start + moment, 0)
        result = guest.run(limit=1_000_000)
        assert (result.kind, cpu.ticks, cpu.interrupts) == (RunKind.SUCCESS, 1, 2), moment
        guest.restore(fresh)


def test_a_handler_that_declines_makes_the_kernel_panic(boot: Boot) -> None:
    guest = boot(f"{FRAME} mov edi, 3\n lea rsi, [rip + decline]\n call set_trap_handler\n int3\n"
                 "decline:\n xor eax, eax\n ret\n")
    guest.run(limit=10_000_000)
    assert last_words(guest) == "kernel panic: breakpoint"


def test_a_vector_that_does_not_exist_has_no_handler(guest: Guest) -> None:
    with pytest.raises(GuestPanic, match="there is no vector 256"):
        guest.call("set_trap_handler", 256, 0)
