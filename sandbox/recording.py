"""``sandbox.record``: a run as a timeline, of a program from its first instruction or of a kernel that has booted; and
``sandbox.open_record``: one that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .debugger import record as files
from .debugger.journey import MEMORY_BUDGET
from .debugger.record import Record
from .debugger.timeline import Timeline
from .errors import GuestError, RecordError, SandboxError, ShadowError, UsageError
from .guest.allocator import AllocatorOptions, ForeignAllocator
from .guest.journal import Call, Entry, Flush, Run
from .guest.options import BootOptions
from .guest.outcome import RunResult
from .guest.replay import POWER_ON, Place
from .guest.travel import Kept
from .kernel import Kernel, boot, boot_images, power_on
from .machine.machine import Machine
from .toolchain import packaged
from .trace.shadow_options import ShadowOptions

_SENSELESS = (SandboxError, TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError)
"""What comes of a record that is whole, and makes no sense."""
NOTICED = 16
"""Starts behind the moment at which a shadow stops a run within which it has noticed what is wrong: a wrong access at
its own, a wrong free at the first instruction behind the call."""


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
    if type(memory) is not int or memory < 0:
        raise UsageError(f"the snapshots' memory is a number of bytes, not {memory!r}")
    if isinstance(program, Kernel):
        if program.machine.cpu.closed:
            raise UsageError("this kernel is closed")
        if options or limit is not None:
            late = ", ".join([*options, *(["limit"] if limit is not None else [])])
            raise UsageError(f"this kernel has booted already: {late} cannot be chosen any more")
        return _known(program, accesses) or _timeline(program, memory, accesses)
    kernel = boot(program, **options)
    try:
        timeline = _timeline(kernel, memory, accesses)
        with kernel.trace() as trace:
            timeline.result = kernel.run(limit)
        timeline.adopt(trace)
        _settle(timeline)
        timeline.owns_kernel = True
        return timeline
    except BaseException:
        kernel.close()
        raise


def open_record(path: str | Path, *, accesses: bool = False, memory: int = MEMORY_BUDGET) -> Timeline[Kernel]:
    """Open what ``timeline.save(path)`` wrote: everything is done once more, and the timeline stands where it stood.

    A record runs with the kernel that it was made with; ``timeline.notes`` says when that is not the present one.
    :class:`~sandbox.errors.RecordError` for a file that is damaged, foreign or of another version, and for one that
    does not lead where it led.
    """
    record = files.read(path)
    try:
        kernel = _boot_as(record)
    except _SENSELESS as error:
        raise RecordError(path, f"what it was recorded with cannot be booted: {error}") from None
    try:
        timeline = _timeline(kernel, memory, accesses)
        try:
            timeline.result = _do_again(kernel, record)
        except _SENSELESS as error:
            raise RecordError(path, f"what it recorded cannot be done again: {error}") from None
        _settle(timeline)
        if (timeline.length, files.checksum(kernel.machine)) != (record.end, record.checksum):
            raise RecordError(path, f"it does not lead where it led: to instruction {timeline.length:,} now, and to "
                                    f"{record.end:,} when it was recorded")
        if not timeline.start <= record.position <= timeline.length:
            raise RecordError(path, f"it stands at instruction {record.position:,}, outside its own run")
        timeline.notes = _notes(record)
        timeline.goto(record.position)
        timeline.owns_kernel = True
        return timeline
    except BaseException:
        kernel.close()
        raise


def _known(kernel: Kernel, accesses: bool) -> Timeline[Kernel] | None:
    """The timeline that a kernel has already."""
    known = kernel.travel.traveller and kernel.travel.traveller()
    if not isinstance(known, Timeline):
        return None
    if accesses:
        known.keep_accesses()
    return known


def _settle(timeline: Timeline[Kernel]) -> None:
    if isinstance(timeline.kernel.failure, ShadowError):
        timeline.settle()


def _boot_as(record: Record) -> Kernel:
    """The kernel as it was when the record began."""
    shadow = record.options["shadow"]
    foreign = None
    if record.allocator is not None:
        foreign = ForeignAllocator(record.allocator, AllocatorOptions(**record.options["allocator"]))
    return boot_images(record.kernel, record.program, BootOptions(**record.options["boot"]),
                       None if shadow is None else ShadowOptions(**shadow), record.options["console_limit"], foreign,
                       record.modules)


def _do_again(kernel: Kernel, record: Record) -> RunResult | None:
    """Carry out a record on a fresh kernel, through the doors that its user took; returns what came of its last run."""
    result = None
    for index, entry in enumerate(record.journal):
        if index < len(kernel.journal):                  # a checkpoint that the history has taken again by itself
            continue
        result = _perform(kernel, entry) or result
    if record.failed is not None:
        failed = record.failed
        if isinstance(failed, Run) and failed.limit is not None:
            failed = Run(failed.limit + NOTICED)
        try:
            result = _perform(kernel, failed) or result
        except GuestError:
            if kernel.failure is None:
                raise
    return result


def _perform(kernel: Kernel, entry: Entry) -> RunResult | None:
    if isinstance(entry, Call):
        kernel.call(entry.address, *entry.arguments, limit=entry.limit)
    elif isinstance(entry, Run):
        return kernel.run(entry.limit)
    elif isinstance(entry, Flush):
        kernel.snapshot()
    else:
        kernel.perform(entry)
    return None


def _notes(record: Record) -> tuple[str, ...]:
    """What somebody who opens a record should know."""
    now = packaged.kernel_image()
    if now.source_hash == record.kernel.source_hash:
        return ()
    moved = sorted(name for name in now.constants.keys() & record.kernel.constants.keys()
                   if now.constants[name] != record.kernel.constants[name])
    notes = ["the kernel has changed since this was recorded: it runs with the one that it was recorded with"]
    if moved:
        notes.append(f"its structures are not those of today ({', '.join(moved[:3])}"
                     f"{', ...' if len(moved) > 3 else ''}): views of its heap may be wrong")
    return tuple(notes)


def _timeline(kernel: Kernel, memory: int, accesses: bool) -> Timeline[Kernel]:
    """A timeline from power-on, or, for a kernel with a shadow, from where that began."""
    first = kernel.travel.history.first
    ready = Kept(first.machine, Place(first.position, None))
    if kernel.shadow is not None:
        return Timeline(kernel, kernel.tracer, ready, budget=memory, accesses=accesses)
    with Machine(len(kernel.machine.memory)) as machine:
        power_on(machine, kernel.image, kernel.program, kernel.options, kernel.foreign, kernel.modules)
        origin = Kept(machine.snapshot(), POWER_ON)
    timeline = Timeline(kernel, kernel.tracer, origin, budget=memory, accesses=accesses)
    timeline.keep(ready)
    return timeline
