"""The three allocators that were written for the pack pass every line of it; what it measures of them is exact."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

import sandbox
from sandbox.conformance import LINES, Report, check

from .broken import ALLOCATORS, ARENA

NAMES = ("bump", "freelist", "bitmap")
SEED_NAMES = {"init": "seed_new", "allocate": "seed_allocate", "deallocate": "seed_deallocate", "stats": None}
EXAMPLES = Path(__file__).parents[2] / "examples"


@cache
def report_of(name: str) -> Report:
    return check(ALLOCATORS / f"{name}.asm", seed=3, arena=ARENA, refused=-1 if name == "bitmap" else None)


@pytest.mark.parametrize("name", NAMES)
def test_a_good_allocator_passes_every_line(name: str) -> None:
    report = report_of(name)
    assert [(line.name, line.reason) for line in report.failed] == []
    assert report.passed and [line.name for line in report] == list(LINES)


def test_the_same_seed_gives_the_same_report_and_it_is_plain_data() -> None:
    first = report_of("freelist").to_dict()
    again = check(ALLOCATORS / "freelist.asm", seed=3, arena=ARENA).to_dict()
    assert json.loads(json.dumps(first)) == again


def test_the_counts_of_a_free_list_are_those_of_its_listing() -> None:
    """allocate has 15 instructions on its way to ret, deallocate 18: counted in the source by hand."""
    figures = report_of("freelist")["instructions"].figures
    for name, count in (("allocate", 15), ("deallocate", 18)):
        assert {figures[f"{name}_{key}"] for key in ("minimum", "median", "p99", "worst")} == {count}


def test_capacity_and_waste_are_those_of_the_geometry() -> None:
    """16 KiB: 64 bytes of owners, rounded up to one block of 256, and 63 blocks; the bump allocator has 128 bytes of
    bits in front of its chunks."""
    figures = report_of("freelist")["exhaustion"].figures
    assert (figures["large_size"], figures["large_capacity"]) == (256, 63)
    assert figures["large_waste_percent"] == round(100 * (1 - 63 * 256 / 16384), 1)
    assert (figures["small_size"], figures["small_capacity"]) == (128, 63)
    assert report_of("bump")["exhaustion"].figures["small_capacity"] == (16384 - 128) // 128


def test_a_bump_allocator_refuses_where_the_others_reuse() -> None:
    refused = {name: report_of(name)["larson"].figures["refused"] for name in NAMES}
    assert refused["bump"] > refused["bitmap"]


def test_the_seed_fails_for_what_is_wrong_with_it() -> None:
    """Its table lies in the memory that it hands out, and deallocate divides by 32 whatever the size."""
    report = check(EXAMPLES / "18_the_seed.asm", symbols=SEED_NAMES, refused=0, arena=ARENA)
    assert {"alignment", "overlap", "confined", "leak", "sizes"} <= {line.name for line in report.failed}
    assert "seed_deallocate" in report["leak"].reason and "is held: it is lost" in report["leak"].reason
    assert "seed_allocate+" in report["confined"].reason and "(seed_blocks" in report["confined"].reason
    assert "which is held" in report["confined"].reason
    assert report["leak"].script is not None and len(report["leak"].script.operations) == 1
    assert report["sizes"].script is not None and len(report["sizes"].script.operations) == 1


def test_no_seed_and_no_name_of_a_list_is_ever_in_guest_memory() -> None:
    from sandbox.conformance.player import Player
    from sandbox.conformance.scripts import mixed
    from sandbox.conformance.subject import Subject
    from sandbox.guest.allocator import AllocatorOptions
    from sandbox.guest.images import assemble_allocator
    from sandbox.toolchain import packaged

    seed = 0x5EED_C0FF_EE15_600D
    linked = assemble_allocator(ALLOCATORS / "freelist.asm", packaged.kernel_image(), AllocatorOptions(arena=16384))
    with Subject(linked, 10_000) as subject:
        assert Player(subject, mixed(seed, 256)).run().findings == []
        ram = bytes(subject.kernel.machine.memory.array().data)
    for text in (seed.to_bytes(8, "little"), seed.to_bytes(8, "big"), str(seed).encode(), b"mixed"):
        assert text not in ram


def test_an_allocator_that_serves_nothing_fails_every_line() -> None:
    source = "init:\nallocate:\n    xor eax, eax\ndeallocate:\nstats:\n    ret\n"
    report = check(source)
    assert len(report.failed) == len(LINES)
    assert "gives 0 for every size from 8 to 4096" in report["overlap"].reason


@pytest.mark.parametrize("options", [{"seed": "x"}, {"limit": 0}, {"arena": 100}, {"refused": "no"},
                                     {"symbols": {"alloc": "x"}}, {"symbols": {"allocate": None}}])
def test_an_option_that_cannot_be_is_one_sentence(options: dict[str, object]) -> None:
    with pytest.raises(sandbox.UsageError) as error:
        check(ALLOCATORS / "bump.asm", **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
