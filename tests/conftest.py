"""What many tests begin with: the images for a boot of their own. A booted kernel, ``kernel``, is the plugin's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.abi import PROGRAM_BASE
from sandbox.toolchain import packaged
from sandbox.toolchain.assembler import assemble
from sandbox.toolchain.image import Image
from sandbox.toolchain.source import Source


@pytest.fixture(scope="session")
def kernel_image() -> Image:
    """The kernel, as its sources are now."""
    return packaged.kernel_image()


@pytest.fixture(scope="session")
def build(kernel_image: Image) -> Callable[[str | Path], Image]:
    """Assemble a program, from its text or its path."""
    prelude = packaged.prelude()

    def build_program(program: str | Path) -> Image:
        source = Source.read(program) if isinstance(program, Path) else Source("program.asm", program, Path())
        return assemble([source], PROGRAM_BASE, kernel_image.symbols, prelude=prelude, origins=kernel_image.origins)

    return build_program


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the soaks in full, which takes many minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        skip = pytest.mark.skip(reason="a soak: --soak runs it; the suite has its bounded form")
        for item in items:
            if "soak" in item.keywords:
                item.add_marker(skip)
