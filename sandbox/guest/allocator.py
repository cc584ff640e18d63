"""An allocator of somebody else as guest code: the functions that it has, by role, and Python's way to call them.

::

    void *allocate(u64 size);                       at a multiple of 16 (of 8 below 16 bytes), or 0
    void  deallocate(void *pointer);                0 does nothing; a double or wild free is refused, or is a panic
    void  init(void *start, u64 size);              start: its arena, whole pages, mapped RW, zeroed, unmapped around
    void  stats(struct allocator_stats *out);       what callers hold, and what it could still give out
    void *reallocate(void *pointer, u64 size);      the same bytes in a chunk of another size; 0: the old one is kept
    void *allocate_zeroed(u64 count, u64 size);     count times size bytes of zeros, or 0
    void *allocate_aligned(u64 align, u64 size);    at a multiple of a power of two, or 0

They are called as System V says. The first four are looked for under these names, the others are there when they are
named; an allocator that defines the C library's ``malloc`` and ``free`` instead needs no names at all
(:func:`fitting_options`). One with static memory of its own ignores what ``init`` is given. The return value of
``deallocate`` counts when ``refused`` says what it is for a pointer that was not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any, NamedTuple

from ..abi import ARENA_BASE, allocator_stats
from ..address import PAGE_SIZE, U64
from ..errors import ProgramError, UsageError
from ..toolchain.image import Image
from .options import parse_size

USUAL = ("init", "allocate", "deallocate", "stats")
"""The roles that an allocator has under their own names, unless it is told otherwise."""
ROLES = (*USUAL, "reallocate", "allocate_zeroed", "allocate_aligned")
REQUIRED = ("allocate", "deallocate")
MALLOC: dict[str, tuple[str, ...]] = {
    "allocate": ("malloc",), "deallocate": ("free",), "reallocate": ("realloc",), "allocate_zeroed": ("calloc",),
    "allocate_aligned": ("aligned_alloc", "memalign"), "init": (), "stats": (),
}
"""The C library's name for each role; of several, the first that is defined."""
RELATIVES = ("memalign", "posix_memalign", "valloc", "reallocarray", "cfree", "malloc_usable_size")
"""More functions of that family: who defines them beside ``malloc`` has the trace and the shadow know of them too."""
LARGEST_ARENA = 1 << 30
LIKELY: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "allocate": (("mm_malloc", "malloc", "my_malloc"), ("malloc", "alloc"), ("realloc", "calloc", "dealloc")),
    "deallocate": (("mm_free", "free", "my_free"), ("_free", "dealloc"), ()),
    "init": (("mm_init", "my_init"), (), ()),
}
"""What functions are often called: names, the ends of names, and ends that are those of others."""
_LIBRARY = "libc/"
CALL_LIMIT = 10_000_000
"""Instructions that one call may take unless it is told otherwise."""
_U32 = (1 << 32) - 1


@dataclass(frozen=True)
class AllocatorOptions:
    """What an allocator's functions are called, and what it gets; plain data.

    All roles but ``allocate`` and ``deallocate`` may be None, for an allocator without. ``refused`` is what
    ``deallocate`` returns for a pointer that it does not take, None when its return value means nothing. ``arena`` is
    in bytes, whole pages.
    """

    init: str | None = "init"
    allocate: str = "allocate"
    deallocate: str = "deallocate"
    stats: str | None = "stats"
    reallocate: str | None = None
    allocate_zeroed: str | None = None
    allocate_aligned: str | None = None
    refused: int | None = None
    arena: int = 256 << 10

    def __post_init__(self) -> None:
        for role in ROLES:
            name = getattr(self, role)
            if not (isinstance(name, str) and name) and not (name is None and role not in REQUIRED):
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
        """The values of RAX that refuse."""
        return refusals(self.refused)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``AllocatorOptions(**data)`` reads it."""
        return asdict(self)


def refusals(refused: int | None) -> frozenset[int]:
    """The values of RAX by which a function returns the number ``refused``, None for none; a negative number may be an
    ``int`` of C's."""
    if refused is None:
        return frozenset()
    return frozenset({refused & U64} | ({refused & _U32} if refused < 0 else set()))


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
    """A linked allocator and its options: what a kernel is booted with."""

    image: Image
    options: AllocatorOptions

    @property
    def functions(self) -> dict[str, str]:
        """The name of each function that is known, by role; of :data:`RELATIVES`, each is a role of its own."""
        names = self.options.names
        if names["allocate"] != "malloc":
            return names
        defined = [name for name in RELATIVES if name in self.image.functions and name not in self.image.local]
        return {**{name: name for name in defined if name not in names.values()}, **names}

    def shadowed(self) -> dict[str, str | int]:
        """The same as the shadow takes it, with what ``deallocate`` returns when it refuses
        (:func:`sandbox.trace.foreign_functions.functions`)."""
        refused = self.options.refused
        return {**self.functions} if refused is None else {**self.functions, "refused": refused}


def fitting_options(image: Image, options: AllocatorOptions) -> AllocatorOptions:
    """The options for an image as far as its functions speak for themselves.

    When the image lacks ``allocate`` and ``deallocate``, none was named, and it has ``malloc`` and ``free``, these are
    the functions, with ``realloc``, ``calloc``, ``aligned_alloc`` or ``memalign``, each where it is defined. Otherwise
    ``reallocate``, ``allocate_zeroed`` and ``allocate_aligned`` are what is called so, where nothing else was named.
    That there is no ``init`` or no ``stats`` names nothing.
    """
    exported = {name for name in image.functions if name not in image.local}
    chosen = any(getattr(options, role) not in (getattr(AllocatorOptions, role), None) for role in ROLES)
    if chosen or exported & set(REQUIRED):
        more = [role for role in ROLES if role not in USUAL and getattr(options, role) is None and role in exported]
        return replace(options, **dict(zip(more, more, strict=True)))  # type: ignore[arg-type]
    family = _family(exported)
    return replace(options, **family) if family else options  # type: ignore[arg-type]


def own_malloc(program: Image | None) -> ForeignAllocator | None:
    """The allocator that a program brings itself by defining ``malloc`` and ``free``; None for any other."""
    family = {} if program is None else _family(program.exports)
    return ForeignAllocator(program, AllocatorOptions(**family)) if program and family else None  # type: ignore[arg-type]


def _family(exported: Container[str]) -> dict[str, str | None]:
    """The C library's names by role, as far as they are defined; nothing without ``malloc`` and ``free``."""
    found = {role: next((name for name in names if name in exported), None) for role, names in MALLOC.items()}
    return found if all(found[role] for role in REQUIRED) else {}


def require_functions(image: Image, options: AllocatorOptions, file: str) -> None:
    """Refuse, with a :class:`ProgramError` about ``file``, an image without the functions: all that are missing."""
    functions = image.functions
    labels = [name for name in functions if name in image.symbols and name not in image.local]
    missing = {role: name for role, name in options.names.items() if name not in functions or name in image.local}
    if not missing:
        return
    static = [name for name in missing.values() if name in functions]
    if static:
        are = "is static: other files do not see it" if len(static) == 1 else "are static: other files do not see them"
        raise ProgramError(file, f"{', '.join(static)} {are}")
    data = [name for name in missing.values() if (section := image.section_at(image.symbols.get(name, image.end)))
            is not None and section.name != "text"]
    if data:
        is_data = "is data, not a function" if len(data) == 1 else "are data, not functions"
        absent = [name for name in missing.values() if name not in data]
        more = f"; and it does not define {', '.join(absent)}" if absent else ""
        raise ProgramError(file, f"{', '.join(data)} {is_data}: code belongs into .text{more}")
    own = [label for label in labels if not image.origins.get(label, "").startswith(_LIBRARY)]
    close = {role: found for role, name in missing.items() if (found := _likely(role, name, own))}
    if close and all(role in close for role in missing if role in REQUIRED):
        close = {role: close.get(role, "") for role in missing}
    hint = f"; did you mean {', '.join(f'{role}={name}' for role, name in close.items())}?" if close else ""
    if not set(missing) & set(REQUIRED) and not close:
        hint = f", and {'=, '.join(missing)}= for one without"
    raise ProgramError(file, f"it does not define {', '.join(missing.values())}: an allocator has {', '.join(USUAL)}, "
                             f"or malloc and free; other names are given as symbols, ROLE=NAME{hint}")


def _likely(role: str, name: str, labels: Sequence[str]) -> str:
    """The label that seems to be the function of a role which is to be called ``name``; empty when none does."""
    usual, ends, others = LIKELY.get(role, ((), (), ()))
    own = [label for label in labels if not (others and label.endswith(others))]
    found = [each for each in (role, *usual) if each in own]
    found += [label for label in own if label.endswith(f"_{name}")]
    found += [label for end in ends for label in own if label.endswith(end)]
    if role in REQUIRED:                         # what only looks like it has another role
        own = [label for label in own if not label.endswith(("realloc", "calloc"))]
    return next(iter(found or get_close_matches(name, own, 1)), "")


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

    def reallocate(self, pointer: int, size: int, *, limit: int = CALL_LIMIT) -> int:
        """The address of ``size`` bytes that begin with those of the chunk at ``pointer``, which is gone then; or 0,
        and it is not. :class:`UsageError` where there is no such function."""
        return self._call(self._function("reallocate"), pointer, size, limit=limit)

    def allocate_zeroed(self, count: int, size: int, *, limit: int = CALL_LIMIT) -> int:
        """The address of ``count`` times ``size`` bytes of zeros, or 0; :class:`UsageError` where there is no such
        function."""
        return self._call(self._function("allocate_zeroed"), count, size, limit=limit)

    def allocate_aligned(self, alignment: int, size: int, *, limit: int = CALL_LIMIT) -> int:
        """The address of ``size`` bytes, a multiple of ``alignment``, or 0; :class:`UsageError` where there is no such
        function."""
        return self._call(self._function("allocate_aligned"), alignment, size, limit=limit)

    def stats(self, *, limit: int = CALL_LIMIT) -> AllocatorStats:
        """Its own account; :class:`UsageError` where it keeps none."""
        function = self._function("stats")
        out = bytearray(allocator_stats.size)
        self._call(function, out, limit=limit)
        return AllocatorStats(*(int.from_bytes(out[at : at + 8], "little") for at in range(0, len(out), 8)))

    def _function(self, role: str) -> int:
        if role not in self._functions:
            raise UsageError(f"this allocator has no {role}")
        return self._functions[role]

    def __repr__(self) -> str:
        return f"<Allocator {', '.join(self.options.names.values())}, arena of {self.arena.size >> 10} KiB>"


