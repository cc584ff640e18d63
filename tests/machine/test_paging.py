"""The page walker against the CPU, and what it says in words."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sandbox.address import PhysAddr
from sandbox.errors import TranslationError, UsageError
from sandbox.machine import Paging, PagingControls, PhysicalMemory, VirtualMemory
from sandbox.x86 import Access, PageTableEntry, Vector
from tests.machine.rig import CODE, DATA, NOWHERE, RSP0, STACK, USER_CODE, USER_DATA, Rig, frame

P, RW, US, A, D, PS, NX = (getattr(PageTableEntry, name).mask for name in ("P", "RW", "US", "A", "D", "PS", "NX"))
Guest = Callable[..., Rig]


def tables() -> Paging:
    """An empty set of tables in 2 MiB of RAM."""
    frames = iter(range(0x2000, 0x80000, 0x1000))
    return Paging(PhysicalMemory(2 << 20), PagingControls(cr3=0x1000), lambda: next(frames))


def test_pages_of_both_sizes_translate() -> None:
    paging = tables()
    paging.map(0xFFFF_FFFF_8000_0000, 0x5000, RW)
    paging.map(0xFFFF_8880_0020_0000, 0x60_0000, RW | NX, 2 << 20)
    assert paging.translate(0xFFFF_FFFF_8000_0123) == PhysAddr(0x5123)
    assert paging.translate(0xFFFF_8880_0034_5678) == PhysAddr(0x74_5678)
    assert [step.level.name for step in paging.walk(0xFFFF_8880_0034_5678)] == ["PML4", "PDPT", "PD"]
    paging.unmap(0xFFFF_FFFF_8000_0000)
    with pytest.raises(TranslationError) as error:
        paging.translate(0xFFFF_FFFF_8000_0123)
    assert error.value.address == 0xFFFF_FFFF_8000_0123 and "PT[0]" in error.value.explanation


def test_a_page_is_not_mapped_over_one_of_another_size() -> None:
    paging = tables()
    paging.map(0x20_0000, 0, RW, 2 << 20)
    paging.map(0x40_0000, 0, RW)
    with pytest.raises(UsageError, match="large page"):
        paging.map(0x20_1000, 0, RW)
    with pytest.raises(UsageError, match="4 KiB"):
        paging.map(0x40_0000, 0, RW, 2 << 20)
    for virtual, physical in ((0x1001, 0), (0x1000, 1), (1 << 47, 0)):
        with pytest.raises(UsageError):
            paging.map(virtual, physical, RW)


def test_the_explanation_names_the_entry_that_decides() -> None:
    paging = tables()
    paging.map(0x1000, 0x5000, NX)
    paging.map(0x2000, 0x5000, RW | US)
    paging.memory.write_u64(paging.walk(0x3000)[-1].address, 0x5000 | P | 1 << 51)
    assert "PML4[1]" in paging.explain(1 << 39) and "not present" in paging.explain(1 << 39)
    assert "PT[1]" in paging.explain(0x1000, "write") and "not writable" in paging.explain(0x1000, "write")
    assert "NX" in paging.explain(0x1000, "execute")
    assert "supervisor only" in paging.explain(0x1000, "read", user=True)
    assert "reserved bits" in paging.explain(0x3000)
    assert "not canonical" in paging.explain(1 << 47)
    assert "4 KiB page" in paging.explain(0x2000, "write", user=True)
    with pytest.raises(UsageError):
        paging.explain(0x1000, "erase")


def test_mappings_are_merged_where_rights_and_frames_continue() -> None:
    paging = tables()
    paging.map_range(0x10000, 0x5000, 0x3000, RW)
    paging.map(0x13000, 0x8000, 0)
    paging.map(0x14000, 0x1_0000, 0)
    paging.map_range(0xFFFF_8880_0000_0000, 0, 4 << 20, RW | NX, 2 << 20)
    assert [(int(m.start), int(m.end), int(m.physical), m.rights) for m in paging.mappings()] == [
        (0x10000, 0x13000, 0x5000, "rwx-"), (0x13000, 0x14000, 0x8000, "r-x-"), (0x14000, 0x15000, 0x10000, "r-x-"),
        (0xFFFF_8880_0000_0000, 0xFFFF_8880_0040_0000, 0, "rw--")]


def test_virtual_memory_crosses_page_edges_to_frames_that_do_not_adjoin() -> None:
    paging = tables()
    memory = VirtualMemory(paging.memory, paging)
    paging.map(0x10000, 0x90000, 0)
    paging.map(0x11000, 0x7000, RW)
    memory[0x10FFC:0x11004] = b"abcdefgh"
    assert paging.memory[0x90FFC:0x91000] == b"abcd" and paging.memory[0x7000:0x7004] == b"efgh"
    assert memory.u64(0x10FFC) == int.from_bytes(b"abcdefgh", "little")
    with pytest.raises(TranslationError) as error:
        memory.write(0x11FFF, b"xy")
    assert error.value.address == 0x12000 and paging.memory[0x7FFF] == 0


PROBES = {
    Access.READ: "mov rax, [rbx]",
    Access.WRITE: "mov [rbx], al",
    Access.EXECUTE: "jmp rbx",
}
REPORT = "mov al, 1; out 0xf4, al"


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("access", list(PROBES))
def test_the_walker_and_the_cpu_agree_on_random_entries(guest: Guest, access: Access, user: bool) -> None:
    """Random rights at each level; the CPU's own page fault (or its absence) is the oracle."""
    enter = f"push {USER_DATA}; push {STACK - 64}; push 2; push {USER_CODE}; lea rax, [rip + go]; push rax; iretq; go: "
    rig = guest(f"mov rbx, {NOWHERE}; " + (enter if user else "") + PROBES[access] + "; nop; int3",
                {14: REPORT, 3: (REPORT, {"dpl": 3}), 13: REPORT})
    rig.machine.paging.map(NOWHERE, DATA, RW | US)
    rig.machine.memory.write(DATA, b"\xcc")
    walk = rig.machine.paging.walk(NOWHERE)
    start = rig.machine.snapshot()
    chosen = random.Random(1)
    outcomes = set()
    for _ in range(60):
        rig.machine.restore(start)
        for step in walk[1:]:
            entry = int(step.entry)
            for bit, chance in ((P, 0.1), (RW, 0.15), (US, 0.1), (NX, 0.0)):
                if chosen.random() < chance:
                    entry &= ~bit
            if chosen.random() < 0.1:
                entry |= NX
            if chosen.random() < 0.05:
                entry |= 1 << chosen.randrange(40, 52)
            rig.machine.memory.write_u64(step.address, entry)
        before = rig.machine.memory.image()
        expected = rig.machine.paging.resolve(NOWHERE, access, user)
        assert rig.machine.memory.image() == before
        stop = rig.run()
        assert stop.kind == "debug exit"
        if expected.physical is None:
            seen = frame(rig, rig["rsp"], error_code=True)
            assert (seen["error_code"], rig["cr2"]) == (expected.error_code, NOWHERE), expected.reason
        else:
            seen = frame(rig, rig["rsp"])
            assert seen["rip"] != 0 and rig["rsp"] in (STACK - 40, RSP0 - 40)
        outcomes.add((expected.physical is None, expected.error_code))
    assert len(outcomes) >= 3


def test_walking_leaves_the_guest_alone(guest: Guest) -> None:
    rig = guest("hlt")
    image, registers = rig.machine.memory.image(), rig.machine.cpu.save_values()
    for virtual in (CODE, NOWHERE, 1 << 47, DATA):
        rig.machine.paging.explain(virtual)
        rig.machine.paging.walk(virtual)
    rig.machine.paging.mappings()
    rig.machine.cpu.pull()
    assert rig.machine.memory.image() == image and rig.machine.cpu.save_values() == registers


def test_page_tables_changed_by_python_are_obeyed_at_once(guest: Guest) -> None:
    rig = guest(f"mov rax, [{DATA}]; nop; mov rax, [{DATA}]", {Vector.PF: REPORT})
    rig.run(2)
    rig.machine.paging.unmap(DATA)
    assert rig.run().kind == "debug exit" and rig["cr2"] == DATA
