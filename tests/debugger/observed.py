"""Explanations against what the machine did: the memory hooks' accesses, the registers, and where RIP went."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.debugger.explain import Explainable, Explanation, Later, explain
from sandbox.debugger.processor import Processor
from sandbox.errors import GuestMemoryError
from sandbox.machine.machine import Machine
from sandbox.machine.stop import StopKind
from sandbox.x86 import REGISTERS

_LATE = {"rflags": 0x10000}                      # the emulator clears RF at the end of a block, not of an instruction
Range = tuple[str, int, int]
"""``read`` or ``write``, a physical address, bytes."""


class Watchable(Explainable, Later, Protocol):
    """A kernel, or a machine with what explanations need."""

    @property
    def machine(self) -> Machine: ...
    @property
    def physical(self) -> Sized: ...


@dataclass
class Watched:
    """A kernel with a hook on every access to its RAM."""

    kernel: Watchable
    log: list[tuple[str, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        cpu, size = self.kernel.machine.cpu, len(self.kernel.physical)
        cpu.hook_memory(0, size, lambda *access: self.log.append(access), read=True)
        cpu.hook_memory(0, size, lambda *access: self.log.append(access), write=True)

    def explained(self, steps: int, visits: int) -> Iterator[tuple[Explanation, list[str]]]:
        """Each instruction of the next ``steps``, the first ``visits`` times that it is met, with what is wrong with
        its explanation."""
        machine, seen = self.kernel.machine, dict[int, int]()
        for _ in range(steps):
            rip = machine.cpu.view.rip
            seen[rip] = seen.get(rip, 0) + 1
            if seen[rip] > visits:
                if machine.step().kind is not StopKind.LIMIT:
                    return
                continue
            told = explain(self.kernel)
            claimed = sorted(set(self._claimed(told)))
            before = self.kernel.machine.cpu.view.registers()
            values = [machine.memory.read(at, size) for _, at, size in claimed if at >= 0]
            self.log.clear()
            stop = machine.step()
            if stop.kind is not StopKind.LIMIT:
                return
            yield told, [*self._wrong(told, claimed, before), *_wrong_values(told, values)]

    def _claimed(self, told: Explanation) -> Iterator[Range]:
        for kind, operands in (("read", told.reads), ("write", told.writes)):
            for operand in operands:
                if operand.kind == "memory" and operand.address is not None:
                    yield kind, self._physical(operand.address), operand.size

    def _physical(self, address: int) -> int:
        try:
            return int(self.kernel.machine.paging.translate(address))
        except GuestMemoryError:
            return -1

    def _wrong(self, told: Explanation, claimed: list[Range], before: dict[str, int]) -> Iterator[str]:
        now = self.kernel.machine.cpu.view.registers()
        if told.next != now["rip"]:
            yield f"it goes to {now['rip']:#x}, not {told.next or 0:#x}"
        if told.fault is not None and not told.fault.arriving:
            return
        happened = sorted({access[:3] for access in self.log})
        if happened != claimed and _bytes(happened) != _bytes(claimed):
            yield f"it accesses {happened}, not {claimed}"
        done = told.completed(self.kernel)
        if told.fault is None:
            written = {Processor.whole(operand.text) for operand in done.writes if operand.kind == "register"}
            changed = {name for name in REGISTERS if (now[name] ^ before[name]) & ~_LATE.get(name, 0)} - {"rip"}
            flags = any(operand.kind == "flags" for operand in done.writes)
            if changed - written - ({"rflags"} if flags else set()):
                yield f"it changes {changed}, not {written}"
        stored = {(kind, physical): value for kind, physical, _, value in self.log}
        for first, last in zip(told.writes, done.writes, strict=True):
            if first.kind == "memory" and first.address is not None:
                if first.after is not None and first.after != last.after:
                    yield f"it writes {last.after}, not {first.after}"
                value = stored.get(("write", self._physical(first.address)))
                if value is not None and last.after is not None and not first.role and value != last.after:
                    yield f"it writes {value}, not {last.after}"


def _bytes(ranges: list[Range]) -> set[tuple[str, int]]:
    """A processor may make two accesses of one."""
    return {(kind, at + index) for kind, at, size in ranges for index in range(size)}


def _wrong_values(told: Explanation, values: list[bytes]) -> Iterator[str]:
    for operand in told.reads:
        if operand.kind == "memory" and operand.value is not None and told.fault is None:
            encoded = operand.value.to_bytes(operand.size, "little")
            if encoded not in values and operand.size <= 8:
                yield f"it reads {operand.text}, and no access has {operand.value:#x}"
