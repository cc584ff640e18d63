"""The timeline: every moment is what a straight run to it is, to the last bit; and the run stays what it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

import sandbox
from sandbox import Kernel, PositionError, SymbolNotFound, TranslationError, UsageError
from sandbox.abi import DIRECT_MAP, pt_regs
from sandbox.debugger.moments import Moments
from sandbox.debugger.search import Watch
from sandbox.debugger.timeline import Timeline
from sandbox.kernel import power_on
from sandbox.machine.machine import PERIOD, Machine
from sandbox.machine.ram_pages import RamPages

from .programs import busy

OPTIONS = {"ram": "4M", "hz": 1000}
PROGRAM = busy(16_000)


def state(kernel: Kernel) -> tuple[int, RamPages, bytes, str]:
    """All of RAM (page tables with their accessed and dirty bits are in it), all registers, the clock, the console."""
    machine = kernel.machine
    return machine.instructions, machine.memory.pages(), machine.cpu.save_values(), kernel.console


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record(PROGRAM, **OPTIONS)
    with recorded.kernel:
        assert recorded.result is not None and recorded.result.ok
        assert recorded.length > 3 * PERIOD
        yield recorded


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.soak)])
def test_goto_anywhere_is_a_straight_run_to_that_count(timeline: Timeline[Kernel], count: int) -> None:
    """Seeded positions, in seeded order, against a kernel that runs once through all of them; timer interrupts, page
    faults, and accessed bits that the guest clears and the processor sets again included."""
    seeded = random.Random(20261122)
    ready = timeline.kernel.travel.history.first.machine.instructions
    positions = sorted(seeded.sample(range(ready, timeline.length), count))
    expected = {}
    with sandbox.boot(PROGRAM, **OPTIONS) as straight:
        for position in positions:
            straight.machine.run(position - straight.instructions)
            expected[position] = state(straight)
    seeded.shuffle(positions)
    for position in positions:
        timeline.goto(position)
        assert state(timeline.kernel) == expected[position], f"at {position}"


def test_the_boot_can_be_gone_through_too(timeline: Timeline[Kernel]) -> None:
    kernel = timeline.kernel
    with Machine(len(kernel.machine.memory)) as machine:
        power_on(machine, kernel.image, kernel.program, kernel.options)
        for position in (0, 1, 2, 999, 30_000):
            machine.run(position - machine.instructions)
            timeline.goto(position)
            assert kernel.machine.memory.image() == machine.memory.image()
            assert kernel.machine.cpu.save_values() == machine.cpu.save_values()
    assert timeline.start == 0


def test_the_end_is_where_the_run_ended_and_nothing_was_lost(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.start)
    timeline.goto(timeline.length)
    with sandbox.boot(PROGRAM, **OPTIONS) as straight:
        straight.run()
        assert state(timeline.kernel) == state(straight)
    with pytest.raises(UsageError, match="the program has ended"):
        timeline.kernel.run()


@pytest.mark.parametrize("position", [-1, 10**12])
def test_a_position_outside_the_run_is_named_with_the_run(timeline: Timeline[Kernel], position: int) -> None:
    before = timeline.position
    sentence = rf"instruction {position:,} is outside the run, which goes from 0 to"
    with pytest.raises(PositionError, match=sentence) as error:
        timeline.goto(position)
    assert (error.value.start, error.value.end) == (0, timeline.length)
    assert timeline.position == before


def test_stepping_is_one_start_at_a_time_in_both_directions(timeline: Timeline[Kernel]) -> None:
    timeline.goto(200_000)
    there = [timeline.step().rip for _ in range(50)]
    assert timeline.position == 200_050
    back = [timeline.moment.rip, *(timeline.back().rip for _ in range(49))]
    assert back == there[::-1]
    assert timeline.step(7).instruction == 200_008
    timeline.goto(timeline.length)
    with pytest.raises(PositionError):
        timeline.step()
    timeline.goto(0)
    with pytest.raises(PositionError):
        timeline.back()


# -- looking for moments --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def starts(timeline: Timeline[Kernel]) -> list[tuple[int, int]]:
    """(count, rip) of every call of kmalloc and kfree: hooks of a straight run."""
    with sandbox.boot(PROGRAM, **OPTIONS) as straight:
        machine, found = straight.machine, []
        places = [int(straight.symbols[name]) for name in ("kmalloc", "kfree")]
        machine.cpu.hook_code(places, lambda rip: found.append((machine.instructions, rip)))
        straight.run()
    return found


def test_run_to_and_back_to_visit_every_call_and_no_other(timeline: Timeline[Kernel],
                                                           starts: list[tuple[int, int]]) -> None:
    kmalloc = [count for count, rip in starts if rip == timeline.kernel.symbols["kmalloc"]]
    timeline.goto(kmalloc[0] - 1)
    for count in kmalloc[:5]:
        moment = timeline.run_to("kmalloc")
        assert moment is not None and moment.instruction == count and moment.location.startswith("kmalloc ")
    timeline.goto(timeline.length)
    assert timeline.run_to("kmalloc") is None and timeline.position == timeline.length
    for count in kmalloc[:-6:-1]:
        moment = timeline.back_to(int(timeline.kernel.symbols["kmalloc"]))
        assert moment is not None and moment.instruction == count
    timeline.goto(kmalloc[0])
    assert timeline.back_to("kmalloc") is None and timeline.position == kmalloc[0]


def test_a_place_is_a_label_an_offset_or_a_line(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.length)
    entry = timeline.back_to("kfree")
    assert entry is not None
    file, line = entry.line.rsplit(":", 1)
    assert timeline.run_to("kfree+0x4") is not None
    assert timeline.back_to(f"{file.rsplit('/', 1)[-1]}:{line}") == entry
    with pytest.raises(SymbolNotFound, match="did you mean kfree"):
        timeline.run_to("kfre")
    with pytest.raises(UsageError, match=r"no source file is called 'kmaloc\.asm'"):
        timeline.run_to("kmaloc.asm:3")
    with pytest.raises(UsageError, match="has no code at line 999999"):
        timeline.run_to("kmalloc.asm:999999")
    with pytest.raises(UsageError, match="is no place in the code"):
        timeline.run_to("kfree++")


def test_events_are_places_too(timeline: Timeline[Kernel]) -> None:
    event = timeline.trace.events(kind="free")[100]
    assert timeline.at(event).instruction == event.entered == timeline.position
    assert timeline.moment.rip == timeline.kernel.symbols[event.function]
    assert timeline.run_to(event) is None and timeline.back_to(event) is None
    timeline.goto(0)
    assert timeline.back_to(event) is None
    moment = timeline.run_to(event)
    assert moment is not None and moment.instruction == event.entered


def test_a_predicate_is_asked_before_each_instruction(timeline: Timeline[Kernel]) -> None:
    def deep(kernel: Kernel) -> bool:
        return kernel.registers["rsp"] % 16 == 0

    timeline.goto(300_000)
    found = timeline.run_to(deep, limit=1000)
    assert found is not None and found.instruction > 300_000
    timeline.goto(found.instruction - 1)
    assert not deep(timeline.kernel) or found.instruction - 1 == 300_000
    timeline.goto(found.instruction)
    assert deep(timeline.kernel)
    again = timeline.back_to(deep, limit=1000)
    assert again is None or again.instruction < found.instruction
    assert timeline.run_to(lambda kernel: False, limit=100) is None


def test_the_trace_of_a_timeline_is_that_of_the_run(timeline: Timeline[Kernel]) -> None:
    with sandbox.boot(PROGRAM, **OPTIONS) as straight, straight.trace() as trace:
        straight.run()
    timeline.goto(250_000)
    assert timeline.trace.events() == trace.events()
    assert timeline.position == 250_000


def test_a_trace_made_by_a_replay_is_the_same(timeline: Timeline[Kernel]) -> None:
    with sandbox.boot(PROGRAM, **OPTIONS) as kernel:
        with kernel.trace() as live:
            kernel.run()
        late = sandbox.record(kernel)
        late.goto(late.length - 1)
        late.goto(100_000)                               # now there are snapshots all along
        assert len(late.snapshots) > 3
        late.goto(late.length)
        assert late.trace.events() == live.events() != []
        assert late.position == late.length == kernel.instructions


# -- stores and loads -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def stores() -> tuple[Timeline[Kernel], dict[int, tuple[int, int]]]:
    """A short run; for each physical byte that a store touched the last store: (count, RIP)."""
    short = sandbox.record(busy(700), **OPTIONS)
    last: dict[int, tuple[int, int]] = {}
    with sandbox.boot(busy(700), **OPTIONS) as straight:
        machine = straight.machine
        rip = machine.cpu.register_reader(("rip",))

        def stored(kind: str, address: int, size: int, value: int) -> None:
            found = machine.instructions - 1, rip()[0]
            for byte in range(address, address + size):
                last[byte] = found

        machine.cpu.hook_memory(0, len(machine.memory), stored, write=True)
        straight.run()
    return short, last


def test_who_wrote_is_what_a_log_of_every_store_says(
    stores: tuple[Timeline[Kernel], dict[int, tuple[int, int]]],
) -> None:
    """Half of the addresses among those that were stored to since the boot, half anywhere."""
    timeline, last = stores
    seeded = random.Random(7)
    some = [*seeded.sample(sorted(last), 60), *(seeded.randrange(0x100000, 4 << 20) for _ in range(10))]
    with sandbox.boot(busy(700), **OPTIONS) as fresh:
        ready = fresh.instructions
    timeline.goto(timeline.length)
    for physical in some:
        found = timeline.who_wrote(DIRECT_MAP + physical)
        if physical in last:
            assert found is not None
            if found.by == "instruction":
                assert (found.instruction, found.rip) == last[physical]
                assert found.physical <= physical < found.physical + found.size
            else:
                assert found.instruction >= last[physical][0]
        else:
            assert found is None or found.instruction < ready or found.by != "instruction"


def test_with_every_access_kept_a_thousand_addresses_agree_and_with_replays_too(
    stores: tuple[Timeline[Kernel], dict[int, tuple[int, int]]],
) -> None:
    timeline, last = stores
    kept = sandbox.record(busy(700), accesses=True, **OPTIONS)
    seeded = random.Random(8)
    with kept.kernel:
        assert kept.accesses.end == kept.length == timeline.length
        for physical in (*seeded.sample(sorted(last), 700), *(seeded.randrange(0x100000, 4 << 20) for _ in range(300))):
            found = kept.who_wrote(DIRECT_MAP + physical)
            if physical in last and (found is None or found.by == "instruction"):
                assert found is not None and (found.instruction, found.rip) == last[physical]
            elif physical in last:
                assert found is not None and found.instruction >= last[physical][0]
            else:
                assert found is None or found.by != "instruction" or found.instruction < min(last.values())[0]
        for physical in seeded.sample(sorted(last), 10):
            for question in ("who_wrote", "who_read"):
                one = getattr(kept, question)(DIRECT_MAP + physical, 8, before=kept.length - 5000)
                other = getattr(timeline, question)(DIRECT_MAP + physical, 8, before=kept.length - 5000)
                assert (one is None) == (other is None)
                assert one is None or (one.instruction, one.rip, one.by) == (other.instruction, other.rip, other.by)


def test_the_log_grows_with_the_run_and_has_what_python_writes_at_its_end() -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel, accesses=True)
        pointer = kernel.call("kmalloc", 64)
        first = timeline.who_wrote(pointer, 64)
        assert first is not None and first.by == "instruction"
        for _ in range(2):                               # the clock stands still between the two
            kernel.memory.write(pointer, b"from outside")
            written = timeline.who_wrote(pointer, 8)
            assert written is not None and (written.by, written.instruction) == ("python", kernel.instructions)
            kernel.call("kmalloc", 8)
        kernel.call("kfree", pointer)
        freed = timeline.who_wrote(pointer, 64)
        assert freed is not None and freed.by == "python", "magazines leave the bytes of a freed object alone"


def test_the_store_that_is_found_is_about_to_happen_there(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.length - 50_000)
    held = timeline.kernel.symbols["held"]
    store = timeline.who_wrote(held + 8 * 5, 8)
    assert store is not None and store.by == "instruction" and "main" in store.location and store.size == 8
    value = timeline.kernel.memory.u64(held + 8 * 5)
    assert store.value == value and store.address == held + 8 * 5
    timeline.goto(store.instruction)
    assert timeline.kernel.registers["rip"] == store.rip
    assert timeline.kernel.registers["rax"] == value
    timeline.step()
    assert timeline.kernel.memory.u64(held + 8 * 5) == value
    load = timeline.who_read(held + 8 * 5, 8)
    assert load is not None and load.kind == "read" and load.instruction < store.instruction
    earlier = timeline.who_wrote(held + 8 * 5, 8, before=store.instruction)
    assert earlier is not None and earlier.instruction < store.instruction
    assert timeline.position == store.instruction + 1


def test_an_interrupts_frame_was_written_by_the_processor(timeline: Timeline[Kernel]) -> None:
    timeline.goto(timeline.length // 2)
    assert timeline.run_to("timer_interrupt") is not None
    regs = timeline.kernel.registers["rdi"]
    written = timeline.who_wrote(regs + pt_regs.rip.offset, 8)
    assert written is not None and written.by == "processor"
    assert written.size == 40
    assert written.value & ((1 << 64) - 1) == timeline.kernel.memory.u64(regs + pt_regs.rip.offset)
    assert "the processor writes" in str(written)


def test_an_address_that_is_not_mapped_is_named(timeline: Timeline[Kernel]) -> None:
    with pytest.raises(TranslationError, match="0x00000000dead0000"):
        timeline.who_wrote(0xDEAD0000)
    with pytest.raises(UsageError, match="a size is a positive number of bytes, not 0"):
        timeline.who_wrote(DIRECT_MAP, 0)


def test_a_search_finds_the_nearest_of_addresses_and_watches_and_stays(timeline: Timeline[Kernel]) -> None:
    timeline.goto(400_000)
    held, symbols = int(timeline.kernel.symbols["held"]), timeline.kernel.symbols
    watch = Watch(held, 8 * 32, write=True)
    ahead = timeline.search(True, [int(symbols["kmalloc"])], [watch])
    assert ahead is not None and timeline.position == 400_000
    access = timeline.search(True, (), [watch])
    assert access is not None and access.watch == watch and access.access is not None
    assert access.access.kind == "write" and access.access.instruction == access.instruction
    timeline.goto(access.instruction)
    assert timeline.search(True, (), [watch], limit=0) is None
    here = timeline.search(True, (), [watch], here=True)
    assert here is not None and here.instruction == access.instruction
    beyond = timeline.search(True, (), [watch])
    assert beyond is not None and beyond.instruction > access.instruction
    timeline.goto(beyond.instruction)
    assert timeline.search(False, (), [watch]) == access
    assert timeline.search(False, (), [watch], limit=1) is None


# -- diversions -----------------------------------------------------------------------------------------------------
def test_what_is_done_to_the_past_is_left_behind(timeline: Timeline[Kernel]) -> None:
    timeline.goto(300_000)
    before = state(timeline.kernel)
    kernel = timeline.kernel
    pointer = kernel.call("kmalloc", 64)
    kernel.memory.write(pointer, b"diverted")
    kernel.registers["rax"] = 1
    assert timeline.diverted and timeline.position == 300_000
    timeline.goto(300_000)
    assert state(kernel) == before and not timeline.diverted
    kernel.memory.write(kernel.symbols["held"], b"12345678")
    assert timeline.search(True, [int(kernel.symbols["kfree"])]) is not None
    assert state(kernel) == before
    with pytest.raises(UsageError, match="past moment"):
        kernel.snapshot()


def test_a_failed_call_in_the_past_can_be_rewound_to_that_moment(timeline: Timeline[Kernel]) -> None:
    timeline.goto(300_000)
    before = state(timeline.kernel)
    with pytest.raises(sandbox.GuestPanic):
        timeline.kernel.call("kfree", 0x1234567)
    timeline.kernel.rewind()
    assert state(timeline.kernel) == before and timeline.position == 300_000
    assert timeline.kernel.call("kmalloc", 8)


# -- runs that go on, go wrong, or are taken back ---------------------------------------------------------------------
@pytest.fixture
def lively() -> Iterator[tuple[Kernel, Timeline[Kernel]]]:
    with sandbox.boot(ram="4M") as kernel:
        yield kernel, sandbox.record(kernel)


def test_a_kernels_journal_is_its_timeline_and_grows(lively: tuple[Kernel, Timeline[Kernel]]) -> None:
    kernel, timeline = lively
    counts, states = [], []

    def note() -> None:
        counts.append(kernel.instructions)
        states.append(state(kernel))

    first = kernel.call("kmalloc", 100)
    note()
    kernel.memory.write(first, b"from outside")
    kernel.registers["rbx"] = 77
    kernel.interrupt_at(kernel.instructions + 40, 0)
    kernel.receive("typed")
    kernel.call("kmalloc", 3000)
    note()
    kernel.call("kprintf", "%s\n", "text")
    note()
    assert timeline.length == kernel.instructions == timeline.position
    assert state(kernel) == states[-1]
    timeline.goto(counts[1])
    assert timeline.kernel.memory.read(first, 4) == b"from"
    assert timeline.moment.rip == kernel.symbols["kprintf"]          # its call has begun
    timeline.goto(counts[0] - 1)
    assert timeline.kernel.memory.read(first, 4) != b"from"
    assert timeline.who_wrote(first, before=counts[1]).by == "python"  # type: ignore[union-attr]
    timeline.goto(timeline.length)
    assert state(kernel) == states[-1]
    more = kernel.call("kmalloc", 100)
    assert timeline.length == kernel.instructions > counts[-1]
    timeline.goto(counts[0])
    timeline.goto(timeline.length)
    assert kernel.heap.find(more).cache.name == "kmalloc-128"  # type: ignore[union-attr]
    assert [event.function for event in timeline.trace] == ["kmalloc"] * 3


def test_a_panic_is_the_end_and_everything_before_it_can_be_reached(lively: tuple[Kernel, Timeline[Kernel]]) -> None:
    kernel, timeline = lively
    pointer = kernel.call("kmalloc", 64)
    before = kernel.instructions
    with pytest.raises(sandbox.GuestPanic):
        kernel.call("kfree", pointer + (1 << 40))
    end = state(kernel)
    assert timeline.length == kernel.instructions > before
    timeline.goto(before)
    assert kernel.failure is None and kernel.registers["rdi"] == pointer + (1 << 40)
    timeline.goto(timeline.length)
    assert isinstance(kernel.failure, sandbox.GuestPanic) and state(kernel) == end
    kernel.rewind()
    assert timeline.length == before and kernel.failure is None
    kernel.call("kfree", pointer)
    timeline.goto(before + 3)
    timeline.goto(timeline.length)
    assert kernel.heap.cache("kmalloc-64").inuse == 0


def test_after_a_restore_the_timeline_is_that_of_the_restored_state(lively: tuple[Kernel, Timeline[Kernel]]) -> None:
    kernel, timeline = lively
    snapshot = kernel.snapshot()
    kernel.call("kmalloc", 64)
    timeline.goto(timeline.start)
    kernel.restore(snapshot)
    assert timeline.position == timeline.length == kernel.instructions
    kernel.call("kmalloc", 4096)
    timeline.goto(timeline.length - 5)
    timeline.goto(timeline.length)
    assert [event.bytes_req for event in timeline.trace] == [4096]


def test_a_program_that_faults_ends_its_timeline_at_the_fault() -> None:
    timeline = sandbox.record("main:\n    xor eax, eax\n    mov rax, [rax]\n    ret\n", ram="4M")
    with timeline.kernel as kernel:
        assert isinstance(kernel.failure, sandbox.GuestFault) and timeline.result is not None
        moment = timeline.back_to("main+0x2")
        assert moment is not None and kernel.failure is None and kernel.registers["rax"] == 0
        timeline.goto(timeline.length)
        assert isinstance(kernel.failure, sandbox.GuestFault)


def test_under_a_shadow_the_run_ends_before_the_guilty_instruction_and_begins_where_the_shadow_did() -> None:
    timeline = sandbox.record("14", shadow=True)
    with timeline.kernel as kernel:
        assert isinstance(kernel.failure, sandbox.ShadowError)
        assert timeline.length == kernel.failure.instruction and timeline.start > 0
        end = state(kernel)
        timeline.goto(timeline.start)
        timeline.goto(timeline.length)
        assert state(kernel) == end and len(kernel.shadow.errors) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(("program", "options", "place"), [
    ("main:\n    xor eax, eax\n    mov rax, [rax]\n    ret\n", {}, "main+0x2"),
    ("main:\n    mov edi, 0x123456\n    call kfree\n    ret\n", {}, "kfree+0x"),
    ("14", {"shadow": True}, "the_overflow"),
])
def test_the_guilty_instruction_is_the_one_that_the_failure_accuses(program: str, options: dict[str, bool],
                                                                    place: str) -> None:
    with sandbox.record(program, **options) as timeline:
        moment = timeline.guilty()
        assert moment is not None and moment.location.startswith(place) and timeline.position == timeline.length
        timeline.goto(moment.instruction)
        assert timeline.moment == moment
        if place == "kfree+0x":
            assert timeline.step().rip == timeline.kernel.symbols["panic"]
    with sandbox.record("01", ram="4M") as sound:
        assert sound.guilty() is None


@pytest.mark.parametrize("ask", [
    lambda timeline: timeline.who_wrote(None), lambda timeline: timeline.at(7), lambda timeline: timeline.run_to(None),
    lambda timeline: timeline.history("newst"), lambda timeline: timeline.who_wrote("kmalloc.asm:3"),
    lambda timeline: timeline.who_read(-1), lambda timeline: timeline.goto(1.5), lambda timeline: timeline.goto(True),
    lambda timeline: timeline.save("/nonexistent/x"),
])
def test_nonsense_is_refused_in_one_sentence(timeline: Timeline[Kernel],
                                             ask: Callable[[Timeline[Kernel]], object]) -> None:
    timeline.goto(100_000)
    with pytest.raises(UsageError) as error:
        ask(timeline)
    assert "\n" not in str(error.value) and timeline.position == 100_000


def test_injected_faults_strike_again() -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        kernel.inject("cache=kmalloc-64:2")
        results = [kernel.call("kmalloc", 64) for _ in range(4)]
        end = state(kernel)
        assert results[1] == 0 and results[2] != 0
        timeline.goto(timeline.start)
        timeline.goto(timeline.length)
        assert state(kernel) == end


def test_a_kernel_has_one_timeline_and_options_come_too_late_for_it() -> None:
    with sandbox.boot(ram="4M") as kernel:
        timeline = sandbox.record(kernel)
        assert sandbox.record(kernel) is timeline
        kernel.call("kmalloc", 64)
        timeline.goto(timeline.start)
        del timeline                                     # nobody leads it back
        again = sandbox.record(kernel)
        assert again.goto(again.length).instruction == again.length
        assert kernel.heap.cache("kmalloc-64").inuse == 1 and kernel.call("kmalloc", 64)
        with pytest.raises(UsageError, match="has booted already: ram cannot be chosen"):
            sandbox.record(kernel, ram="8M")


def test_a_with_block_closes_what_the_timeline_has_booted_and_nothing_else() -> None:
    with sandbox.record("01", ram="4M") as timeline:
        timeline.goto(0)
    with pytest.raises(UsageError, match="this kernel is closed"):
        timeline.goto(1)
    with sandbox.boot(ram="4M") as kernel:
        with sandbox.record(kernel):
            pass
        assert kernel.call("kmalloc", 64)


# -- memory ---------------------------------------------------------------------------------------------------------
def test_snapshots_stay_within_their_budget_and_every_moment_in_reach() -> None:
    timeline = sandbox.record(PROGRAM, memory=200_000, **OPTIONS)
    with timeline.kernel, sandbox.boot(PROGRAM, **OPTIONS) as straight:
        assert timeline.memory <= 200_000 or len(timeline.snapshots) <= 2
        assert len(timeline.snapshots) < 2 + timeline.length // PERIOD
        for position in (timeline.length // 3, timeline.length // 2, timeline.length - 1):
            straight.machine.run(position - straight.instructions)
            timeline.goto(position)
            assert state(timeline.kernel) == state(straight)


def test_thinning_gives_up_what_is_far_and_dense_first(timeline: Timeline[Kernel]) -> None:
    kept = list(timeline._moments)
    assert len(kept) >= 4
    store = Moments(kept[0], 1 << 40)
    for one in kept[1:]:
        store.add(one)
        store.add(one)
    assert [one.instruction for one in store] == [one.instruction for one in kept]
    assert store.before(kept[2].instruction) is kept[2]
    assert store.before(kept[2].instruction - 1) is kept[1]
    total = store.bytes
    store.budget = total - 1
    store.add(kept[1])                                   # it is there already: nothing changes
    assert len(store) == len(kept)
    store.clear()
    assert len(store) == 1 and store.bytes == 0
