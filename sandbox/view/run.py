"""The end of a run: the slabs it touched, how it ended, what it did not give back, what to try next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..abi import PageFlag
from ..errors import GuestFault, GuestMemoryError, HeapCorruption, ShadowError
from ..guest.outcome import RunKind, RunResult
from ..heap.slabs import HeapObject, ObjectState
from ..heap.views import Heap
from ..kernel import Kernel
from ..trace.callers import LIBRARY, caller
from ..trace.events import Event
from .errors import backtrace, report
from .live import where
from .slabs import CELLS, LEGEND, cells
from .suspicion import injected, judgement, leaks, shadow, shadow_report

CELLS_ON_A_LINE = 48
SLABS_SHOWN = 24
HELD_SHOWN = 12
GUESTS_BACKTRACE = "\nbacktrace:"
"""What the console has when the guest itself could still print its registers."""
_OUT_OF_SLAB = {CELLS[ObjectState.ALLOCATED], CELLS[ObjectState.CACHED]}


@dataclass(frozen=True)
class Before:
    """The heap before a run: the cells of each slab by address, who holds what, the caches, pages taken."""

    slabs: Mapping[int, str]
    held: Mapping[int, int]
    caches: frozenset[str]
    pages: int

    @classmethod
    def of(cls, heap: Heap) -> Before:
        """The heap as it is now."""
        return cls({slab.address: "".join(cells(slab)) for cache in heap.caches for slab in cache.slabs},
                   heap.allocated(), frozenset(cache.name for cache in heap.caches), heap.pages.counts().allocated)


def summary(kernel: Kernel, result: RunResult, before: Before, events: Iterable[Event] = (),
            program: str = "PROGRAM", following: str = "") -> Iterator[str]:
    """The whole end of a run, in lines. ``events`` are all of its trace, none without one; ``program`` is how the
    user calls it, ``following`` the example that comes next. What a damaged heap does not let us read is said, and
    the rest still told."""
    events, file = list(events), program_file(kernel)
    sections: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: slabs(kernel.heap, before, events), lambda: ending(kernel, result),
        lambda: shadow(kernel, result, file), lambda: injected(kernel),
        lambda: still_in_use(kernel.heap, before, events, file),
        lambda: leaks(kernel, result, events, file), lambda: judgement(kernel, result, events, before.held),
        lambda: what_next(kernel, result, program, following))
    told = ""
    for section in sections:
        try:
            lines = list(section())
        except HeapCorruption as error:
            lines = [f"the heap is corrupt: {error}"] if str(error) not in told else []
        except GuestMemoryError as error:
            lines = [f"guest memory cannot be read here: {error}"] if str(error) not in told else []
        if lines:
            told += "\n".join(lines)
            yield ""
            yield from lines


def program_file(kernel: Kernel) -> str:
    """The name of the source file that ``main`` is in."""
    line = kernel.line(kernel.symbols["main"]) if "main" in kernel.symbols else None
    return line.file if line else ""


# -- slabs ------------------------------------------------------------------------------------------------------
def slabs(heap: Heap, before: Before, events: Iterable[Event] = ()) -> Iterator[str]:
    """Each slab that the run touched, as a row of cells; slabs that were given back to the pages by name alone."""
    mentioned = {event.slab: event.cache or "" for event in events if event.slab}
    shown = 0
    present: set[int] = set()
    corrupt: set[str] = set()
    for cache in heap.caches:
        try:
            rows = [(slab, "".join(cells(slab))) for slab in cache.slabs]
            present.update(slab.address for slab, _ in rows)
            rows = [(slab, row) for slab, row in rows
                    if slab.address in mentioned or before.slabs.get(slab.address) != row]
            if not rows:
                continue
            yield (f"{cache.name}: {cache.object_size:,} bytes, {cache.objects_per_slab} in a slab; {cache.inuse} in "
                   f"use, {cache.cached} in magazines, {cache.free} free")
        except HeapCorruption as error:
            corrupt.add(cache.name)
            yield f"{cache.name}: the heap is corrupt: {error}"
            continue
        for slab, row in rows[: max(SLABS_SHOWN - shown, 0)]:
            label = f"  0x{slab.address:016x} {_list_of(row):<8}"
            for line in _cell_lines(row):
                yield f"{label} {line}"
                label = " " * len(label)
        if shown + len(rows) > SLABS_SHOWN:
            yield f"  and {shown + len(rows) - max(SLABS_SHOWN, shown):,} slabs more"
        shown += len(rows)
    gone: dict[str, int] = {}
    for address, name in mentioned.items():
        if address not in present and name not in corrupt:
            gone[name] = gone.get(name, 0) + 1
    for name, count in gone.items():
        yield f"{name or 'a cache'}: {_count(count, 'slab')} given back to the pages"
    if shown:
        yield LEGEND


def _cell_lines(row: str) -> Iterator[str]:
    """A slab's cells on lines; free ones that would fill lines at the end are counted instead."""
    free = CELLS[ObjectState.FREE]
    used = len(row.rstrip(free))
    shown = max(-(-used // CELLS_ON_A_LINE), 1) * CELLS_ON_A_LINE
    if len(row) - shown <= CELLS_ON_A_LINE:
        shown = len(row)
    for at in range(0, max(shown, 1), CELLS_ON_A_LINE):
        yield row[at : min(at + CELLS_ON_A_LINE, shown)]
    if shown < len(row):
        yield f"and {len(row) - shown} free"


def _list_of(row: str) -> str:
    """The list of its cache that a slab with these cells belongs on; objects in magazines are out of it."""
    out = sum(cell in _OUT_OF_SLAB for cell in row)
    return "empty" if out == 0 else "full" if out == len(row) else "partial"


# -- the exit ---------------------------------------------------------------------------------------------------
def ending(kernel: Kernel, result: RunResult) -> Iterator[str]:
    """The exit in words and the instruction count; after a panic or a fault all that is known about it."""
    taken = f"after {result.instructions:,} instructions"
    if result.kind is RunKind.SUCCESS:
        yield f"success: {_how(result)}, {taken} (QEMU's exit status: {result.status})"
    elif result.kind is RunKind.FAILURE:
        yield f"failure: {_how(result)}, {taken} (QEMU's exit status: {result.status})"
    elif isinstance(result.error, ShadowError):
        yield from shadow_report(result.error)
        yield ""
        yield f"stopped by the shadow, {taken}"
    elif result.error is not None:
        yield from report(result.error, kernel.symbols, [*_explained(kernel, result.error), taken],
                          with_registers=GUESTS_BACKTRACE not in kernel.console)
    else:
        yield f"limit reached: main has not returned {taken}" if result.kind is RunKind.LIMIT \
            else f"stopped: {result.sentence}, {taken}"
        yield "it stands at"
        yield from backtrace(kernel.backtrace(), kernel.symbols)


def _how(result: RunResult) -> str:
    """Who reported the end."""
    return "the program wrote to the debug exit itself, and main has not returned" if result.returned is None \
        else f"main returned {result.returned}"


def _explained(kernel: Kernel, error: BaseException) -> list[str]:
    """What is at the address of a page fault."""
    if isinstance(error, GuestFault) and error.vector == 14:
        return [str(kernel.whatis(error.address))]
    return []


# -- what is left -----------------------------------------------------------------------------------------------
def still_in_use(heap: Heap, before: Before, events: Iterable[Event] = (), program: str = "") -> Iterator[str]:
    """What was allocated and not given back, with the call that took it where there is a trace. ``program`` is the
    program's source file. The allocator's own objects (caches, magazines) are nobody's leak."""
    events = list(events)
    caches = heap.caches
    own = {cache.address for cache in caches} | {held.address for cache in caches for held in cache.magazines}
    held = {address: size for address, size in heap.allocated().items()
            if address not in before.held and address not in own}
    calls = _last_calls(events, held)
    lines = [_held_line(address, f"{size:,} bytes of {_owner(heap, address)}", calls.get(address), program)
             for address, size in list(held.items())[:HELD_SHOWN]]
    if len(held) > HELD_SHOWN:
        lines.append(f"  and {len(held) - HELD_SHOWN:,} more")
    lines += [f"  0x{cache.address:016x}  the cache {cache.name}, which was not destroyed" for cache in caches
              if cache.name not in before.caches]
    lines += _pages(heap, before, events, program)
    total = f": {_count(len(held), 'object')}, {sum(held.values()):,} bytes" if held else ":"
    yield f"still in use{total}" if lines else "still in use: nothing"
    yield from lines


def _owner(heap: Heap, address: int) -> str:
    found = heap.find(address)
    return found.cache.name if isinstance(found, HeapObject) else "whole pages"


def _held_line(address: int, what: str, event: Event | None, program: str) -> str:
    by = f"  by {where(event, program)}" if event is not None else ""
    return f"  0x{address:016x}  {what}{by}"


def _last_calls(events: Iterable[Event], addresses: Mapping[int, int]) -> dict[int, Event]:
    """For each address the outermost call of the last allocation that gave it."""
    found: dict[int, Event] = {}
    for event in events:
        if event.kind in ("alloc", "realloc") and event.address in addresses and not event.failed:
            known = found.get(event.address)
            if known is None or known.instruction < event.entered:
                found[event.address] = event
    return found


def _pages(heap: Heap, before: Before, events: Iterable[Event], program: str) -> list[str]:
    """Pages that were taken from ``get_free_pages`` itself, page tables not counted."""
    taken: dict[int, Event] = {}
    for event in events:
        if event.parent is None and event.kind == "page_alloc" and not event.failed:
            taken[event.address] = event
        elif event.kind == "page_free":
            taken.pop(event.address, None)
    found = [_held_line(address, f"{event.bytes_alloc:,} bytes of pages", event, program)
             for address, event in taken.items() if not _is_table(heap, address)]
    more = heap.pages.counts().allocated - before.pages
    return found or ([f"  {_count(more, 'page')} of get_free_pages"] if more > 0 else [])


def _is_table(heap: Heap, address: int) -> bool:
    pfn = heap.pages.pfn(address)
    return pfn is not None and bool(heap.pages.struct_page(pfn).flags & PageFlag.PG_TABLE)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# -- what next --------------------------------------------------------------------------------------------------
def what_next(kernel: Kernel, result: RunResult, program: str, following: str = "") -> Iterator[str]:
    """Commands that make sense after this end, each with its reason."""
    source = (f"sandbox disasm main {program}", "its source beside its bytes")
    trace = (f"sandbox run {program} --json trace.jsonl", "the trace, for a script to read")
    choices = [source]
    if result.kind is RunKind.SUCCESS:
        if kernel.options.magazines and any(cache.cached for cache in kernel.heap.caches):
            choices.append((f"sandbox run {program} --no-magazines", "each call goes to its slab"))
        choices.append((f"sandbox slabs {program}", "every cache, in slabinfo's columns"))
        if following:
            choices.insert(0, (f"sandbox run {following}", "the next example"))
    elif result.kind is RunKind.LIMIT:
        choices.insert(0, (f"sandbox run {program} --limit {10 * result.instructions}", "more time"))
    else:
        function = _innermost(kernel, result)
        if function not in ("", "main"):
            choices = [(f"sandbox disasm {function} {program}", "the program's innermost function")]
        choices.append(trace)
    width = max(len(command) for command, _ in choices)
    yield "next"
    for command, why in choices:
        yield f"  {command:<{width}}  {why}"


def _innermost(kernel: Kernel, result: RunResult) -> str:
    """The innermost function of the program in the backtrace of an error; empty where there is none."""
    every = [caller([frame]) for frame in (result.error.backtrace if result.error else ())]
    return next((frame.function for frame in every if kernel.program is not None
                 and frame.function in kernel.program.functions and not frame.file.startswith(LIBRARY)), "")
