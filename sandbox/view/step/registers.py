"""The registers: those that have changed marked with ``*``, what their values point to, the flags by name.

::

     rax ffff88800025e000 kmalloc-64[0]
    *rdi               28 40
    *flags 246  PF ZF IF
"""

from __future__ import annotations

from ...x86 import REGISTERS, Rflags
from .rows import Row, block
from .scene import Scene


def title(scene: Scene) -> str:
    """How many have changed."""
    return f"{len(scene.changed)} changed" if scene.changed else ""


def rows(scene: Scene, width: int, height: int, offset: int = 0) -> list[Row]:
    """The pane: one register on a row, the flags below them."""
    shown = [_register(scene, name) for name in REGISTERS if name not in ("rip", "rflags")]
    return block([*shown, _flags(scene)][max(offset, 0):], width, height)


def _register(scene: Scene, name: str) -> Row:
    value = scene.registers[name]
    changed = name in scene.changed
    note = scene.short(value)
    return Row.of(("*" if changed else " ", "changed"), f"{name:<3} ", (f"{value:>16x}", "changed" if changed else ""),
                  " ", (note, "dim" if note.isdecimal() else "function"))


def _flags(scene: Scene) -> Row:
    value = scene.registers["rflags"]
    changed = "rflags" in scene.changed
    return Row.of(("*" if changed else " ", "changed"), f"flags {value:x}  ",
                  (flag_names(value), "changed" if changed else ""))


def flag_names(value: int) -> str:
    """The flags that are set, lowest first; bit 1, which is always set, is not told."""
    return " ".join(name for name in Rflags(value).names() if name != "FIXED")
