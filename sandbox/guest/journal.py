"""Everything that Python did to a booted machine, in order: enough to do it again.

The guest is deterministic, so its whole future is fixed by its state at some moment and by what comes from outside
after it. That is little: calls, runs, writes to memory and registers, interrupts, bytes on the serial line. The
journal keeps them as plain data, and a state of long ago is a checkpoint before it plus the entries between, executed
once more.

The timeline reads the same entries, and a saved record is :meth:`Journal.to_data` as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..address import U64
from ..errors import UsageError

VERSION = 2
"""Of :meth:`Journal.to_data`; another one is not read."""


class Call(NamedTuple):
    """A function was called and came back: its address, its arguments (bytes were copied to the stack), its limit."""

    address: int
    arguments: tuple[int | bytes, ...]
    limit: int


class Run(NamedTuple):
    """The guest ran on from where it stood, for at most ``limit`` instructions (None: until it stopped by itself)."""

    limit: int | None


class Write(NamedTuple):
    """Bytes were stored from Python: at a virtual address, or at a physical one."""

    address: int
    data: bytes
    physical: bool


class SetRegister(NamedTuple):
    """A register was given a value from Python, by its lower-case name."""

    name: str
    value: int


class Interrupt(NamedTuple):
    """Interrupt line ``line`` (0-15) is to be pulsed when the clock is ``instruction``."""

    instruction: int
    line: int


class Receive(NamedTuple):
    """Bytes arrived at the serial port."""

    data: bytes


class Inject(NamedTuple):
    """Faults were asked for, as they are written (:mod:`sandbox.guest.faults`); none of them: all were called off."""

    faults: tuple[str, ...]


class Flush(NamedTuple):
    """A snapshot was taken. It empties the processor's TLB, which the accessed and dirty bits can show later."""


Entry: TypeAlias = Call | Run | Write | SetRegister | Interrupt | Receive | Inject | Flush
KINDS: dict[str, type[Entry]] = {
    "call": Call, "run": Run, "write": Write, "register": SetRegister, "interrupt": Interrupt, "receive": Receive,
    "inject": Inject, "flush": Flush,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


class Journal:
    """The entries since boot, oldest first, each with the instruction count at which it began; a position is a number
    of entries.

    ``version`` grows when entries are taken away or exchanged: what was learned of the later ones is then wrong.
    """

    def __init__(self, entries: Sequence[Entry] = (), counts: Sequence[int] = ()) -> None:
        if len(entries) != len(counts):
            raise UsageError(f"{len(entries)} entries of a journal with {len(counts)} instruction counts")
        self.version = 0
        self._entries: list[Entry] = list(entries)
        self._counts: list[int] = list(counts)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def append(self, entry: Entry, instruction: int) -> None:
        """One more, which began when the clock was ``instruction``."""
        self._entries.append(entry)
        self._counts.append(instruction)

    def count(self, index: int) -> int:
        """The instruction count at which an entry began."""
        return self._counts[index]

    def since(self, position: int) -> list[Entry]:
        """The entries from ``position`` on."""
        return self._entries[position:]

    def entries(self) -> tuple[Entry, ...]:
        """All of them, as they are now."""
        return tuple(self._entries)

    def copy(self) -> Journal:
        """The same entries, in a journal of their own."""
        return Journal(self._entries, self._counts)

    def replace(self, other: Journal) -> None:
        """Take another history: the machine was put into the state that its entries lead to."""
        self._entries[:], self._counts[:] = other._entries, other._counts
        self.version += 1

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON: ``{"version": 2, "entries": [[count, "call", address, [arguments], limit], ...]}``.

        Bytes are ``{"hex": "..."}``, everything else is a number, a word, true, false or null.
        """
        return {"version": VERSION, "entries": [[count, *entry_to_data(entry)] for count, entry in
                                                zip(self._counts, self._entries, strict=True)]}

    @classmethod
    def from_data(cls, data: Any) -> Journal:
        """Read what :meth:`to_data` made; :class:`UsageError` for anything else."""
        try:
            if data["version"] != VERSION:
                raise UsageError(f"a journal of version {data['version']}, and this program reads {VERSION}")
            counts = [count for count, *_ in data["entries"]]
            if any(type(count) is not int or count < 0 for count in counts) or counts != sorted(counts):
                raise ValueError("instruction counts that are none")
            return cls([entry_from_data(entry) for _, *entry in data["entries"]], counts)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not a journal: {error!r}") from None


def entry_to_data(entry: Entry) -> list[Any]:
    """One entry as plain data: its kind and its values."""
    return [_NAMES[type(entry)], *map(_to_plain, entry)]


def entry_from_data(data: Sequence[Any]) -> Entry:
    """What :func:`entry_to_data` made; ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
    name, *values = data
    kind = KINDS[name]
    if len(values) != len(kind._fields):
        raise ValueError(f"{name} with {len(values)} values")
    entry = kind(*map(_from_plain, values))
    for field, value in zip(kind._fields, entry, strict=True):
        if not _VALUES[field](value):
            raise ValueError(f"{name} with {field} {str(value)[:40]}")
    return entry


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= U64


def _is_argument(value: Any) -> bool:
    return isinstance(value, bytes) or (type(value) is int and -(1 << 63) <= value <= U64)


def _is_limit(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value < 1 << 63)


_VALUES: dict[str, Callable[[Any], bool]] = {
    "address": _is_number, "value": _is_number, "instruction": _is_number, "limit": _is_limit,
    "arguments": lambda value: isinstance(value, tuple) and all(map(_is_argument, value)),
    "faults": lambda value: isinstance(value, tuple) and all(isinstance(fault, str) for fault in value),
    "data": lambda value: isinstance(value, bytes), "physical": lambda value: isinstance(value, bool),
    "name": lambda value: isinstance(value, str), "line": lambda value: type(value) is int and 0 <= value < 16,
}
"""What a field of an entry can be."""


def _to_plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    if isinstance(value, list):
        return tuple(_from_plain(item) for item in value)
    return value
