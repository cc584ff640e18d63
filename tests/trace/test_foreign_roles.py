"""Allocators of somebody else with all that C knows: what the trace and the shadow say of realloc, calloc and the like,
of chunks that are merged and split, and of pages that are taken and given back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox.errors import ShadowError
from sandbox.trace.ledger import held
from sandbox.trace.usage import peak

from ..compilers import needs_compiler

pytestmark = needs_compiler

HERE = Path(__file__).parent / "allocators"
USER = HERE / "user.c"
ROLES = {"init": "init", "allocate": "allocate", "deallocate": "deallocate", "stats": None,
         "reallocate": "reallocate", "allocate_zeroed": "allocate_zeroed"}
OWN_NAMES = "-Dmalloc=allocate -Dfree=deallocate -Drealloc=reallocate -Dcalloc=allocate_zeroed -fno-builtin"
NAMED: dict[str, dict[str, Any]] = {
    "arena": {"allocator": HERE / "merging.c", "symbols": ROLES, "arena": "128K"},
    "break": {"allocator": HERE / "merging.c", "cflags": "-DON_BREAK"},
    "pages": {"allocator": HERE / "tags.c"},
}


def boot(name: str, program: Path | str | None = None, cflags: str = "", **options: Any) -> sandbox.Kernel:
    """A kernel with one of the allocators."""
    known = dict(NAMED[name])
    flags = f"{known.pop('cflags', '')} {cflags}"
    return sandbox.boot(program, cflags=flags, hz=0, **known, **options)


@pytest.fixture(params=list(NAMED))
def kernel(request: pytest.FixtureRequest) -> Iterator[sandbox.Kernel]:
    """One with each of them and a shadow, as if it had just been booted."""
    kernel = _booted(request.param)
    snapshot = kernel.snapshot()
    yield kernel
    kernel.restore(snapshot)


@cache
def _booted(name: str) -> sandbox.Kernel:
    return boot(name, shadow=True)


# -- sound programs and sound allocators ----------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "cflags"), [("arena", "-O0"), ("break", "-O2"), ("pages", "-O2")])
def test_merging_splitting_and_moving_are_not_accused_and_every_byte_is_accounted_for(name: str, cflags: str) -> None:
    with boot(name, USER, f"{cflags} {OWN_NAMES if name == 'arena' else ''}", shadow="collect") as kernel:
        with kernel.trace() as trace:
            assert kernel.run().returned == 0
        assert kernel.shadow is not None and kernel.shadow.errors == []
        events = [event for event in trace.walk() if event.foreign]
        numbers = {event.sequence for event in events}
        outer = [event for event in events if event.parent not in numbers]
        assert {event.kind for event in outer} == {"alloc", "realloc", "free"}
        assert held(trace.walk()) == {} and not any(chunk.live for chunk in kernel.shadow.chunks().values())
        live = dict[int, int]()
        for event in outer:                      # by the pointers alone
            if event.failed or not (event.address or event.old):
                continue
            if event.kind != "alloc" and (event.old or event.kind == "free"):
                del live[event.old or event.address]
            if event.kind != "free" and event.address:
                live[event.address] = event.bytes_req
            if event.sequence % 50 == 0:
                assert held(each for each in events if each.sequence <= event.sequence or each.parent == event.sequence
                            ) == dict(sorted(live.items()))
        if name == "pages":
            assert peak(list(trace.walk())).taken > 0 and peak(list(trace.walk())).asked > 0


def test_a_program_that_was_linked_with_our_malloc_stands_on_the_allocator_under_test() -> None:
    with boot("arena", USER, shadow="collect") as kernel:
        with kernel.trace() as trace:
            assert kernel.run().returned == 0
        assert {event.function for event in trace if event.foreign} >= {"allocate", "deallocate"}
        assert kernel.shadow is not None and kernel.shadow.errors == []


# -- the trace ----------------------------------------------------------------------------------------------------
def test_the_malloc_family_is_found_without_a_name() -> None:
    names = _booted("pages").allocator.options.names
    assert names == {"allocate": "malloc", "deallocate": "free", "reallocate": "realloc", "allocate_zeroed": "calloc",
                     "allocate_aligned": "memalign"}
    assert "memalign" not in _booted("break").allocator.options.names.values()
    with pytest.raises(sandbox.UsageError, match="has no allocate_aligned"):
        _booted("break").allocator.allocate_aligned(16, 16)


def test_sizes_are_those_that_were_asked_for(kernel: sandbox.Kernel) -> None:
    allocator = kernel.allocator
    with kernel.trace() as trace:
        zeros = allocator.allocate_zeroed(6, 7)
        moved = allocator.reallocate(zeros, 500)
        allocator.reallocate(moved, 300)
    assert [(event.kind, event.bytes_req, event.old, event.failed) for event in trace] == [
        ("alloc", 42, 0, False), ("realloc", 500, zeros, False), ("realloc", 300, moved, False)]
    assert list(held(trace.walk()).values()) == [300]


def test_what_a_reallocation_calls_lies_below_it_and_counts_once() -> None:
    kernel = _booted("arena")
    snapshot, allocator = kernel.snapshot(), kernel.allocator
    with kernel.trace() as trace:
        first = allocator.allocate(20)
        moved = allocator.reallocate(first, 400)
    assert [event.kind for event in trace] == ["alloc", "realloc"]
    assert [(event.kind, event.address) for event in trace[1].children] == [("alloc", moved), ("free", first)]
    assert held(trace.walk()) == {moved: 400}
    kernel.restore(snapshot)


def test_a_reallocation_that_fails_keeps_the_chunk(kernel: sandbox.Kernel) -> None:
    allocator = kernel.allocator
    with kernel.trace() as trace:
        pointer = allocator.allocate(100)
        assert allocator.reallocate(pointer, 1 << 40) == 0
    assert trace[1].failed and trace[1].address == 0 and held(trace.walk()) == {pointer: 100}
    assert kernel.shadow is not None and kernel.shadow.chunks()[pointer].live
    allocator.deallocate(pointer)


def test_a_reallocation_of_nothing_allocates(kernel: sandbox.Kernel) -> None:
    with kernel.trace() as trace:
        pointer = kernel.allocator.reallocate(0, 64)
    assert held(trace.walk()) == {pointer: 64}
    assert kernel.shadow is not None and kernel.shadow.chunks()[pointer].asked == 64


def test_a_reallocation_to_nothing_is_what_its_result_says() -> None:
    for name, kept in (("pages", 0), ("arena", 1)):
        kernel = _booted(name)
        snapshot, allocator = kernel.snapshot(), kernel.allocator
        with kernel.trace() as trace:
            pointer = allocator.allocate(64)
            result = allocator.reallocate(pointer, 0)
        assert (result != 0, len(held(trace.walk())), trace[1].failed) == (bool(kept), kept, False)
        if result:
            allocator.deallocate(result)
        kernel.restore(snapshot)


def test_chunks_of_no_bytes_may_be_freed(kernel: sandbox.Kernel) -> None:
    allocator = kernel.allocator
    pointers = [allocator.allocate(0) for _ in range(3)]
    for pointer in pointers:
        allocator.deallocate(pointer)


def test_aligned_chunks_are_known_by_their_second_argument() -> None:
    kernel = _booted("pages")
    snapshot = kernel.snapshot()
    with kernel.trace() as trace:
        kernel.allocator.allocate(24)
        pointer = kernel.allocator.allocate_aligned(256, 40)
        assert pointer % 256 == 0
        assert [(event.kind, event.bytes_req) for event in trace] == [("alloc", 24), ("alloc", 40)]
        kernel.allocator.deallocate(pointer)
    assert list(held(trace.walk()).values()) == [24]
    kernel.restore(snapshot)


# -- the shadow ---------------------------------------------------------------------------------------------------
PROGRAM = """
#include <stdlib.h>
#include <string.h>
volatile unsigned long sink;
static void use(unsigned char *a, unsigned char *b)
{{
    {body}
}}
int main(void)
{{
    unsigned char *a = malloc({size}), *b = malloc({size});
    use(a, b);
    return 0;
}}
"""
WRONG = {
    "the byte behind a chunk": ("a[37] = 1;", "out-of-bounds", 37),
    "the header of the next one": ("*(unsigned long *)(b - 8) = 1;", "out-of-bounds", 40),
    "a chunk that was freed and merged": ("free(a); free(b); b[8] = 1;", "use-after-free", 40),
    "a chunk that was moved": ("memset(a, 1, 40); unsigned char *c = realloc(a, 900); a[3] = c[0];",
                               "use-after-free", 40),
    "what a shrunk chunk had": ("a = realloc(a, 16); a[20] = 1;", None, 64),
    "what nobody has written, in a grown chunk": ("memset(a, 1, 40); a = realloc(a, 900); sink = a[40];",
                                                  "uninitialized-read", 40),
    "what nobody had written, in a moved chunk": ("a[20] = 1; a = realloc(a, 900); sink = a[21];",
                                                  "uninitialized-read", 40),
    "the realloc of a chunk that was freed": ("free(a); a = realloc(a, 40);", "double-free", 40),
    "the realloc of what is no chunk": ("a = realloc(a + 8, 40);", "invalid-free", 40),
    "the second free": ("free(a); free(a);", "double-free", 40),
    "the free of a middle": ("free(a + 16);", "invalid-free", 40),
}


@cache
def _source(directory: Path, body: str, size: int) -> Path:
    path = directory / "main.c"
    path.write_text(PROGRAM.format(body=body, size=size))
    return path


@pytest.mark.parametrize(("wrong", "name"), [*zip(WRONG, cycle(["break", "pages"]), strict=False)])
def test_each_wrong_use_is_caught_with_its_line(wrong: str, name: str, tmp_path: Path) -> None:
    body, kind, size = WRONG[wrong]
    with boot(name, _source(tmp_path, body, size), "-O0 -fno-builtin", shadow=True) as kernel:
        error = kernel.run().error
    assert isinstance(error, ShadowError)
    assert error.kind == kind or (kind is None and error.kind in ("out-of-bounds", "use-after-free"))
    assert "main.c:7" in str(error), error


RIGHT = {
    "what was written is carried over": "memset(a, 7, 40); a = realloc(a, 900); for (int i = 40; i--;) sink = a[i];",
    "calloc's bytes are written": "a = calloc(50, 9); for (int i = 0; i < 450; i++) sink = a[i];",
    "calloc's bytes are written in old memory too": "memset(a, 7, 40); free(a); a = calloc(40, 1); sink = a[39];",
    "a shrunk chunk keeps its bytes": "memset(a, 7, 40); a = realloc(a, 20); sink = a[19];",
    "a large chunk has all of its pages": "a = malloc(20000); for (int i = 0; i < 20000; i += 99) a[i] = 1; free(a);",
    "chunks come and go": "for (int i = 0; i < 20; i++) { free(a); a = malloc(9000 + i); a[8999] = 1; }",
}


@pytest.mark.parametrize(("right", "name"), [*zip(RIGHT, cycle(["break", "pages"]), strict=False)])
def test_right_use_is_not_accused(right: str, name: str, tmp_path: Path) -> None:
    with boot(name, _source(tmp_path, RIGHT[right], 40), "-O0 -fno-builtin", shadow=True) as kernel:
        result = kernel.run()
    assert result.ok, result.error


PLACES = {
    "behind, with its pointer": ("break", "-O1", "b[57] = 1;", "9 bytes past the end of the chunk of 48 bytes"),
    "before": ("break", "-O0", "((int *)b)[-1] = 1;", "4 bytes before the chunk of 48 bytes"),
    "behind, step by step": ("pages", "-O0", "for (unsigned char *at = b; at < b + 50;) *at++ = 7;",
                             "right behind the chunk of 48 bytes"),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_overrun_onto_the_allocators_data_is_told_from_the_chunk_that_it_left(place: str, tmp_path: Path) -> None:
    name, cflags, body, told = PLACES[place]
    with boot(name, _source(tmp_path, body, 48), f"{cflags} -fno-builtin", shadow=True) as kernel:
        error = kernel.run().error
    assert isinstance(error, ShadowError) and error.kind == "out-of-bounds" and error.object is not None
    assert told in str(error) and "on the allocator's own data" in str(error) and "handed out" not in str(error)
    assert error.distance == error.address - error.object - (0 if error.address < error.object else 48)


def _broken(tmp_path: Path, right: str, wrong: str) -> Path:
    """The allocator on the break with other words in one place."""
    source = (HERE / "merging.c").read_text()
    assert source.count(right) == 1
    path = tmp_path / "broken.c"
    path.write_text(source.replace(right, wrong))
    return path


CUT = "block->units -= units;\n                block += block->units;"
CUT_SHORT = "block->units -= units - 2;\n                block += block->units - 2;"
OVERLAPS = {
    "a rest that is too long": (CUT, CUT_SHORT, 40),
    "a block that stays in the list": ("before->next = block->next;\n            } else", "} else", 4080),
}


@pytest.mark.parametrize("wrong", OVERLAPS)
def test_a_chunk_that_overlaps_a_live_one_is_told_at_the_return_of_the_call(wrong: str, tmp_path: Path) -> None:
    right, other, asked = OVERLAPS[wrong]
    program = tmp_path / "main.c"
    program.write_text(f"""#include <stdlib.h>
        int main(void)
        {{
            char *first = malloc({asked});
            char *second = malloc({asked});
            return first == second;
        }}""")
    broken = _broken(tmp_path, right, other)
    with sandbox.boot(program, allocator=broken, cflags="-O0 -DON_BREAK", hz=0, shadow=True) as kernel:
        error = kernel.run().error
        assert kernel.shadow is not None
        first, *more = kernel.shadow.chunks()
        at = kernel.symbols.locate(kernel.registers["rip"])
    assert isinstance(error, ShadowError) and (error.kind, error.access) == ("overlap", "allocate")
    assert at.symbol == "malloc" and error.rip == kernel.registers["rip"]
    assert error.object == first and error.address == (more[0] if more else first) and error.size == asked
    assert re.search(r"hands out .* overlap the chunk .* that main \(\S*main.c:4\) allocated, which is still in use, "
                     r"called by main \(\S*main.c:5\)$", str(error)), error
    assert "allocated by malloc" in error.report and "handed out now by malloc" in error.report


def test_an_overlap_is_collected_once_and_goes_when_the_chunk_is_freed(tmp_path: Path) -> None:
    broken = _broken(tmp_path, CUT, CUT_SHORT)
    with sandbox.boot(allocator=broken, cflags="-O2 -DON_BREAK", hz=0, shadow="collect") as kernel:
        pointers = [kernel.allocator.allocate(40) for _ in range(4)]
        assert kernel.shadow is not None
        assert [(error.kind, error.address) for error in kernel.shadow.errors] == [("overlap", pointers[1])]


def test_a_byte_of_its_pages_that_is_in_no_chunk_is_nobody_elses(tmp_path: Path) -> None:
    with boot("break", _source(tmp_path, "(a < b ? a : b)[-200] = 1;", 40), "-O0", shadow=True) as kernel:
        error = kernel.run().error
    assert isinstance(error, ShadowError) and error.kind == "out-of-bounds"


def test_chunks_and_pages_are_put_back_by_going_back(kernel: sandbox.Kernel) -> None:
    allocator, shadow = kernel.allocator, kernel.shadow
    assert shadow is not None
    before, known = kernel.snapshot(), shadow.chunks()
    pointers = [allocator.allocate(size) for size in (40, 5000, 70)]
    there = kernel.snapshot()
    chunks = shadow.chunks()
    allocator.deallocate(pointers[1])
    with pytest.raises(ShadowError, match="double-free"):
        allocator.deallocate(pointers[1])
    kernel.rewind()
    kernel.restore(before)
    assert shadow.chunks() == known
    kernel.restore(there)
    assert shadow.chunks() == chunks
    allocator.deallocate(pointers[1])


def test_other_functions_of_the_allocator_may_do_anything_and_what_they_give_is_not_judged(tmp_path: Path) -> None:
    more = tmp_path / "more.c"
    more.write_text('#include <stdlib.h>\n#include <string.h>\nstatic int calls;\n'
                    'void *two(size_t size) { char *p = malloc(2 * size + 32); calls++; return p + 32; }\n'
                    'void untwo(void *p) { calls--; free((char *)p - 32); }\n')
    program = tmp_path / "main.c"
    program.write_text("void *two(unsigned long); void untwo(void *);\nint main(void)\n{\n    char *p = two(50);\n"
                       "    for (int i = 0; i < 100; i++) p[i] = 1;\n    untwo(p);\n    return 0;\n}\n")
    with sandbox.boot(program, allocator=[HERE / "tags.c", more], shadow=True) as kernel:
        result = kernel.run()
        assert result.ok, result.error


def test_what_a_call_ends_in_by_a_jump_returns_for_it(tmp_path: Path) -> None:
    """``return memset(...)`` is a jump at -O2: the ret is the kernel's."""
    source = tmp_path / "jumps.c"
    source.write_text("#include <stddef.h>\n#include <string.h>\nstatic char pool[4096]; static size_t at;\n"
                      "void *malloc(size_t n) { char *p = pool + at; at += (n + 15) & ~15ul; return p; }\n"
                      "void free(void *p) { (void)p; }\n"
                      "void *calloc(size_t n, size_t m) { return memset(malloc(n * m), 0, n * m); }\n")
    with sandbox.boot(allocator=source, cflags="-O2 -fno-inline", shadow=True) as kernel:
        with kernel.trace() as trace:
            pointer = kernel.allocator.allocate_zeroed(3, 8)
        assert [(event.kind, event.address, event.unfinished) for event in trace] == [("alloc", pointer, False)]
        assert kernel.shadow is not None and kernel.shadow.chunks()[pointer].asked == 24


@pytest.fixture(scope="module", autouse=True)
def _closing() -> Iterator[None]:
    yield
    for name in NAMED:
        if _booted.cache_info().currsize:
            _booted(name).close()
    _booted.cache_clear()


