"""``sandbox cflags``: how a Makefile compiles object files for the guest."""

from __future__ import annotations

import shlex

import click

from ..toolchain.c.compiler import INCLUDE
from ..toolchain.c.compiler import cflags as flags_of_the_kernel
from .terminal import Terminal


@click.command()
@click.option("--include", is_flag=True, help="Only the directory of sandbox.h and the C library's headers.")
@click.pass_obj
def cflags(terminal: Terminal, /, include: bool) -> None:
    """The flags for C of one's own Makefile, on one line.

    CFLAGS += $(shell sandbox cflags) and the object files that gcc or clang then writes are taken wherever a .c is:
    sandbox run my.o
    """
    terminal.line(str(INCLUDE) if include else shlex.join(flags_of_the_kernel()))
