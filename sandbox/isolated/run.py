"""``run_isolated``: boot and run a program in a child process, and get what happened as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import EngineError, GuestError, SandboxError, UsageError
from .bounds import Bounds
from .child import Child

WORKER = "sandbox.isolated.worker"
RUN_LIMIT = 500_000_000
CONSOLE_BYTES = 1 << 20
EVENTS = 100_000

Event = dict[str, Any]


@dataclass(frozen=True)
class IsolatedError:
    """The :class:`~sandbox.errors.GuestError` of a run, as data: its class, its text and its attributes.

    ``details`` has what the class adds to ``GuestError``: ``vector``, ``address`` and ``error_code`` of a fault, the
    ``message`` of a panic.
    """

    type: str
    text: str
    registers: dict[str, int]
    backtrace: tuple[str, ...]
    instruction: int
    details: dict[str, Any]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class IsolatedResult:
    """The end of a run in another process; its text is one sentence. Plain data throughout.

    ``kind``, ``status``, ``instructions`` and ``sentence`` are those of :class:`~sandbox.guest.outcome.RunResult`,
    ``kind`` as a word. ``console`` is the serial text: its newest ``console_limit`` bytes, behind a line that says
    how many (``console_dropped``) came before. ``events`` are those of the trace as in JSON Lines, in order of entry;
    when there were more than ``event_limit``, recording stopped there and ``events_complete`` is false. ``report`` is
    the text that ``sandbox run`` ends with: slabs, how it ended, what is still in use. ``shadow_errors`` are the
    sentences of what a shadow has collected.
    """

    kind: str
    status: int | None
    instructions: int
    sentence: str
    console: str
    console_dropped: int
    events: tuple[Event, ...]
    events_complete: bool
    report: str
    error: IsolatedError | None = None
    shadow_errors: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether main returned 0."""
        return self.kind == "success"

    def __str__(self) -> str:
        return self.sentence


def run_isolated(
    program: str | Path,
    *,
    limit: int = RUN_LIMIT,
    seconds: float = Bounds.seconds,
    memory: int = Bounds.memory,
    console_limit: int = CONSOLE_BYTES,
    trace: bool = True,
    event_limit: int = EVENTS,
    inject: Sequence[str] = (),
    on_console: Callable[[str], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> IsolatedResult:
    """Boot ``program`` and run its main in a child process, at most ``limit`` instructions.

    ``program`` and ``options`` are those of :func:`sandbox.boot`, of values that JSON knows. ``seconds`` and
    ``memory`` bound what the process may take of this host (:class:`~sandbox.isolated.bounds.Bounds`). ``inject`` are
    faults on purpose, as :mod:`sandbox.guest.faults` writes them.
    ``on_console``, ``on_event`` and ``on_progress`` are told while it runs: serial text in pieces, events, and every
    few million instructions how many there were. They may raise, which ends the child.

    What the guest does, panics, faults and limits included, is in the result. Raises what :func:`sandbox.boot`
    raises for a program or an option that cannot be; ``EngineCrashed``, ``EngineHung`` and ``EngineTooLarge`` when the
    process itself came to grief, with the serial text and the events so far as ``console`` and ``events``.
    """
    for name, number in (("limit", limit), ("console_limit", console_limit), ("event_limit", event_limit)):
        if type(number) is not int or number <= 0:
            raise UsageError(f"{name} is a positive number, not {number!r}")
    request = {"program": program if isinstance(program, str) else {"path": str(program)}, "directory": str(Path.cwd()),
               "limit": limit, "console_limit": console_limit, "event_limit": event_limit if trace else 0,
               "inject": [inject] if isinstance(inject, str) else list(inject), "options": options}
    console = Tail(console_limit)
    events: list[Event] = []
    with Child(WORKER, Bounds(seconds, memory)) as child:
        try:
            for message in child.ask(**request):
                if "console" in message:
                    console.add(message["console"])
                    if on_console is not None:
                        on_console(message["console"])
                if "event" in message:
                    events.append(message["event"])
                    if on_event is not None:
                        on_event(message["event"])
                if "instructions" in message and on_progress is not None:
                    on_progress(message["instructions"])
                if "error" in message:
                    raise revived(message["error"])
                if "result" in message:
                    return _result(message["result"], console, events)
        except TypeError as error:
            raise UsageError(f"an option that JSON does not know: {error}") from None
        except EngineError as error:
            error.console, error.events = console.text, tuple(events)
            raise
    raise EngineError("the guest's process ended its answer without a result")


class Tail:
    """The newest ``limit`` characters of a text that comes in pieces, and how many there were before."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[str] = []
        self._kept = 0
        self.dropped = 0

    def add(self, piece: str) -> None:
        """More of the text."""
        self._pieces.append(piece)
        self._kept += len(piece)
        if self._kept > 2 * self._limit:
            self._settle()

    def _settle(self) -> str:
        text = "".join(self._pieces)
        excess = max(len(text) - self._limit, 0)
        self.dropped += excess
        text = text[excess:]
        self._pieces, self._kept = [text], len(text)
        return text

    @property
    def text(self) -> str:
        """What is kept, behind a line about what is not."""
        text = self._settle()
        return f"[earlier output is not kept: {self.dropped:,} characters]\n{text}" if self.dropped else text


def _result(data: dict[str, Any], console: Tail, events: list[Event]) -> IsolatedResult:
    error = data.pop("error")
    text = console.text
    accused = tuple(data.pop("shadow_errors"))
    return IsolatedResult(
        **data, console=text, console_dropped=console.dropped, events=tuple(events), shadow_errors=accused,
        error=None if error is None else _plain_error(error))


def _plain_error(data: dict[str, Any]) -> IsolatedError:
    details = dict(data["attributes"])
    common = {name: details.pop(name, default) for name, default in (
        ("registers", {}), ("backtrace", ()), ("instruction", 0))}
    details.pop("console", None)
    return IsolatedError(data["type"], data["text"], common["registers"], tuple(common["backtrace"]),
                         common["instruction"], details)


# -- errors as data ---------------------------------------------------------------------------------------------
def packed(error: SandboxError) -> dict[str, Any]:
    """An error as JSON has it: the name of its class, its text, and those attributes that are data."""
    attributes = {name: _plain(value) for name, value in vars(error).items() if not name.startswith("_")}
    return {"type": type(error).__name__, "text": str(error), "attributes": attributes}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def revived(data: dict[str, Any]) -> SandboxError:
    """The error that :func:`packed` was given, as an exception of the same class with the same attributes."""
    kind = getattr(errors, data["type"], SandboxError)
    if not (isinstance(kind, type) and issubclass(kind, SandboxError)):
        kind = SandboxError
    error = kind.__new__(kind)
    Exception.__init__(error, data["text"])
    for name, value in data["attributes"].items():
        is_path = isinstance(value, dict) and value.keys() == {"path"}
        setattr(error, name, Path(value["path"]) if is_path else tuple(value) if isinstance(value, list) else value)
    assert not isinstance(error, GuestError) or hasattr(error, "registers")
    return error
