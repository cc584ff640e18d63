"""Where an instruction goes: whether a jump is going to be taken, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..address import U64
from ..toolchain.disassembler import DecodedMemory, Detail
from ..x86 import Rflags
from .accesses import STRINGS, ReadWord, accesses
from .processor import Processor


@dataclass(frozen=True)
class Condition:
    """A condition code: the flags that it looks at, and the test."""

    flags: tuple[str, ...]
    holds: Callable[[Rflags], bool]


_CONDITIONS: Mapping[str, Condition] = {
    "o": Condition(("OF",), lambda f: bool(f.OF)), "no": Condition(("OF",), lambda f: not f.OF),
    "b": Condition(("CF",), lambda f: bool(f.CF)), "ae": Condition(("CF",), lambda f: not f.CF),
    "e": Condition(("ZF",), lambda f: bool(f.ZF)), "ne": Condition(("ZF",), lambda f: not f.ZF),
    "be": Condition(("CF", "ZF"), lambda f: bool(f.CF or f.ZF)),
    "a": Condition(("CF", "ZF"), lambda f: not (f.CF or f.ZF)),
    "s": Condition(("SF",), lambda f: bool(f.SF)), "ns": Condition(("SF",), lambda f: not f.SF),
    "p": Condition(("PF",), lambda f: bool(f.PF)), "np": Condition(("PF",), lambda f: not f.PF),
    "l": Condition(("SF", "OF"), lambda f: f.SF != f.OF), "ge": Condition(("SF", "OF"), lambda f: f.SF == f.OF),
    "le": Condition(("ZF", "SF", "OF"), lambda f: bool(f.ZF or f.SF != f.OF)),
    "g": Condition(("ZF", "SF", "OF"), lambda f: not f.ZF and f.SF == f.OF),
}
"""The sixteen condition codes (SDM volume 1, appendix B), under the names that the disassembler has for them."""


@dataclass(frozen=True)
class Branch:
    """Whether an instruction leaves the straight line. ``target`` is where it goes when it does, None where that is
    not known; ``why`` gives the reason of a conditional one."""

    kind: str
    taken: bool
    target: int | None
    why: str = ""


def condition(name: str, flags: Rflags) -> tuple[bool, str] | None:
    """Whether the condition at the end of a mnemonic (``jne``, ``cmovb``, ``sete``) holds, and the flags that say so;
    None where it has none."""
    code = next((name.removeprefix(start) for start in ("cmov", "set", "j") if name.startswith(start)), "")
    known = _CONDITIONS.get(code)
    if known is None:
        return None
    return known.holds(flags), " ".join(f"{flag}={getattr(flags, flag)}" for flag in known.flags)


def branch(detail: Detail, cpu: Processor, read: ReadWord) -> Branch | None:
    """Where the instruction may go instead of to the next one; None for one that goes nowhere.

    ``read(address, size)`` reads virtual memory, for pointers and return addresses.
    """
    name = detail.name
    if name in ("jmp", "call"):
        return Branch(name, True, _target(detail, cpu, read))
    if name == "ret":
        return Branch("return", True, read(cpu["rsp"], 8))
    if name in ("retfq", "iretq"):
        return Branch("return", True, read(cpu["rsp"], 8))
    if name in ("jrcxz", "jecxz"):
        counter = name[1:4] if name == "jrcxz" else "ecx"
        return Branch("jump", cpu[counter] == 0, _target(detail, cpu, read), f"{counter}={cpu[counter]:#x}")
    if name.startswith("loop"):
        left = (cpu["rcx"] - 1) & U64
        wanted = {"loop": True, "loope": bool(cpu.flags.ZF), "loopne": not cpu.flags.ZF}[name]
        flag = "" if name == "loop" else f", ZF={cpu.flags.ZF}"
        return Branch("jump", bool(left) and wanted, _target(detail, cpu, read), f"rcx - 1={left:#x}{flag}")
    told = condition(name, cpu.flags) if name.startswith("j") else None
    if told is None:
        return None
    return Branch("jump", told[0], _target(detail, cpu, read), told[1])


def _target(detail: Detail, cpu: Processor, read: ReadWord) -> int | None:
    if not detail.operands:
        return None
    value = detail.operands[0].value
    if isinstance(value, int):
        return value & U64
    if isinstance(value, str):
        return cpu.get(value)
    assert isinstance(value, DecodedMemory)
    return read(accesses(detail, cpu, read)[0].address, 8)


def following(detail: Detail, cpu: Processor, read: ReadWord) -> int | None:
    """RIP behind the instruction when it does not fault, None where that is not known."""
    goes = branch(detail, cpu, read)
    if goes is not None:
        return goes.target if goes.taken else detail.instruction.end
    if detail.prefix.startswith("rep") and detail.name in STRINGS:
        return _repeated(detail, cpu, read)
    if detail.name in ("syscall", "sysret", "sysretq", "sysexit", "lcall", "ljmp", "int", "int1", "int3", "into"):
        return None
    return detail.instruction.end


def _repeated(detail: Detail, cpu: Processor, read: ReadWord) -> int | None:
    """A turn stays where it is, so that the next start finds RCX at 0; a comparison may end it earlier."""
    if cpu["rcx"] == 0:
        return detail.instruction.end
    if detail.name[:4] not in ("cmps", "scas"):
        return detail.instruction.address
    values = [read(access.address, access.size) for access in accesses(detail, cpu, read)]
    if detail.name.startswith("scas"):
        values.insert(0, cpu[str(detail.operands[0].value)])
    equal = values[0] == values[1]
    goes_on = equal if detail.prefix != "repne" else not equal
    return detail.instruction.address if goes_on else detail.instruction.end
