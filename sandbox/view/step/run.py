"""What is the same at every moment of a recorded run: its events, and the listings of its sources."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...debugger.timeline import Timeline
from ...kernel import Kernel
from ...toolchain.disassembler import Disassembler
from ...toolchain.image import Image
from ...trace.events import Event
from ...trace.functions import Kind
from ...trace.ledger import changes
from ..live import EventLines
from ..run import program_file

_ENDS = frozenset(("ret", "jmp", "iretq", "hlt", "int3", "ud2"))
"""Instructions behind which a function is over, unless something jumps there."""

_RECENT = 64
"""Changes that are looked at for the last one of a slab's object."""


@dataclass(frozen=True)
class Events:
    """All events of a run in order of entry, with their depths below their roots."""

    every: Sequence[Event] = ()
    entered: Sequence[int] = ()
    depths: Sequence[int] = ()

    @classmethod
    def of(cls, events: Iterable[Event]) -> Events:
        """The events of a trace."""
        every = list(events)
        depths: dict[int, int] = {}
        for event in every:
            depths[event.sequence] = 0 if event.parent is None else depths.get(event.parent, -1) + 1
        return cls(every, [event.entered for event in every], [depths[event.sequence] for event in every])

    def last(self, position: int) -> int:
        """The index of the last event that has been entered at ``position``; -1 before the first."""
        return bisect_right(self.entered, position) - 1


@dataclass(frozen=True)
class Owned:
    """The last allocation of an object, its free where that has happened, and how many allocations there were."""

    taken: Event | None
    freed: Event | None
    lives: int


class Listing:
    """The lines of an image and the bytes that each became."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self._starts = sorted(image.lines)
        self._lines: dict[str, list[str]] = {}
        self._bytes: dict[str, dict[int, bytes]] = {}

    def lines(self, file: str) -> list[str]:
        """The text of a file; empty for one that the image does not have."""
        if file not in self._lines:
            self._lines[file] = [line.rstrip() for line in self.image.files.get(file, "").split("\n")]
        return self._lines[file]

    def start(self, address: int) -> int:
        """Where the statement begins whose bytes hold ``address``."""
        return self._starts[max(bisect_right(self._starts, address) - 1, 0)]

    def bytes(self, file: str) -> dict[int, bytes]:
        """By line number, the bytes of code that each line of a file was assembled to."""
        if file not in self._bytes:
            found = self._bytes[file] = {}
            ends = [*self._starts[1:], self.image.end]
            for at, end in zip(self._starts, ends, strict=True):
                name, number = self.image.lines[at]
                section = self.image.section_at(at) if name == file else None
                if section is not None and section.name == "text":
                    data = section.data[at - section.address : min(end, self.image.text_end) - section.address]
                    found[number] = found.get(number, b"") + data
        return self._bytes[file]


class Run:
    """A recorded run, as far as it does not depend on the moment."""

    def __init__(self, timeline: Timeline[Kernel]) -> None:
        self.timeline = timeline
        self.disassembler = Disassembler()
        self._listings: dict[int, Listing] = {}

    @cached_property
    def program(self) -> str:
        """The program's source file."""
        return program_file(self.timeline.kernel)

    @cached_property
    def events(self) -> Events:
        """Every event of the run."""
        return Events.of(self.timeline.trace.walk())

    @cached_property
    def changes(self) -> list[tuple[int, Event]]:
        """The allocations and frees that changed who holds what, with the count at which they did, in order."""
        return changes(self.events.every)

    @cached_property
    def _ownership(self) -> dict[int, list[tuple[int, Owned]]]:
        """By address, in order of time: the count, and who has the object from then on."""
        found: dict[int, list[tuple[int, Owned]]] = {}
        for at, event in self.changes:
            past = found.setdefault(event.address, [])
            last = past[-1][1] if past else Owned(None, None, 0)
            past.append((at, Owned(last.taken, event, last.lives) if event.kind == Kind.FREE.value
                         else Owned(event, None, last.lives + 1)))
        return found

    def owned(self, address: int, until: int) -> Owned | None:
        """Who has the object at ``address`` at the moment ``until``; None where nobody is known to have had it."""
        past = self._ownership.get(address, [])
        at = bisect_right(past, until, key=lambda change: change[0])
        return past[at - 1][1] if at else None

    def last_change(self, until: int) -> Event | None:
        """The latest of all of them at the moment ``until`` that is about an object of a slab."""
        at = bisect_right(self.changes, until, key=lambda change: change[0])
        return next((event for _, event in reversed(self.changes[max(at - _RECENT, 0) : at]) if event.slab), None)

    @cached_property
    def event_lines(self) -> EventLines:
        """How events are told."""
        return EventLines(self.program)

    @cached_property
    def caches(self) -> tuple[str, ...]:
        """The names of the caches that the run's events are about, in the order in which they were first."""
        return tuple(dict.fromkeys(event.cache for event in self.events.every if event.cache))

    def body(self, address: int) -> range:
        """The addresses of the function around ``address``: from a label that nothing runs into from above, up to the
        next such label. Empty outside the code."""
        image = self.timeline.kernel.symbols.image_at(address)
        if image is None:
            return range(0)
        starts = sorted((start, end, name) for name, (start, end) in image.functions.items())
        at = bisect_right(starts, (address, 1 << 64, "")) - 1
        if at < 0 or address >= starts[at][1]:
            return range(0)
        first = last = at
        while first > 0 and self._runs_into(image, starts[first - 1], starts[first]):
            first -= 1
        while last + 1 < len(starts) and self._runs_into(image, starts[last], starts[last + 1]):
            last += 1
        return range(starts[first][0], starts[last][1])

    def _runs_into(self, image: Image, above: tuple[int, int, str], label: tuple[int, int, str]) -> bool:
        """Whether a label is one inside a function: nobody declares it, and the code above goes on into it."""
        if self.timeline.kernel.symbols.prototype(label[2]) is not None:
            return False
        code = list(self.disassembler.code(image, above[0], above[1]))
        return not code or code[-1].mnemonic not in _ENDS

    def listing(self, image: Image) -> Listing:
        """The listing of an image."""
        if image.base not in self._listings:
            self._listings[image.base] = Listing(image)
        return self._listings[image.base]
