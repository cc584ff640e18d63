"""What travels with the package, and that it is current."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import EngineError, ProgramError
from sandbox.toolchain import assembler, cache, packaged
from sandbox.toolchain.cache import Store, prebuilt_store
from sandbox.toolchain.source import Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small kernel and two examples in place of the real ones, and an empty store for their images."""
    kernel, examples = tmp_path / "kernel_asm", tmp_path / "examples"
    kernel.mkdir()
    examples.mkdir()
    (kernel / "SOURCES").write_text("# order\nabi.inc\nstart.asm   # first\n")
    (kernel / "abi.inc").write_text(".set SIZE, 64\n")
    (kernel / "start.asm").write_text("_start: mov eax, SIZE\nkmalloc: ret\n")
    (examples / "01_first.asm").write_text("main: mov edi, SIZE\ncall kmalloc\nret\n")
    (examples / "02_second_one.asm").write_text('.include "part.inc"\n')
    (examples / "part.inc").write_text("main: jmp kmalloc\n")
    (examples / "03_host.py").write_text("pass\n")
    (examples / "04_in_c.c").write_text("int main(void) { return 0; }\n")
    (examples / "told.c").write_text("int main(void) { return 1; }\n")
    monkeypatch.setattr(packaged, "_data", lambda name: tmp_path / name)
    monkeypatch.setattr(packaged, "benchmarks_directory", lambda: tmp_path / "bench_asm")
    for module in (packaged, cache):
        monkeypatch.setattr(module, "prebuilt_store", lambda: Store(tmp_path / "prebuilt"))
    monkeypatch.setenv("SANDBOX_CACHE", "0")
    return tmp_path


def test_the_kernel_is_its_listed_files_in_order(house: Path) -> None:
    assert [source.name for source in packaged.kernel_sources()] == ["kernel_asm/abi.inc", "kernel_asm/start.asm"]
    assert [source.name for source in packaged.prelude()] == ["kernel_asm/abi.inc"]
    image = packaged.kernel_image()
    assert list(image.symbols) == ["_start", "kmalloc"] and image.origins["kmalloc"] == "kernel_asm/start.asm:2"


@pytest.mark.parametrize(("name", "file"), [
    ("01", "01_first.asm"), ("1", "01_first.asm"), ("first", "01_first.asm"), ("01_first", "01_first.asm"),
    ("01_first.asm", "01_first.asm"), ("2", "02_second_one.asm"), ("second_one", "02_second_one.asm"),
    ("4", "04_in_c.c"), ("in_c", "04_in_c.c"), ("04_in_c.c", "04_in_c.c"), ("told", "told.c"), ("told.c", "told.c"),
])
def test_an_example_is_found_by_number_or_name(house: Path, name: str, file: str) -> None:
    assert packaged.example(name) == house / "examples" / file


def test_an_example_in_c_is_no_packaged_image_and_one_without_a_number_no_lesson(house: Path) -> None:
    assert [path.name for path in packaged.examples()] == ["01_first.asm", "02_second_one.asm", "04_in_c.c"]
    assert [path.name for path in packaged.assembled_examples()] == ["01_first.asm", "02_second_one.asm"]


def test_an_unknown_example_is_an_error_with_the_nearest_name(house: Path) -> None:
    with pytest.raises(ProgramError, match="did you mean first"):
        packaged.example("frist")
    for name in ("3", "", "00", "²"):
        with pytest.raises(ProgramError, match="no such file or example"):
            packaged.example(name)


def test_booting_needs_no_assembler_when_the_packaged_images_are_current(house: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = packaged.kernel_image()
    programs = [packaged.program_image(Source.read(path), kernel) for path in packaged.assembled_examples()]
    assert packaged.stale() == ["kernel", "01_first", "02_second_one"]
    packaged.rebuild()
    assert packaged.stale() == []

    def no_assembler(*arguments: object, **options: object) -> None:
        raise EngineError("there is none")

    for name in ("build", "_in_child"):
        monkeypatch.setattr(assembler, name, no_assembler)
    assert packaged.kernel_image() == kernel
    assert [packaged.program_image(Source.read(path), kernel) for path in packaged.assembled_examples()] == programs
    (house / "examples" / "part.inc").write_text("main: ret\n")
    with pytest.raises(EngineError):
        packaged.program_image(Source.read(house / "examples" / "02_second_one.asm"), kernel)


def test_a_change_of_the_kernel_makes_every_packaged_image_stale(house: Path) -> None:
    packaged.rebuild()
    (house / "kernel_asm" / "start.asm").write_text("_start: nop\nmov eax, SIZE\nkmalloc: ret\n")
    assert packaged.stale() == ["kernel", "01_first", "02_second_one"]
    assert packaged.kernel_image().symbols["kmalloc"] == packaged.kernel_image().base + 6


def test_a_packaged_image_that_no_longer_has_a_source_goes_away(house: Path) -> None:
    packaged.rebuild()
    (house / "examples" / "01_first.asm").unlink()
    packaged.rebuild()
    left = sorted(path.name for path in (house / "prebuilt").iterdir())
    assert left == ["02_second_one.json", "index.json", "kernel.json"]


def test_the_real_packaged_images_are_current() -> None:
    """``python -m sandbox.toolchain.packaged`` makes them so."""
    if not (ROOT / "kernel_asm" / "SOURCES").is_file() or not (prebuilt_store().directory / "index.json").is_file():
        pytest.skip("the kernel is not packaged yet")
    assert packaged.stale() == []
