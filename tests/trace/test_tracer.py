"""The trace of a running kernel: what was asked, what happened below, and that the guest noticed nothing."""

from __future__ import annotations

import gc
import random

import pytest

import sandbox
from sandbox.abi import PAGE_SIZE
from sandbox.errors import GuestLimit, GuestPanic, UsageError
from sandbox.trace.ledger import held

PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    call helper
    xor eax, eax
    pop rbp
    ret
helper:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    mov edi, 100
    call kmalloc
    mov rdi, rax
    call kfree
    pop rbx
    pop rbx
    pop rbp
    ret
"""


def test_the_example_of_the_design_holds(kernel):
    pointer = kernel.call("kmalloc", 64)
    with kernel.trace() as trace:
        kernel.call("kfree", pointer)
    assert [event.kind for event in trace] == ["free"]
    (event,) = trace
    assert (event.function, event.address, event.bytes_alloc, event.cache) == ("kfree", pointer, 64, "kmalloc-64")
    assert event.call_site == "Python" and event.stack == ("Python",)


def test_the_first_allocation_reaches_slabs_and_pages_in_one_tree(kernel):
    with kernel.trace() as trace:
        pointer = kernel.call("kmalloc", 100)
    (root,) = trace
    slab = next(event for event in root.children if event.kind == "slab_create" and event.cache == "kmalloc-128")
    (pages,) = slab.children
    assert root.address == pointer and root.slab == slab.address == pages.address
    assert (pages.kind, pages.bytes_alloc, pages.parent) == ("page_alloc", PAGE_SIZE, slab.sequence)
    assert [event.sequence for event in trace.walk()] == list(range(len(trace.events())))
    for event in trace.walk():
        for child in event.children:
            assert event.entered < child.entered and child.instruction <= event.instruction


def test_counts_are_the_clock_at_the_call_and_at_the_return(kernel):
    kernel.call("kfree", kernel.call("kmalloc", 64))
    before = kernel.instructions
    with kernel.trace() as trace:
        kernel.call("kmalloc", 64)
    (event,) = trace
    assert (event.entered, event.instruction) == (before, kernel.instructions)
    assert event.instructions == kernel.instructions - before


def test_events_carry_the_call_site_line_and_stack_of_the_program():
    with sandbox.boot(PROGRAM) as kernel, kernel.trace() as trace:
        assert kernel.run().kind == "success"
        alloc, free = (event for event in trace if event.call_site.startswith("helper"))
    assert alloc.line == f"program.asm:{PROGRAM.splitlines().index('    call kmalloc') + 1}"
    assert [frame.split("+")[0] for frame in alloc.stack][:2] == ["helper", "main"]
    assert (alloc.kind, free.kind, alloc.address) == ("alloc", "free", free.address)


def test_a_krealloc_that_moves_is_one_tree_and_one_that_fits_has_no_children(kernel):
    pointer = kernel.call("kmalloc", 100)
    with kernel.trace() as trace:
        same = kernel.call("krealloc", pointer, 120, 0)
        moved = kernel.call("krealloc", pointer, 1000, 0)
        kernel.call("krealloc", moved, 0, 0)
    stay, move, gone = trace
    assert (stay.kind, stay.address, stay.bytes_req, stay.children) == ("realloc", same, 120, ())
    assert [child.kind for child in move.children] == ["alloc", "free"] and move.address == moved
    assert [child.address for child in gone.children] == [moved] and not gone.failed


def test_large_allocations_are_whole_pages_without_a_cache(kernel):
    with kernel.trace() as trace:
        pointer = kernel.call("kmalloc", 20_000)
        kernel.call("kfree", pointer)
    alloc, free = trace
    assert (alloc.bytes_req, alloc.bytes_alloc, alloc.cache, alloc.slab) == (20_000, 32768, None, None)
    assert (free.bytes_req, free.bytes_alloc, free.cache) == (20_000, 32768, None)
    assert [child.kind for child in (*alloc.children, *free.children)] == ["page_alloc", "page_free"]


def test_bulk_calls_are_one_event_for_each_object(kernel):
    cache = kernel.call("kmem_cache_create", "things", 48, 0, 0, 0)
    array = bytearray(8 * 100)
    with kernel.trace() as trace:
        kernel.call("kmem_cache_alloc_bulk", cache, 100, array)
        kernel.call("kmem_cache_free_bulk", cache, 100, bytes(array))
    given = [event.address for event in trace if event.kind == "alloc"]
    assert given == [int.from_bytes(array[at : at + 8], "little") for at in range(0, 800, 8)]
    assert [event.address for event in trace if event.kind == "free"] == given
    assert {event.cache for event in trace} == {"things"}


def test_caches_are_traced_from_their_creation_to_their_end(kernel):
    with kernel.trace() as trace:
        cache = kernel.call("kmem_cache_create", "short", 40, 0, 0, 0)
        pointer = kernel.call("kmem_cache_alloc", cache)
        assert kernel.call("kmem_cache_destroy", cache) & 0xFFFF_FFFF != 0
        kernel.call("kmem_cache_free", cache, pointer)
        kernel.call("kmem_cache_destroy", cache)
    assert [(event.kind, event.cache, event.failed) for event in trace if event.kind.startswith("cache")] == [
        ("cache_create", "short", False), ("cache_destroy", "short", True), ("cache_destroy", "short", False)]
    assert trace.find(kind="cache_create").address == cache
    destroyed = [event for event in trace.walk() if event.kind == "slab_destroy" and event.cache == "short"]
    assert [event.address for event in destroyed] == [trace.find(kind="slab_create", cache="short").address]


def test_allocations_that_fail_are_marked(kernel):
    with kernel.trace() as trace:
        kernel.call("kmalloc", 1 << 40)
        kernel.call("get_free_pages", 11)
        kernel.call("kmem_cache_create", "no", 0, 0, 0, 0)
    assert [(event.failed, event.address, event.bytes_alloc) for event in trace] == [(True, 0, 0)] * 3


def test_zero_sizes_and_null_pointers_are_events_that_hold_nothing(kernel):
    with kernel.trace() as trace:
        kernel.call("kfree", kernel.call("kmalloc", 0))
        kernel.call("kfree", 0)
    assert [(event.failed, event.bytes_alloc, event.cache) for event in trace] == [(False, 0, None)] * 3
    assert held(trace.walk()) == {}


# -- the two readings -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_the_traces_account_equals_the_views_after_every_operation(kernel, seed):
    chance = random.Random(seed)
    before = kernel.heap.allocated()
    cache = 0
    live, objects = [], []
    with kernel.trace() as trace:
        cache = kernel.call("kmem_cache_create", "mix", 72, 0, 0, 0)
        for step in range(150):
            choice = chance.random()
            if choice < 0.35:
                live.append(kernel.call("kmalloc", chance.choice((8, 100, 700, 5000, 9000, 40000))))
            elif choice < 0.55 and live:
                kernel.call("kfree", live.pop(chance.randrange(len(live))))
            elif choice < 0.7 and live:
                at = chance.randrange(len(live))
                live[at] = kernel.call("krealloc", live[at], chance.choice((16, 900, 20000)), 0)
            elif choice < 0.85:
                array = bytearray(8 * chance.randrange(1, 40))
                kernel.call("kmem_cache_alloc_bulk", cache, len(array) // 8, array)
                objects += [int.from_bytes(array[at : at + 8], "little") for at in range(0, len(array), 8)]
            elif objects:
                some, objects = objects[:30], objects[30:]
                kernel.call("kmem_cache_free_bulk", cache, len(some), b"".join(x.to_bytes(8, "little") for x in some))
            if step % 10 == 0:
                assert held(trace.walk(), before) == kernel.heap.allocated()
    assert held(trace.walk(), before) == kernel.heap.allocated()


# -- the guest notices nothing ----------------------------------------------------------------------------------
def test_a_traced_run_has_the_same_bytes_registers_and_clock():
    results = []
    for traced in (False, True):
        with sandbox.boot(PROGRAM) as kernel:
            trace = kernel.trace() if traced else None
            kernel.run()
            results.append((kernel.instructions, kernel.machine.memory.image(), str(kernel.registers)))
            if trace is not None:
                trace.stop()
    assert results[0] == results[1]


def test_two_runs_and_a_run_in_slices_give_identical_traces():
    traces = []
    for limit in (None, None, 7):
        with sandbox.boot(PROGRAM) as kernel, kernel.trace() as trace:
            while kernel.run(limit).kind == "limit":
                pass
            traces.append(trace.events())
    assert traces[0] == traces[1] == traces[2] and traces[0]


def test_tracing_can_be_switched_off_and_on_and_keeps_its_events(kernel):
    trace = kernel.trace()
    kernel.call("kmalloc", 8)
    trace.stop()
    kernel.call("kmalloc", 16)
    trace.start()
    kernel.call("kmalloc", 32)
    trace.stop()
    assert [event.bytes_req for event in trace] == [8, 32] and not trace.recording


def test_two_traces_at_once_see_the_same(kernel):
    with kernel.trace() as first, kernel.trace() as second:
        kernel.call("kmalloc", 500)
    assert first.events() == second.events() != []


# -- errors -----------------------------------------------------------------------------------------------------
def test_a_panic_keeps_the_trace_and_leaves_its_frames_unfinished(kernel):
    with kernel.trace() as trace:
        kernel.call("kmalloc", 64)
        with pytest.raises(GuestPanic):
            kernel.call("kfree", 0x1234)
        assert trace[-1].unfinished
    kernel.rewind()
    last = trace[-1]
    assert (last.kind, last.address, last.unfinished, last.failed) == ("free", 0x1234, True, False)
    assert len(trace) == 2 and not trace[0].unfinished


def test_calls_after_a_rewind_are_events_of_their_own(kernel):
    with kernel.trace() as trace:
        with pytest.raises(GuestLimit):
            kernel.call("kmalloc", 64, limit=20)
        kernel.rewind()
        kernel.call("kmalloc", 64)
    assert [event.unfinished for event in trace] == [True, False]


def test_an_event_can_be_read_while_its_call_is_open():
    with sandbox.boot(PROGRAM) as kernel, kernel.trace() as trace:
        for _ in range(100_000):
            if kernel.run(1).kind != "limit" or len(trace):
                break
        (event,) = trace
        assert event.unfinished and event.function == "kmalloc" and event.instruction == kernel.instructions
        kernel.run()
        assert not trace[0].unfinished


# -- following along --------------------------------------------------------------------------------------------
def test_on_event_gets_every_event_callers_first_while_the_guest_runs(kernel):
    seen = []
    with kernel.trace(on_event=seen.append) as trace:
        kernel.call("kmalloc", 100)
        assert [event.function for event in seen][:2] == ["kmalloc", "kmem_cache_alloc"]
        kernel.call("kfree", seen[0].address)
    assert seen == trace.events()


def test_an_exception_in_on_event_stops_the_run_and_is_not_lost(kernel):
    def refuse(event):
        raise LookupError("enough")

    with kernel.trace(on_event=refuse), pytest.raises(LookupError, match="enough"):
        kernel.call("kmalloc", 100)


def test_events_are_filtered_by_any_attribute(kernel):
    with kernel.trace() as trace:
        small, large = kernel.call("kmalloc", 8), kernel.call("kmalloc", 2000)
        kernel.call("kfree", small)
    assert [event.address for event in trace.events(function="kmalloc")] == [small, large]
    assert [event.kind for event in trace.at(small) if event.parent is None] == ["alloc", "free"]
    assert trace.find(bytes_req=lambda size: size > 1000, kind="alloc").address == large
    with pytest.raises(UsageError, match="events have no 'colour'"):
        trace.events(colour="red")
    with pytest.raises(UsageError, match="no event is of kind 'malloc'"):
        trace.events(kind="malloc")


def test_records_are_tuples_of_numbers_that_the_garbage_collector_forgets(kernel):
    with kernel.trace() as trace:
        for size in (8, 64, 3000, 20_000):
            kernel.call("kfree", kernel.call("kmalloc", size))
    for _ in range(3):                              # inner tuples first
        gc.collect()
    records = [*trace._recorder.entries, *trace._recorder.exits]
    assert len(records) == 2 * len(trace.events()) and not any(map(gc.is_tracked, records))


def test_a_trace_keeps_its_first_events_and_tells_all_of_them(kernel):
    told = []
    with kernel.tracer.trace(told.append, keep=10) as trace:
        for _ in range(30):
            kernel.call("kfree", kernel.call("kmalloc", 64))
    assert len(trace.events()) >= 10 and trace.dropped == len(told) - len(trace.events()) > 0
    assert [event.sequence for event in told] == list(range(len(told)))
    assert told[: len(trace.events())] == trace.events()
    with pytest.raises(UsageError, match="no event has the number"):
        trace.by_sequence(len(told))


def test_records_do_not_pile_up_while_nobody_reads_them(kernel, monkeypatch):
    monkeypatch.setattr("sandbox.trace.tracer.RECORDS", 20)
    with kernel.trace() as trace:
        for _ in range(200):
            kernel.call("kfree", kernel.call("kmalloc", 64))
            assert len(trace._recorder.entries) <= 40
    assert len(trace) == 400 and [event.sequence for event in trace.walk()] == list(range(len(trace.events())))
