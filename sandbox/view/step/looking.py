"""Commands that look at the present moment and change nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...debugger.locals import UNKNOWN
from ...debugger.locals import told as told_locals
from ...debugger.wrap import wrapped
from ...errors import UsageError
from ...x86 import REGISTERS
from ..errors import backtrace as frames_with_source
from ..slab_table import slab_table
from ..slabs import LEGEND, slab_rows
from . import console as console_pane
from . import registers as registers_pane
from .command import Command
from .memory import examined
from .moving import place
from .told import here

if TYPE_CHECKING:
    from .session import Session

LISTED = 11
"""Lines that ``list`` shows."""
_WIDE = 110
_CELLS = 48
_FORMAT = re.compile(r"/(?P<format>[xduotcz])\s+(?P<rest>.*)")
_LABEL = re.compile(r"[A-Za-z_.][\w.@/-]*")
_LOCKED = "lock-held"
_FLAGS = {"flags": "rflags", "eflags": "rflags"}


def explained(session: Session, argument: str) -> Iterator[str]:
    """The instruction that is about to run, in words."""
    yield from str(session.scene.explanation).splitlines()


def printed(session: Session, argument: str) -> Iterator[str]:
    """The value of an expression."""
    variable = session.scene.locals.find(argument)
    if variable is not None:
        place = "" if variable.address is None else f"    at 0x{variable.address:x}"
        yield f"{variable}{place}"
        return
    found = _FORMAT.fullmatch(argument)
    of_c = None if found else session.in_c(argument)
    if of_c is not None:
        words, at = session.told(of_c), of_c.place.address
        session.expressions.last = at if at is not None else session.value(argument)
        yield f"{of_c.text} = {words}" + ("" if at is None else f"    at 0x{at:x}")
        return
    value = session.value(found["rest"] if found else argument)
    if found:
        yield _formatted(value, found["format"])
        return
    name = session.scene.name(value)
    yield f"{value:#x} = {name if name is not None else _number(value)}"


def _number(value: int) -> str:
    signed = value - (1 << 64) if value >> 63 else value
    return f"{value:,}" + (f" = {signed:,}" if signed < 0 and signed > -(1 << 31) else "")


def _formatted(value: int, letter: str) -> str:
    signed = value - (1 << 64) if value >> 63 else value
    return {"x": f"{value:#x}", "d": str(signed), "u": str(value), "o": f"0{value:o}", "t": f"{value:b}",
            "c": repr(chr(value & 0xFF)), "z": f"0x{value:016x}"}[letter]


def whatis(session: Session, argument: str) -> Iterator[str]:
    """What lies at an address, in a sentence. Of something in C its type and place as well: for a pointer the sentence
    is about what it leads to, for anything else about itself."""
    seen = session.scene.locals.seen(argument)
    if seen is not None and seen.place is None:
        yield f"{seen.variable.declaration} {UNKNOWN}"
        return
    of_c = session.in_c(argument)
    if of_c is None:
        yield str(session.timeline.kernel.whatis(session.value(argument)))
        return
    at = of_c.place.address
    head = seen.variable.declaration if seen is not None else f"{of_c.text}: {of_c.type.spelled}"
    yield head + (", no place in memory" if at is None else f", {of_c.type.size} bytes at 0x{at:x}")
    about = session.value(argument) if of_c.type.kind == "pointer" else at
    if about:
        yield str(session.timeline.kernel.whatis(about))


def walk(session: Session, argument: str) -> Iterator[str]:
    """How an address is translated."""
    yield session.timeline.kernel.machine.paging.explain(session.value(argument))


def examine(session: Session, argument: str) -> Iterator[str]:
    """Memory, as gdb's ``x`` shows it."""
    yield from examined(session, argument)


def listed(session: Session, argument: str) -> Iterator[str]:
    """Source lines around here, or around a place."""
    symbols = session.timeline.kernel.symbols
    text = argument if not argument or _LABEL.fullmatch(argument) is None else f"*{argument}"      # its very first line
    around = place(session, text)[0]
    line, image = symbols.line(around), symbols.image_at(around)
    if line is None or image is None:
        raise UsageError("no source is known there")
    rows = session.run.listing(image).lines(line.file)
    current = session.scene.line
    yield line.file
    for number in range(max(line.number - LISTED // 2, 1), min(line.number + LISTED // 2, len(rows)) + 1):
        sign = ">" if current and (current.file, current.number) == (line.file, number) else " "
        yield f"{sign}{number:>5}  {rows[number - 1]}".rstrip()


def backtrace(session: Session, argument: str) -> Iterator[str]:
    """Who has called, innermost first."""
    yield from frames_with_source(session.scene.frames, session.timeline.kernel.symbols)


def slabs(session: Session, argument: str) -> Iterator[str]:
    """Every cache on a line, or one cache with its slabs as rows of cells."""
    heap = session.timeline.kernel.heap
    if not argument:
        yield from slab_table(heap)
        return
    yield from slab_rows(heap.cache(argument), _CELLS)
    yield LEGEND


def validate(session: Session, argument: str) -> Iterator[str]:
    """What is wrong with the heap; a check, which fails when something is."""
    found = session.timeline.kernel.heap.validate()
    if any(violation.rule == _LOCKED for violation in found):
        yield "the heap is not judged here: the guest is inside the allocator"
        return
    session.failed = bool(found)
    yield from (str(violation) for violation in found)
    if not found:
        yield "heap: sound"


def console(session: Session, argument: str) -> Iterator[str]:
    """All that the guest has printed until now."""
    yield from console_pane.lines(session.scene)


def save(session: Session, argument: str) -> Iterator[str]:
    """Write the record to a file."""
    if not argument:
        raise UsageError("save needs the name of a file")
    try:
        session.timeline.save(argument)
    except OSError as error:
        raise UsageError(f"{argument}: {error.strerror or error}") from None
    yield f"saved {argument}"


def locals_(session: Session, argument: str) -> Iterator[str]:
    """The variables of a C function that runs."""
    yield from told_locals(session.scene.locals, int(argument) if argument.isdecimal() else None)


# -- info -------------------------------------------------------------------------------------------------------
def info(session: Session, argument: str) -> Iterator[str]:
    """One of several lists."""
    topic, _, rest = argument.partition(" ")
    known = {name: answer for name, answer in _TOPICS.items() if name.startswith(topic)} if topic else {}
    if len(known) != 1:
        raise UsageError(f"info shows {', '.join(_TOPICS)}")
    yield from next(iter(known.values()))(session, rest.strip())


def registers(session: Session, argument: str) -> Iterator[str]:
    """Every register, those marked that have changed; or those that are named."""
    names = [_FLAGS.get(name, name) for name in argument.replace("$", "").split()]
    unknown = [name for name in names if name not in REGISTERS]
    if unknown:
        raise UsageError(f"no register is called {unknown[0]!r}")
    for row in registers_pane.rows(session.scene, _WIDE, len(REGISTERS)):
        text = row.text.rstrip()
        name = text[1:].partition(" ")[0]
        if text and (not names or _FLAGS.get(name, name) in names):
            yield text
    if not names or "rip" in names:
        yield f" rip {session.scene.moment.rip:>16x} {session.scene.moment.location}"


def breakpoints(session: Session, argument: str) -> Iterator[str]:
    """Every breakpoint and watchpoint."""
    symbols = session.timeline.kernel.symbols
    for known in session.breakpoints:
        where = ", ".join(str(symbols.locate(address)) for address in known.addresses)
        bytes_ = f"{known.watch.size} bytes at 0x{known.watch.address:016x}" if known.watch else ""
        yield f"{known.number:>3}  {known.kind:<10}  {known.text:<20}  {where or bytes_}"
    if not len(session.breakpoints):
        yield "no breakpoints"


def program(session: Session, argument: str) -> Iterator[str]:
    """The run as a whole."""
    timeline = session.timeline
    yield f"{session.run.program or 'no program'}: instructions {timeline.start:,} to {timeline.length:,}, " \
          f"{len(session.run.events.every):,} events"
    if timeline.result is not None:
        yield from wrapped(str(timeline.result))
    yield from here(session)


_TOPICS = {"registers": registers, "breakpoints": breakpoints, "slabs": slabs, "program": program,
           "console": console, "frame": backtrace, "locals": locals_}

LOOKING = (
    Command("explain", (), "", "the instruction that is about to run, in words", explained),
    Command("list", ("l",), "[PLACE]", "source lines around here, or around PLACE", listed),
    Command("backtrace", ("bt", "where"), "", "who has called, innermost first", backtrace),
    Command("locals", (), "[FRAME]", "the variables of the C function that runs, or of a frame of the backtrace",
            locals_),
    Command("print", ("p",), "[/xduotcz] VALUE", "rdi+8, dword ptr [rdi]; of C list->next->value, *p, a[9]", printed),
    Command("x", (), "/NFU ADDRESS", "memory as in gdb: x/16xb rsp, x/4xg, x/s, x/5i", examine),
    Command("whatis", (), "VALUE", "what lies at an address, in a sentence; of C also the type", whatis),
    Command("walk", (), "ADDRESS", "how the page tables translate an address", walk),
    Command("info", ("i",), "TOPIC", "registers, breakpoints, slabs, program, console, frame, locals", info),
    Command("slabs", (), "[CACHE]", "every cache on a line, or one with its slabs as rows of cells", slabs),
    Command("validate", (), "", "judge every byte of the heap; fails when something is wrong", validate),
    Command("console", (), "", "all that the guest has printed until now", console),
    Command("save", (), "FILE", "write the record, to be opened by sandbox step FILE", save),
)
