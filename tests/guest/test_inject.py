"""Faults on purpose: they strike where they were asked to, alike in every replay; and no failure path of the allocator
loses anything."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy

import pytest

import sandbox
from sandbox import Kernel
from sandbox.abi import DIRECT_MAP, percpu
from sandbox.errors import GuestPanic, UsageError
from sandbox.guest.faults import Failure, Flip, Pulse, dice, parse
from sandbox.guest.journal import Journal
from sandbox.guest.outcome import RunKind
from tests.workloads import Held, Operation, generate, perform, release, run

OPTIONS: dict[str, dict[str, object]] = {
    "plain": {}, "no magazines": {"magazines": False}, "FZPU": {"slab_debug": "FZPU"},
    "random": {"freelist_random": 5, "freelist_hardened": True},
}


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with sandbox.boot(ram="8M", hz=0) as kernel:
        yield kernel


# -- how they are written ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("text", "fault"), [
    ("pages:3", Failure(nth=3)),
    ("pages:10%", Failure(percent=10)),
    ("pages:0.5%,seed=7", Failure(percent=0.5, seed=7)),
    ("cache=kmalloc-64:1", Failure("kmalloc-64", 1)),
    ("cache=kmalloc-*:100%,seed=2", Failure("kmalloc-*", percent=100, seed=2)),
    ("flip=0xffff888000003010.7@123", Flip(0xFFFF888000003010, 7, 123)),
    ("flip=phys:0x3010.0@9", Flip(0x3010, 0, 9, True)),
    ("irq=4@1000", Pulse(4, 1000)),
])
def test_a_fault_is_read_as_it_is_written(text: str, fault: object) -> None:
    assert parse(text) == fault and str(fault) == text


def test_a_symbol_may_stand_for_an_address() -> None:
    assert parse("flip=zone_lock.1@5", {"zone_lock": 0x1000}) == Flip(0x1000, 1, 5)


@pytest.mark.parametrize("text", [
    "", "pages", "pages:", "pages:0", "pages:-1", "pages:0%", "pages:101%", "pages:3,seed=1", "cache=:1", "cache=x",
    "flip=0x10@5", "flip=0x10.8@5", "flip=nowhere.1@5", "flip=phys:0x10.1", "irq=16@5", "irq=1", "page:1", "pages:1 ",
])
def test_what_is_no_fault_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_dice_depend_on_seed_and_number_alone_and_are_fair() -> None:
    thrown = [dice(seed, number) for seed in range(20) for number in range(200)]
    assert thrown == [dice(seed, number) for seed in range(20) for number in range(200)]
    assert all(0 <= one < 1 for one in thrown) and 0.48 < sum(thrown) / len(thrown) < 0.52
    assert len(set(thrown)) == len(thrown)


# -- where they strike -------------------------------------------------------------------------------------------
def test_the_nth_page_allocation_fails_and_no_other(kernel: Kernel) -> None:
    kernel.inject("pages:3")
    assert [kernel.call("get_free_pages", 0) != 0 for _ in range(5)] == [True, True, False, True, True]
    assert [(one.calls, one.struck) for one in kernel.injected] == [(5, 1)]


@pytest.mark.parametrize(("function", "arguments"), [
    ("kmalloc", (60,)), ("kzalloc", (60,)), ("krealloc", (0, 60, 0)),
    ("kmem_cache_alloc", ("cache",)), ("kmem_cache_zalloc", ("cache",)), ("kmem_cache_alloc_sized", ("cache", 60)),
    ("kmem_cache_alloc_bulk", ("cache", 2, bytearray(16))),
])
def test_every_way_to_allocate_from_a_cache_can_fail(kernel: Kernel, function: str,
                                                     arguments: tuple[object, ...]) -> None:
    kernel.call("kmalloc", 60)
    cache = kernel.heap.cache("kmalloc-64")
    given = [cache.address if argument == "cache" else argument for argument in arguments]
    inuse = cache.inuse
    kernel.inject("cache=kmalloc-64:1", "cache=kmalloc-128:1")
    assert kernel.call(function, *given) == 0 and cache.inuse == inuse
    assert kernel.call(function, *given) != 0 and cache.inuse > inuse
    assert [one.struck for one in kernel.injected] == [1, 0]
    assert kernel.heap.validate() == []


def test_a_call_that_is_made_to_fail_is_in_the_trace(kernel: Kernel) -> None:
    kernel.inject("pages:1")
    with kernel.trace() as trace:
        assert kernel.call("kmalloc", 50_000) == 0
    (event,) = trace
    assert (event.kind, event.failed, event.unfinished) == ("alloc", True, False)
    assert [(child.kind, child.failed, child.unfinished) for child in event.children] == [("page_alloc", True, False)]


def test_registers_that_system_v_keeps_are_kept(kernel: Kernel) -> None:
    """kernel.call raises when one is not, and the stack pointer comes back as well."""
    before = dict(kernel.registers)
    kernel.inject("pages:1", "cache=*:1")
    for function, argument in (("get_free_pages", 0), ("kmalloc", 8), ("kmalloc", 9000)):
        kernel.call(function, argument)
    assert dict(kernel.registers) == before


def test_probability_is_a_matter_of_the_seed(kernel: Kernel) -> None:
    snapshot = kernel.snapshot()

    def answers(spec: str) -> list[bool]:
        kernel.restore(snapshot)
        kernel.inject(spec)
        return [kernel.call("kmalloc", 64) != 0 for _ in range(200)]

    assert answers("cache=kmalloc-*:25%,seed=1") == answers("cache=kmalloc-*:25%,seed=1") != answers(
        "cache=kmalloc-*:25%,seed=2")
    assert 25 < answers("cache=kmalloc-*:25%,seed=1").count(False) < 75
    assert not any(answers("cache=kmalloc-*:100%"))


def test_a_bit_flips_at_its_instruction(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 4096)
    start = kernel.instructions
    kernel.inject(f"flip={pointer + 100:#x}.5@{start + 50}",
                  f"flip=phys:{pointer + 101 - DIRECT_MAP:#x}.0@{start + 50}")
    kernel.memory[pointer : pointer + 200] = bytes(200)
    kernel.call("strlen", "abc")
    assert kernel.instructions < start + 50 and kernel.memory[pointer + 100] == 0
    kernel.call("strlen", "a" * 100)
    assert kernel.memory[pointer + 100 : pointer + 102] == bytes((0x20, 1))
    assert [one.struck for one in kernel.injected] == [1, 1]


def test_a_bit_that_is_nowhere_does_not_flip(kernel: Kernel) -> None:
    kernel.inject(f"flip=0x10.1@{kernel.instructions + 1}")
    kernel.call("kmalloc", 8)
    assert [(one.calls, one.struck) for one in kernel.injected] == [(1, 0)]


def test_an_interrupt_comes_at_its_instruction() -> None:
    with sandbox.boot(ram="4M", hz=100) as kernel:
        cpu = percpu(kernel.memory, kernel.symbols["boot_cpu"])
        snapshot = kernel.snapshot()
        kernel.call("kmalloc", 8)
        without, plain = cpu.ticks, kernel.instructions
        kernel.restore(snapshot)
        kernel.inject(f"irq=0@{kernel.instructions + 5}")
        kernel.call("kmalloc", 8)
        assert cpu.ticks == without + 1 and kernel.instructions > plain and kernel.injected == ()


def test_what_is_past_is_refused(kernel: Kernel) -> None:
    for spec in ("flip=phys:0x3000.1@5", "irq=0@5"):
        with pytest.raises(UsageError, match="past"):
            kernel.inject(spec)
    assert kernel.injected == ()


def test_faults_that_are_called_off_do_not_strike(kernel: Kernel) -> None:
    kernel.inject("pages:1", "cache=*:1")
    kernel.stop_injecting()
    assert kernel.call("get_free_pages", 0) and kernel.call("kmalloc", 8) and kernel.injected == ()


# -- the same again ----------------------------------------------------------------------------------------------
def test_a_rewind_repeats_the_faults_that_came_before_it(kernel: Kernel) -> None:
    kernel.inject("pages:4", "cache=kmalloc-64:50%,seed=3")
    first = [kernel.call("kmalloc", 64) != 0 for _ in range(20)]
    kernel.call("get_free_pages", 0)
    armed, image = kernel.injected, kernel.machine.memory.image()
    with pytest.raises(GuestPanic):
        kernel.call("kfree", 0x1234567)
    kernel.rewind()
    assert kernel.injected == armed and False in first and True in first
    assert kernel.machine.memory.image() == image
    assert Journal.from_data(json.loads(json.dumps(kernel.journal.to_data()))).entries() == kernel.journal.entries()


def test_snapshots_know_what_waits(kernel: Kernel) -> None:
    before = kernel.snapshot()
    kernel.inject("pages:2")
    waiting = kernel.snapshot()
    kernel.call("get_free_pages", 0)
    kernel.restore(waiting)
    assert [kernel.call("get_free_pages", 0) != 0 for _ in range(3)] == [True, False, True]
    kernel.restore(before)
    assert kernel.injected == () and all(kernel.call("get_free_pages", 0) for _ in range(4))


PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    mov ebx, 60
    xor r12d, r12d
.Lmain_next:
    mov edi, ebx
    shl edi, 5
    call kmalloc
    test rax, rax
    jnz .Lmain_got
    inc r12
.Lmain_got:
    dec ebx
    jnz .Lmain_next
    mov [rip + failures], r12
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret
.bss
failures:
    .zero 8
"""


def test_a_run_has_the_same_faults_however_it_is_cut_into_slices() -> None:
    def end(limits: Iterator[int | None]) -> tuple[bytes, int, object]:
        with sandbox.boot(PROGRAM, ram="4M") as kernel:
            flip = f"flip=phys:0x500.3@{kernel.instructions + 999}"
            kernel.inject("pages:15%,seed=2", "cache=kmalloc-*:20%,seed=9", flip)
            while kernel.run(limit=next(limits)).kind is RunKind.LIMIT:
                pass
            assert kernel.memory.u64(kernel.symbols["failures"]) > 10
            return kernel.machine.memory.image(), kernel.instructions, kernel.injected

    chance = random.Random(3)
    whole = end(iter([None]))
    assert end(iter(lambda: chance.choice((1, 2, 3, 7, 50, 400)), 0)) == whole


# -- every failure path of the allocator -------------------------------------------------------------------------
def walk(kernel: Kernel, operation: Operation, held: Held, spec: str) -> int:
    """Carry an operation out with its first, second ... allocation failing, until none is left to fail: each time
    from the same state. The kernel and ``held`` end as after the operation without a fault; returns how many failed."""
    snapshot, before = kernel.snapshot(), deepcopy(held)
    number = 0
    while True:
        number += 1
        kernel.restore(snapshot)
        kernel.inject(spec.format(number))
        after = deepcopy(before)
        perform(kernel, operation, after)
        struck = sum(one.struck for one in kernel.injected)
        what = f"{operation}, {spec.format(number)}"
        assert kernel.heap.validate(live=after.addresses) == [], what
        if struck:
            assert kernel.heap.leaks([*after.addresses, *after.caches.values()]) == [], what
        else:
            held.objects, held.caches = after.objects, after.caches
            kernel.stop_injecting()
            return number - 1
        assert number < 100


@pytest.mark.parametrize("spec", ["pages:{}", "cache=*:{}"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_failure_of_any_operation_loses_anything(options: dict[str, object], spec: str) -> None:
    with sandbox.boot(ram="4M", hz=0, **options) as kernel:  # type: ignore[arg-type]
        sound, struck = accounts(kernel), 0
        held = Held()
        for operation in generate(11, 60):
            if operation.kind != "memset":
                struck += walk(kernel, operation, held, spec)
        assert struck >= 10
        release(kernel, held)
        shrink(kernel)
        assert accounts(kernel) == sound


def accounts(kernel: Kernel) -> tuple[dict[str, int], object]:
    """What each cache's callers hold, the allocator's own two left out; and the use of every frame but slabs."""
    shrink(kernel)
    counts = kernel.heap.pages.counts()
    inuse = {cache.name: cache.inuse for cache in kernel.heap.caches}
    return inuse, (counts.total, counts.large, counts.table, counts.allocated, counts.lost, counts.free + counts.slab)


def shrink(kernel: Kernel) -> None:
    for cache in kernel.heap.caches:
        kernel.call("kmem_cache_shrink", cache.address)


@pytest.mark.parametrize("spec", ["cache=magazine:100%", "cache=magazine:50%,seed=3"])
def test_a_free_needs_no_memory(kernel: Kernel, spec: str) -> None:
    """Frees that want a magazine and get none: more objects than all magazines and the depot hold."""
    pointers = [kernel.call("kmalloc", 8) for _ in range(400)]
    kernel.inject(spec)
    for number, pointer in enumerate(pointers):
        kernel.call("kfree", pointer)
        if number % 29 < 2:
            assert kernel.heap.validate(live=pointers[number + 1 :]) == []
    assert any(one.calls for one in kernel.injected)
    cache = kernel.heap.cache("kmalloc-8")
    assert cache.inuse == 0 and cache.cached + cache.free == cache.total


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_workload_with_failures_by_chance_stays_sound(options: dict[str, object], seed: int) -> None:
    with sandbox.boot(ram="4M", hz=0, **options) as kernel:  # type: ignore[arg-type]
        sound = accounts(kernel)
        kernel.inject(f"pages:30%,seed={seed}", f"cache=*:20%,seed={seed}")
        held = run(kernel, generate(seed, 60))
        assert sum(one.struck for one in kernel.injected) > 3
        kernel.stop_injecting()
        assert kernel.heap.validate(live=held.addresses) == []
        assert kernel.heap.leaks([*held.addresses, *held.caches.values()]) == []
        release(kernel, held)
        assert accounts(kernel) == sound and kernel.heap.validate() == []
