"""Images: symbols, lines, the kernel's symbols in a program, clashes, the child process and the cache."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.errors import AssemblyError, EngineError, UsageError
from sandbox.toolchain import assembler, backend
from sandbox.toolchain.assembler import assemble
from sandbox.toolchain.disassembler import Disassembler
from sandbox.toolchain.source import Source

from .conftest import BASE, Assemble

KERNEL = 0xFFFFFFFF80000000
EXTERNS = {"kmalloc": KERNEL + 0x1234, "slab_caches": KERNEL + 0x8000}

PROGRAM = """\
.set SIZE, 64
.macro get size
    mov edi, \\size
    call kmalloc
.endm
main:                       # int main(void)
    get SIZE
    get 2 * SIZE
.Lloop:
    jmp .Lloop
helper:
    ret
.rodata
text: .asciz "hi"
"""


def test_symbols_are_ordered_by_address_and_local_labels_left_out(asm: Assemble) -> None:
    image = asm(PROGRAM, EXTERNS)
    assert list(image.symbols) == ["main", "helper", "text"]
    assert image.symbols["helper"] == BASE + 22 and image.symbols["text"] == BASE + 8192
    assert image.constants == {"SIZE": 64}
    assert image.functions == {"main": (BASE, BASE + 22), "helper": (BASE + 22, BASE + 23)}
    assert image.origins["main"] == "program.asm:6" and image.origins["SIZE"] == "program.asm:1"


def test_every_address_knows_its_source_line_and_a_macro_counts_as_the_line_that_invoked_it(asm: Assemble) -> None:
    image = asm(PROGRAM, EXTERNS)
    assert [getattr(image.line(BASE + at), "number", None) for at in range(24)] == [7] * 10 + [8] * 10 + [10] * 2 + [
        12, None]
    line = image.line(BASE + 8192 + 2)
    assert line is not None and (line.file, line.number, line.text) == ("program.asm", 14, 'text: .asciz "hi"')
    assert image.line(BASE - 1) is None


def test_addresses_are_symbolized_within_their_section(asm: Assemble) -> None:
    image = asm(PROGRAM, EXTERNS)
    assert image.symbolize(BASE) == "main" and image.symbolize(BASE + 5) == "main+0x5"
    assert image.symbolize(BASE + 22) == "helper" and image.symbolize(BASE + 8194) == "text+0x2"
    assert image.symbolize(BASE - 1) is None and image.symbolize(image.end) is None


@pytest.mark.parametrize("statement", [
    "call kmalloc", "jmp kmalloc", "je kmalloc", "lea rdi, [rip + kmalloc]", "mov rax, [rip + kmalloc]",
    "mov rax, [rip + kmalloc + 16]", "cmp qword ptr [rip + kmalloc], 5", "mov dword ptr [rip + kmalloc - 8], 0x1234567",
    "call qword ptr [rip + kmalloc]", "mov al, [rip + kmalloc]", "lea rdi, [rip - 4 + kmalloc]",
])
def test_a_kernel_symbol_comes_out_right_in_every_form(asm: Assemble, statement: str) -> None:
    """Capstone is the oracle: what it computes as the target must be the symbol's address."""
    for before in ("", "nop\n" * 200):
        image = asm(f"main: {before}\nhere: {statement}\n.data\n.quad kmalloc\n", EXTERNS)
        at = image.symbols["here"]
        decoded = Disassembler().decode(image.bytes()[at - BASE :], at)
        assert decoded is not None
        extra = {"+ 16]": 16, "- 8]": -8, "- 4 +": -4}
        wanted = EXTERNS["kmalloc"] + next((n for text, n in extra.items() if text in statement), 0)
        reached = [item if isinstance(item, int) else item.displacement + at + decoded.size
                   for item in decoded.operands if isinstance(item, int) or hasattr(item, "displacement")]
        assert reached[0] % (1 << 64) == wanted or (statement.startswith("mov dword") and wanted in reached)


def test_a_kernel_symbol_in_data_is_its_address(asm: Assemble) -> None:
    data = asm("main: ret\n.data\n.quad kmalloc, kmalloc + 8, slab_caches - kmalloc\n.long slab_caches - kmalloc",
               EXTERNS).section("data")
    assert data is not None
    values = [int.from_bytes(data.data[at : at + 8], "little") for at in (0, 8, 16)]
    assert values == [KERNEL + 0x1234, KERNEL + 0x123C, 0x6DCC] and data.data[24:28] == b"\xcc\x6d\0\0"


def test_a_label_that_the_kernel_has_is_an_error_with_both_places(asm: Assemble) -> None:
    for text in ("main: ret\nkmalloc: ret", "main: ret\n.set kmalloc, 5"):
        with pytest.raises(AssemblyError) as caught:
            asm(text, EXTERNS, origins={"kmalloc": "kernel_asm/kmalloc.asm:12"})
        assert "program.asm:2" in str(caught.value) and "kernel_asm/kmalloc.asm:12" in str(caught.value)


@pytest.mark.parametrize(("statement", "reason"), [
    ("frobnicate rax", "no such instruction"), ("mov rax, xmm0, 3", "does not take these operands"),
    ("mov al, rbx", "does not take these operands"), ("jrcxz far_away", "out of the instruction's reach"),
])
def test_what_the_assembler_rejects_is_found_by_bisection(asm: Assemble, statement: str, reason: str) -> None:
    text = "nop\n" * 70 + f"{statement}\n" + "nop\n" * 300 + "far_away: ret\n"
    with pytest.raises(AssemblyError) as caught:
        asm(text)
    assert (caught.value.line, caught.value.text) == (71, statement) and reason in caught.value.reason


def test_the_first_of_several_errors_is_named(asm: Assemble) -> None:
    with pytest.raises(AssemblyError) as caught:
        asm("nop\nfoo rax\nnop\nbar rbx\n")
    assert caught.value.line == 2


def test_an_error_in_an_instruction_of_a_macro_shows_the_instruction(asm: Assemble) -> None:
    with pytest.raises(AssemblyError, match="in 'foo rbx'") as caught:
        asm(".macro m r\nfoo \\r\n.endm\nnop\nm rbx")
    assert caught.value.line == 5


def test_the_position_of_the_sources_does_not_change_the_bytes(tmp_path: Path) -> None:
    one, two = Source("a.asm", "a: call b\n", tmp_path), Source("b.asm", "b: call a\nret\n", tmp_path)
    image = assemble([one, two], KERNEL, cache=False)
    assert image.bytes()[:11] == bytes.fromhex("e800000000e8f6ffffffc3")


def test_an_image_needs_a_source_and_a_page_aligned_base(tmp_path: Path) -> None:
    for sources, base in (([], 0), ([Source("a", "ret", tmp_path)], 0x800)):
        with pytest.raises(UsageError):
            assemble(sources, base)


def test_code_for_32_bits_is_assembled_and_checked_as_such(code: Callable[..., bytes], tmp_path: Path) -> None:
    assert code(".code32\nmov eax, cr0\npush eax\n.code64\npush rax\nmov eax, [0x1000]") == bytes.fromhex(
        "0f20c050508b042500100000")
    sources = [Source("a.asm", ".code32\ninc eax\n", tmp_path), Source("b.asm", "inc eax\n", tmp_path)]
    assert assemble(sources, BASE, cache=False).bytes()[:3] == bytes.fromhex("40ffc0")


# ---- the child process

def test_a_child_process_gives_the_same_image_and_the_same_errors(asm: Assemble, tmp_path: Path) -> None:
    (tmp_path / "more.inc").write_text("more: .byte 1\n")
    text = PROGRAM + '.include "more.inc"\n'
    assert asm(text, EXTERNS, isolated=True) == asm(text, EXTERNS)
    for wrong in ("jmp nowhere", "foo rax", "rdtsc"):
        with pytest.raises(AssemblyError) as here:
            asm(wrong)
        with pytest.raises(AssemblyError) as there:
            asm(wrong, isolated=True)
        assert str(here.value) == str(there.value)


@pytest.mark.parametrize(("child", "reason"), [
    ("import os; os.abort()", "broke down"), ("import time; time.sleep(60)", "longer than 0.5 seconds"),
    ("print('garbage')", "broke down"),
])
def test_a_child_that_dies_or_hangs_is_one_clean_error(asm: Assemble, monkeypatch: pytest.MonkeyPatch, child: str,
                                                       reason: str) -> None:
    real = subprocess.run

    def run(command: list[str], **options: object) -> object:
        return real([command[0], "-c", child], **options)       # type: ignore[call-overload]

    monkeypatch.setattr(assembler.subprocess, "run", run)
    monkeypatch.setattr(assembler, "CHILD_SECONDS", 0.5 if "sleep" in child else 30)
    with pytest.raises(AssemblyError, match=reason):
        asm("ret", isolated=True)


def test_without_any_assembler_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "keystone", None)
    monkeypatch.setattr("sandbox.toolchain.gnu.shutil.which", lambda name: None)
    with pytest.raises(EngineError, match="install keystone-engine"):
        backend.default_backend()


def test_without_keystone_gnu_as_takes_its_place(asm: Assemble, gnu: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with_keystone = asm(PROGRAM, EXTERNS)
    monkeypatch.setitem(__import__("sys").modules, "keystone", None)
    assert asm(PROGRAM, EXTERNS) == with_keystone


# ---- the cache

@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[object, int]]:
    """``cached(text)`` assembles with a cache of its own, and says how often an assembler had to work."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SANDBOX_CACHE", raising=False)
    count = [0]
    real = assembler.build

    def build(*arguments: object, **options: object) -> object:
        count[0] += 1
        return real(*arguments, **options)                      # type: ignore[arg-type]

    monkeypatch.setattr(assembler, "build", build)

    def run(text: str, name: str = "program.asm", **options: object) -> tuple[object, int]:
        image = assemble([Source(name, text, tmp_path)], BASE, EXTERNS | options.pop("externs", {}))  # type: ignore
        return image, count[0]

    return run


def test_the_same_text_is_assembled_once(cached: Callable[..., tuple[object, int]], asm: Assemble) -> None:
    first, _ = cached(PROGRAM)
    second, count = cached(PROGRAM)
    assert (first, count) == (second, 1)
    assert cached(PROGRAM + ".byte 1\n")[1] == 2
    assert cached(PROGRAM, externs={"kmalloc": KERNEL})[1] == 3
    assert first == asm(PROGRAM, EXTERNS)


def test_a_cached_image_takes_the_name_that_the_file_has_now(cached: Callable[..., tuple[object, int]]) -> None:
    cached(PROGRAM)
    image, count = cached(PROGRAM, "other/name.asm")
    assert count == 1 and set(image.files) == {"other/name.asm"}            # type: ignore[attr-defined]
    assert image.origins["main"] == "other/name.asm:6"                      # type: ignore[attr-defined]
    assert image.line(BASE).file == "other/name.asm"                        # type: ignore[attr-defined]


def test_a_changed_include_is_noticed(cached: Callable[..., tuple[object, int]], tmp_path: Path) -> None:
    (tmp_path / "n.inc").write_text(".byte 1\n")
    text = '.include "n.inc"\n.incbin "n.inc"\n'
    assert cached(text)[1] == cached(text)[1] == 1
    (tmp_path / "n.inc").write_text(".byte 2\n")
    image, count = cached(text)
    assert count == 2 and image.bytes()[:9] == b"\2.byte 2\n"               # type: ignore[attr-defined]
    (tmp_path / "n.inc").unlink()
    with pytest.raises(AssemblyError, match="no file"):
        cached(text)


def test_a_damaged_entry_is_ignored_and_replaced(cached: Callable[..., tuple[object, int]], tmp_path: Path) -> None:
    first, _ = cached(PROGRAM)
    entry, = (tmp_path / "cache" / "slab-sandbox").glob("*.json")
    whole = entry.read_bytes()
    for at, damage in enumerate((b"", b"{}", b"[1]", whole[: len(whole) // 2], b"\xff",
                                 whole.replace(b"sections", b"x"), whole.replace(b'"version":1', b'"version":0'))):
        entry.write_bytes(damage)
        assert cached(PROGRAM) == (first, at + 2)
    assert entry.read_bytes() == whole


def test_a_cache_that_cannot_be_written_or_is_switched_off_does_no_harm(
        cached: Callable[..., tuple[object, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert cached(PROGRAM)[1] == 1 and cached(PROGRAM)[1] == 2
    (tmp_path / "cache").unlink()
    monkeypatch.setenv("SANDBOX_CACHE", "0")
    assert cached(PROGRAM)[1] == 3 and cached(PROGRAM)[1] == 4 and not (tmp_path / "cache").exists()
