"""map_page, unmap_page and walk_page against the walker in Python, which shares no code with them."""

from __future__ import annotations

import random

import pytest

from sandbox.abi import (
    DIRECT_MAP,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOMEM,
    KERNEL_BASE,
    LOADER_PHYS,
    PAGE_SIZE,
    STACK_SLOT,
    STACKS_BASE,
    PageFlag,
    page,
)
from sandbox.errors import TranslationError
from sandbox.guest.guest import Guest
from sandbox.x86 import PageTableEntry

FREE = 0xFFFF_D000_0000_0000
WRITE, USER, NX = PageTableEntry.RW.mask, PageTableEntry.US.mask, PageTableEntry.NX.mask
ADDRESS = PageTableEntry.ADDRESS_MASK


def error(number: int) -> int:
    """What a function returns for ``-number``."""
    return (1 << 64) - number


def test_pages_mapped_by_the_guest_translate_as_it_was_told(guest: Guest) -> None:
    choose = random.Random(5)
    mapped = {}
    for _ in range(60):
        virtual = FREE + choose.choice([1, 1 << 9, 1 << 18, 1 << 27 >> 1]) * choose.randrange(64) * PAGE_SIZE
        physical = choose.randrange(0x300, 0x1000) * PAGE_SIZE
        flags = choose.choice([0, WRITE, NX, WRITE | NX, WRITE | USER])
        expected = error(EEXIST) if virtual in mapped else 0
        assert guest.call("map_page", virtual, physical, flags) == expected
        mapped.setdefault(virtual, (physical, flags))
    for virtual, (physical, flags) in mapped.items():
        last = guest.machine.paging.walk(virtual)[-1]
        assert last.level.page_size == PAGE_SIZE
        assert last.entry & ~(1 << 5 | 1 << 6) == physical | flags | 1
    for virtual, (physical, _) in mapped.items():
        assert guest.call("unmap_page", virtual) == physical
        with pytest.raises(TranslationError):
            guest.machine.paging.translate(virtual)


def test_tables_are_pages_marked_as_tables_and_stay(guest: Guest) -> None:
    def tables() -> int:
        start = guest.memory.u64(guest.symbols["mem_map"])
        count = guest.memory.u64(guest.symbols["max_pfn"])
        return sum(page(guest.memory, start + number * page.size).flags == PageFlag.PG_TABLE | PageFlag.PG_HEAD
                   for number in range(count))

    assert tables() == 0
    assert guest.call("map_page", FREE, 0x300000, WRITE) == 0
    assert tables() == 3                                            # PDPT, PD, PT
    assert guest.call("map_page", FREE + PAGE_SIZE, 0x300000, WRITE) == 0
    assert tables() == 3
    guest.call("unmap_page", FREE)
    assert tables() == 3


@pytest.mark.parametrize("address", [
    0, 0x1000, LOADER_PHYS, 0x7FFF_FFFF_F000, 0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_F000, DIRECT_MAP,
    DIRECT_MAP + 0xA0000, DIRECT_MAP + 0x20_0000, DIRECT_MAP + 0x80_0123, DIRECT_MAP + (16 << 20), KERNEL_BASE,
    KERNEL_BASE - 1, STACKS_BASE, STACKS_BASE + STACK_SLOT - 8, (1 << 64) - 1,
])
def test_walk_page_finds_the_entry_that_the_python_walker_finds(guest: Guest, address: int) -> None:
    found = guest.call("walk_page", address)
    canonical = address >> 47 in (0, (1 << 17) - 1)
    last = guest.machine.paging.walk(address)[-1]
    assert found == (DIRECT_MAP + last.address if canonical and last.maps_page else 0)


@pytest.mark.parametrize(("virtual", "physical", "flags"), [
    (FREE + 8, 0x300000, WRITE),
    (FREE, 0x300008, WRITE),
    (FREE, 1 << 52, WRITE),
    (FREE, 0x300000, 1 << 7),
    (FREE, 0x300000, 0x1000),
    (0x0000_8000_0000_0000, 0x300000, WRITE),
])
def test_wrong_arguments_are_einval_and_change_nothing(guest: Guest, virtual: int, physical: int, flags: int) -> None:
    assert guest.call("map_page", virtual, physical, flags) == error(EINVAL)
    assert guest.call("walk_page", FREE) == 0


def test_what_is_not_mapped_or_is_large_cannot_be_unmapped(guest: Guest) -> None:
    assert guest.call("unmap_page", FREE) == error(EFAULT)
    assert guest.call("unmap_page", FREE + 1) == error(EINVAL)
    assert guest.call("unmap_page", DIRECT_MAP + (8 << 20)) == error(EINVAL)
    assert guest.call("map_page", DIRECT_MAP + (8 << 20), 0x300000, WRITE) == error(EEXIST)
    assert guest.machine.paging.translate(DIRECT_MAP + (8 << 20)) == 8 << 20


def test_without_a_page_for_a_table_the_answer_is_enomem(guest: Guest) -> None:
    for order in range(10, -1, -1):
        while guest.call("get_free_pages", order):
            pass
    assert guest.call("map_page", FREE, 0x300000, WRITE) == error(ENOMEM)
    assert guest.call("walk_page", FREE) == 0


def test_a_page_that_was_unmapped_faults_at_once(guest: Guest) -> None:
    """The translation is gone from the TLB too: strlen reads through the mapping before and after."""
    target = guest.call("get_free_pages", 0)
    guest.memory.write(target, b"slab\0")
    assert guest.call("map_page", FREE, target - DIRECT_MAP, 0) == 0
    assert guest.call("strlen", FREE) == 4
    guest.call("unmap_page", FREE)
    other = guest.call("get_free_pages", 0)
    guest.memory.write(other, b"kernel\0")
    assert guest.call("map_page", FREE, other - DIRECT_MAP, 0) == 0
    assert guest.call("strlen", FREE) == 6
