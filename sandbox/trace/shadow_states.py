"""What the shadow knows of a byte, and of the code that touches it.

A byte of the shadow is 0 where everybody may read and write. Otherwise it is one of the states below: of a whole
access one ``or`` of its bytes' states tells what may be wrong with it.
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag


class State(IntFlag):
    """The state of one byte of RAM; 0 is memory that is none of the shadow's business, or written by its owner."""

    UNWRITTEN = 1 << 0                   # of a live object, and nobody has written it since it was handed out
    METADATA = 1 << 1                    # the allocator's own: others may read it
    PADDING = 1 << 2                     # of a live object, behind the bytes that were asked for
    OUTSIDE = 1 << 3                     # of a slab, and of no object: colour, red zones, what is left over
    FREE = 1 << 4                        # of an object that nobody holds, or of a page that nobody has


PLAIN = 0
LANE = 0x0101_0101_0101_0101
"""A state times this is that state for each of eight bytes."""


class Code(IntEnum):
    """Whose code an instruction is."""

    OTHER = 0                            # programs, handlers, the rest of the kernel
    ALLOCATOR = 1                        # may do anything to any byte of the heap
    HELPER = 2                           # does what its caller asks: the first caller that is no helper answers for it
    COPY = 3                             # a helper that moves bytes with their state: memcpy and memmove


STACK_WORDS = 8
"""How far above RSP the return address of a helper is looked for."""

ALLOCATOR_CODE = ("page_alloc", "slab", "magazine", "slowpath", "fastpath", "bulk", "kmalloc", "krealloc", "kmem_cache",
                  "freelist", "random", "inject", "vm.")
"""How the names of the kernel's files begin that own the heap; ``vm.asm`` marks its page tables in ``struct page``."""

ALLOCATOR_DATA = frozenset(("page_alloc.asm", "kmem_cache.asm", "kmalloc.asm", "freelist.asm", "random.asm"))
"""The kernel's files whose writable data is the allocator's alone. Switches for tests and for failures on purpose are
anybody's to set."""

HELPER_CODE = frozenset(("string.asm", "list.asm", "spinlock.asm"))
"""The kernel's files whose functions work for whoever calls them."""

COPY_FUNCTIONS = frozenset(("memcpy", "memmove"))


class ShadowKind(str, Enum):
    """What can be wrong with an access, or with a free."""

    USE_AFTER_FREE = "use-after-free"
    OUT_OF_BOUNDS = "out-of-bounds"
    UNINITIALIZED_READ = "uninitialized-read"
    DOUBLE_FREE = "double-free"
    INVALID_FREE = "invalid-free"
    WRONG_CACHE = "wrong-cache"
    METADATA_WRITE = "metadata-write"
    OVERLAP = "overlap"

    def __str__(self) -> str:
        return self.value
