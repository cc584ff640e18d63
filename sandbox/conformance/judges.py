"""From how scripts went to what is wrong with them: one judge for each kind of line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .findings import Finding, Play
from .operations import allocations
from .workloads import WORKLOADS

Judge: TypeAlias = "Callable[[Play], Finding | None]"


def answered(line: str) -> Judge:
    """The first finding of a property that is broken also when a call does not come back."""
    return lambda play: play.found(line) or play.fatal


def property_of(line: str) -> Judge:
    """The first finding of a property, or what ended the list before it could be judged."""
    def judge(play: Play) -> Finding | None:
        found = play.found(line)
        if found is not None:
            return found
        return play.fatal and play.fatal._replace(reason=f"it could not be judged to the end: {play.fatal.reason}")

    return judge


def anything_wrong(play: Play) -> Finding | None:
    """Whatever is wrong first; also a list of which nothing was served."""
    if play.findings:
        return play.findings[0]
    return _nothing_served(play)


def reuse(play: Play) -> Finding | None:
    """Of a fill that is played twice: the second round must be given what the first one gave back."""
    if len(play.served) < 2 and play.fatal is None:
        return None                              # it was played once: nothing could come back
    if play.given_back:
        return None                              # the page allocator hands it out again, at another address perhaps
    lost = play.found("leak")
    cause = lost if lost is not None and lost.way == "refused" else play.fatal
    if cause is not None:
        return cause
    first, second = (list(served.values()) for served in play.served[:2])
    size = max((int(operation[2]) for operation in play.operations if operation[0] == "allocate"), default=1)
    before = {address // size for address in first}
    if any(address // size in before or (address + size - 1) // size in before for address in second):
        return None
    return Finding("reuse", "never", len(play.operations), f"{len(first):,} chunks of {size} bytes were allocated and "
                   f"freed, and after that none of that memory is handed out again")


def exhaustion(play: Play) -> Finding | None:
    """Of a fill: it ends, nothing is damaged behind its end, and after everything was freed it works again."""
    for finding in play.findings:
        if finding.line not in ("alignment", "stats", "leak") or finding.fatal:
            return finding
    served = play.served[0]
    if len(served) >= allocations(play.operations):
        return Finding("exhaustion", "endless", len(play.operations),
                       f"{len(served):,} allocations were served and none was answered with 0")
    if not play.served[-1]:
        return Finding("exhaustion", "dead", len(play.operations), "after it was exhausted and everything was freed, "
                       "no allocation is served any more")
    return None


def abuse(line: str) -> Judge:
    """Of a free that must be answered: what came of it, before that nothing was said."""
    def judge(play: Play) -> Finding | None:
        when = next((at for at, operation in enumerate(play.operations) if operation[0] in ("again", "wild")), None)
        if when is None:
            return None
        damage = next((finding for finding in play.findings if finding.line in ("overlap", "confined", "returns", line)
                       and finding.way != "taken" and finding.number >= when), None)
        if damage is not None and play.answer:
            answered = "" if play.answer == "taken" else f" ({play.answer})"
            return damage._replace(line=line, reason=f"after that free{answered}, {damage.reason}")
        found = damage or play.found(line) or play.fatal
        if found is None and not play.answer:
            cause = next(iter(play.findings), None) or _nothing_served(play)
            return cause and cause._replace(reason=f"no such free could be tried: {cause.reason}")
        return found

    return judge


def judge_of(line: str) -> Judge:
    """The judge of the lists that are a line's own."""
    special: dict[str, Judge] = {"returns": answered("returns"), "sizes": answered("sizes"), "reuse": reuse,
                                 "exhaustion": exhaustion, "double_free": abuse("double_free"),
                                 "wild_free": abuse("wild_free")}
    return anything_wrong if line in WORKLOADS else special.get(line, property_of(line))


def _nothing_served(play: Play) -> Finding | None:
    if any(play.served):
        return None
    return Finding("returns", "nothing", 0, "every allocation was answered with 0")
