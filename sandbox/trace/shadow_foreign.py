"""An allocator of the program's own under the shadow, known by the names of its functions alone.

::

    sandbox.boot("seed.asm", shadow=True,
                 allocator={"allocate": "seed_allocate", "deallocate": "seed_deallocate", "init": "seed_new",
                            "refused": 0})

``allocate(size)`` returns a chunk, or 0; ``deallocate(chunk)`` takes one back; ``refused``, if it is given, is what
``deallocate`` returns for a chunk that it does not take, which stays with its owner then; ``init`` makes everything
free, and begins all of this anew. ``reallocate``, ``allocate_zeroed`` and ``allocate_aligned`` are those of C.

From the entry of one of them to its return, every access by whatever code is the allocator's. What it writes then to
its ground (:mod:`~sandbox.trace.shadow_chunks`) is its own data, except

- bytes that have been part of a chunk before: there it may link what is free;
- bytes of the very chunk that it is about to return: what it has written there before was a header of something that
  is merged with the chunk, or a link. But in a variable from which no chunk has come, while others have given some,
  data that this call has not touched is a table: when the owner writes there, that is a *metadata-write*.

A chunk's bytes are unwritten, unless this call wrote them; what a reallocation carries over is as written as it was,
and the rest is unwritten. A chunk that was taken back must not be touched; and the bytes behind a chunk, up to the next
multiple of 8, are its padding. A chunk that shares a byte with one that was not taken back is an *overlap*, told at
the return of the call.

An allocator that was booted with an arena (``sandbox.boot(allocator=FILE)``) has that too: nobody else may touch a byte
of it that is in no chunk, nor one of the pages that it took during its calls. Its other functions may be called by the
program too: what they do is the allocator's doing, and of memory whose owner only they can know nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..abi import percpu
from ..address import PAGE_SHIFT, PAGE_SIZE
from ..guest.symbols import Symbols
from ..machine.cpu import Cpu
from ..machine.paging import Paging
from ..toolchain.disassembler import Disassembler
from ..toolchain.image import Image
from .callers import LIBRARY
from .capture import Arguments, is_failure
from .foreign_functions import ForeignFunctions, Role, returns
from .functions import Kind
from .ram import Ram, half
from .shadow_chunks import Chunks, ChunksState
from .shadow_objects import Cause, Held
from .shadow_objects import ObjectTable as Table
from .shadow_report import Owner
from .shadow_states import ShadowKind
from .stack import callers


class ForeignCall(NamedTuple):
    """A call that has not returned: its RSP, what it does (None: nobody knows), its arguments, the interrupt depth, and
    the states of the bytes that a reallocation may carry over."""

    rsp: int
    role: Role | None
    arguments: Arguments
    depth: int
    cause: Cause
    kept: bytes = b""


class ForeignState(NamedTuple):
    """All of a :class:`Foreign`, as a value."""

    chunks: ChunksState
    call: ForeignCall | None
    strangers: bool


class Foreign:
    """The calls of one such allocator."""

    def __init__(
        self, known: ForeignFunctions, symbols: Symbols, paging: Paging, table: Table, ram: Ram,
        at_entry: Callable[[], tuple[int, ...]], at_exit: Callable[[], tuple[int, ...]], clock: Callable[[], int],
        accuse: Callable[[ShadowKind, int, int | None, Cause], None],
        accuse_overlap: Callable[[int, int, Owner, Cause], None], divert: Callable[[bool], None],
        arena: range = range(0),
    ) -> None:  # fmt: skip
        self._known = known
        self._symbols = symbols
        self._ram = ram
        self._at_entry = at_entry
        self._at_exit = at_exit
        self._clock = clock
        self._accuse = accuse
        self._accuse_overlap = accuse_overlap
        self._frees = any(role.traced is not None and role.traced.kind is Kind.FREE for role in known.roles.values())
        self._divert = divert
        self._call: ForeignCall | None = None
        self._strangers = False                  # whether a function was called of which nothing is known
        self._cr3 = paging.controls.cr3
        word, self._depth_shift = half(percpu.interrupt_depth)
        self._depth_at = (int(paging.translate(symbols["boot_cpu"])) >> 3) + word
        own = [image for image in symbols.images if any(image.section_at(address) for address in known.roles)]
        self._own = own if arena else []         # who was booted with an arena shares no image with others
        self._images = own
        data, exempt = _data(own if arena else symbols.images[1:], paging)
        self.data = [*([(arena.start, arena.stop)] if arena else []), *data]
        self._chunks = Chunks(table, ram, arena, data, exempt, self._region)

    @property
    def inside(self) -> bool:
        """Whether one of the functions is running, and no interrupt handler has come in between."""
        return self._call is not None and self._depth() == self._call.depth

    @property
    def verbs(self) -> dict[str, str]:
        """What each function does that takes a pointer and is no free, by its name."""
        return {self._symbols.locate(at).symbol: "asks for the size of" if role.usable else "reallocates"
                for at, role in self._known.roles.items()
                if role.traced is not None and role.traced.kind is Kind.REALLOC}

    def chunks(self) -> dict[int, Held]:
        """What was handed out, by pointer."""
        return {pointer: chunk.held for pointer, chunk in self._chunks.known.items()}

    def hook(self, cpu: Cpu) -> None:
        """Watch the functions, and every ``ret`` by which they may return."""
        disassembler = Disassembler()
        cpu.hook_code(self._known.roles, self.enter, replayed=True)
        others = {start for image in self._own for name, (start, _) in image.functions.items()
                  if name not in image.local and not _of_library(image, start)} - set(self._known.roles)
        if others:
            cpu.hook_code(others, self.enter_stranger, replayed=True)
        if self._own:
            cpu.hook_code([int(self._symbols["map_page"])], self.mapped, replayed=True)
        rets = {at for image in self._images for at in returns(self._symbols, image, disassembler)}
        cpu.hook_code(sorted(rets), self.leave, replayed=True)

    def physical(self, pointer: int) -> int:
        """Where a pointer points to, -1 where no RAM is."""
        return self._ram.translate(pointer, self._cr3)

    def find(self, address: int) -> Owner | None:
        """The chunk that a physical address lies in, or behind."""
        return self._chunks.find(address)

    # -- hooks ------------------------------------------------------------------------------------------------
    def enter(self, address: int) -> None:
        """One of the functions begins; a call among themselves is part of the first."""
        call = self._entered(address)
        if call is None:
            return
        role, pointer = self._known.roles[address], call.arguments[0]
        kept = b""
        if role.fresh:
            self._chunks.begin()
        if role.traced is not None and role.traced.object is not None and pointer:
            chunk = self._chunks.known.get(pointer)
            if chunk is None:
                if not self._strangers:
                    self._accuse(ShadowKind.INVALID_FREE, pointer, None, call.cause)
            elif chunk.held.live:
                kept = self._chunks.written(pointer)
            elif chunk.held.asked:               # of no bytes, any number may have the same pointer
                self._accuse(ShadowKind.DOUBLE_FREE, pointer, None, call.cause)
        self._begin_call(call._replace(role=role, kept=kept))

    def enter_stranger(self, address: int) -> None:
        """A function of the allocator begins of which nothing is known; called by itself, it is part of a call."""
        call = self._entered(address)
        back = call.cause.stack[0] if call is not None and call.cause.stack else 0
        if call is None or any(image.section_at(back - 1) for image in self._own):
            return
        if not self._strangers:
            self._strangers = True
            self._chunks.unguard()
        self._begin_call(call)

    def _entered(self, address: int) -> ForeignCall | None:
        """A call that begins, None when it is a part of one that has not returned."""
        rdi, rsi, rdx, rsp, rbp, self._cr3 = self._at_entry()
        open_call = self._call
        if open_call is not None and open_call.rsp > rsp:
            return None
        cause = Cause(address, self._clock(), callers(self._ram, rsp, rbp, self._cr3))
        if open_call is not None and open_call.rsp == rsp and cause.stack[:1] == open_call.cause.stack[:1] \
                and cause.instruction > open_call.cause.instruction:
            return None                          # one that ends in a jump to another, or the same start once more
        return ForeignCall(rsp, None, (rdi, rsi, rdx), self._depth(), cause)

    def _begin_call(self, call: ForeignCall) -> None:
        self._call = call
        self._chunks.begin_call()
        self._divert(True)

    def touched(self, address: int, size: int, write: bool) -> None:
        """The allocator reads or writes."""
        self._chunks.touched(address, size, write)

    def leave(self, _address: int) -> None:
        """A ``ret`` is about to run."""
        call = self._call
        if call is None:
            return
        rax, rsp = self._at_exit()
        if rsp < call.rsp:
            return
        self._call = None
        self._divert(False)
        if rsp == call.rsp:
            self._returned(call, rax)

    def _returned(self, call: ForeignCall, rax: int) -> None:
        """What a call has done, by its arguments and its result."""
        role, chunks, cause = call.role, self._chunks, call.cause
        if role is None:
            chunks.unjudged(rax, self._cr3)
            return
        function, pointer = role.traced, call.arguments[0]
        if function is None:
            return
        if function.kind is Kind.FREE:
            if rax not in self._known.refused:
                chunks.taken_back(pointer, cause)
            return
        asked = function.asked(call.arguments) or 0
        if role.usable:
            held = chunks.known[pointer].held if pointer in chunks.known else None
            if held is not None and held.live and held.asked < rax:
                chunks.handed_out(pointer, rax, self._cr3, held.allocated, kept=call.kept)
            return
        if function.out is not None:
            stored = self._ram.block(call.arguments[function.out], 8, self._cr3)
            rax = 0 if rax & 0xFFFF_FFFF else int.from_bytes(stored, "little")
        failed = is_failure(rax)
        if function.kind is Kind.REALLOC and pointer and (not failed or not asked):
            chunks.taken_back(pointer, cause)
        if failed:
            return
        other = chunks.overlapped(rax, asked, self._cr3) if self._frees and not self._strangers else None
        if other is not None:
            self._accuse_overlap(rax, asked, other, cause)
        resized = function.kind is Kind.REALLOC and pointer
        chunks.handed_out(rax, asked, self._cr3, cause, zeroed=role.zeroed, kept=call.kept[:asked], grown=bool(resized))

    # -- pages ------------------------------------------------------------------------------------------------
    def given(self, start: int, size: int) -> None:
        """Pages that were taken during a call are the allocator's."""
        if self._own and self.inside and not self._strangers:
            self._chunks.pages_given(start, size)

    def mapped(self, _address: int) -> None:
        """``map_page`` begins: a page that the allocator gets an address for is new, whatever was done to clear it."""
        physical = self._at_entry()[1]
        if self._call is not None and physical >> PAGE_SHIFT in self._chunks.pages:
            self._chunks.pages_given(physical & -PAGE_SIZE, PAGE_SIZE)

    def taken(self, start: int, size: int) -> None:
        """Pages that went back are not."""
        self._chunks.pages_taken(start, size)

    def owns(self, start: int) -> bool:
        """Whether a page is the allocator's, or one of its functions is giving it back."""
        return self.inside or start >> PAGE_SHIFT in self._chunks.pages

    def _depth(self) -> int:
        """How many interrupt handlers are running."""
        return self._ram.words[self._depth_at] >> self._depth_shift & 0xFFFF_FFFF

    def _region(self, address: int) -> tuple[int, int]:
        """The variable that an address lies in."""
        image = self._symbols.image_at(address)
        if image is None or image is self._symbols.images[0]:
            return 0, 0
        location = self._symbols.locate(address)
        return address - location.offset, self._symbols.end_of(address)

    # -- as a value -------------------------------------------------------------------------------------------
    def state(self) -> ForeignState:
        """All of it."""
        return ForeignState(self._chunks.state(), self._call, self._strangers)

    def load(self, state: ForeignState | None) -> None:
        """Become what :meth:`state` said; without one, nothing is known of the allocator."""
        self._chunks.load(None if state is None else state.chunks)
        self._call, self._strangers = (None, False) if state is None else (state.call, state.strangers)
        self._divert(self._call is not None)


def _data(images: tuple[Image, ...] | list[Image], paging: Paging) -> tuple[list[tuple[int, int]],
                                                                            list[tuple[int, int]]]:
    """The physical ranges of the images' writable data, page by page, and those in it that are the C library's."""
    data, exempt = [], []
    for image in images:
        section = image.section("data")
        if section is None:
            continue
        for at in range(section.address, section.end, PAGE_SIZE):
            physical = int(paging.translate(at))
            data.append((physical, physical + PAGE_SIZE))
        labels = sorted({at for at in image.symbols.values() if section.address <= at < section.end})
        library = {at for name, at in image.symbols.items() if image.origins.get(name, "").startswith(LIBRARY)}
        for at, end in zip(labels, [*labels[1:], section.end], strict=True):
            if at in library:
                exempt.append((int(paging.translate(at)), int(paging.translate(at)) + end - at))
    return data, exempt


def _of_library(image: Image, address: int) -> bool:
    line = image.line(address)
    return line is not None and line.file.startswith(LIBRARY)
