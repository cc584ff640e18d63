"""The command line over a heap under suspicion: defences, the shadow, faults on purpose, and a process of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sandbox
from sandbox.cli import main
from sandbox.errors import EngineCrashed

Run = Callable[..., tuple[int, str, str]]
run_module = sys.modules["sandbox.cli.run"]
ATTACKS = Path(__file__).parent / "attacks"
SEED = "allocate=seed_allocate,deallocate=seed_deallocate,init=seed_new,refused=0"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: its status, its output, its errors."""
    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())
    return command


# -- the allocator's defences -----------------------------------------------------------------------------------
def test_a_sound_heap_is_called_sound_under_every_guard(run: Run) -> None:
    for options in ([], ["--slab-debug", "FZPU"], ["--freelist-hardened"], ["--freelist-random", 5],
                    ["--no-magazines"], ["--shadow"], ["--shadow", "--quarantine", 10], ["--isolated"]):
        status, out, err = run("run", "03", "--no-trace", *options)
        assert (status, err) == (0, "") and "\nheap: sound\n" in out, options
        assert ("\nshadow: no wrong access\n" in out) == ("--shadow" in options)


def test_slab_debug_reaches_the_kernel_and_its_reports_are_on_the_console(run: Run) -> None:
    status, out, _ = run("run", "14", "--no-trace", "--slab-debug", "FZ,kmalloc-32")
    assert status == 0
    assert "BUG kmalloc-32 (Not tainted): Right Redzone overwritten\n" in out
    assert re.search(r"^FIX kmalloc-32: Restoring Right Redzone 0x[0-9a-f]+-0x[0-9a-f]+=0xcc$", out, re.M)
    assert "BUG" not in run("run", "14", "--no-trace", "--slab-debug", "FZ,kmalloc-64")[1]


def test_damage_that_nobody_noticed_is_listed_by_rule_after_the_run(run: Run) -> None:
    status, out, _ = run("run", ATTACKS / "double_free.asm", "--no-magazines", "--no-trace")
    assert status == 0
    assert re.search(r"^heap: 1 violation\n  0x[0-9a-f]{16}: free-list-cycle: ", out, re.M)


def test_the_trace_tells_the_judge_who_holds_what_lies_in_a_magazine(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "twice.asm"
    path.write_text("main:\n push rbx\n mov edi, 64\n call kmalloc\n mov rbx, rax\n mov rdi, rax\n call kfree\n"
                    " mov rdi, rbx\n call kfree\n mov edi, 64\n call kmalloc\n xor eax, eax\n pop rbx\n ret\n")
    status, out, _ = run("run", path)
    assert status == 0 and re.search(r"^  0x[0-9a-f]{16}: magazine-live: ", out, re.M)


def test_a_guest_that_stopped_inside_the_allocator_is_not_judged(run: Run) -> None:
    status, out, _ = run("run", "16", "--no-trace", "--slab-debug", "F")
    assert status == 3 and "is free already" in out
    assert "heap: not judged, the guest stopped inside the allocator" in out


def test_hardened_free_lists_stop_a_second_free_where_there_are_no_magazines(run: Run) -> None:
    status, out, _ = run("run", "16", "--no-trace", "--freelist-hardened", "--no-magazines")
    assert status == 3 and "is the head of its slab's free list already" in out


def test_a_seed_gives_an_order_and_the_same_seed_the_same(run: Run) -> None:
    outs = [run("run", "01", "-q", "--freelist-random", seed)[1] for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


def test_the_defences_work_for_the_slab_table_too(run: Run) -> None:
    plain, zoned = (re.search(r"^kmalloc-64 +\d+ +(\d+) ", run("slabs", "01", *options)[1], re.M)
                    for options in ([], ["--slab-debug", "Z"]))
    assert plain is not None and zoned is not None and int(zoned[1]) < int(plain[1]) == 64


# -- the shadow -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("example", "kind", "label"), [
    ("14", "out-of-bounds", "the_overflow"), ("15", "use-after-free", "the_read"),
    ("16", "double-free", "the_second_free")])
def test_an_error_of_the_shadow_is_status_3_with_the_whole_report(run: Run, example: str, kind: str,
                                                                  label: str) -> None:
    status, out, err = run("run", example, "--shadow", "--no-trace")
    assert status == 3 and err.startswith(f"error: {kind}: {label} (") and err.count("\n") == 1
    report = out.partition(f"\n{kind}: {label} (")[2]
    for heading in ("at instruction ", "instruction\n", "memory\n", "allocated by kmalloc at instruction ", "bytes\n"):
        assert f"\n{heading}" in report
    status, out, err = run("run", example, "--shadow", "-q")
    assert status == 3 and err.startswith(f"error: {kind}: {label}") and err.count("\n") == 1


def test_collecting_goes_on_to_the_end_and_is_status_3_all_the_same(run: Run) -> None:
    status, out, _ = run("run", "14", "--shadow", "--collect", "--no-trace")
    assert status == 3 and "success: main returned 0" in out
    assert re.search(r"^shadow: 1 error\n  [\d,]+  out-of-bounds: the_overflow ", out, re.M)
    status, out, err = run("run", "14", "--shadow", "--collect", "-q")
    assert status == 3 and out.count("the counter") == 2 and err.startswith("error: out-of-bounds")


def test_only_a_quarantine_lets_the_shadow_see_a_stale_pointer_to_memory_in_use_again(run: Run) -> None:
    def labels(*options: object) -> list[str]:
        out = run("run", "15", "--shadow", "--collect", "--no-trace", *options)[1]
        return re.findall(r"^  [\d,]+  use-after-free: (\w+) ", out, re.M)
    assert labels() == ["the_read"]
    assert labels("--quarantine", 8) == ["the_read", "the_second_read"]


def test_an_allocator_of_the_program_s_own_is_known_by_its_functions_names(run: Run) -> None:
    status, out, _ = run("run", "18", "--shadow", "--collect", "--allocator", SEED, "--no-trace")
    refused = re.search(r"(\d+) frees were refused", out)
    assert status == 3 and "metadata-write: the_overlap" in out and refused is not None
    assert f"never taken back: {refused[1]} chunks" in out


# -- leaks ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [[], ["--no-trace"], ["--no-magazines"], ["--slab-debug", "U"], ["--isolated"]])
def test_what_nothing_leads_to_is_listed_and_what_a_variable_leads_to_is_not(run: Run, options: list[str]) -> None:
    status, out, _ = run("run", "22", *options)
    assert status == 0 and "still in use: 3 objects, 192 bytes" in out
    assert "\nleaked: nothing leads to 2 objects, 128 bytes\n" in out
    lines = out.partition("leaked:")[2].splitlines()[1:3]
    assert all("of kmalloc-64" in line for line in lines)
    assert all(("by add_node" in line) == (options != ["--no-trace"]) for line in lines)


def test_a_program_that_gives_everything_back_leaks_nothing(run: Run) -> None:
    for example in ("01", "03", "04", "12", "18"):
        assert "leaked" not in run("run", example)[1]


# -- faults on purpose ------------------------------------------------------------------------------------------
def test_an_allocation_fails_when_it_is_told_to_and_the_summary_says_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "second.asm"
    path.write_text("main:\n push rbx\n mov edi, 100\n call kmalloc\n mov rbx, rax\n mov edi, 100\n call kmalloc\n"
                    " test rax, rax\n setnz al\n movzx eax, al\n pop rbx\n ret\n")
    assert run("run", path, "--no-trace")[0] == 1
    status, out, _ = run("run", path, "--no-trace", "--inject", "cache=kmalloc-128:2")
    assert status == 0 and "injected: cache=kmalloc-128:2 struck once, in 2 calls" in out
    assert run("run", path, "-q", "--isolated", "--inject", "cache=kmalloc-128:2")[0] == 0
    status, out, _ = run("run", path, "--no-trace", "--inject", "pages:10%,seed=3", "--inject", "pages:900")
    assert out.count("injected: pages:") == 2 and "pages:900 struck never" in out


def test_a_bit_flips_and_an_interrupt_comes_when_the_clock_says(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "spin.asm"
    path.write_text("main:\n mov ecx, 1000\nspin:\n dec ecx\n jnz spin\n movzx eax, byte ptr [rip + victim]\n"
                    " xor eax, 4\n ret\n.data\nvictim: .byte 0\n")
    with sandbox.boot(path, hz=0) as kernel:
        when = kernel.instructions + 1000
    assert run("run", path, "-q", "--hz", 0)[0] == 1
    status, out, _ = run("run", path, "--hz", 0, "--inject", f"flip=victim.2@{when}")
    assert status == 0 and re.search(rf"^injected: flip=0x[0-9a-f]+\.2@{when} struck once$", out, re.M)
    plain, hit = (re.search(r"after ([\d,]+) instr", run("run", path, *more)[1])
                  for more in ([], ["--inject", f"irq=0@{when}"]))
    assert plain is not None and hit is not None and plain[1] != hit[1]


# -- a process of its own ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [["01"], ["16", "--slab-debug", "F"], ["14", "--shadow"],
                                       ["14", "--shadow", "--collect"], ["15", "--no-trace", "--limit", "4000"]])
def test_an_isolated_run_shows_what_any_other_run_shows(run: Run, arguments: list[str]) -> None:
    here, there = run("run", *arguments), run("run", *arguments, "--isolated")
    assert there[0] == here[0] and there[2] == here[2]
    assert there[1].partition("\nnext\n")[0] == here[1].partition("\nnext\n")[0]
    assert run("run", *arguments, "-q", "--isolated") == run("run", *arguments, "-q")


def test_the_trace_of_an_isolated_run_is_written_too(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / "here.jsonl", tmp_path / "there.jsonl"]
    for file, options in zip(files, ([], ["--isolated"]), strict=True):
        assert run("run", "01", "-q", "--json", file, *options)[0] == 0
    assert files[0].read_text() == files[1].read_text() != ""


def test_a_dead_process_is_one_error_and_status_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: object, **__: object) -> None:
        raise EngineCrashed(-6, "qemu: assertion failed")
    monkeypatch.setattr(run_module, "run_isolated", dead)
    status, out, err = run("run", "01", "--isolated")
    assert (status, out) == (3, "") and err.startswith("error: ") and "SIGABRT" in err and err.count("\n") == 1


# -- what cannot be ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("isolated", [[], ["--isolated"]])
@pytest.mark.parametrize(("options", "words"), [
    ("--slab-debug Q", "'Q' is no letter"),
    ("--slab-debug FZ,", "a cache's name is missing"),
    ("--freelist-random -1", "--freelist-random is a number"),
    ("--freelist-random x", "is not a valid integer"),
    ("--collect", "--collect is the shadow's"),
    ("--quarantine 5", "--quarantine is the shadow's"),
    ("--allocator allocate=seed_allocate", "--allocator is the shadow's"),
    ("--shadow --quarantine -5", "quarantine is a number of freed objects"),
    ("--shadow --allocator seed_allocate", "is no part of that"),
    ("--shadow --allocator allocate=", "is no part of that"),
    ("--shadow --allocator allocate=nobody", "no symbol is called 'nobody'"),
    ("--shadow --allocator free=seed_deallocate", "an allocator has the names of its functions"),
    ("--shadow --allocator allocate=seed_allocate,refused=no", "refused is the number"),
    ("--inject pages", "'pages' is no fault"),
    ("--inject pages:0", "a number from 1 up"),
    ("--inject cache=kmalloc-64:101%", "up to 100%"),
    ("--inject flip=nobody.1@200000", "neither an address nor a symbol"),
    ("--inject flip=0x1000.9@200000", "a bit is a number from 0 to 7"),
    ("--inject flip=main.1@5", "is past"),
    ("--inject irq=99@200000", "an interrupt line is a number from 0 to 15"),
    ("--on qemu --shadow", "do not go with QEMU"),
])
def test_a_bad_value_is_status_2_and_one_sentence(run: Run, options: str, words: str, isolated: list[str]) -> None:
    status, out, err = run("run", "18", *options.split(), *isolated)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err


def test_the_help_names_every_option(run: Run) -> None:
    out = run("run", "--help")[1]
    for option in ("--slab-debug", "--freelist-hardened", "--freelist-random", "--shadow", "--collect", "--quarantine",
                   "--allocator", "--inject", "--isolated"):
        assert option in out
