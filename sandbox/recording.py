"""``sandbox.record``: a run as a timeline, of a program from its first instruction or of a kernel that has booted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .debugger.timeline import MEMORY_BUDGET, Timeline
from .errors import UsageError
from .guest.replay import POWER_ON, Place
from .guest.travel import Kept
from .kernel import Kernel, boot, power_on
from .machine.machine import Machine


def record(program: str | Path | Kernel, *, limit: int | None = None, accesses: bool = False,
           memory: int = MEMORY_BUDGET, **options: Any) -> Timeline[Kernel]:
    """Run a program, and keep its whole run::

        timeline = sandbox.record("01")
        timeline.goto(timeline.length // 2)
        timeline.kernel.heap, timeline.kernel.registers, ...

    ``program`` and ``options`` are those of :func:`sandbox.boot`; the run ends as ``kernel.run(limit)`` does, and its
    :class:`~sandbox.guest.outcome.RunResult` is ``timeline.result``. Of a kernel that has booted all that was done with
    it since then is kept, and what is done with it later too. ``memory`` is what the snapshots may take in bytes.
    ``accesses`` keeps every instruction and every access, so that questions about them are look-ups.
    """
    if isinstance(program, Kernel):
        if options or limit is not None:
            late = ", ".join([*options, *(["limit"] if limit is not None else [])])
            raise UsageError(f"this kernel has booted already: {late} cannot be chosen any more")
        return _timeline(program, memory)
    kernel = boot(program, **options)
    try:
        timeline = _timeline(kernel, memory)
        with kernel.trace() as trace:
            timeline.result = kernel.run(limit)
        timeline.adopt(trace)
        return timeline
    except BaseException:
        kernel.close()
        raise


def _timeline(kernel: Kernel, memory: int) -> Timeline[Kernel]:
    """A timeline from power-on, or, for a kernel with a shadow, from where that began."""
    first = kernel.travel.history.first
    ready = Kept(first.machine, Place(first.position, None))
    if kernel.shadow is not None:
        return Timeline(kernel, kernel.tracer, ready, budget=memory)
    with Machine(len(kernel.machine.memory)) as machine:
        power_on(machine, kernel.image, kernel.program, kernel.options)
        origin = Kept(machine.snapshot(), POWER_ON)
    timeline = Timeline(kernel, kernel.tracer, origin, budget=memory)
    timeline.keep(ready)
    return timeline
