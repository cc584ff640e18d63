"""A booted kernel in hostile hands: what Python asks of it stays bounded and typed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import sandbox
from sandbox.abi import DIRECT_MAP, PAGE_TABLES_PHYS
from sandbox.errors import GuestError, GuestLimit, GuestMemoryError, HeapCorruption, UsageError
from sandbox.kernel import Kernel
from sandbox.view.run import Before, summary

LOOP = "main:\n.Lmain_again:\n    call kmalloc_and_print\n    jmp .Lmain_again\nkmalloc_and_print:\n    mov edi, 8\n" \
       "    call kmalloc\n    mov edx, 0x3f8\n    mov al, 88\n    out dx, al\n    ret\n"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with sandbox.boot(LOOP, ram="6M", console_limit=5000) as kernel:
        yield kernel


@pytest.mark.parametrize("form", ["%2000000000d", "%-2000000000d", "%02000000000d", "%99999999999999999999d",
                                  "%.9999999999s", "%", "%l", "%lll", "%-0+ 5", "%q%w%n%s"])
def test_kprintf_with_a_wild_format_ends_in_bounded_memory(kernel: Kernel, form: str) -> None:
    try:
        kernel.call("kprintf", form + "\n", 7, 7, 7, limit=200_000)
    except GuestError as error:
        assert str(error)
        kernel.rewind()
    assert len(kernel.console) < 5100
    assert kernel.call("kmalloc", 8)


def test_kprintf_of_a_long_string_keeps_its_newest_bytes_and_says_how_many_are_gone(kernel: Kernel) -> None:
    at, size = kernel.call("kmalloc", 1 << 16), 1 << 16
    kernel.memory[at : at + size] = b"A" * (size - 1) + b"\0"
    kernel.call("kprintf", "%s", at, limit=10_000_000)
    assert kernel.console == f"[earlier output is not kept: {size - 5001:,} bytes]\n" + "A" * 5000
    with pytest.raises(UsageError):
        kernel.call("kprintf", "B" * (1 << 20))


def test_a_string_without_an_end_is_read_up_to_the_instruction_limit(kernel: Kernel) -> None:
    at = kernel.call("kmalloc", 1 << 20)
    kernel.memory[at : at + (1 << 20)] = b"A" * (1 << 20)
    with pytest.raises(GuestLimit):
        kernel.call("kprintf", "%s", at, limit=400_000)


def test_an_endless_program_keeps_the_newest_of_its_console(kernel: Kernel) -> None:
    with kernel.trace() as trace:
        assert kernel.run(700_000).kind.value == "limit"
    assert kernel.console.startswith("[earlier output is not kept: ") and kernel.console.endswith("\n" + "X" * 5000)
    assert len(trace.events(kind="alloc")) > 5000


@pytest.mark.parametrize("seed", range(6))
def test_looking_at_a_guest_whose_tables_and_heap_are_garbage_raises_typed_errors_alone(seed: int) -> None:
    chosen = random.Random(seed)
    with sandbox.boot(LOOP, ram="6M") as kernel:
        before = Before.of(kernel.heap)
        kernel.run(20_000)
        tables = PAGE_TABLES_PHYS if seed % 2 else int(kernel.memory.translate(kernel.memory.u64(
            kernel.symbols["mem_map"])))
        for _ in range(40):
            at = tables + 8 * chosen.randrange(2048)
            kernel.physical[at : at + 8] = chosen.choice((chosen.randbytes(8), bytes(8), (
                DIRECT_MAP + chosen.randrange(6 << 20)).to_bytes(8, "little")))
        for look in (lambda: kernel.heap.validate(), lambda: [cache.inuse for cache in kernel.heap.caches],
                     lambda: kernel.heap.allocated(), lambda: kernel.backtrace(),
                     lambda: kernel.whatis(DIRECT_MAP + 12345), lambda: kernel.machine.paging.mappings(),
                     lambda: kernel.heap.find(DIRECT_MAP + 0x100000),
                     lambda: kernel.heap.leaks()):
            try:
                look()
            except (GuestMemoryError, HeapCorruption) as error:
                assert str(error)
        result = kernel.run(20_000)
        assert str(result) and list(summary(kernel, result, before))
