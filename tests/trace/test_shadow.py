"""The shadow: each kind of error at its own instruction, and no word about programs that do nothing wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sandbox
from sandbox.errors import ShadowError, UsageError
from sandbox.guest.outcome import RunKind
from sandbox.kernel import Kernel
from sandbox.trace import shadow as shadow_module
from sandbox.trace.shadow_native import CODE, NativeGate

FRAME = """
.text
main:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
{body}
    xor eax, eax
    pop r12
    pop rbx
    pop rbp
    ret
{more}
"""


def program(body: str, more: str = "") -> str:
    return FRAME.format(body=body, more=more)


@pytest.fixture(params=["native", "python"])
def boot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Kernel]]:
    """``sandbox.boot`` with a shadow, in both its forms."""
    booted: list[Kernel] = []

    def refuse(*arguments: object) -> NativeGate:
        raise OSError("no native code here")

    if request.param == "python":
        monkeypatch.setattr(shadow_module, "NativeGate", refuse)

    def start(*arguments: Any, **options: Any) -> Kernel:
        kernel = sandbox.boot(*arguments, **({"shadow": True} | options))
        assert kernel.shadow is not None and kernel.shadow.native == (request.param == "native")
        booted.append(kernel)
        return kernel

    yield start
    for kernel in booted:
        kernel.close()


def caught(kernel: Kernel, label: str = "guilty") -> ShadowError:
    """The error of a run, which must be at ``label``, before which the machine must stand."""
    result = kernel.run()
    assert result.kind is RunKind.SHADOW and isinstance(result.error, ShadowError), result
    error = result.error
    assert error.rip == kernel.symbols[label], error.report
    assert kernel.registers["rip"] == error.rip and kernel.instructions == error.instruction
    assert all(kernel.registers[name] == value for name, value in error.registers.items() if name != "rflags")
    assert "\n" not in str(error) and str(error) in error.report and str(error) == str(result)
    return error


WRITE_AFTER_FREE = """
    mov edi, 64
    call kmalloc
    mov rbx, rax
    mov rdi, rax
    call kfree
guilty:
    mov byte ptr [rbx + 5], 7
"""


def test_a_write_after_free_stops_before_the_store(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program(WRITE_AFTER_FREE))
    error = caught(kernel)
    pointer = kernel.registers["rbx"]
    assert (error.kind, error.access, error.size, error.address) == ("use-after-free", "write", 1, pointer + 5)
    assert kernel.memory.u8(pointer + 5) != 7
    assert "allocated by kmalloc" in error.report and "freed by kfree" in error.report
    assert "mov byte ptr [rbx + 5], 7" in error.report and "program.asm" in str(error)


def test_a_read_after_free_is_named_with_who_freed_it(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program(WRITE_AFTER_FREE.replace("mov byte ptr [rbx + 5], 7", "add rax, [rbx + 8]")))
    error = caught(kernel)
    assert (error.kind, error.access, error.size) == ("use-after-free", "read", 8)
    freed_at = kernel.line(kernel.symbols["guilty"] - 1)
    assert str(freed_at) in error.report


@pytest.mark.parametrize(("asked", "offset", "distance"), [(24, 24, 0), (24, 31, 7), (1, 1, 0), (100, 127, 27)])
def test_one_byte_past_the_asked_size_is_out_of_bounds(
    boot: Callable[..., Kernel], asked: int, offset: int, distance: int
) -> None:
    kernel = boot(program(f"""
        mov edi, {asked}
        call kmalloc
        mov rbx, rax
        mov byte ptr [rbx + {asked - 1}], 1
    guilty:
        mov byte ptr [rbx + {offset}], 1
    """))
    error = caught(kernel)
    assert (error.kind, error.access, error.distance) == ("out-of-bounds", "write", distance)
    assert error.address == kernel.registers["rbx"] + offset


def test_the_first_guilty_byte_of_a_wide_access_is_the_address(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 20
        call kmalloc
        mov rbx, rax
    guilty:
        mov qword ptr [rbx + 16], 1
    """))
    error = caught(kernel)
    assert (error.kind, error.size, error.distance) == ("out-of-bounds", 8, 0)
    assert error.address == kernel.registers["rbx"] + 20


def test_an_access_in_two_pieces_is_one_error(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov rbx, rax
    guilty:
        movups xmm0, xmmword ptr [rbx]
    """))
    error = caught(kernel)
    assert error.kind == "uninitialized-read" and kernel.shadow is not None
    assert [found.address for found in kernel.shadow.errors] == [error.address] == [kernel.registers["rbx"]]


def test_asking_for_the_size_of_a_freed_object_is_called_that(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov rbx, rax
        mov rdi, rbx
        call kfree
        mov rdi, rbx
    guilty:
        call ksize
    """))
    error = caught(kernel)
    assert error.kind == "use-after-free" and "asks for the size of" in str(error) and "frees" not in str(error)


def test_a_byte_before_the_first_object_is_out_of_bounds(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        lea rdi, [rip + name]
        mov esi, 1000
        xor edx, edx
        xor ecx, ecx
        xor r8d, r8d
        call kmem_cache_create
        mov r12, rax
        mov rdi, rax
        call kmem_cache_alloc
        mov rdi, r12
        call kmem_cache_alloc
        mov rbx, rax
    guilty:
        mov byte ptr [rbx + -1], 1
    """, '.rodata\nname: .asciz "thousand"'), slab_debug="Z")
    error = caught(kernel)
    assert (error.kind, error.distance) == ("out-of-bounds", -1)


def test_the_neighbour_that_was_never_handed_out_is_out_of_bounds_too(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 64
        call kmalloc
        mov rbx, rax
    guilty:
        mov byte ptr [rbx + 64], 1
    """))
    error = caught(kernel)
    assert (error.kind, error.distance) == ("out-of-bounds", 0)


def test_running_over_into_a_freed_neighbour_is_out_of_bounds_of_the_live_one(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 64
        call kmalloc
        mov rbx, rax
        mov edi, 64
        call kmalloc
        mov rdi, rax
        call kfree
    guilty:
        mov byte ptr [rbx + 64], 1
    """))
    assert caught(kernel).kind == "out-of-bounds"


@pytest.mark.parametrize("load", ["mov al, [rbx + 3]", "cmp byte ptr [rbx + 3], 0", "push qword ptr [rbx]",
                                  "inc qword ptr [rbx]", "mov rsi, rbx\n lodsb"])
def test_a_load_of_bytes_never_written_is_an_uninitialized_read(boot: Callable[..., Kernel], load: str) -> None:
    first, _, last = load.rpartition("\n")
    kernel = boot(program(f"""
        mov edi, 32
        call kmalloc
        mov rbx, rax
        {first}
    guilty:
        {last}
    """))
    error = caught(kernel)
    assert (error.kind, error.access) == ("uninitialized-read", "read")


def test_memory_that_is_handed_out_again_is_unwritten_again(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov qword ptr [rax], 1
        mov rdi, rax
        call kfree
        mov edi, 32
        call kmalloc
    guilty:
        mov rbx, [rax]
    """))
    assert caught(kernel).kind == "uninitialized-read"


def test_memcpy_carries_the_unwritten_state_along_and_accuses_nobody(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov rbx, rax
        mov dword ptr [rbx + 8], 1
        mov edi, 32
        call kzalloc
        mov r12, rax
        mov rdi, rax
        mov rsi, rbx
        mov edx, 32
        call memcpy
        mov eax, [r12 + 8]
    guilty:
        mov eax, [r12 + 12]
    """))
    assert caught(kernel).kind == "uninitialized-read"


@pytest.mark.parametrize("shift", [8, 3])
def test_memmove_carries_it_in_both_directions(boot: Callable[..., Kernel], shift: int) -> None:
    kernel = boot(program(f"""
        mov edi, 64
        call kzalloc
        mov rbx, rax
        mov edi, 64
        call kmalloc
        mov r12, rax
        mov rdi, rbx
        mov rsi, r12
        mov edx, 16
        call memcpy
        lea rdi, [rbx + {shift}]
        mov rsi, rbx
        mov edx, 16
        call memmove
        mov al, [rbx + {16 + shift}]
    guilty:
        mov al, [rbx + {15 + shift}]
    """))
    assert caught(kernel).kind == "uninitialized-read"


def test_copying_written_bytes_over_unwritten_ones_makes_them_written(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov rbx, rax
        mov rdi, rax
        lea rsi, [rip + main]
        mov edx, 32
        call memcpy
        mov rax, [rbx + 24]
        mov edi, 32
        call kmalloc
        mov rdi, rax
        mov rsi, rbx
        mov edx, 32
        mov rbx, rax
        call memcpy
        mov rax, [rbx + 24]
    """))
    assert kernel.run().ok


def test_what_a_constructor_wrote_is_written_and_survives_a_free(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        lea rdi, [rip + name]
        mov esi, 48
        xor edx, edx
        xor ecx, ecx
        lea r8, [rip + construct]
        call kmem_cache_create
        mov r12, rax
        mov rdi, rax
        call kmem_cache_alloc
        mov rbx, rax
        mov rcx, [rbx]
        mov qword ptr [rbx + 8], 2
        mov rdi, r12
        mov rsi, rbx
        call kmem_cache_free
        mov rdi, r12
        call kmem_cache_alloc
        mov rcx, [rax]
        mov rcx, [rax + 8]
    guilty:
        mov rcx, [rax + 16]
    """, 'construct:\n mov qword ptr [rdi], 1\n ret\n.rodata\nname: .asciz "made"'))
    assert caught(kernel).kind == "uninitialized-read"


FREES = {
    "double-free": "mov rdi, rbx\n call kfree\n mov rdi, rbx\nguilty:\n call kfree",
    "invalid-free": "lea rdi, [rbx + 8]\nguilty:\n call kfree",
    "wrong-cache": "lea rdi, [rip + kmalloc_caches]\n mov rdi, [rdi]\n mov rsi, rbx\nguilty:\n call kmem_cache_free",
}


@pytest.mark.parametrize("kind", FREES)
def test_a_wrong_free_stops_at_its_call(boot: Callable[..., Kernel], kind: str) -> None:
    kernel = boot(program(f"mov edi, 32\n call kmalloc\n mov rbx, rax\n{FREES[kind]}"))
    error = caught(kernel)
    assert (error.kind, error.access) == (kind, "free")
    assert error.address == kernel.registers["rbx"] + 8 * (kind == "invalid-free")
    assert error.rip == kernel.registers["rip"]


def test_krealloc_of_freed_memory_is_a_use_after_free(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov rbx, rax
        mov rdi, rax
        call kfree
        mov rdi, rbx
        mov esi, 64
        xor edx, edx
    guilty:
        call krealloc
    """))
    assert caught(kernel).kind == "use-after-free"


@pytest.mark.parametrize("target", [
    "lea rbx, [rip + kmalloc_caches]\n mov rbx, [rbx]",            # a struct kmem_cache
    "lea rbx, [rip + slab_caches]",                                 # a variable
    "lea rbx, [rip + mem_map]\n mov rbx, [rbx]",                   # a struct page
    "lea rbx, [rip + boot_cpu]\n add rbx, 128",                    # a magazine's top
])
def test_a_store_to_the_allocators_data_is_a_metadata_write(boot: Callable[..., Kernel], target: str) -> None:
    kernel = boot(program(f"{target}\n mov rax, [rbx]\nguilty:\n mov qword ptr [rbx + 16], 0"))
    error = caught(kernel)
    assert (error.kind, error.access) == ("metadata-write", "write")
    assert error.address == kernel.registers["rbx"] + 16


def test_memset_has_no_more_right_than_its_caller(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("lea rdi, [rip + slab_caches]\n xor esi, esi\n mov edx, 8\ncalls:\n call memset"))
    result = kernel.run()
    assert isinstance(result.error, ShadowError) and result.error.kind == "metadata-write"
    assert kernel.symbolize(result.error.rip).symbol == "memset"
    assert any("calls" in frame for frame in result.error.backtrace)


@pytest.mark.parametrize("asked", [9000, 100_000])
def test_large_allocations_have_their_ends_too(boot: Callable[..., Kernel], asked: int) -> None:
    kernel = boot(program(f"""
        mov edi, {asked}
        call kmalloc
        mov rbx, rax
        mov byte ptr [rbx + {asked - 1}], 1
    guilty:
        mov byte ptr [rbx + {asked}], 1
    """))
    error = caught(kernel)
    assert (error.kind, error.distance) == ("out-of-bounds", 0)


def test_a_freed_large_allocation_must_not_be_touched(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 9000
        call kmalloc
        mov rbx, rax
        mov rdi, rax
        call kfree
    guilty:
        mov byte ptr [rbx + 8999], 1
    """))
    error = caught(kernel)
    assert error.kind == "use-after-free" and "freed by kfree" in error.report


def test_an_access_over_the_edge_of_a_page_is_judged_by_where_its_second_page_lies(
    boot: Callable[..., Kernel],
) -> None:
    """Two virtual neighbours map a large allocation's last page and, behind it, one that is free."""
    kernel = boot(program("""
        lea rdi, [rip + window]
        mov rbx, [rdi]
    guilty:
        mov qword ptr [rbx + 4092], 0
    """, ".data\n.p2align 3\nwindow: .quad 0"))
    pages = [kernel.call("get_free_pages", 0) for _ in range(3)]
    freed = kernel.call("kmalloc", 9000)
    window = 0xFFFF_A000_0000_0000
    assert kernel.call("map_page", window, pages[0] - 0xFFFF_8880_0000_0000, 3) == 0
    assert kernel.call("map_page", window + 4096, freed - 0xFFFF_8880_0000_0000, 3) == 0
    kernel.call("kfree", freed)
    kernel.memory.write_u64(kernel.symbols["window"], window)
    error = caught(kernel)
    assert (error.kind, error.address) == ("use-after-free", window + 4096)


def test_a_call_from_python_raises_and_a_rewind_puts_the_shadow_back(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    pointer = kernel.call("kmalloc", 24)
    kernel.call("memset", pointer, 1, 20)
    for _ in range(2):
        with pytest.raises(ShadowError, match="out-of-bounds"):
            kernel.call("memset", pointer, 1, 25)
        kernel.rewind()
        with pytest.raises(ShadowError, match="uninitialized-read"):
            kernel.call("memcmp", pointer + 20, pointer, 1)
        kernel.rewind()
    kernel.call("kfree", pointer)
    with pytest.raises(ShadowError, match="double-free") as found:
        kernel.call("kfree", pointer)
    assert found.value.rip == kernel.symbols["kfree"]
    kernel.rewind()
    assert kernel.call("kmalloc", 24) == pointer


def test_what_python_writes_is_written_and_nothing_that_it_does_is_judged(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    pointer = kernel.call("kmalloc", 24)
    kernel.memory[pointer : pointer + 20] = bytes(20)
    assert kernel.call("memcmp", pointer, pointer, 20) == 0
    kernel.memory[pointer + 20 : pointer + 40] = bytes(kernel.memory[pointer + 20 : pointer + 40])
    with pytest.raises(ShadowError, match="out-of-bounds"):
        kernel.call("memcmp", pointer + 24, pointer, 1)
    kernel.rewind()
    assert kernel.call("memcmp", pointer, pointer, 24) == 0


def test_an_instruction_with_two_accesses_is_taken_back_whole(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 32
        call kmalloc
        mov rbx, rax
        lea rdi, [rip + here]
        mov rsi, rbx
        mov ecx, 3
    guilty:
        rep movsq
    """, ".data\n.p2align 3\nhere: .quad 1, 2, 3"))
    error = caught(kernel)
    assert (error.kind, error.address) == ("uninitialized-read", kernel.registers["rbx"])
    assert kernel.registers["rcx"] == 3 and kernel.memory.u64(kernel.symbols["here"]) == 1


def test_a_snapshot_brings_back_what_was_held(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    pointer = kernel.call("kmalloc", 40)
    kernel.call("memset", pointer, 7, 40)
    before = kernel.snapshot()
    kernel.call("kfree", pointer)
    large = kernel.call("kmalloc", 20_000)
    kernel.restore(before)
    assert kernel.call("memcmp", pointer, pointer, 40) == 0
    with pytest.raises(ShadowError, match="out-of-bounds"):
        kernel.call("memset", large, 0, 1)
    kernel.rewind()
    kernel.call("kfree", pointer)


def test_a_machine_snapshot_without_a_shadow_is_read_from_its_bytes(boot: Callable[..., Kernel]) -> None:
    with sandbox.boot() as plain:
        pointer = plain.call("kmalloc", 40)
        image = plain.machine.snapshot()
    kernel = boot()
    kernel.machine.restore(image)
    kernel.call("memset", pointer, 1, 40)
    kernel.call("kfree", pointer)
    with pytest.raises(ShadowError, match="use-after-free"):
        kernel.call("memset", pointer, 1, 1)


def test_collecting_goes_on_and_names_each_place_once(boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 24
        call kmalloc
        mov rbx, rax
        mov r12d, 5
    again:
    first:
        mov al, [rbx]
    second:
        mov byte ptr [rbx + 24], 1
        dec r12d
        jnz again
        mov rdi, rbx
        call kfree
    third:
        mov byte ptr [rbx], 1
    """), shadow="collect")
    assert kernel.run().ok
    assert kernel.shadow is not None
    assert [(error.kind, error.rip) for error in kernel.shadow.errors] == [
        ("uninitialized-read", kernel.symbols["first"]), ("out-of-bounds", kernel.symbols["second"]),
        ("use-after-free", kernel.symbols["third"])]


REUSE = """
    mov edi, 48
    call kmalloc
    mov rbx, rax
    mov rdi, rax
    call kfree
    mov edi, 48
    call kmalloc
    mov r12, rax
guilty:
    mov byte ptr [rbx], 1
"""


def test_a_quarantine_catches_what_reuse_hides(boot: Callable[..., Kernel]) -> None:
    assert boot(program(REUSE)).run().ok
    assert caught(boot(program(REUSE), quarantine=1)).kind == "use-after-free"


def test_a_quarantine_frees_the_oldest_when_it_is_full(boot: Callable[..., Kernel]) -> None:
    kernel = boot(quarantine=3)
    pointers = [kernel.call("kmalloc", 100) for _ in range(8)]
    for count, pointer in enumerate(pointers, 1):
        kernel.call("kfree", pointer)
        assert kernel.heap.cache("kmalloc-128").inuse == 8 - max(count - 3, 0)
    assert kernel.call("kmalloc", 100) == pointers[4]
    cache = kernel.call("kmem_cache_create", "own", 64, 0, 0, 0)
    owned = [kernel.call("kmem_cache_alloc", cache) for _ in range(5)]
    for pointer in owned:
        kernel.call("kmem_cache_free", cache, pointer)
    assert kernel.heap.cache("own").inuse == 3
    assert kernel.call("kmem_cache_destroy", cache) == 0
    assert [known.name for known in kernel.heap.caches].count("own") == 0


@pytest.mark.parametrize("options", [{"shadow": 1.5}, {"shadow": "stop"}, {"quarantine": -1}, {"quarantine": True},
                                     {"shadow": False, "quarantine": 3}, {"allocator": {"free": "kfree"}},
                                     {"allocator": {"allocate": "no_such_function"}}])
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        sandbox.boot(**({"shadow": True} | options))


def test_the_native_code_is_what_its_source_assembles_to() -> None:
    from pathlib import Path

    from sandbox.toolchain.backend import default_backend

    source = Path(shadow_module.__file__).with_name("shadow_native.asm").read_text()
    text = "\n".join(line.partition("#")[0].rstrip() for line in source.splitlines())
    assert default_backend().assemble(text, 0) == CODE


# -- what is said ---------------------------------------------------------------------------------------------------
def test_a_byte_on_the_allocators_data_is_told_from_the_object_whose_pointer_led_there(
        boot: Callable[..., Kernel]) -> None:
    kernel = boot(program("""
        mov edi, 64
        call kmalloc
        mov rbx, rax
        lea rcx, [rip + kmalloc_caches]
        mov rcx, [rcx]                  # a struct kmem_cache
        sub rcx, rbx
    guilty:
        mov dword ptr [rbx + rcx], 3
    """))
    error = caught(kernel)
    assert error.kind == "out-of-bounds" and error.object == error.registers["rbx"] and error.distance is not None
    assert error.address == error.object + error.distance + 64 * (error.distance > 0)
    assert str(error).endswith("on the allocator's own data") and "handed out" not in str(error)


@pytest.mark.parametrize("store", ["mov dword ptr [rbx + -4], 3",
                                   "lea rcx, [rbx + -4]\nguilty:\n mov dword ptr [rcx], 3"])
def test_one_element_too_few_is_out_of_bounds_whatever_lies_there(boot: Callable[..., Kernel], store: str) -> None:
    label = "" if "guilty" in store else "guilty:"
    kernel = boot(program(f"""
    next:
        mov edi, 64
        call kmalloc
        test eax, 0xfff                 # until one begins a page, behind which the allocator's own lie
        jnz next
        mov rbx, rax
        mov byte ptr [rbx], 1
        {label}
        {store}
    """))
    error = caught(kernel)
    assert (error.kind, error.distance, error.object) == ("out-of-bounds", -4, error.registers["rbx"]), error


def test_a_write_far_behind_a_live_object_into_one_freed_long_ago_is_told_from_the_live_one(
        boot: Callable[..., Kernel]) -> None:
    error = caught(boot(program("""
        mov edi, 32
        call kmalloc
        mov r12, rax
        mov edi, 500
        call kmalloc
        mov rbx, rax
        mov rdi, rax
        call kfree
        sub rbx, r12
    guilty:
        mov byte ptr [r12 + rbx], 1
    """)))
    assert error.kind == "out-of-bounds" and error.object == error.registers["r12"]
    assert error.distance == error.registers["rbx"] - 32


def test_an_error_in_code_of_the_kernel_ends_in_the_line_that_called_it(boot: Callable[..., Kernel]) -> None:
    source = program("""
        mov edi, 40
        call kmalloc
        mov rdi, rax
        mov esi, 1
        mov edx, 41
        call fill
    """, """
    fill:
        push rbp
        mov rbp, rsp
        call memset
        pop rbp
        ret
    """)
    result = boot(source).run()
    line = next(number for number, text in enumerate(source.splitlines(), 1) if "call memset" in text)
    assert isinstance(result.error, ShadowError)
    assert str(result.error).startswith("out-of-bounds: memset+") and "string.asm" in str(result.error)
    assert re.search(rf", called by fill \(\S+:{line}\)$", str(result.error))


def test_a_call_from_python_of_the_kernels_code_has_no_line_that_called_it(boot: Callable[..., Kernel]) -> None:
    kernel = boot()
    pointer = kernel.call("kmalloc", 40)
    with pytest.raises(ShadowError) as error:
        kernel.call("memset", pointer, 1, 41)
    assert "called by" not in str(error.value)
