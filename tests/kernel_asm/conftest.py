"""A kernel from its sources, and programs in a few lines of assembly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.guest.boot import load
from sandbox.guest.guest import Guest
from sandbox.guest.options import BootOptions
from sandbox.machine.machine import Machine
from sandbox.toolchain.image import Image


@pytest.fixture
def boot(kernel_image: Image, build: Callable[[str | Path], Image]) -> Iterator[Callable[..., Guest]]:
    """Boot to kernel_ready, with or without a program."""
    machines = []

    def boot_program(program: str | Path | None = None, **options: object) -> Guest:
        chosen = BootOptions(**options)  # type: ignore[arg-type]
        image = build(program) if program is not None else None
        machine = Machine(chosen.ram_size)
        machines.append(machine)
        start = load(machine.memory, kernel_image, image, chosen)
        machine.start_long_mode(cr3=start.cr3, rip=start.rip, rsp=start.rsp, rdi=start.rdi)
        return Guest(machine, kernel_image, image)

    yield boot_program
    for machine in machines:
        machine.close()


@pytest.fixture
def guest(boot: Callable[..., Guest]) -> Guest:
    """A kernel without a program, ready for calls."""
    return boot()
