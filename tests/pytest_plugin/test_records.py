"""Records of tests: when they are kept, what they are called, and that they open where the test failed."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

import sandbox
from sandbox.cli import main
from sandbox.pytest_plugin.records import record_names
from tests.pytest_plugin.sessions import fails, passes, run

pytest_plugins = "pytester"

TESTS = """
    import pytest

    def test_good(kernel):
        kernel.call("kmalloc", 64)

    def test_bad(kernel):
        kernel.call("kfree", 0x1234)

    def test_without_a_kernel():
        assert False
"""


@pytest.mark.parametrize(("when", "names"), [
    ("on-failure", ["test_bad.rec"]), ("always", ["test_bad.rec", "test_good.rec"]), ("never", []),
])
def test_the_records_asked_for_are_left_behind_and_nothing_else(
        pytester: pytest.Pytester, when: str, names: list[str]) -> None:
    pytester.makepyfile(test_it=TESTS)
    before = {path.name for path in pytester.path.iterdir()} - {"__pycache__"}
    result = run(pytester, f"--sandbox-record={when}")
    result.assert_outcomes(passed=1, failed=2)
    after = {path.name for path in pytester.path.iterdir()} - {"__pycache__"}
    assert after - before == ({".sandbox"} if names else set())
    assert sorted(path.name for path in pytester.path.glob(".sandbox/*")) == names
    assert ("sandbox step" in result.stdout.str()) == bool(names)


@pytest.mark.parametrize(("marker", "body", "failure"), [
    ("", "kernel.call('kfree', 0x1234)", sandbox.GuestPanic),
    ("", "kernel.call('memset', 0x100, 7, 5)", sandbox.GuestFault),
    ("", "kernel.call('kmalloc', 64, limit=30)", sandbox.GuestLimit),
    ("shadow=True", "p = kernel.call('kmalloc', 40); kernel.call('memset', p, 1, 41)", sandbox.ShadowError),
    ("shadow=True", "p = kernel.call('kmalloc', 40); kernel.call('kfree', p); kernel.call('kfree', p)",
     sandbox.ShadowError),
    ("program='14', shadow=True", "assert kernel.run().ok", sandbox.ShadowError),
    ("allocator='20', shadow=True", "p = kernel.allocator.allocate(9); kernel.call('memset', p, 1, 10)",
     sandbox.ShadowError),
    ("seed=9, freelist_random=True", "kernel.memory.write_u64(kernel.call('kmalloc', 64), 5); assert False", None),
])
def test_a_record_opens_at_the_guilty_instruction_and_runs_backwards(
        pytester: pytest.Pytester, marker: str, body: str, failure: type | None) -> None:
    told = fails(pytester, f"import pytest\n\n@pytest.mark.sandbox({marker})\ndef test_it(kernel):\n    {body}\n")
    with sandbox.open_record(pytester.path / ".sandbox" / "test_it.rec") as timeline:
        kernel = timeline.kernel
        assert timeline.notes == () and timeline.position == timeline.length
        assert failure is None if kernel.failure is None else isinstance(kernel.failure, failure or ())
        _, at, moment = told.partition("sandbox step .sandbox/test_it.rec --at ")
        if failure is None:
            assert not at and kernel.options.seed == 9
            return
        here = timeline.goto(int(moment.split()[0]))
        guilty = told.splitlines()[told.splitlines().index(next(
            line for line in told.splitlines() if line.startswith("--") and (
                " guilty " in line or " panic " in line or " stopped " in line))) + 1]
        assert guilty.startswith(f"@{here.instruction:,}")
        assert timeline.back().instruction == here.instruction - 1
        assert timeline.step().rip == here.rip


def test_the_command_in_the_report_steps_through_the_record(pytester: pytest.Pytester) -> None:
    told = fails(pytester, "def test_it(kernel):\n    kernel.call('memset', 0x100, 7, 5)\n")
    command = next(line for line in told.splitlines() if line.startswith("  sandbox step ")).split()
    done = subprocess.run([sys.executable, "-m", "sandbox", *command[1:], "--plain"], cwd=pytester.path, input="back\n",
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rep stosb" in done.stdout or "memset+0x24" in done.stdout


def test_the_record_of_a_test_without_a_program_opens_where_the_test_stood(
        pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told = fails(pytester, "def test_it(kernel):\n    assert kernel.call('kmalloc', 64) == 0\n")
    command = next(line for line in told.splitlines() if line.startswith("  sandbox step ")).split()
    assert "--at" not in command
    monkeypatch.chdir(pytester.path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("back\n"))
    capsys.readouterr()
    assert main([*command[1:], "--plain"]) == 0
    out, err = capsys.readouterr()
    first = re.match(r"@([0-9,]+) of ([0-9,]+) ", out)
    assert not err and first and first[1] == first[2]


def test_every_kernel_of_a_test_has_its_record(pytester: pytest.Pytester) -> None:
    fails(pytester, """
        import pytest

        @pytest.mark.parametrize("text", ["a/b", "ä"])
        def test_it(kernel, kernel_factory, text):
            kernel_factory().call("kmalloc", 100)
            assert False
    """, count=2)
    names = sorted(path.name for path in pytester.path.glob(".sandbox/*"))
    assert names == ["test_it_a_b-2.rec", "test_it_a_b.rec", "test_it_xe4-2.rec", "test_it_xe4.rec"]


def test_what_the_test_has_undone_is_not_in_its_record_and_a_timeline_of_its_own_stays_where_it_was(
        pytester: pytest.Pytester) -> None:
    fails(pytester, """
        import sandbox

        def test_it(kernel):
            before = kernel.snapshot()
            kernel.call("kmalloc", 8)
            kernel.restore(before)
            kernel.call("kmalloc", 100)
            timeline = sandbox.record(kernel)
            timeline.goto(timeline.length - 3)
            assert False
    """)
    with sandbox.open_record(pytester.path / ".sandbox" / "test_it.rec") as timeline:
        assert [event.bytes_req for event in timeline.trace] == [100]
        assert timeline.position == timeline.length - 3


def test_a_record_that_cannot_be_written_is_told_and_the_failure_with_it(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath(".sandbox").write_text("a file where the directory should be")
    told = fails(pytester, "def test_it(kernel):\n    kernel.call('kfree', 0x1234)\n")
    assert "there is no record: " in told and "File exists" in told and "GuestPanic" in told


def test_the_command_is_relative_to_where_pytest_was_started(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]")
    below = pytester.mkdir("below")
    below.joinpath("test_it.py").write_text("def test_it(kernel):\n    assert False\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(below)
        told = run(pytester).stdout.str()
    assert pytester.path.joinpath(".sandbox", "test_it.rec").exists()
    assert "sandbox step" not in told or str(pytester.path) in told


def test_tests_of_one_name_have_records_of_different_names() -> None:
    assert record_names(["a.py::test_x", "a.py::test_y[1/2]"]) == {
        "a.py::test_x": "test_x", "a.py::test_y[1/2]": "test_y_1_2"}
    assert record_names(["a.py::TestA::test_x", "b/c.py::test_x", "a.py::test_x"]) == {
        "a.py::TestA::test_x": "TestA.test_x", "b/c.py::test_x": "b_c.py.test_x", "a.py::test_x": "a.py.test_x"}
    odd = record_names(["a.py::test_x[/]", "a.py::test_x[?]", "a.py::test_x[..]", f"a.py::test_{'x' * 300}"])
    assert len(set(odd.values())) == 4 and all(len(name) < 120 and "/" not in name for name in odd.values())


def test_a_passing_session_leaves_nothing(pytester: pytest.Pytester) -> None:
    passes(pytester, "def test_it(kernel):\n    pass\n")
    assert not pytester.path.joinpath(".sandbox").exists()
