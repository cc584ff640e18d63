"""The stepper in a terminal, on Textual: keys in, rows out. The only module that needs Textual; import it late.

The terminal's own sixteen colours are used, so that it looks as its owner chose, over ssh too; without colour only
bold, dim and reverse are left, and with them everything can still be read.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.color import Color
from textual.containers import Horizontal
from textual.filter import LineFilter
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static

from .rows import Row
from .screen import picture
from .stepper import Prompt, Stepper

LOOKS = {
    "title": Style(bold=True), "focus": Style(bold=True, reverse=True), "place": Style(bold=True),
    "count": Style(color="bright_black"), "address": Style(color="cyan"), "function": Style(color="blue"),
    "comment": Style(color="green"), "label": Style(bold=True), "current": Style(color="yellow", bold=True),
    "changed": Style(color="red", bold=True), "used": Style(color="red"), "cached": Style(color="yellow"),
    "free": Style(color="green"), "unknown": Style(color="magenta", bold=True), "dim": Style(dim=True),
    "cursor": Style(reverse=True, bold=True), "good": Style(color="green", bold=True), "key": Style(bold=True),
    "bad": Style(color="red", bold=True),
}
PATIENCE = 0.3
"""Seconds after which the last row says that something is being done."""
_PLAIN = str.maketrans({"─": "-", "│": "|", "…": "~"})


class Colourless(LineFilter):
    """Takes the colours away and leaves bold, dim and reverse."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments without colour."""
        return list(Segment.remove_color(segments))


class Panes(Widget, can_focus=True):
    """Everything but the line that is typed."""

    def __init__(self, stepper: Stepper, ascii_only: bool) -> None:
        super().__init__()
        self._stepper = stepper
        self._ascii_only = ascii_only
        self._rows: list[Row] = []
        self.working = False

    def show(self) -> None:
        """Draw the present state anew, unless it is just being changed."""
        if self.working:
            return
        try:
            self._rows = picture(self._stepper, self.size.width, self.size.height)
        except Exception as error:               # a defect of ours: told when the terminal is itself again
            self.app.exit(error)
        self.refresh()

    def say_working(self) -> None:
        """Something takes longer than a moment."""
        if self.working and self._rows:
            self._rows[-1] = Row.of(("working...", "key")).fit(self.size.width)
            self.refresh()

    def on_resize(self) -> None:
        """The terminal has another size."""
        self.show()

    def render_line(self, y: int) -> Strip:
        """One row for the screen."""
        if y >= len(self._rows):
            return Strip.blank(self.size.width)
        row = self._rows[y]
        text = row.text.translate(_PLAIN) if self._ascii_only else row.text
        return Strip(_segments(text, row)).adjust_cell_length(self.size.width)


def _segments(text: str, row: Row) -> list[Segment]:
    """The row's text cut where its style changes; where marks overlap, their styles add up."""
    edges = sorted({0, len(text), *(mark.start for mark in row.marks), *(mark.end for mark in row.marks)})
    found = []
    for start, end in pairwise(edges):
        style = Style.null()
        for mark in row.marks:
            if mark.start <= start and end <= mark.end:
                style += LOOKS[mark.style]
        found.append(Segment(text[start:end], style))
    return found


class StepperApp(App[Exception]):
    """The application: the panes, and below them a line to type in when one is asked for."""

    CSS = """
    Screen { background: ansi_default; color: ansi_default; overflow: hidden; layers: panes above; }
    Panes { height: 1fr; layer: panes; }
    #asking { height: 1; display: none; dock: bottom; layer: above; background: ansi_default; }
    #label { width: auto; color: ansi_default; background: ansi_default; text-style: bold; }
    Input, Input:focus { height: 1; border: none; padding: 0; width: 1fr; color: ansi_default;
                         background: ansi_default; }
    Input > .input--cursor { color: ansi_default; background: ansi_default; text-style: reverse; }
    """
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, stepper: Stepper, colour: bool = True, ascii_only: bool = False) -> None:
        super().__init__(ansi_color=True)
        self.stepper = stepper
        self.panes = Panes(stepper, ascii_only)
        if not colour:
            self._filters = [Colourless()]

    def compose(self) -> ComposeResult:
        """The widgets."""
        yield self.panes
        with Horizontal(id="asking"):
            yield Static("", id="label")
            yield Input(id="line", select_on_focus=False)

    def on_load(self) -> None:
        """Before the terminal is ours."""
        with suppress(RuntimeError):             # what asyncio raises where a loop hears no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminated)

    def on_mount(self) -> None:
        """The panes have the keys."""
        self.panes.focus()

    def _terminated(self) -> None:
        """SIGTERM: give the terminal back at once, whatever is being done, and end by that signal as others do."""
        if self._driver is not None:
            self._driver.stop_application_mode()
            self._driver.close()                 # what is still to be painted is painted
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    async def on_event(self, event: events.Event) -> None:
        """Keys go to the stepper, unless a line is typed."""
        if isinstance(event, events.Key) and self.stepper.prompt is None:
            event.stop()
            named = event.character is None or not event.character.isprintable()
            await self._do(self.stepper.press, event.key if named else str(event.character))
        elif isinstance(event, events.Key) and event.key in ("escape", "ctrl+c"):
            event.stop()
            self.stepper.cancel()
            self._show()
        elif isinstance(event, events.Key) and event.key in ("up", "down"):
            event.stop()
            line = self.query_one("#line", Input)
            line.value = self.stepper.recall(-1 if event.key == "up" else 1, line.value)
            line.cursor_position = len(line.value)
        else:
            await super().on_event(event)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """The line that was asked for."""
        await self._do(self.stepper.submit, event.value)

    async def _do(self, action: Callable[[str], None], text: str) -> None:
        """Let the stepper do something. It is done in a thread, so that the screen can say when it takes long; the
        next key waits for it, and nothing is painted meanwhile."""
        soon = asyncio.get_running_loop().call_later(PATIENCE, self.panes.say_working)
        self.panes.working = True
        try:
            await asyncio.to_thread(action, text)
        except Exception as error:
            self.exit(error)
            return
        finally:
            self.panes.working = False
            soon.cancel()
        self._show()

    def _show(self) -> None:
        """Bring the screen up to date, or leave."""
        if self.stepper.ended:
            self.exit()
            return
        self._ask(self.stepper.prompt)
        self.panes.show()

    def _ask(self, prompt: Prompt | None) -> None:
        asking, line = self.query_one("#asking"), self.query_one("#line", Input)
        asking.display = prompt is not None
        if prompt is None:
            self.screen.set_focus(self.panes)
        else:
            self.query_one("#label", Static).update(prompt.label)
            line.value = prompt.text
            line.cursor_position = len(prompt.text)
            self.screen.set_focus(line)          # at once: the next key is for it


def run(stepper: Stepper, colour: bool = True, ascii_only: bool = False) -> None:
    """Show a stepper until its user leaves; a defect of the program comes out when the terminal is itself again."""
    defect = StepperApp(stepper, colour, ascii_only).run(mouse=False)
    if defect is not None:
        raise defect
