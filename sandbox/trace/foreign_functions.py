"""What the functions of somebody else's allocator do, by role: one table for the trace and for the shadow.

The roles are those of :mod:`sandbox.guest.allocator`, and the names of the C library's family that are none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..errors import UsageError
from ..guest.allocator import ROLES, ForeignAllocator, refusals
from ..guest.symbols import Symbols
from ..toolchain.disassembler import Disassembler
from ..toolchain.image import Image
from .functions import Kind, Traced


@dataclass(frozen=True)
class Role:
    """What a function does, and what its arguments are, as :class:`~sandbox.trace.functions.Traced` has them.

    ``traced`` is None for what gives and takes no chunk. ``fresh``: it makes everything free. ``zeroed``: its chunks
    are all written. ``usable``: it returns how many bytes of a chunk may be used.
    """

    traced: Traced | None
    fresh: bool = False
    zeroed: bool = False
    usable: bool = False


def _role(kind: Kind, *, zeroed: bool = False, usable: bool = False, object: int | None = None,
          size: int | None = None, times: int | None = None, out: int | None = None) -> Role:
    return Role(Traced("", kind, object=object, size=size, times=times, out=out, returns=kind is not Kind.FREE,
                       foreign=True), zeroed=zeroed, usable=usable)


ALLOCATE, ALIGNED, FREE = _role(Kind.ALLOC, size=0), _role(Kind.ALLOC, size=1), _role(Kind.FREE, object=0)
FOREIGN: dict[str, Role] = {
    "init": Role(None, fresh=True),
    "stats": Role(None),
    "allocate": ALLOCATE,
    "deallocate": FREE,
    "reallocate": _role(Kind.REALLOC, object=0, size=1),
    "allocate_zeroed": _role(Kind.ALLOC, size=1, times=0, zeroed=True),
    "allocate_aligned": ALIGNED,
    "memalign": ALIGNED,
    "posix_memalign": _role(Kind.ALLOC, size=2, out=0),
    "valloc": ALLOCATE,
    "reallocarray": _role(Kind.REALLOC, object=0, size=2, times=1),
    "cfree": FREE,
    "malloc_usable_size": _role(Kind.REALLOC, object=0, usable=True),
}


@dataclass(frozen=True)
class ForeignFunctions:
    """Whose calls are watched: roles by address, and the values of RAX with which ``deallocate`` refuses."""

    roles: Mapping[int, Role]
    refused: frozenset[int]


def traced_functions(allocator: ForeignAllocator) -> tuple[Traced, ...]:
    """The functions of an allocator that are traced, under its own names. Of two names for one, the later counts."""
    known = [(name, FOREIGN[role]) for role, name in allocator.functions.items()]
    return tuple(replace(role.traced, name=name, refused=allocator.options.refusals)
                 for name, role in known if role.traced is not None and not role.usable)


def functions(allocator: Mapping[str, str | int], symbols: Symbols) -> ForeignFunctions:
    """Read an ``allocator`` option; :class:`UsageError` for what it cannot mean."""
    unknown = set(allocator) - {*FOREIGN, "refused"}
    if unknown or "allocate" not in allocator:
        raise UsageError(f"an allocator has the names of its functions {', '.join(ROLES)}, and what "
                         f"deallocate returns when it has refused; not {', '.join(sorted(unknown)) or 'less'}")
    refused = allocator.get("refused")
    if refused is not None and not isinstance(refused, int):
        raise UsageError(f"refused is the number that deallocate returns, not {refused!r}")
    return ForeignFunctions({int(symbols[str(name)]): FOREIGN[role] for role, name in allocator.items()
                             if role != "refused"}, refusals(refused))


def returns(symbols: Symbols, image: Image, disassembler: Disassembler) -> list[int]:
    """Every ``ret`` by which a function of ``image`` may return: its own, and those of the functions of other images
    that it ends in by a jump, as compilers make it of ``return memset(chunk, 0, size);``."""
    found = list(disassembler.rets(image))
    seen: set[int] = set()
    wanted = _jumps(image, image.base, image.text_end, disassembler)
    while wanted:
        target = wanted.pop()
        other = symbols.image_at(target)
        if target in seen or other is None or other is image:
            continue
        seen.add(target)
        file = _file(other, target)
        for name, (start, end) in other.functions.items():
            if start <= target < end or (file and _file(other, start) == file):
                found += disassembler.rets(other, name)
                wanted |= {at for at in _jumps(other, start, end, disassembler) if _file(other, at) != file}
    return sorted(set(found))


def _jumps(image: Image, start: int, end: int, disassembler: Disassembler) -> set[int]:
    """Where the unconditional jumps of a range go that leave it."""
    found = (int(each.operands, 16) for each in disassembler.outline(image, start, end)
             if each.mnemonic == "jmp" and each.operands.startswith("0x"))
    return {target for target in found if not start <= target < end}


def _file(image: Image, address: int) -> str:
    line = image.line(address)
    return "" if line is None else line.file
