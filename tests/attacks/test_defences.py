"""Four attacks on the heap, each against every defence: where each is stopped, and what gets through.

``python -m tests.attacks.test_defences`` writes the table anew, for a look at the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox.view.defences import Outcome, attack, table

HERE = Path(__file__).parent
README = HERE.parent.parent / "README.md"
SEED = 1
ATTACKS = ("free_pointer", "double_free", "reuse_after_free", "overflow")
DEFENCES: dict[str, dict[str, Any]] = {
    "none": {},
    "no magazines": {"magazines": False},
    "random order": {"freelist_random": SEED},
    "hardened": {"freelist_hardened": True},
    "hardened, no magazines": {"freelist_hardened": True, "magazines": False},
    "Z": {"slab_debug": "Z"},
    "P": {"slab_debug": "P"},
    "F": {"slab_debug": "F"},
    "FZP": {"slab_debug": "FZP"},
    "shadow": {"shadow": True},
    "shadow, quarantine": {"shadow": True, "quarantine": 16},
}
EXPECTED = HERE / "defences.txt"


@cache
def outcome(defence: str, name: str) -> Outcome:
    with sandbox.boot(HERE / f"{name}.asm", hz=0, **DEFENCES[defence]) as kernel:
        return attack(kernel)


def outcomes() -> Mapping[str, Mapping[str, Outcome]]:
    return {defence: {name: outcome(defence, name) for name in ATTACKS} for defence in DEFENCES}


def text() -> str:
    return "".join(f"{line}\n" for line in table(outcomes()))


def test_the_table_is_what_it_was() -> None:
    assert text() == EXPECTED.read_text("utf-8")


def test_the_readme_shows_the_table() -> None:
    if not README.exists():
        pytest.skip("only a checkout has a README")
    assert EXPECTED.read_text("utf-8") in README.read_text("utf-8")


@pytest.mark.parametrize("defence", ["F", "FZP", "hardened, no magazines"])
def test_a_second_free_is_stopped_with_the_object_that_is_freed_twice(defence: str) -> None:
    with sandbox.boot(HERE / "double_free.asm", hz=0, **DEFENCES[defence]) as kernel, kernel.trace() as trace:
        stopped = attack(kernel)
    freed = [event.address for event in trace.walk() if event.kind == "free" and event.parent is None]
    assert f"0x{freed[0]:016x}" in stopped.sentence and stopped.label == "the_second_free"


def test_a_report_says_what_was_damaged() -> None:
    assert "Right Redzone overwritten" in outcome("FZP", "overflow").sentence
    assert "Freepointer corrupt" in outcome("F", "free_pointer").sentence
    assert "Poison overwritten" in outcome("FZP", "free_pointer").sentence


# -- what the attacker got, by the trace and by the bytes -----------------------------------------------------------
def run(name: str) -> tuple[sandbox.Kernel, list[int]]:
    """An undefended attack after its success, and what its calls of kmalloc returned, in order."""
    kernel = sandbox.boot(HERE / f"{name}.asm", hz=0)
    with kernel.trace() as trace:
        assert kernel.run().ok
    return kernel, [event.address for event in trace if event.kind == "alloc"]


def test_kmalloc_returns_the_table_whose_address_was_written() -> None:
    kernel, returned = run("free_pointer")
    with kernel:
        assert returned[-1] == kernel.symbols["table"]
        assert kernel.console == f"kmalloc returned 0x{returned[-1]:016x}, the kernel's own table\n"


@pytest.mark.parametrize(("name", "first", "second"), [("double_free", 2, 3), ("reuse_after_free", 1, 2)])
def test_two_owners_have_the_same_memory_and_the_attackers_word_is_called(name: str, first: int, second: int) -> None:
    kernel, returned = run(name)
    with kernel:
        assert returned[first] == returned[second]
        assert kernel.memory.u64(returned[first]) == kernel.symbols["chosen"]
        assert kernel.console == "the kernel called the attacker's function\n"


def test_the_neighbour_lies_behind_the_buffer_and_its_function_is_the_attackers() -> None:
    kernel, (buffer, neighbour) = run("overflow")
    with kernel:
        assert neighbour == buffer + 64 and kernel.memory.u64(neighbour) == kernel.symbols["chosen"]
        assert kernel.console == "the kernel called the attacker's function\n"


def test_the_shadow_is_blind_where_no_byte_lies_between_a_buffer_and_its_neighbour() -> None:
    source = (HERE / "overflow.asm").read_text("utf-8")
    assert ".set NAME, 60 " in source
    for size, end in ((60, "error"), (63, "error"), (64, "succeeds")):
        with sandbox.boot(source.replace(".set NAME, 60 ", f".set NAME, {size} "), hz=0, shadow=True) as kernel:
            assert attack(kernel).end == end


@pytest.mark.parametrize("seed", range(2, 12))
def test_a_random_order_stops_no_attack_that_needs_no_neighbour(seed: int) -> None:
    for name in ("free_pointer", "double_free", "reuse_after_free"):
        with sandbox.boot(HERE / f"{name}.asm", hz=0, freelist_random=seed) as kernel:
            assert attack(kernel).succeeds


def test_a_random_order_puts_the_neighbour_elsewhere_in_most_cases() -> None:
    ends = []
    for seed in range(2, 18):
        with sandbox.boot(HERE / "overflow.asm", hz=0, freelist_random=seed) as kernel:
            ends.append(attack(kernel).end)
    assert ends.count("fails") >= 14


if __name__ == "__main__":
    EXPECTED.write_text(text(), "utf-8")
