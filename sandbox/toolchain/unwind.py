"""Where each instruction's caller is to be found: the rules by which a stack is unwound, worked out from the code.

A compiler writes these rules down beside its code (DWARF 4, section 6.4), and is believed. Nobody does for assembly, so
each function is followed from its entry with what is certain: which registers and which words of the stack hold a known
distance from the CFA, or a register as the caller had it. Where two ways to an instruction disagree, nothing is certain
any more.

The CFA, the canonical frame address, is RSP as it was before the call pushed the return address::

    CFA           the caller's stack                CFA       behind what the processor pushed
    CFA - 8       return address                    CFA - 40  rip cs rflags rsp ss of the interrupted code
    CFA - 16      the function's own    (a call)    CFA - 48  the error code, where there is one     (an interrupt)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ..x86 import GENERAL_REGISTERS
from .disassembler import Detail, Disassembler, Outline
from .flow import Entry, Flow
from .image import FrameRow, Image
from .stack_effects import SCRATCH, State, Value, after, entry_state

_FRAME_REGISTERS = ("rsp", "rbp", *(name for name in GENERAL_REGISTERS if name not in ("rsp", "rbp")))


@dataclass(frozen=True)
class Rule:
    """Where the frame of an instruction, about to run, has its caller's registers.

    CFA = ``cfa_register`` + ``cfa_offset``. ``saved`` are the registers whose values as the caller has them lie at an
    offset from the CFA, ``held`` those that lie in another register meanwhile, ``lost`` those that are gone; all others
    are unchanged. RIP is among them, by this name. RSP is the CFA itself, unless ``saved`` has it, as it does in an
    ``interrupt``: there the caller is the interrupted code, and its RIP is not behind a call.
    """

    cfa_register: str
    cfa_offset: int
    saved: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    interrupt: bool = False

    @property
    def outermost(self) -> bool:
        """Whether there is no caller."""
        return "rip" in self.lost


CALLED = Rule("rsp", 8, {"rip": -8})
"""At the first instruction of a function."""
INTERRUPTED = Rule("rsp", 40, {"rip": -40, "rflags": -24, "rsp": -16}, interrupt=True)
"""At the first instruction of an interrupt's code."""
OUTERMOST = Rule("rsp", 8, lost=frozenset({*GENERAL_REGISTERS, "rip"} - {"rsp"}))
"""Of code that nobody called; its CFA means nothing."""


class Unwind:
    """The rules of several images, the kernel's first: each piece of code is worked out when it is asked about."""

    def __init__(self, *images: Image) -> None:
        self._codes: list[_Code] = []
        for image in images:
            alone = image.source_hash and not self._codes
            self._codes.append(_kernel_code(_Identity(image.base, image.source_hash, image)) if alone
                               else _Code(image, tuple(self._codes)))

    def rule(self, address: int) -> Rule | None:
        """The rule of the instruction whose bytes hold ``address``; None where nothing is certain, or no code is.

        For a caller's frame, ask about its return address - 1, which lies in the call.
        """
        for code in self._codes:
            row = code.row(address)
            if row is not None:
                return row
            start = code.start_of(address)
            if start is not None:
                return code.rule(start)
        return None

    def rules(self, image: Image) -> Iterator[tuple[int, int, Rule | None]]:
        """Address, size and rule of every instruction of an image, ascending."""
        for code in self._codes:
            if code.flow.image.base == image.base:
                for step in code.flow.steps.values():
                    yield step.address, step.size, code.row(step.address) or code.rule(step.address)

    def states_of(self, image: Image, start: int, end: int) -> Iterator[tuple[int, int, State | None]]:
        """Address, size and what is certain of the instructions from ``start`` up to ``end``, had they been entered by
        a call of ``start`` and not else: also where others jump there, "was rdi" is then what RDI was at ``start``."""
        for code in self._codes:
            if code.flow.image.base == image.base:
                yield from code.states_of(start, end)


class _Code:
    """The rules of one image; ``others`` are the images that it calls."""

    def __init__(self, image: Image, others: tuple[_Code, ...] = ()) -> None:
        self.flow: Flow = Flow(image, tuple(other.flow for other in others))
        self._others = others
        self._addresses = list(self.flow.steps)
        self._rows = image.frames
        self._row_starts = [row.start for row in image.frames]
        self._disassembler = Disassembler()
        self._effects: dict[int, Detail] = {}
        self._states: dict[int, State | None] = {}
        self._rules: dict[int, Rule | None] = {}
        self._popped: dict[int, int | None] = {}

    def row(self, address: int) -> Rule | None:
        """What the compiler says of the code at ``address``."""
        at = bisect_right(self._row_starts, address) - 1
        return _compiled(self._rows[at]) if at >= 0 and address < self._rows[at].end else None

    def start_of(self, address: int) -> int | None:
        """Where the instruction whose bytes hold ``address`` begins."""
        at = bisect_right(self._addresses, address) - 1
        if at < 0:
            return None
        step = self.flow.steps[self._addresses[at]]
        return step.address if address < step.address + step.size else None

    def rule(self, start: int) -> Rule | None:
        """The rule of the instruction at ``start``."""
        if start not in self._rules:
            state = self._state(start)
            self._rules[start] = None if state is None else _rule(state)
        return self._rules[start]

    def states_of(self, start: int, end: int) -> Iterator[tuple[int, int, State | None]]:
        """See :meth:`Unwind.states_of`."""
        states = self._solve({start: Entry.CALL}, range(start, end))
        for at in self._addresses[bisect_left(self._addresses, start) : bisect_left(self._addresses, end)]:
            yield at, self.flow.steps[at].size, states.get(at)

    def popped(self, function: int | None) -> int | None:
        """How many bytes of its caller's stack ``function`` takes off when it returns (``ret 40``).

        None when that is not certain, as of one that is being worked out itself because it calls itself.
        """
        if function is None or function not in self.flow.steps:
            return next((other.popped(function) for other in self._others if function in other.flow.steps), 0)
        if function not in self._popped:
            pops = [at for at in self.flow.reachable(function) if _takes_off(self.flow.steps[at])]
            self._popped[function] = None if pops else 0
            if pops:
                self._popped[function] = self._agreed({self._left(at) for at in pops})
        return self._popped[function]

    @staticmethod
    def _agreed(found: set[int | None]) -> int | None:
        return found.pop() if len(found) == 1 else None

    def _left(self, ret: int) -> int | None:
        state = self._state(ret)
        rsp = None if state is None else state.rsp
        return None if rsp is None else rsp + 8 + int(self.flow.steps[ret].operands, 0)

    def _state(self, start: int) -> State | None:
        if start not in self._states:
            component = self.flow.component(start)
            states = self._solve({at: self._entered(at, entry) for at, entry in self.flow.entries.items()
                                  if at in component})
            self._states |= {at: states.get(at) for at in component}
        return self._states[start]

    def _entered(self, at: int, entry: Entry) -> Entry:
        """How code is entered that might be called, but ends in ``iretq``: by what lies on its stack then."""
        ends = [end for end in self.flow.interrupt_returns if entry is Entry.CALL and end in self.flow.reachable(at)]
        if not ends:
            return entry
        states = self._solve({at: entry})
        left = self._agreed({states[end].rsp if end in states else None for end in ends})
        return _LEFT_BY_IRETQ.get(left, entry)

    def _solve(self, entries: Mapping[int, Entry], within: range | None = None) -> dict[int, State]:
        """What is certain at every instruction (``within`` a range) that may come after the entries."""
        states = {at: entry_state(entry) for at, entry in entries.items()}
        waiting = sorted(states, reverse=True)
        while waiting:
            at = waiting.pop()
            following = self.flow.successors(at)
            if not following:
                continue
            state = self._after(states[at], at)
            for goal in following:
                if within is not None and goal not in within:
                    continue
                before = states.get(goal)
                joined = state if before is None else before.joined(state)
                if joined is not before and joined != before:
                    states[goal] = joined
                    waiting.append(goal)
        return states

    def _after(self, state: State, at: int) -> State:
        effect = self._effect(at)
        return after(state, effect, self.popped(self.flow.target(at)) if _calls(effect) else 0)

    def _effect(self, at: int) -> Detail:
        if at not in self._effects:
            text = self.flow.image.section("text")
            size = self.flow.steps[at].size
            assert text is not None
            effect = self._disassembler.detail(text.data[at - text.address : at - text.address + size], at)
            assert effect is not None
            self._effects[at] = effect
        return self._effects[at]


# How far RSP is from the CFA of a call at an iretq: where it was at the entry, or behind an error code on top of that.
_LEFT_BY_IRETQ: Mapping[int | None, Entry] = {-8: Entry.INTERRUPT, 0: Entry.EXCEPTION}


@dataclass(frozen=True)
class _Identity:
    """What an assembled image is known by."""

    base: int
    source_hash: str
    image: Image = field(compare=False)


@lru_cache(maxsize=4)
def _kernel_code(identity: _Identity) -> _Code:
    """The code of a kernel: many guests run the same one."""
    return _Code(identity.image)


def _calls(effect: Detail) -> bool:
    return effect.name.endswith("call")


def _takes_off(step: Outline) -> bool:
    return step.mnemonic.endswith("ret") and bool(step.operands)


def _compiled(row: FrameRow) -> Rule:
    """The rule that a compiler's row amounts to: of registers that a call preserves it says where they are, if it has
    changed them, and of all others nothing."""
    return Rule(row.cfa_register, row.cfa_offset, row.saved, lost=frozenset(SCRATCH) - row.saved.keys())


def _rule(state: State) -> Rule | None:
    """The rule that a state amounts to, None when it does not tell where the CFA or the return address is."""
    if state.entry is Entry.OUTERMOST:
        return OUTERMOST
    register = next((name for name in _FRAME_REGISTERS if state.distance(name) is not None), None)
    if state.entry is None or register is None:
        return None
    interrupt = state.entry is not Entry.CALL
    kept = {name for name, value in state.registers.items() if value == Value("was", name)}
    # Of several copies on the stack, the one that was made first is the one that counts.
    saved = {str(value.what): offset for offset, value in sorted(state.words.items()) if value.kind == "was"}
    held = {str(value.what): name for name, value in sorted(state.registers.items()) if value.kind == "was"}
    if "rip" not in saved and "rip" not in held:
        return None
    wanted = {"rip", *GENERAL_REGISTERS, "rflags"} - kept if interrupt else {"rip", *GENERAL_REGISTERS} - kept - {"rsp"}
    saved = {name: offset for name, offset in saved.items() if name in wanted}
    held = {name: register for name, register in held.items() if name in wanted and name not in saved}
    return Rule(register, -(state.distance(register) or 0), saved, held,
                frozenset(wanted - saved.keys() - held.keys()), interrupt)
