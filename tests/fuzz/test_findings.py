"""Guests that the soak found to hurt the library once, each as the bytes of a ``main`` and what becomes of it now."""

from __future__ import annotations

import pytest

from sandbox.abi import PROGRAM_BASE

from .guests import Guests

TABLES = 0xFFFF_8880_0010_2000
# mov rbx, TABLE; mov rax, ENTRY; mov [rbx], rax; then what follows
STORE = "48bb{table}48b8{entry}488903"
FINDINGS = {
    "five-level paging holds the clock for ever: every fetch faults, and a fetch that faults is no start": (
        "48b8f8ffffffff7f0000400f22e0cc", "no instruction can start"),
    "kernel text that is not mapped any more was read for the backtrace": (
        STORE.format(table=(TABLES + 0x1000 + 8 * 510).to_bytes(8, "little").hex(),
                     entry=(0x40_0000).to_bytes(8, "little").hex()) + "0f20d80f22d8f4", "triple fault"),
    "int3 in a page that was taken away: the byte before RIP was read through the tables": (
        STORE.format(table="{own}", entry="00" * 8) + "cc", "breakpoint"),
}


@pytest.fixture(scope="module")
def guests() -> Guests:
    return Guests()


@pytest.mark.parametrize("finding", FINDINGS)
def test_what_once_broke_ends_with_a_reason(guests: Guests, finding: str) -> None:
    code, words = FINDINGS[finding]
    kernel = guests.kernel
    kernel.restore(guests.snapshot)
    own = kernel.machine.paging.walk(PROGRAM_BASE)[-1].address + 0xFFFF_8880_0000_0000
    blob = bytes.fromhex(code.replace("{own}", int(own).to_bytes(8, "little").hex()))
    kernel.memory[PROGRAM_BASE : PROGRAM_BASE + len(blob)] = blob
    result = kernel.run(100_000)
    assert words in str(result) or words == result.kind.value, str(result)
    assert kernel.backtrace()
