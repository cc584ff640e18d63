"""Every store of a call, judged as it happens: into the allocator's own memory, into a live chunk, or elsewhere.

A hook on all of RAM hears of each store, whoever makes it and through whichever mapping. Code of the kernel may write
the kernel's data; its helpers (``memset``, ``list_add``) write for the allocator when that has called them. Pages that
the allocator's code takes by ``get_free_pages`` are its own until it gives them back. Everybody may lock the console:
the C library's ``printf``, a part of the allocator's image, does as the kernel's ``kprintf`` does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple

from ..abi import DIRECT_MAP, MAX_ORDER
from ..address import PAGE_SHIFT, PAGE_SIZE
from ..errors import GuestMemoryError
from ..kernel import Kernel
from ..machine.hooks import Hook
from ..toolchain.disassembler import Disassembler
from ..trace.shadow_states import HELPER_CODE
from .places import Pieces, Places

FOREIGN, OWN, LIVE, STACK = 0, 1, 2, 3
_ALLOWED = bytes((OWN, STACK))
_STACK_WORDS = 16
_LOCK_SIZE = 4
_LOCKS = "spinlock.asm"


class Store(NamedTuple):
    """A store that must not be: into a live chunk (``live``), or outside of what the allocator may write."""

    physical: int
    size: int
    live: bool
    who: str


class StoreWatch:
    """Watches one kernel, which it does not keep alive.

    ``wrong`` is the first store of the present call that must not be; ``pages`` are the allocator's own that were
    written or handed out, ``given`` those that were handed out; ``given_back`` counts those that went back to the page
    allocator.
    """

    def __init__(self, kernel: Kernel, places: Places) -> None:
        self.wrong: Store | None = None
        self.pages: set[int] = set()
        self.given: set[int] = set()
        self.given_back = 0
        self._places = places
        self._symbols = kernel.symbols
        self._kernel = weakref.ref(kernel)
        self._where = kernel.machine.cpu.register_reader(("rip", "rsp"))
        self._kernel_text = range(kernel.image.base, kernel.image.text_end)
        self._helpers: dict[int, bool] = {}      # by address, as far as it was asked
        self._console_lock = int(kernel.memory.translate(kernel.symbols["console_lock"]))
        self._own = bytearray(len(kernel.physical))
        for place in places.own:
            self._own[place.physical : place.physical + place.size] = bytes([OWN]) * place.size
        stack = places.stack
        depth = int(kernel.registers["rsp"]) - stack.virtual
        self._own[stack.physical : stack.physical + depth] = bytes([STACK]) * depth
        self._states = bytearray(self._own)
        self._asked: tuple[int, int] | None = None       # RSP and order of its call of get_free_pages
        self._call = kernel.machine.cpu.register_reader(("rdi", "rsi", "rsp", "rax"))
        self._outside = int(kernel.symbols["call_return"])
        kernel.machine.cpu.hook_memory(0, len(kernel.physical), self._stored, write=True)
        self._hook_pages(kernel)

    def _hook_pages(self, kernel: Kernel) -> None:
        """Hear of the pages that the allocator takes and gives back."""
        cpu, name = kernel.machine.cpu, "get_free_pages"
        cpu.hook_code([int(kernel.symbols[name])], self._pages_asked)
        cpu.hook_code(Disassembler().rets(kernel.image, name), self._pages_given)
        cpu.hook_code([int(kernel.symbols["free_pages"])], self._pages_back)

    def reset(self) -> None:
        """Nothing is live, nothing was touched."""
        self._states[:] = self._own
        self._places.frames.clear()
        self._asked = None
        self.pages.clear()
        self.given.clear()
        self.given_back = 0
        self.wrong = None

    def hold(self, pieces: Pieces) -> None:
        """A chunk has an owner: the allocator may not write it."""
        for physical, size in pieces:
            self._states[physical : physical + size] = bytes([LIVE]) * size
            pages = range(physical >> PAGE_SHIFT, (physical + max(size, 1) - 1 >> PAGE_SHIFT) + 1)
            self.pages.update(pages)
            self.given.update(pages)

    def release(self, pieces: Pieces) -> None:
        """It has none any more."""
        for physical, size in pieces:
            self._states[physical : physical + size] = bytes([OWN]) * size

    def live(self, pieces: Pieces) -> bool:
        """Whether some of these bytes are held."""
        return any(self._states.find(LIVE, physical, physical + max(size, 1)) >= 0 for physical, size in pieces)

    # -- pages ------------------------------------------------------------------------------------------------
    def _pages_asked(self, _address: int) -> None:
        order, _, rsp, _ = self._call()
        if self._by_allocator(rsp):
            self._asked = rsp, order

    def _pages_given(self, _address: int) -> None:
        asked = self._asked
        _, _, rsp, rax = self._call()
        if asked is None or asked[0] != rsp:
            return
        self._asked = None
        start, size = rax - DIRECT_MAP, PAGE_SIZE << min(asked[1], MAX_ORDER)
        if 0 <= start <= len(self._states) - size:
            self._own_pages(start, size, OWN)
            self._places.takes_pages = True

    def _pages_back(self, _address: int) -> None:
        pointer, order, rsp, _ = self._call()
        start, size = pointer - DIRECT_MAP, PAGE_SIZE << min(order, MAX_ORDER)
        if self._by_allocator(rsp) and 0 <= start <= len(self._states) - size:
            self._own_pages(start, size, FOREIGN)

    def _own_pages(self, start: int, size: int, state: int) -> None:
        frames = set(range(start >> PAGE_SHIFT, (start + size) >> PAGE_SHIFT))
        if state == FOREIGN:
            frames &= self._places.frames
            self._places.frames -= frames
            self.given_back += len(frames)
        else:
            self._places.frames |= frames
        for frame in frames:
            self._states[frame << PAGE_SHIFT : (frame + 1) << PAGE_SHIFT] = bytes([state]) * PAGE_SIZE

    def _by_allocator(self, rsp: int) -> bool:
        """Whether a function that begins was called by the allocator's code, or is what it ends in."""
        kernel = self._kernel()
        try:
            back = kernel.machine.virtual.u64(rsp) if kernel is not None else 0
        except GuestMemoryError:
            return False
        return back == self._outside or back - 1 in self._places.text

    # -- stores -----------------------------------------------------------------------------------------------

    def watch_reads(self, told: Callable[[int, int, str], None]) -> Hook:
        """Call ``told(physical, size, who)`` when code of the allocator reads a live chunk, as long as the hook is
        there."""
        kernel = self._kernel()
        assert kernel is not None

        def read(_kind: str, address: int, size: int, _value: int) -> None:
            first = self._states.find(LIVE, address, address + size)
            if first >= 0 and (culprit := self._culprit(*self._where())) is not None:
                told(first, size, self._name(culprit))

        return kernel.machine.cpu.hook_memory(0, len(kernel.physical), read, read=True)

    def _stored(self, _kind: str, address: int, size: int, _value: int) -> None:
        states = self._states[address : address + size]
        if not states.translate(None, _ALLOWED):
            if states[0] == OWN:
                self.pages.add(address >> PAGE_SHIFT)
            return
        if self.wrong is not None:
            return
        rip, rsp = self._where()
        culprit = self._culprit(rip, rsp)
        live = states.find(LIVE)
        if live < 0 and (culprit is None or self._locks_console(rip, address, size)):
            return
        first = live if live >= 0 else next(at for at, state in enumerate(states) if state not in _ALLOWED)
        self.wrong = Store(address + first, size, live >= 0, self._name(rip if culprit is None else culprit))

    def _culprit(self, rip: int, rsp: int) -> int | None:
        """The address of the allocator's code that a store is to be blamed on; None for the kernel's own."""
        if rip in self._places.text:
            return rip
        if not self._helper(rip):
            return None if rip in self._kernel_text else rip
        kernel = self._kernel()
        for index in range(_STACK_WORDS) if kernel is not None else ():
            try:
                word = kernel.machine.virtual.u64(rsp + 8 * index) if kernel is not None else 0
            except GuestMemoryError:
                return None
            if self._symbols.in_text(word - 1) and not self._helper(word - 1):
                return word - 1 if word in self._places.text else None
        return None

    def _locks_console(self, rip: int, address: int, size: int) -> bool:
        """Whether the kernel's own code for locks takes the console's, or gives it back."""
        if not self._console_lock <= address <= address + size <= self._console_lock + _LOCK_SIZE:
            return False
        line = self._symbols.line(rip) if rip in self._kernel_text else None
        return line is not None and line.file.rsplit("/", 1)[-1] == _LOCKS

    def _helper(self, address: int) -> bool:
        known = self._helpers.get(address)
        if known is None:
            line = self._symbols.line(address)
            known = self._helpers[address] = line is not None and line.file.rsplit("/", 1)[-1] in HELPER_CODE
        return known

    def _name(self, address: int) -> str:
        return str(self._symbols.locate(address))
