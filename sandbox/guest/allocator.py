"""An allocator of somebody else as guest code: the four functions that it has, and Python's way to call them.

::

    void  init(void *start, u64 size);          start: its arena, whole pages, mapped RW, zeroed, unmapped pages around
    void *allocate(u64 size);                   at a multiple of 16 (of 8 below 16 bytes), or 0
    void  deallocate(void *pointer);            0 does nothing; a double or wild free is refused, or is a panic
    void  stats(struct allocator_stats *out);   what callers hold, and what it could still give out

They are called as System V says. One with static memory of its own ignores what ``init`` is given. The return value of
``deallocate`` counts when ``refused`` says what it is for a pointer that was not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from ..abi import ARENA_BASE, allocator_stats
from ..address import PAGE_SIZE, U64
from ..errors import ProgramError, UsageError
from ..toolchain.image import Image
from .options import parse_size

ROLES = ("init", "allocate", "deallocate", "stats")
OPTIONAL = ("init", "stats")
LARGEST_ARENA = 1 << 30
CALL_LIMIT = 10_000_000
"""Instructions that one call may take unless it is told otherwise."""
_U32 = (1 << 32) - 1


@dataclass(frozen=True)
class AllocatorOptions:
    """What an allocator's functions are called, and what it gets; plain data.

    ``init`` and ``stats`` may be None, for an allocator without. ``refused`` is what ``deallocate`` returns for a
    pointer that it does not take, None when its return value means nothing. ``arena`` is in bytes, whole pages.
    """

    init: str | None = "init"
    allocate: str = "allocate"
    deallocate: str = "deallocate"
    stats: str | None = "stats"
    refused: int | None = None
    arena: int = 256 << 10

    def __post_init__(self) -> None:
        for role in ROLES:
            name = getattr(self, role)
            if not (isinstance(name, str) and name) and not (name is None and role in OPTIONAL):
                raise UsageError(f"{role} of an allocator is the name of a function, not {name!r}")
        if self.refused is not None and (type(self.refused) is not int or not -(1 << 63) <= self.refused <= U64):
            raise UsageError(f"refused is the number that {self.deallocate} returns for a pointer that it does not "
                             f"take, not {self.refused!r}")
        if type(self.arena) is not int or not 0 < self.arena <= LARGEST_ARENA or self.arena % PAGE_SIZE:
            raise UsageError(f"an arena is a multiple of {PAGE_SIZE} bytes, at most 1G, not {self.arena!r}")

    @property
    def names(self) -> dict[str, str]:
        """The name of each function that it has, by role."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}

    @property
    def refusals(self) -> frozenset[int]:
        """The values of RAX that refuse; a negative number may be an ``int`` of C's."""
        if self.refused is None:
            return frozenset()
        return frozenset({self.refused & U64} | ({self.refused & _U32} if self.refused < 0 else set()))

    def shadowed(self) -> dict[str, str | int]:
        """The same for the shadow (:func:`sandbox.trace.shadow_foreign.functions`)."""
        known: dict[str, str | int] = {role: name for role, name in self.names.items() if role != "stats"}
        return known if self.refused is None else {**known, "refused": self.refused & U64}

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``AllocatorOptions(**data)`` reads it."""
        return asdict(self)


def allocator_options(symbols: Mapping[str, str | None] | None = None, refused: int | None = None,
                      arena: int | str = AllocatorOptions.arena) -> AllocatorOptions:
    """The options of :func:`sandbox.boot`; :class:`UsageError` for what cannot be."""
    if symbols is not None and not isinstance(symbols, Mapping):
        raise UsageError(f"symbols maps the roles {', '.join(ROLES)} to names, not {symbols!r}")
    unknown = sorted(str(role) for role in symbols or {} if role not in ROLES)
    if unknown:
        raise UsageError(f"symbols has the roles {', '.join(ROLES)}, and not {', '.join(unknown)}")
    return AllocatorOptions(**dict(symbols or {}), refused=refused, arena=parse_size(arena))  # type: ignore[arg-type]


@dataclass(frozen=True)
class ForeignAllocator:
    """An assembled allocator and its options: what a kernel is booted with."""

    image: Image
    options: AllocatorOptions


def require_functions(image: Image, options: AllocatorOptions, file: str) -> None:
    """Refuse, with a :class:`ProgramError` about ``file``, an image without the functions: all that are missing."""
    functions, labels = image.functions, [name for name in image.functions if name in image.symbols]
    missing = {role: name for role, name in options.names.items() if name not in functions}
    if not missing:
        return
    data = [name for name in missing.values() if (section := image.section_at(image.symbols.get(name, image.end)))
            is not None and section.name != "text"]
    if data:
        is_data = "is data, not a function" if len(data) == 1 else "are data, not functions"
        absent = [name for name in missing.values() if name not in data]
        more = f"; and it does not define {', '.join(absent)}" if absent else ""
        raise ProgramError(file, f"{', '.join(data)} {is_data}: code belongs into .text{more}")
    close = [f"{role}={found[0]}" for role, name in missing.items()
             if (found := [label for label in labels if label.endswith(f"_{name}")]
                 or get_close_matches(name, labels, 1))]
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ProgramError(file, f"it does not define {', '.join(missing.values())}: an allocator has {', '.join(ROLES)}, "
                             f"and other names are given as symbols, ROLE=NAME{hint}")


class Arena(NamedTuple):
    """The memory that an allocator is given: virtual addresses."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """Behind the last byte, where nothing is mapped."""
        return self.start + self.size

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and self.start <= address < self.end


class AllocatorStats(NamedTuple):
    """What the allocator says of itself: ``struct allocator_stats``."""

    in_use: int
    free_bytes: int


class Allocator:
    """What ``kernel.allocator`` is. Every call is one of ``kernel.call``, with its errors, and takes at most ``limit``
    instructions."""

    def __init__(self, call: Callable[..., int], symbols: Mapping[str, int], options: AllocatorOptions) -> None:
        self.options = options
        self.arena = Arena(ARENA_BASE, options.arena)
        self._call = call
        # By address: a function may ignore arguments, and say so in its prototype.
        self._functions = {role: int(symbols[name]) for role, name in options.names.items()}

    def init(self, *, limit: int = CALL_LIMIT) -> None:
        """Begin anew with the whole arena; an allocator without ``init`` is left as it is."""
        if "init" in self._functions:
            self._call(self._functions["init"], *self.arena, limit=limit)

    def allocate(self, size: int, *, limit: int = CALL_LIMIT) -> int:
        """The address of ``size`` bytes, or 0."""
        return self._call(self._functions["allocate"], size, limit=limit)

    def deallocate(self, pointer: int, *, limit: int = CALL_LIMIT) -> bool:
        """Give a chunk back; False when it was refused, which only an allocator with ``refused`` can say."""
        return self._call(self._functions["deallocate"], pointer, limit=limit) not in self.options.refusals

    def stats(self, *, limit: int = CALL_LIMIT) -> AllocatorStats:
        """Its own account; :class:`UsageError` where it keeps none."""
        if "stats" not in self._functions:
            raise UsageError("this allocator has no stats")
        out = bytearray(allocator_stats.size)
        self._call(self._functions["stats"], out, limit=limit)
        return AllocatorStats(*(int.from_bytes(out[at : at + 8], "little") for at in range(0, len(out), 8)))

    def __repr__(self) -> str:
        return f"<Allocator {', '.join(self.options.names.values())}, arena of {self.arena.size >> 10} KiB>"


