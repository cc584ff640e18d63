"""The limits of the marker: they hold when a test ends, and are counted by what Python read and traced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sandbox
from tests.pytest_plugin import sessions
from tests.pytest_plugin.sessions import passes

pytest_plugins = "pytester"

WASTES = 'kernel.call("kfree", kernel.call("kmalloc", 2000))'


@pytest.fixture(scope="module")
def cost() -> Iterator[int]:
    """Instructions of WASTES; it takes a page for magazines and one for the object."""
    with sandbox.boot() as kernel:
        before = kernel.instructions
        kernel.call("kfree", kernel.call("kmalloc", 2000))
        yield kernel.instructions - before


def fails(pytester: pytest.Pytester, text: str) -> str:
    """What pytest says about tests that fail, of which no record is needed."""
    return sessions.fails(pytester, text, "--sandbox-record=never")


def limited(limits: str, body: str) -> str:
    """A file with one test."""
    return f"import pytest, sandbox\n\n@pytest.mark.sandbox({limits})\ndef test_one(kernel, still_held):\n    {body}\n"


def test_limits_hold_up_to_exactly_their_number(pytester: pytest.Pytester, cost: int) -> None:
    waste = 100 * (8192 - 2000) / 8192
    passes(pytester, limited(f"max_instructions={cost}, max_pages=2, max_waste={waste}, no_leaks=True, sound_heap=True",
                             WASTES))


def test_one_instruction_too_many(pytester: pytest.Pytester, cost: int) -> None:
    told = fails(pytester, limited(f"max_instructions={cost - 1}", WASTES))
    assert f"max_instructions={cost - 1:,}: it took {cost:,} instructions" in told
    assert "- instructions -" in told and "\nkmalloc  " in told and "\nkfree  " in told and "worst  at" in told


def test_instructions_before_the_test_do_not_count_and_those_of_a_failure_do(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("max_instructions=4", (
        'pytest.raises(sandbox.GuestLimit, kernel.call, "kmalloc", 8, limit=5)')))
    assert "max_instructions=4: it took 5 instructions" in told


def test_one_page_too_many_names_who_has_them(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("max_pages=1", WASTES))
    assert "max_pages=1: it held 2 pages at instruction " in told
    assert "- pages -" in told and "\nmagazine                   1       4,096           0   100.0%" in told
    assert "\nkmalloc-2k                 1       4,096       2,000    51.2%" in told


def test_pages_that_were_given_back_before_others_were_taken_do_not_add_up(pytester: pytest.Pytester) -> None:
    body = "for _ in range(9):\n        kernel.call('free_pages', kernel.call('get_free_pages', 2), 2)"
    passes(pytester, limited("max_pages=4", body))
    assert "it held 4 pages" in fails(pytester, limited("max_pages=3", body))


def test_waste_is_what_nobody_asked_for_at_the_peak_of_pages(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("max_waste=75.5", WASTES))
    assert "max_waste=75.5: 75.6% of 8,192 bytes in pages were asked for by nobody, at instruction " in told
    assert "- waste -" in told
    passes(pytester, limited("max_waste=0", "kernel.call('free_pages', kernel.call('get_free_pages', 0), 0)"))


def test_what_a_call_returned_and_nobody_freed_is_a_leak_with_its_allocation(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("no_leaks=True", "kernel.call('kmalloc', 40); kernel.call('kmalloc', 9)"))
    assert "no_leaks: 2 allocations, 80 bytes, nobody frees and nothing leads to" in told
    assert "- leaks -" in told and ", 64 bytes of kmalloc-64\n  allocated @" in told
    assert " kmalloc(9)\n      the test" in told


@pytest.mark.parametrize("body", [
    "kernel.call('kfree', kernel.call('kmalloc', 40))",
    "still_held(kernel.call('kmalloc', 40), kernel.call('get_free_pages', 0))",
    # an object that another one leads to, which the test holds
    "p = kernel.call('kzalloc', 100); kernel.memory.write_u64(p, kernel.call('kmalloc', 9)); still_held(p)",
    "kernel.call('kfree', 0)",
])
def test_what_is_freed_kept_or_reached_is_no_leak(pytester: pytest.Pytester, body: str) -> None:
    passes(pytester, limited("no_leaks=True", body))


def test_pages_leak_too_and_so_does_what_a_program_forgets(pytester: pytest.Pytester) -> None:
    assert "no_leaks: 1 allocation, 4,096 bytes" in fails(
        pytester, limited("no_leaks=True", "kernel.call('get_free_pages', 0)"))
    told = fails(pytester, limited("no_leaks=True, program='22'", "assert kernel.run().ok"))
    assert "nobody frees and nothing leads to" in told and "main+0x" in told


def test_an_unsound_heap_names_the_rule_and_who_wrote_there(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("sound_heap=True", (
        "cache = kernel.heap.cache('kmalloc-64'); kernel.memory.write_u64(cache.address, 5)")))
    assert "sound_heap: 2 violations, the first: cpu-slot at 0x" in told
    assert "- broken heap -" in told and "last written: @" in told and "Python writes 0x0000000000000005" in told


def test_an_object_that_the_trace_knows_to_be_held_must_not_be_in_a_magazine(pytester: pytest.Pytester) -> None:
    """The bytes alone are in order: a pointer was pushed twice, and once popped."""
    told = fails(pytester, limited("sound_heap=True", (
        "p = kernel.call('kmalloc', 64); kernel.call('kfree', p); kernel.call('kfree', p);"
        " q = kernel.call('kmalloc', 64); assert q == p")))
    assert "magazine-live" in told or "magazine-twice" in told


def test_going_back_undoes_what_was_taken(pytester: pytest.Pytester, cost: int) -> None:
    passes(pytester, limited(f"max_instructions={cost}, max_pages=2, no_leaks=True, sound_heap=True", (
        "before = kernel.snapshot(); [kernel.call('kmalloc', 4000) for _ in range(5)]; kernel.restore(before);"
        f" {WASTES}")))
    passes(pytester, limited("no_leaks=True, sound_heap=True", (
        "pytest.raises(sandbox.GuestPanic, kernel.call, 'kfree', 0x1234); kernel.rewind()")))


def test_a_heap_that_cannot_be_judged_fails_the_limit_that_wants_it_judged(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("no_leaks=True, sound_heap=True", (
        "pytest.raises(sandbox.GuestPanic, kernel.call, 'kfree', 0x1234)")))
    for limit in ("no_leaks", "sound_heap"):
        assert f"{limit}: the guest stopped in the middle (kernel panic: kfree: 0x0000000000001234 is not slab " in told
    assert told.count("kernel.rewind() takes it back") >= 2


def test_a_test_that_fails_by_itself_is_not_judged_too(pytester: pytest.Pytester) -> None:
    told = fails(pytester, limited("no_leaks=True, max_pages=0", "kernel.call('kmalloc', 8); assert False, 'its own'"))
    assert "its own" in told and "no_leaks:" not in told and "max_pages=0:" not in told


def test_each_kernel_of_a_factory_is_judged_and_named(pytester: pytest.Pytester) -> None:
    told = fails(pytester, """
        import pytest

        @pytest.mark.sandbox(no_leaks=True)
        def test_one(kernel, kernel_factory):
            kernel_factory().call("kmalloc", 40)
    """)
    assert "kernel 2: no_leaks: 1 allocation, 64 bytes" in told and "kernel 1" not in told


def test_somebody_elses_allocator_is_judged_by_its_own_calls_and_pages(pytester: pytest.Pytester) -> None:
    allocator = 'allocator="20", arena="16K", '
    passes(pytester, limited(f"{allocator}max_pages=5, max_waste=99.1, no_leaks=True, sound_heap=True", (
        "assert kernel.allocator.deallocate(kernel.allocator.allocate(200))")))
    told = fails(pytester, limited(f"{allocator}no_leaks=True", "kernel.allocator.allocate(200)"))
    assert "no_leaks: 1 allocation, 200 bytes, nobody frees" in told
    told = fails(pytester, limited(f"{allocator}max_pages=2, max_waste=9", (
        "chunk = kernel.allocator.allocate(200); kernel.call('memset', chunk, 1, 200)")))
    assert "max_pages=2: it held " in told and "\nits memory  " in told and "max_waste=9: " in told
