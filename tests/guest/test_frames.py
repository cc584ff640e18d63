"""The call stack, compared at every instruction with one that is kept by watching calls, returns and interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import pytest

import sandbox
from sandbox.errors import GuestError
from sandbox.guest.frames import Frame, frames
from sandbox.guest.memory import TranslatedMemory
from sandbox.guest.options import BootOptions
from sandbox.guest.symbols import Symbols
from sandbox.kernel import power_on
from sandbox.machine.machine import Machine
from sandbox.machine.stop import StopKind
from sandbox.toolchain.image import Image
from sandbox.toolchain.unwind import Rule
from sandbox.x86 import EXCEPTIONS, GENERAL_REGISTERS

TIMER = 0


class Entered(NamedTuple):
    """A call or an interrupt: where it goes back to, and the registers that whoever was called found, RSP as before."""

    rip: int
    registers: dict[str, int]
    interrupt: bool

    @property
    def rsp(self) -> int:
        return self.registers["rsp"]


class Watched:
    """A guest that runs one instruction at a time, and its true call stack."""

    def __init__(self, machine: Machine, symbols: Symbols) -> None:
        self.machine = machine
        self.symbols = symbols
        self.memory = TranslatedMemory(machine)
        self.registers = machine.cpu.registers()
        self.entered: list[Entered] = []
        self.stubs = int(symbols["trap_stubs"])

    def frames(self) -> list[Frame]:
        return frames(self.registers, self.memory, self.symbols, self.symbols.unwind)

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 8), "little")

    def step(self) -> bool:
        """Run one instruction; False when the machine has stopped for another reason than that."""
        before = self.registers
        code = self.memory.read(before["rip"], 8)
        stop = self.machine.step()
        after = self.registers = dict(self.machine.cpu.registers())
        vector, beside = divmod(after["rip"] - self.stubs, 16)
        delivered = 0 <= vector < 256 and not beside
        frame = after["rsp"] + 8 * (delivered and vector < 32 and EXCEPTIONS[vector].has_error_code)
        rip, rsp = (self.word(frame), self.word(frame + 24)) if delivered else (after["rip"], after["rsp"])
        if rip != before["rip"]:
            self._instruction(code, before, rip, rsp)
        if delivered:
            self.entered.append(Entered(rip, {**after, "rsp": rsp}, True))
        return stop.kind is StopKind.LIMIT

    def _instruction(self, code: bytes, before: dict[str, int], rip: int, rsp: int) -> None:
        plain = code[1:] if code[0] in (0x41, 0x48, 0x49) else code
        calls = plain[0] == 0xE8 or (plain[0] == 0xFF and plain[1] >> 3 & 7 == 2)
        if calls and rsp == before["rsp"] - 8:
            self.entered.append(Entered(self.word(rsp), before, False))
        elif code[0] in (0xC2, 0xC3) or code[:2] == b"\x48\xcf":
            done = self.entered.pop()
            assert (done.rip, done.rsp, done.interrupt) == (rip, rsp, code[0] == 0x48)


def wanted(watched: Watched) -> list[tuple[int, int, int, int | None, bool]]:
    """RIP, RSP, RBP, the caller's RSP, and whether it was interrupted, of every frame, innermost first."""
    now = watched.registers
    rows = [(now["rip"], now["rsp"], now["rbp"], True), *(
        (entered.rip, entered.rsp, entered.registers["rbp"], entered.interrupt)
        for entered in reversed(watched.entered))]
    outer = [*(row[1] for row in rows[1:]), None]
    return [(rip, rsp, rbp, cfa, interrupted) for (rip, rsp, rbp, interrupted), cfa in zip(rows, outer, strict=True)]


def recovered(watched: Watched, rule: Rule) -> dict[str, int]:
    """The registers that the innermost frame's rule finds."""
    now = watched.registers
    cfa = now[rule.cfa_register] + rule.cfa_offset
    values = {name: value for name, value in now.items() if name not in rule.lost and name in GENERAL_REGISTERS}
    return {**values, "rsp": cfa, **{name: now[holder] for name, holder in rule.held.items()},
            **{name: watched.word(cfa + offset) for name, offset in rule.saved.items()}}


def assert_exact(watched: Watched, steps: int) -> int:
    """Compare all frames, and the innermost one's registers, before each of the next steps; returns how deep the stack
    was at most."""
    depth = 0
    for _ in range(steps):
        found = watched.frames()
        assert [(frame.rip, frame.rsp, frame.rbp, frame.cfa, frame.interrupted) for frame in found] == wanted(watched)
        for frame, caller in pairwise(found):
            assert frame.return_slot is None or watched.word(frame.return_slot) == caller.rip
        if watched.entered:
            rule, entered = watched.symbols.unwind.rule(watched.registers["rip"]), watched.entered[-1]
            assert rule is not None
            truth = {**entered.registers, "rip": entered.rip}
            for name, value in recovered(watched, rule).items():
                assert name == "rflags" or value == truth[name], (found[0], name)
        depth = max(depth, len(found))
        if not watched.step():
            break
    return depth


def booted(program: str, every: int, **options: object) -> Watched:
    kernel = sandbox.boot(program, **options)  # type: ignore[arg-type]
    if every:
        for at in range(kernel.instructions + every, kernel.instructions + 100 * every, every):
            kernel.machine.interrupt_at(at, TIMER)
    return Watched(kernel.machine, kernel.symbols)


PANIC = """
.text
main:
    push rbp
    mov rbp, rsp
    mov edi, 0x1234567
    call kfree
"""


@pytest.mark.parametrize(("program", "every", "steps", "depth"), [
    ("01", 63, 3000, 9),                     # magazines, slabs, pages and printing, interrupted everywhere
    ("12", 0, 1200, 10),                     # a page fault's handler that prints
    (PANIC, 0, 4000, 8),                     # its arguments lie where the return address was
], ids=["allocation", "page fault", "panic"])
def test_every_frame_is_exact_at_every_instruction(program: str, every: int, steps: int, depth: int) -> None:
    assert assert_exact(booted(program, every), steps) >= depth


def test_frames_are_exact_from_the_very_first_instruction(kernel_image: Image) -> None:
    with Machine(BootOptions().ram_size) as machine:
        power_on(machine, kernel_image, None, BootOptions())
        assert_exact(Watched(machine, Symbols(kernel_image)), 700)


PROGRAM = """
.text
main:
    push rbx
    mov ebx, 5                          # no frame, and rbp is used for something else
    mov rbp, rbx
    call outer
    xor eax, eax
    pop rbx
    ret
outer:
    sub rsp, 24
    call inner
    add rsp, 24
    ret
inner:
    nop
    ret
elsewhere:
    mov eax, 7
    xor ebp, ebp
    pop rbx
    ret
nowhere:
    push rbp
    mov rbp, rsp
    xor eax, eax
    call rax
realigned:
    push rbp
    mov rbp, rsp
    and rsp, -64
    call inner
    leave
    ret
calls_obscure:
    call obscure
    ret
obscure:
    push rbp
    mov rbp, rsp
    xor ecx, ecx
    add rbp, rcx                        # by nothing, but who knows
    sub rsp, rcx
    call inner
    leave
the_end:
    ret
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[sandbox.Kernel]:
    with sandbox.boot(PROGRAM, ram="8M", hz=0) as kernel:
        yield kernel


@pytest.fixture
def inside(kernel: sandbox.Kernel) -> Iterator[Callable[..., list[Frame]]]:
    """``inside(target, function, *arguments)`` is the frames when a called function first comes to an address."""
    state = kernel.snapshot()

    def stopped(target: str | int, function: str, *arguments: int) -> list[Frame]:
        found: list[Frame] = []

        def look(address: int) -> None:
            if not found:
                found.extend(frames(kernel.registers, kernel.memory, kernel.symbols, kernel.symbols.unwind))

        hook = kernel.machine.cpu.hook_code([kernel.symbols[target] if isinstance(target, str) else target], look)
        with suppress(GuestError):
            kernel.call(function, *arguments)
        hook.remove()
        if kernel.failure is not None:
            kernel.rewind()
        return found

    yield stopped
    kernel.restore(state)


Inside = Callable[..., list[Frame]]


def names(found: list[Frame]) -> list[str]:
    return [f"{frame.location.symbol}+{frame.location.offset}" for frame in found]


def test_a_backtrace_needs_no_frame_pointer(inside: Inside) -> None:
    found = inside("inner", "main")
    assert [frame.location.symbol for frame in found] == ["inner", "outer", "main"]
    assert [frame.location.source.text.strip() for frame in found if frame.location.source][1:] == [
        "call inner", "call outer"]
    assert [frame.interrupted for frame in found] == [True, False, False]


def test_a_call_from_python_is_where_the_walk_ends(inside: Inside, kernel: sandbox.Kernel) -> None:
    below = kernel.registers["rsp"]
    outermost = inside("inner", "main")[-1]
    assert outermost.location.symbol == "main" and outermost.return_slot == outermost.rsp + 8
    assert outermost.cfa == outermost.return_slot + 8 <= below


def test_the_return_slot_is_where_the_processor_takes_rip_from(kernel: sandbox.Kernel, inside: Inside) -> None:
    seen: list[int] = []

    def redirect(address: int) -> None:
        slot = frames(kernel.registers, kernel.memory, kernel.symbols, kernel.symbols.unwind)[0].return_slot
        assert slot is not None
        kernel.machine.virtual.write_u64(slot, kernel.symbols["elsewhere"])

    hooks = [kernel.machine.cpu.hook_code([kernel.symbols["inner"]], redirect),
             kernel.machine.cpu.hook_code([kernel.symbols["elsewhere"]], seen.append)]
    with suppress(GuestError):
        kernel.call("main")
    for hook in hooks:
        hook.remove()
    if kernel.failure is not None:
        kernel.rewind()
    assert seen == [kernel.symbols["elsewhere"]]


def test_a_jump_to_nowhere_is_walked_through_by_the_return_address_on_top(kernel: sandbox.Kernel) -> None:
    with pytest.raises(GuestError) as raised:
        kernel.call("nowhere")
    found = frames(raised.value.registers, kernel.memory, kernel.symbols, kernel.symbols.unwind)
    kernel.rewind()
    assert names(found) == ["+0", "nowhere+8"] and found[0].rip == 0


def test_the_frame_pointer_is_used_where_the_stack_pointer_is_not_certain(
        inside: Inside, kernel: sandbox.Kernel) -> None:
    found = inside("inner", "realigned")
    rule = kernel.symbols.unwind.rule(found[1].rip - 1)
    assert rule is not None and rule.cfa_register == "rbp"
    assert [frame.location.symbol for frame in found] == ["inner", "realigned"]


def test_where_nothing_is_certain_the_walk_follows_the_chain_of_rbp(inside: Inside, kernel: sandbox.Kernel) -> None:
    found = inside("inner", "obscure")
    assert kernel.symbols.unwind.rule(found[1].rip - 1) is None
    assert [frame.location.symbol for frame in found] == ["inner", "obscure"]
    assert found[1].return_slot is not None and found[1].rbp == found[1].return_slot - 8
    at_the_end = inside("the_end", "calls_obscure")
    assert kernel.symbols.unwind.rule(kernel.symbols["the_end"]) is None
    assert [frame.location.symbol for frame in at_the_end] == ["the_end", "calls_obscure"]


def test_no_more_frames_are_walked_than_asked_for(kernel: sandbox.Kernel) -> None:
    watched = booted("01", 0)
    for _ in range(200):
        watched.step()
    everything = watched.frames()
    few = frames(watched.registers, watched.memory, watched.symbols, watched.symbols.unwind, limit=2)
    assert len(everything) > 2 and few == everything[:2]


def test_a_broken_stack_ends_the_walk_and_raises_nothing(kernel: sandbox.Kernel) -> None:
    registers = dict(kernel.registers) | {"rip": int(kernel.symbols["inner"]), "rsp": 0x1000, "rbp": (1 << 64) - 8}
    found = frames(registers, kernel.memory, kernel.symbols, kernel.symbols.unwind)
    assert [frame.location.symbol for frame in found] == ["inner"]
