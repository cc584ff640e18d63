"""A guest that wants to hurt its host: limits hold, memory is bounded, and every run ends with a reason."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.errors import GuestMemoryError, UsageError
from sandbox.machine import Machine, StopKind
from sandbox.machine.code_watch import LEARNED_MAXIMUM, SITES_MAXIMUM
from sandbox.x86 import PageTableEntry
from tests.machine.rig import CODE, DATA, GDT, IDT, STACK, TSS, Rig, assemble

Guest = Callable[..., Rig]
P_RW = int(PageTableEntry.of("P", "RW"))
RETRY = "iretq"
LIMIT = 20_000


def resident() -> int:
    """Bytes of RAM of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# -- instruction limits -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("code", "handlers"), [
    ("a: jmp a", {}),
    ("mov rcx, -1; mov edi, 0x600000; rep stosb", {}),
    (f"a: mov rcx, -1; mov edi, {DATA}; mov esi, {DATA}; rep movsb; jmp a", {}),
    ("mov rcx, -1; mov edi, 0x600000; repe scasb; a: jmp a", {}),
    ("a: mov rcx, -1; mov dx, 0x80; mov esi, 0x600000; rep outsb; jmp a", {}),
    (f"a: inc byte ptr [{CODE + 64}]; jmp a", {}),
    ("a: lea rbx, [rip + a]; mov byte ptr [rbx], 0x48; jmp a", {}),
    ("ud2", {6: RETRY}),
    ("mov rax, [0x40000000]", {14: "add rsp, 8; iretq"}),
    ("a: int 0x80; jmp a", {0x80: RETRY}),
    ("int 0x80", {0x80: f"mov rsp, {STACK}; int 0x80"}),
    ("int3", {3: f"mov rsp, {STACK}; int3"}),
    ("pushfq; or qword ptr [rsp], 0x100; popfq; a: jmp a", {1: RETRY}),
    ("a: xor ecx, ecx; div ecx; jmp a", {0: RETRY}),
    ("a: mov al, 0x14; out 0x43, al; mov al, 1; out 0x40, al; sti; jmp a", {8: RETRY}),
    ("a: syscall; jmp a", {6: RETRY}),
    ("a: mov rax, cr3; mov cr3, rax; invlpg [rax]; wbinvd; jmp a", {}),
])
def test_an_instruction_limit_holds_exactly(guest: Guest, code: str, handlers: dict[int, str]) -> None:
    rig = guest(code, handlers)
    start = rig.machine.instructions
    stop = rig.run(LIMIT)
    assert (stop.kind, rig.machine.instructions - start) == (StopKind.LIMIT, LIMIT)
    for _ in range(20):
        assert rig.run(1).kind is StopKind.LIMIT
    assert rig.machine.instructions - start == LIMIT + 20


def test_a_handler_that_cannot_be_fetched_ends_the_run_although_the_clock_stands_still(guest: Guest) -> None:
    rig = guest("ud2", {})
    for vector in (6, 14):
        rig.gate(vector, 0x4000_0000, ist=1)
    before = rig.machine.instructions
    stop = rig.run(1_000_000)
    assert stop.kind is StopKind.STUCK
    assert str(stop) == ("no instruction can start at 0x40000000: 10,000 attempts in a row, the last a "
                         "#PF (page fault)")
    assert rig.machine.instructions == before + 1
    assert rig.run(1_000_000).kind is StopKind.STUCK


def test_a_machine_after_a_triple_fault_stops_again_and_again(guest: Guest) -> None:
    rig = guest("lidt [rip]; ud2")
    for _ in range(100):
        assert rig.run(LIMIT).kind is StopKind.TRIPLE_FAULT


# -- tables -----------------------------------------------------------------------------------------------------
def corrupted(guest: Guest, seed: int, places: tuple[int, ...], handlers: dict[int, str]) -> str:
    """A machine whose tables are overwritten with a seed's bytes while it runs; the stop in words."""
    chosen = random.Random(seed)
    rig = guest(f"a: inc qword ptr [{DATA}]; mov rax, cr3; mov cr3, rax; int 0x30; push rax; pop rax; jmp a", handlers)
    rig.run(50)
    tables = [int(rig["cr3"]) + 0x1000 * index for index in range(4)]
    for _ in range(20):
        at = chosen.choice(places or tuple(tables)) + 8 * chosen.randrange(512 if not places else 48)
        entry = chosen.choice((chosen.getrandbits(64), chosen.choice(tables) | P_RW | chosen.getrandbits(9), 0,
                               chosen.getrandbits(52) << 12 | 0x83, (1 << 64) - 1))
        rig.machine.memory.write_u64(at, entry)
        start = rig.machine.instructions
        stop = rig.run(500)
        assert rig.machine.instructions - start <= 500
        words = str(stop)
    return words


@pytest.mark.parametrize("seed", range(12))
def test_random_page_tables_end_with_a_reason(guest: Guest, seed: int) -> None:
    handlers = {14: "add rsp, 8; iretq", 0x30: RETRY} if seed % 2 else {}
    assert corrupted(guest, seed, (), handlers)


@pytest.mark.parametrize("seed", range(12))
def test_random_descriptor_tables_end_with_a_reason(guest: Guest, seed: int) -> None:
    assert corrupted(guest, seed, (GDT, IDT + 16 * 0x30, IDT + 16 * 13, TSS), {13: "add rsp, 8; iretq", 0x30: RETRY})


@pytest.mark.parametrize("value", [0x7FFF_FFFF_F000, 0x3FFF_F000, 0xA0000, 0xFFFF_FFFF_FFFF_FFFF, 1, 0x123_4567_89AB])
def test_a_cr3_that_points_nowhere_ends_with_a_reason(guest: Guest, value: int) -> None:
    stop = guest(f"mov rax, {value}; mov cr3, rax; a: jmp a", {14: "iretq"}).run(LIMIT)
    assert stop.kind in (StopKind.TRIPLE_FAULT, StopKind.NO_MEMORY, StopKind.STUCK), stop


def test_page_tables_that_map_one_another_are_no_endless_list(guest: Guest) -> None:
    rig = guest("a: jmp a")
    cr3 = rig["cr3"]
    rig.machine.memory.write(cr3, struct.pack("<512Q", *[cr3 | P_RW] * 512))
    with pytest.raises(GuestMemoryError, match="map one another without end"):
        rig.machine.paging.mappings()


@pytest.mark.parametrize("base", [0x8000_0000_0000, 0x4000_0000, 0xFFFF_FFFF_FFFF_FFF8, 0x7FFF_FFFF_FFFF])
@pytest.mark.parametrize("instruction", ["lidt", "lgdt"])
def test_descriptor_tables_at_impossible_addresses_end_with_a_reason(guest: Guest, instruction: str, base: int) -> None:
    rig = guest(f"mov rax, {base}; mov [{DATA + 2}], rax; mov word ptr [{DATA}], 0xfff; mov ebx, {DATA};"
                f"{instruction} [rbx]; int 0x30; mov ax, 0x10; mov ds, ax; a: jmp a", {0x30: RETRY})
    assert rig.run(LIMIT).kind in (StopKind.TRIPLE_FAULT, StopKind.LIMIT)


@pytest.mark.parametrize("table", ["idt", "gdt", "stack", "tss"])
def test_a_table_on_a_page_without_ram_is_a_stop_that_names_the_address(guest: Guest, table: str) -> None:
    absent, virtual = 0x3000_0000, 0x4000_0000
    rig = guest("ud2", {6: (RETRY, {"ist": 1 if table == "tss" else 0})})
    rig.machine.paging.map(virtual, absent, P_RW)
    view, layout = rig.machine.cpu.view, rig.machine.cpu.view.layout
    if table == "stack":
        view.rsp = virtual + 0x800
    else:
        index = {"tss": 7, "gdt": 8, "idt": 9}[table]
        struct.pack_into("<Q", view.block, layout.segments + 24 * index + 8, virtual)
    rig.machine.cpu.push()
    for _ in range(2):
        stop = rig.run(LIMIT)
        assert stop.kind is StopKind.NO_MEMORY and stop.address is not None
        assert absent <= stop.address < absent + 4096


def test_a_software_interrupt_in_a_page_that_is_gone_is_delivered(guest: Guest) -> None:
    """The code runs on from a translation that nothing has flushed, as on a processor with its TLB."""
    rig = guest("ud2", {3: "hlt", 6: RETRY})
    paging, code = rig.machine.paging, 0x4000_0000
    paging.map(code, 0x800000, P_RW)
    entry = paging.walk(code)[-1].address
    rig.machine.memory.write(0x800000, assemble(f"mov rbx, {int(entry)}; mov qword ptr [rbx], 0; int3; hlt", code))
    rig.machine.cpu["rip"] = code
    assert rig.run(LIMIT).kind is StopKind.HALTED
    assert rig["rip"] < code


# -- registers --------------------------------------------------------------------------------------------------
ODD = (0, 1, 0x10, 0x8000_0011, 0xE005_0033, 0xFFFF_FFFF, (1 << 64) - 1, 0x1000, 0x20, 0x1020, 0x37_0678, 1 << 63)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("register", ["cr0", "cr2", "cr3", "cr4", "cr8", "dr0", "dr6", "dr7"])
def test_odd_values_in_control_registers_end_with_a_reason(guest: Guest, register: str, value: int) -> None:
    rig = guest(f"mov rax, {value}; mov {register}, rax; mov [{DATA}], rax; int 0x30; a: jmp a", {0x30: RETRY})
    start = rig.machine.instructions
    assert str(rig.run(500))
    assert rig.machine.instructions - start <= 500


@pytest.mark.parametrize("value", [0, 0x500, 0xD00, 0xD01, 0xFFFF_FFFF_FFFF_FFFF, 0x8000_0000_0000, 1 << 63])
@pytest.mark.parametrize("number", [
    0x10, 0x1B, 0x174, 0x175, 0x176, 0x1A0, 0x1D9, 0x200, 0x277, 0x2FF, 0x480, 0x6E0, 0x802, 0xC000_0080, 0xC000_0081,
    0xC000_0082, 0xC000_0084, 0xC000_0100, 0xC000_0101, 0xC000_0102, 0xC000_0103, 0xFFFF_FFFF])
def test_odd_values_in_model_specific_registers_end_with_a_reason(guest: Guest, number: int, value: int) -> None:
    rig = guest(f"mov ecx, {number}; mov eax, {value & 0xFFFF_FFFF}; mov edx, {value >> 32}; wrmsr; rdmsr;"
                f"mov rax, gs:[8]; mov [{DATA}], rax; int 0x30; a: jmp a", {0x30: RETRY, 13: "add rsp, 8; iretq"})
    start = rig.machine.instructions
    assert str(rig.run(300))
    assert rig.machine.instructions - start <= 300


# -- memory of the host -----------------------------------------------------------------------------------------
def test_a_console_that_never_stops_keeps_its_newest_bytes_and_says_how_many_are_gone() -> None:
    with Machine(4 << 20, console_limit=1000) as machine:
        for number in range(2500):
            machine.serial.write(0x3F8, 65 + number // 1000)
        assert machine.serial.text == "[earlier output is not kept: 1,500 bytes]\n" + "B" * 500 + "C" * 500
        snapshot = machine.snapshot()
        machine.serial.write(0x3F8, 0x44)
        assert machine.serial.text.startswith("[earlier output is not kept: 1,501 bytes]\n")
        machine.restore(snapshot)
        assert machine.serial.text.startswith("[earlier output is not kept: 1,500 bytes]\n")


@pytest.mark.parametrize("limit", [0, -1, True, None, 1.5])
def test_a_console_limit_that_is_no_number_of_bytes_is_refused(limit: object) -> None:
    with pytest.raises(UsageError, match="console limit"):
        Machine(4 << 20, console_limit=limit)  # type: ignore[arg-type]


def test_a_flood_of_port_writes_leaves_nothing_behind(guest: Guest) -> None:
    rig = guest("mov ecx, 3; a: inc edx; out dx, al; in al, dx; jmp a")
    rig.machine.serial.output_limit = 100
    stop = rig.run(100_000)
    assert stop.kind in (StopKind.LIMIT, StopKind.DEBUG_EXIT)
    assert len(rig.machine.serial.output) <= 100


def test_one_frame_of_code_at_thousands_of_addresses_is_not_remembered_at_each(guest: Guest) -> None:
    """A page full of popf, whose every byte is a place where interrupts may become allowed, mapped all over."""
    rig = guest(f"mov ebx, {1 << 30}; jmp rbx")
    memory, paging, frame = rig.machine.memory, rig.machine.paging, 0x800000
    memory.write(frame, b"\x9c\x9d" * 16 + b"\x48\x81\xc3\x00\x10\x00\x00" + b"\xff\xe3" + b"\x9d" * 4000)
    table = rig.table()
    memory.write(table, struct.pack("<512Q", *[frame | P_RW] * 512))
    directory = rig.table()
    memory.write(directory, struct.pack("<512Q", *[table | P_RW] * 512))
    top = paging.walk(1 << 30)[1]
    memory.write_u64(top.address, directory | P_RW)
    before = resident()
    rig.machine.inject_interrupt(0x30)
    assert rig.run(2_000).kind is StopKind.LIMIT
    cpu = rig.machine.cpu
    assert len(cpu.code._sites) <= SITES_MAXIMUM + 4096
    assert len(cpu._run.learned) <= LEARNED_MAXIMUM
    assert resident() - before < 128 << 20


def test_code_that_is_always_new_is_not_kept_translated_for_ever(guest: Guest) -> None:
    """Jumps into a page of zeros at every offset make a long block each: hundreds of megabytes, if all were kept."""
    rig = guest(f"mov ebx, 0x800000; mov eax, {DATA}; jmp rbx")
    rig.machine.memory.write(0x801000 - 16, assemble("inc rbx; jmp rbx", 0x801000 - 16))
    before = resident()
    rig.run(1_000_000)
    assert resident() - before < 160 << 20


def test_machines_that_come_and_go_leave_nothing_behind() -> None:
    def one() -> None:
        with Machine(4 << 20) as machine:
            machine.memory.write(0x1000, assemble("a: jmp a"))
            machine.start_long_mode(cr3=0x2000, rip=0x1000, rsp=0x8000)
            machine.run(100)

    for _ in range(20):
        one()
    before = resident()
    for _ in range(200):
        one()
    assert resident() - before < 16 << 20
