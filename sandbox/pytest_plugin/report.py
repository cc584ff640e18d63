"""The sections of a failed test's report: what an expert would have found after an hour.

Nothing here may hide the failure itself: what cannot be found out is left out, and a section that cannot be made says
why in one line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..debugger.moment import Access
from ..debugger.timeline import Timeline
from ..errors import (
    GuestError,
    GuestFault,
    GuestPanic,
    HeapCorruption,
    SandboxError,
    ShadowError,
)
from ..guest.journal import Run
from ..heap.validate import Violation
from ..kernel import Kernel
from ..trace.claims import ClaimError
from ..trace.events import Event
from ..view import difference
from ..view.failure import Section, fit, instruction, last_calls, last_words, stack, thing
from ..view.run import program_file
from .limits import Broken, violations

LONGEST_SEARCH = 20_000_000
"""Instructions of a run within which the last store to a byte is looked for: some seconds at most."""
PAGE_FAULT = 14


@dataclass(frozen=True)
class Compared:
    """A comparison of guest memory at ``address`` that did not hold."""

    kernel: Kernel
    address: int
    found: bytes
    wanted: bytes
    text: str


class Failure:
    """One failed test's kernel, and what is asked of it. ``at`` is the moment that is worth looking at, as soon as
    that is known."""

    def __init__(self, kernel: Kernel, timeline: Timeline[Kernel] | None) -> None:
        self.kernel = kernel
        self.at: int | None = None
        self._timeline = timeline
        self._events = list(kernel.trace.walk())

    def sections(self, error: BaseException | None, broken: Iterable[Broken] = (),
                 compared: Compared | None = None) -> list[Section]:
        """Everything about ``error``, or else about the error at which the guest stands."""
        found: list[Section] = []
        if compared is not None:
            found += self._made("guest memory", lambda: self._compared(compared))
        for limit in broken:
            found += self._made("limit", lambda limit=limit: self._broken(limit))  # type: ignore[misc]
        guilty = error if isinstance(error, (SandboxError, ClaimError)) else self.kernel.failure
        if guilty is not None:
            found += self._made(type(guilty).__name__, lambda: self._error(guilty))
        if found:
            found += self._made("last allocations", lambda: [fit("last allocations", self._calls())])
        first = {section.lines: section for section in reversed(found) if section.lines}
        return [section for section in found if first.get(section.lines) is section]

    def _made(self, title: str, make: Callable[[], Iterable[Section]]) -> list[Section]:
        try:
            return list(make())
        except Exception as trouble:                     # whatever it is, the test's own failure is to be seen
            return [fit(title, [f"this section cannot be made: {type(trouble).__name__}: {trouble}"])]
        finally:
            self._back()

    @contextmanager
    def standing_at_the_end(self) -> Iterator[None]:
        """Look at the kernel's last moment, and then let it be where the test has left it."""
        position = None if self._timeline is None else self._timeline.position
        self._back()
        try:
            yield
        finally:
            self._back(position)

    def _back(self, position: int | None = None) -> None:
        """The kernel stands at the end again, or at another moment, whatever was looked at."""
        timeline = self._timeline
        if timeline is None:
            return
        goal = timeline.length if position is None else position
        if timeline.position != goal or timeline.diverted:
            with suppress(SandboxError):
                timeline.goto(goal)

    def _calls(self) -> Iterator[str]:
        return last_calls(self._events, program_file(self.kernel), self.at)

    # -- an error of the guest --------------------------------------------------------------------------------
    def _error(self, error: BaseException) -> Iterator[Section]:
        if isinstance(error, ShadowError):
            yield from self._shadow(error)
        elif isinstance(error, GuestFault):
            yield from self._fault(error)
        elif isinstance(error, GuestError):
            yield from self._stopped(error)
        elif isinstance(error, HeapCorruption):
            yield fit("broken heap", [*violations(self._judged()), *self._who_wrote(error.address)])
        elif isinstance(error, ClaimError) and error.event is not None:
            self.at = error.event.entered
            yield fit("object", thing(self.kernel, self._until(error.event), error.event.address))

    def _until(self, event: Event) -> list[Event]:
        return [other for other in self._events if other.entered <= event.entered]

    @property
    def _called(self) -> bool:
        """Whether the test called what failed, and did not run the program."""
        return not isinstance(self.kernel.travel.history.failed, Run)

    def _shadow(self, error: ShadowError) -> Iterator[Section]:
        self.at = error.instruction
        yield fit("guilty instruction", instruction(self.kernel, error.registers, error.instruction, error.backtrace,
                                                    self._called))
        start = error.address if error.object is None else error.object
        yield fit("object", thing(self.kernel, self._events, start, error.address))

    def _fault(self, error: GuestFault) -> Iterator[Section]:
        self.at = self._last_at(error.rip) or error.instruction
        yield fit("guilty instruction", instruction(self.kernel, error.registers, self.at, error.backtrace,
                                                    self._called))
        if error.vector == PAGE_FAULT:
            yield fit("address", [str(self.kernel.whatis(error.address))])
        yield from self._heap()
        yield fit("console", last_words(self.kernel.console))

    def _stopped(self, error: GuestError) -> Iterator[Section]:
        """A panic, a limit, a register that came back changed, a machine that stopped."""
        panicked = isinstance(error, GuestPanic)
        self.at = self._last_at("panic") if panicked else None
        self.at = error.instruction if self.at is None else self.at
        frames = error.backtrace or self.kernel.backtrace()
        yield fit("panic" if panicked else "stopped at", [f"@{self.at:,}", *stack(self.kernel, frames)])
        yield from self._heap()
        yield fit("console", last_words(self.kernel.console))

    def _heap(self) -> Iterator[Section]:
        """What is wrong with the heap, where the guest did not merely stop inside of the allocator."""
        found = self._judged()
        if found and not any(violation.rule == "lock-held" for violation in found):
            yield fit("broken heap", [*violations(found), *self._who_wrote(found[0].address)])

    def _judged(self) -> list[Violation]:
        with suppress(SandboxError):
            return self.kernel.heap.validate()
        return []

    # -- a test's own words -----------------------------------------------------------------------------------
    def _broken(self, limit: Broken) -> Iterator[Section]:
        if limit.at is not None and self.at is None:
            self.at = limit.at
        if limit.section is not None:
            more = () if limit.address is None else self._who_wrote(limit.address)
            yield fit(limit.section.title, [*limit.section.lines, *more])

    def _compared(self, compared: Compared) -> Iterator[Section]:
        found, wanted, address = compared.found, compared.wanted, compared.address
        first = address + difference.differing(found, wanted)[0]
        yield fit("guest memory", [
            f"0x{address:016x}: {difference.summary(found, wanted)}", *difference.rows(found, wanted),
            *difference.places(self.kernel, address, found, wanted), *self._who_wrote(first)])
        yield fit("object", thing(self.kernel, self._events, first))

    # -- going back -------------------------------------------------------------------------------------------
    def _last_at(self, place: int | str) -> int | None:
        """When an instruction was about to run for the last time."""
        timeline = self._timeline
        if timeline is None or not place or timeline.length - timeline.start > LONGEST_SEARCH:
            return None
        try:
            moment = timeline.back_to(place)
        except SandboxError:
            return None
        finally:
            self._back()
        return None if moment is None else moment.instruction

    def _who_wrote(self, address: int) -> Iterator[str]:
        """The last store to a byte, in a line."""
        timeline = self._timeline
        if timeline is None or timeline.length - timeline.start > LONGEST_SEARCH:
            return
        access: Access | None = None
        with suppress(SandboxError):
            access = timeline.who_wrote(address)
        if access is not None:
            if self.at is None:
                self.at = access.instruction
            yield f"last written: {access}"


def look(path: Path, at: int | None, directory: Path) -> Section:
    """The command that opens a record."""
    try:
        shown = path.relative_to(directory)
    except ValueError:
        shown = path
    moment = "" if at is None else f" --at {at}"
    return Section("look", (f"  sandbox step {shlex.quote(str(shown))}{moment}",))
