"""Mutants that the fast subset does not notice: those that mean the same, with the reason, and those that escape it."""

from __future__ import annotations

_SAME = "both operands are the same when they are equal, so moving one into the other changes nothing"
_BIT_0 = "bit 0 means nothing in kmem_cache.flags, and no cache has it set"
_HOLDS_CACHE = "every caller holds the cache in rbx too, so that either direction of the move is right"

EQUIVALENT: dict[str, str] = {
    "magazine_refill: cmova eax, ecx [boundary]": _SAME,
    "slab_layout: cmovb ecx, eax [boundary]": _SAME,
    "slab_layout: cmovb ecx, eax [boundary] #2": _SAME,
    "slab_layout: cmovb ecx, r9d [boundary]": _SAME,
    "page_alloc_init: cmovb rdi, rax [boundary]": _SAME,
    "slab_layout: test r8d, SLAB_RED_ZONE [constant+1] #2": _BIT_0,
    "slab_create: test dword ptr [rbx + kmem_cache.flags], SLAB_DEBUG_FLAGS [constant+1]": _BIT_0,
    "percpu_slot_take: test dword ptr [rdi + kmem_cache.flags], SLAB_NO_MAGAZINES [constant+1]": _BIT_0,
    "magazine_flush: mov rbx, rdi [operand]": _HOLDS_CACHE,
    "magazine_find_object: mov rbx, rdi [operand]": _HOLDS_CACHE,
    "slab_alloc: mov r13, rax [operand] #2":
        "r13 still has the flags of the first time the lock was taken, which are the same: nothing between enables or "
        "disables interrupts for good",
    "kmalloc_large: cmp rdi, KMALLOC_MAX_SIZE [constant+1]":
        "one byte more is order MAX_ORDER + 1, which get_free_pages refuses: the answer is 0 all the same",
    "krealloc: ja .Lkrealloc_clear [boundary]":
        "at equality no byte is gained; what is cleared otherwise is nothing, or red zone that is written next",
    "percpu_slot_take: jc .Lpercpu_slot_take_next [boundary]":
        "bts leaves ZF as the compare before it did, which is not equal there: jbe is jc",
    "page_alloc_init: cmova rax, r12 [boundary]":
        "no usable region ends at LOADER_PHYS: the PC's hole lies below it",
    "slab_create: mov byte ptr [r12 + page.list], SLAB_LIST_NONE [store]":
        "a frame that is no slab's is on no list: slab_destroy gets slabs that slab_move took off theirs",
    "slab_create: mov qword ptr [r12 + page.freelist], 0 [store]":
        "the end of slab_create stores the first object there, and nothing looks before",
}
"""Mutants that do the same as the original in every state that the kernel can be in."""

SURVIVORS: dict[str, str] = {
    "free_pages: test dword ptr [rax + page.flags], PG_HEAD [constant+1]":
        "a reserved frame gets past this test, to the comparison with PG_HEAD alone: free_pages panics all the same, "
        "with the other of its two sentences",
    "magazine_find_room: jae .Lmagazine_find_room_out [boundary]":
        "a full depot together with an empty magazine in it takes two CPUs, or an interrupt handler, that make a "
        "magazine each between the same two moments: one magazine too many is then kept",
}
"""Mutants that are wrong, and that nothing here notices."""
