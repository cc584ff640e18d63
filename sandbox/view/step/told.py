"""Sentences about a moment that several commands and panes need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...debugger.explain import Explanation, Operand
from ...debugger.wrap import wrapped
from .scene import Scene

if TYPE_CHECKING:
    from .session import Session


def position(scene: Scene) -> str:
    """``@23,117 of 115,301  kmalloc+0x12 (kernel_asm/kmalloc.asm:31)``."""
    timeline = scene.run.timeline
    return f"@{scene.moment.instruction:,} of {timeline.length:,}  {scene.moment.location}"


def here(session: Session) -> Iterator[str]:
    """Where it is now, with the line that is about to run; at the end the one that it ended at."""
    scene = session.scene
    yield position(scene)
    if scene.line is not None:
        yield f"{scene.line.number:>6}  {scene.line.text.strip()}"
    elif scene.instruction is not None:
        yield f"        {scene.instruction.text}"
    if scene.at_end:
        yield from wrapped(ending(scene))


def ending(scene: Scene) -> str:
    """How the run ended."""
    result = scene.run.timeline.result
    return f"the end of the run{f': {result}' if result is not None else ''}"


def sentence(told: Explanation) -> str:
    """An explanation in one line: why it faults, where it goes, what it reads and stores."""
    if told.fault is not None:
        return f"faults with {told.fault}" + (f", handled at {told.handler}" if told.handler else "")
    stores = [item for item in told.writes if _written_out(item)]
    changed = {(item.address, item.size) for item in stores}
    loads = [item for item in told.reads if _written_out(item) and (item.address, item.size) not in changed]
    parts = [*_branch(told), *map(_read, loads), *map(_write, stores)]
    return " ".join(["; ".join(parts or _registers(told)) + ("." if told.notes else ""), *told.notes])


def _written_out(item: Operand) -> bool:
    """Whether an operand is memory that the instruction names (the stack of a push is not), or a port."""
    return item.kind in ("memory", "port") and not item.role


def _registers(told: Explanation) -> Iterator[str]:
    """What an instruction does that works on registers, and perhaps on the stack."""
    stack = [item for item in (*told.reads, *told.writes) if item.role]
    yield from (_read(item) for item in told.reads if item.kind != "memory" and not (stack and item.text == "rsp"))
    yield from (_read(item) for item in told.reads if item.role)
    changed = [item.text for item in told.writes if item.kind == "register" and not (stack and item.text == "rsp")]
    if changed or not (told.reads or told.notes):
        yield f"changes {', '.join(changed) or 'the flags'}"


def _branch(told: Explanation) -> Iterator[str]:
    goes = told.branch
    if goes is None:
        return
    where = told.target or "somewhere unknown"
    why = f", for {goes.why}" if goes.why else ""
    verb = {"call": "calls", "return": "returns to"}.get(goes.kind, "goes to")
    yield f"{verb} {where}{why}" if goes.taken else f"not taken{why}"


def _read(item: Operand) -> str:
    if item.kind == "port":
        return f"reads {item.text}, {item.words}"
    return f"{item.text}{_place(item)} = {_words(item.words, item.value)}"


def _write(item: Operand) -> str:
    if item.kind == "port":
        return f"sends {item.after_words} to {item.text}, {item.words}" if item.after_words else f"writes {item.text}"
    becomes = f"becomes {_words(item.after_words, item.after)}" if item.after is not None else "is written"
    return f"{item.text}{_place(item)}, now {_words(item.words, item.value)}, {becomes}"


def _words(words: str, value: int | None) -> str:
    return words or ("unknown" if value is None else f"{value:#x}")


def _place(item: Operand) -> str:
    """What lies at a memory operand, where its text does not say it."""
    return f" ({item.name.text})" if item.name is not None and item.name.text not in item.text else ""
