"""Arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..abi import EMPTY_SLAB_LIMIT
from ..toolchain.packaged import examples_directory

_Command = TypeVar("_Command", bound=Callable[..., Any])

RUN_LIMIT = 500_000_000
"""Instructions that a program may take unless told otherwise: some ten seconds."""


def program_argument(required: bool = True) -> Callable[[_Command], _Command]:
    """PROGRAM, the first argument: a file, or the name of an example."""
    return click.argument("program", required=required, callback=_program)


def _program(context: click.Context, parameter: click.Parameter, value: str | None) -> str | Path | None:
    """The name as it is, or a path. Source text, which Python may give, is no argument; a script for the host is
    refused with the command that runs it."""
    if value is None:
        return None
    if "\n" in value:
        raise click.BadParameter("a program is a file or the number of an example", context, parameter)
    for script in examples_directory().glob("[0-9][0-9]_*.py") if value.isdecimal() else ():
        if script.name.startswith(f"{int(value):02d}_"):
            raise click.BadParameter(f"example {value} is a Python script: python {script}", context, parameter)
    return Path(value) if "/" in value else value


def machine_options(command: _Command) -> _Command:
    """How the machine is made: ``--ram``, ``--hz``, ``--no-magazines``, ``--empty-slabs``."""
    for option in reversed((
        click.option("--ram", default="16M", show_default=True, metavar="SIZE", help="Physical memory: 4M to 2G."),
        click.option("--no-magazines", is_flag=True, help="No per-CPU magazines: each call goes to its slab."),
        click.option("--hz", type=int, default=100, show_default=True, metavar="N",
                     help="Timer interrupts a second, 0 for none."),
        click.option("--empty-slabs", type=int, default=EMPTY_SLAB_LIMIT, show_default=True, metavar="N",
                     help="Empty slabs that each cache keeps."),
    )):
        command = option(command)
    return command


def limit_option(command: _Command) -> _Command:
    """``--limit``, in instructions."""
    return click.option("--limit", type=click.IntRange(min=1), default=RUN_LIMIT, metavar="N",
                        help=f"Stop after N instructions.  [default: {RUN_LIMIT:,}]")(command)


def boot_options(ram: str, no_magazines: bool, hz: int, empty_slabs: int) -> dict[str, Any]:
    """The machine's options as :func:`sandbox.boot` takes them."""
    return {"ram": ram, "magazines": not no_magazines, "hz": hz, "empty_slab_limit": empty_slabs}
