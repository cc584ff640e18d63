"""The end of a run, from Python: what counts as left behind, and what a damaged heap does to the summary."""

from __future__ import annotations

from collections.abc import Iterator

import sandbox
from sandbox import Kernel
from sandbox.abi import kmem_cache
from sandbox.view.disasm import disassembly
from sandbox.view.live import EventLines
from sandbox.view.run import Before, program_file, slabs, still_in_use, summary

PROGRAM = """
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push rbx
    {body}
    xor eax, eax
    pop rbx
    pop rbx
    pop rbp
    ret
.rodata
name: .asciz "mine"
"""


def left_by(body: str) -> tuple[Kernel, list[str], list[str]]:
    """A kernel after a program, what is still in use by trace and bytes, and by bytes alone."""
    kernel = sandbox.boot(PROGRAM.format(body=body))
    before = Before.of(kernel.heap)
    with kernel.trace() as trace:
        assert kernel.run().ok
    return (kernel, list(still_in_use(kernel.heap, before, trace.walk(), program_file(kernel))),
            list(still_in_use(kernel.heap, before)))


def test_nothing_left_is_said_so_though_the_allocator_keeps_magazines_of_its_own() -> None:
    kernel, traced, untraced = left_by("mov edi, 64\n call kmalloc\n mov rdi, rax\n call kfree")
    assert traced == untraced == ["still in use: nothing"]
    assert kernel.heap.cache("magazine").inuse > 0


def test_pages_of_the_program_are_left_behind_and_page_tables_are_not() -> None:
    kernel, traced, untraced = left_by(
        "mov edi, 1\n call get_free_pages\n"
        "mov rdi, 0xffffd00012345000\n mov esi, 0x5000\n mov edx, 1\n call map_page")
    assert len(traced) == len(untraced) == 2
    assert "8,192 bytes of pages  by main, line" in traced[1] and untraced[1] == "  2 pages of get_free_pages"
    assert kernel.heap.pages.counts().table > 0


def test_a_cache_that_was_not_destroyed_is_named_and_its_struct_is_no_object() -> None:
    _, traced, untraced = left_by(
        "lea rdi, [rip + name]\n mov esi, 100\n xor edx, edx\n xor ecx, ecx\n xor r8d, r8d\n call kmem_cache_create")
    assert traced == untraced and traced[0] == "still in use:"
    assert traced[1].endswith("  the cache mine, which was not destroyed") and len(traced) == 2


def test_memory_freed_and_taken_again_belongs_to_the_last_call() -> None:
    again = "mov edi, 64\n call kmalloc\n"
    _, traced, _ = left_by(f"{again} mov rdi, rax\n call kfree\n{again}")
    lines = PROGRAM.format(body=f"{again} mov rdi, rax\n call kfree\n{again}").splitlines()
    last = max(number for number, line in enumerate(lines, 1) if "call kmalloc" in line)
    assert traced[0] == "still in use: 1 object, 64 bytes" and traced[1].endswith(f"by main, line {last}")


def test_more_than_a_screen_of_objects_is_counted() -> None:
    _, traced, _ = left_by("mov ebx, 100\n.Lmain_next:\n mov edi, 64\n call kmalloc\n dec ebx\n jnz .Lmain_next")
    assert traced[0] == "still in use: 100 objects, 6,400 bytes"
    assert len(traced) == 14 and traced[-1] == "  and 88 more"


def test_slabs_that_were_given_back_are_counted_by_cache() -> None:
    with sandbox.boot("04") as kernel:
        before = Before.of(kernel.heap)
        with kernel.trace() as trace:
            kernel.run()
        assert "thing: 3 slabs given back to the pages" in list(slabs(kernel.heap, before, trace.walk()))


def test_a_damaged_heap_is_said_and_the_rest_of_the_summary_still_told() -> None:
    with sandbox.boot("01") as kernel:
        before = Before.of(kernel.heap)
        result = kernel.run()
        cache = kernel.heap.cache("kmalloc-64")
        kernel.memory.write_u64(cache.address + kmem_cache.partial.offset, 0x1234)
        text = "\n".join(summary(kernel, result, before))
        assert text.count("the heap is corrupt: ") == 1 and "success: main returned 0" in text and "next" in text


def test_a_live_line_knows_its_depth_and_the_program_s_lines_by_number(kernel: Kernel) -> None:
    with kernel.trace() as trace:
        kernel.call("kmalloc", 100_000)
    lines = EventLines()
    shown = [lines.line(event) for event in trace.walk()]
    assert [len(line) - len(line.lstrip(" 0123456789,")) for line in shown] == [12, 14]
    assert shown[0].endswith("131,072 bytes  Python")


def decoded(kernel: Kernel, name: str) -> Iterator[str]:
    return (line.partition("= ")[2] for line in disassembly(kernel.symbols, name) if "  = " in line)


def test_disassembly_decodes_where_the_source_has_a_constant_or_a_macro_and_is_silent_elsewhere(
    kernel: Kernel
) -> None:
    assert any(text.startswith("cmp rax, 0x1fff") for text in decoded(kernel, "kmalloc"))
    assert any(text.startswith("push r8") for text in decoded(kernel, "kprintf"))
    assert list(decoded(kernel, "strlen")) == []
