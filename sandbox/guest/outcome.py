"""How a run of the guest ended, in the kernel's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import GuestError


class RunKind(str, Enum):
    """Why a run ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    PANIC = "panic"
    FAULT = "fault"
    SHADOW = "shadow"
    LIMIT = "limit"
    STOP = "stop"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class RunResult:
    """The end of a run; its text is one sentence.

    ``kind``
        ``success`` and ``failure`` (what the kernel reports when main returned 0, and anything else; a program may
        report it itself, and ``returned`` is None then), ``panic`` (the kernel's own judgement), ``fault`` (an
        exception that nobody handled), ``shadow`` (the shadow caught a wrong access, and the machine stands before
        it), ``limit`` (the instructions that were given are used up: ``run`` can go on), ``stop`` (anything else:
        another debug exit of the program's own, a halt for ever, a triple fault).
    ``status``
        What QEMU's exit status would be: 33 for success, 35 for failure, 37 after a panic, None without a debug exit.
    ``instructions``
        How many this run took.
    ``error``
        The :class:`~sandbox.errors.GuestPanic` or :class:`~sandbox.errors.GuestFault` with registers and backtrace,
        or None. After one, ``kernel.rewind()`` restores the state before the run.
    ``returned``
        What main returned, a signed 32-bit number; None when it has not: a program may write to the debug exit itself.
    """

    kind: RunKind
    status: int | None
    instructions: int
    sentence: str
    error: GuestError | None = None
    returned: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the guest reported success: main returned 0, or the program said so itself."""
        return self.kind is RunKind.SUCCESS

    def __str__(self) -> str:
        return self.sentence
