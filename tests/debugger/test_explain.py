"""What an explanation claims is what the machine then does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest

import sandbox
from sandbox.abi import DIRECT_MAP, PAGE_SIZE
from sandbox.debugger.explain import Explanation, explain
from sandbox.debugger.state import capture
from sandbox.guest.boot import load
from sandbox.guest.options import BootOptions
from sandbox.guest.symbols import Symbols
from sandbox.heap.views import Heap
from sandbox.kernel import Kernel
from sandbox.machine.machine import Machine
from sandbox.toolchain.image import Image
from sandbox.x86 import Vector

from .instructions import PROGRAM
from .observed import Watched

Run = Callable[[str], Explanation]


def check(kernel: Kernel | PoweredOn, steps: int, visits: int) -> list[Explanation]:
    """All explanations of the next steps, none of which is wrong."""
    told, wrong = [], []
    for explanation, found in Watched(kernel).explained(steps, visits):
        told.append(explanation)
        wrong += [f"{explanation.location}: {explanation.text}: {words}" for words in found]
        assert all(len(line) <= 80 for line in str(explanation).splitlines() if "asm:" not in line), explanation
    assert wrong == []
    return told


# -- against the machine ----------------------------------------------------------------------------------------
def test_each_claim_about_rare_instructions_and_faults_is_what_the_machine_does() -> None:
    with sandbox.boot(PROGRAM, hz=0) as kernel:
        told = check(kernel, 5000, 2)
    verbs = Counter(explanation.text.split()[0] for explanation in told)
    assert {"cmpxchg", "xlatb", "enter", "iretq", "loope", "rep", "repne", "repe", "jrcxz", "cpuid"} <= set(verbs)
    raised = Counter(explanation.fault.vector for explanation in told if explanation.fault)
    assert raised == {Vector.DE: 3, Vector.UD: 1, Vector.BP: 1, Vector.PF: 3, Vector.GP: 2}


def test_each_claim_is_what_the_machine_does_in_the_allocator() -> None:
    with sandbox.boot("04", hz=0) as kernel:
        told = check(kernel, 5000, 1)
    jumps = [explanation.branch for explanation in told if explanation.branch and explanation.branch.kind == "jump"]
    assert len(told) > 250 and {jump.taken for jump in jumps} == {True, False}


class PoweredOn:
    """A machine before the first instruction of its kernel, as far as an explanation needs it."""

    def __init__(self, machine: Machine, image: Image) -> None:
        self.machine, self.memory, self.physical = machine, machine.virtual, machine.memory
        self.symbols = Symbols(image)
        self.heap = Heap(self)

    @property
    def registers(self) -> Mapping[str, int]:
        return self.machine.cpu.view.registers()


def test_each_claim_is_what_the_machine_does_from_power_on(kernel_image: Image) -> None:
    with Machine(16 << 20) as machine:
        start = load(machine.memory, kernel_image, None, BootOptions("16M", True, 0, 2, 0, "", False, False))
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        told = check(PoweredOn(machine, kernel_image), 1500, 1)
    assert {"lgdt", "ltr", "retfq", "wrmsr"} <= {explanation.text.split()[0] for explanation in told}


# -- what it says -----------------------------------------------------------------------------------------------
@pytest.fixture
def at(kernel: Kernel) -> Iterator[Run]:
    """Explains the instruction at a label of the allocator the next time that ``kmalloc(64)`` comes there."""
    def reach(place: str) -> Explanation:
        label, _, offset = place.partition("+")
        target = kernel.symbols[label] + int(offset or "0", 0)
        view, machine = kernel.machine.cpu.view, kernel.machine
        kernel.registers["rip"], kernel.registers["rdi"] = kernel.symbols["kmalloc"], 64
        kernel.registers["rsp"] = kernel.registers["rsp"] - 8
        kernel.memory.write(kernel.registers["rsp"], kernel.symbols["call_return"].to_bytes(8, "little"))
        machine.run(100_000, until={target})
        assert view.rip == target
        return explain(kernel)

    yield reach


def test_a_field_of_a_cache_is_read_by_name_and_its_pointer_told_in_words(kernel: Kernel, at: Run) -> None:
    kernel.call("kmalloc", 64)
    slab = kernel.heap.cache("kmalloc-64").slabs[0]
    kernel.registers["rdi"] = kernel.heap.cache("kmalloc-64").address
    kernel.registers["rip"] = place_of(kernel, b"\x48\x8b\x47\x50")
    operand = next(item for item in explain(kernel).reads if item.kind == "memory")
    assert operand.text == "[rdi + kmem_cache.random_seq]" and operand.value == 0
    line = f"[rdi + kmem_cache.partial] = slab 0x{slab.address:x} of kmalloc-64, {slab.inuse} of 64 in use"
    kernel.registers["rip"] = place_of(kernel, b"\x48\x8b\x47\x58")
    text = " ".join(str(explain(kernel)).split())
    assert line in text


def place_of(kernel: Kernel, code: bytes) -> int:
    """An address at which these bytes are an instruction, put there."""
    at = kernel.symbols["debug_exit"]
    kernel.machine.memory.write(int(kernel.machine.paging.translate(at)), code)
    return at


def test_a_jump_is_told_with_its_reason(at: Run) -> None:
    told = at("kmalloc+0xa")
    assert told.text.startswith("ja ") and told.branch is not None
    assert (told.branch.taken, told.branch.why) == (False, "CF=1 ZF=0")
    assert "does not go to kmalloc+0x3e" in str(told)


def test_the_state_behind_an_instruction_completes_it(kernel: Kernel, at: Run) -> None:
    before = at("slab_alloc+0xd")
    assert before.text == "push rbp"
    push = before.writes[-1]
    assert push.after == kernel.registers["rbp"] and before.writes[0].after is None
    kernel.machine.step()
    done = before.completed(capture(kernel))
    assert done.writes[0].after == kernel.registers["rsp"] == before.writes[0].value - 8  # type: ignore[operator]
    assert kernel.memory.u64(kernel.registers["rsp"]) == done.writes[-1].after


def test_an_interrupt_right_behind_an_instruction_does_not_spoil_what_it_wrote(kernel: Kernel, at: Run) -> None:
    told = at("slab_alloc+0xd")
    rsp = kernel.registers["rsp"]
    kernel.registers["rflags"] = kernel.registers["rflags"] | 0x200
    kernel.machine.step()
    kernel.machine.inject_interrupt(0x20)
    kernel.machine.step()                                    # delivery, and the first instruction of the stub
    kernel.machine.cpu.view.rsp += 8                         # ... which is a push: taken back
    done = told.completed(kernel)
    assert done.writes[0].after == rsp - 8 and done.notes[-1] == "Then an interrupt is delivered."


def test_a_page_fault_is_told_with_walk_error_code_and_handler(kernel: Kernel) -> None:
    kernel.registers["rip"] = kernel.symbols["memset"]
    page = kernel.call("get_free_pages", 0)
    kernel.registers["rip"] = page                           # data is never executable
    told = explain(kernel)
    assert told.fault is not None and (told.fault.vector, told.fault.error_code) == (14, 0x11)
    assert told.fault.address == page and told.next == kernel.symbols["trap_stubs"] + 14 * 16
    assert "instruction fetch" in str(told) and "handled at trap_stubs+0xe0" in str(told)


def test_an_unmapped_or_senseless_place_is_explained_too(kernel: Kernel) -> None:
    for rip in (0, 0x1234, 1 << 60, DIRECT_MAP + (1 << 40), kernel.symbols["kmalloc"] + 1, (1 << 64) - 1):
        kernel.registers["rip"] = rip
        told = explain(kernel)
        assert str(told) and (told.fault is not None or told.next is not None)


def test_an_instruction_that_reaches_into_a_missing_page_faults_there(kernel: Kernel) -> None:
    end = kernel.symbols.images[0].sections[0].end
    frame = kernel.machine.paging.translate(end - PAGE_SIZE)
    kernel.machine.memory.write(int(frame) + PAGE_SIZE - 1, b"\xe8")
    kernel.call("unmap_page", end)
    kernel.registers["rip"] = end - 1
    told = explain(kernel)
    assert told.fault is not None and told.fault.address == end


def test_a_device_is_named_at_its_port(kernel: Kernel) -> None:
    kernel.registers["rdx"], kernel.registers["rax"] = 0x3F8, ord("A")
    kernel.registers["rip"] = place_of(kernel, b"\xee")      # out dx, al
    assert "port 0x3f8, the serial port <- 65 (0x41) 'A'" in str(explain(kernel))
