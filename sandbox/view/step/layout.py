"""Which pane goes where, for every size of a terminal.

80 x 24 has the source above one of the other panes, and the registers beside both. A wide terminal has the stack below
the registers; a high one shows more of the others at once, and the last of them stands for all that have no room.
"""

from __future__ import annotations

from dataclasses import dataclass

PANES = ("source", "registers", "heap", "stack", "trace", "console")
"""All panes, in the order in which tab goes through them."""
SMALLEST = (72, 20)
"""Columns and rows below which it is of no use."""
NARROW_REGISTERS, WIDE_REGISTERS = 33, 52
WIDE = 110
REGISTER_ROWS = 19
"""A title, sixteen registers, the flags, and a free row."""
_SHARES = {"source": 4, "heap": 4, "stack": 4, "trace": 4, "console": 2}
_SLOT = 10
_HEAD, _STATUS = 3, 1


@dataclass(frozen=True)
class Box:
    """A pane with its title: ``height`` rows of ``width`` cells. ``tabs`` are the panes that share its place."""

    pane: str
    width: int
    height: int
    tabs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Boxes from top to bottom, in one column or two."""

    left: tuple[Box, ...]
    right: tuple[Box, ...] = ()


def too_small(width: int, height: int) -> bool:
    """Whether nothing sensible fits."""
    return width < SMALLEST[0] or height < SMALLEST[1]


def layout(width: int, height: int, focus: str, shown: str, zoomed: bool = False) -> Layout:
    """The boxes of the body, ``height`` rows high. ``shown`` is the pane that the shared place shows unless ``focus``
    is one of those that share it; ``zoomed`` gives the focused pane everything."""
    if zoomed:
        return Layout((Box(focus, width, height),))
    right = min(WIDE_REGISTERS, width * 2 // 5) if width >= WIDE else NARROW_REGISTERS
    left = width - right - 1
    beside = width >= WIDE and height - REGISTER_ROWS >= 6
    column = (Box("registers", right, REGISTER_ROWS), Box("stack", right, height - REGISTER_ROWS)) if beside \
        else (Box("registers", right, height),)
    others = tuple(pane for pane in PANES[2:] if not (beside and pane == "stack"))
    return Layout(tuple(_left(left, height, others, focus, shown)), column)


def _left(width: int, height: int, others: tuple[str, ...], focus: str, shown: str) -> list[Box]:
    slots = min(max((height - _SLOT) // _SLOT, 1), len(others))
    own, shared = others[: slots - 1], others[slots - 1 :]
    chosen = focus if focus in shared else shown if shown in shared else shared[0]
    shares = [*(_SHARES[pane] for pane in own), max(_SHARES[pane] for pane in shared)]
    heights = [height * share // (_SHARES["source"] + sum(shares)) for share in shares]
    return [Box("source", width, height - sum(heights)),
            *(Box(pane, width, rows) for pane, rows in zip(own, heights, strict=False)),
            Box(chosen, width, heights[-1], shared)]
