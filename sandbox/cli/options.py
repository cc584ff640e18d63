"""Arguments that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..abi import EMPTY_SLAB_LIMIT
from ..toolchain.c.files import SUFFIXES
from ..toolchain.packaged import examples_directory

_Command = TypeVar("_Command", bound=Callable[..., Any])

RUN_LIMIT = 500_000_000
"""Instructions that a program may take unless told otherwise: some ten seconds."""
_GROUPED = re.compile(r"[0-9]{1,3}(?:[,_][0-9]{3})+")


def program_argument(required: bool = True) -> Callable[[_Command], _Command]:
    """PROGRAM, the first argument: a file, or the name of an example; the modules behind it, and their compiler."""
    argument = click.argument("program", required=required, callback=_program)
    return lambda command: argument(modules_argument(compiler_options(command)))


def modules_argument(command: _Command) -> _Command:
    """More files: C sources, objects, or sources in assembly."""
    return click.argument("modules", nargs=-1, metavar="[MODULE]...")(command)


def compiler_options(command: _Command) -> _Command:
    """``--cc`` and ``--cflags``."""
    for option in reversed((
        click.option("--cc", metavar="COMMAND", help="The C compiler.  [default: $CC, gcc, clang or zig]"),
        click.option("--cflags", default="", metavar="FLAGS", help="Flags for it, as one word: '-O2 -DDEBUG'."),
    )):
        command = option(command)
    return command


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
    """How the machine is made: ``--ram``, ``--hz``, and how its allocator is: magazines, and Linux's defences."""
    for option in reversed((
        click.option("--ram", default="16M", show_default=True, metavar="SIZE", help="Physical memory: 4M to 2G."),
        click.option("--no-magazines", is_flag=True, help="No per-CPU magazines: each call goes to its slab."),
        click.option("--hz", type=int, default=100, show_default=True, metavar="N",
                     help="Timer interrupts a second, 0 for none."),
        click.option("--empty-slabs", type=int, default=EMPTY_SLAB_LIMIT, show_default=True, metavar="N",
                     help="Empty slabs that each cache keeps."),
        click.option("--slab-debug", default="", metavar="LETTERS",
                     help="Linux's slab_debug: F checks, Z red zones, P poison, U owners, T trace, A failures; "
                          "FZ,kmalloc-64 for one cache."),
        click.option("--freelist-hardened", is_flag=True, help="Free pointers are encoded, with a secret per cache."),
        click.option("--freelist-random", type=int, metavar="SEED", help="A new slab's objects in a random order."),
    )):
        command = option(command)
    return command


class _Count(click.IntRange):
    """A number that may be written as it is shown: ``500,000``, and as Python has it: ``500_000``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and _GROUPED.fullmatch(value):
            value = value.replace(",", "").replace("_", "")
        return super().convert(value, param, ctx)


def limit_option(command: _Command) -> _Command:
    """``--limit``, in instructions."""
    return click.option("--limit", type=_Count(min=1), default=RUN_LIMIT, metavar="N",
                        help=f"Stop after N instructions.  [default: {RUN_LIMIT:,}]")(command)


def boot_options(ram: str, no_magazines: bool, hz: int, empty_slabs: int, slab_debug: str, freelist_hardened: bool,
                 freelist_random: int | None, modules: tuple[str, ...] = (), cc: str | None = None, cflags: str = "",
                 ) -> dict[str, Any]:
    """The machine's options, the modules and their compiler as :func:`sandbox.boot` takes them."""
    return {**machine_of(ram, no_magazines, hz, empty_slabs, slab_debug, freelist_hardened, freelist_random),
            **{name: value for name, value in (("modules", list(modules)), ("cc", cc), ("cflags", cflags)) if value}}


def machine_of(ram: str, no_magazines: bool, hz: int, empty_slabs: int, slab_debug: str, freelist_hardened: bool,
               freelist_random: int | None) -> dict[str, Any]:
    """The machine's options alone, as :class:`~sandbox.guest.options.BootOptions` takes them."""
    return {"ram": ram, "magazines": not no_magazines, "hz": hz, "empty_slab_limit": empty_slabs,
            "slab_debug": slab_debug, "freelist_hardened": freelist_hardened,
            "freelist_random": False if freelist_random is None else freelist_random}


# -- suspicion --------------------------------------------------------------------------------------------------
def suspicion_options(command: _Command) -> _Command:
    """What watches over a run, and what is done to it on purpose."""
    for option in reversed((
        click.option("--shadow", is_flag=True, help="Watch every access to the heap, and stop at the first wrong one."),
        click.option("--collect", is_flag=True, help="With --shadow: note what is wrong, and go on."),
        click.option("--quarantine", type=int, default=0, metavar="N",
                     help="With --shadow: N freed objects wait before their memory is used again."),
        click.option("--allocator", multiple=True, metavar="FILE|ROLE=NAME,...",
                     help="An allocator that the program calls, in a file of its own; may be given again for more C. "
                          "With --shadow also the program's own: allocate=, deallocate= and init= name its functions, "
                          "refused= is what deallocate returns for a chunk that it does not take."),
        click.option("--inject", multiple=True, metavar="FAULT",
                     help="A fault on purpose: pages:3, pages:10%,seed=7, cache=kmalloc-64:1, "
                          "flip=ADDRESS.BIT@INSTRUCTION or irq=LINE@INSTRUCTION; may be given again."),
    )):
        command = option(command)
    return command


def shadow_options(shadow: bool, collect: bool, quarantine: int, allocator: tuple[str, ...]) -> dict[str, Any]:
    """The shadow's options as :func:`sandbox.boot` takes them."""
    are_files = [_is_file(text) for text in allocator]
    if any(are_files) and not all(are_files):
        raise click.UsageError("--allocator is files, or the roles of the program's own functions, and not both")
    file = {"allocator": list(allocator)} if any(are_files) else {}
    roles = "" if file else ",".join(allocator)
    if not shadow:
        for name, value in (("--collect", collect), ("--quarantine", quarantine), ("--allocator", roles)):
            if value:
                raise click.UsageError(f"{name} is the shadow's: it needs --shadow")
        return {**file}
    return {"shadow": "collect" if collect else True, "quarantine": quarantine,
            "allocator": _roles(roles) if roles else None, **file}


def _is_file(text: str) -> bool:
    """Whether an allocator is given as its file, and not as the roles of functions."""
    return "=" not in text and (text.endswith((".asm", *SUFFIXES)) or "/" in text or Path(text).is_file())


def _roles(text: str) -> dict[str, str | int]:
    """``allocate=seed_allocate,refused=0`` as a mapping; what a role may be is for the shadow to say."""
    roles: dict[str, str | int] = {}
    for part in text.split(","):
        role, equals, name = part.partition("=")
        if not (role and equals and name):
            raise click.UsageError(f"--allocator is ROLE=NAME,ROLE=NAME,... and {part!r} is no part of that")
        roles[role] = int(name, 0) if role == "refused" and is_number(name) else name
    return roles


def is_number(text: str) -> bool:
    """Whether it is a number as Python writes one: ``0``, ``-1``, ``0xffff``."""
    try:
        int(text, 0)
    except ValueError:
        return False
    return True
