"""The stack: words from RSP up, with the frames that they belong to.

::

    rsp+00 ffffffffa0000011 return to main+0x11 (examples/01_first_allocation.asm:15)
        08 ffffc9000000ffe0 rbp of main
       +10 ffff888000003000 list kmalloc-16[0]       a variable of C
"""

from __future__ import annotations

from ...errors import GuestMemoryError
from .rows import Row, block
from .scene import Scene

WORD = 8
MAX_ROWS = 200


def title(scene: Scene) -> str:
    """Where its top is."""
    return f"rsp {scene.registers['rsp']:x}"


def rows(scene: Scene, width: int, height: int, offset: int = 0) -> list[Row]:
    """The pane. ``offset`` scrolls it, in words."""
    return block(_words(scene, height, max(offset, 0)), width, height)


def _words(scene: Scene, height: int, offset: int) -> list[Row]:
    rsp, rbp = scene.registers["rsp"], scene.registers["rbp"]
    links = _links(scene, rbp)
    callers = list(scene.frames[1:])
    found: list[Row] = []
    for index in range(offset + height):
        at = rsp + index * WORD
        value = _word(scene, at)
        if value is None:
            found.append(Row.of((f"{_place(at, rsp, rbp)} not mapped", "dim")))
            break
        note, style = _note(scene, at, value, links, callers)
        found.append(Row.of((_place(at, rsp, rbp), "count"), f" {value:>16x} ", (note, style)))
    return found[offset:]


def _place(at: int, rsp: int, rbp: int) -> str:
    return "rsp   " if at == rsp != rbp else "rbp   " if at == rbp else f"  +{at - rsp:03x}"


def _word(scene: Scene, address: int) -> int | None:
    try:
        return int.from_bytes(scene.kernel.memory.read(address, WORD), "little")
    except GuestMemoryError:
        return None


def _links(scene: Scene, rbp: int) -> set[int]:
    """The addresses at which the frames keep the RBP of their callers."""
    found: set[int] = set()
    while rbp and rbp not in found and len(found) < MAX_ROWS:
        above = _word(scene, rbp)
        if above is None:
            break
        found.add(rbp)
        if above <= rbp:
            break
        rbp = above
    return found


def _note(scene: Scene, at: int, value: int, links: set[int], callers: list[str]) -> tuple[str, str]:
    """What a word is: a frame's link, a return address (which uses up a caller), or what its value points to."""
    if at in links:
        return "rbp of the caller", "dim"
    if callers and scene.kernel.symbols.in_text(value) and \
            str(scene.kernel.symbolize(value)).partition(" ")[0] == callers[0].partition(" ")[0]:
        return f"return to {callers.pop(0)}", "function"
    note, variables = scene.short(value), _variables(scene, at)
    if variables:
        return f"{variables} {note}".rstrip(), "address"
    return note, "dim" if note.isdecimal() else "address"


def _variables(scene: Scene, at: int) -> str:
    """The variables of C that lie in a word: ``i, list``."""
    found = (scene.locals.name(address) for address in range(at, at + WORD))
    return ", ".join(dict.fromkeys(name.whole for name in found if name is not None))
