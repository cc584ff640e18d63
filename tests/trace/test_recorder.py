"""The recorder against a processor played by the test: every rule about entries and exits by itself."""

from __future__ import annotations

import pytest

from sandbox.abi import DIRECT_MAP, PAGE_SIZE, PageFlag, kmem_cache, page, percpu
from sandbox.guest.symbols import Symbols
from sandbox.toolchain.image import Image, Section
from sandbox.trace.builder import Names
from sandbox.trace.functions import TRACED
from sandbox.trace.ledger import Disagreement, held
from sandbox.trace.ram import Ram
from sandbox.trace.recorder import AT_ENTRY, AT_EXIT, Recorder
from sandbox.trace.trace import Trace

TEXT = 0xFFFF_FFFF_8000_0000
FUNCTIONS = {TEXT + 0x100 * (index + 1): function for index, function in enumerate(TRACED)}
ADDRESS = {function.name: address for address, function in FUNCTIONS.items()}
MAIN = TEXT + 0x20
PERCPU, VARIABLES, MEM_MAP, CACHE, SLAB, STACK = (frame * PAGE_SIZE for frame in (1, 2, 3, 4, 8, 16))
TOP = DIRECT_MAP + STACK + PAGE_SIZE


def symbols() -> Symbols:
    labels = {"main": TEXT, **ADDRESS}
    text = Section("text", TEXT, bytes(0x2000), "r-x")
    return Symbols(Image(TEXT, (text,), dict(sorted(labels.items(), key=lambda item: item[1])),
                         lines={TEXT: ("main.asm", 7)}, files={"main.asm": "\n" * 9}, text_end=TEXT + 0x2000))


class Played:
    """A processor whose calls and returns the test decides. RSP at an entry points at the return address."""

    def __init__(self) -> None:
        self.ram = bytearray(64 * PAGE_SIZE)
        self.clock = 100
        self.rsp = TOP - 0x100
        self.registers = dict.fromkeys(("rdi", "rsi", "rdx", "rax", "rsp", "rbp", "cr3"), 0)
        self.put(VARIABLES, DIRECT_MAP + MEM_MAP)
        self.put(VARIABLES + 8, 64)
        data = kmem_cache.pack(name="things", object_size=60, order=0)
        self.ram[CACHE : CACHE + len(data)] = data
        info = MEM_MAP + (SLAB // PAGE_SIZE) * page.size
        data = page.pack(flags=PageFlag.PG_SLAB | PageFlag.PG_HEAD, cache=DIRECT_MAP + CACHE, head=DIRECT_MAP + info)
        self.ram[info : info + len(data)] = data
        self.recorder = Recorder(FUNCTIONS, Ram(memoryview(self.ram), VARIABLES, VARIABLES + 8),
                                 lambda: self.read(AT_ENTRY), lambda: self.read(AT_EXIT), lambda: self.clock, PERCPU)
        self.trace = Trace(self.recorder, Names(symbols()), lambda: self.clock)

    def put(self, physical: int, value: int) -> None:
        self.ram[physical : physical + 8] = value.to_bytes(8, "little")

    def read(self, names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple((self.registers | {"rsp": self.rsp})[name] for name in names)

    def interrupt_depth(self, depth: int) -> None:
        at = PERCPU + percpu.interrupt_depth.offset
        self.ram[at : at + 4] = depth.to_bytes(4, "little")

    def enter(self, name: str, *arguments: int) -> None:
        """The first instruction of a function, at the present RSP."""
        self.clock += 5
        self.registers.update(zip(("rdi", "rsi", "rdx"), arguments, strict=False))
        self.recorder.enter(ADDRESS[name])

    def call(self, name: str, *arguments: int) -> None:
        self.rsp -= 0x40
        self.put(self.rsp - DIRECT_MAP, MAIN)
        self.enter(name, *arguments)

    def ret(self, rax: int = 0, *, to: int = 0x40) -> None:
        self.clock += 5
        self.registers["rax"] = rax
        self.recorder.leave(0)
        self.rsp += to


OBJECT = DIRECT_MAP + SLAB


def test_an_allocation_is_one_event_with_its_counts_sizes_cache_and_slab():
    cpu = Played()
    cpu.call("kmalloc", 50)
    cpu.ret(OBJECT + 64)
    (event,) = cpu.trace
    assert (event.sequence, event.entered, event.instruction, event.kind) == (0, 105, 111, "alloc")
    assert (event.address, event.bytes_req, event.bytes_alloc) == (OBJECT + 64, 50, 60)
    assert (event.cache, event.slab, event.failed, event.unfinished) == ("things", OBJECT, False, False)
    assert (event.call_site, event.line, event.stack) == ("main+0x20", "main.asm:7", ("main+0x20 (main.asm:7)",))


def test_a_tail_jump_ends_where_its_target_returns_and_lies_below_its_caller():
    cpu = Played()
    cpu.call("kmalloc", 8)
    cpu.enter("kmem_cache_alloc", DIRECT_MAP + CACHE)
    cpu.ret(OBJECT)
    (event,) = cpu.trace
    (child,) = event.children
    assert (event.function, child.function, child.parent) == ("kmalloc", "kmem_cache_alloc", 0)
    assert event.instruction == child.instruction and event.address == child.address


def test_a_ret_of_an_inner_function_closes_nothing():
    cpu = Played()
    cpu.call("kmalloc", 8)
    cpu.rsp -= 0x80
    cpu.ret(1, to=0x80)
    assert cpu.trace[0].unfinished
    cpu.ret(OBJECT)
    assert not cpu.trace[0].unfinished and cpu.trace[0].address == OBJECT


def test_an_entry_at_the_same_address_and_rsp_is_a_restart_not_a_call():
    cpu = Played()
    cpu.call("kfree", OBJECT)
    cpu.enter("kfree", OBJECT)
    cpu.ret()
    assert len(cpu.trace.events()) == 1 and cpu.trace[0].entered == 105


def test_a_call_after_a_rewind_is_no_restart():
    cpu = Played()
    cpu.call("kmalloc", 8)
    cpu.clock -= 5
    cpu.enter("kmalloc", 16)
    cpu.ret(OBJECT)
    first, second = cpu.trace
    assert (first.bytes_req, first.unfinished, second.bytes_req, second.unfinished) == (8, True, 16, False)


def test_an_interrupt_handlers_call_is_a_root_of_its_own():
    cpu = Played()
    cpu.call("kmalloc", 8)
    cpu.interrupt_depth(1)
    cpu.rsp -= 0x200
    cpu.call("kmalloc", 16)
    cpu.ret(OBJECT + 64)
    cpu.interrupt_depth(0)
    cpu.rsp += 0x200
    cpu.ret(OBJECT)
    outer, inner = cpu.trace
    assert (outer.bytes_req, inner.bytes_req, outer.children, inner.parent) == (8, 16, (), None)
    assert outer.entered < inner.entered < inner.instruction < outer.instruction


def test_a_handler_that_never_comes_back_leaves_unfinished_frames_and_no_wrong_parents():
    cpu = Played()
    cpu.call("kmalloc", 8)
    cpu.interrupt_depth(1)
    cpu.rsp -= 0x200
    cpu.call("kmalloc", 16)
    cpu.interrupt_depth(0)
    cpu.rsp += 0x400
    cpu.call("kfree", OBJECT)
    cpu.ret()
    assert [(event.function, event.unfinished, event.parent) for event in cpu.trace.walk()] == [
        ("kmalloc", True, None), ("kmalloc", True, None), ("kfree", False, None)]


def test_frames_that_are_given_up_are_unfinished_with_the_count_at_that_moment():
    cpu = Played()
    cpu.call("krealloc", OBJECT, 100)
    cpu.call("kmalloc", 100)
    cpu.clock = 500
    cpu.recorder.give_up()
    outer, inner = cpu.trace.walk()
    assert outer.children == (inner,) and outer.unfinished and inner.unfinished
    assert outer.instruction == inner.instruction == 500 and not outer.failed


def test_a_realloc_that_moves_is_one_tree():
    cpu = Played()
    cpu.call("krealloc", OBJECT, 100)
    cpu.call("kmalloc", 100)
    cpu.ret(OBJECT + 64)
    cpu.call("kfree", OBJECT)
    cpu.ret()
    cpu.ret(OBJECT + 64)
    (event,) = cpu.trace
    assert (event.kind, event.address, [child.kind for child in event.children]) == (
        "realloc", OBJECT + 64, ["alloc", "free"])
    assert [item.sequence for item in cpu.trace.walk()] == [0, 1, 2]
    assert held(cpu.trace.walk(), {OBJECT: 60}) == {OBJECT + 64: 60}


def test_what_is_freed_is_described_before_it_is_gone():
    cpu = Played()
    cpu.call("kfree", OBJECT + 128)
    cpu.ram[MEM_MAP : MEM_MAP + PAGE_SIZE] = bytes(PAGE_SIZE)
    cpu.ret()
    assert (cpu.trace[0].cache, cpu.trace[0].bytes_alloc, cpu.trace[0].slab) == ("things", 60, OBJECT)


def test_a_bulk_call_is_one_event_for_each_object_and_its_children_lie_below_the_first():
    cpu = Played()
    array = DIRECT_MAP + 20 * PAGE_SIZE
    cpu.call("kmem_cache_alloc_bulk", DIRECT_MAP + CACHE, 3, array)
    cpu.call("slab_create", DIRECT_MAP + CACHE)
    cpu.ret(DIRECT_MAP + MEM_MAP + 8 * page.size)
    for index in range(3):
        cpu.put(20 * PAGE_SIZE + 8 * index, OBJECT + 64 * index)
    cpu.ret(3)
    cpu.call("kmem_cache_free_bulk", DIRECT_MAP + CACHE, 2, array)
    cpu.ret()
    every = cpu.trace.events()
    assert [event.sequence for event in every] == list(range(6))
    assert [event.kind for event in every] == ["alloc"] * 3 + ["slab_create"] + ["free"] * 2
    assert [event.address - OBJECT for event in every if event.kind != "slab_create"] == [0, 64, 128, 0, 64]
    assert [len(event.children) for event in cpu.trace] == [1, 0, 0, 0, 0]
    assert every[3].parent == 0 and every[3].address == OBJECT and every[3].bytes_alloc == PAGE_SIZE
    assert held(every) == {OBJECT + 128: 60}


def test_a_bulk_call_with_an_absurd_count_is_one_event():
    cpu = Played()
    cpu.call("kmem_cache_free_bulk", DIRECT_MAP + CACHE, 1 << 62, DIRECT_MAP)
    cpu.ret()
    assert len(cpu.trace.events()) == 1


@pytest.mark.parametrize(("name", "result", "failed"), [
    ("kmalloc", 0, True), ("kmalloc", 0x10, False), ("get_free_pages", 0, True), ("kmem_cache_create", 0, True),
    ("kmem_cache_destroy", (1 << 64) - 16, True), ("kmem_cache_destroy", 0, False), ("kfree", 0, False),
    ("kmem_cache_free", (1 << 64) - 22, False), ("slab_create", 0, True), ("kmem_cache_alloc_bulk", 0, True)])
def test_failure_is_what_the_function_says(name, result, failed):
    cpu = Played()
    cpu.call(name, 3, 3, DIRECT_MAP)
    cpu.ret(result)
    assert cpu.trace[0].failed is failed


def test_wild_pointers_and_a_wild_stack_are_recorded_without_an_error():
    for wild in (0, 1, 0x10, 1 << 47, DIRECT_MAP - 8, DIRECT_MAP + (1 << 40), (1 << 64) - 1):
        cpu = Played()
        for name in ADDRESS:
            cpu.rsp, cpu.registers["rbp"], cpu.registers["cr3"] = wild, wild, wild
            cpu.enter(name, wild, wild, wild)
            cpu.ret(wild)
        assert {event.function for event in cpu.trace.walk()} == set(ADDRESS)


def test_on_settled_is_called_when_the_outermost_call_returned():
    cpu = Played()
    seen = []
    cpu.recorder.settled = lambda: seen.append([event.function for event in cpu.trace.settle()])
    cpu.call("kmalloc", 8)
    cpu.enter("kmem_cache_alloc", DIRECT_MAP + CACHE)
    assert seen == []
    cpu.ret(OBJECT)
    assert seen == [["kmalloc", "kmem_cache_alloc"]]


def test_a_deep_stack_is_followed_to_its_end_and_a_cyclic_one_is_not():
    cpu = Played()
    rbp = TOP - 0x80
    cpu.registers["rbp"] = rbp
    cpu.put(rbp - DIRECT_MAP, rbp + 0x20)
    cpu.put(rbp - DIRECT_MAP + 8, MAIN + 1)
    cpu.put(rbp - DIRECT_MAP + 0x20, rbp)
    cpu.put(rbp - DIRECT_MAP + 0x28, MAIN + 2)
    cpu.call("kmalloc", 8)
    cpu.ret(OBJECT)
    assert [frame.split(" ")[0] for frame in cpu.trace[0].stack] == ["main+0x20", "main+0x21", "main+0x22"]


# -- the account ------------------------------------------------------------------------------------------------
def test_the_account_notices_a_double_free_and_memory_handed_out_twice():
    cpu = Played()
    for name, argument, result in (("kmalloc", 8, OBJECT), ("kfree", OBJECT, 0), ("kfree", OBJECT, 0)):
        cpu.call(name, argument)
        cpu.ret(result)
    with pytest.raises(Disagreement, match=r"event 2.*nobody held it"):
        held(cpu.trace.walk())
    assert held(cpu.trace.walk(), strict=False) == {}
    cpu = Played()
    for _ in range(2):
        cpu.call("kmalloc", 8)
        cpu.ret(OBJECT)
    with pytest.raises(Disagreement, match=r"event 1.*somebody holds it"):
        held(cpu.trace.walk())
