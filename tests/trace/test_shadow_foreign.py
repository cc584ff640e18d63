"""An allocator of the program's own: known to the shadow by the names of its functions and what they return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sandbox
from sandbox.errors import ShadowError, UsageError
from sandbox.kernel import Kernel

from .test_shadow import boot, caught

__all__ = ["boot"]                       # the fixture

SEED = Path(__file__).parent.parent.parent / "examples" / "18_the_seed.asm"
SEED_FUNCTIONS = {"allocate": "seed_allocate", "deallocate": "seed_deallocate", "init": "seed_new", "refused": 0}

# A free list through the chunks, a header in front of each, a counter: everything that a sound allocator may do.
LIST = """
.set HEADER, 8
.set CHUNK, 64                          # with its header
.set CHUNKS, 16
.text
main:
    push rbx
    push r12
    call list_init_all
    mov edi, 40
    call list_take
    mov rbx, rax
    mov edi, 40
    call list_take
    mov r12, rax
{body}
    mov rdi, r12
    call list_give
    xor eax, eax
    pop r12
    pop rbx
    ret

list_init_all:
    lea rdi, [rip + arena]
    xor edx, edx
    mov ecx, CHUNKS
.Llist_init_next:
    mov dword ptr [rdi], CHUNK          # the header
    mov [rdi + HEADER], rdx             # the link
    lea rdx, [rdi + HEADER]
    add rdi, CHUNK
    dec ecx
    jnz .Llist_init_next
    mov [rip + head], rdx
    mov qword ptr [rip + taken], 0
    ret

# void *list_take(u64 size)
list_take:
    mov rax, [rip + head]
    test rax, rax
    jz .Llist_take_none
    mov rdx, [rax]
    mov [rip + head], rdx
    inc qword ptr [rip + taken]
.Llist_take_none:
    ret

# void list_give(void *chunk)
list_give:
    call list_link
    dec qword ptr [rip + taken]
    ret

# Part of list_give, and of nothing that is named.
list_link:
    mov rdx, [rip + head]
    mov [rdi], rdx
    mov [rip + head], rdi
    ret

.bss
.p2align 6
arena:
    .rept CHUNKS
    .zero CHUNK
    .endr
head: .zero 8
taken: .zero 8
"""
LIST_FUNCTIONS = {"allocate": "list_take", "deallocate": "list_give", "init": "list_init_all"}


@pytest.fixture
def listed(boot: Callable[..., Kernel]) -> Callable[[str], Kernel]:
    """Boots a program whose ``body`` uses two chunks of 40 bytes in RBX and R12."""
    return lambda body, **options: boot(LIST.format(body=body), allocator=LIST_FUNCTIONS, **options)


def test_the_seeds_overlap_is_caught_where_its_owner_writes(boot: Callable[..., Kernel]) -> None:
    kernel = boot(SEED, allocator=SEED_FUNCTIONS)
    error = caught(kernel, "the_overlap")
    assert (error.kind, error.access, error.size) == ("metadata-write", "write", 1)
    assert error.address == kernel.symbols["seed_memory"] + 4576
    assert "allocated by seed_allocate" in error.report and "the chunk of 128 bytes" in str(error)
    assert kernel.memory.u8(error.address) != 0xFF


def test_nothing_but_the_overlap_is_wrong_with_the_seed(boot: Callable[..., Kernel]) -> None:
    kernel = boot(SEED, allocator=SEED_FUNCTIONS, shadow="collect")
    assert kernel.run().ok and kernel.shadow is not None
    assert [error.rip for error in kernel.shadow.errors] == [kernel.symbols["the_overlap"]]


def test_chunks_whose_free_was_refused_stay_with_their_owners(boot: Callable[..., Kernel]) -> None:
    kernel = boot(SEED, allocator=SEED_FUNCTIONS, shadow="collect")
    assert kernel.run().ok and kernel.shadow is not None
    total, refused = 63, int(kernel.console.split(" frees were refused")[0].split()[-1])
    live = [chunk for chunk in kernel.shadow.chunks().values() if chunk.live]
    assert 0 < len(live) == refused < total


def test_a_sound_allocator_with_links_and_headers_is_not_accused(listed: Callable[..., Kernel]) -> None:
    assert listed("""
        mov qword ptr [rbx], 1
        mov qword ptr [rbx + 32], 2
        mov rax, [rbx + 32]
        mov rdi, rbx
        call list_give
        mov edi, 24
        call list_take
        mov qword ptr [rax], 5
    """).run().ok


WRONG = {
    "use-after-free": "mov rdi, rbx\n call list_give\nguilty:\n mov byte ptr [rbx + 3], 1",
    "uninitialized-read": "mov qword ptr [rbx], 1\nguilty:\n mov rax, [rbx + 8]",
    "out-of-bounds": "mov edi, 37\n call list_take\n mov rbx, rax\nguilty:\n mov byte ptr [rbx + 37], 1",
    "double-free": "mov rdi, rbx\n call list_give\n mov rdi, rbx\nguilty:\n call list_give",
    "invalid-free": "lea rdi, [rbx + 8]\nguilty:\n call list_give",
    "metadata-write": "lea rcx, [rip + taken]\nguilty:\n mov dword ptr [rcx], 0",
}


@pytest.mark.parametrize("kind", WRONG)
def test_each_kind_of_error_is_caught_in_its_chunks(listed: Callable[..., Kernel], kind: str) -> None:
    error = caught(listed(WRONG[kind]))
    assert error.kind == kind


def test_chunks_from_before_init_overlap_nothing(listed: Callable[..., Kernel]) -> None:
    assert listed("""
        call list_init_all
        mov edi, 40
        call list_take
        mov r12, rax
    """).run().ok


def test_a_rewind_puts_its_chunks_back_too(boot: Callable[..., Kernel]) -> None:
    kernel = boot(LIST.format(body=""), allocator=LIST_FUNCTIONS)
    kernel.call("list_init_all")
    pointer = kernel.call("list_take", 40)
    kernel.call("memset", pointer, 1, 40)
    for _ in range(2):
        with pytest.raises(ShadowError, match="invalid-free"):
            kernel.call("list_give", pointer + 8)
        kernel.rewind()
    before = kernel.snapshot()
    kernel.call("list_give", pointer)
    with pytest.raises(ShadowError, match="double-free"):
        kernel.call("list_give", pointer)
    kernel.restore(before)
    assert kernel.call("memcmp", pointer, pointer, 40) == 0
    kernel.call("list_give", pointer)


@pytest.mark.parametrize("allocator", [{}, {"deallocate": "seed_deallocate"}, {"allocate": "seed_allocate", "size": 1},
                                       {"allocate": "seed_alocate"}, {"allocate": "seed_allocate", "refused": "no"}])
def test_an_allocator_that_is_described_wrongly_is_refused(allocator: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        sandbox.boot(SEED, shadow=True, allocator=allocator)
