"""Every number that the guest and Python share, written once.

Structures, constants, ports, the memory map. :func:`render` turns this page into ``kernel_asm/abi.inc``, in the
way in which Linux's ``asm-offsets.c`` feeds its assembly: ``[rdi + kmem_cache.partial]`` in the guest and
``kmem_cache(memory, address).partial`` in Python are the same offset because they come from the same line. The
file is committed, and a test fails when it is not what this module renders.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from .layout import NestedField, Struct, TextField, pointer, text, u8, u16, u32, u64

# -- the memory map ---------------------------------------------------------------------------------------------
# Virtual, as in Linux on x86-64 (Documentation/arch/x86/x86_64/mm.rst).
KERNEL_BASE = 0xFFFF_FFFF_8000_0000      # the kernel image: text R-X, read-only data R--, data RW-
PROGRAM_BASE = 0xFFFF_FFFF_A000_0000     # the program that is run, where Linux has its modules
MODULES_BASE = 0xFFFF_FFFF_A800_0000     # modules in C beside a program in assembly
DIRECT_MAP = 0xFFFF_8880_0000_0000       # all physical memory, RW- and never executable
ALLOCATOR_BASE = 0xFFFF_FFFF_B000_0000   # an allocator of somebody else, beside the program or without one
ARENA_BASE = 0xFFFF_CA00_0000_0000       # the memory that it may give out, between unmapped pages
HEAPS_BASE = 0xFFFF_CB00_0000_0000       # what the C library's sbrk and mmap map, a slot for each linked image
HEAP_SLOT = 0x10_0000_0000               # bytes from one to the next; sbrk grows from its start, mmap from its middle
STACKS_BASE = 0xFFFF_C900_0000_0000      # stacks, each in a slot of its own below unmapped pages
STACK_SLOT = 0x10000                     # bytes from one stack's slot to the next; a stack ends where its slot ends
KERNEL_STACK_SIZE = 0x4000
IST_STACK_SIZE = 0x1000

# Physical. What a loader places lies in one piece from LOADER_PHYS up, so that one multiboot segment holds it.
LOADER_PHYS = 0x10_0000                  # the multiboot header and its 32-bit entry, used by QEMU alone
BOOT_INFO_PHYS = 0x10_1000               # struct boot_info
PAGE_TABLES_PHYS = 0x10_2000             # page tables, up to KERNEL_PHYS
KERNEL_PHYS = 0x20_0000                  # kernel image, program image, stacks; free memory begins behind them
HOLE_START = 0xA_0000                    # VGA memory and ROMs of a PC: no RAM
HOLE_END = 0x10_0000
MINIMUM_RAM = 0x40_0000                  # 4 MiB
MAXIMUM_RAM = 0x8000_0000                # 2 GiB: below the PCI hole of a PC

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
MAX_ORDER = 10                           # the largest buddy block is 2^10 pages, 4 MiB
CACHE_LINE = 64

# -- ports and interrupts ---------------------------------------------------------------------------------------
SERIAL_PORT = 0x3F8                      # 16550 UART, COM1, IRQ 4
DEBUG_EXIT_PORT = 0xF4                   # isa-debug-exit: the guest writes v, QEMU's status is 2 * v + 1
PIC1_PORT = 0x20
PIC2_PORT = 0xA0
PIT_PORT = 0x40
PIT_HZ = 1193182                         # the 8254's input clock
IRQ_BASE = 0x20                          # the vector of IRQ 0
IRQS = 16
TIMER_IRQ = 0
SERIAL_IRQ = 4

EXIT_SUCCESS = 0x10                      # QEMU's status 33: main returned 0
EXIT_FAILURE = 0x11                      # 35: main returned anything else
EXIT_PANIC = 0x12                        # 37: the kernel gave up

# -- selectors and interrupt stacks -----------------------------------------------------------------------------
KERNEL_CS = 0x08
KERNEL_DS = 0x10
USER_DS = 0x1B
USER_CS = 0x23
TSS_SELECTOR = 0x28
IST_DOUBLE_FAULT = 1
IST_NMI = 2
IST_MACHINE_CHECK = 3

# -- errors, as in Linux's errno-base.h; functions return them negated -------------------------------------------
E2BIG = 7
ENOMEM = 12
EFAULT = 14
EBUSY = 16
EEXIST = 17
EINVAL = 22

# -- the allocator ----------------------------------------------------------------------------------------------
BOOT_MAGIC = 0x31584F42444E4153          # "SANDBOX1"
ZERO_SIZE_PTR = 0x10                     # what kmalloc(0) returns (include/linux/slab.h)
GFP_ZERO = 0x100                         # krealloc: bytes that were not there before read as zero
LIST_POISON1 = 0xDEAD_0000_0000_0100     # links of an entry that is on no list (include/linux/poison.h)
LIST_POISON2 = 0xDEAD_0000_0000_0122
KMALLOC_SIZES = (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
KMALLOC_CACHES = len(KMALLOC_SIZES)
KMALLOC_MAX_CACHE = KMALLOC_SIZES[-1]    # a larger request gets whole pages
KMALLOC_STEPS = KMALLOC_MAX_CACHE // 8   # entries of the table from (size - 1) / 8 to the cache
KMALLOC_MAX_SIZE = PAGE_SIZE << MAX_ORDER
SLAB_MAX_OBJECT = 0x10000                # the largest object of a cache
MAGAZINE_ROUNDS = 29                     # objects in a full magazine, so that struct magazine has 256 bytes
PERCPU_SLOTS = 255                       # caches with magazines, and slot 0 for all the others
DEPOT_LIMIT = 8                          # full magazines that a depot keeps
EMPTY_SLAB_LIMIT = 2                     # empty slabs that a cache keeps
STRUCT_PAGE_SHIFT = 6                    # log2 sizeof(struct page)

# -- debugging the allocator (Linux, include/linux/poison.h and mm/slub.c) ---------------------------------------
SLUB_RED_INACTIVE = 0xBB                 # red zones of a free object
SLUB_RED_ACTIVE = 0xCC                   # red zones of a live one
POISON_INUSE = 0x5A                      # bytes of a slab that belong to nobody
POISON_FREE = 0x6B                       # a free object
POISON_END = 0xA5                        # its last byte
TRACK_FRAMES = 16                        # return addresses that a struct track keeps
SLAB_MAX_OBJECTS = PAGE_SIZE // 8        # objects of any slab: larger slabs are made for larger objects alone


class PageFlag(IntFlag):
    """``page.flags``: what a frame is. No bit set: an allocated page that belongs to its caller."""

    PG_RESERVED = 1 << 0                 # no RAM, or placed by the loader: never given out
    PG_BUDDY = 1 << 1                    # first frame of a free block of 2^order frames
    PG_HEAD = 1 << 2                     # first frame of an allocated block of 2^order frames
    PG_SLAB = 1 << 3                     # any frame of a slab
    PG_LARGE = 1 << 4                    # any frame of a kmalloc that was too large for the caches
    PG_TABLE = 1 << 5                    # a page table made by map_page


class SlabFlag(IntFlag):
    """``kmem_cache.flags``, with Linux's values where Linux has the flag (include/linux/slab.h)."""

    SLAB_CONSISTENCY_CHECKS = 0x0000_0100
    SLAB_RED_ZONE = 0x0000_0400
    SLAB_POISON = 0x0000_0800
    SLAB_KMALLOC = 0x0000_1000
    SLAB_HWCACHE_ALIGN = 0x0000_2000
    SLAB_STORE_USER = 0x0001_0000
    SLAB_TRACE = 0x0020_0000
    SLAB_FAILSLAB = 0x0200_0000
    SLAB_NO_USER_FLAGS = 0x0800_0000     # the slab_debug option does not apply
    SLAB_NO_MAGAZINES = 0x1000_0000      # ours: every call goes to the slabs
    SLAB_BOOT = 0x2000_0000              # ours: made at boot, never destroyed
    SLAB_OBJECT_POISON = 0x4000_0000     # Linux's __OBJECT_POISON: SLAB_POISON, and no constructor forbids it


SLAB_DEBUG_DEFAULT_FLAGS = int(SlabFlag.SLAB_CONSISTENCY_CHECKS | SlabFlag.SLAB_RED_ZONE | SlabFlag.SLAB_POISON
                               | SlabFlag.SLAB_STORE_USER)  # Linux's DEBUG_DEFAULT_FLAGS
SLAB_DEBUG_METADATA_FLAGS = int(SlabFlag.SLAB_RED_ZONE | SlabFlag.SLAB_POISON | SlabFlag.SLAB_STORE_USER)
SLAB_DEBUG_FLAGS = SLAB_DEBUG_DEFAULT_FLAGS | int(SlabFlag.SLAB_TRACE | SlabFlag.SLAB_FAILSLAB)
SLAB_CREATE_FLAGS = SLAB_DEBUG_FLAGS | int(SlabFlag.SLAB_KMALLOC | SlabFlag.SLAB_HWCACHE_ALIGN
                                           | SlabFlag.SLAB_NO_USER_FLAGS
                                           | SlabFlag.SLAB_NO_MAGAZINES)  # what kmem_cache_create accepts


class SlabList(IntEnum):
    """``page.list``: the list of its cache that a slab is on."""

    SLAB_LIST_NONE = 0
    SLAB_LIST_PARTIAL = 1
    SLAB_LIST_FULL = 2
    SLAB_LIST_EMPTY = 3


class BootFlag(IntFlag):
    """``boot_info.flags``: what the kernel is asked to do differently."""

    BOOT_NO_MAGAZINES = 1 << 0


class MemoryType(IntEnum):
    """``memory_region.type``, the E820 types that a loader here uses (ACPI 6.5, table 15.4)."""

    MEMORY_USABLE = 1
    MEMORY_RESERVED = 2


# -- structures -------------------------------------------------------------------------------------------------
class list_head(Struct):
    """A doubly linked, circular list; an empty one points at itself."""

    next = pointer("the first entry's link, or this one")
    prev = pointer("the last entry's link, or this one")


class memory_region(Struct):
    """One line of the memory map that the loader hands over."""

    base = u64("physical address")
    length = u64("bytes")
    type = u32("MEMORY_USABLE or MEMORY_RESERVED")
    reserved = u32()


class boot_info(Struct):
    """What the loader tells the kernel; RDI at ``_start`` is its address in the direct map."""

    magic = u64("BOOT_MAGIC")
    ram_size = u64("bytes of RAM, the hole counted in")
    cr3 = u64("physical address of the PML4")
    loader_end = u64("physical address of the first byte that the loader left free")
    kernel_end = u64("virtual address behind the kernel image")
    program_start = u64("virtual address of the program image, 0 without one")
    program_end = u64("virtual address behind the program image")
    main = pointer("int main(void) of the program, or 0")
    stack_top = pointer("the boot CPU's kernel stack")
    ist_top = pointer("stacks for #DF, NMI and #MC", count=3)
    flags = u64("BOOT_*")
    hz = u32("timer ticks a second, 0 for none")
    empty_slab_limit = u32("empty slabs that each cache keeps")
    seed = u64("for everything that the kernel chooses at random")
    freelist_hardened = u32("1: free pointers are stored encoded")
    freelist_random = u32("1: objects of a new slab are linked in random order")
    regions = u64("how many entries of the memory map are used")
    map = NestedField(memory_region, "the memory map, ascending", count=8)
    slab_debug = text(128, "the slab_debug option, in Linux's syntax")
    freelist_seed = u64("for the order in which a new slab's objects are linked")


class page(Struct):
    """``struct page``: one for each frame of RAM, in one array at ``mem_map``."""

    flags = u32("PG_*")
    order = u8("first frame of a block: log2 of its frames")
    list = u8("first frame of a slab: SLAB_LIST_*")
    inuse = u16("first frame of a slab: objects that are out of the slab, those in magazines included")
    objects = u16("first frame of a slab: how many objects it was cut into")
    reserved = u16()
    colour = u32("first frame of a slab: bytes before the first object")
    next = pointer("link in a buddy list or in a list of slabs: a struct list_head")
    prev = pointer()
    cache = pointer("every frame of a slab: struct kmem_cache")
    freelist = pointer("first frame of a slab: first free object, 0 when there is none")
    head = pointer("every frame of an allocated block: struct page of its first frame")
    private = u64("first frame of a large kmalloc: the bytes that were asked for")


class magazine(Struct):
    """A stack of free objects (Bonwick and Adams, USENIX 2001). Whole magazines change hands, never parts."""

    next = pointer("the next magazine in the same depot list")
    rounds = u64("objects in it; out of date while it is loaded")
    bottom = u64("always 0: a pop that reads it has found the magazine empty")
    objects = pointer("free objects, the next to be taken last", count=MAGAZINE_ROUNDS)


class magazine_size(Struct):
    """One row of the kernel's table of magazine sizes."""

    largest = u32("object size up to which this row holds")
    rounds = u32("objects in a full magazine")


class kmalloc_info(Struct):
    """One row of the kernel's table of kmalloc caches."""

    name = pointer("const char *")
    size_ = u32("bytes of an object")
    align = u32("its alignment")


class kmem_cache_cpu(Struct):
    """One CPU's front of one cache. A disabled one has ``top == limit`` and a 0 below ``top``: always both
    empty and full, so that every call takes the slow path."""

    top = pointer("behind the last object of the loaded magazine")
    limit = pointer("where top is when the loaded magazine is full")
    loaded = pointer("struct magazine, 0 when disabled")
    previous = pointer("struct magazine: full or empty, never in between")
    alloc_fastpath = u64("objects taken from the loaded magazine")
    free_fastpath = u64("objects put into the loaded magazine")
    unused = u64("", count=2)


class percpu(Struct):
    """One CPU's own data; GS points at it. Offset 0 is never used, so that no access has a zero displacement."""

    reserved = u64()
    self = pointer("the address of this structure")
    cpu = u32("number of this CPU, from 0")
    interrupt_depth = u32("interrupts being handled")
    ticks = u64("timer interrupts since boot")
    interrupts = u64("interrupts of any kind since boot")
    restarts = u64("critical sections that an interrupt sent back to their start")
    unused = u64("", count=2)
    slots = NestedField(kmem_cache_cpu, "kmem_cache.cpu selects one; the first is disabled for ever", PERCPU_SLOTS)


class kmem_cache(Struct):
    """An object cache. Everything below ``lock`` that changes is changed with it held."""

    cpu = u64("GS offset of this CPU's kmem_cache_cpu")
    lock = u32("spinlock, taken with interrupts off")
    flags = u32("SLAB_*")
    object_size = u32("bytes that a caller may use")
    size_ = u32("bytes from one object to the next")
    align = u32("alignment of every object")
    offset = u32("where the free pointer lies, from the object's first byte")
    metadata = u32("where the bytes behind the object begin: free pointer outside, owners, padding")
    red_left_pad = u32("bytes of red zone in front of each object")
    order = u32("a slab is 2^order pages")
    objects = u32("objects in a slab")
    colour = u32("how many different offsets a slab's first object may have")
    colour_step = u32("bytes between two of them")
    colour_next = u32("the colour of the next slab")
    empty_limit = u32("empty slabs that are kept")
    ctor = pointer("void ctor(void *object), run once for each object of a new slab, or 0")
    random = u64("secret with which free pointers are encoded")
    random_seq = pointer("u16 array: the order in which a new slab's objects are linked, or 0")
    partial = NestedField(list_head, "slabs with objects in and out")
    full = NestedField(list_head, "slabs with every object out")
    empty = NestedField(list_head, "slabs with every object in")
    nr_partial = u32()
    nr_full = u32()
    nr_empty = u32()
    rounds = u32("objects in a full magazine of this cache")
    depot_full = pointer("full magazines, linked by magazine.next")
    depot_empty = pointer("empty magazines")
    nr_depot_full = u32()
    nr_depot_empty = u32()
    list = NestedField(list_head, "link in slab_caches")
    alloc_slowpath = u64("allocations that the loaded magazine could not serve")
    free_slowpath = u64("frees that the loaded magazine could not take")
    alloc_slab = u64("slabs taken from the pages")
    free_slab = u64("slabs given back")
    failed = u64("allocations that were answered with 0")
    exchanges = u64("magazines exchanged with the depot")
    name = text(32)
    reports = u64("wrong things found in it")
    fixes = u64("repairs made to it")


class track(Struct):
    """Who allocated or freed an object (``struct track`` of mm/slub.c); two lie behind each object with U."""

    address_ = u64("return address of the call, 0 when it has not happened")
    cpu = u32("CPU that made it")
    nr = u32("entries of stack that are used")
    sequence = u64("how many tracked calls there were before it, over all caches")
    stack = u64("return addresses, innermost first", count=TRACK_FRAMES)


class slab_debug_state(Struct):
    """What debugging counts over all caches: ``reports + fixes`` is slub_kunit's ``slab_errors``."""

    reports = u64("wrong things found")
    fixes = u64("repairs made")
    sequence = u64("tracked calls so far")
    quiet = u64("not 0: count, but print no report (a test that causes them on purpose)")


class fault_attr(Struct):
    """Failures on purpose, as Linux's ``struct fault_attr``: ``failslab`` for caches with A, ``fail_page_alloc``.
    Off as long as ``probability`` and ``nth`` are 0."""

    probability = u32("of 100 calls, how many fail")
    interval = u32("only each interval-th call may fail; 0 and 1: each")
    times = u64("how many may fail by probability; all ones: no limit")
    calls = u64("calls that were asked about")
    nth = u64("this many calls from now, one fails; 0: none does")
    failed = u64("calls that were made to fail")
    state = u64("of its random generator, splitmix64; at boot, the seed")


class allocator_stats(Struct):
    """What ``stats`` of an allocator of somebody else fills in."""

    in_use = u64("allocations that callers hold")
    free_bytes = u64("bytes that it could still give out")


class free_area(Struct):
    """The free blocks of one order."""

    list = NestedField(list_head, "struct page links of the blocks' first frames")
    nr_free = u64("blocks on it")


class pt_regs(Struct):
    """What an interrupt or a panic leaves on the stack, in Linux's order."""

    r15 = u64()
    r14 = u64()
    r13 = u64()
    r12 = u64()
    rbp = u64()
    rbx = u64()
    r11 = u64()
    r10 = u64()
    r9 = u64()
    r8 = u64()
    rax = u64()
    rcx = u64()
    rdx = u64()
    rsi = u64()
    rdi = u64()
    vector = u64("0-31 exception, 32-47 IRQ 0-15, 256 for panic()")
    error_code = u64("0 where the processor pushes none")
    rip = u64()
    cs = u64()
    rflags = u64()
    rsp = u64()
    ss = u64()


class panic_record(Struct):
    """Written by ``panic`` before anything else, so that the last words survive even a broken console."""

    active = u64("1 once the kernel has panicked")
    vector = u64("of the exception, PANIC_VECTOR when panic() was called")
    address_ = u64("CR2 for a page fault")
    regs = pointer("struct pt_regs at the fault or at the call")
    message = text(256, "the message, formatted")


PANIC_VECTOR = 256

STRUCTS: tuple[type[Struct], ...] = (
    list_head, memory_region, boot_info, page, magazine, magazine_size, kmalloc_info, kmem_cache_cpu, percpu,
    kmem_cache, track, slab_debug_state, fault_attr, allocator_stats, free_area, pt_regs,
    panic_record,
)
ENUMS = (PageFlag, SlabFlag, SlabList, BootFlag, MemoryType)


class Constant(NamedTuple):
    """A name and its value, as both languages know them."""

    name: str
    value: int


def constants() -> Iterator[Constant]:
    """Every shared number that is not an offset, in the order of this file."""
    for name, value in globals().items():
        if name.isupper() and type(value) is int:
            yield Constant(name, value)
    for enum in ENUMS:
        for member in enum:
            yield Constant(str(member.name), int(member))


def offsets() -> Iterator[tuple[type[Struct], list[Constant]]]:
    """For each structure: ``struct.field`` offsets, then ``sizeof.struct`` and the lengths of its strings."""
    for struct in STRUCTS:
        rows = [Constant(f"{struct.__name__}.{field.name}", field.offset) for field in struct.fields]
        lengths = [Constant(f"sizeof.{struct.__name__}.{field.name}", field.size)
                   for field in struct.fields if isinstance(field, TextField)]
        yield struct, [*rows, Constant(f"sizeof.{struct.__name__}", struct.size), *lengths]


def render() -> str:
    """The text of ``kernel_asm/abi.inc``."""
    lines = ["# Generated from sandbox/abi.py by `python -m sandbox.abi`; a test keeps it current.", ""]
    lines += [f".set {constant.name}, {constant.value:#x}" for constant in constants()]
    for struct, rows in offsets():
        lines += ["", f"# struct {struct.__name__}"]
        notes = {f"{struct.__name__}.{field.name}": field.note for field in struct.fields}
        for name, value in rows:
            note = notes.get(name)
            definition = f".set {name}, {value:#x}"
            lines.append(f"{definition:<44}# {note}" if note else definition)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write ``kernel_asm/abi.inc`` of this checkout."""
    from pathlib import Path

    (Path(__file__).parent.parent / "kernel_asm" / "abi.inc").write_text(render())


if __name__ == "__main__":
    main()
