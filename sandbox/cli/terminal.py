"""What the commands print through: colour and a progress line on a terminal, the bare text anywhere else."""

from __future__ import annotations

import codecs
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

from rich.color import ColorSystem
from rich.style import Style

PROGRESS_SECONDS = 0.5
"""How long a run takes before it gets a progress line, and how often that is renewed."""

STYLES = {
    "address": Style(color="cyan"),
    "count": Style(dim=True),
    "event": Style(dim=True),
    "function": Style(color="blue", bold=True),
    "place": Style(color="yellow"),
    "good": Style(color="green", bold=True),
    "bad": Style(color="red", bold=True),
    "comment": Style(color="green"),
    "used": Style(color="red"),
    "cached": Style(color="yellow"),
    "command": Style(bold=True),
    "console": Style(bold=True),
}


_ADDRESS = r"(?P<address>\b0x[0-9a-f]{5,16}\b)"
_PLACE = r"(?P<place>\(?\b[\w./-]+\.(?:asm|inc):\d+\)?|\bline \d+$)"
HIGHLIGHTS = {
    "event": (
        r"^(?P<count> *[\d,]+)  ", r"^ *[\d,]+ +(?P<function>\w+)\(", _ADDRESS, _PLACE,
        r"(?P<bad>never returned|0, it failed)"),
    "report": (
        r"^(?P<good>success\b)", r"^(?P<bad>failure|limit reached|stopped|kernel panic|(?:\w+ )*fault)\b", _ADDRESS,
        _PLACE, r"^  (?P<command>sandbox .+?)  ", r"^  (?:0x[0-9a-f]+ \w+)? +(?P<cells>[#o.]+)$"),
    "source": (
        r"^(?P<address>\+0x[0-9a-f]+)", r"^.{6} (?P<count>(?:[0-9a-f]{2} )*[0-9a-f]{2})\b", r"(?P<comment>#.*$)",
        r"(?P<count>= .*$)"),
    "told": (r"^ {0,10}(?P<count>\d[\d,]*) ", r"^ {11} +(?P<function>\w+)  [\w./-]+\.asm$", _ADDRESS, _PLACE,
             r"(?P<bad>faults(?: with)?\b.*)"),
    "check": (r"^(?:\w+ +)?(?P<good>passed\b)", r"^(?:\w+ +)?(?P<bad>FAILED\b)", r"^    look: (?P<command>.+)",
              r"^  (?P<command>sandbox .+)", _ADDRESS, _PLACE),
    "plain": (),
}
"""For each kind of line, what is coloured: the named groups are names of :data:`STYLES`."""


class Terminal:
    """Standard output for results, standard error for all else. Colour is used when ``out`` is a terminal and
    neither NO_COLOR nor TERM=dumb asks for none."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out or sys.stdout or _nowhere()
        self.err = err or sys.stderr or _nowhere()
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.is_terminal = self.out.isatty()
        self.colour = self.is_terminal and not plain
        self._progress_shown = False
        self._started = self._renewed = time.monotonic()

    def line(self, text: str = "", kind: str = "plain") -> None:
        """One line of output, coloured as its ``kind`` has it."""
        self.clear_progress()
        if kind != "console":                    # which ConsoleLines has looked through
            text = _harmless(text)
        self.out.write((self._coloured(text, kind) if self.colour else text) + "\n")

    def error(self, text: str) -> None:
        """One sentence on standard error."""
        self.note(f"error: {text}")

    def note(self, text: str) -> None:
        """A remark on standard error, behind the output so far."""
        self.clear_progress()
        self.out.flush()
        self.err.write(f"{_harmless(text)}\n")

    def _coloured(self, text: str, kind: str) -> str:
        if kind == "console":
            return STYLES["console"].render(text, color_system=ColorSystem.EIGHT_BIT) if text else ""
        spans = sorted((*found.span(name), name) for expression in HIGHLIGHTS[kind]
                       for found in re.finditer(expression, text) for name in found.groupdict())
        pieces, at = [], 0
        for start, end, style in spans:
            if start >= at and end > start:
                pieces += [text[at:start], _styled(text[start:end], style)]
                at = end
        return "".join([*pieces, text[at:]])

    # -- progress ---------------------------------------------------------------------------------------------
    def progress(self, instructions: int) -> None:
        """Renew the progress line, which standard error has when it is a terminal."""
        now = time.monotonic()
        if not self.err.isatty() or now - self._renewed < PROGRESS_SECONDS:
            return
        self._renewed = now
        self._progress_shown = True
        rate = instructions / max(now - self._started, 1e-9) / 1e6
        self.err.write(f"\r\x1b[K{instructions:,} instructions, {rate:,.1f} million a second (Ctrl-C stops it)")
        self.err.flush()

    def start_progress(self) -> None:
        """A run begins: rates count from here."""
        self._started = self._renewed = time.monotonic()

    def clear_progress(self) -> None:
        """Take the progress line away."""
        if self._progress_shown:
            self._progress_shown = False
            self.err.write("\r\x1b[K")
            self.err.flush()


def _nowhere() -> TextIO:
    """Where output goes when the shell has closed the stream (``>&-``), and Python has None for it."""
    return Path(os.devnull).open("w", encoding="utf-8")


def _styled(text: str, style: str) -> str:
    if style == "cells":
        return re.sub(r"#+|o+", lambda run: _styled(run[0], "used" if run[0][0] == "#" else "cached"), text)
    return STYLES[style].render(text, color_system=ColorSystem.EIGHT_BIT)


class ConsoleLines:
    """The guest's serial port, byte by byte, as lines on a terminal, each as soon as it is whole."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._line = ""

    def byte(self, value: int) -> None:
        """One byte was sent."""
        character = self._decode(bytes((value,)))
        if character == "\n":
            self.finish(always=True)
        else:
            self._line += character

    def finish(self, always: bool = False) -> None:
        """Show what has come of the line so far."""
        if self._line or always:
            text, self._line = self._line, ""
            self._terminal.line(_harmless(text) if self._terminal.is_terminal else text, "console")


def _harmless(text: str) -> str:
    """Without what a terminal would obey: the escape sequences of a guest, of a source file or of an object are shown,
    not carried out."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)
