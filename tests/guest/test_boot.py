"""What the loader leaves in memory, read back through the page tables that it built."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox import abi
from sandbox.abi import DIRECT_MAP, KERNEL_BASE, PAGE_SIZE, STACK_SLOT, STACKS_BASE, boot_info
from sandbox.address import LARGE_PAGE_SIZE
from sandbox.errors import SymbolNotFound, TranslationError, UsageError
from sandbox.guest.boot import STACK_SIZES, Loaded, load
from sandbox.guest.loader_page import loader_page
from sandbox.guest.options import BootOptions, format_size, parse_size
from sandbox.machine.machine import Machine
from sandbox.machine.memory import PhysicalMemory
from sandbox.machine.paging import Paging, PagingControls
from sandbox.machine.stop import StopKind
from sandbox.toolchain.image import Image, Section
from sandbox.x86 import GENERAL_REGISTERS


def image(base: int, symbols: dict[str, int], text: int = 0x2000, rodata: int = 0x1000, data: int = 0x3000) -> Image:
    """An image whose every page is filled with a byte of its own."""
    sections, address = [], base
    for name, size, rights in (("text", text, "r-x"), ("rodata", rodata, "r--"), ("data", data, "rw-")):
        content = b"".join(bytes([1 + (at + len(sections)) % 255]) * PAGE_SIZE for at in range(size // PAGE_SIZE))
        sections.append(Section(name, address, content, rights))
        address += size
    return Image(base, tuple(sections), symbols)


KERNEL = image(KERNEL_BASE, {"_start": KERNEL_BASE + 0x10})
PROGRAM = image(abi.PROGRAM_BASE, {"main": abi.PROGRAM_BASE + 0x20})


class Booted:
    """A memory that was loaded, and its page tables."""

    def __init__(self, ram: str = "16M", program: Image | None = PROGRAM, kernel: Image = KERNEL,
                 **options: object) -> None:
        self.options = BootOptions(ram, **options)  # type: ignore[arg-type]
        self.memory = PhysicalMemory(self.options.ram_size)
        self.loaded: Loaded = load(self.memory, kernel, program, self.options)
        self.paging = Paging(self.memory, PagingControls(self.loaded.cr3))
        self.info = boot_info(self.memory, abi.BOOT_INFO_PHYS)

    def is_mapped(self, virtual: int) -> bool:
        return bool(self.paging.walk(virtual)[-1].maps_page)

    def rights(self, virtual: int) -> str:
        return next(item.rights[:3] for item in self.paging.mappings() if item.start <= virtual < item.end)


# -- options ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "size"), [
    ("16M", 16 << 20), ("512K", 512 << 10), ("1G", 1 << 30), ("64 MiB", 64 << 20), ("8mb", 8 << 20),
    (" 4096k ", 4 << 20), ("4194304", 4 << 20), (4 << 20, 4 << 20), ("0", 0),
])
def test_sizes_are_read_as_people_write_them(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("size", ["", "M", "16X", "1.5M", "-1M", "0x1000", "16 M B", "9" * 30, None, 1.5, True, b"16M"])
def test_what_is_no_size_is_refused_with_its_text(size: object) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 4096, 5 << 20, 4100 << 10, 16 << 20, 3 << 30, 12345])
def test_a_formatted_size_reads_back_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(("options", "sentence"), [
    ({"ram": "512K"}, "512K of RAM is too small: the minimum is 4M"),
    ({"ram": 0}, "0 of RAM is too small: the minimum is 4M"),
    ({"ram": -5}, "-5 of RAM is too small: the minimum is 4M"),
    ({"ram": "4G"}, "4G of RAM is too much: the maximum is 2G"),
    ({"ram": (16 << 20) + 1}, "16777217 bytes of RAM: it must be a multiple of 4096"),
    ({"hz": -1}, "hz is a number from 19 to 10000 or 0 for no ticks, not -1"),
    ({"hz": 18}, "hz is a number from 19 to 10000 or 0 for no ticks, not 18"),
    ({"hz": "100"}, "hz is a number from 19 to 10000 or 0 for no ticks, not '100'"),
    ({"magazines": 1}, "magazines is True or False, not 1"),
    ({"freelist_random": "yes"},
     "freelist_random is a number from 0 to 18446744073709551615, a seed, or True or False, not 'yes'"),
    ({"seed": 1 << 64}, "seed is a number from 0 to 18446744073709551615, not 18446744073709551616"),
    ({"empty_slab_limit": -1}, "empty_slab_limit is a number from 0 to 4294967295, not -1"),
    ({"slab_debug": "FZ,kmalloc-*;Q"},
     "slab_debug: 'Q' is no letter of it: they are F Z P U T A O and -"),
    ({"slab_debug": "FZ,,x"}, "slab_debug: a cache's name is missing in 'FZ,,x'"),
    ({"slab_debug": "FZ,a*b"}, "slab_debug: 'a*b' is no name of a cache, nor the beginning of one and a *"),
    ({"slab_debug": "P," + "x" * 126}, "slab_debug has 128 characters: at most 127 fit"),
    ({"slab_debug": 5}, "slab_debug is a text, not 5"),
])
def test_an_option_that_cannot_be_is_refused_in_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        BootOptions(**options)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


@pytest.mark.parametrize("text", ["", "-", "P", "fzpu", "FZ,kmalloc-*;-,dentry,inode*", ",kmalloc-64", "P;"])
def test_slab_debug_takes_linuxs_syntax(text: str) -> None:
    assert Booted(slab_debug=text).info.slab_debug == text


# -- images -------------------------------------------------------------------------------------------------------
def test_images_lie_one_behind_the_other_and_are_mapped_where_they_are_linked() -> None:
    booted = Booted()
    at = abi.KERNEL_PHYS
    for item in (KERNEL, PROGRAM):
        assert booted.memory.read(at, item.end - item.base) == item.bytes()
        for virtual in range(item.base, item.end, PAGE_SIZE):
            assert booted.paging.translate(virtual) == at + virtual - item.base
        at += item.end - item.base
    assert booted.loaded.end == at + sum(STACK_SIZES)


def test_sections_have_their_rights_and_so_do_their_aliases() -> None:
    booted = Booted()
    for item in (KERNEL, PROGRAM):
        for section in item.sections:
            assert booted.rights(section.address) == section.rights
            assert booted.rights(section.end - 1) == section.rights
            alias = DIRECT_MAP + booted.paging.translate(section.address)
            assert booted.rights(alias) == ("rw-" if section.rights == "rw-" else "r--")
        assert not booted.is_mapped(item.base - 1)
        assert not booted.is_mapped(item.end)


@pytest.mark.parametrize("ram", ["4M", "5000K", "16M", "64M"])
def test_the_direct_map_shows_every_byte_of_ram_once_and_nothing_else(ram: str) -> None:
    booted = Booted(ram)
    found = [item for item in booted.paging.mappings() if DIRECT_MAP <= item.start < STACKS_BASE]
    covered = []
    for item in found:
        assert item.start - DIRECT_MAP == item.physical
        assert not item.executable
        assert not item.user
        if covered and covered[-1][1] == item.physical:
            covered[-1][1] += item.end - item.start
        else:
            covered.append([int(item.physical), item.physical + (item.end - item.start)])
    assert covered == [[0, abi.HOLE_START], [abi.HOLE_END, booted.options.ram_size]]


def test_the_direct_map_uses_large_pages_where_all_of_one_has_the_same_rights() -> None:
    booted = Booted("16M")
    for start in range(0, 16 << 20, LARGE_PAGE_SIZE):
        first = booted.paging.walk(DIRECT_MAP + start)[-1].level.page_size
        assert first == (PAGE_SIZE if start < 2 * LARGE_PAGE_SIZE else LARGE_PAGE_SIZE)


def test_stacks_end_where_their_slots_end_above_unmapped_pages() -> None:
    booted = Booted()
    for slot, size in enumerate(STACK_SIZES):
        top = STACKS_BASE + (slot + 1) * STACK_SLOT
        assert booted.rights(top - 1) == booted.rights(top - size) == "rw-"
        assert not booted.is_mapped(top)
        for virtual in range(top - STACK_SLOT, top - size, PAGE_SIZE):
            assert not booted.is_mapped(virtual)
        assert booted.memory.read(booted.paging.translate(top - size), size) == bytes(size)


def test_the_lower_half_holds_the_loaders_page_alone() -> None:
    lower = [item for item in Booted().paging.mappings() if item.start < 1 << 47]
    assert [(int(item.start), int(item.end), item.rights[:3]) for item in lower] == [
        (abi.LOADER_PHYS, abi.LOADER_PHYS + PAGE_SIZE, "r-x")]


def test_no_page_is_writable_and_executable_or_open_to_user_mode() -> None:
    for item in Booted().paging.mappings():
        assert not (item.writable and item.executable), item
        assert not item.user, item


def test_nothing_outside_the_loaders_memory_is_touched() -> None:
    booted = Booted()
    ram = booted.memory.array()
    assert not ram[: abi.LOADER_PHYS].any()
    assert not ram[booted.loaded.end :].any()


def test_the_largest_machine_has_tables_enough() -> None:
    booted = Booted("2G")
    assert booted.paging.translate(DIRECT_MAP + (2 << 30) - 1) == (2 << 30) - 1
    with pytest.raises(TranslationError):
        booted.paging.translate(DIRECT_MAP + (2 << 30))


def test_the_same_boot_gives_the_same_bytes() -> None:
    assert Booted().memory.image() == Booted().memory.image()


# -- what the kernel is told --------------------------------------------------------------------------------------
def test_boot_info_says_what_was_chosen_and_where_things_are() -> None:
    booted = Booted("16M", hz=250, magazines=False, empty_slab_limit=7, seed=0xDEAD_BEEF_0000_0001,
                    freelist_hardened=True, freelist_random=True, slab_debug="FZ,kmalloc-64")
    info = booted.info
    assert dict(info) | {"map": None} == {
        "magic": abi.BOOT_MAGIC, "ram_size": 16 << 20, "cr3": booted.loaded.cr3, "loader_end": booted.loaded.end,
        "kernel_end": KERNEL.end, "program_start": PROGRAM.base, "program_end": PROGRAM.end,
        "main": PROGRAM.symbols["main"], "stack_top": STACKS_BASE + STACK_SLOT,
        "ist_top": tuple(STACKS_BASE + slot * STACK_SLOT for slot in (2, 3, 4)),
        "flags": int(abi.BootFlag.BOOT_NO_MAGAZINES), "hz": 250, "empty_slab_limit": 7,
        "seed": 0xDEAD_BEEF_0000_0001, "freelist_hardened": 1, "freelist_random": 1, "regions": 3, "map": None,
        "slab_debug": "FZ,kmalloc-64", "freelist_seed": 0xDEAD_BEEF_0000_0001}
    rows = [(row.base, row.base + row.length, row.type) for row in info.map[: info.regions]]
    assert rows == [(0, abi.HOLE_START, 1), (abi.HOLE_START, abi.HOLE_END, 2), (abi.HOLE_END, 16 << 20, 1)]
    assert booted.loaded.rip == KERNEL.symbols["_start"]
    assert booted.loaded.rsp == info.stack_top
    assert booted.paging.translate(booted.loaded.rdi) == abi.BOOT_INFO_PHYS


def test_without_a_program_there_is_no_main() -> None:
    info = Booted(program=None).info
    assert (info.main, info.program_start, info.program_end) == (0, 0, 0)


# -- what cannot be loaded ----------------------------------------------------------------------------------------
def test_ram_that_is_too_small_for_a_program_is_refused_with_a_minimum_that_is_enough() -> None:
    large = image(abi.PROGRAM_BASE, {"main": abi.PROGRAM_BASE}, data=9 << 20)
    with pytest.raises(UsageError, match="4M of RAM is too small for this program: the minimum is ") as caught:
        Booted("4M", large)
    minimum = str(caught.value).rsplit(" ", 1)[1]
    assert Booted(minimum, large).loaded.end < parse_size(minimum)
    with pytest.raises(UsageError):
        Booted(format_size(parse_size(minimum) - (1 << 20)), large)


def test_a_program_without_main_has_none_to_be_entered_and_a_kernel_without_start_is_refused() -> None:
    booted = Booted(program=image(abi.PROGRAM_BASE, {"start": abi.PROGRAM_BASE}))
    assert booted.info.main == 0
    with pytest.raises(SymbolNotFound, match="_start"):
        Booted(kernel=image(KERNEL_BASE, {}))


# -- the loader's page --------------------------------------------------------------------------------------------
STUB = """
.intel_syntax noprefix
.code32
entry:
    cli
    cld
    xor eax, eax
    mov edi, 0
    mov ecx, 0x28000
    rep stosd
    mov edi, 0x230000
    mov ecx, 0x374000
    rep stosd
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x102000
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x900
    xor edx, edx
    wrmsr
    mov eax, 0x80010031
    mov cr0, eax
    lgdt [0x100030]
    .byte 0xea
    .long 0x100036 + next - entry
    .word 8
.code64
next:
    movabs rdi, 0xffff888000101000
    movabs rsp, 0xffffc90000010000
    movabs rax, 0xffffffff80000010
    jmp rax
"""


@pytest.mark.skipif(not shutil.which("as") or not shutil.which("objcopy"), reason="needs GNU binutils")
def test_the_loaders_code_is_what_gnu_as_makes_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "stub.s").write_text(STUB)
    subprocess.run(["as", "--64", "stub.s", "-o", "stub.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "stub.o", "stub.bin"], cwd=tmp_path, check=True)
    expected = (tmp_path / "stub.bin").read_bytes()
    page = loader_page(rip=0xFFFF_FFFF_8000_0010, rsp=STACKS_BASE + STACK_SLOT, rdi=DIRECT_MAP + abi.BOOT_INFO_PHYS,
                       cr3=abi.PAGE_TABLES_PHYS, end=0x230000, clear=[(0, 0xA0000), (0x230000, 0x1000000)])
    entry = int.from_bytes(page[28:32], "little") - abi.LOADER_PHYS
    assert entry == 0x36
    assert page[entry : entry + len(expected)] == expected
    assert not any(page[entry + len(expected) :])
    assert len(page) == PAGE_SIZE


# -- the real kernel ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [
    {"ram": "4M"}, {"ram": "5000K"}, {"ram": "512M"}, {"hz": 0}, {"hz": 19}, {"magazines": False},
])
def test_the_kernel_comes_up_in_silence(kernel_image: Image, options: dict[str, object]) -> None:
    chosen = BootOptions(**options)  # type: ignore[arg-type]
    with Machine(chosen.ram_size) as machine:
        start = load(machine.memory, kernel_image, None, chosen)
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        stop = machine.run(100_000_000, until=[kernel_image.symbols["kernel_ready"]])
        assert stop.kind is StopKind.BREAKPOINT, machine.serial.text
        assert machine.serial.text == ""
        assert machine.cpu.registers()["rflags"] & 0x200
        lower = [item for item in machine.paging.mappings() if item.start < 1 << 47]
        assert lower == [], "the kernel drops the loader's page"


def test_the_kernel_needs_none_of_the_registers_that_it_is_not_promised(kernel_image: Image) -> None:
    """Garbage in every register but RDI and RIP, and control registers without a bit too much or too few."""
    chosen = BootOptions("4M")
    states = []
    for garbage in (0, 0x5A5A_5A5A_5A5A_5A5A):
        with Machine(chosen.ram_size) as machine:
            start = load(machine.memory, kernel_image, None, chosen)
            machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
            for name in set(GENERAL_REGISTERS) - {"rdi", "rsp"}:
                machine.cpu[name] = garbage
            machine.run(100_000_000, until=[kernel_image.symbols["kernel_ready"]])
            states.append((machine.instructions, machine.cpu["cr0"], machine.cpu["cr4"], machine.cpu["efer"]))
    assert states[0] == states[1]
    assert states[0][1:] == (0x8001_0033, 0x660, 0xD00)
