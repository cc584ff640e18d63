"""What an instruction does to what is known about a stack frame: an abstract interpretation, one step of it.

Known are registers and words of the frame whose value is one of three things, whatever the function was called with::

    cfa + 16          a certain distance from the CFA
    was rbx           what the caller had in a register; ``was rip`` is the return address
    code 0x...        an address in the code

Everything else is unknown. A store through a pointer that is unknown is taken to leave the frame's own words alone, as
compilers take it; words below RSP are nobody's, for an interrupt may overwrite them at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar

from ..x86 import GENERAL_REGISTERS
from .disassembler import DecodedMemory, Detail
from .flow import FAR_RETURNS, Entry

SCRATCH = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11")
"""What a call may change (System V)."""
_WORD = 8

_Key = TypeVar("_Key", int, str)


class Value(NamedTuple):
    """``cfa`` with an offset, ``was`` with a register's name, or ``code`` with an address."""

    kind: Literal["cfa", "was", "code"]
    what: int | str


def _wholes() -> dict[str, str]:
    """The general register that each name of a part of one belongs to."""
    wholes: dict[str, str] = {}
    for name in GENERAL_REGISTERS:
        letters = name[1:]
        if letters.isdecimal():
            wholes |= {name + suffix: name for suffix in ("d", "w", "b")}
        elif letters.endswith("x"):
            wholes |= dict.fromkeys((f"e{letters}", letters, f"{letters[0]}l", f"{letters[0]}h"), name)
        else:
            wholes |= dict.fromkeys((f"e{letters}", letters, f"{letters}l"), name)
    return wholes


_WHOLE = _wholes()
_RETURN_ADDRESS = Value("was", "rip")


class State(NamedTuple):
    """What is known before an instruction: of registers, and of the stack's words by their offset from the CFA.

    ``entry`` says how the function was entered, None when that is not certain; an error code makes no difference.
    """

    entry: Entry | None
    registers: Mapping[str, Value]
    words: Mapping[int, Value]

    @property
    def rsp(self) -> int | None:
        """RSP's distance from the CFA."""
        return self.distance("rsp")

    def distance(self, register: str) -> int | None:
        """A register's distance from the CFA, None when it is not known."""
        return _offset(self.registers.get(register))

    def joined(self, other: State) -> State:
        """What holds in both."""
        if self == other:
            return self
        if self.entry is not other.entry:
            return State(None, {}, {})
        return State(self.entry, _common(self.registers, other.registers), _common(self.words, other.words))


def entry_state(entry: Entry) -> State:
    """What is known at the first instruction of code that is entered so."""
    was = {name: Value("was", name) for name in GENERAL_REGISTERS}
    if entry is Entry.OUTERMOST:
        return State(entry, {}, {})
    if entry is Entry.CALL:
        return State(entry, was | {"rsp": Value("cfa", -8)}, {-8: Value("was", "rip")})
    pushed = {-40: Value("was", "rip"), -24: Value("was", "rflags"), -16: Value("was", "rsp")}
    rsp = Value("cfa", -40 if entry is Entry.INTERRUPT else -48)
    return State(Entry.INTERRUPT, was | {"rsp": rsp}, pushed)


def after(state: State, effect: Detail, popped: int | None = 0) -> State:
    """What is known behind an instruction; ``popped`` is what the function that it calls takes off the stack."""
    if not state.registers and not state.words:
        return state
    step = _Step(state, effect.instruction.end)
    handler = _HANDLERS.get(effect.name)
    if effect.name.endswith("call"):
        step.call(popped)
    elif handler is not None and all(operand.size == _WORD for operand in effect.operands):
        handler(step, effect)
    else:
        step.other(effect)
    return step.state()


class _Step:
    """A state that is being changed."""

    def __init__(self, state: State, following: int) -> None:
        self._entry = state.entry
        self.registers = dict(state.registers)
        self.words = dict(state.words)
        self._following = following

    def state(self) -> State:
        rsp = self._rsp()
        if rsp is not None:
            for offset in [offset for offset in self.words if offset < rsp]:
                del self.words[offset]
        return State(self._entry, self.registers, self.words)

    # -- operands
    def place(self, memory: DecodedMemory) -> Value | None:
        """The address that a memory operand means."""
        if memory.index or memory.segment in ("fs", "gs"):
            return None
        if memory.base == "rip":
            return Value("code", self._following + memory.displacement)
        base = self.registers.get(memory.base)
        return _moved(base, memory.displacement)

    def read(self, operand: str | int | DecodedMemory) -> Value | None:
        if isinstance(operand, str):
            return self.registers.get(operand)
        if isinstance(operand, DecodedMemory) and operand.size == _WORD:
            return self._word(self.place(operand))
        return None

    def write(self, operand: str | int | DecodedMemory, value: Value | None) -> None:
        if isinstance(operand, DecodedMemory):
            self.store(_offset(self.place(operand)), operand.size, value)
        elif operand in GENERAL_REGISTERS:
            _set(self.registers, str(operand), value)

    def store(self, offset: int | None, size: int, value: Value | None) -> None:
        if offset is None:
            return
        kept = self._return_slot(value)
        for touched in range(offset - _WORD + 1, offset + size):
            if touched != kept:
                self.words.pop(touched, None)
        if size == _WORD and offset != kept:
            _set(self.words, offset, value)

    def _return_slot(self, stored: Value | None) -> int | None:
        """The word that a return takes RIP from, which stays that when another way back is stored there.

        Where the return address has been copied, to make room for a value that is known, it is that word no longer.
        """
        found = [offset for offset, value in self.words.items() if value == _RETURN_ADDRESS]
        if not found or _RETURN_ADDRESS in self.registers.values() or (stored is not None and len(found) > 1):
            return None
        return max(found)

    def _word(self, place: Value | None) -> Value | None:
        offset = _offset(place)
        return None if offset is None else self.words.get(offset)

    def _rsp(self) -> int | None:
        return _offset(self.registers.get("rsp"))

    def _move_rsp(self, distance: int) -> None:
        _set(self.registers, "rsp", _moved(self.registers.get("rsp"), distance))

    # -- instructions
    def push(self, value: Value | None) -> None:
        self._move_rsp(-_WORD)
        self.store(self._rsp(), _WORD, value)

    def pop(self) -> Value | None:
        value = self._word(self.registers.get("rsp"))
        self._move_rsp(_WORD)
        return value

    def call(self, popped: int | None) -> None:
        for name in SCRATCH:
            self.registers.pop(name, None)
        if popped is None:
            del self.registers["rsp"]
        else:
            self._move_rsp(popped)

    def other(self, effect: Detail) -> None:
        for operand in effect.operands:
            if isinstance(operand.value, DecodedMemory) and "w" in operand.access:
                self.store(_offset(self.place(operand.value)), operand.size, None)
        for name in effect.writes:
            self.registers.pop(_WHOLE.get(name, name), None)


def _push(step: _Step, effect: Detail) -> None:
    step.push(step.read(effect.operands[0].value) if effect.operands else None)


def _pop(step: _Step, effect: Detail) -> None:
    value = step.pop()
    if effect.operands:
        step.write(effect.operands[0].value, value)


def _leave(step: _Step, effect: Detail) -> None:
    _set(step.registers, "rsp", step.registers.get("rbp"))
    _set(step.registers, "rbp", step.pop())


def _mov(step: _Step, effect: Detail) -> None:
    goal, source = (operand.value for operand in effect.operands)
    step.write(goal, step.read(source))


def _xchg(step: _Step, effect: Detail) -> None:
    first, second = (operand.value for operand in effect.operands)
    held, other = step.read(first), step.read(second)
    for goal, value in sorted(((first, other), (second, held)), key=lambda pair: isinstance(pair[0], DecodedMemory)):
        step.write(goal, value)              # memory last, when the return address is in the register


def _lea(step: _Step, effect: Detail) -> None:
    goal, memory = (operand.value for operand in effect.operands)
    step.write(goal, step.place(memory) if isinstance(memory, DecodedMemory) else None)


def _add(step: _Step, effect: Detail) -> None:
    goal, amount = (operand.value for operand in effect.operands)
    if not isinstance(goal, str) or not isinstance(amount, int):
        step.other(effect)
        return
    subtracts = effect.name == "sub"
    _set(step.registers, goal, _moved(step.registers.get(goal), -amount if subtracts else amount))


def _far_return(step: _Step, effect: Detail) -> None:
    """To a code segment and an address that were pushed: the way to load CS."""
    goal = step.pop()
    step.pop()
    if goal != Value("code", step._following):
        step.registers.clear()
        step.words.clear()


_HANDLERS: Mapping[str, Callable[[_Step, Detail], None]] = {
    **dict.fromkeys(("push", "pushfq"), _push), **dict.fromkeys(("pop", "popfq"), _pop), "leave": _leave, "mov": _mov,
    "xchg": _xchg, "lea": _lea, **dict.fromkeys(("add", "sub"), _add), **dict.fromkeys(FAR_RETURNS, _far_return),
}


def _moved(value: Value | None, distance: int) -> Value | None:
    """A place that lies ``distance`` bytes further up."""
    if value is None or value.kind != "cfa" or not isinstance(value.what, int):
        return None
    return Value("cfa", value.what + distance)


def _offset(value: Value | None) -> int | None:
    """A place's distance from the CFA."""
    return value.what if value is not None and value.kind == "cfa" and isinstance(value.what, int) else None


def _common(first: Mapping[_Key, Value], second: Mapping[_Key, Value]) -> dict[_Key, Value]:
    return {key: value for key, value in first.items() if second.get(key) == value}


def _set(known: dict[_Key, Value], key: _Key, value: Value | None) -> None:
    if value is None:
        known.pop(key, None)
    else:
        known[key] = value
