"""What the guest has written to its serial port until now."""

from __future__ import annotations

from .rows import Row, block, harmless
from .scene import Scene


def title(scene: Scene) -> str:
    """How much it is."""
    count = len(lines(scene))
    return f"{count} line{'' if count == 1 else 's'}"


def lines(scene: Scene) -> list[str]:
    """The lines so far; the last one may still be open."""
    return [harmless(line) for line in scene.kernel.console.split("\n")] if scene.kernel.console else []


def rows(scene: Scene, width: int, height: int, offset: int = 0) -> list[Row]:
    """The pane: the newest lines. ``offset`` scrolls it, in lines; below 0 is into the past."""
    every = lines(scene)
    while every and not every[-1]:
        every.pop()
    folded = [line[at : at + width] for line in every for at in range(0, max(len(line), 1), width)]
    end = min(max(len(folded) + min(offset, 0), height), len(folded))
    shown = [Row(line) for line in folded[max(end - height, 0) : end]]
    return block(shown or [Row.of(("nothing yet", "dim"))], width, height)
