"""Physical RAM as Python sees it."""

from __future__ import annotations

import pytest

from sandbox.errors import GuestMemoryError, PhysicalAddressError, UsageError
from sandbox.machine import PhysicalMemory


def test_the_memory_map_has_the_hole_of_a_pc() -> None:
    memory = PhysicalMemory(16 << 20)
    assert [(region.start, region.end, region.kind) for region in memory.regions] == [
        (0, 0xA0000, "usable"), (0xA0000, 0x100000, "reserved"), (0x100000, 16 << 20, "usable")]
    assert len(memory) == 16 << 20


@pytest.mark.parametrize(("address", "size", "first"), [
    (0xA0000, 1, 0xA0000), (0x9FFFF, 2, 0xA0000), (0xFFFFF, 1, 0xFFFFF), (16 << 20, 1, 16 << 20),
    ((16 << 20) - 1, 2, 16 << 20), (1 << 60, 8, 1 << 60)])
def test_an_access_outside_ram_names_its_first_wrong_byte(address: int, size: int, first: int) -> None:
    memory = PhysicalMemory(16 << 20)
    with pytest.raises(PhysicalAddressError) as error:
        memory.read(address, size)
    assert error.value.address == first
    with pytest.raises(PhysicalAddressError):
        memory.write(address, bytes(size))


def test_integers_are_little_endian_and_slices_are_exact() -> None:
    memory = PhysicalMemory(2 << 20)
    memory[0x1000:0x1008] = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert (memory.u8(0x1000), memory.u16(0x1000), memory.u32(0x1000)) == (1, 0x0201, 0x04030201)
    assert memory.u64(0x1000) == 0x0807060504030201 and memory[0x1003] == 4
    memory.write_u32(0x1000, -1)
    assert memory[0x1000:0x1008] == b"\xff\xff\xff\xff\x05\x06\x07\x08"
    with pytest.raises(UsageError):
        memory[0x1000:0x1004] = b"12345"


def test_a_string_ends_at_its_nul_and_not_at_a_limit() -> None:
    memory = PhysicalMemory(2 << 20)
    memory.write(0x1FFA, b"over the edge\0")
    assert memory.cstring(0x1FFA) == b"over the edge"
    with pytest.raises(GuestMemoryError):
        memory.cstring(0x1FFA, limit=5)


@pytest.mark.parametrize("size", [0, 4096, (2 << 20) + 1, 4 << 30, -4096])
def test_a_ram_that_no_pc_has_is_refused(size: int) -> None:
    with pytest.raises(UsageError):
        PhysicalMemory(size)


def test_pages_that_differ_from_an_image_are_found() -> None:
    memory = PhysicalMemory(2 << 20)
    image = memory.image()
    memory.write(0x5FFF, b"ab")
    assert memory.pages_that_differ(image).tolist() == [5, 6]
    memory.load_image(image)
    assert memory.pages_that_differ(image).tolist() == []
