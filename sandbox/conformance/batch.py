"""A class at once: every folder's allocator in a process of its own, several of them at a time, one row each.

Rows come in order of the folders' names, each as soon as all before it are there. No allocator runs in a process where
another one has run, so that none can do anything to another's marks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..isolated import Bounds, Child
from .folders import Folder
from .outcome import SECONDS, WORKER, CheckOptions, Outcome, asked
from .rubric import Grade, Rubric

KILL_SECONDS = 0.05
"""How long to wait before a process that was started meanwhile is ended too."""


@dataclass(frozen=True)
class Row:
    """One student: how the check ended, and the marks."""

    student: str
    outcome: Outcome
    grade: Grade

    @property
    def first_failure(self) -> str:
        """The reason of the first line that earned nothing, empty when all did or there is no report."""
        failed = next((mark for mark in self.grade.marks if not mark.passed), None)
        return "" if failed is None or self.outcome.report is None else f"{failed.line}: {failed.reason}"


class Batch:
    """The checks of ``folders`` below ``directory``, ``jobs`` at a time.

    Close :meth:`rows`, and the processes are ended; :meth:`rest` then has what was done and not given yet.
    """

    def __init__(self, directory: Path, folders: Sequence[Folder], options: CheckOptions, rubric: Rubric, *,
                 jobs: int | None = None, bounds: Bounds | None = None, worker: str | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"a batch has at least one job, not {jobs}")
        self.folders = tuple(folders)
        self._directory = directory.resolve()
        self._options = options
        self._rubric = rubric
        self._jobs = jobs or cores()
        self._bounds = bounds or Bounds(seconds=SECONDS)
        self._worker = worker or WORKER
        self._stopped = threading.Event()
        self._children: list[Child] = []
        self._idle: list[Child] = []
        self._futures: list[Future[Row]] = []
        self._given = 0

    def rows(self) -> Generator[Row, None, None]:
        """The rows, in order; to be asked for once."""
        with ThreadPoolExecutor(min(self._jobs, len(self.folders) or 1), initializer=_deaf) as pool:
            self._futures = [pool.submit(self._row, folder) for folder in self.folders]
            try:
                while self._given < len(self._futures):
                    row = self._futures[self._given].result()
                    self._given += 1
                    yield row
            finally:
                self._stop()

    def rest(self) -> list[Row]:
        """When :meth:`rows` was closed early, the rows that were done and not given yet, in the same order."""
        return [future.result() for future in self._futures[self._given :]
                if future.done() and not future.cancelled() and future.exception() is None]

    def done(self) -> int:
        """How many rows are there by now, given or not."""
        return sum(future.done() and not future.cancelled() for future in self._futures)

    def running(self) -> list[int]:
        """The numbers of the processes that run now."""
        return [child.process for child in [*self._children, *self._idle] if child.process is not None]

    def _stop(self) -> None:
        """End what runs, and start nothing more."""
        self._stopped.set()
        for future in self._futures:
            future.cancel()
        while wait(self._futures, KILL_SECONDS).not_done:
            for child in list(self._children):
                child.kill()
        for child in self._idle:
            child.close()

    def _row(self, folder: Folder) -> Row:
        """One student's, in a thread that waits for the process."""
        outcome = self._outcome(folder)
        if self._stopped.is_set():               # whatever it is, it may be what the end of the process looks like
            raise InterruptedError
        return Row(folder.student, outcome, self._rubric.grade(outcome.report, outcome.error))

    def _outcome(self, folder: Folder) -> Outcome:
        if (files := folder.files) is None or self._stopped.is_set():
            return Outcome(folder.student, self._options.seed, None, folder.error, loaded=False)
        try:
            child = self._idle.pop()
        except IndexError:
            child = Child(self._worker, self._bounds)
        self._children.append(child)
        try:
            outcome = asked(child, files, self._options, self._directory)
        except BaseException:
            child.close()
            raise
        finally:
            self._children.remove(child)
        if outcome.loaded:
            child.close()
        else:                                    # nothing was run in it: it serves the next one
            self._idle.append(child)
        return outcome


def cores() -> int:
    """How many processes may run at a time on this host."""
    with suppress(AttributeError):               # not every system tells which cores are this process's
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _deaf() -> None:
    """Ctrl-C is this process's to answer: the children of a thread that does not hear it do not hear it either."""
    with suppress(AttributeError):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
