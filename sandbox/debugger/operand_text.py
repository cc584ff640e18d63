"""A memory operand as its author would have written it: with the name of a field for its displacement."""

from __future__ import annotations

from ..abi import list_head
from ..heap.whatis import part_of
from ..toolchain.disassembler import DecodedMemory, Detail
from .accesses import MemoryAccess
from .name import Name
from .processor import Processor


def operand_text(access: MemoryAccess, name: Name, detail: Detail, cpu: Processor) -> str:
    """``[rdi + kmem_cache.partial]`` where ``rdi`` points at a cache, ``[rip + slab_caches]``, ``gs:[percpu.ticks]``;
    the bare number where the base points at nothing that has fields. Of an implied access, the address alone."""
    memory = access.operand
    if memory is None:
        return f"[0x{access.address:x}]"
    if memory.base == "rip":
        return _written(memory, name.text)
    scaled = cpu[memory.index] * memory.scale if memory.index and memory.index in cpu else 0
    return _written(memory, _field(memory, access.base - scaled, access, name) or _signed(memory))


def _field(memory: DecodedMemory, base: int, access: MemoryAccess, name: Name) -> str:
    """The displacement as a field of what ``base`` points at; empty where it is none."""
    if name.struct is None or memory.displacement < 0:
        return ""
    part = part_of(name.struct, name.offset)
    inner = part.within is list_head and name.struct is not list_head and part.field is not None
    if inner and part.field is not None and base == name.start + part.offset - part.field.offset:
        return f"list_head.{part.field.name}"
    if base != name.start:
        return ""
    offset = memory.displacement
    if offset >= name.struct.size:
        return ""
    found = part_of(name.struct, offset)
    if found.field is None or found.offset != offset:
        return ""
    shown = found.name.removesuffix(".next") if found.within is list_head and "." in found.name else found.name
    return f"{name.struct.__name__}.{shown.removesuffix('[0]') if memory.index else shown}"


def _signed(memory: DecodedMemory) -> str:
    if memory.displacement == 0 and (memory.base or memory.index):
        return ""
    return f"{memory.displacement:#x}"


def _written(memory: DecodedMemory, displacement: str) -> str:
    segment = f"{memory.segment}:" if memory.segment in ("fs", "gs") else ""
    scale = f"*{memory.scale}" if memory.scale != 1 else ""
    parts = [memory.base, f"{memory.index}{scale}" if memory.index else ""]
    text = " + ".join(filter(None, parts))
    if displacement.startswith("-"):
        text = f"{text} - {displacement[1:]}" if text else displacement
    elif displacement:
        text = f"{text} + {displacement}" if text else displacement
    return f"{segment}[{text}]"
