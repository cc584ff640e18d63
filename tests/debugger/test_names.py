"""Every byte has the name of what is there: against the views, the declarations, and the page walker."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator

import pytest

import sandbox
from sandbox.abi import (
    BOOT_INFO_PHYS,
    DIRECT_MAP,
    PAGE_SIZE,
    ZERO_SIZE_PTR,
    boot_info,
    kmem_cache,
    kmem_cache_cpu,
    magazine,
    page,
    percpu,
    track,
)
from sandbox.address import PhysAddr
from sandbox.debugger.diff import capture, compare
from sandbox.debugger.explain import explain
from sandbox.debugger.names import Name, Names
from sandbox.debugger.values import flag_names, number
from sandbox.debugger.variables import VARIABLES
from sandbox.heap.slabs import HeapObject, ObjectState
from sandbox.kernel import Kernel
from sandbox.layout import NestedField, Struct
from sandbox.machine.paging import LEVELS


@pytest.fixture(scope="module")
def busy() -> Iterator[Kernel]:
    """A kernel whose heap has objects in every state, large allocations and pages."""
    with sandbox.boot("18", hz=0) as kernel:
        kernel.run(30_000)
        held = [kernel.call("kmalloc", size) for size in (10, 60, 64, 100, 500, 4000, 60, 8, 20_000)]
        kernel.call("kfree", held[1])
        kernel.call("get_free_pages", 1)
        yield kernel


@pytest.fixture(scope="module")
def names(busy: Kernel) -> Names:
    return Names(busy)


@pytest.fixture(scope="module")
def debugged() -> Iterator[Kernel]:
    """A kernel with red zones, owners and free pointers outside of objects."""
    with sandbox.boot(slab_debug="FZPU", freelist_hardened=True, hz=0) as kernel:
        held = [kernel.call("kmalloc", 60) for _ in range(5)]
        kernel.call("kfree", held[2])
        yield kernel


def leaves(struct: type[Struct], base: int = 0, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Every field of a structure with its offset and size, by going through the declarations."""
    for field in struct.fields:
        several = field.count > 1 and field.width > 1
        for index in range(field.count if several else 1):
            name = f"{prefix}{field.name}[{index}]" if several else prefix + field.name
            at = base + field.offset + index * field.width
            if isinstance(field, NestedField):
                yield from leaves(field.struct, at, f"{name}.")
            else:
                yield name, at, field.width if several else field.size


def check_fields(names: Names, struct: type[Struct], start: int, kind: str) -> None:
    """Each byte of a structure belongs to the field that its declaration has there."""
    for field, offset, size in leaves(struct):
        for byte in {0, size - 1}:
            found = names.name(start + offset + byte)
            assert (found.structure, found.field, found.start) == (kind, field, start), found
            assert (found.at, found.width, found.struct) == (start + offset, size, struct)


# -- the heap ---------------------------------------------------------------------------------------------------
def test_each_byte_of_each_object_has_the_name_of_its_object(busy: Kernel, names: Names) -> None:
    seen = set()
    for cache in busy.heap.caches:
        own = cache.name in ("kmem_cache", "magazine")
        for slab in cache.slabs:
            for found, state in zip(slab.objects, slab.states(), strict=True):
                if own and state is not ObjectState.FREE:
                    continue
                seen.add(state)
                for offset in {0, 1, cache.offset, cache.offset + 7, cache.object_size - 1}:
                    name = names.name(found.address + offset)
                    link = state is ObjectState.FREE and cache.offset <= offset < cache.offset + 8
                    assert name.structure == ("free-pointer" if link else "object"), name
                    assert isinstance(name.owner, HeapObject) and name.owner == found
                    assert (name.start, name.size, name.offset) == (found.address, cache.object_size, offset)
                    assert f"object {found.index} of {cache.name}" in name.text and str(state) in name.detail
    assert seen == set(ObjectState)


def test_each_field_of_each_cache_has_its_name(busy: Kernel, names: Names) -> None:
    for cache in busy.heap.caches:
        check_fields(names, kmem_cache, cache.address, "kmem_cache")
        assert names.name(cache.address).whole == f"kmem_cache({cache.name})"
    partial = names.name(busy.heap.cache("kmalloc-64").address + kmem_cache.partial.offset)
    assert partial.text == "kmem_cache(kmalloc-64).partial" and partial.owner == busy.heap.cache("kmalloc-64")


def test_each_slot_of_each_magazine_has_its_name(busy: Kernel, names: Names) -> None:
    roles = set()
    for cache in busy.heap.caches:
        for held in cache.magazines:
            roles.add(held.role)
            check_fields(names, magazine, held.address, "magazine")
            assert names.name(held.slot(5)).text == f"{held.role} magazine of {cache.name} [5]"
            assert names.name(held.address + magazine.rounds.offset).text == f"rounds of {held.role} magazine of " \
                                                                             f"{cache.name}"
    assert {"loaded", "previous"} <= roles


def test_each_struct_page_has_its_frame_and_use(busy: Kernel, names: Names) -> None:
    pages = busy.heap.pages
    for pfn in (0, 3, 600, pages.max_pfn - 1, *(slab.pfn for cache in busy.heap.caches for slab in cache.slabs)):
        check_fields(names, page, pages.struct_page(pfn).address, "page")
    slab = busy.heap.cache("kmalloc-64").slabs[0]
    name = names.name(slab.page.address + page.inuse.offset)
    assert (name.text, name.detail) == (f"page[{slab.pfn}].inuse", "slab of kmalloc-64")


def test_each_cpu_slot_has_the_name_of_its_cache(busy: Kernel, names: Names) -> None:
    area = busy.symbols["boot_cpu"]
    for cache in busy.heap.caches:
        start = area + cache.struct.cpu
        check_fields(names, kmem_cache_cpu, start, "kmem_cache_cpu")
        owner = cache.name if cache.struct.cpu != percpu.slots.offset else "no magazines"
        assert names.name(start).text == f"kmem_cache_cpu({owner}).top"
    assert names.name(area + percpu.ticks.offset).text == "percpu.ticks"


def test_what_debugging_keeps_beside_an_object_has_names(debugged: Kernel) -> None:
    names, cache = Names(debugged), debugged.heap.cache("kmalloc-64")
    for found, state in zip(cache.slabs[0].objects, cache.slabs[0].states(), strict=True):
        whole = f"object {found.index} of kmalloc-64"
        expected = {-1: f"left red zone of {whole} +{cache.red_left_pad - 1:#x}", 64: f"red zone behind {whole}",
                    cache.offset: f"free pointer of {whole}",
                    cache.offset + 8: f"allocation track of {whole}.address",
                    cache.offset + 8 + track.size + track.sequence.offset: f"last free track of {whole}.sequence",
                    cache.offset + 8 + 2 * track.size: f"size asked for {whole}"}
        for offset, text in expected.items():
            assert names.name(found.address + offset).text == text
        if state is ObjectState.FREE:
            link = names.name(found.address + cache.offset)
            stored = debugged.memory.u64(link.at)
            following = cache.slabs[0].freelist[cache.slabs[0].freelist.index(found.address) + 1:][:1]
            target = f"object {cache.slabs[0].index_of(following[0])} of kmalloc-64, free in slab" if following \
                else "the end of the free list"
            assert names.value(stored, 8, link) == f"encoded: {target}"


def test_each_byte_of_a_slab_belongs_to_something(debugged: Kernel) -> None:
    names = Names(debugged)
    for cache in debugged.heap.caches[:6]:
        for slab in cache.slabs[:1]:
            at = slab.address
            while at < slab.end:                             # pieces follow each other without a gap
                name = names.name(at)
                assert name.at == at and name.width > 0, name
                at += name.width
            assert at == slab.end


# -- everything else --------------------------------------------------------------------------------------------
def test_each_label_names_its_address(busy: Kernel, names: Names) -> None:
    for label, address in busy.symbols.items():
        name = names.name(address)
        shared = [other for other, at in busy.symbols.items() if at == address]
        if name.structure in ("text", "rodata", "variable"):
            assert any(name.whole.startswith(other) for other in shared), (label, name)
            assert name.offset in range(name.size)


def test_each_variable_that_is_declared_has_the_size_that_the_kernel_gives_it(busy: Kernel) -> None:
    for label, shape in VARIABLES.items():
        start = busy.symbols[label]
        assert shape.width * shape.count <= busy.symbols.end_of(start) - start, label


def test_a_page_table_entry_is_named_by_what_it_translates(busy: Kernel, names: Names) -> None:
    paging = busy.machine.paging
    for address in (busy.symbols["kmalloc"], busy.registers["rsp"], DIRECT_MAP + 0x3000, DIRECT_MAP + 0x80_0000):
        for step in paging.walk(address):
            name = names.name(PhysAddr(step.address))
            covered = address & -(1 << step.level.shift)
            assert name.structure == "page-table" and name.text.endswith(f" of 0x{covered:016x}"), name
            assert name.width == 8 and LEVELS[[level.name for level in LEVELS].index(step.level.name)] == step.level
            assert names.value(step.entry, 8, name).startswith(f"physical 0x{step.entry.address:x}, P ")


def test_the_bytes_of_boot_info_and_of_stacks_have_names(busy: Kernel, names: Names) -> None:
    check_fields(names, boot_info, DIRECT_MAP + BOOT_INFO_PHYS, "boot_info")
    top = boot_info(busy.memory, DIRECT_MAP + BOOT_INFO_PHYS).stack_top
    assert names.name(top - 0x48).text == "boot CPU's stack, 0x48 below the top"
    assert names.name(top).text == "top of boot CPU's stack"
    assert names.name(top - 0x4000 - 16).text == "guard pages of boot CPU's stack, 0x10 past its end"


def test_a_physical_address_has_the_name_of_the_virtual_one(busy: Kernel, names: Names) -> None:
    for address in (busy.symbols["kmalloc"] + 3, busy.symbols["slab_caches"] + 8, busy.registers["rsp"] - 8,
                    busy.heap.cache("kmalloc-64").address + 4, busy.heap.cache("kmalloc-64").slabs[0].address + 70):
        assert names.name(busy.memory.translate(address)) == names.name(address)


def test_names_and_whatis_agree_about_every_kind_of_place(busy: Kernel, names: Names) -> None:
    same = {"object": ("object",), "free-pointer": ("object",), "padding": ("slab", "object"), "page": ("struct-page",),
            "variable": ("data", "rodata"), "kmem_cache_cpu": ("percpu",), "large": ("large",), "text": ("text",),
            "free-block": ("free-frame",), "block": ("frame",), "null": ("null", "unmapped"), "unmapped": ("unmapped",),
            "page-table": ("page-table",), "magazine": ("magazine", "object"), "kmem_cache": ("kmem_cache", "object"),
            "guard-page": ("guard-page",), "stack": ("stack",), "rodata": ("rodata",), "percpu": ("percpu",),
            "reserved": ("reserved",), "boot_info": ("boot_info",), "hole": ("hole",)}
    source, kinds = random.Random(4), set()
    ranges = [(mapping.start, mapping.end) for mapping in busy.machine.paging.mappings()] + [(0, 1 << 20)]
    ranges += [(slab.address, slab.end) for cache in busy.heap.caches for slab in cache.slabs]
    aliases = {"reserved": same.keys()}                      # whatis keeps to the direct map there
    for _ in range(200):
        address = source.randrange(*source.choice(ranges))
        name, what = names.name(address), busy.whatis(address)
        kinds.add(name.structure)
        assert what.kind in same[name.structure] or what.kind in aliases, (name, what)
        assert name.at <= name.address < name.at + name.width and name.start <= name.at
    assert len(kinds) > 8


# -- nothing raises ---------------------------------------------------------------------------------------------
def test_numbers_that_are_no_addresses_have_names_too(names: Names) -> None:
    kinds = {address: names.name(address).structure for address in
             (0, ZERO_SIZE_PTR, 0x123456, 1 << 60, (1 << 64) - 1, DIRECT_MAP + 0xA_0000, DIRECT_MAP + (1 << 31) - 1)}
    assert list(kinds.values()) == ["null", "zero-size", "unmapped", "non-canonical", "unmapped", "hole", "unmapped"]


def test_a_corrupt_heap_has_names_all_the_same(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    source = random.Random(11)
    slab = kernel.heap.cache("kmalloc-64").slabs[0]
    places = [slab.page.address, kernel.heap.cache("kmalloc-64").address, pointer, kernel.symbols["slab_caches"],
              kernel.symbols["boot_cpu"] + 0x140, kernel.heap.cache("kmalloc-64").magazines[0].address,
              kernel.symbols["mem_map"], kernel.heap.pages.struct_page(3).address]
    for _ in range(60):
        at = source.choice(places) + 8 * source.randrange(12)
        value = source.choice((0, source.getrandbits(64), at, pointer, slab.page.address, DIRECT_MAP + 8, 1 << 63))
        kernel.memory.write(at, value.to_bytes(8, "little"))
        broken = Names(kernel)
        for place in (*places, pointer + 8, slab.address + 4095, slab.page.address + 24):
            found: Name = broken.name(place)
            assert found.text and found.width > 0
            assert broken.value(broken.word(found.address) or 0, 8, found)


def test_before_there_is_a_heap_there_are_names(kernel: Kernel) -> None:
    for label in ("mem_map", "max_pfn", "slab_caches"):
        kernel.memory.write(kernel.symbols[label], bytes(16 if label == "slab_caches" else 8))
    early = Names(kernel)
    assert early.name(DIRECT_MAP + 0x40_0000).text == "frame 1024"
    assert early.name(kernel.symbols["boot_params"]).text == "boot_params"
    assert early.reading.caches == {} and early.name(DIRECT_MAP + BOOT_INFO_PHYS).text == "boot_info.magic"


def test_page_tables_that_lead_to_one_another_do_not_stop_the_names(kernel: Kernel) -> None:
    root = kernel.machine.paging.controls.cr3
    for index in range(1, 200):
        kernel.physical.write(root + 8 * index, (root | 0x3).to_bytes(8, "little"))
    assert Names(kernel).name(PhysAddr(root + 8)).structure == "page-table"


def test_names_explanations_and_states_keep_no_kernel_alive() -> None:
    kernel = sandbox.boot(hz=0)
    machine, before = weakref.ref(kernel.machine), capture(kernel)
    kernel.call("kmalloc", 64)
    told, names = explain(kernel), Names(kernel)
    assert str(told) and names.value(kernel.registers["rsp"]) and str(compare(before, capture(kernel)))
    gc.disable()
    try:
        del kernel, names
        assert machine() is None
    finally:
        gc.enable()


# -- values -----------------------------------------------------------------------------------------------------
def test_a_value_is_told_by_what_it_points_to_or_by_its_flags(busy: Kernel, names: Names) -> None:
    cache = busy.heap.cache("kmalloc-64")
    slab = cache.partial[0]
    words = f"slab 0x{slab.address:x} of kmalloc-64, {slab.inuse} of 64 in use"

    def read(address: int, size: int = 8) -> str:
        value = names.word(address, size)
        assert value is not None
        return names.value(value, size, names.name(address))

    assert read(cache.address + kmem_cache.partial.offset) == words
    assert read(cache.address + kmem_cache.empty.offset) == "itself: an empty list"
    assert read(slab.page.address, 4) == "PG_HEAD|PG_SLAB"
    assert read(slab.page.address + page.list.offset, 1) == "SLAB_LIST_PARTIAL"
    assert read(slab.page.address + page.cache.offset) == "kmem_cache(kmalloc-64)"
    assert read(cache.address + kmem_cache.flags.offset, 4) == "SLAB_KMALLOC|SLAB_BOOT"
    front = busy.symbols["boot_cpu"] + cache.struct.cpu
    top = len(cache.magazines[0].objects)
    assert read(front) == f"behind loaded magazine of kmalloc-64 [{top - 1}]"
    assert read(front + kmem_cache_cpu.loaded.offset) == "loaded magazine of kmalloc-64"
    assert read(busy.symbols["kmalloc_info"]) == '"kmalloc-8" at kmalloc_info+0xd0'
    assert names.value(slab.object_address(63)) == "object 63 of kmalloc-64, free in slab"
    assert names.value(busy.symbols["kmalloc"] + 4) == "kmalloc+0x4"
    assert (number(7), number(40), number((1 << 64) - 12), number((1 << 32) - 1, 4), number(1 << 60)) == \
        ("7", "40 (0x28)", "-12 (-ENOMEM)", "-1 (-EPERM)", "0x1000000000000000")


def test_flags_without_a_name_are_not_lost() -> None:
    from sandbox.abi import PageFlag

    assert flag_names(PageFlag, 0x8C) == "PG_HEAD|PG_SLAB|0x80" and flag_names(PageFlag, 0) == "0"


def test_a_slab_in_the_making_holds_no_allocated_objects(kernel: Kernel) -> None:
    kernel.registers["rip"], kernel.registers["rdi"] = kernel.symbols["kmalloc"], 64
    machine, place = kernel.machine, kernel.symbols["slab_create"]
    machine.run(100_000, until={place})
    while kernel.registers["rdi"] != kernel.heap.cache("kmalloc-64").address:
        machine.run(100_000, until={place})
    machine.step(400)
    inside = next(address for name, address in kernel.registers.items() if name == "r13")
    assert Names(kernel).name(inside).detail.startswith("in a slab that is being made")


def test_a_spare_magazine_is_no_object_of_a_caller(kernel: Kernel) -> None:
    at = kernel.call("kmem_cache_alloc", kernel.symbols["magazine_cache"])
    name = Names(kernel).name(at + magazine.rounds.offset)
    assert name.text == f"rounds of spare magazine at 0x{at:x}" and name.size == magazine.size
    assert PAGE_SIZE % magazine.size == 0
