"""What a test's marker asks for at its end, checked by what Python read and traced; the guest has no say in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..abi import PAGE_SIZE
from ..debugger.lives import Life, history
from ..errors import GuestMemoryError, HeapCorruption
from ..heap.leaks import Leak
from ..heap.validate import Violation
from ..kernel import Kernel
from ..trace.builder import PYTHON
from ..trace.events import Event
from ..trace.ledger import held, lasting
from ..trace.usage import PAGES, Usage, peak
from ..view.failure import Section, fit
from .options import Limits

TABLE_ROWS = 12
LEAKS_SHOWN = 4
_FOREIGN = "its memory"


@dataclass(frozen=True)
class Broken:
    """A limit that does not hold: its sentence, a section about it, and the moment or the memory to look at."""

    sentence: str
    section: Section | None = None
    at: int | None = None
    address: int | None = None


def broken(kernel: Kernel, start: int, limits: Limits, kept: Collection[int] = ()) -> list[Broken]:
    """What does not hold of a kernel that a test got when the clock was ``start``; ``kept`` are addresses of
    allocations that the test still wants. A heap that cannot be read is a limit broken."""
    found: list[Broken] = []
    try:
        for one in _broken(kernel, start, limits, kept):
            found.append(one)
    except (HeapCorruption, GuestMemoryError) as error:
        found.append(Broken(f"the heap cannot be read: {error}", None, None, error.address))
    return found


def _broken(kernel: Kernel, start: int, limits: Limits, kept: Collection[int]) -> Iterator[Broken]:
    events = lasting(kernel.trace.walk(), kernel.travel.history.end)
    taken = kernel.travel.history.end - start
    if limits.max_instructions is not None and taken > limits.max_instructions:
        yield Broken(f"max_instructions={limits.max_instructions:,}: it took {taken:,} instructions",
                     fit("instructions", _costs(events)))
    if limits.max_pages is not None or limits.max_waste is not None:
        yield from _room(_usage(kernel, events), limits)
    if limits.no_leaks:
        yield from _leaks(kernel, events, kept)
    if limits.sound_heap:
        yield from _unsound(kernel, events)


def _costs(events: list[Event]) -> Iterator[str]:
    """What the outermost calls of the allocator cost, dearest first."""
    total: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    worst: dict[str, Event] = {}
    for event in events:
        if event.parent is None:
            total[event.function] += event.instructions
            calls[event.function] += 1
            if event.function not in worst or event.instructions > worst[event.function].instructions:
                worst[event.function] = event
    yield f"{'in the allocator':<26}{'calls':>9}{'instructions':>14}{'worst':>10}  at"
    for name, instructions in total.most_common(TABLE_ROWS):
        yield (f"{name:<26}{calls[name]:>9,}{instructions:>14,}{worst[name].instructions:>10,}"
               f"  @{worst[name].entered:,}")


# -- pages and waste --------------------------------------------------------------------------------------------
def _usage(kernel: Kernel, events: list[Event]) -> Usage:
    """The peak: of the kernel's pages, or, where somebody else's allocator is tested, of the pages of its own memory
    that it has ever written."""
    if kernel.foreign is None:
        return peak(events)
    own = _own(kernel)
    asked = peak([event for event in events if event.function in own])
    taken = PAGE_SIZE * sum(1 for _ in _written_pages(kernel))
    return Usage(taken, asked.asked, asked.instruction, {_FOREIGN: taken}, {_FOREIGN: asked.asked})


def _written_pages(kernel: Kernel) -> Iterator[int]:
    """The pages of an allocator's arena and data whose page-table entries say that they were written to."""
    foreign = kernel.foreign
    assert foreign is not None
    data = foreign.image.section("data")
    ranges = [(kernel.allocator.arena.start, kernel.allocator.arena.end), *([(data.address, data.end)] if data else [])]
    for start, end in ranges:
        for address in range(start, end, PAGE_SIZE):
            steps = kernel.machine.paging.walk(address)
            if steps and steps[-1].entry.D:
                yield address


def _room(usage: Usage, limits: Limits) -> Iterator[Broken]:
    if limits.max_pages is not None and usage.pages > limits.max_pages:
        yield Broken(f"max_pages={limits.max_pages:,}: it held {usage.pages:,} pages at instruction "
                     f"{usage.instruction:,}", fit("pages", _owners(usage)), usage.instruction)
    if limits.max_waste is not None and usage.waste > limits.max_waste:
        yield Broken(f"max_waste={limits.max_waste:g}: {usage.waste:.1f}% of {usage.taken:,} bytes in pages were asked "
                     f"for by nobody, at instruction {usage.instruction:,}", fit("waste", _owners(usage)),
                     usage.instruction)


def _owners(usage: Usage) -> Iterator[str]:
    yield f"at @{usage.instruction:,}{'pages':>16}{'bytes':>12}{'asked for':>12}{'waste':>9}"
    owners = dict.fromkeys((*usage.taken_by, *usage.asked_by))
    for owner in sorted(owners, key=lambda owner: (owner == PAGES, -usage.taken_by.get(owner, 0), owner)):
        taken, asked = usage.taken_by.get(owner, 0), usage.asked_by.get(owner, 0)
        waste = f"{max(100 * (taken - asked) / taken, 0):.1f}%" if taken else "-"
        yield f"{owner:<20}{taken // PAGE_SIZE:>8,}{taken:>12,}{asked:>12,}{waste:>9}"


# -- leaks ------------------------------------------------------------------------------------------------------
def _leaks(kernel: Kernel, events: list[Event], kept: Collection[int]) -> Iterator[Broken]:
    """Allocations of this test that were not freed, and that nothing reaches. What a call of the test's own returned
    is reached by nothing: the test frees it, or says that it keeps it."""
    unjudged = _unjudged(kernel)
    if unjudged:
        yield Broken(f"no_leaks: {unjudged}")
        return
    lives = {address: _life(events, address) for address in _left(kernel, events, kept)}
    if not lives:
        return
    size = sum(life.size if life else 0 for life in lives.values())
    lines: list[str] = []
    for address, life in list(lives.items())[:LEAKS_SHOWN]:
        lines += str(life).replace(f"      {PYTHON}", "      the test").splitlines() if life else [f"0x{address:016x}"]
    if len(lives) > LEAKS_SHOWN:
        lines.append(f"and {len(lives) - LEAKS_SHOWN:,} more")
    first = next(iter(lives.values()))
    yield Broken(f"no_leaks: {_count(len(lives), 'allocation')}, {size:,} bytes, nobody frees and nothing leads to",
                 fit("leaks", lines), None if first is None or first.allocated is None else first.allocated.entered)


def _left(kernel: Kernel, events: list[Event], kept: Collection[int]) -> list[int]:
    """The addresses of what leaked."""
    own = _own(kernel)
    if own:
        return [at for at in held([event for event in events if event.function in own], strict=False)
                if at not in kept]
    asked = {event.address: event for event in events if event.kind in ("alloc", "realloc", "page_alloc")}
    return [leak.address for leak in kernel.heap.leaks(kept) if _counts(leak, asked.get(leak.address))]


def _counts(leak: Leak, event: Event | None) -> bool:
    """Whether it was allocated in this test; and where it may be reached, whether by the test itself, which has no
    place in the guest to keep it."""
    return event is not None and (leak.certain or event.call_site == PYTHON)


def _life(events: list[Event], address: int) -> Life | None:
    lives = history(events, address)
    return lives[-1] if lives else None


# -- soundness --------------------------------------------------------------------------------------------------
def _unsound(kernel: Kernel, events: list[Event]) -> Iterator[Broken]:
    unjudged = _unjudged(kernel)
    if unjudged:
        yield Broken(f"sound_heap: {unjudged}")
        return
    own = _own(kernel)
    found = kernel.heap.validate(live=held([event for event in events if event.function not in own], strict=False))
    if found:
        yield Broken(f"sound_heap: {_count(len(found), 'violation')}, the first: {found[0].rule} at "
                     f"0x{found[0].address:016x}", fit("broken heap", violations(found)), None, found[0].address)


def violations(found: list[Violation]) -> Iterator[str]:
    """Each violation, causes first."""
    yield from (str(violation) for violation in found)


def _own(kernel: Kernel) -> tuple[str, ...]:
    """The functions of somebody else's allocator, which the kernel's heap knows nothing of."""
    foreign = kernel.foreign
    return () if foreign is None else (foreign.options.allocate, foreign.options.deallocate)


def _unjudged(kernel: Kernel) -> str:
    """Why the heap is between two states; empty where it is not."""
    if kernel.failure is None:
        return ""
    return f"the guest stopped in the middle ({_first_sentence(str(kernel.failure))}), so its heap cannot be judged: " \
           "kernel.rewind() takes it back"


def _first_sentence(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 120 else f"{line[:117]}..."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
