"""The faults of the catalogue: every rule of the judge broken on purpose, nearly always by one write from Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sandbox import Kernel
from sandbox.abi import (
    PageFlag,
    SlabList,
    free_area,
    kmem_cache,
    kmem_cache_cpu,
    list_head,
    magazine,
    page,
    percpu,
    track,
)
from sandbox.heap.slabs import Slab

PLAIN: dict[str, object] = {}
BARE: dict[str, object] = {"magazines": False}
HARD: dict[str, object] = {"magazines": False, "freelist_hardened": True}
DEBUG: dict[str, object] = {"slab_debug": "FZPU"}
POISONED: dict[str, object] = {"slab_debug": "P"}

LENGTHS = [40] * 7 + [100]                        # six live objects of one cache, one freed, one of another cache


class Scene:
    """A kernel with something on its heap, and short ways to its bytes."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.memory = kernel.memory
        self.objects = [kernel.call("kmalloc", length) for length in LENGTHS]
        kernel.call("kfree", self.objects[3])
        self.freed = self.objects.pop(3)

    def slab(self, address: int = 0) -> Slab:
        found = self.kernel.heap.slab_at(address or self.objects[0])
        assert found is not None
        return found

    @property
    def page(self) -> page:
        return self.slab().page

    @property
    def cache(self) -> kmem_cache:
        return self.slab().cache.struct

    def field(self, view: object, name: str, value: int) -> int:
        """Overwrite one field; returns where it lies."""
        at = int(view.address) + int(getattr(type(view), name).offset)  # type: ignore[attr-defined]
        setattr(view, name, value)
        return at

    def byte(self, address: int, value: int) -> int:
        self.memory[address] = value
        return address

    def word(self, address: int, value: int) -> int:
        self.memory.write_u64(address, value)
        return address

    def front(self) -> kmem_cache_cpu:
        return kmem_cache_cpu(self.memory, self.kernel.symbols["boot_cpu"] + self.cache.cpu)

    def loaded(self) -> magazine:
        return magazine(self.memory, self.front().loaded)

    def tracks(self) -> int:
        """Where the two tracks of an object lie, from its first byte (its free pointer lies outside)."""
        return int(self.cache.metadata) + 8


@dataclass(frozen=True)
class Fault:
    """``damage`` breaks ``rule`` and returns the address that must be named."""

    rule: str
    options: dict[str, object]
    damage: Callable[[Scene], int]

    def __str__(self) -> str:
        return f"{self.damage.__name__.replace('_', '-')}"


FAULTS: list[Fault] = []


def fault(rule: str, options: dict[str, object]) -> Callable[[Callable[[Scene], int]], Callable[[Scene], int]]:
    def add(damage: Callable[[Scene], int]) -> Callable[[Scene], int]:
        FAULTS.append(Fault(rule, options, damage))
        return damage
    return add


# -- bytes -----------------------------------------------------------------------------------------------------------
@fault("left-red-zone", DEBUG)
def one_byte_before_a_live_object(scene: Scene) -> int:
    return scene.byte(scene.objects[1] - 1, 0x41)


@fault("left-red-zone", DEBUG)
def one_byte_before_a_free_object(scene: Scene) -> int:
    return scene.byte(scene.freed - 3, 0xCC)


@fault("kmalloc-red-zone", DEBUG)
def the_first_byte_behind_what_kmalloc_was_asked_for(scene: Scene) -> int:
    return scene.byte(scene.objects[0] + 40, 0)


@fault("right-red-zone", DEBUG)
def the_first_byte_behind_a_live_object(scene: Scene) -> int:
    return scene.byte(scene.objects[0] + scene.cache.object_size, 0x12)


@fault("right-red-zone", DEBUG)
def the_first_byte_behind_a_free_object(scene: Scene) -> int:
    return scene.byte(scene.freed + scene.cache.object_size, 0xAB)


@fault("kmalloc-red-zone", DEBUG)
def a_run_from_inside_one_object_into_the_next(scene: Scene) -> int:
    scene.memory[scene.objects[0] + 30 : scene.objects[0] + 100] = b"A" * 70
    return scene.objects[0] + 40


@fault("requested-size", DEBUG)
def a_size_asked_for_that_no_object_has(scene: Scene) -> int:
    at = scene.objects[0] + scene.tracks() + 2 * track.size
    scene.memory.write_u32(at, 4000)
    return at


@fault("requested-size", PLAIN)
def a_large_allocation_smaller_than_its_size(scene: Scene) -> int:
    pfn = scene.kernel.heap.pages.pfn(scene.kernel.call("kmalloc", 20_000))
    assert pfn is not None
    return scene.field(scene.kernel.heap.pages.struct_page(pfn), "private", 40_000)


@fault("alignment-padding", POISONED)
def a_byte_that_rounds_an_object_up_to_a_word(scene: Scene) -> int:
    cache = scene.kernel.call("kmem_cache_create", "odd", 61, 0, 0, 0)
    return scene.byte(scene.kernel.call("kmem_cache_alloc", cache) + 61, 0)


@fault("poison", DEBUG)
def a_write_to_freed_memory(scene: Scene) -> int:
    return scene.byte(scene.freed + 5, 0x78)


@fault("poison", POISONED)
def a_write_to_freed_memory_without_red_zones(scene: Scene) -> int:
    return scene.word(scene.freed + 8, scene.freed)


@fault("end-poison", DEBUG)
def a_write_to_the_last_byte_of_freed_memory(scene: Scene) -> int:
    return scene.byte(scene.freed + scene.cache.object_size - 1, 0x6B)


@fault("object-padding", DEBUG)
def a_byte_behind_everything_of_an_object(scene: Scene) -> int:
    return scene.byte(scene.objects[0] + scene.tracks() + 2 * track.size + 4, 0)


@fault("slab-padding", DEBUG)
def the_last_byte_of_a_slab(scene: Scene) -> int:
    slab = scene.slab(scene.objects[-1])
    assert slab.size % slab.cache.size
    return scene.byte(slab.end - 1, 0)


# -- free pointers ---------------------------------------------------------------------------------------------------
@fault("free-pointer", BARE)
def a_free_pointer_out_of_the_slab(scene: Scene) -> int:
    return scene.word(scene.freed + scene.cache.offset, scene.slab().end)


@fault("free-pointer", BARE)
def a_free_pointer_between_two_objects(scene: Scene) -> int:
    return scene.word(scene.freed + scene.cache.offset, scene.objects[0] + 8)


@fault("free-pointer", HARD)
def a_plain_address_where_pointers_are_encoded(scene: Scene) -> int:
    return scene.word(scene.freed + scene.cache.offset, scene.objects[0])


@fault("free-pointer", DEBUG)
def one_bit_of_a_free_pointer(scene: Scene) -> int:
    at = scene.freed + scene.cache.offset
    scene.byte(at, scene.memory[at] ^ 0xFF)
    return at


@fault("free-pointer", DEBUG)
def the_old_free_pointer_of_a_live_object(scene: Scene) -> int:
    return scene.word(scene.objects[1] + scene.cache.offset, 0x4141414141414141)


@fault("free-pointer", BARE)
def the_head_of_a_free_list(scene: Scene) -> int:
    return scene.field(scene.page, "freelist", scene.objects[0] + 1)


@fault("free-list-cycle", BARE)
def a_double_free(scene: Scene) -> int:
    scene.kernel.call("kfree", scene.freed)
    return scene.freed + int(scene.cache.offset)


@fault("free-list-cycle", BARE)
def a_double_free_with_another_between(scene: Scene) -> int:
    scene.kernel.call("kfree", scene.objects[0])
    scene.kernel.call("kfree", scene.freed)
    return scene.objects[0] + int(scene.cache.offset)


@fault("free-chain", DEBUG)
def a_free_list_that_leads_to_a_live_object(scene: Scene) -> int:
    return scene.word(scene.freed + scene.cache.offset, scene.objects[0])


@fault("free-chain", DEBUG)
def a_free_list_that_is_cut_short(scene: Scene) -> int:
    return scene.word(scene.freed + scene.cache.offset, 0)


@fault("free-live", BARE)
def a_free_of_the_struct_of_a_cache(scene: Scene) -> int:
    cache = scene.kernel.call("kmem_cache_create", "victim", 64, 0, 0, 0)
    scene.kernel.call("kfree", cache)
    return cache


# -- the numbers of a slab -------------------------------------------------------------------------------------------
@fault("object-count", BARE)
def a_slab_that_counts_one_too_many(scene: Scene) -> int:
    return scene.field(scene.page, "inuse", scene.page.inuse + 1)


@fault("object-count", DEBUG)
def a_slab_that_counts_one_too_few(scene: Scene) -> int:
    return scene.field(scene.page, "inuse", scene.page.inuse - 1)


@fault("object-count", BARE)
def a_free_list_that_is_cut_short_without_red_zones(scene: Scene) -> int:
    scene.word(scene.freed + scene.cache.offset, 0)
    return scene.page.address + page.inuse.offset


@fault("object-number", BARE)
def a_slab_with_fewer_objects_than_it_was_cut_into(scene: Scene) -> int:
    return scene.field(scene.page, "objects", scene.page.objects - 1)


@fault("objects-above-maximum", BARE)
def a_slab_with_more_objects_than_fit(scene: Scene) -> int:
    return scene.field(scene.page, "objects", scene.page.objects + 1)


@fault("inuse-above-objects", BARE)
def more_objects_out_than_there_are(scene: Scene) -> int:
    return scene.field(scene.page, "inuse", scene.page.objects + 1)


@fault("colour", BARE)
def objects_that_begin_at_no_colour(scene: Scene) -> int:
    return scene.field(scene.page, "colour", 8)


# -- lists -----------------------------------------------------------------------------------------------------------
@fault("wrong-list", BARE)
def a_slab_that_names_another_list(scene: Scene) -> int:
    return scene.field(scene.page, "list", SlabList.SLAB_LIST_FULL)


@fault("wrong-list", BARE)
def a_partial_slab_on_the_full_list(scene: Scene) -> int:
    cache, slab = scene.slab().cache.address, scene.page.address
    scene.kernel.call("slab_move", cache, slab, SlabList.SLAB_LIST_FULL)
    return slab + page.next.offset


@fault("lost-slab", BARE)
def a_slab_on_no_list(scene: Scene) -> int:
    cache, slab = scene.slab().cache.address, scene.page.address
    scene.kernel.call("slab_move", cache, slab, SlabList.SLAB_LIST_NONE)
    return slab + page.list.offset


@fault("list-links", BARE)
def the_prev_of_a_slab(scene: Scene) -> int:
    return scene.field(scene.page, "prev", scene.page.address)


@fault("list-links", BARE)
def the_next_of_a_list_of_slabs(scene: Scene) -> int:
    return scene.word(scene.cache.partial.address, 0xDEAD000000000100)


@fault("list-links", BARE)
def the_next_of_the_list_of_caches(scene: Scene) -> int:
    return scene.word(scene.cache.list.address, 8)


@fault("list-links", BARE)
def a_list_of_caches_that_jumps_over_one(scene: Scene) -> int:
    second = scene.cache.list.next
    return scene.word(scene.cache.list.address, list_head(scene.memory, second).next)


@fault("list-links", BARE)
def the_next_of_a_free_block(scene: Scene) -> int:
    blocks = next(blocks for order in range(11) if (blocks := scene.kernel.heap.pages.free_blocks(order)))
    block = scene.kernel.heap.pages.struct_page(blocks[0].pfn)
    return scene.field(block, "next", scene.objects[0])


# -- magazines -------------------------------------------------------------------------------------------------------
@fault("magazine-foreign", PLAIN)
def an_object_of_another_cache_in_a_magazine(scene: Scene) -> int:
    return scene.word(scene.loaded().address + magazine.objects.offset, scene.objects[-1])


@fault("magazine-foreign", PLAIN)
def a_pointer_into_an_object_in_a_magazine(scene: Scene) -> int:
    return scene.word(scene.loaded().address + magazine.objects.offset, scene.objects[0] + 8)


@fault("magazine-twice", PLAIN)
def a_double_free_through_the_magazine(scene: Scene) -> int:
    scene.kernel.call("kfree", scene.freed)
    return int(scene.front().top) - 8


@fault("magazine-free", PLAIN)
def an_object_in_a_magazine_and_on_its_slabs_free_list(scene: Scene) -> int:
    slab = scene.slab()
    return scene.word(scene.loaded().address + magazine.objects.offset, slab.freelist[-1])


@fault("magazine-live", {"freelist_random": 5})
def the_random_order_of_a_cache_in_a_magazine(scene: Scene) -> int:
    scene.kernel.call("kfree", scene.cache.random_seq)
    home = scene.kernel.heap.slab_at(scene.cache.random_seq)
    assert home is not None
    front = kmem_cache_cpu(scene.memory, scene.kernel.symbols["boot_cpu"] + home.cache.struct.cpu)
    return int(front.top) - 8


@fault("magazine-bounds", PLAIN)
def a_top_outside_of_its_magazine(scene: Scene) -> int:
    return scene.field(scene.front(), "top", scene.front().limit + 8)


@fault("magazine-bounds", PLAIN)
def a_bottom_that_is_not_zero(scene: Scene) -> int:
    return scene.field(scene.loaded(), "bottom", scene.objects[0])


@fault("magazine-bounds", PLAIN)
def a_previous_magazine_neither_full_nor_empty(scene: Scene) -> int:
    return scene.field(magazine(scene.memory, scene.front().previous), "rounds", 3)


@fault("magazine-owner", PLAIN)
def a_magazine_that_two_caches_have(scene: Scene) -> int:
    front = scene.front()
    scene.field(front, "previous", front.loaded)
    return int(front.loaded)


@fault("depot-links", PLAIN)
def a_depot_that_leads_nowhere(scene: Scene) -> int:
    return scene.field(scene.cache, "depot_full", 0x1000)


@fault("cpu-slot", PLAIN)
def a_cache_with_no_slot(scene: Scene) -> int:
    return scene.field(scene.cache, "cpu", percpu.slots.offset + 8)


@fault("cpu-slot", PLAIN)
def a_cache_with_the_slot_of_another(scene: Scene) -> int:
    other = scene.slab(scene.objects[-1]).cache.struct
    assert other.list.address > scene.cache.list.address
    return scene.field(other, "cpu", scene.cache.cpu)


@fault("lost-structure", PLAIN)
def a_magazine_that_nothing_leads_to(scene: Scene) -> int:
    return scene.kernel.call("kmem_cache_alloc", scene.kernel.symbols["magazine_cache"])


# -- caches ----------------------------------------------------------------------------------------------------------
@fault("cache-fields", BARE)
def the_distance_between_objects(scene: Scene) -> int:
    scene.memory.write_u32(scene.cache.address + kmem_cache.size_.offset, 72)
    return scene.cache.address + kmem_cache.size_.offset


@fault("cache-fields", DEBUG)
def the_place_of_the_free_pointer(scene: Scene) -> int:
    return scene.field(scene.cache, "offset", 8)


@fault("cache-fields", BARE)
def a_secret_where_there_is_none(scene: Scene) -> int:
    return scene.field(scene.cache, "random", 0x1234)


@fault("lock-held", BARE)
def a_lock_that_nobody_gave_back(scene: Scene) -> int:
    return scene.field(scene.cache, "lock", 1)


# -- pages -----------------------------------------------------------------------------------------------------------
@fault("page-two-owners", BARE)
def a_slab_that_names_another_cache(scene: Scene) -> int:
    return scene.field(scene.page, "cache", scene.slab(scene.objects[-1]).cache.address)


@fault("page-two-owners", BARE)
def a_free_block_that_is_a_slab_as_well(scene: Scene) -> int:
    scene.page.flags = scene.page.flags | PageFlag.PG_BUDDY
    return scene.page.address


@fault("page-two-owners", BARE)
def a_reserved_frame_that_is_handed_out(scene: Scene) -> int:
    scene.page.flags = scene.page.flags | PageFlag.PG_RESERVED
    return scene.page.address


@fault("block-frames", BARE)
def a_slab_whose_frame_points_at_another_head(scene: Scene) -> int:
    return scene.field(scene.page, "head", scene.slab(scene.objects[-1]).page.address)


@fault("block-frames", BARE)
def a_frame_of_a_slab_that_is_no_slab(scene: Scene) -> int:
    return scene.field(scene.page, "flags", PageFlag.PG_HEAD)


@fault("buddy-overlap", BARE)
def a_free_block_inside_another(scene: Scene) -> int:
    block = scene.kernel.heap.pages.free_blocks(10)[0]
    inner = scene.kernel.heap.pages.struct_page(block.pfn + 64)
    inner.flags, inner.order = PageFlag.PG_BUDDY, 3
    return int(inner.address)


@fault("buddy-block", BARE)
def a_free_block_that_is_not_aligned_to_its_order(scene: Scene) -> int:
    order = max(order for order in range(10) if scene.kernel.heap.pages.free_blocks(order))
    block = scene.kernel.heap.pages.struct_page(scene.kernel.heap.pages.free_blocks(order)[0].pfn)
    return scene.field(block, "order", 11)


@fault("buddy-unmerged", BARE)
def two_free_buddies_that_were_not_merged(scene: Scene) -> int:
    pages = scene.kernel.heap.pages
    order = next(order for order in range(1, 11) if pages.free_blocks(order))
    block = pages.free_blocks(order)[0]
    lower, upper = pages.struct_page(block.pfn), pages.struct_page(block.pfn + (1 << order - 1))
    areas = scene.kernel.symbols["free_areas"]
    from_area, to_area = (free_area(scene.memory, areas + at * free_area.size) for at in (order, order - 1))
    for half in (lower, upper):
        half.flags, half.order = PageFlag.PG_BUDDY, order - 1
    from_area.nr_free, to_area.nr_free = from_area.nr_free - 1, to_area.nr_free + 2
    scene.kernel.call("list_del", lower.address + page.next.offset)
    scene.kernel.call("list_add", lower.address + page.next.offset, to_area.list.address)
    scene.kernel.call("list_add", upper.address + page.next.offset, to_area.list.address)
    return int(lower.address)


@fault("lost-page", BARE)
def a_frame_that_nobody_has(scene: Scene) -> int:
    address = scene.kernel.call("get_free_pages", 0)
    pfn = scene.kernel.heap.pages.pfn(address)
    assert pfn is not None
    info = scene.kernel.heap.pages.struct_page(pfn)
    info.flags = 0
    return int(info.address)


@fault("memory-map", BARE)
def an_array_of_frames_that_is_elsewhere(scene: Scene) -> int:
    at = scene.kernel.symbols["mem_map"]
    return scene.word(at, scene.memory.u64(at) + 64)


# -- counters --------------------------------------------------------------------------------------------------------
@fault("counters", BARE)
def a_count_of_slabs(scene: Scene) -> int:
    return scene.field(scene.cache, "nr_partial", scene.cache.nr_partial + 1)


@fault("counters", BARE)
def a_count_of_free_blocks(scene: Scene) -> int:
    return scene.field(free_area(scene.memory, scene.kernel.symbols["free_areas"]), "nr_free", 77)


@fault("counters", BARE)
def a_count_of_slabs_ever_made(scene: Scene) -> int:
    return scene.field(scene.cache, "alloc_slab", 90)


@fault("counters", BARE)
def a_count_of_allocations(scene: Scene) -> int:
    return scene.field(scene.cache, "alloc_slowpath", 1000)


@fault("counters", PLAIN)
def a_count_of_magazines(scene: Scene) -> int:
    return scene.field(scene.cache, "nr_depot_empty", 4)
