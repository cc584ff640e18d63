"""Playing a script on a fresh machine, and judging every call of it.

The guest sees sizes and pointers. Into each chunk Python writes a pattern that no other chunk has; it is checked when
the chunk is freed, and at the end of a round. What is wrong is noted, and the script goes on as long as it can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ..errors import GuestMemoryError, GuestPanic, SandboxError
from ..guest.allocator import AllocatorStats
from .findings import Finding, Measured, Play
from .operations import Operation, Script, describe
from .places import Pieces
from .report import ROLE_OF
from .subject import Subject, address_of

LIST_LIMIT = 10_000_000
"""Instructions that all calls of one list may take, so that a check ends in minutes on every host."""
_Result = TypeVar("_Result")


class Chunk(NamedTuple):
    """What was handed out, and where it lies in RAM."""

    address: int
    size: int
    pieces: Pieces
    pattern: bytes

    def offset(self, physical: int) -> int | None:
        """Which byte of it lies at a physical address, None for none."""
        at = 0
        for start, size in self.pieces:
            if start <= physical < start + size:
                return at + physical - start
            at += size
        return None


class Fatal(Exception):
    """Nothing can follow; its finding is noted."""


class Player:
    """Plays one script."""

    def __init__(self, subject: Subject, script: Script) -> None:
        self.play = Play(script.name, script.operations)
        self._subject = subject
        self._script = script
        self._held: dict[int, Chunk] = {}
        self._freed: dict[int, Chunk] = {}
        self._number = -1
        self._call = "init"
        self._live_bytes = 0
        self._stats: AllocatorStats | None = None    # the last account, None when it tells nothing of the next
        self._since = 0                              # bytes that were served since then
        self._frees = 0                              # chunks that were taken back since then
        self._left = LIST_LIMIT
        self._more = False                           # whether a later round was given what the first was not

    def run(self) -> Play:
        """Play it, on a fresh machine."""
        subject, play = self._subject, self.play
        subject.fresh()
        try:
            if subject.allocator.options.init is not None:
                self._do("init", lambda: subject.allocator.init(limit=subject.init_limit))
            play.init_pages = len(subject.watch.pages)
            subject.watch.pages.clear()
            for number in range(self._script.rounds):
                self._round(number)
        except Fatal:
            pass
        play.pages, play.given_back = len(subject.watch.pages), subject.watch.given_back
        return play

    def explain(self) -> Play:
        """Play it, and note where the allocator reads what a caller holds: what it takes for its own is not."""
        hook = self._subject.watch.watch_reads(self._read)
        try:
            return self.run()
        finally:
            hook.remove()

    def _read(self, physical: int, size: int, who: str) -> None:
        if not self.play.hint and not self._call.startswith(("second", "deallocate of")):
            self.play.hint = (f"in operation {self._number}, {who} reads {size} bytes at "
                              f"{self._subject.places.name(physical)}, {self._owner(physical)}")

    def _round(self, number: int) -> None:
        served: dict[int, int] = {}
        self.play.served.append(served)
        self._held.clear()
        self._freed.clear()
        self._more = number == 0
        first = self._ask() if self._has_stats else None
        for index, operation in enumerate(self._script.operations):
            self._number = index
            self._call = describe(operation) + (f" in round {number + 1}" if number else "")
            self._perform(operation, served)
            self.play.done += 1
        self._number, self._call = len(self._script.operations), "the end of the round"
        for chunk in list(self._held.values()):
            self._check(chunk)
        for held in list(self._held):
            self._call = f"deallocate of chunk {held} at the end"
            self._free(held)
        if self._has_stats and first is not None and not self._held:
            self._all_free(first)

    @property
    def _has_stats(self) -> bool:
        return self._subject.allocator.options.stats is not None

    # -- operations -------------------------------------------------------------------------------------------
    def _perform(self, operation: Operation, served: dict[int, int]) -> None:
        kind, *values = operation
        if kind in ("allocate", "zeroed", "aligned"):
            self._allocate(kind, *(int(value) for value in values), served=served)
        elif kind == "resize":
            self._resize(int(values[0]), int(values[1]))
        elif kind == "free":
            self._free(int(values[0]))
        elif kind == "again":
            chunk = self._freed.get(int(values[0]))
            if chunk is not None and not self._taken(chunk):
                self._refuse("double_free", chunk.address)
        elif kind == "wild":
            pointer = self._wild(values[0], int(values[1]))
            if pointer is not None:
                self._refuse("wild_free", pointer)
        elif kind == "null":
            self._do("deallocate", lambda: self._subject.allocator.deallocate(0, limit=self._subject.limit), "sizes")
        elif kind == "stats" and self._has_stats:
            self._account()

    def _allocate(self, kind: str, number: int, *arguments: int, served: dict[int, int]) -> None:
        """Allocate in one of three ways; nothing where the allocator has no such function."""
        subject, size = self._subject, arguments[-1]
        role = ROLE_OF.get(kind, kind)
        size *= arguments[0] if kind == "zeroed" else 1
        align = arguments[0] if kind == "aligned" else 16 if size >= 16 else 8
        if role not in subject.allocator.options.names:
            return
        pointer = self._do(role, lambda: getattr(subject.allocator, role)(*arguments, limit=subject.limit))
        self.play.calls[-1] = self.play.calls[-1]._replace(served=pointer != 0)
        first = self.play.served[0]
        self._more |= pointer != 0 and self._number not in first
        if self._number in first and not pointer and not self._more:
            self._find("leak", "gone", f"{subject.name(role)} gives 0, and gave "
                                       f"0x{first[self._number]:016x} in the first round: not all that "
                                       "was freed can be allocated again")
        if not pointer:
            return
        served[self._number] = pointer
        self._given(kind, number, pointer, size, align)

    def _given(self, kind: str, number: int, pointer: int, size: int, align: int, had: int = 0) -> None:
        """A function gives memory for chunk ``number``, of whose bytes the first ``had`` are there already."""
        subject = self._subject
        place = subject.places.holds(pointer, size)
        shown = f"{subject.name(ROLE_OF.get(kind, kind))} gives 0x{pointer:016x}"
        if size == 0 and place is None:
            return                               # as good as any pointer: nobody may touch a byte there
        if size > subject.places.size:
            self._find("sizes" if kind == "allocate" else kind, "too large",
                       f"{shown}: it has {subject.places.size:,} bytes")
        elif place is None:
            self._find("confined", "chunk", f"{shown}, outside of its arena and its data" +
                       (" and of the pages that it took" if subject.places.takes_pages else ""))
        elif subject.watch.live(place):
            other = self._other(pointer, size)
            self._find("overlap", "chunk", f"{shown}, which overlaps {other}")
        else:
            if pointer % align:
                self._find("alignment" if kind != "aligned" else kind, "misaligned",
                           f"{shown}, which is no multiple of {align}")
            if kind == "resize":
                self._check(Chunk(pointer, had, place, pattern(number, had)), kind, "it was")
            elif kind == "zeroed":
                self._check(Chunk(pointer, size, place, bytes(size)), kind, "it must be")
            self._hold(number, Chunk(pointer, size, place, pattern(number, size)))

    def _resize(self, number: int, size: int) -> None:
        """Reallocate a chunk that is held."""
        chunk, subject = self._held.get(number), self._subject
        if chunk is None or "reallocate" not in subject.allocator.options.names:
            return
        self._check(chunk)
        subject.watch.release(chunk.pieces)
        pointer = self._do("reallocate", lambda: subject.allocator.reallocate(chunk.address, size, limit=subject.limit))
        if not pointer:
            subject.watch.hold(chunk.pieces)
            self._check(chunk, "resize", "where nothing is given, it stays")
            return
        del self._held[number]
        self._live_bytes -= chunk.size
        self._frees += 1
        self._given("resize", number, pointer, size, 16 if size >= 16 else 8, min(size, chunk.size))

    def _hold(self, number: int, chunk: Chunk) -> None:
        """Its owner writes every byte of it."""
        play, watch = self.play, self._subject.watch
        if number in self._held:
            self._free(number)
        self._held[number] = chunk
        self._freed.pop(number, None)
        try:
            self._subject.kernel.memory.write(chunk.address, chunk.pattern)
        except GuestMemoryError as error:
            self._find("confined", "unmapped", f"gives memory that is not mapped any more: {error}", fatal=True)
        watch.hold(chunk.pieces)
        self._since += chunk.size
        self._live_bytes += chunk.size
        if self._live_bytes > play.peak_bytes:
            play.peak_bytes, play.peak_pages = self._live_bytes, len(watch.given)
        if self._stats is not None and not self._frees and self._since > self._stats.free_bytes:
            self._find("stats", "more", f"{self._since:,} bytes were given out, and stats said that "
                                        f"{self._stats.free_bytes:,} were free")
            self._stats = None

    def _free(self, number: int) -> None:
        chunk = self._held.get(number)
        if chunk is None:
            return
        self._check(chunk)
        watch, subject = self._subject.watch, self._subject
        watch.release(chunk.pieces)
        taken = self._do("deallocate", lambda: subject.allocator.deallocate(chunk.address, limit=subject.limit))
        del self._held[number]
        self._live_bytes -= chunk.size
        self._frees += 1
        if not taken:
            self._find("leak", "refused", f"{subject.name('deallocate')} refuses 0x{chunk.address:016x}, a chunk of "
                                          f"{chunk.size} bytes that is held: it is lost")
            self._stats = None
        else:
            self._freed[number] = chunk

    def _wild(self, place: str | int, offset: int) -> int | None:
        """The pointer of a wild free, None where it would be a right one."""
        if isinstance(place, int):
            chunk = self._held.get(place)
            return chunk.address + offset if chunk is not None and 0 < offset < chunk.size else None
        pointer = address_of(place, self._subject.allocator.arena.size) + offset
        return None if any(chunk.address == pointer for chunk in self._held.values()) else pointer

    def _refuse(self, line: str, pointer: int) -> None:
        """A free that must be answered, with a refusal or a panic."""
        subject = self._subject
        subject.watch.wrong = None
        try:
            taken = subject.call(lambda: subject.allocator.deallocate(pointer, limit=subject.limit))
        except GuestPanic as error:
            self.play.answer = f"panic: {error.message}"
            raise Fatal from None
        except SandboxError as error:
            finding = subject.judge(error, self._number, self._call, "deallocate")
            self._find(line, finding.way, finding.reason.removeprefix(f"operation {self._number}, {self._call}: "),
                       fatal=True)
        self._stored(line)
        self.play.answer = "taken" if taken else "refused"
        if taken:
            self._find(line, "taken", f"{subject.name('deallocate')} takes 0x{pointer:016x} and says nothing: it "
                       "neither panics nor returns what refused= says")

    # -- its own account --------------------------------------------------------------------------------------
    def _ask(self) -> AllocatorStats:
        subject = self._subject
        return self._do("stats", lambda: subject.allocator.stats(limit=subject.limit))

    def _account(self) -> None:
        stats, before = self._ask(), self._stats
        who = self._subject.name("stats")
        if stats.in_use != len(self._held):
            self._find("stats", "in_use", f"{who} says that {stats.in_use:,} are in use, and {len(self._held)} are")
        if stats.free_bytes > self._subject.places.size:
            self._find("stats", "free_bytes", f"{who} says that {stats.free_bytes:,} bytes are free, and it has "
                                              f"{self._subject.places.size:,} in all")
        elif before is not None and not self._frees and stats.free_bytes > before.free_bytes - self._since:
            self._find("stats", "free_bytes", f"{who} says that {stats.free_bytes:,} bytes are free, and said "
                       f"{before.free_bytes:,} before {self._since:,} were given out")
        elif before is not None and not self._since and stats.free_bytes < before.free_bytes:
            self._find("stats", "free_bytes", f"{who} says that {stats.free_bytes:,} bytes are free, and said "
                       f"{before.free_bytes:,} before {self._frees} chunks were freed")
        self._stats, self._since, self._frees = stats, 0, 0

    def _all_free(self, first: AllocatorStats) -> None:
        """Everything was freed, as at the start of the round."""
        now, who = self._ask(), self._subject.name("stats")
        self._call = "stats at the end"
        if now.in_use:
            self._find("stats", "in_use", f"{who} says that {now.in_use:,} are in use, and everything was freed")
        elif now.free_bytes != first.free_bytes:
            self._find("stats", "free_bytes", f"{who} says that {now.free_bytes:,} bytes are free, and said "
                                              f"{first.free_bytes:,} when nothing had been allocated")
        self._stats, self._since, self._frees = now, 0, 0

    # -- judging ----------------------------------------------------------------------------------------------
    def _do(self, role: str, call: Callable[[], _Result], line: str = "") -> _Result:
        """One call, measured; whatever is wrong with it is noted."""
        subject = self._subject
        subject.watch.wrong = None
        before = subject.kernel.instructions
        try:
            result = subject.call(call)
        except SandboxError as error:
            finding = subject.judge(error, self._number, self._call, role)
            self.play.findings.append(finding._replace(line=line or finding.line))
            raise Fatal from None
        taken = subject.kernel.instructions - before
        self.play.calls.append(Measured(role, taken))
        self._stored("")
        self._left -= taken
        if self._left < 0:
            self._find("returns", "slow", f"by then, the calls of this list have taken more than {LIST_LIMIT:,} "
                                          "instructions", fatal=True)
        return result

    def _stored(self, line: str) -> None:
        """A store that must not have been."""
        wrong, self._subject.watch.wrong = self._subject.watch.wrong, None
        if wrong is None:
            return
        place = self._subject.places.name(wrong.physical)
        if wrong.live:
            self._find(line or "overlap", "store", f"{wrong.who} writes {wrong.size} bytes at {place}, into "
                                                   f"{self._owner(wrong.physical)}")
        else:
            self._find(line or "confined", "store", f"{wrong.who} writes {wrong.size} bytes at {place}")

    def _check(self, chunk: Chunk, line: str = "overlap", wanted: str = "its owner wrote") -> None:
        """Every byte of a chunk is what its owner wrote, or what a line wants there."""
        try:
            found = self._subject.kernel.memory.read(chunk.address, chunk.size)
        except GuestMemoryError as error:
            self._find("confined", "unmapped", f"a chunk is not mapped any more: {error}", fatal=True)
        if found == chunk.pattern:
            return
        at = next(index for index, pair in enumerate(zip(found, chunk.pattern, strict=True)) if pair[0] != pair[1])
        self._find(line, "pattern", f"byte {at} of the chunk of {chunk.size} bytes at 0x{chunk.address:016x} is "
                   f"0x{found[at]:02x}, and {wanted} 0x{chunk.pattern[at]:02x}")

    def _find(self, line: str, way: str, reason: str, fatal: bool = False) -> None:
        where = f"operation {self._number}, " if self._number >= 0 else ""
        self.play.findings.append(Finding(line, way, self._number, f"{where}{self._call}: {reason}", fatal))
        if fatal:
            raise Fatal

    def _other(self, pointer: int, size: int) -> str:
        number, chunk = next((number, chunk) for number, chunk in self._held.items()
                             if chunk.address < pointer + max(size, 1) and pointer < chunk.address + chunk.size)
        same = ", the very chunk" if chunk.address == pointer else ""
        return f"chunk {number}, {chunk.size} bytes at 0x{chunk.address:016x} that are held{same}"

    def _owner(self, physical: int) -> str:
        return next((f"byte {offset} of chunk {number}, which is held" for number, chunk in self._held.items()
                     if (offset := chunk.offset(physical)) is not None), "")

    def _taken(self, chunk: Chunk) -> bool:
        """Whether the memory of a freed chunk has another owner by now."""
        return any(other.address == chunk.address for other in self._held.values())


def pattern(number: int, size: int) -> bytes:
    """What its owner writes into chunk ``number``; :mod:`~sandbox.conformance.regression` writes the same."""
    digest = hashlib.blake2b(str(number).encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


def play(subject: Subject, script: Script) -> Play:
    """Play a script on a fresh machine."""
    return Player(subject, script).run()
