"""Exceptions delivered as the hardware delivers them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from sandbox.x86 import SegmentDescriptor, SystemType, Vector
from tests.machine.rig import (
    CODE,
    DATA,
    GDT,
    HANDLERS,
    IDT,
    IST1,
    IST2,
    KERNEL_CODE,
    NOWHERE,
    RSP0,
    STACK,
    TSS,
    USER_CODE,
    USER_DATA,
    Rig,
    frame,
)  # fmt: skip

Guest = Callable[..., Rig]
EXIT = "mov al, {}; out 0xf4, al"
TF, IF, NT, RF = 1 << 8, 1 << 9, 1 << 14, 1 << 16


def to_ring3(code: str, flags: int = 2) -> str:
    """Enter ring 3 by iretq and execute ``code`` there."""
    return (f"push {USER_DATA}; push {STACK - 0x1000}; push {flags}; push {USER_CODE}; lea rax, [rip + user]; push rax;"
            f"iretq; user: {code}")


def test_ten_thousand_page_faults_in_a_row_are_handled_by_the_guest(guest: Guest) -> None:
    rig = guest(f"mov ecx, 10000; mov ebx, {NOWHERE}; again: mov rax, [rbx]; dec ecx; jnz again; hlt",
                {14: "inc r8; pop rax; add qword ptr [rsp], 3; iretq"})
    stop = rig.run(None)
    assert stop.kind == "halted with interrupts off"
    assert (rig["r8"], rig["rcx"], rig["cr2"], rig["rsp"]) == (10_000, 0, NOWHERE, STACK)


def test_faults_nest_as_deep_as_the_stack_allows(guest: Guest) -> None:
    rig = guest(f"mov ebx, {NOWHERE}; mov rax, [rbx]; hlt",
                {14: f"inc r8; cmp r8, 100; je deep; mov rax, [rbx + r8*8]; deep: {EXIT.format(1)}"})
    assert rig.run().kind == "debug exit" and rig["r8"] == 100
    assert rig["rsp"] == STACK - 100 * 48 and rig["cr2"] == NOWHERE + 99 * 8


@pytest.mark.parametrize(("code", "vector", "error", "past"), [
    ("xor ecx, ecx; nop; div ecx", 0, None, 0),
    ("nop; int3", 3, None, 1),
    ("nop; int 0x50", 0x50, None, 2),
    ("ud2", 6, None, 0),
    (".byte 0xce", 6, None, 0),  # into does not exist in 64-bit mode
    ("syscall", 6, None, 0),
    ("nop; nop; sysenter", 13, 0, 0),
    ("mov ax, 0x1238; mov ds, ax", 13, 0x1238, 0),
    ("mov rax, 1 << 47; nop; mov rax, [rax]", 13, 0, 0),
    (f"mov rax, [{NOWHERE}]", 14, 0, 0),
    (f"mov [{NOWHERE}], al", 14, 2, 0),
    ("clts; mov rax, cr0; or eax, 8; mov cr0, rax; fld1", 7, None, 0),
    (to_ring3("hlt"), 13, 0, 0),
])
def test_every_exception_has_its_error_code_and_its_rip(
    guest: Guest, code: str, vector: int, error: int | None, past: int
) -> None:
    rig = guest(code, {vector: (EXIT.format(vector), {"ist": 1})})
    blamed = 0  # the instruction before the handler's first
    while rig["rip"] < HANDLERS or rig["rip"] >= HANDLERS + 4096:
        blamed = rig["rip"]
        assert rig.run(1).kind == "instruction limit"
    seen = frame(rig, rig["rsp"], error is not None)
    assert seen.get("error_code") == error
    assert seen["rip"] == blamed + past
    software = vector in (3, 0x50)
    assert bool(seen["rflags"] & RF) is (not software)


def test_a_fetch_fault_belongs_to_the_address_that_was_jumped_to(guest: Guest) -> None:
    rig = guest(f"mov eax, {NOWHERE}; jmp rax", {14: EXIT.format(1)})
    rig.run()
    seen = frame(rig, rig["rsp"], error_code=True)
    assert (seen["rip"], seen["error_code"], rig["cr2"]) == (NOWHERE, 16, NOWHERE)


def test_an_instruction_that_reaches_into_a_missing_page_faults_at_itself(guest: Guest) -> None:
    """The four instructions before it run first, whatever the slices, and CR2 is not touched before."""
    outcomes = set()
    for length in (1, 2, 3, 1000):
        rig = guest(f"mov edi, {DATA + 0xFF0}; jmp rdi", {14: EXIT.format(1)})
        rig.machine.memory.write(DATA + 0xFF0, b"\x48\xff\xc0" * 4 + b"\x90\x90" + b"\x48\xb8")
        rig.machine.paging.unmap(DATA + 0x1000)
        for _ in range(20):
            stop = rig.run(length)
            if stop.kind == "debug exit":
                break
        seen = frame(rig, rig["rsp"], error_code=True)
        assert (seen["rip"], rig["cr2"], seen["error_code"]) == (DATA + 0xFFE, DATA + 0x1000, 16)
        outcomes.add((stop.kind.value, stop.instructions, rig["rax"] & ~0xFF, rig.machine.memory.image()))
    assert len(outcomes) == 1


def test_a_fault_in_ring_3_switches_to_the_stack_of_ring_0(guest: Guest) -> None:
    rig = guest(to_ring3(f"mov eax, {NOWHERE}; mov rcx, [rax]", flags=IF | 2), {14: EXIT.format(1)})
    assert rig.run().kind == "debug exit"
    seen = frame(rig, rig["rsp"], error_code=True)
    assert rig["rsp"] == RSP0 - 48 and rig["cpl"] == 0
    assert (seen["cs"], seen["ss"], seen["rsp"], seen["error_code"]) == (USER_CODE, USER_DATA, STACK - 0x1000, 4)
    assert seen["rflags"] & IF and not rig["rflags"] & IF
    assert (rig["cs"], rig["ss"]) == (KERNEL_CODE, 0)


def test_ring_3_comes_back_by_iretq_and_faults_again(guest: Guest) -> None:
    rig = guest(to_ring3(f"mov ecx, 50; mov ebx, {NOWHERE}; again: mov rax, [rbx]; dec ecx; jnz again; int 0x40"),
                {14: "inc r8; pop rax; add qword ptr [rsp], 3; iretq", 0x40: (EXIT.format(1), {"dpl": 3})})
    assert rig.run().kind == "debug exit" and rig["r8"] == 50
    assert frame(rig, rig["rsp"])["cs"] == USER_CODE


def test_int_n_in_ring_3_needs_a_gate_that_allows_it(guest: Guest) -> None:
    rig = guest(to_ring3("nop; int 0x40"), {0x40: EXIT.format(2), 13: EXIT.format(1)})
    stop = rig.run()
    seen = frame(rig, rig["rsp"], error_code=True)
    assert stop.status == 1 and seen["error_code"] == 0x40 * 8 + 2
    assert rig.machine.memory[seen["rip"]:seen["rip"] + 2] == b"\xcd\x40"


def test_an_ist_gate_takes_its_stack_also_without_a_change_of_ring(guest: Guest) -> None:
    rig = guest("mov rsp, 0x2ffff3; int 0x40", {0x40: (EXIT.format(1), {"ist": 2})})
    rig.run()
    assert rig["rsp"] == IST2 - 40 and frame(rig, rig["rsp"])["rsp"] == 0x2FFFF3
    assert frame(rig, rig["rsp"])["ss"] == rig["ss"]


def test_the_stack_is_aligned_to_16_before_the_frame(guest: Guest) -> None:
    rig = guest("sub rsp, 5; ud2", {6: EXIT.format(1)})
    rig.run()
    assert rig["rsp"] == ((STACK - 5) & ~15) - 40 and frame(rig, rig["rsp"])["rsp"] == STACK - 5


def test_interrupt_gates_clear_if_and_trap_gates_keep_it(guest: Guest) -> None:
    for kind, kept in ((SystemType.INTERRUPT_GATE, False), (SystemType.TRAP_GATE, True)):
        rig = guest("sti; nop; ud2", {6: (EXIT.format(1), {"kind": kind})})
        rig.run()
        assert bool(rig["rflags"] & IF) is kept and frame(rig, rig["rsp"])["rflags"] & IF


def test_single_stepping_traps_after_each_instruction_and_handlers_run_without_it(guest: Guest) -> None:
    rig = guest(f"pushfq; or qword ptr [rsp], {TF | NT}; popfq; nop; nop; mov al, 7; out 0xf4, al",
                {1: "inc r8; push rax; pushfq; pop rax; or r9, rax; pop rax; iretq"})
    stop = rig.run()
    assert stop.status == 7 and rig["r8"] == 3 and not rig["r9"] & (TF | NT)


@pytest.mark.parametrize(("damage", "error", "vector"), [
    (lambda rig: rig.machine.memory.write_u8(IDT + 16 * 0x40 + 5, 0x0E), 0x40 * 8 + 2, 11),  # not present
    (lambda rig: rig.machine.memory.write_u8(IDT + 16 * 0x40 + 5, 0x8C), 0x40 * 8 + 2, 13),  # a call gate
    (lambda rig: rig.machine.memory.write_u16(IDT + 16 * 0x40 + 2, 0), 0, 13),  # a null selector
    (lambda rig: rig.machine.memory.write_u16(IDT + 16 * 0x40 + 2, 0x800), 0x800, 13),  # beyond the GDT
    (lambda rig: rig.machine.memory.write_u16(IDT + 16 * 0x40 + 2, 0x10), 0x10, 13),  # a data segment
    (lambda rig: rig.machine.memory.write_u64(GDT + 0x30, SegmentDescriptor.code64() & ~(1 << 47)) or
     rig.machine.memory.write_u16(IDT + 16 * 0x40 + 2, 0x30), 0x30, 11),  # a code segment that is not present
    (lambda rig: rig.machine.memory.write_u32(IDT + 16 * 0x40 + 8, 0x8000), 0, 13),  # a handler not canonical
])
def test_a_damaged_gate_raises_the_exception_of_the_manual(
    guest: Guest, damage: Callable[[Rig], object], error: int, vector: int
) -> None:
    rig = guest("nop; int 0x40", {0x40: EXIT.format(3), vector: (EXIT.format(1), {"ist": 1})})
    damage(rig)
    stop = rig.run()
    seen = frame(rig, rig["rsp"], error_code=True)
    assert stop.status == 1 and (seen["error_code"], seen["rip"], seen["rsp"]) == (error, CODE + 1, STACK)


def test_a_push_on_an_unmapped_stack_page_is_a_double_fault_on_its_ist_stack(guest: Guest) -> None:
    rig = guest(f"mov rsp, {NOWHERE + 0x1000}; mov eax, 7; push rax",
                {14: EXIT.format(1), 8: (EXIT.format(8), {"ist": 1})})
    stop = rig.run()
    seen = frame(rig, rig["rsp"], error_code=True)
    assert stop.status == 8 and rig["rsp"] == IST1 - 48
    assert (seen["error_code"], seen["rsp"], rig["cr2"]) == (0, NOWHERE + 0x1000, NOWHERE + 0xFF8)


def test_a_frame_over_the_edge_of_a_guard_page_faults_at_its_highest_missing_byte(guest: Guest) -> None:
    rig = guest(f"mov rsp, {DATA + 0x1010}; int 0x40", {0x40: EXIT.format(1), 14: (EXIT.format(14), {"ist": 1})})
    rig.machine.paging.unmap(DATA)
    stop = rig.run()
    assert stop.status == 14 and rig["cr2"] == DATA + 0xFF8
    assert frame(rig, rig["rsp"], error_code=True)["rip"] == CODE + 7


@pytest.mark.parametrize(("first", "double"), [
    ("ud2", False),  # benign, then #GP for its missing gate: handled one after the other
    ("xor ecx, ecx; div ecx", True),  # contributory twice
    (f"mov rax, [{NOWHERE}]", True),  # a page fault, then contributory
])
def test_two_exceptions_make_a_double_fault_by_the_manuals_table(
    guest: Guest, first: str, double: bool
) -> None:
    rig = guest(first, {13: (EXIT.format(13), {"ist": 1}), 8: (EXIT.format(8), {"ist": 1})})
    assert rig.run().status == (8 if double else 13)


def test_a_third_fault_stops_the_machine_and_says_all_of_them(guest: Guest) -> None:
    rig = guest(f"nop; mov rax, [{NOWHERE}]")
    stop = rig.run()
    assert stop.kind == "triple fault" and stop.rip == CODE + 1
    text = str(stop)
    assert text.startswith(f"triple fault at {CODE + 1:#x}: #PF") and "#DF" in text and "#GP" in text
    assert f"{NOWHERE:#x}" in text


def test_delivery_sets_accessed_and_dirty_bits_of_the_stack_page(guest: Guest) -> None:
    rig = guest(f"mov rsp, {DATA + 0x3000}; int 0x40", {0x40: EXIT.format(1)})
    rig.run(2)
    entries = [step.entry for step in rig.machine.paging.walk(DATA + 0x2000)]
    assert all(entry.A for entry in entries) and entries[-1].D
    assert not rig.machine.paging.walk(DATA + 0x1000)[-1].entry.A


def test_a_tss_too_small_for_the_stack_is_invalid(guest: Guest) -> None:
    rig = guest("nop; int 0x40", {0x40: (EXIT.format(1), {"ist": 7}), 10: EXIT.format(10)})
    view = rig.machine.cpu.view
    at = view.layout.segments + 24 * 7 + 16
    struct.pack_into("<I", view.block, at, 0x30)
    rig.machine.cpu.push()
    stop = rig.run()
    assert stop.status == 10 and frame(rig, rig["rsp"], error_code=True)["error_code"] == 0x28
    assert view.tr.base == TSS


def test_an_access_without_ram_behind_it_stops_the_machine(guest: Guest) -> None:
    rig = guest(f"nop; mov eax, {NOWHERE}; mov rbx, [rax + 8]")
    rig.machine.paging.map(NOWHERE, 0x8000_0000, 2)
    stop = rig.run()
    assert stop.kind == "no memory" and stop.address == 0x8000_0008 and stop.rip == CODE + 6
    assert "0x80000008" in str(stop)


def test_vectors_know_their_names() -> None:
    from sandbox.x86 import EXCEPTIONS, describe_exception

    assert len(EXCEPTIONS) == 32 and all(row.vector == index for index, row in enumerate(EXCEPTIONS))
    assert [row.vector for row in EXCEPTIONS if row.has_error_code] == [8, 10, 11, 12, 13, 14, 17, 21, 29, 30]
    assert describe_exception(Vector.PF, 7, 0x10) == "#PF (page fault) at 0x10: user write to a page that forbids it"
