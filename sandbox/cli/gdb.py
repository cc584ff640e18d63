"""``sandbox gdb``: a recorded run for stock gdb."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from pathlib import Path
from typing import Any

import click

from ..debugger.gdb import GdbServer, Stub
from ..errors import ExportError
from ..toolchain.symbols_file import write_symbols
from ..view.monitor import REFETCH, Monitor
from ..view.step.session import Session
from .options import (
    boot_options,
    limit_option,
    machine_options,
    program_argument,
    shadow_options,
    suspicion_options,
)
from .recorded import go_to, recorded
from .terminal import Terminal

PORT = 1234
_EVERYWHERE = ("", "0.0.0.0", "::")
_OWN = ("program", "at", "port", "host", "symbols")
SCRIPT = """\
# Written by sandbox gdb. After monitor commands gdb looks at everything anew: they may have gone to another moment.
set extension-language .asm asm
file {file}
set disassembly-flavor intel
set backtrace past-main on
define hookpost-monitor
{refetch}
end
define goto
monitor goto $arg0
frame
end
document goto
goto MOMENT: an instruction count, +N, -N, 50%, #EVENT, start or end. "help reverse" lists what gdb has.
end
target remote {place}
monitor hints off
"""


@click.command()
@program_argument()
@click.option("--port", type=click.IntRange(0, 0xFFFF), default=PORT, show_default=True, metavar="N",
              help="Where gdb connects; 0 takes a free port.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="The address to listen on. Whoever can connect can read all of the run.")
@click.option("--at", metavar="MOMENT", default="main", show_default=True,
              help="Begin there: an instruction count, 50%, start, end, a function, or file.asm:43.")
@click.option("--symbols", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep the file of symbols, and FILE.gdb, gdb's first commands.")
@machine_options
@suspicion_options
@limit_option
@click.pass_obj
def gdb(terminal: Terminal, /, program: str | Path, port: int, host: str, at: str, symbols: Path | None, limit: int,
        shadow: bool, collect: bool, quarantine: int, allocator: tuple[str, ...], inject: tuple[str, ...],
        **machine: Any) -> None:
    """Record a run of PROGRAM, or open a saved record (FILE.rec), and wait for gdb.

    gdb then goes through it in both directions: reverse-stepi, reverse-continue, watch, and "monitor help". The command
    that starts it is printed. Ctrl-C ends the server.
    """
    options = {**boot_options(**machine), **shadow_options(shadow, collect, quarantine, allocator)}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(GdbServer(host, port))
        timeline = recorded(terminal, program, limit, inject, options, _OWN)
        stack.enter_context(contextlib.closing(timeline.kernel))
        go_to(Session(timeline), at)
        if symbols is None:
            symbols = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-gdb-")), "kernel.elf")
        write_symbols(symbols, timeline.kernel.symbols.images)
        script = _script(symbols, server)
        if timeline.result is not None:
            terminal.line(f"recorded {timeline.length:,} instructions: {timeline.result}", "report")
        terminal.line(f"{timeline.moment}: gdb is awaited on port {server.port} of {server.host} (Ctrl-C ends it)",
                      "report")
        terminal.line(f"  {shlex.join(['gdb', '-q', '-x', str(script)])}", "report")
        terminal.out.flush()
        server.serve(Stub(timeline, Monitor(timeline)))


def _script(symbols: Path, server: GdbServer) -> Path:
    """Write gdb's first commands beside the file of symbols."""
    script = symbols.with_name(f"{symbols.name}.gdb")
    refetch = "\n".join(f"pipe {command} | cat > /dev/null" for command in REFETCH)
    host = "localhost" if server.host in _EVERYWHERE else server.host
    place = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
    try:
        script.write_text(SCRIPT.format(file=str(symbols.absolute()).replace(" ", "\\ "), refetch=refetch, place=place))
    except OSError as error:
        raise ExportError(f"{script}: {error.strerror}") from None
    return script
