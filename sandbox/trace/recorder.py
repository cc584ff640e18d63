"""What the hooks call: raw records of entries and exits, and the frames that are open.

An entry opens a frame; a ``ret`` closes every open frame whose RSP it has, so that a function that ends in a jump
to another ends where that one returns. Three things are not calls and not returns:

- an entry at the address and the RSP of the innermost open frame: the instruction was started again, after a fault;
- an entry from an interrupt handler while the interrupted code is inside the allocator: a call of its own, and no
  child of what it interrupted (``percpu.interrupt_depth`` tells the two apart);
- frames that the guest will not come back to, because their stack was taken back or because the clock is not past
  their entry any more (a rewind): they are given up, and stay unfinished.

A record is one tuple made at the entry and one made at the exit, and what they hold is read by the functions of
:mod:`~sandbox.trace.capture`. Names, lines and trees come later, outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..abi import percpu
from .capture import Arguments, Capture, Found, captures
from .functions import Traced
from .ram import NOTHING, Ram, Thing
from .stack import callers

Entry = tuple[int, int, int, int, tuple[int, ...], Arguments, Thing, Found]
"""A call: address of the function, count at the entry, number of the record that it lies below (-1: none), CPU,
return addresses, arguments, what was there before, and the objects that a bulk free was given. It holds numbers and
tuples of numbers alone, so that Python's garbage collector need not look at it again."""

Exit = tuple[int, "int | None", Thing, Found]
"""A return: count behind it, RAX (None for a frame that was given up), what is at the address now, and the objects
that a bulk allocation returned."""

AT_ENTRY = ("rdi", "rsi", "rdx", "rsp", "rbp", "cr3")
AT_EXIT = ("rax", "rsp")
"""The registers that the recorder reads, in this order."""

_CPU_WORD = percpu.cpu.offset >> 3
assert percpu.interrupt_depth.offset == percpu.cpu.offset + 4


class Recorder:
    """Entries and exits of the traced functions.

    ``functions`` are those functions by address; ``at_entry`` and ``at_exit`` read the registers above; ``clock``
    gives the instructions started before the one that is about to run; ``cpu_data`` is the physical address of this
    CPU's ``struct percpu``; ``settled`` is called when no frame is open any more.
    """

    def __init__(
        self,
        functions: Mapping[int, Traced],
        ram: Ram,
        at_entry: Callable[[], tuple[int, ...]],
        at_exit: Callable[[], tuple[int, ...]],
        clock: Callable[[], int],
        cpu_data: int,
    ) -> None:
        self.entries: list[Entry] = []
        self.exits: list[Exit | None] = []
        self.settled: Callable[[], None] | None = None
        self.functions = functions
        self._captures = {address: captures(function) for address, function in functions.items()}
        self._ram = ram
        self._at_entry = at_entry
        self._at_exit = at_exit
        self._clock = clock
        self._cpu = (cpu_data >> 3) + _CPU_WORD
        # innermost last: number of the record, RSP, address, interrupt depth, CR3, what to capture, arguments
        self._open: list[tuple[int, int, int, int, int, Capture, Arguments]] = []
        self._stacks: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def complete(self) -> int:
        """How many records, from the first on, are finished with everything below them."""
        return self._open[0][0] if self._open else len(self.entries)

    def discard(self) -> bool:
        """Forget all records, when no frame is open and so none is needed any more; whether there still are some."""
        if not self._open:
            self.entries.clear()
            self.exits.clear()
        return bool(self.entries)

    # -- hooks ------------------------------------------------------------------------------------------------
    def enter(self, address: int) -> None:
        """The first instruction of a traced function is about to run."""
        rdi, rsi, rdx, rsp, rbp, cr3 = self._at_entry()
        clock = self._clock()
        ram, opened = self._ram, self._open
        word = ram.words[self._cpu]
        depth = word >> 32
        parent = -1
        if opened:
            record, top, where, level, *_ = opened[-1]
            if top == rsp and where == address and level == depth and clock > self.entries[record][1]:
                return
            parent = self._parent(rsp, depth, clock)
        capture = self._captures[address]
        stack = callers(ram, rsp, rbp, cr3)
        stack = self._stacks.setdefault(stack, stack)
        arguments = (rdi, rsi, rdx)
        before, objects = capture.before(ram, arguments, cr3)
        entries = self.entries
        opened.append((len(entries), rsp, address, depth, cr3, capture, arguments))
        entries.append((address, clock, parent, word & 0xFFFF_FFFF, stack, arguments, before, objects))
        self.exits.append(None)

    def leave(self, _address: int) -> None:
        """A ``ret`` of the allocator's text is about to run."""
        opened = self._open
        if not opened:
            return
        rax, rsp = self._at_exit()
        if opened[-1][1] > rsp:
            return                                              # the return of a function inside the traced one
        depth = self._ram.words[self._cpu] >> 32
        clock = self._clock() + 1
        while opened and opened[-1][1] <= rsp and opened[-1][3] >= depth:
            record, top, _, level, cr3, capture, arguments = opened.pop()
            if top == rsp and level == depth:
                after, objects = capture.after(self._ram, rax, arguments, cr3)
                self.exits[record] = (clock, rax, after, objects)
            else:
                self.exits[record] = (clock, None, NOTHING, ())
        if not opened and self.settled is not None:
            self.settled()

    def give_up(self) -> None:
        """Close every open frame as unfinished: the guest will not come back to it."""
        if not self._open:
            return
        clock = self._clock()
        while self._open:
            self._abandon(clock)
        if self.settled is not None:
            self.settled()

    # -- frames -----------------------------------------------------------------------------------------------
    def _parent(self, rsp: int, depth: int, clock: int) -> int:
        """The record that a new frame lies below, -1 for none; frames that are gone are given up on the way."""
        opened = self._open
        while opened:
            record, top, _, level, *_ = opened[-1]
            if level < depth or (level == depth and top >= rsp and clock > self.entries[record][1]):
                break
            self._abandon(clock)
        return opened[-1][0] if opened and opened[-1][3] == depth else -1

    def _abandon(self, clock: int) -> None:
        """Give the innermost frame up."""
        record = self._open.pop()[0]
        self.exits[record] = (max(clock, self.entries[record][1]), None, NOTHING, ())
