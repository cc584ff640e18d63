"""The marker: its options reach the kernel, and what cannot be is refused in a sentence that names the test."""

from __future__ import annotations

import inspect

import pytest

import sandbox
from sandbox.pytest_plugin.options import LIMITS, boot_names
from tests.pytest_plugin.sessions import fails, passes, run

pytest_plugins = "pytester"


def test_every_option_of_boot_is_one_of_the_marker() -> None:
    assert boot_names() == tuple(inspect.signature(sandbox.boot).parameters)
    assert not set(boot_names()) & set(LIMITS)


def test_the_options_reach_the_kernel_and_the_nearest_marker_wins(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("seven.asm").write_text("main:\n    mov eax, 7\n    ret\n")
    passes(pytester, """
        import pytest

        pytestmark = pytest.mark.sandbox(seed=3, hz=0)

        @pytest.mark.sandbox(program="seven.asm", ram="32M")
        class TestClass:
            def test_class(self, kernel):
                options = kernel.options
                assert (options.seed, options.hz, options.ram_size >> 20) == (3, 0, 32)
                assert kernel.run().returned == 7

            @pytest.mark.sandbox(seed=4, slab_debug="FZ", magazines=False, empty_slab_limit=2)
            def test_function(self, kernel):
                options = kernel.options
                assert (options.seed, options.hz, options.slab_debug) == (4, 0, "FZ")
                assert options.empty_slab_limit == 2 and not options.magazines
                assert len(kernel.physical) >> 20 == 32

        @pytest.mark.sandbox(freelist_random=True, freelist_hardened=True, shadow=True, quarantine=2)
        def test_other(kernel):
            assert kernel.options.freelist_random and kernel.options.freelist_hardened
            assert kernel.shadow.options.quarantine == 2 and kernel.program is None

        @pytest.mark.sandbox(allocator="20", arena="64K")
        def test_allocator(kernel):
            assert kernel.allocator.arena.size == 64 << 10
            assert kernel.allocator.allocate(40)
    """, count=4)


@pytest.mark.parametrize(("options", "words"), [
    ("max_page=1", "there is no option 'max_page'; did you mean max_pages?"),
    ("shadows=True", "there is no option 'shadows'; did you mean shadow?"),
    ("colour='red'", "there is no option 'colour': there are program, ram, "),
    ("'record.asm'", "its options have names: 'record.asm' has none"),
    ("ram='64X'", "'64X' is not a size"),
    ("hz=5", "hz is a number from 19 to 10000 or 0 for no ticks, not 5"),
    ("seed='x'", "seed is a number from 0 to 18446744073709551615, not 'x'"),
    ("magazines=1", "magazines is True or False, not 1"),
    ("slab_debug='X'", "'X' is no letter of it"),
    ("shadow='maybe'", 'shadow is True, False or "collect", not '),
    ("quarantine=3", "they need shadow=True"),
    ("refused=1.5", "refused is the number that deallocate returns"),
    ("max_instructions=-1", "max_instructions is a number, not -1"),
    ("max_instructions=True", "max_instructions is a number, not True"),
    ("max_pages='3'", "max_pages is a number, not '3'"),
    ("max_waste=101", "max_waste is a percentage from 0 to 100, not 101"),
    ("max_waste=True", "max_waste is a percentage from 0 to 100, not True"),
    ("no_leaks=1", "no_leaks is True or False, not 1"),
    ("sound_heap=None", "sound_heap is True or False, not None"),
    ("isolated='yes'", "isolated is True or False, not 'yes'"),
])
def test_what_cannot_be_ends_the_collection_with_one_sentence(
        pytester: pytest.Pytester, options: str, words: str) -> None:
    pytester.makepyfile(test_it=f"""
        import pytest

        class TestThings:
            @pytest.mark.sandbox({options})
            def test_one(self, kernel):
                pass
    """)
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = [line for line in result.errlines if line]
    assert len(said) == 1
    assert said[0].startswith("ERROR: test_it.py::TestThings::test_one: @pytest.mark.sandbox: ")
    assert words in said[0]


def test_only_the_tests_that_run_are_read(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import pytest

        @pytest.mark.sandbox(colour=1)
        def test_wrong(kernel):
            pass

        def test_right(kernel):
            pass
    """, "-k", "right")


def test_a_program_that_is_missing_or_does_not_assemble_fails_its_own_test(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("broken.asm").write_text("main:\n    movv eax, 7\n    ret\n")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.sandbox(program="./missing.asm")
        def test_missing(kernel):
            pass

        @pytest.mark.sandbox(program="broken.asm")
        def test_broken(kernel):
            pass

        @pytest.mark.sandbox(program="01")
        def test_right(kernel):
            assert kernel.run().ok
    """)
    result = run(pytester)
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["missing.asm: no such file", "broken.asm:2: *"])
    assert len(result.outlines) < 24 and "def kernel" not in result.stdout.str()


def test_limits_without_a_kernel_are_no_limits_and_say_so(pytester: pytest.Pytester) -> None:
    told = fails(pytester, """
        import pytest

        @pytest.mark.sandbox(sound_heap=True, max_pages=3)
        def test_one():
            pass
    """)
    assert "max_pages, sound_heap: this test has no kernel that they could be about" in told


def test_limits_of_a_class_do_not_bind_its_tests_without_a_kernel(pytester: pytest.Pytester) -> None:
    passes(pytester, """
        import pytest

        @pytest.mark.sandbox(sound_heap=True)
        class TestClass:
            def test_one(self):
                pass

            def test_two(self, kernel):
                pass
    """, count=2)
