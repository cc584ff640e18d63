"""C through the front door: several files, warnings, the C library's malloc, and what people get wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import sandbox
from sandbox.errors import CompileError, CompileWarning, LinkError, ProgramError, UsageError
from tests.compilers import needs_compiler

pytestmark = needs_compiler
FREELIST = Path(__file__).resolve().parents[2] / "conformance" / "allocators" / "freelist.c"


@pytest.fixture(autouse=True)
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with some modules, as one works in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proj" / "inner").mkdir(parents=True)
    (tmp_path / "proj" / "conf.h").write_text("#define TEN 10\n")
    (tmp_path / "proj" / "inner" / "ten.c").write_text(
        '#include "../conf.h"\nint ten(void) { return TEN; }\nconst char *here(void) { return __FILE__; }\n')
    (tmp_path / "proj" / "main.c").write_text("int ten(void);\nint main(void) { return ten() - 10; }\n")
    return tmp_path


def test_a_file_may_include_what_lies_below_the_directory_of_any_that_is_given_with_it() -> None:
    with sandbox.boot("proj/main.c", modules=["proj/inner/ten.c"]) as kernel:
        assert kernel.run().ok
        assert str(kernel.line(kernel.symbols["ten"])) == "proj/inner/ten.c:2"
        assert kernel.memory.cstring(kernel.call("here")) == b"proj/inner/ten.c"
    with pytest.raises(CompileError, match=r"proj/inner/ten.c:1: .*conf.h lies outside"):
        sandbox.boot(modules=["proj/inner/ten.c"])


def test_modules_without_main_are_called_and_not_run() -> None:
    (Path("sum.c")).write_text("long sum(long a, long b) { return a + b; }\n")
    with sandbox.boot(modules="sum.c") as kernel:
        assert kernel.call("sum", 40, 2) == 42
        with pytest.raises(UsageError, match="sum takes 2 arguments, and 1 were given: long sum"):
            kernel.call("sum", 1)
        with pytest.raises(UsageError, match="there is no main to run"):
            kernel.run()
    with pytest.raises(ProgramError, match=r"sum.c: it does not define main"):
        sandbox.boot("sum.c")


def test_what_the_compiler_says_of_good_code_is_a_python_warning() -> None:
    Path("loose.c").write_text("int f(void)\n{\n    int unused;\n    return 0;\n}\n")
    with pytest.warns(CompileWarning, match=r"loose.c:3:9: warning: unused variable"):
        sandbox.boot(modules="loose.c").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sandbox.boot(modules="loose.c", cflags="-w").close()


def test_malloc_stands_on_the_allocator_under_test() -> None:
    Path("user.c").write_text("""
        #include <stdlib.h>
        #include <string.h>
        int main(void) {
            char *text = calloc(1, 20);
            text = realloc(strcpy(text, "kept"), 100);
            int wrong = strcmp(text, "kept") != 0;
            free(text);
            return wrong;
        }""")
    with sandbox.boot("user.c", allocator=FREELIST, shadow=True) as kernel, kernel.trace() as trace:
        before = kernel.allocator.stats()
        assert kernel.run().ok
        assert [event.function for event in trace] == ["allocate", "allocate", "deallocate", "deallocate"]
        assert kernel.allocator.stats() == before
    with sandbox.boot("user.c", shadow=True) as kernel, kernel.trace() as trace:
        assert kernel.run().ok
        assert [event.function for event in trace] == ["kmalloc", "krealloc", "kfree"]


def test_an_own_malloc_without_its_realloc_is_refused_instead_of_mixed_with_another_heap() -> None:
    Path("half.c").write_text("""
        #include <stdlib.h>
        static char room[64];
        void *malloc(size_t size) { return size <= 64 ? room : 0; }
        void free(void *pointer) { (void)pointer; }
        int main(void) { return realloc(malloc(8), 16) == 0; }""")
    with pytest.raises(LinkError, match=r"'realloc' of the C library does not go with a '(free|malloc)'"):
        sandbox.boot("half.c")


@pytest.mark.parametrize(("options", "said"), [
    ({"program": "proj/main.c", "cflags": 7}, "cflags are flags"),
    ({"program": "proj/main.c", "cflags": "'"}, "cannot be split"),
    ({"program": "proj/main.c", "cc": ""}, "cc is a compiler's command"),
    ({"modules": 7}, "modules are paths"),
    ({"allocator": []}, "at least one file"),
])
def test_options_that_cannot_be_are_refused_in_a_sentence(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sandbox.boot(**options)  # type: ignore[arg-type]


def test_a_program_that_brings_its_own_malloc_is_shadowed_by_it() -> None:
    Path("own.c").write_text("""
        #include <stddef.h>
        static char pool[4096];
        static size_t next;
        __attribute__((noinline)) void *malloc(size_t size) { return pool + (next += (size + 15) / 16 * 16); }
        __attribute__((noinline)) void free(void *pointer) { asm volatile("" :: "r"(pointer)); }
        int main(void) {
            char *text = malloc(10);
            free(text);
            return *text;
        }""")
    with sandbox.boot("own.c", shadow=True) as kernel:
        assert "use-after-free: main+" in str(kernel.run()) and "own.c:10" in str(kernel.failure), kernel.failure


@pytest.mark.parametrize(("name", "said"), [
    ("x.cpp", r"C\+\+: the guest takes"), ("x.h", "a header: the guest takes"), ("x.S", "assembly for cpp")])
def test_files_that_are_no_programs_are_told_what_they_are(name: str, said: str) -> None:
    Path(name).write_text("int main(void) { return 0; }\n")
    with pytest.raises(ProgramError, match=said):
        sandbox.boot(name)
