"""The allocator's calls as they happen: what they hand out, take back and make of the pages.

A call counts for the object that it returns when it was made by somebody else than the allocator; what the allocator
allocates for itself is its own. A free takes effect, and is judged, at the function's first instruction; an
allocation at its ``ret``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from ..abi import DIRECT_MAP, GFP_ZERO, MAX_ORDER, PAGE_SIZE, ZERO_SIZE_PTR, kmem_cache, page
from ..layout import Field
from .capture import BULK_LIMIT, is_failure
from .functions import Kind, Traced
from .ram import Ram
from .shadow_code import CodeMap
from .shadow_objects import Cause, Held, ObjectTable, Span
from .shadow_states import Code, ShadowKind, State
from .stack import callers

KSIZE = Traced("ksize", Kind.REALLOC, object=0)
"""Who asks for the usable size may use it."""
ZEROING = frozenset(("kzalloc", "kmem_cache_zalloc"))
_FREE = int(State.FREE)
_ALLOCATOR = int(Code.ALLOCATOR)


class Open(NamedTuple):
    """A call that has not returned: its RSP, the function and its arguments, who made it, whether the allocator did,
    and, of krealloc, the object as it was with the states of its bytes."""

    rsp: int
    function: Traced
    arguments: tuple[int, int, int]
    cause: Cause
    own: bool
    cr3: int
    before: tuple[int, Held, bytes] | None = None


class Deferring(Protocol):
    """What may put a free off (:mod:`~sandbox.trace.shadow_quarantine`)."""

    def defer(self, function: Traced, pointer: int, cache: int) -> int:
        """A sound free is about to begin: let another object be freed in its place, or none (0)."""
        ...

    def returned(self, function: Traced, argument: int) -> bool:
        """Whether this call is one of its own making."""
        ...


class Pages(Protocol):
    """Who wants to know of pages that somebody else's allocator takes (:mod:`~sandbox.trace.shadow_foreign`)."""

    def given(self, start: int, size: int) -> None:
        """Code outside the kernel's allocator was given these pages, by their physical address."""
        ...

    def taken(self, start: int, size: int) -> None:
        """Pages went back."""
        ...

    def owns(self, start: int) -> bool:
        """Whether these pages are that allocator's: it may give them back whatever lies there."""
        ...


Accuse = Callable[[ShadowKind, int, "int | None", Cause], None]
"""``(kind, pointer, cache, cause)`` of a free that is wrong."""


class Calls:
    """The hooks, and the frames that are open."""

    def __init__(
        self, table: ObjectTable, ram: Ram, code: CodeMap, functions: Mapping[int, Traced],
        at_entry: Callable[[], tuple[int, ...]], at_exit: Callable[[], tuple[int, ...]], clock: Callable[[], int],
        accuse: Accuse,
    ) -> None:  # fmt: skip
        self.table = table
        self.opened: list[Open] = []
        self.last = (0, 0, -1)
        self.tail = (0, 0)                   # RSP and pointer of a kfree that is going to end in free_pages
        self.deferring: Deferring | None = None
        self.pages: Pages | None = None
        self._ram = ram
        self._code = code
        self._functions = functions
        self._at_entry = at_entry
        self._at_exit = at_exit
        self._clock = clock
        self._accuse = accuse
        self._stacks: dict[tuple[int, ...], tuple[int, ...]] = {}

    # -- hooks ------------------------------------------------------------------------------------------------
    def enter(self, address: int) -> None:
        """The first instruction of a function is about to run, for the first time or once more."""
        rdi, rsi, rdx, rsp, rbp, cr3 = self._at_entry()
        clock = self._clock()
        if self.last == (address, rsp, clock):
            return
        self.last = address, rsp, clock
        function, opened = self._functions[address], self.opened
        kind = function.kind
        while opened and (opened[-1].rsp < rsp or (opened[-1].rsp == rsp and opened[-1].function is function)):
            opened.pop()
        if self.deferring is not None and self.deferring.returned(function, rdi):
            return
        stack = callers(self._ram, rsp, rbp, cr3)
        own = bool(stack) and self._code.of(stack[0] - 1) == _ALLOCATOR
        stack = self._stacks.setdefault(stack, stack)
        cause = opened[-1].cause if own and opened else Cause(address, clock, stack)
        call = Open(rsp, function, (rdi, rsi, rdx), cause, own, cr3)
        if kind is Kind.ALLOC:
            opened.append(call)
        elif kind is Kind.FREE:
            self._free(call)
        elif kind is Kind.PAGE_FREE:
            self._pages_back(call)
        elif kind is Kind.REALLOC:
            opened.append(call._replace(before=self._before(call)))
        elif kind is not Kind.SLAB_DESTROY:
            opened.append(call)

    def leave(self, _address: int) -> None:
        """A ``ret`` of the allocator's text is about to run."""
        opened = self.opened
        if not opened:
            return
        rax, rsp = self._at_exit()
        while opened and opened[-1].rsp <= rsp:
            call = opened.pop()
            if call.rsp == rsp:
                self._done(call, rax)

    def _done(self, call: Open, rax: int) -> None:
        function = call.function
        kind = function.kind
        if function is KSIZE:
            if not call.own and call.before is not None:
                start, held, _ = call.before
                if held.asked < held.given:
                    self.table.resized(start, held.given, False, None)
        elif kind is Kind.ALLOC and function.array is not None:
            self._bulk(call, rax)
        elif is_failure(rax) or rax == ZERO_SIZE_PTR:
            return
        elif kind is Kind.ALLOC:
            asked = None if function.size is None else call.arguments[function.size]
            self._hand_out(rax, asked, function.name in ZEROING, call)
        elif kind is Kind.REALLOC:
            self._reallocated(call, rax)
        elif kind is Kind.PAGE_ALLOC:
            self._pages(call, rax)
        elif kind is Kind.SLAB_CREATE:
            self._slab(rax, call.cr3)

    # -- objects ----------------------------------------------------------------------------------------------
    def _hand_out(self, pointer: int, asked: int | None, written: bool, call: Open) -> None:
        table, start = self.table, pointer - DIRECT_MAP
        span = table.span(start)
        if span is None or table.is_gone(start):
            _, given, _, slab = self._ram.thing(pointer, call.cr3)
            if not given or slab:
                return                       # of a slab that was damaged before it was seen, or no memory at all
            span = Span(start, given, start, given, 1, given, 0, "")
            table.add(span)
        table.handed_out(start, span.given if asked is None else min(asked, span.given), written, call.own, call.cause)

    def _bulk(self, call: Open, rax: int) -> None:
        _, count, array = call.arguments
        if rax == count and count <= BULK_LIMIT:
            for pointer in self._pointers(array, count, call.cr3):
                self._hand_out(pointer, None, False, call)

    def _pointers(self, array: int, count: int, cr3: int) -> memoryview:
        data = self._ram.block(array, 8 * count, cr3)
        return memoryview(data[: len(data) & ~7]).cast("Q")

    def _free(self, call: Open) -> None:
        function, arguments = call.function, call.arguments
        cache = None if function.cache is None else arguments[function.cache]
        if function.array is not None:
            if arguments[1] <= BULK_LIMIT:
                for pointer in self._pointers(arguments[2], arguments[1], call.cr3):
                    self._free_one(pointer, cache, call)
            return
        pointer = arguments[function.object or 0]
        self.tail = call.rsp, pointer
        if self._free_one(pointer, cache, call) and self.deferring is not None and (
                not call.own or (self.opened and self.opened[-1].function.kind is Kind.REALLOC)):
            span = self.table.span(pointer - DIRECT_MAP)
            self.tail = call.rsp, self.deferring.defer(function, pointer, 0 if span is None else span.cache)

    def _free_one(self, pointer: int, cache: int | None, call: Open) -> bool:
        """Take one object back; whether there was one to take."""
        if pointer == 0 or (cache is None and pointer == ZERO_SIZE_PTR):
            return False
        start = pointer - DIRECT_MAP
        if not call.own:
            wrong = self.table.wrong_free(start, cache)
            if wrong is not None:
                self._accuse(wrong, pointer, cache, call.cause)
                return False
        self.table.given_back(start, call.cause)
        return True

    def _before(self, call: Open) -> tuple[int, Held, bytes] | None:
        """The object that is going to be reallocated; one that cannot be is a wrong free."""
        pointer = call.arguments[0]
        if pointer in (0, ZERO_SIZE_PTR):
            return None
        start = pointer - DIRECT_MAP
        if not call.own:
            wrong = self.table.wrong_free(start, None)
            if wrong is ShadowKind.DOUBLE_FREE:
                wrong = ShadowKind.USE_AFTER_FREE
            if wrong is not None:
                self._accuse(wrong, pointer, None, call.cause)
        held = self.table.objects.get(start)
        if held is None or not held.live:
            return None
        return start, held, self.table.shadow[start : start + held.asked].tobytes()

    def _reallocated(self, call: Open, rax: int) -> None:
        _, size, flags = call.arguments
        zeroed = bool(flags & GFP_ZERO)
        start, before = rax - DIRECT_MAP, call.before
        if before is not None and before[0] == start:
            self.table.resized(start, size, zeroed, call.cause)
            return
        self._hand_out(rax, size, zeroed, call)
        if before is not None:
            kept = before[2][:size]
            self.table.shadow[start : start + len(kept)] = memoryview(kept)

    # -- pages and slabs --------------------------------------------------------------------------------------
    def _pages(self, call: Open, rax: int) -> None:
        order = call.arguments[0]
        above = self.opened[-1] if self.opened else None
        constructing = (above is not None and above.function.kind is Kind.SLAB_CREATE
                        and self._field(above.arguments[0], kmem_cache.ctor, call.cr3) != 0)
        self.table.pages_given(rax - DIRECT_MAP, PAGE_SIZE << order, written=not constructing)
        if self.pages is not None and not call.own:
            self.pages.given(rax - DIRECT_MAP, PAGE_SIZE << order)

    def _pages_back(self, call: Open) -> None:
        pointer, order, _ = call.arguments
        start = pointer - DIRECT_MAP
        if pointer == 0 or order > MAX_ORDER or not 0 <= start <= len(self.table.shadow) - (PAGE_SIZE << order):
            return
        tail, self.tail = self.tail, (0, 0)
        foreign = self.pages is not None and self.pages.owns(start)
        if not call.own and not foreign and tail != (call.rsp, pointer):
            span = self.table.span(start)
            if self.table.shadow[start] == _FREE:
                self._accuse(ShadowKind.DOUBLE_FREE, pointer, None, call.cause)
                return
            if span is not None and not self.table.is_gone(start):
                self._accuse(ShadowKind.INVALID_FREE, pointer, None, call.cause)
                return
        self.table.pages_taken(start, PAGE_SIZE << order, call.cause)
        if self.pages is not None:
            self.pages.taken(start, PAGE_SIZE << order)

    def _slab(self, struct_page: int, cr3: int) -> None:
        """A new slab: what its struct page and its cache say of it."""
        ram = self._ram
        start = ram.frame_of(struct_page) - DIRECT_MAP
        cache = self._field(struct_page, page.cache, cr3)
        data = ram.block(cache, kmem_cache.size, cr3)
        if start < 0 or len(data) < kmem_cache.size:
            return

        def of(field: Field) -> int:
            return int.from_bytes(data[field.offset : field.offset + field.size], "little")

        first = start + self._field(struct_page, page.colour, cr3) + of(kmem_cache.red_left_pad)
        self.table.add(Span(start, PAGE_SIZE << of(kmem_cache.order), first, of(kmem_cache.size_),
                            self._field(struct_page, page.objects, cr3), of(kmem_cache.object_size), cache,
                            str(kmem_cache.name.decode(data[kmem_cache.name.offset :])), of(kmem_cache.ctor) != 0))

    def _field(self, address: int, field: Field, cr3: int) -> int:
        return int.from_bytes(self._ram.block(address + field.offset, field.size, cr3), "little")
