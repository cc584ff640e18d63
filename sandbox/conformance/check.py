"""The conformance pack: what every allocator promises, asked of one.

::

    report = sandbox.conformance.check("my_allocator.asm", seed=7)
    report.passed, report["overlap"].reason, report["larson"].figures["allocate_median"]

Everything is judged by what Python reads and traces. The guest sees sizes and pointers: no seed and no expected
value is ever in its memory, and what it prints counts for nothing. A call that panics, faults, exits, halts or never
returns ends its list; the next one begins on a fresh machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError
from ..guest.allocator import ForeignAllocator, allocator_options
from ..guest.images import Files, assemble_allocator
from ..toolchain import packaged
from ..toolchain.c.options import c_options
from . import judges, scripts
from .figures import costs, pages, waste_figures
from .findings import Finding, Play
from .judges import Judge
from .operations import Script
from .player import Player, play
from .report import LINES, OPTIONAL, ROLE_OF, Figure, Line, Report
from .shrink import WORK, shrink
from .subject import Subject, ram_for
from .words import UNJUDGED
from .workloads import WORKLOADS, workload

CALL_LIMIT = 200_000
"""Instructions that one call may take: some thousand times what a call of a good allocator does."""
ARENA = "64K"
ALL_WORK = 4 * WORK
"""Operations that are played at most to shrink all lists of one check."""
ALL_INSTRUCTIONS = 100_000_000
"""Instructions that are spent at most to shrink them."""
OFTEN = 300
"""Rounds in which one operation alone may show a leak."""
MIXED = ("returns", "alignment", "overlap", "confined", "registers")
"""The properties that one random list is played for; every other list may find them broken as well."""

CLAIMS = {**LINES, **OPTIONAL}
"""Every line that a report may have."""
_FIRST = Script("ladder", (("allocate", 0, scripts.LADDER[0]),))


class Trial(NamedTuple):
    """A script that a line is judged by."""

    script: Script
    judge: Judge


def check(allocator: Files, *, seed: int = 0, symbols: Mapping[str, str | None] | None = None,
          refused: int | None = None, arena: int | str = ARENA, limit: int = CALL_LIMIT, shorten: bool = True,
          cc: str | None = None, cflags: str | Sequence[str] = "") -> Report:
    """Put an allocator through the pack; ``allocator``, one file or several, and its options are those of
    :func:`sandbox.boot`.

    ``limit`` is in instructions, for each call. ``shorten``: lists that fail are shrunk, which takes longer than the
    check. Raises what assembling, compiling and linking it raise, and ``ProgramError`` for functions that are missing.
    """
    if type(seed) is not int:
        raise UsageError(f"a seed is a number, not {seed!r}")
    if type(limit) is not int or limit <= 0:
        raise UsageError(f"a limit is a positive number of instructions, not {limit!r}")
    options = allocator_options(symbols, refused, arena)
    compiler = c_options(cc, cflags)
    foreign = assemble_allocator(allocator, packaged.kernel_image(), options, compiler)
    modules = [] if isinstance(allocator, (str, Path)) else [str(file) for file in allocator[1:]]
    more = {"modules": modules, "cc": compiler.cc, "cflags": list(compiler.flags)}
    return check_image(shown_name(allocator), foreign, seed=seed, limit=limit, shorten=shorten,
                       more={name: value for name, value in more.items() if value})


def shown_name(allocator: Files) -> str:
    """What a report calls an allocator: its first file; source text has no name."""
    first = allocator if isinstance(allocator, (str, Path)) else next(iter(allocator), "")
    return "allocator" if "\n" in str(first) else str(first)


def check_image(name: str, allocator: ForeignAllocator, *, seed: int = 0, limit: int = CALL_LIMIT,
                shorten: bool = True, more: Mapping[str, Any] | None = None) -> Report:
    """Put an allocator through the pack that is assembled already; ``more`` are options for the report."""
    with Subject(allocator, limit, seed) as subject:
        report = _Check(name, subject, seed, shorten).report()
        ram = {"ram": subject.ram} if subject.ram != ram_for(allocator.options.arena) else {}
    return replace(report, options={**report.options, **ram, **(more or {})})


def replay(allocator: ForeignAllocator, line: str, script: Script, *, limit: int = CALL_LIMIT) -> Line:
    """Play one list, of a report perhaps, and judge it as ``line`` does.

    A list that does not fail (any more) is a line that passed, and its ``reason`` says so.
    """
    if line not in CLAIMS:
        raise UsageError(f"{line!r} is no line of a report: they are {', '.join(CLAIMS)}")
    with Subject(allocator, limit) as subject:
        found = judges.judge_of(line)(play(subject, script))
    if found is None:
        return Line(line, CLAIMS[line], True, f"{script.name}: the list does not fail again", script=script,
                    again=False)
    return Line(line, CLAIMS[line], False, f"{script.name}, {found.reason}", script=script, broken=found.line)


class _Check:
    """One check: every list is played once, and every line looks at those that concern it."""

    def __init__(self, name: str, subject: Subject, seed: int, shorten: bool) -> None:
        self._name = name
        self._subject = subject
        self._seed = seed
        self._shorten = shorten
        self._plays: dict[Script, Play] = {}
        self._shrunk: dict[tuple[str, str], tuple[Script, bool]] = {}
        self._hints: dict[Script, str] = {}
        self._work = ALL_WORK
        self._instructions = ALL_INSTRUCTIONS

    def report(self) -> Report:
        """All lines, in their order."""
        subject, seed = self._subject, self._seed
        largest = scripts.largest_served(subject)
        if not largest:
            lines = self._nothing()
        else:
            trials, work = self._trials(largest), {name: workload(name, seed, largest) for name in WORKLOADS}
            for script in [script for own in trials.values() for script, _ in own] + list(work.values()):
                self._play(script)
            lines = [self._line(name, trials, work) for name in self._claims]
        return Report(self._name, seed, subject.allocator.options.to_dict(), tuple(lines))

    def _trials(self, largest: int) -> dict[str, list[Trial]]:
        """The lists that each property is judged by."""
        subject, seed = self._subject, self._seed
        mixed, churn = scripts.mixed(seed, largest), scripts.churn(seed, largest)
        most = scripts.fill_size(subject, largest)
        fills = [scripts.fill(subject, "fill", most),
                 scripts.fill(subject, "fill_small", scripts.small_size(subject, most)),
                 scripts.fill_mixed(subject, seed, most)]
        own = {**{name: [mixed] for name in MIXED}, "sizes": [scripts.sizes(subject, seed, largest)],
               "reuse": fills[:1], "exhaustion": fills, "double_free": scripts.double_frees(subject, seed, largest),
               "wild_free": scripts.wild_frees(subject, seed, largest), "leak": [churn, *fills],
               "stats": [scripts.accounts(seed, largest), *fills]}
        more = {"resize": scripts.resizes, "zeroed": scripts.zeroes, "aligned": scripts.alignments}
        own |= {name: [make(seed, largest)] for name, make in more.items() if name in self._claims}
        return {name: [Trial(script, judges.judge_of(name)) for script in found] for name, found in own.items()}

    def _nothing(self) -> list[Line]:
        """The lines of an allocator that hands out nothing at all: one tells why, the others were not judged."""
        found = self._play(_FIRST)
        fatal, printed = found.fatal, self._subject.printed()
        reason = fatal.reason if fatal else f"operation 0: {self._subject.name('allocate')} gives 0 for every size " \
                                            f"from {scripts.LADDER[0]} to {scripts.LADDER[-1]}"
        reason += f'; on the console: "{printed}"' if printed else ""
        cause = "nothing is served" if fatal is None else f"{'init' if fatal.number < 0 else 'allocate'} fails"
        return [Line(name, claim, False, reason if name == (fatal.line if fatal else "returns")
                     else f"{UNJUDGED}{cause}: {reason}", script=_FIRST, broken=fatal.line if fatal else "")
                for name, claim in self._claims.items()]

    @property
    def _claims(self) -> dict[str, str]:
        """The lines of this allocator's report."""
        return {name: claim for name, claim in CLAIMS.items()
                if name not in ROLE_OF or ROLE_OF[name] in self._subject.allocator.options.names}

    # -- lines ------------------------------------------------------------------------------------------------
    def _line(self, name: str, trials: Mapping[str, Sequence[Trial]], work: Mapping[str, Script]) -> Line:
        plays = {workload_name: self._play(script) for workload_name, script in work.items()}
        if name in work:
            figures = {**costs([plays[name]]), **pages([plays[name]]), **waste_figures([plays[name]])}
            return self._verdict(name, [Trial(work[name], judges.judge_of(name))], figures)
        if name not in trials:
            short = next((found for found in plays.values() if found.fatal), None)
            figures = {"instructions": costs, "pages": pages, "waste": waste_figures}[name](list(plays.values()))
            if name == "waste":
                figures = self._waste(figures, trials["exhaustion"][-1].script)
            if short is None or short.fatal is None:
                return Line(name, LINES[name], True, "", figures)
            return Line(name, LINES[name], False, f"the workload {short.script} was not played to its end: "
                                                  f"{short.fatal.reason}", figures)
        own = list(trials[name])
        seen = {trial.script for trial in own}
        # What another list has found broken is broken; those that misuse it on purpose prove nothing.
        more = [script for others in trials.values() for script, _ in others if script.name not in ("double_free",
                                                                                                    "wild_free")]
        own += [Trial(script, _found(name)) for script in dict.fromkeys([*more, *work.values()]) if script not in seen]
        return self._verdict(name, own, self._figures(name, own, plays))

    def _verdict(self, name: str, trials: Sequence[Trial], figures: Mapping[str, Figure]) -> Line:
        found = [(trial, finding) for trial in trials if (finding := trial.judge(self._play(trial.script))) is not None]
        if not found:
            return Line(name, CLAIMS[name], True, "", figures)
        # A list that broke this very property tells more than one that was cut short by something else.
        trial, finding = min(found, key=lambda pair: pair[1].line != name and name not in WORKLOADS)
        script, again = self._shrink(trial, finding)
        reason = finding.reason if again else f"{finding.reason}; the list did not fail again"
        if script in self._hints:
            reason = f"{reason}; {self._hints[script]}"
        return Line(name, CLAIMS[name], False, f"{trial.script.name}, {reason}", figures, script, again, finding.line)

    def _figures(self, name: str, own: Sequence[Trial], plays: Mapping[str, Play]) -> dict[str, Figure]:
        if name == "exhaustion":
            found: dict[str, Figure] = {}
            for key, trial in zip(("large", "small", "mixed"), own, strict=False):
                filled = self._play(trial.script)
                first = filled.served[0] if filled.served else {}
                size = max((int(operation[2]) for operation in trial.script.operations if operation[0] == "allocate"),
                           default=0)
                found |= {f"{key}_size": size, f"{key}_capacity": len(first),
                          f"{key}_waste_percent": waste_figures([filled])["waste_percent"]}
            return found
        if name == "reuse":
            addresses = list(plays["ping_pong"].served[0].values()) if plays["ping_pong"].served else []
            again = sum(address in addresses[:index] for index, address in enumerate(addresses))
            return {"ping_pong_percent": round(100 * again / len(addresses), 1) if addresses else 0.0}
        return {"operations": sum(self._play(trial.script).done for trial in own)}

    def _waste(self, workloads: Mapping[str, Figure], fill: Script) -> dict[str, Figure]:
        """When random sizes have filled everything; and over the workloads."""
        filled = waste_figures([self._play(fill)])
        return {**filled, "workloads_percent": workloads["waste_percent"]}

    # -- lists ------------------------------------------------------------------------------------------------
    def _play(self, script: Script) -> Play:
        if script not in self._plays:
            self._plays[script] = play(self._subject, script)
        return self._plays[script]

    def _shrink(self, trial: Trial, finding: Finding) -> tuple[Script, bool]:
        """The shortest list for a finding, one for each way to fail; and whether it failed again."""
        key = finding.line, finding.way
        if key not in self._shrunk:
            def same(script: Script) -> bool:
                if self._instructions < 0:
                    return False
                played = play(self._subject, script)
                self._instructions -= sum(call.instructions for call in played.calls)
                again = trial.judge(played)
                return again is not None and (again.line, again.way) == key

            whole = trial.script
            once = whole.operations[finding.number : finding.number + 1]
            tries = (*([whole._replace(operations=once, rounds=OFTEN)] if finding.way == "gone" else []),
                     whole._replace(operations=whole.operations[: finding.number + 1], rounds=1),
                     whole._replace(rounds=1), whole)
            shortest = next((script for script in dict.fromkeys(tries) if same(script)), None)
            if shortest is None:
                self._shrunk[key] = whole, False
            else:
                if self._shorten:
                    shortest, played = shrink(shortest, same, min(WORK, self._work))
                    self._work -= played
                self._shrunk[key] = shortest, True
            if self._shorten and (hint := Player(self._subject, self._shrunk[key][0]).explain().hint):
                self._hints[self._shrunk[key][0]] = f"in the shortest list for it, {hint}"
        return self._shrunk[key]


def _found(line: str) -> Judge:
    return lambda play: play.found(line)
