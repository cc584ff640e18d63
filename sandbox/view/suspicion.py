"""What was found wrong with a heap, in lines: by the judge, by the shadow, and by looking for what nothing reaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap

from ..errors import ShadowError
from ..guest.faults import Failure
from ..guest.outcome import RunKind, RunResult
from ..heap.leaks import Leak
from ..kernel import Kernel
from ..trace.builder import Names
from ..trace.callers import caller
from ..trace.events import Event
from ..trace.ledger import held
from ..trace.shadow_objects import Held
from .live import place, where

SHOWN = 12
"""Lines of each kind; the rest is counted."""
WIDTH = 79
ENDED = (RunKind.SUCCESS, RunKind.FAILURE)
"""Ends at which the program holds nothing in registers or on its stack any more."""
_LOCKED = "lock-held"


# -- the judge --------------------------------------------------------------------------------------------------
def judgement(kernel: Kernel, result: RunResult, events: Iterable[Event] = (),
              before: Mapping[int, int] | None = None) -> Iterator[str]:
    """What validation says after a run: ``heap: sound``, or the rules that are broken, causes first.

    ``events`` of a whole trace tell it what callers still hold, ``before`` what they held when it began. A guest that
    stopped inside the allocator is not judged: its heap is between two states.
    """
    live = held(events, before, strict=False) if events and result.kind in ENDED else {}
    found = kernel.heap.validate(live=live)
    if any(violation.rule == _LOCKED for violation in found) and result.kind not in ENDED:
        yield "heap: not judged, the guest stopped inside the allocator"
    elif not found:
        yield "heap: sound"
    else:
        yield f"heap: {_count(len(found), 'violation')}"
        yield from _first(str(violation) for violation in found)


# -- the shadow -------------------------------------------------------------------------------------------------
def shadow(kernel: Kernel, result: RunResult, program: str = "") -> Iterator[str]:
    """What the shadow saw, nothing without one: errors that it collected, and, of an allocator of the program's own,
    the chunks that were never taken back. ``program`` is the program's source file."""
    watching = kernel.shadow
    if watching is None:
        return
    collected = [error for error in watching.errors if error is not result.error]
    if collected:
        yield f"shadow: {_count(len(collected), 'error')}"
        yield from _first(f"{error.instruction:,}  {error}" for error in collected)
        yield ""
        yield from shadow_report(collected[0])
    elif not isinstance(result.error, ShadowError):
        yield "shadow: no wrong access"
    if result.kind in ENDED:
        yield from _kept(kernel, watching.chunks(), program)


def shadow_report(error: ShadowError) -> Iterator[str]:
    """All that is known of an error, its sentence on as many lines as it needs."""
    sentence, *sections = error.report.splitlines()
    yield from _wrapped(sentence)
    yield from sections


def _kept(kernel: Kernel, chunks: Mapping[int, Held], program: str) -> Iterator[str]:
    """Chunks of the program's own allocator that their owners still have, by size and by the call that took them."""
    kept = [chunk for chunk in chunks.values() if chunk.live]
    if not kept:
        return
    yield ""
    yield f"never taken back: {_count(len(kept), 'chunk')}, {sum(chunk.asked for chunk in kept):,} bytes"
    groups = Counter((chunk.asked, _caller(kernel, chunk, program)) for chunk in kept)
    yield from _first(f"{number:,} of {size} bytes  by {caller}" for (size, caller), number in sorted(groups.items()))


def _caller(kernel: Kernel, chunk: Held, program: str) -> str:
    if chunk.allocated is None or not chunk.allocated.stack:
        return "nobody known"
    return place(caller(Names(kernel.symbols).stack(chunk.allocated.stack)), program)


# -- leaks ------------------------------------------------------------------------------------------------------
def leaks(kernel: Kernel, result: RunResult, events: Iterable[Event] = (), program: str = "") -> Iterator[str]:
    """What is allocated when ``main`` has returned, and that nothing leads to; nothing after any other end."""
    if result.kind not in ENDED:
        return
    found = kernel.heap.leaks()
    if not found:
        return
    latest = {event.address: event for event in events if event.kind in ("alloc", "realloc", "page_alloc")
              and event.parent is None and not event.failed}
    yield f"leaked: nothing leads to {_count(len(found), 'object')}, {sum(leak.size for leak in found):,} bytes"
    yield from _first(_leak(leak, latest.get(leak.address), program) for leak in found)


def _leak(leak: Leak, event: Event | None, program: str) -> str:
    by = leak.allocation.call_site if leak.allocation is not None else ""
    by = where(event, program) if event is not None else by
    perhaps = "" if leak.certain else "  (but perhaps an old free pointer)"
    return f"0x{leak.address:016x}  {leak.size:,} bytes of {leak.cache or 'whole pages'}" \
           f"{f'  by {by}' if by else ''}{perhaps}"


# -- faults on purpose ------------------------------------------------------------------------------------------
def injected(kernel: Kernel) -> Iterator[str]:
    """The faults that were asked for, and how often each struck."""
    for armed in kernel.injected:
        struck = "never" if not armed.struck else "once" if armed.struck == 1 else f"{armed.struck:,} times"
        calls = f", in {_count(armed.calls, 'call')}" if isinstance(armed.fault, Failure) else ""
        yield f"injected: {armed.fault} struck {struck}{calls}"


def _first(lines: Iterable[str]) -> Iterator[str]:
    """The first lines, set in; the others counted."""
    every = list(lines)
    for line in every[:SHOWN]:
        yield from _wrapped(f"  {line}")
    if len(every) > SHOWN:
        yield f"  and {len(every) - SHOWN:,} more"


def _wrapped(line: str) -> Iterator[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    yield from wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
