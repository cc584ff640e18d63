"""What the kernel's own variables are: the declarations that its assembly has in comments alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..abi import (
    KMALLOC_CACHES,
    KMALLOC_STEPS,
    MAX_ORDER,
    fault_attr,
    free_area,
    kmalloc_info,
    kmem_cache,
    list_head,
    panic_record,
    percpu,
    slab_debug_state,
)
from ..layout import Struct
from ..x86 import IdtGate, Tss

_VECTORS = 256


@dataclass(frozen=True)
class Shape:
    """``count`` elements of ``width`` bytes each; ``struct`` is their declaration, None for plain numbers."""

    width: int
    count: int = 1
    struct: type[Struct] | None = None


def _of(struct: type[Struct], count: int = 1) -> Shape:
    return Shape(struct.size, count, struct)


_WORD, _LOCK = Shape(8), Shape(4)

VARIABLES: Mapping[str, Shape] = {
    # segments, traps, init
    "gdt": Shape(8, 5), "gdt_tss": Shape(8, 2), "boot_tss": _of(Tss), "boot_cpu": _of(percpu),
    "idt": _of(IdtGate, _VECTORS), "trap_handlers": Shape(8, _VECTORS), "panic_info": _of(panic_record),
    "boot_params": _WORD, "main_registers": Shape(8, 14), "main_stack": _WORD, "main_result": _WORD,
    "console_lock": _LOCK, "page_tables_lock": _LOCK,
    # pages
    "mem_map": _WORD, "max_pfn": _WORD, "free_areas": _of(free_area, MAX_ORDER + 1), "zone_lock": _LOCK,
    # slabs
    "slab_caches": _of(list_head), "slab_caches_lock": _LOCK, "kmem_cache_cache": _of(kmem_cache),
    "magazine_cache": _of(kmem_cache), "kmalloc_caches": Shape(8, KMALLOC_CACHES),
    "kmalloc_by_size": Shape(8, KMALLOC_STEPS), "kmalloc_info": _of(kmalloc_info, KMALLOC_CACHES),
    "percpu_slots_used": Shape(8, 4), "random_state": _WORD, "freelist_random_state": _WORD,
    # debugging and faults on purpose
    "slab_debug_state": _of(slab_debug_state), "failslab": _of(fault_attr), "fail_page_alloc": _of(fault_attr),
    "fault_lock": _LOCK,
}
"""The kernel's variables by label. One that is not here has a name and an offset all the same."""
