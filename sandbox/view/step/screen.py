"""The stepper's whole screen as rows, for any size: a pure function, so that a test and the README can have it too."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import SandboxError
from . import console, heap, registers, source, stack, trace
from .keys import HINT, HINT_C
from .layout import SMALLEST, Box, layout, too_small
from .rows import Row, block, harmless, wrapped
from .scene import Scene
from .seeking import told
from .stepper import Popup, Stepper
from .told import ending, position, sentence

HEAD_ROWS, STATUS_ROWS, MESSAGE_ROWS = 3, 1, 3
_TITLES = {"source": source.title, "registers": registers.title, "heap": heap.title, "stack": stack.title,
           "trace": trace.title, "console": console.title}


def picture(stepper: Stepper, width: int, height: int) -> list[Row]:
    """Exactly ``height`` rows of ``width`` cells; one sentence where that is too small to show anything."""
    if too_small(width, height):
        text = (f"the stepper needs {SMALLEST[0]} x {SMALLEST[1]} characters, and this terminal has {width} x "
                f"{height}: make it larger, or leave with q and use --plain")
        return block(wrapped(text, width, height), width, height)
    if stepper.popup is not None:
        rows = _popup(stepper, stepper.popup, width, height - STATUS_ROWS)
    else:
        body = height - HEAD_ROWS - STATUS_ROWS
        rows = [*_head(stepper.session.scene, width), *_body(stepper, width, body)]
    status = _status(stepper, width)
    return [*rows[: height - len(status)], *status]


def _head(scene: Scene, width: int) -> list[Row]:
    """Where it is, and two rows on the instruction."""
    timeline = scene.run.timeline
    part = f"{(scene.moment.instruction - timeline.start) / max(timeline.length - timeline.start, 1):.0%}"
    first = Row.of((position(scene), "place")).fit(width - 6) + Row.of((f"{part:>6}", "count"))
    return [first, *block(wrapped(_told(scene), width, 2, "  "), width, 2)]


def _told(scene: Scene) -> str:
    if scene.at_end:
        return ending(scene)
    try:
        return f"{scene.explanation.text}: {sentence(scene.explanation)}"
    except SandboxError as error:
        return str(error)


def _status(stepper: Stepper, width: int) -> list[Row]:
    """The last row; a long message lies over some rows above it."""
    if stepper.message:
        style = "bad" if stepper.is_error else "good"
        return [row.styled(style) for row in wrapped(stepper.message, width, MESSAGE_ROWS, "  ")]
    if stepper.focus == "trace" and stepper.cursors.event is not None:
        event = told(stepper.session, stepper.session.run.events.every[stepper.cursors.event])
        return [Row.of((" ".join(f"enter: {event}".split()), "key")).fit(width)]
    if stepper.digits:
        return [Row.of((stepper.digits, "key"), "  times, or % of the run, or G to go there").fit(width)]
    return [Row.of((_hint(stepper.session.scene), "dim")).fit(width)]


def _hint(scene: Scene) -> str:
    return HINT_C if scene.line is not None and scene.line.is_c else HINT


# -- the body ---------------------------------------------------------------------------------------------------
def _body(stepper: Stepper, width: int, height: int) -> list[Row]:
    chosen = layout(width, height, stepper.focus, stepper.tab, stepper.zoomed)
    left = [row for box in chosen.left for row in _box(stepper, box)]
    right = [row for box in chosen.right for row in _box(stepper, box)]
    if not right:
        return left
    middle = Row.of(("│", "dim"))
    return [one + middle + other for one, other in zip(left, right, strict=True)]


def _popup(stepper: Stepper, popup: Popup, width: int, height: int) -> list[Row]:
    lines = popup.lines or ("nothing",)
    stepper.page = max(height - 2, 1)
    popup.first = max(0, min(popup.first, len(lines) - (height - 1)))
    more = f"{popup.first + 1}-{min(popup.first + height - 1, len(lines))} of {len(lines)}, " \
        if len(lines) > height - 1 else ""
    title = _rule([(f" {popup.title} ", "focus")], f"{more}q closes", width)
    return [title, *block((Row(harmless(line)) for line in lines[popup.first :]), width, height - 1)]


def _box(stepper: Stepper, box: Box) -> list[Row]:
    """A pane under its title."""
    scene = stepper.session.scene
    names = box.tabs or (box.pane,)
    labels = [(f"[{name}]" if name == stepper.focus else f" {name} ",
               "focus" if name == stepper.focus else "title" if name == box.pane else "dim") for name in names]
    if box.tabs and box.pane != stepper.focus:
        labels = [(f" {name}{'*' if name == box.pane and len(names) > 1 else ''} ", style)
                  for name, (_, style) in zip(names, labels, strict=True)]
    try:
        about, rows = _TITLES[box.pane](scene), _rows(stepper, box, box.height - 1)
    except SandboxError as error:
        about, rows = "", block(wrapped(str(error), box.width, box.height - 1), box.width, box.height - 1)
    return [_rule(labels, about, box.width), *rows]


def _rows(stepper: Stepper, box: Box, height: int) -> list[Row]:
    scene, offset = stepper.session.scene, stepper.cursors.offsets.get(box.pane, 0)
    if box.pane == stepper.focus:
        stepper.page = max(height - 1, 1)
    if box.pane == "source":
        return source.rows(scene, box.width, height, offset)
    if box.pane == "registers":
        return registers.rows(scene, box.width, height, offset)
    if box.pane == "stack":
        return stack.rows(scene, box.width, height, offset)
    if box.pane == "trace":
        return trace.rows(scene, box.width, height, stepper.cursors.event)
    if box.pane == "console":
        return console.rows(scene, box.width, height, offset)
    stepper.heap_width = box.width
    return heap.rows(scene, box.width, height, stepper.cursors.object)


def _rule(labels: Sequence[tuple[str, str]], about: str, width: int) -> Row:
    """A line with names on its left and something about the pane on its right."""
    row = Row.of(("─", "dim"))
    for label in labels:
        row = row + Row.of(label, ("─", "dim"))
    room = width - row.width
    told = f" {about} " if about and len(about) + 4 <= room else ""
    return row + Row.of(("─" * (room - len(told) - (1 if told else 0)), "dim"), (told, "count"),
                        ("─" if told else "", "dim"))
