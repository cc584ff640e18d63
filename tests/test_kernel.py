"""The booted kernel as its users see it: boot, programs, memory, symbols, snapshots, and the account of every page."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox import Kernel, PhysAddr, VirtAddr
from sandbox.abi import BOOT_INFO_PHYS, SlabFlag, boot_info
from sandbox.errors import (
    AssemblyError,
    GuestFault,
    GuestLimit,
    GuestMemoryError,
    GuestNeedsRewind,
    GuestPanic,
    PhysicalAddressError,
    ProgramError,
    SymbolNotFound,
    TranslationError,
    UsageError,
)
from sandbox.guest.actions import Actions
from sandbox.guest.boot import load
from sandbox.guest.journal import Journal
from sandbox.guest.memory import TranslatedMemory

EXAMPLES = Path(__file__).parent.parent / "examples"


def program(body: str) -> str:
    """A program whose main is ``body``."""
    return f".text\nmain:\n    push rbp\n    mov rbp, rsp\n{body}\n    pop rbp\n    ret\n"


@pytest.fixture(scope="module")
def booted() -> Iterator[tuple[Kernel, object]]:
    with sandbox.boot() as kernel:
        yield kernel, kernel.snapshot()


@pytest.fixture
def kernel(booted: tuple[Kernel, object]) -> Kernel:
    kernel, snapshot = booted
    kernel.restore(snapshot)
    return kernel


# -- boot -------------------------------------------------------------------------------------------------------
def test_the_example_of_the_readme_holds(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    found = kernel.heap.find(pointer)
    assert found.cache.name == "kmalloc-64"
    assert found.cache.inuse == 1
    kernel.memory[pointer : pointer + 4] = b"\x90\x90\x90\x90"
    assert kernel.memory.u32(pointer) == 0x90909090
    with kernel.trace() as trace:
        kernel.call("kfree", pointer)
    assert [event.kind for event in trace] == ["free"]


def test_a_fresh_kernel_stands_at_kernel_ready_with_interrupts_on(kernel: Kernel) -> None:
    assert kernel.registers["rip"] == kernel.symbols["kernel_ready"]
    assert kernel.registers["rflags"] & 0x200
    assert kernel.instructions > 0


def test_two_boots_are_equal_to_the_last_bit() -> None:
    with sandbox.boot(ram="4M", seed=7) as first, sandbox.boot(ram="4M", seed=7) as second:
        assert first.instructions == second.instructions
        assert dict(first.registers) == dict(second.registers)
        assert first.machine.memory.image() == second.machine.memory.image()


@pytest.mark.parametrize(("ram", "size"), [("4M", 4 << 20), (5 << 20, 5 << 20), ("64M", 64 << 20)])
def test_the_ram_is_what_was_asked_for(ram: object, size: int) -> None:
    with sandbox.boot(ram=ram) as kernel:
        assert len(kernel.physical) == size
        assert kernel.heap.pages.max_pfn == size // 4096
        assert kernel.call("kmalloc", 100) != 0


@pytest.mark.parametrize(("options", "words"), [
    ({"ram": "1M"}, "minimum is 4M"), ({"ram": 0}, "minimum is 4M"), ({"ram": "lots"}, "not a size"),
    ({"ram": None}, "not a size"), ({"ram": 16.0}, "not a size"), ({"ram": (4 << 20) + 1}, "multiple of 4096"),
    ({"ram": "64G"}, "maximum"), ({"hz": 1}, "hz"), ({"hz": "fast"}, "hz"), ({"magazines": "no"}, "magazines"),
    ({"seed": -1}, "seed"), ({"slab_debug": "Q"}, "slab_debug"),
])
def test_impossible_options_are_refused_by_name(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        sandbox.boot(**options)  # type: ignore[arg-type]


def test_a_kernel_that_does_not_come_up_leaves_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_without_memory(memory: Any, *rest: Any) -> Any:
        loaded = load(memory, *rest)
        boot_info(memory, BOOT_INFO_PHYS).regions = 0
        return loaded

    monkeypatch.setattr("sandbox.kernel.load", load_without_memory)
    with pytest.raises(GuestPanic, match="no memory") as caught:
        sandbox.boot()
    assert "kernel panic: " in caught.value.console
    assert any(frame.startswith("kernel_main+") for frame in caught.value.backtrace)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        sandbox.boot(rma="16M")  # type: ignore[call-arg]


def test_magazines_can_be_left_out() -> None:
    with sandbox.boot(magazines=False) as kernel:
        assert not any(cache.has_magazines for cache in kernel.heap.caches)
        kernel.call("kfree", kernel.call("kmalloc", 64))
        assert kernel.heap.cache("kmalloc-64").cached == 0


# -- programs ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("body", "kind", "status"), [
    ("    xor eax, eax", "success", 33), ("    mov eax, 5", "failure", 35), ("    ud2", "fault", 37),
])
def test_a_program_ends_with_a_kind_a_status_and_a_sentence(body: str, kind: str, status: int) -> None:
    with sandbox.boot(program(body)) as kernel:
        before = kernel.instructions
        result = kernel.run()
        assert (result.kind, result.status) == (kind, status)
        assert result.ok == (kind == "success")
        assert result.instructions == kernel.instructions - before > 0
        assert kind in str(result) or kind == "fault"


def test_a_program_can_be_a_path_or_a_packaged_number(tmp_path: Path) -> None:
    path = tmp_path / "ok.asm"
    path.write_text(program("    xor eax, eax"))
    for given in (path, str(path), "01"):
        with sandbox.boot(given) as kernel:
            assert kernel.run().ok
            assert "main" in kernel.symbols


@pytest.mark.parametrize(("name", "content", "words"), [
    ("missing.asm", None, "no such file"), ("binary.asm", b"\xff\xfe\x00", "not a text file"),
    ("nomain.asm", b".text\nstart:\n    ret\n", "main"), ("empty.asm", b"", "main"),
])
def test_a_file_that_is_no_program_is_named(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProgramError, match=words) as caught:
        sandbox.boot(path)
    assert name in str(caught.value)


@pytest.mark.parametrize("given", ["", "x" * 5000, "a\0b", "no/such/file.asm", "99", "no_such_example", Path("gone")])
def test_a_name_that_leads_nowhere_is_no_program(given: str | Path) -> None:
    with pytest.raises(ProgramError):
        sandbox.boot(given)


def test_a_directory_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(ProgramError):
        sandbox.boot(tmp_path)


@pytest.mark.parametrize("given", [1, b"main:\n", ["01"]])
def test_a_program_is_a_path_or_text(given: object) -> None:
    with pytest.raises(UsageError, match="a program is"):
        sandbox.boot(given)  # type: ignore[arg-type]


def test_a_program_that_does_not_assemble_is_blamed_by_line(tmp_path: Path) -> None:
    path = tmp_path / "wrong.asm"
    path.write_text(".text\nmain:\n    mov eax, ebx, ecx\n    ret\n")
    with pytest.raises(AssemblyError) as caught:
        sandbox.boot(path)
    assert caught.value.line == 3
    assert "wrong.asm:3" in str(caught.value)


def test_a_label_of_the_kernels_is_a_clash_and_not_a_surprise() -> None:
    with pytest.raises(AssemblyError, match="kmalloc"):
        sandbox.boot(program("    xor eax, eax") + "kmalloc:\n    ret\n")


def test_a_kernel_without_a_program_has_nothing_to_run(kernel: Kernel) -> None:
    with pytest.raises(UsageError, match="no program"):
        kernel.run()


def test_a_limit_stops_a_run_that_can_go_on_and_slices_change_nothing() -> None:
    source = program("""
    mov ecx, 100000
.Lagain:
    dec ecx
    jnz .Lagain
    mov edi, 64
    call kmalloc
    xor eax, eax""")
    with sandbox.boot(source) as whole, sandbox.boot(source) as pieces:
        total = whole.run().instructions
        taken = 0
        while True:
            result = pieces.run(limit=7777)
            taken += result.instructions
            if result.kind != "limit":
                break
            assert result.instructions == 7777
            assert "7,777" in str(result)
        assert result.ok
        assert (taken, pieces.instructions) == (total, whole.instructions)
        assert pieces.machine.memory.image() == whole.machine.memory.image()


def test_progress_is_told_and_may_stop_a_loop_which_can_go_on() -> None:
    class Enough(Exception):
        pass

    seen: list[int] = []

    def progress(taken: int) -> None:
        seen.append(taken)
        if len(seen) == 3:
            raise Enough

    with sandbox.boot(program(".Lloop:\n    jmp .Lloop")) as kernel:
        start = kernel.instructions
        with pytest.raises(Enough):
            kernel.run(progress=progress)
        assert seen == sorted(seen)
        assert kernel.instructions == start + seen[-1]
        assert kernel.failure is None
        assert kernel.run(limit=10).kind == "limit"


def test_a_program_that_has_ended_is_not_run_again_but_its_heap_lives() -> None:
    with sandbox.boot(program("    mov edi, 300\n    call kmalloc\n    xor eax, eax")) as kernel:
        assert kernel.run().ok
        with pytest.raises(UsageError, match="has ended"):
            kernel.run()
        assert kernel.heap.cache("kmalloc-512").inuse == 1
        assert kernel.call("kmalloc", 300) != 0
        assert kernel.heap.cache("kmalloc-512").inuse == 2


def test_a_run_that_panics_needs_a_rewind_and_can_then_be_repeated() -> None:
    source = program("    mov edi, 0x1234\n    call kfree\n    xor eax, eax")
    with sandbox.boot(source) as kernel:
        start = kernel.instructions
        first = kernel.run()
        assert first.kind == "panic"
        assert isinstance(first.error, GuestPanic)
        assert "1234" in first.error.message
        assert any(frame.startswith("main+") for frame in first.error.backtrace)
        for attempt in (kernel.run, kernel.snapshot, lambda: kernel.call("kmalloc", 8)):
            with pytest.raises(GuestNeedsRewind):
                attempt()
        kernel.rewind()
        assert kernel.instructions == start
        again = kernel.run()
        assert (again.instructions, str(again)) == (first.instructions, str(first))


def test_a_guest_that_halts_for_ever_stops_in_words_and_can_still_be_called() -> None:
    with sandbox.boot(program("    cli\n    hlt")) as kernel:
        result = kernel.run()
        assert (result.kind, result.status) == ("stop", None)
        assert "halted with interrupts off" in str(result) and "main" in str(result)
        assert kernel.call("kmalloc", 64) != 0
        assert kernel.machine.halted


def test_a_program_may_leave_with_a_status_of_its_own() -> None:
    with sandbox.boot(program("    mov al, 0x21\n    out 0xf4, al")) as kernel:
        result = kernel.run()
        assert (result.kind, result.status, result.error) == ("stop", 67, None)


def test_main_must_bring_back_its_callee_saved_registers() -> None:
    with sandbox.boot(program("    inc r13\n    xor eax, eax")) as kernel:
        result = kernel.run()
        assert result.kind == "panic"
        assert "r13" in str(result)


def test_a_program_that_overflows_its_stack_faults_with_an_address() -> None:
    with sandbox.boot(program("    call main")) as kernel:
        result = kernel.run()
        assert result.kind == "fault"
        assert isinstance(result.error, GuestFault)
        assert (result.error.vector, result.error.address % 4096) == (8, 4088)
        assert kernel.heap.cache("kmalloc-64").inuse == 0


def test_running_out_of_memory_is_an_answer_and_no_error() -> None:
    with sandbox.boot(ram="4M") as kernel:
        pointers = []
        while pointer := kernel.call("kmalloc", 4096):
            pointers.append(pointer)
        assert kernel.call("kmalloc", 4096) == 0
        for pointer in pointers:
            kernel.call("kfree", pointer)
        assert kernel.call("kmalloc", 4096) != 0


@pytest.mark.parametrize("wrong", ["stack", "text", "direct map of a free page"])
def test_freeing_what_is_not_slab_memory_panics_with_its_address(kernel: Kernel, wrong: str) -> None:
    address = {"stack": kernel.registers["rsp"] - 64, "text": int(kernel.symbols["kmalloc"]),
               "direct map of a free page": next(
                   kernel.heap.pages.free_blocks(order)[0].address for order in range(11)
                   if kernel.heap.pages.free_blocks(order))}[wrong]
    before = kernel.heap.pages.counts()
    with pytest.raises(GuestPanic, match=f"{address:x}"):
        kernel.call("kfree", address)
    assert kernel.heap.pages.counts() == before
    kernel.rewind()
    assert kernel.call("kmalloc", 8)


def test_a_guest_that_loops_in_a_call_is_stopped_and_rewound(kernel: Kernel) -> None:
    with pytest.raises(GuestLimit):
        kernel.call("kernel_idle", limit=1000)
    kernel.rewind()
    assert kernel.call("kmalloc", 8)


# -- looking ----------------------------------------------------------------------------------------------------
def test_virtual_and_physical_memory_are_the_same_bytes(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    physical = kernel.memory.translate(pointer)
    assert isinstance(physical, PhysAddr)
    kernel.memory.write_u64(pointer, 0x1122334455667788)
    assert kernel.physical.u32(physical) == 0x55667788
    kernel.physical.write_u8(physical, 0xFF)
    assert kernel.memory.u16(pointer) == 0x77FF
    kernel.memory[pointer + 8 : pointer + 14] = b"hello\0"
    assert kernel.memory.cstring(pointer + 8) == b"hello"
    assert kernel.physical[physical] == 0xFF


def test_a_write_over_a_page_edge_reaches_both_pages_or_neither(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 8192)
    edge = pointer + 4096
    kernel.memory.write(edge - 2, b"abcd")
    assert kernel.memory[edge - 2 : edge + 2] == b"abcd"
    guard = kernel.registers["rsp"] + 15 & ~0xFFF
    top = guard - 4
    with pytest.raises(TranslationError) as caught:
        kernel.memory.write(top, b"12345678")
    assert caught.value.address == guard
    assert kernel.memory.read(top, 4) != b"1234"


@pytest.mark.parametrize("address", [0, 0x1234, 1 << 47, 0xFFFF_C900_0000_0000])
def test_an_unmapped_address_explains_its_page_walk(kernel: Kernel, address: int) -> None:
    with pytest.raises(TranslationError) as caught:
        kernel.memory.u8(address)
    assert caught.value.address == address
    assert caught.value.explanation


def test_the_hole_and_the_end_of_ram_have_no_bytes(kernel: Kernel) -> None:
    for address in (0xA0000, 0xFFFFF, len(kernel.physical)):
        with pytest.raises(PhysicalAddressError):
            kernel.physical.u8(address)
    with pytest.raises(PhysicalAddressError):
        kernel.physical.read(len(kernel.physical) - 4, 8)


@pytest.mark.parametrize("use", [
    lambda memory: memory["x"], lambda memory: memory[1.5], lambda memory: memory[0:16:2],
    lambda memory: memory.write(-1, b"x"), lambda memory: memory.u8(1 << 64), lambda memory: memory.read(0, -1),
])
def test_addresses_that_are_none_are_refused(kernel: Kernel, use: object) -> None:
    for memory in (kernel.memory, kernel.physical):
        with pytest.raises((UsageError, GuestMemoryError)):
            use(memory)  # type: ignore[operator]


def test_new_page_tables_are_seen_at_once(kernel: Kernel) -> None:
    """Translations are kept while the machine stands still: not past a call that maps, nor past one that unmaps."""
    page = kernel.call("get_free_pages", 0)
    virtual = 0xFFFF_D000_0000_0000
    for _ in range(2):
        with pytest.raises(TranslationError):
            kernel.memory.u8(virtual)
        assert kernel.call("map_page", virtual, kernel.memory.translate(page), 3) == 0
        kernel.memory.write_u64(page, 0xABCD)
        assert kernel.memory.u64(virtual) == 0xABCD
        assert kernel.call("unmap_page", virtual) == kernel.memory.translate(page)


def test_a_hook_reads_what_is_so_at_its_instruction_and_may_not_write(kernel: Kernel) -> None:
    seen: list[tuple[int, int]] = []
    pointer = kernel.call("kmalloc", 64)

    def look(address: int) -> None:
        seen.append((kernel.registers["rdi"], kernel.memory.u64(pointer)))
        for attempt in (lambda: kernel.memory.write_u8(pointer, 1), lambda: kernel.physical.write_u8(0, 1),
                        lambda: kernel.registers.update(rax=1), lambda: kernel.call("kmalloc", 1)):
            with pytest.raises(UsageError, match="running"):
                attempt()

    kernel.memory.write_u64(pointer, 7)
    hook = kernel.machine.cpu.hook_code([kernel.symbols["ksize"]], look)
    kernel.call("ksize", pointer)
    hook.remove()
    assert seen == [(pointer, 7)]
    assert kernel.failure is None


def test_symbols_are_a_mapping_of_addresses(kernel: Kernel) -> None:
    address = kernel.symbols["kmalloc"]
    assert isinstance(address, VirtAddr)
    assert kernel.symbols.get("no_such_thing") is None
    assert "kmalloc" in kernel.symbols and "no_such_thing" not in kernel.symbols
    assert not any(name.startswith(".L") for name in kernel.symbols)
    with pytest.raises(SymbolNotFound):
        kernel.symbols["kmalloc2"]


def test_symbolize_names_the_function_the_offset_and_the_line(kernel: Kernel) -> None:
    address = kernel.symbols["kmalloc"]
    at = kernel.symbolize(address + 1)
    assert (at.symbol, at.offset) == ("kmalloc", 1)
    assert at.source is not None and at.source.file.endswith("kmalloc.asm")
    assert str(at) == f"kmalloc+0x1 ({at.source.file}:{at.source.number})"
    assert str(kernel.symbolize(address)).startswith("kmalloc (")
    assert str(kernel.symbolize(0x1234)) == "0x0000000000001234"
    assert kernel.line(0x1234) is None
    line = kernel.line(address)
    assert line is not None and line.text.strip()


def test_every_function_of_the_allocator_declares_its_parameters(kernel: Kernel) -> None:
    expected = {"kmalloc": 1, "kfree": 1, "krealloc": 3, "kmem_cache_create": 5, "kmem_cache_alloc": 1,
                "kmem_cache_free": 2, "get_free_pages": 1, "free_pages": 2, "kmem_cache_destroy": 1}
    found = {name: kernel.symbols.prototype(name) for name in expected}
    assert {name: len(found.parameters) if found else None for name, found in found.items()} == expected


def test_whatis_answers_for_any_address(kernel: Kernel) -> None:
    pointer = kernel.call("kmalloc", 64)
    kinds = {kernel.whatis(address).kind for address in (
        pointer, kernel.symbols["kmalloc"], kernel.registers["rsp"] - 8, 0, 1 << 47, 0x1234_5000)}
    assert {"object", "text", "stack", "null", "non-canonical", "unmapped"} == kinds


# -- going back -------------------------------------------------------------------------------------------------
def test_a_snapshot_is_restored_any_number_of_times_in_any_order(kernel: Kernel) -> None:
    states = []
    for number in range(4):
        kernel.call("kmalloc", 1000)
        kernel.memory.write_u64(kernel.registers["rsp"] - 8, number)
        states.append((kernel.snapshot(), kernel.machine.memory.image(), kernel.instructions))
    for index in (2, 0, 3, 3, 1):
        snapshot, image, count = states[index]
        kernel.restore(snapshot)
        assert kernel.machine.memory.image() == image
        assert kernel.instructions == count
        assert kernel.heap.cache("kmalloc-1k").inuse == index + 1
        with pytest.raises(GuestFault):
            kernel.call(0)
        kernel.rewind()
        assert kernel.machine.memory.image() == image
        kernel.call("kmalloc", 1000)


def test_rewinding_does_not_disturb_a_trace(kernel: Kernel) -> None:
    with kernel.trace() as trace:
        kept = kernel.call("kmalloc", 64)
        with pytest.raises(GuestPanic):
            kernel.call("kfree", kernel.symbols["kmalloc"])
        before = [(event.kind, event.address) for event in trace]
        kernel.rewind()
        assert [(event.kind, event.address) for event in trace] == before
        kernel.call("kfree", kept)
    assert [(event.kind, event.address) for event in trace] == [*before, ("free", kept)]


def test_the_journal_alone_leads_to_the_same_bytes(kernel: Kernel) -> None:
    """A second machine that does what the first one's journal says ends in the same state, to the last bit."""
    pointer = kernel.call("kmalloc", 100)
    kernel.memory.write(pointer, b"journal")
    kernel.physical.write(0x3000, b"low")
    kernel.call("kprintf", "%s\n", "text")
    kernel.registers["rbx"] = 5
    kernel.snapshot()
    kernel.call("kfree", pointer)
    record = Journal.from_data(json.loads(json.dumps(kernel.journal.to_data())))
    with sandbox.boot() as other:
        actions = Actions(other.machine, TranslatedMemory(other.machine), other.symbols)
        for entry in record:
            actions.perform(entry)
        assert other.machine.memory.image() == kernel.machine.memory.image()
        assert dict(other.registers) == dict(kernel.registers)
        assert (other.console, other.instructions) == (kernel.console, kernel.instructions)


def test_a_closed_kernel_can_be_read_and_nothing_else() -> None:
    kernel = sandbox.boot(ram="4M")
    pointer = kernel.call("kmalloc", 64)
    kernel.memory.write(pointer, b"legacy")
    snapshot, registers = kernel.snapshot(), dict(kernel.registers)
    for _ in range(2):
        kernel.close()
    assert kernel.memory.read(pointer, 6) == b"legacy"
    assert kernel.heap.cache("kmalloc-64").inuse == 1
    assert dict(kernel.registers) == registers
    for attempt in (lambda: kernel.call("kmalloc", 8), kernel.run, kernel.rewind, kernel.snapshot,
                    lambda: kernel.restore(snapshot), lambda: kernel.machine.run(limit=1),
                    lambda: kernel.registers.update(rax=1)):
        with pytest.raises(UsageError, match="closed"):
            attempt()


def test_a_closed_kernel_gives_its_memory_back_without_the_collector() -> None:
    import gc
    import weakref

    kernel = sandbox.boot(ram="4M")
    kernel.call("kmalloc", 64)
    machine = weakref.ref(kernel.machine)
    gc.disable()
    try:
        del kernel
        assert machine() is None
    finally:
        gc.enable()


def test_a_call_between_any_two_instructions_of_an_allocation_leaves_a_sound_heap() -> None:
    """A program is stopped before each of its instructions in turn; where interrupts are on, Python allocates too."""
    source = program("    mov edi, 64\n    call kmalloc\n    mov rdi, rax\n    call kfree\n" * 2 + "    xor eax, eax")
    with sandbox.boot(source, ram="4M", hz=0) as kernel:
        kernel.call("kfree", kernel.call("kmalloc", 64))
        start, tried, limit = kernel.snapshot(), 0, 1
        while kernel.run(limit=limit).kind == "limit":
            if kernel.registers["rflags"] & 0x200:
                mine = [kernel.call("kmalloc", 64, limit=10_000) for _ in range(2)]
                assert kernel.run().ok
                cache = kernel.heap.cache("kmalloc-64")
                assert cache.inuse == len({*mine}) == 2
                for pointer in mine:
                    assert kernel.heap.find(pointer).state == "allocated"
                    kernel.call("kfree", pointer)
                assert (cache.inuse, cache.cached + cache.free) == (0, cache.total)
                tried += 1
            kernel.restore(start)
            limit += 1
        assert tried > 40


# -- every size at once -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.soak), 7])
def test_every_size_to_20000_lives_at_once_and_every_page_comes_back(step: int) -> None:
    """Up to 20,001 allocations without overlap, freed in a shuffled order: caches and pages are as after boot."""
    sizes = range(0, 20001, step)
    with sandbox.boot(ram="512M") as kernel:
        caches = kernel.heap.caches
        kmalloc = [cache for cache in caches if SlabFlag.SLAB_KMALLOC in cache.flags]
        inuse = {cache.name: cache.inuse for cache in caches}
        pages = kernel.heap.pages.counts()

        pointers = [kernel.call("kmalloc", size) for size in sizes]
        assert pointers[0] == 0x10
        assert all(pointers)
        extents = sorted((pointer, pointer + size) for size, pointer in zip(sizes, pointers, strict=True) if size)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(extents))
        small = sum(0 < size <= 8192 for size in sizes)
        assert sum(cache.inuse for cache in kmalloc) == small
        assert len(kernel.heap.large_allocations) == len(sizes) - 1 - small

        random.Random(20000).shuffle(pointers)
        for pointer in pointers:
            kernel.call("kfree", pointer)
        assert {cache.name: cache.inuse for cache in kmalloc} == {cache.name: 0 for cache in kmalloc}
        freed = kernel.heap.pages.counts()
        assert (freed.large, freed.lost, freed.allocated, freed.total) == (0, 0, 0, pages.total)
        assert freed.slab == sum(1 << cache.order for cache in caches for _ in cache.slabs)
        assert freed.free + freed.slab + freed.reserved == freed.total

        for _ in range(2):                       # the second time for what the first freed: the magazines themselves
            for cache in caches:
                kernel.call("kmem_cache_shrink", cache)
        assert {cache.name: cache.inuse for cache in caches} == inuse
        assert kernel.heap.pages.counts() == pages
