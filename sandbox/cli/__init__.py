"""The command line: arguments in, text and an exit status out.

The status is 0 when the guest reports success, 1 when it reports failure, 2 for bad usage, 3 after a panic, a fault,
an error of the shadow, a limit or any other stop, or when the heap is too corrupt to be shown, 130 after Ctrl-C,
141 (128 + SIGPIPE) when nobody reads the output any more. An error is one sentence on standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

import click

from .. import __version__
from ..errors import CompileWarning, GuestError, HeapCorruption, SandboxError
from .cflags import cflags
from .check import check
from .commands import bench, disasm, export, memory_map, new, slabs
from .explain import explain
from .gdb import gdb
from .lessons import lessons
from .run import INTERRUPTED, STOPPED, run
from .step import step
from .terminal import Terminal

BAD_USAGE, BROKEN_PIPE, INTERNAL = 2, 141, 70
OPTION_NAMES = {"hz": "--hz", "empty_slab_limit": "--empty-slabs", "slab_debug": "--slab-debug",
                "freelist_random": "--freelist-random", "quarantine": "--quarantine"}
"""What an option of :func:`sandbox.boot` is called here: errors of that begin with its name."""


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sandbox")
@click.pass_context
def sandbox(context: click.Context, /) -> None:
    """Run programs on an emulated x86-64 machine with a small kernel, and watch its slab allocator at work.

    PROGRAM is a source with a main, in assembly or C, or the number of an example: sandbox run 01
    """
    if context.invoked_subcommand is None:
        context.obj.note(context.get_help())
        context.exit(BAD_USAGE)


for command in (run, step, explain, gdb, check, slabs, memory_map, disasm, new, bench, export, lessons,
                cflags):
    sandbox.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, and lets no exception out."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    terminal = Terminal()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CompileWarning)
        warnings.showwarning = lambda message, *_: terminal.note(str(message))
        return _run(terminal, sys.argv[1:] if arguments is None else list(arguments))


def _run(terminal: Terminal, given: list[str]) -> int:
    """Run a command; its exit status."""
    try:
        with sandbox.make_context("sandbox", given, obj=terminal) as context:
            status = sandbox.invoke(context)
        terminal.out.flush()
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        _silence(terminal)
        return BROKEN_PIPE
    except (KeyboardInterrupt, click.Abort):
        terminal.error("interrupted")
        return INTERRUPTED
    except click.exceptions.Exit as error:       # --help and --version
        return error.exit_code
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if where else ""
        terminal.error(f"{error.format_message().rstrip('.').replace(chr(10), ' ')}{hint}")
        return BAD_USAGE
    except SandboxError as error:
        terminal.error(_with_option_name(str(error).strip()))
        return STOPPED if isinstance(error, (GuestError, HeapCorruption)) else BAD_USAGE
    except OSError as error:
        if not error.filename:                   # every other file of ours has a name
            _silence(terminal)
        terminal.error(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return BAD_USAGE
    except Exception as error:
        if os.environ.get("SANDBOX_TRACEBACK"):
            raise
        terminal.error(f"the sandbox itself has a defect, {type(error).__name__}: {error} "
                       "(SANDBOX_TRACEBACK=1 shows where)")
        return INTERNAL


def _with_option_name(sentence: str) -> str:
    """The same, where it begins with the name of an option in Python, with the one that was typed."""
    first, blank, rest = sentence.partition(" ")
    name = first.rstrip(":")
    return f"{OPTION_NAMES.get(name, name)}{first[len(name):]}{blank}{rest}"


def _silence(terminal: Terminal) -> None:
    """Standard output cannot be written: let what is still buffered go nowhere, at the interpreter's end too."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), terminal.out.fileno())
