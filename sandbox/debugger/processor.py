"""The processor's registers at one moment, under every name that an instruction has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..machine.context import RegisterView, TableRegister
from ..x86 import GENERAL_REGISTERS, SEGMENT_REGISTERS, Rflags


def _parts() -> dict[str, tuple[str, int, int]]:
    """Each name of a general register or a part of it: the register, the lowest bit, the number of bits."""
    found = {}
    for name in GENERAL_REGISTERS:
        short = name[1:]
        if short.isdecimal():
            names = (name, 64), (f"{name}d", 32), (f"{name}w", 16), (f"{name}b", 8)
        else:
            names = (name, 64), (f"e{short}", 32), (short, 16), (f"{short.removesuffix('x')}l", 8)
            if short.endswith("x"):
                found[f"{short[0]}h"] = name, 8, 8
        found.update({part: (name, 0, bits) for part, bits in names})
    return {**found, "rip": ("rip", 0, 64), "rflags": ("rflags", 0, 64), "eflags": ("rflags", 0, 32)}


_PARTS = _parts()


@dataclass(frozen=True)
class Processor:
    """The values of all registers: ``general`` has rax to r15, rip and rflags, ``special`` cr0 cr2 cr3 cr4 efer fs_base
    gs_base and the segment selectors."""

    general: Mapping[str, int]
    special: Mapping[str, int]
    cpl: int
    gdtr: TableRegister
    ldtr: TableRegister
    idtr: TableRegister
    tr: TableRegister

    @classmethod
    def of(cls, view: RegisterView) -> Processor:
        """Of a machine that stands still: ``machine.cpu.view``."""
        special = {name: view.selector(name) for name in SEGMENT_REGISTERS}
        special |= {f"cr{number}": view.control(number) for number in (0, 2, 3, 4)}
        special |= {"efer": view.efer, "fs_base": view.segment_base("fs"), "gs_base": view.segment_base("gs")}
        return cls(view.registers(), special, view.cpl, view.gdtr, view.ldtr, view.idtr, view.tr)

    def __getitem__(self, name: str) -> int:
        """The value of a register or of a part of one; ``KeyError`` for what has no value here (x87, SSE)."""
        return self.part(name, self.general) if name in _PARTS else self.special[name]

    def get(self, name: str, default: int | None = None) -> int | None:
        """The value of a register, ``default`` for one that has none here."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: str) -> bool:
        return name in _PARTS or name in self.special

    @staticmethod
    def part(name: str, general: Mapping[str, int]) -> int:
        """The value of a general register, or of a part of one, among the values of the whole ones."""
        register, low, bits = _PARTS[name]
        return general[register] >> low & ((1 << bits) - 1)

    @staticmethod
    def whole(name: str) -> str:
        """The 64-bit register that a name is a part of, the name itself for any other."""
        return _PARTS[name][0] if name in _PARTS else name

    @staticmethod
    def size(name: str) -> int:
        """Bytes of a register."""
        return _PARTS[name][2] // 8 if name in _PARTS else 2 if name in SEGMENT_REGISTERS else 8

    @property
    def flags(self) -> Rflags:
        """RFLAGS."""
        return Rflags(self.general["rflags"])

    @property
    def user(self) -> bool:
        """Whether it is in user mode."""
        return self.cpl == 3
