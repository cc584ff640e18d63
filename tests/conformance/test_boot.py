"""``sandbox.boot(allocator=...)``: somebody else's allocator is called, traced, shadowed and limited as our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox.abi import ARENA_BASE
from sandbox.guest.allocator import AllocatorOptions, AllocatorStats

from .broken import ALLOCATORS

FREELIST, BUMP, BITMAP = (ALLOCATORS / f"{name}.asm" for name in ("freelist", "bump", "bitmap"))
PROGRAM = """
# int main(void)
main:
    push rbp
    mov rbp, rsp
    mov edi, 24
    call allocate
.Lallocate_out:
    mov byte ptr [rax + {offset}], 1
    mov rdi, rax
    call deallocate
    xor eax, eax
    pop rbp
    ret
"""


@pytest.fixture(scope="module")
def booted() -> Iterator[sandbox.Kernel]:
    with sandbox.boot(allocator=FREELIST, arena="64K") as kernel:
        yield kernel


@pytest.fixture()
def kernel(booted: sandbox.Kernel) -> Iterator[sandbox.Kernel]:
    snapshot = booted.snapshot()
    yield booted
    booted.restore(snapshot)


def test_it_is_initialised_with_its_arena_and_counts(kernel: sandbox.Kernel) -> None:
    allocator = kernel.allocator
    assert allocator.arena == (ARENA_BASE, 64 << 10) and ARENA_BASE in allocator.arena
    assert allocator.stats() == AllocatorStats(0, 255 * 256)
    pointer = allocator.allocate(100)
    assert pointer in allocator.arena and allocator.stats() == AllocatorStats(1, 254 * 256)
    assert allocator.deallocate(pointer) and allocator.allocate(20) == pointer
    allocator.init()
    assert allocator.stats().in_use == 0


def test_the_arena_is_zeroed_writable_never_executable_and_between_unmapped_pages(kernel: sandbox.Kernel) -> None:
    with sandbox.boot(allocator="init:\nallocate:\ndeallocate:\nstats:\n    ret\n", arena="8K") as fresh:
        arena = fresh.allocator.arena
        assert fresh.memory.read(arena.start, arena.size) == bytes(arena.size)
        entry = fresh.machine.paging.walk(arena.start)[-1].entry
        assert (bool(entry.RW), bool(entry.NX)) == (True, True)
        for outside in (arena.start - 1, arena.end):
            with pytest.raises(sandbox.TranslationError):
                fresh.memory.read(outside, 1)


def test_its_calls_are_events_under_its_own_names(kernel: sandbox.Kernel) -> None:
    with kernel.trace() as trace:
        pointer = kernel.allocator.allocate(40)
        kernel.allocator.deallocate(pointer)
        kernel.allocator.allocate(5000)
    assert [(event.kind, event.function, event.address, event.bytes_req, event.failed) for event in trace] == [
        ("alloc", "allocate", pointer, 40, False), ("free", "deallocate", pointer, 0, False),
        ("alloc", "allocate", 0, 5000, True)]
    assert trace[0].bytes_alloc == 40 and trace[0].instructions == 15


def test_a_double_free_is_its_own_panic_and_can_be_rewound(kernel: sandbox.Kernel) -> None:
    pointer = kernel.allocator.allocate(8)
    kernel.allocator.deallocate(pointer)
    with pytest.raises(sandbox.GuestPanic, match=f"free list: {pointer:#x} is free already"):
        kernel.allocator.deallocate(pointer)
    kernel.rewind()
    assert kernel.allocator.allocate(8) == pointer


def test_a_refusal_is_known_by_what_deallocate_returns() -> None:
    with sandbox.boot(allocator=BITMAP, refused=-1) as kernel:
        pointer = kernel.allocator.allocate(8)
        assert kernel.allocator.deallocate(pointer) and not kernel.allocator.deallocate(pointer)
        assert kernel.allocator.deallocate(0)


def test_a_program_calls_it_and_has_labels_of_its_own() -> None:
    with sandbox.boot(PROGRAM.format(offset=0), allocator=FREELIST) as kernel:
        with kernel.trace() as trace:
            assert kernel.run().returned == 0
        assert [event.function for event in trace] == ["allocate", "deallocate"]
        assert trace[0].call_site.startswith("main+")


@pytest.mark.parametrize(("offset", "kind"), [(23, None), (24, "out-of-bounds"), (300, "out-of-bounds")])
def test_the_shadow_knows_its_chunks_and_its_arena(offset: int, kind: str | None) -> None:
    with sandbox.boot(PROGRAM.format(offset=offset), allocator=FREELIST, shadow=True) as kernel:
        result = kernel.run()
        assert getattr(result.error, "kind", None) == kind
        if kind:
            assert f"{offset - 24} bytes past" in str(result.error) or "right behind" in str(result.error)
            assert f"at {ARENA_BASE + 0x400:#018x}" in str(result.error)


def test_a_program_that_uses_what_it_freed_is_stopped_at_its_instruction() -> None:
    program = PROGRAM.format(offset=0).replace("    xor eax, eax\n", "    mov rbx, [rdi]\n    xor eax, eax\n")
    with sandbox.boot(program, allocator=FREELIST, shadow=True) as kernel:
        error = kernel.run().error
        assert isinstance(error, sandbox.ShadowError) and error.kind == "use-after-free"
        assert "program.asm:" in str(error)


@pytest.mark.parametrize(("source", "words"), [
    ("# nothing\n", "it does not define init, allocate, deallocate, stats: "),
    ("\n", "it does not define init, allocate, deallocate, stats: "),
    (".set init, 4\n", "it does not define init, allocate, deallocate, stats: "),
    (".data\nwords:\n    .quad 0\n", "it does not define init, allocate, deallocate, stats: "),
    (".text\ninit:\nallocate:\ndeallocate:\nstats:\n", "it does not define init, allocate, deallocate, stats: "),
    (".data\ninit: .quad 0\n.text\nallocate:\ndeallocate:\nstats: ret\n", "init is data, not a function: "),
    (".data\ninit: .quad 0\nstats: .quad 0\n.text\nallocate: ret\n",
     "init, stats are data, not functions: code belongs into .text; and it does not define deallocate"),
], ids=("comment", "empty", "constant", "data", "labels", "one-is-data", "two-are-data"))
def test_a_source_without_the_code_is_told_so_in_one_sentence(source: str, words: str) -> None:
    with pytest.raises(sandbox.ProgramError) as error:
        sandbox.boot(allocator=source)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_every_missing_function_is_named_with_what_helps() -> None:
    with pytest.raises(sandbox.ProgramError) as error:
        sandbox.boot(allocator="my_allocate:\ninit:\n    ret\n")
    text = str(error.value)
    assert "it does not define allocate, deallocate, stats" in text and "\n" not in text
    assert "symbols, ROLE=NAME" in text and "allocate=my_allocate" in text
    symbols = {"allocate": "my_allocate", "deallocate": "my_allocate", "init": None, "stats": None}
    with sandbox.boot(allocator="my_allocate:\n    xor eax, eax\n    ret\n", symbols=symbols) as kernel:
        assert kernel.allocator.allocate(1) == 0
        with pytest.raises(sandbox.UsageError, match="no stats"):
            kernel.allocator.stats()


def test_an_init_that_never_returns_ends_at_its_limit() -> None:
    with pytest.raises(sandbox.GuestLimit, match=r"init did not return within 10,000,000 .*allocator.asm:1"):
        sandbox.boot(allocator="init: jmp init\nallocate:\ndeallocate:\nstats:\n    ret\n")


def test_a_call_has_a_limit_of_its_own(kernel: sandbox.Kernel) -> None:
    with pytest.raises(sandbox.GuestLimit, match="allocate did not return within 5 instructions"):
        kernel.allocator.allocate(8, limit=5)
    kernel.rewind()


def test_code_and_constants_of_the_kernel_cannot_be_written() -> None:
    source = "init:\n    mov byte ptr [rip + kmalloc], 0\nallocate:\ndeallocate:\nstats:\n    ret\n"
    with pytest.raises(sandbox.GuestFault, match=r"write to .*init \(allocator.asm:2\)|init"):
        sandbox.boot(allocator=source)


@pytest.mark.parametrize("directive", [".incbin", ".include"])
@pytest.mark.parametrize("file", ["/etc/passwd", "../../../../../../etc/passwd"])
def test_it_cannot_read_the_hosts_files(directive: str, file: str) -> None:
    with pytest.raises(sandbox.AssemblyError, match=r"allocator.asm:2: '.*' lies outside"):
        sandbox.boot(allocator=f"init:\n{directive} \"{file}\"\n")


@pytest.mark.parametrize("options", [
    {"symbols": {"allocate": "a"}}, {"refused": 0}, {"arena": "1M"}, {"allocator": 7},
    {"allocator": {"allocate": "kmalloc"}}, {"allocator": FREELIST, "symbols": {"alocate": "a"}},
    {"allocator": FREELIST, "symbols": "allocate"}, {"allocator": FREELIST, "arena": 5000},
    {"allocator": FREELIST, "arena": 0}, {"allocator": FREELIST, "refused": 1 << 65}, {"allocator": "nowhere.asm"}])
def test_an_option_that_cannot_be_is_one_sentence(options: dict[str, object]) -> None:
    with pytest.raises(sandbox.UsageError) as error:
        sandbox.boot(**options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_without_an_allocator_there_is_none() -> None:
    with sandbox.boot() as kernel, pytest.raises(sandbox.UsageError, match="booted without an allocator"):
        _ = kernel.allocator


def test_its_options_are_plain_data() -> None:
    options = AllocatorOptions(stats=None, refused=-1, arena=4096)
    assert AllocatorOptions(**options.to_dict()) == options
    assert options.refusals == {(1 << 64) - 1, (1 << 32) - 1}


def test_the_kernel_and_its_allocator_leave_together() -> None:
    import gc
    import weakref

    kernel = sandbox.boot(allocator=Path(BUMP))
    machine = weakref.ref(kernel.machine)
    kernel.allocator.allocate(8)
    kernel.close()
    gc.disable()
    try:
        del kernel
        assert machine() is None
    finally:
        gc.enable()


MORE_ROLES = """
my_allocate:
    lea rax, [rip + pool]
    ret
my_deallocate:
    ret
my_resize:                              # every chunk has 256 bytes
    mov rax, rdi
    ret
my_zeroed:
    lea rax, [rip + pool + 256]
    ret
.bss
.p2align 4
pool:
    .zero 512
"""


def test_more_roles_are_called_by_the_names_that_they_are_given_and_their_sizes_are_traced() -> None:
    symbols = {"allocate": "my_allocate", "deallocate": "my_deallocate", "init": None, "stats": None,
               "reallocate": "my_resize", "allocate_zeroed": "my_zeroed"}
    with sandbox.boot(allocator=MORE_ROLES, symbols=symbols, shadow=True) as kernel, kernel.trace() as trace:
        pointer = kernel.allocator.allocate(40)
        assert kernel.allocator.reallocate(pointer, 90) == pointer
        assert kernel.allocator.allocate_zeroed(6, 7) == pointer + 256
        assert [(event.kind, event.bytes_req, event.old) for event in trace] == [
            ("alloc", 40, 0), ("realloc", 90, pointer), ("alloc", 42, 0)]
        assert kernel.shadow is not None
        assert [chunk.asked for chunk in kernel.shadow.chunks().values()] == [90, 42]
        with pytest.raises(sandbox.UsageError, match="no allocate_aligned"):
            kernel.allocator.allocate_aligned(64, 8)


def test_malloc_and_free_are_taken_where_nothing_else_was_named() -> None:
    source = MORE_ROLES.replace("my_allocate", "malloc").replace("my_deallocate", "free").replace("my_zeroed", "calloc")
    with sandbox.boot(allocator=source) as kernel:
        assert kernel.allocator.options.names == {"allocate": "malloc", "deallocate": "free",
                                                  "allocate_zeroed": "calloc"}
    with pytest.raises(sandbox.ProgramError, match="does not define init, alloc, deallocate, stats"):
        sandbox.boot(allocator=source, symbols={"allocate": "alloc"})


@pytest.mark.parametrize("symbols", [{"stats": None}, {"init": None}, {"init": None, "stats": None}])
def test_an_allocator_without_init_or_stats_may_be_called_malloc_and_free(symbols: dict[str, str | None]) -> None:
    source = MORE_ROLES.replace("my_allocate", "malloc").replace("my_deallocate", "free")
    with sandbox.boot(allocator=source, symbols=symbols) as kernel:
        assert kernel.allocator.options.names == {"allocate": "malloc", "deallocate": "free"}


@pytest.mark.parametrize(("labels", "hint"), [
    ("mm_init mm_malloc mm_free mm_realloc", "init=mm_init, allocate=mm_malloc, deallocate=mm_free, stats="),
    ("realloc calloc my_malloc my_free", "allocate=my_malloc, deallocate=my_free, init=, stats="),
    ("mm_realloc free xalloc", "allocate=xalloc, deallocate=free, init=, stats="),
    ("heap_free mm_free free my_malloc malloc", "allocate=malloc, deallocate=mm_free, init=, stats="),
    ("mm_realloc my_stats", "stats=my_stats"),
])
def test_the_functions_that_are_meant_are_guessed_by_what_such_functions_are_called(labels: str, hint: str) -> None:
    source = "".join(f"{label}:\n    ret\n" for label in labels.split())
    with pytest.raises(sandbox.ProgramError) as error:
        sandbox.boot(allocator=source, symbols={"allocate": "alloc_it"})
    said = str(error.value).partition("did you mean ")[2].removesuffix("?")
    assert set(said.split(", ")) == set(hint.split(", "))
