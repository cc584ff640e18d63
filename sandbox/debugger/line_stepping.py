"""Stepping by source line, forwards and backwards, into calls and over them: gdb's ``step`` and ``next``.

The run is seen as visits. One begins where a function is entered, and where a function goes on in another line than it
was in; what its callees do meanwhile does not end it. So each turn of a loop over several lines is a visit to each of
them, a recursion begins one in its own frame, and the rest of a line behind a call is none. A move goes from the
beginning of one visit to that of another, which makes the way back the way there::

    forwards   into: the next one                           over: the next one in this frame, or one further out
    backwards  into: the one before this moment             over: the same, in this frame or one further out

The lines are those of the program, its modules and its allocator; those of the C library where one stands in it; those
of the kernel where there is nothing else. All other code is passed over, and from inside of it a move leads out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..address import U64
from ..errors import UsageError
from ..guest.frames import frames
from ..guest.registers import Registers
from ..guest.symbols import Symbols
from ..guest.travel import Travel
from ..layout import Readable
from ..toolchain.disassembler import Disassembler, Outline
from ..toolchain.image import Image
from ..toolchain.unwind import Rule
from ..trace.callers import LIBRARY
from .search import Found, Search

Line = tuple[str, int]


@dataclass(frozen=True)
class _Code:
    """The instructions that are looked at: the ``lines`` of each; ``calls``, the line of the call that an address is
    behind; ``entries``, which begin a function, and ``rows``, which one of the table of lines. ``ways`` are those that
    the run can come to from another line, or from another frame."""

    lines: dict[int, Line]
    calls: dict[int, Line]
    entries: frozenset[int]
    rows: frozenset[int]
    ways: frozenset[int]


@dataclass
class _Frame:
    """A function that runs, by its CFA, and the line that it was in last."""

    cfa: int
    line: Line


@dataclass(frozen=True)
class _Visit:
    """Where one begins; not ``certain`` where that hangs on what ran before anybody looked."""

    instruction: int
    certain: bool


class LineStepping:
    """Finds the moments to step to. Every method begins at the present moment, leaves the guest anywhere, and returns
    the moment that was meant."""

    def __init__(self, travel: Travel, search: Search, symbols: Symbols, memory: Readable,
                 registers: Registers) -> None:
        self._travel = travel
        self._search = search
        self._symbols = symbols
        self._memory = memory
        self._registers = registers
        self._stack = travel.machine.cpu.register_reader(("rsp", "rbp"))
        self._codes: dict[bool, _Code] = {}
        self._rules: dict[int, Rule | None] = {}

    def forwards(self, over: bool) -> int:
        """Where the next visit to a line begins; the end of the run where none does."""
        code = self._code()
        frame = self._frame(code)
        limit = frame.cfa if frame is not None else 0
        visits = _Visits(code, [frame] if frame is not None else [])

        def wanted(found: Found) -> bool:
            nonlocal limit
            cfa = self._cfa(found.rip)
            if over and cfa < limit:
                return False
            limit = cfa
            visit = visits.visit(found, cfa, self._enters(found.rip, cfa, code))
            return visit is not None and (visit.certain or found.rip in code.rows)

        end = self._travel.history.end
        found = self._search.forwards(end, code.ways, (), wanted=wanted)
        return end if found is None else found.instruction

    def backwards(self, over: bool) -> int:
        """Where the last visit to a line before now began; :class:`UsageError` where there was none."""
        code = self._code()
        frame = self._frame(code) if over else None
        limit = 0 if frame is None else frame.cfa
        if self._enters(self._registers["rip"], limit, code):
            limit += 1                                   # from its first line, a function is left
        begin = end = self._travel.machine.instructions
        while True:
            visits: list[_Visit] = []
            begin = self._search.stretch(begin, end, code.ways, self._listener(code, limit, visits))
            certain = [visit for visit in visits if visit.certain]
            if certain:
                return certain[-1].instruction
            if self._search.is_first(begin):
                break
            end = visits[0].instruction + 1 if visits else begin     # what was before tells whether it is one
        if visits:
            return visits[0].instruction
        raise UsageError("no line of the program has run before this moment")

    def _listener(self, code: _Code, limit: int, visits: list[_Visit]) -> Callable[[Found], None]:
        """Notes the visits of a stretch, those of frames below ``limit`` left out."""
        begun = _Visits(code, [])

        def reached(found: Found) -> None:
            cfa = self._cfa(found.rip)
            if cfa >= limit:
                visit = begun.visit(found, cfa, self._enters(found.rip, cfa, code))
                if visit is not None:
                    visits.append(visit)

        return reached

    # -- frames -----------------------------------------------------------------------------------------------
    def _frame(self, code: _Code) -> _Frame | None:
        """The innermost frame of code that is looked at."""
        for frame in frames(self._registers, self._memory, self._symbols, self._symbols.unwind):
            if frame.interrupted and frame.rip in code.lines:
                return _Frame(frame.cfa or 0, code.lines[frame.rip])
            if not frame.interrupted and frame.rip in code.calls:
                return _Frame(frame.cfa or 0, code.calls[frame.rip])
        return None

    def _cfa(self, rip: int) -> int:
        """The CFA of the function that is about to run the instruction at ``rip``, for use inside hooks."""
        if rip not in self._rules:
            self._rules[rip] = self._symbols.unwind.rule(rip)
        rule = self._rules[rip]
        rsp, rbp = self._stack()
        base = {"rsp": rsp, "rbp": rbp}.get(rule.cfa_register) if rule is not None else None
        return rsp + 8 if rule is None or base is None else base + rule.cfa_offset

    def _enters(self, rip: int, cfa: int, code: _Code) -> bool:
        """Whether a function begins here: its return address is on top of the stack."""
        return rip in code.entries and self._stack()[0] + 8 == cfa

    # -- the code ---------------------------------------------------------------------------------------------
    def _code(self) -> _Code:
        """The code that is looked at from here."""
        line = self._symbols.line(self._registers["rip"])
        library = line is not None and line.file.startswith(LIBRARY)
        if library not in self._codes:
            kernel, *others = self._symbols.images
            self._codes[library] = _code_of(others or [kernel], library)
        if not self._codes[library].lines:
            raise UsageError("no source lines of this program are known: step by instructions")
        return self._codes[library]


class _Visits:
    """Tells where visits begin, of the instructions that it is given in the order in which they run."""

    def __init__(self, code: _Code, frames: list[_Frame]) -> None:
        self._code = code
        self._frames = frames                    # the innermost last

    def visit(self, found: Found, cfa: int, enters: bool) -> _Visit | None:
        """The visit that begins with an instruction of the frame with this CFA; None where none does."""
        frames, line = self._frames, self._code.lines[found.rip]
        seen = bool(frames)
        while frames and (frames[-1].cfa < cfa or (enters and frames[-1].cfa == cfa)):
            frames.pop()
        if frames and frames[-1].cfa == cfa:
            frame = frames[-1]
            before, frame.line = frame.line, line
            return None if before == line else _Visit(found.instruction, True)
        frames.append(_Frame(cfa, line))
        if enters:
            return _Visit(found.instruction, True)
        call = self._code.calls.get(found.rip) if seen else None
        return None if call == line else _Visit(found.instruction, call is not None)


def _code_of(images: Sequence[Image], library: bool) -> _Code:
    """The code of some images that has lines, with or without that of the C library."""
    lines: dict[int, Line] = {}
    calls: dict[int, Line] = {}
    goals: set[int] = set()
    for image in images:
        rows = sorted(image.lines)
        functions = sorted(image.functions.values())
        for found in Disassembler().outline(image):
            at = bisect_right(rows, found.address) - 1
            line = image.lines[rows[at]] if at >= 0 else ("", 0)
            if not line[1] or (line[0].startswith(LIBRARY) and not library):
                continue
            lines[found.address] = line
            if found.mnemonic == "call":
                calls[found.address + found.size] = line
            elif found.mnemonic.startswith(("j", "loop")):
                goals.update(_goals(found, functions))
    rows_of_all = frozenset(row for image in images for row in image.lines)
    entries = frozenset(start for image in images for start, _ in image.functions.values())
    ways = frozenset(lines.keys() & (goals | rows_of_all | entries | calls.keys()))
    return _Code(lines, calls, entries, rows_of_all, ways)


def _goals(jump: Outline, functions: Sequence[tuple[int, int]]) -> Iterable[int]:
    """Where a jump may go: of one through a table, anywhere in its function."""
    if jump.operands.startswith("0x"):
        return (int(jump.operands, 16),)
    start, end = functions[max(bisect_right(functions, (jump.address, U64)) - 1, 0)]
    return range(start, end)
