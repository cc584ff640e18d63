"""What a hook reads at the entry and at the exit of each kind of function.

What a call takes away is read at its entry, before it is gone; what it gives, at its exit. Each function here looks
at RAM once and returns plain tuples: it runs inside the guest's fast paths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..abi import MAX_ORDER, PAGE_SIZE, SLAB_MAX_OBJECT, ZERO_SIZE_PTR
from ..address import U64
from .functions import Kind, Traced
from .ram import NOTHING, Ram, Thing

Arguments = tuple[int, int, int]
Found = tuple[tuple[int, Thing], ...]
"""Addresses, and what is there."""

BULK_LIMIT = SLAB_MAX_OBJECT
"""The longest array of a bulk call that is read; a longer one is a mistake of the guest, and one event."""

_ERRNO = U64 - 4094                                 # results from here up are negative error numbers

Before = Callable[[Ram, Arguments, int], tuple[Thing, Found]]
After = Callable[[Ram, int, Arguments, int], tuple[Thing, Found]]


class Capture(NamedTuple):
    """``before(ram, arguments, cr3)`` at the entry, ``after(ram, rax, arguments, cr3)`` at the exit; both give what
    is at the one address that the call is about, and the objects of a bulk call."""

    before: Before
    after: After


def is_failure(result: int) -> bool:
    """Whether a pointer result is 0 or a negative error number."""
    return result == 0 or result >= _ERRNO


def captures(function: Traced) -> Capture:
    """What to read for a function, by its kind and its arguments."""
    kind = function.kind
    if function.foreign:
        return Capture(_nothing_before, _nothing_after if function.out is None else _stored_after(function.out))
    if function.array is not None:
        bulk = _bulk(function.count or 0, function.array)
        if kind is Kind.FREE:
            return Capture(lambda ram, arguments, cr3: (NOTHING, bulk(ram, arguments, cr3)), _nothing_after)
        return Capture(_cache_before(function.cache or 0), lambda ram, rax, arguments, cr3: (
            NOTHING, bulk(ram, arguments, cr3)[:rax] if 0 < rax < _ERRNO else ()))
    if kind is Kind.FREE:
        return Capture(_object_before(function.object or 0), _nothing_after)
    if kind is Kind.REALLOC:
        return Capture(_object_before(function.object or 0), _object_after)
    if kind is Kind.ALLOC:
        before = _nothing_before if function.cache is None else _cache_before(function.cache)
        return Capture(before, _object_after)
    return {
        Kind.CACHE_CREATE: Capture(_cache_wanted, _cache_after),
        Kind.CACHE_DESTROY: Capture(_cache_before(function.cache or 0), _nothing_after),
        Kind.SLAB_CREATE: Capture(_slab_wanted, _slab_after),
        Kind.SLAB_DESTROY: Capture(_slab_before, _nothing_after),
        Kind.PAGE_ALLOC: Capture(_block(function.order or 0), _nothing_after),
        Kind.PAGE_FREE: Capture(_block(function.order or 0), _nothing_after),
    }[kind]


def _nothing_before(ram: Ram, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    return NOTHING, ()


def _nothing_after(ram: Ram, rax: int, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    return NOTHING, ()


def _stored_after(where: int) -> After:
    def read(ram: Ram, rax: int, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
        """The pointer that the function has stored, as an address with nothing known of it."""
        stored = 0 if rax & 0xFFFF_FFFF else int.from_bytes(ram.block(arguments[where], 8, cr3), "little")
        return NOTHING, ((stored, NOTHING),)

    return read


# -- objects ----------------------------------------------------------------------------------------------------
def _object_before(which: int) -> Before:
    return lambda ram, arguments, cr3: (ram.thing(arguments[which], cr3), ())


def _object_after(ram: Ram, rax: int, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    return (ram.thing(rax, cr3) if ZERO_SIZE_PTR < rax < _ERRNO else NOTHING), ()


def _bulk(count: int, array: int) -> Callable[[Ram, Arguments, int], Found]:
    def read(ram: Ram, arguments: Arguments, cr3: int) -> Found:
        """The objects whose addresses are in the caller's array, as far as it is memory."""
        if arguments[count] > BULK_LIMIT:
            return ()
        data = ram.block(arguments[array], 8 * arguments[count], cr3)
        whole = memoryview(data[: len(data) & ~7]).cast("Q")
        return tuple((address, ram.thing(address, cr3)) for address in whole)

    return read


# -- caches -----------------------------------------------------------------------------------------------------
def _cache_before(which: int) -> Before:
    return lambda ram, arguments, cr3: (ram.cache(arguments[which], cr3), ())


def _cache_wanted(ram: Ram, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    name, size = arguments[:2]
    return (ram.text(name, 32, cr3)[:31], 0, size, 0), ()


def _cache_after(ram: Ram, rax: int, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    return (NOTHING if is_failure(rax) else ram.cache(rax, cr3)), ()


# -- slabs and pages --------------------------------------------------------------------------------------------
def _slab_wanted(ram: Ram, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    size = ram.slab_bytes(arguments[0], cr3)
    return (ram.cache(arguments[0], cr3)[0], size, size, 0), ()


def _slab_before(ram: Ram, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    size = ram.slab_bytes(arguments[0], cr3)
    return (ram.cache(arguments[0], cr3)[0], size, size, ram.frame_of(arguments[1])), ()


def _slab_after(ram: Ram, rax: int, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
    return (None, 0, 0, 0 if is_failure(rax) else ram.frame_of(rax)), ()


def _block(which: int) -> Before:
    def read(ram: Ram, arguments: Arguments, cr3: int) -> tuple[Thing, Found]:
        order = arguments[which]
        size = PAGE_SIZE << order if order <= MAX_ORDER else 0
        return (None, size, size, 0), ()

    return read
