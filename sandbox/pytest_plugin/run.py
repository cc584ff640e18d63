"""One test, as the plugin sees it: the kernels that it was lent, what is asked of them at its end, and what there is to
say about them when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..debugger.timeline import Timeline
from ..errors import GuestError, SandboxError
from ..guest.memory import GuestBytes
from ..kernel import Kernel
from ..view import difference
from ..view.failure import Section, fit, last_words
from .limits import Broken, broken
from .options import LIMITS, Limits, Wanted
from .records import record_path, save, timeline_of
from .report import Compared, Failure, look
from .stock import Booted, Stock

EXPLAINED = 2
"""Lines of bytes and of names in an assertion's own message: pytest cuts a longer one off."""


@dataclass(frozen=True, eq=False)
class Lent:
    """A kernel in the hands of a test, which got it when the clock was ``start``."""

    booted: Booted
    start: int

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.booted.kernel


class TestRun:
    """The kernels of one test, in the order in which it asked for them. ``kept`` are the addresses of allocations that
    it still wants."""

    __test__ = False                     # no test of pytest's

    def __init__(self, stock: Callable[[], Stock], wanted: Wanted, seed: int) -> None:
        self.wanted = wanted
        self.lent: list[Lent] = []
        self.kept: set[int] = set()
        self._stock = stock
        self._seed = seed
        self._broken: list[tuple[Lent, Broken]] = []
        self._compared: list[Compared] = []

    # -- kernels ----------------------------------------------------------------------------------------------
    def lend(self, options: Mapping[str, Any]) -> Lent:
        """One more kernel: with the marker's options, and with ``options`` instead of those that both name."""
        booted = self._stock().lend({"seed": self._seed, **self.wanted.boot, **options})
        lent = Lent(booted, booted.kernel.instructions)
        self.lent.append(lent)
        return lent

    def give_back(self, lent: Lent) -> None:
        """A fixture is done with a kernel."""
        self.lent.remove(lent)
        self._compared.clear()
        self._broken.clear()
        self._stock().give_back(lent.booted)

    # -- at its end -------------------------------------------------------------------------------------------
    def check(self) -> list[str]:
        """A sentence for each limit that does not hold."""
        self._broken = [(lent, one) for lent in self.lent
                        for one in broken(lent.kernel, lent.start, self.wanted.limits, self.kept)]
        several = len(self.lent) > 1
        return [f"kernel {self.lent.index(lent) + 1}: {one.sentence}" if several else one.sentence
                for lent, one in self._broken]

    def nothing_to_check(self) -> list[str]:
        """A sentence about limits of a test that has no kernel."""
        limits = self.wanted.limits
        named = [name for name in LIMITS if getattr(limits, name) != getattr(Limits(), name)]
        return [f"{', '.join(named)}: this test has no kernel that they could be about"]

    def compare(self, left: object, right: object) -> list[str] | None:
        """The explanation of ``left == right`` that does not hold, None where neither is guest memory."""
        guest, other = (left, right) if isinstance(left, GuestBytes) else (right, left)
        if not isinstance(guest, GuestBytes) or not isinstance(other, (bytes, bytearray, memoryview)):
            return None
        memory = guest.memory()
        kernel = next((lent.kernel for lent in self.lent if memory in (lent.kernel.memory, lent.kernel.physical)), None)
        if kernel is None:
            return None
        found, wanted, address = bytes(guest), bytes(other), guest.address
        with suppress(SandboxError):
            text = f"guest memory at 0x{address:016x} ({len(found)} bytes) == {_short(wanted)}"
            self._compared.append(Compared(kernel, address, found, wanted, text))
            return [text, difference.summary(found, wanted), *islice(difference.rows(found, wanted), EXPLAINED),
                    *islice(difference.places(kernel, address, found, wanted), EXPLAINED)]
        return None

    # -- what is said about it --------------------------------------------------------------------------------
    def examine(self, error: BaseException | None, failed: bool, root: Path | None, name: str,
                directory: Path) -> list[Section]:
        """The sections of a report, none where nothing ``failed``; below ``root``, where it is given, the records of
        all kernels are written, and the last section is the command that opens the guilty one's."""
        guilty = self._guilty(error)
        sections: list[Section] = []
        for number, lent in enumerate(list(self.lent)):
            if lent is not guilty and root is None:
                continue
            path = None if root is None else record_path(root, name, number)
            sections += self._examined(lent, error if lent is guilty else None, failed and lent is guilty, path,
                                       directory)
        return sections

    @staticmethod
    def without_a_kernel(error: BaseException) -> list[Section]:
        """What there is to say about a kernel that did not come up."""
        if not isinstance(error, GuestError):
            return []
        found = [fit("stopped at", [f"@{error.instruction:,}", *(f"  {frame}" for frame in error.backtrace)]),
                 fit("console", last_words(error.console))]
        return [section for section in found if section.lines]

    def _examined(self, lent: Lent, error: BaseException | None, failed: bool, path: Path | None,
                  directory: Path) -> list[Section]:
        kernel, sections = lent.kernel, list[Section]()
        timeline: Timeline[Kernel] | None = None
        at, trouble = None, ""
        try:
            timeline = timeline_of(kernel)
            if path is not None:
                save(timeline, path)
        except (SandboxError, OSError) as problem:
            trouble = str(problem)
        if failed:
            failure = Failure(kernel, timeline)
            with failure.standing_at_the_end():
                sections += failure.sections(error, [one for whose, one in self._broken if whose is lent],
                                             self._comparison(kernel, error))
            at = failure.at
        if failed and path is not None:
            sections.append(fit("look", [f"there is no record: {trouble}"]) if trouble else look(path, at, directory))
        return sections

    def _guilty(self, error: BaseException | None) -> Lent:
        """The kernel that an error is about: the one that failed with it, or that a limit or a comparison names."""
        for lent in self.lent:
            if error is not None and isinstance(error, GuestError) and lent.kernel.failure is error:
                return lent
        if self._broken:
            return self._broken[0][0]
        for lent in reversed(self.lent):
            if self._comparison(lent.kernel, error) is not None:
                return lent
        return next((lent for lent in self.lent if lent.kernel.failure is not None), self.lent[0])

    def _comparison(self, kernel: Kernel, error: BaseException | None) -> Compared | None:
        """The comparison that an error is about."""
        text = str(error) if isinstance(error, AssertionError) else ""
        return next((one for one in reversed(self._compared) if one.kernel is kernel and one.text in text), None)


def _short(data: bytes) -> str:
    """Bytes as they are written, cut in the middle where they are many."""
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-17:]}"
