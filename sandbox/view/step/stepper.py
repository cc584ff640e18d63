"""The stepper without its terminal: a session, which pane has the keys, cursors, what the last row says.

A terminal gives it keys by name (:meth:`Stepper.press`) and shows :func:`sandbox.view.step.screen.picture` of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ...debugger.timeline import Timeline
from ...errors import SandboxError
from ...kernel import Kernel
from . import heap as heap_pane
from .keys import DIRECT, HELP, MOVES, PROMPTS
from .layout import PANES
from .seeking import accessed
from .session import Session
from .told import here

MOST_DIGITS = 15


@dataclass(frozen=True)
class Prompt:
    """A line that is asked for: ``label`` stands before it, ``text`` is its beginning, ``then`` takes it."""

    label: str
    text: str
    then: Callable[[str], None]


@dataclass
class Popup:
    """Lines over the panes, until a key takes them away."""

    title: str
    lines: tuple[str, ...]
    first: int = 0


@dataclass
class Cursors:
    """Where the panes stand: None and 0 follow the present moment."""

    event: int | None = None
    object: int | None = None
    offsets: dict[str, int] = field(default_factory=dict)


class Stepper:
    """What the keys change and the screen shows."""

    def __init__(self, timeline: Timeline[Kernel]) -> None:
        self.session = Session(timeline)
        self.focus = "heap"
        self.tab = "heap"
        self.zoomed = False
        self.cursors = Cursors()
        self.message = ""
        self.is_error = False
        self.popup: Popup | None = None
        self.prompt: Prompt | None = None
        self.digits = ""
        self.heap_width = 46
        self.page = 8
        self.ended = False
        self._there: int | None = None
        self._typed: list[str] = []
        self._recalled = 0
        self._keys: dict[str, Callable[[], None]] = {
            "tab": partial(self._turn, 1), "shift+tab": partial(self._turn, -1), "z": self._zoom, "?": self._help,
            "escape": self._let_go, "enter": self._enter, "h": self._history, "x": partial(self._ask, "explain"),
            "%": self._percent, **dict.fromkeys(("q", "ctrl+c", "ctrl+d", "ctrl+q"), self._quit),
            **dict.fromkeys(("up", "k"), partial(self._move, 0, -1)),
            **dict.fromkeys(("down", "j"), partial(self._move, 0, 1)),
            "left": partial(self._move, -1, 0), "right": partial(self._move, 1, 0),
            "pageup": partial(self._pages, -1), **dict.fromkeys(("pagedown", " "), partial(self._pages, 1)),
        }

    # -- keys -------------------------------------------------------------------------------------------------
    def press(self, key: str) -> None:
        """One key. Whatever it does, nothing is raised that is the guest's or the user's fault."""
        self.message, self.is_error = "", False
        if self.popup is not None and self._in_popup(key):
            return
        if key.isdecimal() and len(key) == 1 and (self.digits or key != "0"):
            self.digits = (self.digits + key)[:MOST_DIGITS]
            return
        try:
            self._press(key)
        except SandboxError as error:
            self.say(str(error), error=True)
        self.digits = ""

    def _press(self, key: str) -> None:
        there, self._there = self._there, None
        if key in MOVES:
            self.do(f"{MOVES[key]} {self.digits}")
        elif key == "G" and self.digits:
            self.do(f"goto {self.digits}")
        elif key in DIRECT:
            self.do(DIRECT[key])
        elif key in PROMPTS:
            self._open(key)
        elif key == "enter" and there is not None:
            self.do(f"goto {there}")
        elif key in self._keys:
            self._keys[key]()
        elif len(key) == 1:
            self.say(f"{key!r} is no key here: ? lists them", error=True)

    def _in_popup(self, key: str) -> bool:
        """Whether the key was for the lines that lie over the panes; any that moves them does, others close them."""
        popup = self.popup
        assert popup is not None
        by = {"down": 1, "j": 1, "up": -1, "k": -1, "pagedown": self.page, " ": self.page, "pageup": -self.page}
        if key in by:
            popup.first = max(0, min(popup.first + by[key], len(popup.lines) - 1))
            return True
        self.popup = None
        return key in ("q", "escape", "enter", "?")

    # -- commands ---------------------------------------------------------------------------------------------
    def do(self, command: str) -> None:
        """A command of the session; one line of its answer goes to the last row, more of them over the panes."""
        before = self.session.timeline.position
        answer = self.session.execute(command)
        moved = self.session.timeline.position != before
        if moved:
            self.cursors.event = None
            self.cursors.offsets.clear()
        if answer.error:
            self.say(answer.error, error=True)
            self.popup = Popup(command, answer.lines) if answer.lines and not moved else None
            return
        lines, place = list(answer.lines), list(here(self.session))
        if moved and lines[-len(place) :] == place:          # the screen shows it anyway
            del lines[-len(place) :]
        if moved or len(lines) == 1:
            self.say("; ".join(lines), error=answer.failed)
        elif lines:
            self.popup = Popup(command, answer.lines)
        self.ended = self.ended or self.session.ended

    def say(self, text: str, error: bool = False) -> None:
        """Something for the last row."""
        self.message, self.is_error = " ".join(text.split()), error

    def _open(self, key: str) -> None:
        label, command = PROMPTS[key]
        text = ""
        if command in ("who-wrote", "who-read"):
            chosen = self.object
            text = f"0x{chosen:x}" if chosen is not None else ""
        self.prompt = Prompt(label, text, partial(self._answered, command))
        self._recalled = len(self._typed)

    def recall(self, by: int, text: str) -> str:
        """An earlier line (-1), or a later one, instead of what is typed."""
        self._recalled = max(0, min(self._recalled + by, len(self._typed)))
        return self._typed[self._recalled] if self._recalled < len(self._typed) else text if by < 0 else ""

    def submit(self, text: str) -> None:
        """The line that was asked for is there."""
        prompt, self.prompt = self.prompt, None
        self.message, self.is_error = "", False
        if text.strip():
            self._typed = [*(line for line in self._typed if line != text), text]
        if prompt is not None:
            try:
                prompt.then(text.strip())
            except SandboxError as error:
                self.say(str(error), error=True)

    def cancel(self) -> None:
        """The line will not come."""
        self.prompt = None

    def _answered(self, command: str, text: str) -> None:
        if command in ("who-wrote", "who-read"):
            self._who(text, command == "who-wrote")
        elif command == "break" and not text:
            self.popup = Popup("breakpoints", self.session.execute("info breakpoints").lines)
        elif command == "break" and text.startswith("-"):
            self.do(f"delete {text[1:]}")
        elif text or command == "search":
            self.do(f"{command} {text}".strip())

    def _who(self, text: str, wrote: bool) -> None:
        """Who accessed some bytes; the next enter goes there."""
        if not text:
            return
        found = accessed(self.session, text, wrote)
        if found is None:
            self.say(f"nobody has {'written' if wrote else 'read'} it before this moment")
        else:
            self._there = found.instruction
            self.say(f"{found}  (enter goes there)")

    # -- panes ------------------------------------------------------------------------------------------------
    @property
    def object(self) -> int | None:
        """The object that the heap's cursor is on."""
        return self.cursors.object if self.cursors.object is not None else heap_pane.latest(self.session.scene)

    def _turn(self, by: int) -> None:
        self.focus = PANES[(PANES.index(self.focus) + by) % len(PANES)]
        if self.focus not in PANES[:2]:
            self.tab = self.focus

    def _zoom(self) -> None:
        self.zoomed = not self.zoomed

    def _quit(self) -> None:
        self.ended = True

    def _help(self) -> None:
        self.popup = Popup("help", tuple(help_lines()))

    def _let_go(self) -> None:
        self.cursors = Cursors()
        self.zoomed = False

    def _ask(self, command: str) -> None:
        answer = self.session.execute(command)
        if answer.error:
            self.say(answer.error, error=True)
        else:
            self.popup = Popup(command, answer.lines)

    def _percent(self) -> None:
        if self.digits:
            self.do(f"goto {self.digits}%")

    def _history(self) -> None:
        if self.object is None:
            self.say("no object is chosen: tab to the heap, the arrows choose one")
        else:
            self._ask(f"history {self.object:#x}")

    def _enter(self) -> None:
        if self.focus == "trace" and self.cursors.event is not None:
            self.do(f"goto #{self.cursors.event}")
        elif self.focus == "heap":
            self._history()

    def _move(self, columns: int, rows: int) -> None:
        """The arrows: a cursor in the heap and the trace, scrolling in the other panes."""
        scene = self.session.scene
        if self.focus == "heap":
            heap = heap_pane.HeapMap(scene, self.heap_width)
            chosen = self.object if heap.line_of(self.object) is not None else None
            self.cursors.object = heap.moved(chosen, columns, rows)
        elif self.focus == "trace":
            count = len(scene.run.events.every)
            at = scene.current_event if self.cursors.event is None else self.cursors.event
            self.cursors.event = max(0, min(at + rows, count - 1)) if count else None
        elif rows:
            self.cursors.offsets[self.focus] = self.cursors.offsets.get(self.focus, 0) + rows

    def _pages(self, by: int) -> None:
        self._move(0, by * self.page)


def help_lines() -> list[str]:
    """Every key, in groups."""
    lines: list[str] = []
    for title, keys in HELP:
        lines.append(title)
        lines += [f"  {key.keys:<7} {key.does}" for key in keys]
    return lines


