"""The processor's registers as a mapping of names to numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from difflib import get_close_matches

from ..address import U64
from ..errors import UsageError
from ..machine.cpu import Cpu
from ..x86 import REGISTERS
from .journal import SetRegister


class Registers(MutableMapping[str, int]):
    """``registers["rax"]`` is its value now; an assignment is recorded. The names are rax to r15, rip and rflags."""

    def __init__(self, cpu: Cpu, record: Callable[[SetRegister], None]) -> None:
        self._cpu = cpu
        self._record = record

    def __getitem__(self, name: str) -> int:
        return self._cpu.registers()[self._known(name)]

    def __setitem__(self, name: str, value: int) -> None:
        if not isinstance(value, int) or not -(1 << 63) <= value <= U64:
            raise UsageError(f"{name} holds 64 bits, and {value!r} is no such number")
        if self._cpu.closed:
            raise UsageError("this kernel is closed")
        if self._cpu.running:
            raise UsageError("the machine is running: a hook can read, and cannot write")
        self._cpu[self._known(name)] = int(value) & U64
        self._record(SetRegister(name, int(value) & U64))

    def __delitem__(self, name: str) -> None:
        raise UsageError("a register cannot be taken away")

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTERS)

    def __len__(self) -> int:
        return len(REGISTERS)

    def __repr__(self) -> str:
        values = self._cpu.registers()
        return " ".join(f"{name}={values[name]:#x}" for name in REGISTERS)

    @staticmethod
    def _known(name: str) -> str:
        if name not in REGISTERS:
            near = get_close_matches(str(name), REGISTERS, n=3)
            raise UsageError(f"no register is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
        return name
