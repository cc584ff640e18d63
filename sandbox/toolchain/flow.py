"""The control flow of an image's code: what may follow each instruction, how functions are entered, which return.

Functions of assembly have no bounds that one could rely on: they jump to each other's ends, fall into each other, and
have labels in their middle. So the code is a graph of instructions here, followed from its entries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum

from ..x86 import EXCEPTIONS
from .disassembler import Disassembler, Outline
from .image import Image

RETURNS = frozenset({"ret", "retf", "retfq", "iretq", "iretd", "iret", "sysret", "sysretq", "sysexit"})
FAR_RETURNS = frozenset({"retf", "retfq"})
# What may never be gone past: a label behind one of them is a beginning of its own.
_STANDS_STILL = frozenset({"hlt", "ud2", "int3"})
_LOOPS = frozenset({"loop", "loope", "loopne"})
_OUTERMOST = ("_start", "call_return")


class Entry(Enum):
    """How code is entered: what lies on the stack then."""

    CALL = "by a call: the return address"
    INTERRUPT = "by the processor: rip cs rflags rsp ss"
    EXCEPTION = "by the processor: an error code, rip cs rflags rsp ss"
    OUTERMOST = "from nowhere: there is no caller"


class Flow:
    """The graph of ``image``'s instructions. ``others`` are the flows of images that its code calls.

    ``steps`` are the instructions by address, ascending. ``entries`` says how code is entered: where calls go, at the
    stubs of gates, at the very beginning, and at each label that none of this leads to, which must be called from afar.
    ``interrupt_returns`` are the addresses of ``iretq``.
    """

    def __init__(self, image: Image, others: Sequence[Flow] = ()) -> None:
        self.image = image
        self.steps: Mapping[int, Outline] = {step.address: step for step in Disassembler().outline(image)}
        self._others = others
        self._labels = frozenset(image.symbols.values())
        self._targets = {step.address: target(step) for step in self.steps.values() if _branches(step)}
        self._returning = self._find_returning()
        self._successors = {address: tuple(self._follow(step)) for address, step in self.steps.items()}
        self._predecessors = _reversed(self._successors)
        self.entries: Mapping[int, Entry] = self._find_entries()
        self.interrupt_returns = tuple(step.address for step in self.steps.values() if step.mnemonic == "iretq")

    def successors(self, address: int) -> tuple[int, ...]:
        """The instructions of this image that may come next, calls stepped over."""
        return self._successors[address]

    def target(self, address: int) -> int | None:
        """Where a jump or a call at ``address`` goes, None when that is not written in it."""
        return self._targets.get(address)

    def may_return(self, function: int | None) -> bool:
        """Whether a call of ``function`` may come back; of what nobody knows (None), it may."""
        if function in self.steps:
            return function in self._returning
        return all(other.may_return(function) for other in self._others if function in other.steps)

    def component(self, address: int) -> frozenset[int]:
        """All instructions that jumps and falling through tie to the one at ``address``, in either direction."""
        return frozenset(_reach([address], lambda at: (*self._successors[at], *self._predecessors[at])))

    def reachable(self, address: int) -> frozenset[int]:
        """All instructions that may come after the one at ``address``, itself included."""
        return frozenset(_reach([address], self._successors.__getitem__))

    def _follow(self, step: Outline) -> Iterator[int]:
        after, word, goal = step.address + step.size, _word(step), self._targets.get(step.address)
        if goal is not None and goal in self.steps and not word.endswith("call"):
            yield goal
        falls = after in self.steps and word not in ("jmp", "ljmp") and (word not in RETURNS or word in FAR_RETURNS)
        if word in _STANDS_STILL and after in self._labels:
            falls = False
        if falls and (not word.endswith("call") or self.may_return(goal)):
            yield after

    def _find_returning(self) -> set[int]:
        """Every instruction from which a return may be reached: the least set, without what recurs for ever."""
        before: dict[int, list[int]] = defaultdict(list)     # address -> those that go on there unconditionally
        calls: dict[int, list[int]] = defaultdict(list)      # address -> calls of it, and calls that return to it
        found: list[int] = []
        for address, step in self.steps.items():
            after, word, goal = address + step.size, _word(step), self._targets.get(address)
            here = goal is not None and goal in self.steps
            if word.endswith("call"):
                if goal is not None and here:
                    calls[after].append(address)
                    calls[goal].append(address)
                elif self.may_return(goal):
                    before[after].append(address)
                continue
            if goal is not None and here:
                before[goal].append(address)
            elif word in RETURNS or (word in ("jmp", "ljmp") and self.may_return(goal)):
                found.append(address)
            if word not in ("jmp", "ljmp") and not (word in _STANDS_STILL and after in self._labels):
                before[after].append(address)
        returning: set[int] = set()
        while found:
            address = found.pop()
            if address in returning:
                continue
            returning.add(address)
            found += before[address]
            found += [call for call in calls[address]
                      if self._targets[call] in returning and call + self.steps[call].size in returning]
        return returning

    def _find_entries(self) -> dict[int, Entry]:
        entries = {goal: Entry.CALL for address, goal in self._targets.items()
                   if goal is not None and goal in self.steps and _word(self.steps[address]).endswith("call")}
        symbols = self.image.symbols
        entries |= {symbols[name]: Entry.OUTERMOST for name in _OUTERMOST if symbols.get(name) in self.steps}
        entries |= {stub: entry for stub, entry in _stubs(self.image) if stub in self.steps}
        reached = _reach(entries, self._successors.__getitem__)
        for label in sorted(self._labels):
            if label in self.steps and label not in reached:
                entries[label] = Entry.CALL
                reached |= self.reachable(label)
        return entries


def target(step: Outline) -> int | None:
    """The address that a direct jump or call goes to, None for an indirect one."""
    return int(step.operands, 16) if step.operands.startswith("0x") else None


def _stubs(image: Image) -> Iterator[tuple[int, Entry]]:
    """The code that the kernel's gates enter, one stub for each vector (kernel_asm/traps.asm)."""
    first, shift = image.symbols.get("trap_stubs"), image.constants.get("STUB_SHIFT")
    if first is None or shift is None:
        return
    with_error_code = {row.vector for row in EXCEPTIONS if row.has_error_code}
    for vector in range(image.constants.get("VECTORS", 0)):
        yield first + (vector << shift), Entry.EXCEPTION if vector in with_error_code else Entry.INTERRUPT


def _word(step: Outline) -> str:
    """The mnemonic without its prefixes."""
    return step.mnemonic.rpartition(" ")[2]


def _branches(step: Outline) -> bool:
    word = _word(step)
    return word.startswith("j") or word.endswith("call") or word in _LOOPS or word == "ljmp"


def _reversed(edges: Mapping[int, tuple[int, ...]]) -> dict[int, list[int]]:
    back: dict[int, list[int]] = {address: [] for address in edges}
    for address, following in edges.items():
        for after in following:
            back[after].append(address)
    return back


def _reach(starts: Iterable[int], neighbours: Callable[[int], Iterable[int]]) -> set[int]:
    reached = set(starts)
    waiting = list(reached)
    while waiting:
        for at in neighbours(waiting.pop()):
            if at not in reached:
                reached.add(at)
                waiting.append(at)
    return reached
