"""The plugin with everything else that pytest does: workers, the debugger, JUnit, -x, classes, tests that crash."""

from __future__ import annotations

import os
from xml.etree import ElementTree

import pytest

from tests.pseudo_terminal import PseudoTerminal
from tests.pytest_plugin.sessions import QUICK, fails, passes, run

pytest_plugins = "pytester"

BAD = "def test_bad(kernel):\n    kernel.call('kmalloc', 40)\n    kernel.call('kfree', 0x1234)\n"
BAD_SECTIONS = ["panic", "console", "last allocations", "look"]


def test_with_workers_reports_records_and_crashes_are_those_of_each_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=f"""
        import os, pytest

        @pytest.mark.parametrize("number", range(6))
        def test_good(kernel, number):
            assert kernel.call("kmalloc", 64) == 0xffff888000003000

        def test_crash(kernel):
            os.abort()

        @pytest.mark.sandbox(colour="red")
        def test_wrong_marker(kernel):
            pass

        {BAD.replace(chr(10), chr(10) + ' ' * 8)}
    """)
    result = run(pytester, "-n", "2", "--sandbox-seed=3", apart=True)
    result.assert_outcomes(passed=6, failed=2, errors=1)
    told = result.stdout.str()
    assert "sandbox: seed 3, records on-failure" in told
    assert "crashed while running 'test_it.py::test_crash'" in told
    assert "\ntest_it.py::test_wrong_marker: @pytest.mark.sandbox: there is no option 'colour'" in told
    assert "_pytest/" not in told and "During handling" not in told
    for title in BAD_SECTIONS:
        assert f"- {title} -" in told
    assert "  sandbox step .sandbox/test_bad.rec --at " in told
    assert [path.name for path in pytester.path.glob(".sandbox/*")] == ["test_bad.rec"]


def test_the_sections_reach_junit(pytester: pytest.Pytester) -> None:
    fails(pytester, BAD, "--junit-xml=report.xml")
    failure = ElementTree.parse(pytester.path / "report.xml").find(".//failure")
    assert failure is not None and "GuestPanic" in failure.attrib["message"]
    assert failure.text is not None
    for title in BAD_SECTIONS:
        assert f"- {title} -" in failure.text


@pytest.mark.parametrize("style", ["auto", "long", "short", "native"])
def test_the_sections_are_there_in_every_style_and_without_captured_output(
        pytester: pytest.Pytester, style: str) -> None:
    told = fails(pytester, BAD, f"--tb={style}", "--show-capture=no")
    assert all(f"- {title} -" in told for title in BAD_SECTIONS)


@pytest.mark.parametrize("style", ["line", "no"])
def test_who_wants_one_line_gets_one(pytester: pytest.Pytester, style: str) -> None:
    assert "- panic -" not in fails(pytester, BAD, f"--tb={style}")


def test_the_first_failure_stops_and_leaves_the_one_record(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"{BAD}\ndef test_next(kernel):\n    assert False\n")
    result = run(pytester, "-x")
    result.assert_outcomes(failed=1)
    assert [path.name for path in pytester.path.glob(".sandbox/*")] == ["test_bad.rec"]


def test_classes_parameters_and_fixtures_of_the_users_own(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import pytest

        @pytest.fixture
        def pointer(kernel):
            pointer = kernel.call("kmalloc", 64)
            yield pointer
            kernel.call("kfree", pointer)                        # the kernel outlives what was made of it
            assert [event.kind for event in kernel.trace][-1] == "free"

        class TestThings:
            @pytest.mark.parametrize("byte", [1, 255])
            def test_one(self, kernel, pointer, byte):
                kernel.memory[pointer] = byte
                assert kernel.memory[pointer : pointer + 1] == bytes([byte])

            @pytest.fixture
            def kernel(self, kernel):                            # a fixture over the plugin's
                kernel.call("kmalloc", 8)
                return kernel

            def test_two(self, kernel, pointer):
                assert len(kernel.trace) == 2
    """, count=3)


def test_a_project_may_have_a_kernel_fixture_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef kernel():\n    return 'mine'\n")
    passes(pytester, "def test_it(kernel):\n    assert kernel == 'mine'\n")


# -- isolated tests ---------------------------------------------------------------------------------------------
def test_an_isolated_test_that_dies_fails_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="""
        import os, signal, pytest

        here = os.getpid()

        @pytest.fixture(scope="module")
        def outer(tmp_path_factory):
            path = tmp_path_factory.mktemp("outer") / "open"
            path.write_text("")
            yield path
            assert os.getpid() == here
            path.unlink()

        def test_before(kernel, outer):
            pass

        @pytest.mark.sandbox(isolated=True)
        class TestIsolated:
            def test_dies(self, kernel, outer):
                assert os.getpid() != here
                os.kill(os.getpid(), signal.SIGSEGV)

            def test_leaves(self, kernel):
                os._exit(3)

            def test_fails(self, kernel, outer):
                print("said in the child")
                kernel.call("kfree", 0x1234)

            def test_passes(self, kernel, outer):
                assert kernel.call("kmalloc", 64) == 0xffff888000003000 and outer.exists()

        def test_after(kernel, outer):
            assert outer.exists() and os.getpid() == here
            assert kernel.call("kmalloc", 64) == 0xffff888000003000
    """)
    result = run(pytester, "-v")
    result.assert_outcomes(passed=3, failed=3)
    told = result.stdout.str()
    assert "the process of this isolated test was killed by SIGSEGV" in told
    assert "the process of this isolated test ended with status 3 before its reports came" in told
    assert "said in the child" in told and "- panic -" in told
    assert "sandbox step .sandbox/TestIsolated.test_fails.rec --at " in told
    with pytest.raises(ChildProcessError):               # nobody is left
        os.waitpid(-1, os.WNOHANG)


def test_an_isolated_test_may_be_the_first(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import os, pathlib, pytest

        here = os.getpid()

        @pytest.fixture(scope="session")
        def outer():
            yield os.getpid()
            pathlib.Path(f"closed-{os.getpid() == here}").write_text("")

        @pytest.mark.sandbox(isolated=True)
        def test_one(kernel, outer):
            assert outer == os.getpid() != here

        def test_two(kernel, outer):
            assert outer == here and pathlib.Path("closed-False").exists()
    """, count=2)


def test_isolated_tests_are_debugged_in_this_process(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import os, pytest

        here = os.getpid()

        @pytest.mark.sandbox(isolated=True)
        def test_it(kernel):
            assert os.getpid() == here
    """, "--pdb")


# -- the debugger -----------------------------------------------------------------------------------------------
def test_at_the_debuggers_prompt_the_kernel_is_alive(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=BAD)
    with PseudoTerminal(*QUICK, "--pdb", "--color=no", "test_it.py", columns=120, module="pytest",
                        directory=pytester.path) as terminal:
        terminal.wait("(Pdb)")
        terminal.type("p len(kernel.trace), kernel.failure is not None\r")
        terminal.wait("(2, True)")
        terminal.type("kernel.rewind()\rp hex(kernel.call('kmalloc', 40))\r")
        terminal.wait("'0xffff88")
        terminal.type("q\r")
        assert terminal.end() == pytest.ExitCode.INTERRUPTED
    assert [path.name for path in pytester.path.glob(".sandbox/*")] == ["test_bad.rec"]
