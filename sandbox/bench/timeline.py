"""The timeline in time, on a run of ten million instructions: recording it, and reaching every moment of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import inf
from random import Random
from statistics import median

from ..debugger.timeline import Timeline
from ..kernel import Kernel, boot
from ..recording import record
from ..toolchain import packaged
from ..trace.accesses import AccessLog
from ..view.step.screen import picture
from ..view.step.stepper import Stepper
from .rows import Row, timed

PROGRAM = packaged.benchmarks_directory() / "long_run.asm"
INSTRUCTIONS = 10_000_000
REPEATS = 3
MOMENTS = 30
SEED = 1
SCREEN = 80, 24


def travelling(instructions: int = INSTRUCTIONS) -> Iterator[Row]:
    """What it costs to record a run of so many instructions, and to go anywhere in it."""
    yield from _recording(instructions)
    timeline = record(PROGRAM, limit=instructions)
    with timeline.kernel:
        yield from _going(timeline)
        yield from _asking(timeline)
        yield from _stepping(timeline)
    yield from _accesses(instructions)


def _recording(instructions: int) -> Iterator[Row]:
    """A traced run with a timeline and without, which take turns."""
    traced = recorded = inf
    for _ in range(REPEATS):
        with boot(PROGRAM) as kernel:
            traced = min(traced, timed(partial(_traced, kernel, instructions)))
        with boot(PROGRAM) as kernel:
            recorded = min(recorded, timed(partial(_recorded, kernel, instructions)))
    yield Row(f"a run of {instructions / 1e6:g} million instructions, traced", traced, "s", exact=False)
    yield Row("the same, recorded", recorded, "s", exact=False)
    yield Row("recorded / traced", recorded / traced, "times", exact=False)


def _traced(kernel: Kernel, instructions: int) -> None:
    with kernel.trace():
        kernel.run(instructions)


def _recorded(kernel: Kernel, instructions: int) -> Timeline[Kernel]:
    timeline = record(kernel)
    _traced(kernel, instructions)
    return timeline


def _going(timeline: Timeline[Kernel]) -> Iterator[Row]:
    """To random moments, and from each of them one instruction back."""
    there, back = [], []
    for moment in _moments(timeline):
        there.append(timed(partial(timeline.goto, moment)))
        back.append(timed(timeline.back))
    yield Row("goto a random moment of it, median", median(there) * 1e3, "ms", exact=False)
    yield Row("back(1) from there, median", median(back) * 1e3, "ms", exact=False)


def _moments(timeline: Timeline[Kernel]) -> list[int]:
    random = Random(SEED)
    return [random.randrange(timeline.start + 1, timeline.length) for _ in range(MOMENTS)]


def _asking(timeline: Timeline[Kernel]) -> Iterator[Row]:
    """From its end, for a store at its beginning."""
    timeline.goto(timeline.length)
    ask = partial(timeline.who_wrote, timeline.kernel.symbols["bench_began"], 8)
    yield Row("who_wrote, when it was the first store", min(timed(ask) for _ in range(REPEATS)), "s", exact=False)


def _stepping(timeline: Timeline[Kernel]) -> Iterator[Row]:
    """From the key to the rows of the screen, the terminal apart."""
    stepper, taken = Stepper(timeline), []

    def step() -> None:
        stepper.press("s")
        picture(stepper, *SCREEN)

    for moment in _moments(timeline):
        timeline.goto(moment)
        picture(stepper, *SCREEN)
        taken.append(timed(step))
    yield Row("a step in the stepper, median", median(taken) * 1e3, "ms", exact=False)


def _accesses(instructions: int) -> Iterator[Row]:
    """The run without its trace, every access kept by native code; no row where the host has none."""
    best = inf
    for _ in range(REPEATS):
        with boot(PROGRAM) as kernel:
            log = AccessLog(kernel.machine)
            log.start()
            if not log.native:
                return
            best = min(best, timed(partial(kernel.run, instructions)))
    yield Row("every access recorded, natively", instructions / best / 1e6, "MIPS", exact=False)
