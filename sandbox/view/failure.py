"""What an expert would look at after a failure, in sections that each fit a screen: the guilty instruction with the
registers that it uses, the object with its bytes and its life, the last calls of the allocator.

A section is a title and lines of at most 80 columns; :func:`fit` keeps it within a screen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..debugger.lives import Life, history
from ..debugger.names import Names
from ..debugger.processor import Processor
from ..debugger.wrap import WIDTH, wrapped
from ..errors import GuestMemoryError, HeapCorruption, SandboxError
from ..heap.slabs import HeapObject, LargeAllocation
from ..kernel import Kernel
from ..toolchain.disassembler import MAX_INSTRUCTION, Disassembler
from ..trace.builder import PYTHON
from ..trace.events import Event
from .errors import backtrace
from .live import EventLines

SCREEN = 24
"""Lines of a section, its title included."""
CALLER = "the test"
"""Who calls from outside of the guest."""
ROW = 16
CALLS_SHOWN = 8
FRAMES_SHOWN = 6
CONSOLE_SHOWN = 8
_REGISTERS = re.compile(r"(?:r\w+ +0x[0-9a-f]{16} *){1,3}")
"""A row of registers in a panic's message."""


class Section(NamedTuple):
    """A title, and lines below it."""

    title: str
    lines: tuple[str, ...]


def fit(title: str, lines: Iterable[str]) -> Section:
    """A section that fits a screen: long lines are wrapped, and of too many the first are kept."""
    every = [part.rstrip() for line in lines for part in _at_most_80(line)]
    if len(every) > SCREEN - 1:
        every = [*every[: SCREEN - 2], f"  and {len(every) - SCREEN + 2:,} lines more"]
    return Section(title, tuple(every))


def _at_most_80(line: str) -> list[str]:
    """A line that is too long on several, broken at blanks, or where there are none, anywhere."""
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    parts = wrapped(line.strip(), indent) if "  " not in line.strip() else [line]
    return [part[at : at + WIDTH] for part in parts for at in range(0, max(len(part), 1), WIDTH)]


# -- the instruction --------------------------------------------------------------------------------------------
def instruction(kernel: Kernel, registers: Mapping[str, int], count: int, frames: Sequence[str] = (),
                called: bool = True) -> Iterator[str]:
    """The instruction at RIP with its line and the registers that it uses, and below it who had called::

        @23,117  record.asm:31  mov byte ptr [rdi + rcx], 0
          rdi = object 2 of kmalloc-32, allocated (0xffff8880002d0040)
          rcx = 24 (0x18)
          make_record+0x3a  <- called by the test
    """
    rip = registers.get("rip", 0)
    place = kernel.symbols.locate(rip)
    image = kernel.symbols.image_at(rip)
    detail = Disassembler().detail(_code(kernel, rip), rip, image.symbolize if image else None)
    text = "(no instruction)" if detail is None else detail.instruction.text
    yield f"@{count:,}  {place.source or f'0x{rip:016x}'}  {text}"
    code = place.source.code if place.source else ""
    if place.source and " ".join(code.split()) not in ("", text):
        yield f"  {place.source.text.strip()}"
    names = Names(kernel)
    for name in () if detail is None else detail.reads:
        with suppress(KeyError):                         # a register of another kind
            if Processor.whole(name) not in ("rip", "rflags", "rsp"):
                value = Processor.part(name, registers)
                words = names.value(value, Processor.size(name))
                bare = f" (0x{value:x})" if value > 0xFFFF and f"{value:x}" not in words else ""
                yield f"  {name} = {words}{bare}"
    yield from callers(frames or (str(place),), called)


def callers(frames: Sequence[str], called: bool = True) -> Iterator[str]:
    """A backtrace, one frame on a line, innermost first: ``make_record+0x3a``, ``<- main+0x10 (main.asm:7)``. Behind
    the last stands who called from outside, where somebody did."""
    end = f"  <- called by {CALLER}" if called else ""
    shown = [frame for frame in frames if frame != PYTHON]
    for depth, frame in enumerate(shown[:FRAMES_SHOWN]):
        yield f"  {f'<- {frame}' if depth else frame.partition(' ')[0]}{end if depth + 1 == len(shown) else ''}"
    if len(shown) > FRAMES_SHOWN:
        yield f"  <- {len(shown) - FRAMES_SHOWN} frames more{end}"


def _code(kernel: Kernel, address: int) -> bytes:
    for size in (MAX_INSTRUCTION, 4096 - address % 4096):
        with suppress(SandboxError):
            return kernel.memory.read(address, min(size, MAX_INSTRUCTION))
    return b""


def stack(kernel: Kernel, frames: Sequence[str]) -> Iterator[str]:
    """A backtrace with the source line of each frame."""
    yield from backtrace([frame for frame in frames if frame != PYTHON], kernel.symbols)


# -- the object -------------------------------------------------------------------------------------------------
def thing(kernel: Kernel, events: Iterable[Event], address: int, guilty: int | None = None) -> Iterator[str]:
    """What lies at ``address``: its bytes with the one at ``guilty`` marked, who allocated and freed it, and its
    neighbour; or one sentence where it is no memory of the heap."""
    found = None
    with suppress(SandboxError):
        found = kernel.heap.find(address)
    lives = history(events, address)
    life = lives[-1] if lives else None
    if isinstance(found, (HeapObject, LargeAllocation)):
        start, size = found.address, found.size
    elif life is not None:
        start, size = life.address, life.size
    else:
        yield str(kernel.whatis(address))
        return
    asked = life.allocated.bytes_req if life is not None and life.allocated is not None else size
    yield f"0x{start:016x}  {_title(found, life, asked, size)}"
    yield from rows(kernel, start, asked, address if guilty is None else guilty)
    yield from times(life)
    if isinstance(found, HeapObject):
        yield from _neighbour(found, before=guilty is not None and guilty < start)


def _title(found: object, life: Life | None, asked: int, size: int) -> str:
    """``kmalloc-32 #2, asked 24, given 32, allocated``"""
    if isinstance(found, HeapObject):
        with suppress(HeapCorruption, GuestMemoryError):
            return f"{found.cache.name} #{found.index}, asked {asked}, given {size}, {found.state}"
        return f"object #{found.index} of a slab whose free list is damaged"
    if isinstance(found, LargeAllocation):
        return f"whole pages, asked {asked:,}, given {size:,}"
    assert life is not None
    held = "live" if life.freed is None else "freed"
    if life.cache:
        return f"was {size} bytes of {life.cache}, whose slab is gone, {held}"
    return f"{asked:,} bytes, {held}"


def rows(kernel: Kernel, start: int, asked: int, guilty: int) -> Iterator[str]:
    """The row of the guilty byte and the one before it; ``|`` stands where the bytes end that were asked for. ::

        +0x10  72 61 63 74 65 72 73 21|00 00 00 00 00 00 00 00
                                       ^^ first byte past the end
    """
    first = max(guilty - start, 0) // ROW * ROW if guilty >= start else -((start - guilty + ROW - 1) // ROW) * ROW
    for offset in sorted({max(first - ROW, 0) if first > 0 else first, first}):
        try:
            data = kernel.memory.read(start + offset, ROW)
        except SandboxError as error:
            yield f"  {_offset(offset)}  {error}"
            continue
        cells = "".join(("|" if offset + at == asked else " ") + f"{byte:02x}" for at, byte in enumerate(data))
        head = f"  {_offset(offset)} "
        yield head + cells
        if offset <= guilty - start < offset + ROW:
            yield " " * (len(head) + 1 + 3 * (guilty - start - offset)) + f"^^ {_where(guilty - start, asked)}"


def _offset(offset: int) -> str:
    return f"{'-' if offset < 0 else '+'}0x{abs(offset):02x}"


def _where(offset: int, asked: int) -> str:
    """Where a byte lies: in an object, before it, or behind the bytes that were asked for."""
    if offset < 0:
        return f"{-offset} byte{'s' * (offset < -1)} before it"
    if offset < asked:
        return f"byte {offset}"
    return "first byte past the end" if offset == asked else f"{offset - asked:,} bytes past the end"


def times(life: Life | None) -> Iterator[str]:
    """When it was allocated, resized and freed, and by whom."""
    if life is None:
        return
    if life.allocated is None:
        yield "  allocated before the test began"
    told = [("allocated", life.allocated), *(("resized", event) for event in life.resized), ("freed", life.freed),
            *(("freed again", event) for event in life.again)]
    for what, event in told:
        if event is not None:
            yield f"  {what} @{event.entered:,}  {event.function}, by {by(event)}"


def by(event: Event) -> str:
    """Who called: ``make_record+0x12 (record.asm:14)``, or the test."""
    frames = [frame for frame in event.stack if frame != PYTHON]
    return frames[0] if frames else CALLER


def _neighbour(found: HeapObject, before: bool) -> Iterator[str]:
    index = found.index + (-1 if before else 1)
    with suppress(HeapCorruption, GuestMemoryError):
        if 0 <= index < found.slab.count:
            other = HeapObject(found.slab, index)
            yield f"  neighbour #{index} 0x{other.address:016x}  {other.state}"


# -- the calls --------------------------------------------------------------------------------------------------
def last_calls(events: Iterable[Event], program: str = "", until: int | None = None) -> Iterator[str]:
    """The last outermost calls that began before ``until``, a line for each."""
    roots = [event for event in events if event.parent is None and (until is None or event.entered <= until)]
    if len(roots) > CALLS_SHOWN:
        yield f"  {len(roots) - CALLS_SHOWN:,} calls before these"
    lines = EventLines(program)
    yield from (lines.line(event).replace(f"  {PYTHON}", f"  by {CALLER}") for event in roots[-CALLS_SHOWN:])


def last_words(console: str) -> Iterator[str]:
    """The end of what the guest has printed, without the registers of a panic: they would push its message out."""
    lines = [line for line in console.rstrip().splitlines() if not _REGISTERS.fullmatch(line.rstrip())]
    if len(lines) > CONSOLE_SHOWN:
        before = len(lines) - CONSOLE_SHOWN
        yield f"({before:,} line{'' if before == 1 else 's'} before these)"
    yield from lines[-CONSOLE_SHOWN:]
