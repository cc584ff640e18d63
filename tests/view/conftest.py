"""A booted kernel for each module, in its first state for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sandbox
from sandbox import Kernel
from sandbox.guest.guest import Snapshot


@pytest.fixture(scope="module")
def booted() -> Iterator[tuple[Kernel, Snapshot]]:
    """A kernel, and the snapshot that each test begins with."""
    with sandbox.boot() as kernel:
        yield kernel, kernel.snapshot()


@pytest.fixture
def kernel(booted: tuple[Kernel, Snapshot]) -> Kernel:
    """A kernel in its first state."""
    kernel, snapshot = booted
    if kernel.failure is not None:
        kernel.rewind()
    kernel.restore(snapshot)
    return kernel
