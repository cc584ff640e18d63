"""Shared by the tests of the toolchain: one way to assemble a text, and the second assembler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox.toolchain.assembler import assemble
from sandbox.toolchain.gnu import GnuAssembler, find_assembler
from sandbox.toolchain.image import Image
from sandbox.toolchain.source import Source

BASE = 0xFFFFFFFFA0000000
Assemble = Callable[..., Image]


@pytest.fixture
def asm(tmp_path: Path) -> Assemble:
    """``asm(text, externs, base=..., ...)`` assembles a file ``program.asm`` without any cache."""

    def build(text: str, externs: Mapping[str, int] | None = None, *, base: int = BASE, **options: Any) -> Image:
        options.setdefault("cache", False)
        return assemble([Source("program.asm", text, tmp_path)], base, externs or {}, **options)

    return build


@pytest.fixture
def code(asm: Assemble) -> Callable[..., bytes]:
    """``code(text)`` is the bytes of the instructions alone."""

    def build(text: str, *arguments: Any, **options: Any) -> bytes:
        image = asm(text, *arguments, **options)
        return image.bytes()[: image.text_end - image.base]

    return build


@pytest.fixture(scope="session")
def gnu() -> GnuAssembler:
    """The second opinion; tests that need it are skipped where there is none."""
    found = find_assembler()
    if found is None:
        pytest.skip("no GNU as or clang for x86-64")
    return found
