"""What is learned about code before it runs, for two things that the engine does not tell.

*When interrupts become allowed.* While an interrupt waits for IF, the machine must stop right behind the instruction
that sets it: each ``sti``, ``popf`` and ``iret`` in a page of code is noted when the page first runs.

*Which starts do not count.* A store into the very block that is running makes the engine start it a second time,
alone, after it has forgotten the block. By our clock the two are one start. The first shows as a MEM_WRITE in a frame
with code; the second as the same instruction, begun right after it with the same registers (MEM_WRITE comes again for
aligned stores alone: after any other the engine calls no memory hook until it is left, so it is left). Frames that no
page lets the guest write are not looked at: a kernel whose text is read-only pays nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from typing import Protocol

from ..address import PAGE_SIZE, page_down
from ..errors import TranslationError
from ..x86 import GENERAL_REGISTERS
from .memory import PhysicalMemory
from .paging import Paging
from .run import Run

# Instructions after which interrupts may have become allowed: sti, popf, iret, with or without the prefixes that
# change their operand size. Where they overlap, both are found.
_MAY_SET_IF = re.compile(rb"(?=[\xfb\x9d\xcf]|[\x48\x66][\xfb\x9d\xcf])")
# First bytes of instructions that end every block: rep, call, jumps, returns, escapes to the two-byte opcodes.
_ENDS_BLOCK = frozenset((0x0F, 0xF2, 0xF3, 0xE8, 0xE9, 0xEB, 0xFF, 0xC2, 0xC3, 0xCC, 0xCD, 0xCF, *range(0x70, 0x80)))
# Of the pages that ran, and of their instructions that may set IF, so many are known at a time. One frame may be
# mapped at any number of addresses.
LEARNED_MAXIMUM, SITES_MAXIMUM = 1 << 14, 1 << 16
_PACKED = struct.Struct("<17Q")  # the general registers and RIP

Handlers = dict[int, list[Callable[[int], None]]]


class CodeHost(Protocol):
    """What is asked of the CPU."""

    def __getitem__(self, name: str) -> int:
        """A register."""

    def mark(self, at: int, handler: Callable[[int], None], table: Handlers) -> None:
        """Call ``handler`` before the instruction at ``at``."""

    def unmark(self, at: int, handler: Callable[[int], None], table: Handlers) -> None:
        """No longer."""

    def watch_stores(self, begin: int, end: int, callback: Callable[[int, int], None]) -> None:
        """Call ``callback(address, size)`` at stores to physical bytes."""

    def register_reader(self, names: Iterable[str]) -> Callable[[], tuple[int, ...]]:
        """A function that reads registers."""


class CodeWatch:
    """Knows the code of one CPU; ``host()`` is the CPU, which owns it."""

    def __init__(self, memory: PhysicalMemory, paging: Paging, run: Run, host: Callable[[], CodeHost]) -> None:
        self.memory = memory
        self.paging = paging
        self._run = run
        self._host = host
        self._sites: set[int] = set()  # where instructions lie that may set IF
        self._watching_sites = False
        self._watched_frames: set[int] = set()  # numbers of frames with code whose stores are looked at
        self._rights = (0, 0)  # CR0 and CR3 when the watched frames were last chosen
        self._unaligned = False  # the last of those stores
        self._storing: set[int] = set()  # instructions that stored into watched frames
        self._read: Callable[[], tuple[int, ...]] | None = None

    def watch_interrupt_flag(self, watch: bool) -> None:
        """While an interrupt waits for IF: stop before each instruction that may set it."""
        if watch == self._watching_sites:
            return
        self._watching_sites = watch
        change = self._host().mark if watch else self._host().unmark
        for at in self._sites:
            change(at, self._run.at_site, self._run.handlers)

    def rights_are(self, cr0: int, cr3: int) -> None:
        """A slice begins under these control registers."""
        if (cr0, cr3) != self._rights:
            self._rights = cr0, cr3
            self.watch_what_became_writable()

    def learn(self, start: int, size: int) -> None:
        """Code at ``start`` is going to run."""
        first, last = page_down(start), page_down(start + size - 1)
        for page in (first,) if first == last else (first, last):
            frame = self._frame(page)
            if frame is not None and (page, frame) not in self._run.learned:
                self._learn_page(page, frame)
                if frame // PAGE_SIZE not in self._watched_frames and self.paging.can_be_written(frame):
                    self._watch(frame)

    def _frame(self, page: int) -> int | None:
        frame = self.paging.reach(page, False, self._host()["cr3"])
        if frame is None:
            try:
                return self.paging.translate(page)
            except TranslationError:
                return None
        return frame

    def _learn_page(self, page: int, frame: int) -> None:
        """Note which instructions in a page may set IF; interrupts may wait for one of them."""
        if len(self._run.learned) >= LEARNED_MAXIMUM or len(self._sites) >= SITES_MAXIMUM:
            self._forget_pages()
        self._run.learned.add((page, frame))
        self._run.code_pages.add(frame // PAGE_SIZE)
        if not self.memory.contains(frame, PAGE_SIZE):
            return
        code = self.memory.read(frame, PAGE_SIZE)
        for found in {page + match.start() for match in _MAY_SET_IF.finditer(code)} - self._sites:
            self._sites.add(found)
            if self._watching_sites:
                self._host().mark(found, self._run.at_site, self._run.handlers)

    def _forget_pages(self) -> None:
        """Learn all pages anew, each when its code is translated anew."""
        self.watch_interrupt_flag(False)  # the machine turns it on again before the next instruction, where it must
        self._sites.clear()
        self._run.learned.clear()
        self._run.flush_code = True
        if self._run.active:
            self._run.reschedule()

    def _watch(self, frame: int) -> None:
        first = not self._watched_frames
        self._watched_frames.add(frame // PAGE_SIZE)
        flush = self._run.flush_code
        self._host().watch_stores(max(frame - 63, 0), frame + PAGE_SIZE, self._stored)
        self._run.flush_code = flush or first  # code that was translated with one such hook obeys later ones too
        if first and self._run.active:
            self._run.reschedule()

    def watch_what_became_writable(self) -> bool:
        """Watch the frames with code that no page let the guest write when they were learned; True if there are any."""
        frames = {frame for _, frame in self._run.learned if frame // PAGE_SIZE not in self._watched_frames}
        found = [frame for frame in sorted(frames) if self.paging.can_be_written(frame)]
        for frame in found:
            self._watch(frame)
        if found:
            self._run.flush_code = True
        return bool(found)

    def doubt(self, start: int, size: int) -> None:
        """A block of one instruction was left. If others would not end with it, and its page can be written since it
        was learned, it was the second start of a store."""
        frame = self._frame(page_down(start))
        if frame is None or frame // PAGE_SIZE in self._watched_frames or not self.memory.contains(frame, PAGE_SIZE):
            return
        code = self.memory.read(frame + start % PAGE_SIZE, 1)[0]
        if size > 1 and code not in _ENDS_BLOCK and self.paging.can_be_written(frame):
            self._run.started_twice()
            self._watch(frame)
            self._run.reschedule()

    def _stored(self, address: int, size: int) -> None:
        """A store into a watched frame is about to happen."""
        run, host = self._run, self._host()
        run.stored_code(address, size)
        if self._read is None:
            self._read = host.register_reader((*GENERAL_REGISTERS, "rip"))
        registers = self._read()
        run.store_count, run.store_state = run.counter.value, _PACKED.pack(*registers)
        self._unaligned = bool(address % size)
        if registers[16] not in self._storing:
            self._storing.add(registers[16])
            host.mark(registers[16], self._started, run.handlers)

    def _started(self, address: int) -> None:
        """An instruction starts that is known to store into code; perhaps for the second time."""
        run = self._run
        if self._read is None or run.counter.value != run.store_count + 1:
            return
        if _PACKED.pack(*self._read()) == run.store_state:
            run.started_twice()
            run.limit.value -= run.granted
            run.granted = False
            run.store_done()
            if self._unaligned:
                run.stop_soon()
