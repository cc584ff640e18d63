"""The plugin's fixtures, in sessions of their own."""

from __future__ import annotations

import pytest

from tests.pytest_plugin import sessions
from tests.pytest_plugin.sessions import run

pytest_plugins = "pytester"

COUNTING = """
    from sandbox.pytest_plugin import STOCK

    def pytest_sessionfinish(session):
        stock = session.config.stash[STOCK]
        print("boots", stock.boots, "restores", stock.restores)
"""


def passes(pytester: pytest.Pytester, text: str, *arguments: str, count: int = 1) -> pytest.RunResult:
    """A session with kernels of its own."""
    return sessions.passes(pytester, text, *arguments, count=count, fresh=True)


def test_five_hundred_tests_boot_once_and_restore_five_hundred_times(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(COUNTING)
    result = passes(pytester, """
        import pytest

        @pytest.mark.parametrize("number", range(500))
        def test_the_first_object_is_the_same(kernel, number):
            assert kernel.call("kmalloc", 64) == 0xffff888000003000
    """, "-s", "-q", count=500)
    result.stdout.fnmatch_lines(["*boots 1 restores 500"])


def test_a_kernel_has_its_heap_its_machine_and_a_trace_that_begins_with_the_test(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        def test_one(kernel):
            pointer = kernel.call("kmalloc", 64)
            assert kernel.heap.find(pointer).cache.name == "kmalloc-64"
            assert kernel.machine.instructions == kernel.instructions
            assert [event.kind for event in kernel.trace] == ["alloc"]

        def test_two(kernel):
            assert list(kernel.trace) == [] and kernel.trace.recording
            with kernel.trace() as inner:
                kernel.call("kfree", kernel.call("kmalloc", 8))
            assert [event.kind for event in inner] == ["alloc", "free"] == [event.kind for event in kernel.trace]
            kernel.call("kmalloc", 8)
            assert len(inner) == 2 and len(kernel.trace) == 3
    """, count=2)


def test_nothing_that_a_test_does_to_its_kernel_reaches_the_next(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import pytest, sandbox

        def fresh(kernel):
            assert kernel.failure is None and kernel.console == "" and list(kernel.trace) == []
            assert kernel.call("kmalloc", 64) == 0xffff888000003000
            assert kernel.call.__name__ == "call" and kernel.instructions < 120_000

        def test_a_failure(kernel):
            fresh(kernel)
            with pytest.raises(sandbox.GuestPanic):
                kernel.call("kfree", 0x1234)

        def test_a_hook(kernel):
            fresh(kernel)
            kernel.machine.cpu.hook_code([int(kernel.symbols["kmalloc"])], lambda _: 1 / 0)

        def test_a_patched_method(kernel):
            fresh(kernel)
            kernel.call = None

        def test_a_listener(kernel):
            fresh(kernel)
            kernel.machine.serial.listener = lambda data: 1 / 0

        def test_an_interrupt_and_a_fault_that_wait(kernel):
            fresh(kernel)
            kernel.inject("pages:1")
            kernel.interrupt_at(kernel.instructions + 50, 0)

        def test_a_timeline_that_stands_in_the_past(kernel):
            fresh(kernel)
            timeline = sandbox.record(kernel)
            timeline.goto(timeline.length - 10)

        def test_a_closed_kernel(kernel):
            fresh(kernel)
            kernel.close()

        def test_memory(kernel):
            fresh(kernel)
            kernel.memory.write_u64(kernel.symbols["slab_caches"], 1)

        def test_last(kernel):
            fresh(kernel)
    """, count=9)


def test_errors_that_a_shadow_collected_belong_to_their_test_alone(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import pytest

        @pytest.mark.sandbox(program="14", shadow="collect")
        @pytest.mark.parametrize("time", [1, 2])
        def test_it_is_found_each_time(kernel, time):
            assert kernel.shadow.errors == []
            assert kernel.run().ok
            assert [error.kind for error in kernel.shadow.errors] == ["out-of-bounds"]
    """, count=2)


def test_a_factory_makes_as_many_kernels_as_a_test_wants_and_closes_what_it_does_not_keep(
        pytester: pytest.Pytester) -> None:
    pytester.makeconftest(COUNTING)
    result = passes(pytester, """
        import pytest

        kernels = []

        @pytest.mark.sandbox(magazines=False)
        def test_several(kernel, kernel_factory):
            same, large, other = kernel_factory(), kernel_factory(ram="32M"), kernel_factory(magazines=True)
            kernels.extend([kernel, same, large, other])
            assert len({id(each) for each in kernels}) == 4
            assert [each.options.magazines for each in kernels] == [False, False, False, True]
            assert [len(each.physical) >> 20 for each in kernels] == [16, 16, 32, 16]
            kernel.call("kmalloc", 8)
            assert [len(each.trace) for each in kernels] == [1, 0, 0, 0]

        def test_they_were_given_back(kernel):
            assert kernel is kernels[3]                          # one of each kind waits for the next test
            assert sum(each.machine.cpu.closed for each in kernels) == 1
    """, "-s", count=2)
    result.stdout.fnmatch_lines(["*boots 4 restores 5"])


def test_every_kernel_is_closed_when_the_session_ends(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        import pytest
        import sandbox.pytest_plugin.stock as stock

        class Counted(stock.Booted):
            made = []

            def __init__(self, options):
                super().__init__(options)
                self.made.append(self)

        before, stock.Booted = stock.Booted, Counted

        @pytest.hookimpl(trylast=True)
        def pytest_unconfigure(config):
            stock.Booted = before
            print("open", [each.kernel.machine.cpu.closed for each in Counted.made].count(False), len(Counted.made))
    """)
    result = passes(pytester, """
        def test_one(kernel, kernel_factory):
            kernel_factory(seed=3)
    """, "-s")
    result.stdout.fnmatch_lines(["*open 0 2"])


def test_a_factory_takes_a_program_from_beside_the_test_and_refuses_what_boot_does_not_know(
        pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("seven.asm").write_text("main:\n    mov eax, 7\n    ret\n")
    passes(pytester, """
        import os, pytest, sandbox

        def test_one(kernel_factory, monkeypatch, tmp_path):
            monkeypatch.chdir(tmp_path)
            assert kernel_factory(program="seven.asm").run().returned == 7
            assert kernel_factory(program="01").run().ok
            assert kernel_factory(program="main:\\n    xor eax, eax\\n    ret\\n").run().ok
            with pytest.raises(sandbox.UsageError, match="no option 'magazine'; did you mean magazines[?]"):
                kernel_factory(magazine=False)
            with pytest.raises(sandbox.ProgramError, match="no such file"):
                kernel_factory(program="./nothing.asm")
    """)


def test_a_program_that_has_changed_is_assembled_anew_and_so_is_one_whose_include_has(
        pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("main.asm").write_text('.include "value.inc"\nmain:\n    mov eax, VALUE\n    ret\n')
    passes(pytester, """
        import pathlib, pytest

        here = pathlib.Path(__file__).parent

        @pytest.mark.parametrize("value", [3, 14, 159])
        def test_one(kernel_factory, value):
            (here / "value.inc").write_text(f".set VALUE, {value}\\n")
            assert kernel_factory(program="main.asm").run().returned == value

        @pytest.mark.parametrize("value", [26, 535])
        def test_two(kernel_factory, value):
            (here / "other.asm").write_text(f"main:\\n    mov eax, {value}\\n    ret\\n")
            assert kernel_factory(program="other.asm").run().returned == value
    """, count=5)


def test_seeds_come_from_the_command_line_unless_the_marker_has_one(pytester: pytest.Pytester) -> None:
    result = passes(pytester, """
        import pytest

        def test_default(kernel, kernel_factory):
            assert kernel.options.seed == 77 and kernel_factory().options.seed == 77
            assert kernel_factory(seed=1).options.seed == 1

        @pytest.mark.sandbox(seed=5, freelist_random=True)
        def test_marker(kernel, kernel_factory):
            assert kernel.options.seed == 5 and kernel_factory().options.seed == 5
    """, "--sandbox-seed=0x4d", count=2)
    result.stdout.fnmatch_lines(["sandbox: seed 77, records on-failure"])


@pytest.mark.parametrize(("argument", "words"), [
    ("--sandbox-seed=-1", "a seed is a number from 0 to 18446744073709551615, not '-1'"),
    ("--sandbox-seed=many", "a seed is a number from 0 to 18446744073709551615, not 'many'"),
    ("--sandbox-record=sometimes", "invalid choice: 'sometimes'"),
])
def test_a_wrong_option_of_the_command_line_is_refused_in_a_sentence(
        pytester: pytest.Pytester, argument: str, words: str) -> None:
    result = run(pytester, argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words.replace('[', '?').replace(']', '?')}*"])


def test_the_fixtures_and_the_marker_document_themselves(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--fixtures")
    result.stdout.fnmatch_lines(["kernel*", "    A fresh machine*", "kernel_factory*", "    Makes fresh kernels*",
                                 "still_held*", "    *the test keeps these allocations*"])
    result = run(pytester, "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.sandbox(program=, ram=, *"])
