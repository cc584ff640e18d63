"""The other commands: each looks at one thing and prints it."""

from __future__ import annotations

import json
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import click

from ..abi import boot_info
from ..errors import HeapCorruption, UsageError
from ..guest.export import export as export_image
from ..guest.export import qemu_command
from ..guest.images import make_images
from ..guest.options import BootOptions
from ..guest.symbols import Symbols
from ..kernel import boot
from ..toolchain.c.options import c_options
from ..toolchain.packaged import kernel_image
from ..toolchain.symbols_file import write_symbols
from ..view.disasm import disassembly
from ..view.memory_map import memory_map as memory_map_text
from ..view.slab_table import slab_table
from ..view.slabs import page_summary, slabinfo
from .options import boot_options, limit_option, machine_options, program_argument
from .run import STATUS, STOPPED
from .terminal import Terminal


@click.command()
@program_argument(required=False)
@machine_options
@limit_option
@click.option("--proc", is_flag=True, help="The text of Linux's /proc/slabinfo, as the guest's slabinfo() prints it.")
@click.pass_obj
def slabs(terminal: Terminal, /, program: str | Path | None, limit: int, proc: bool, **machine: Any) -> int:
    """Every cache in slabinfo's columns, after PROGRAM has run, or after boot."""
    with boot(program, **boot_options(**machine)) as kernel:
        status = 0
        if program is not None:
            result = kernel.run(limit, progress=terminal.progress)
            status = STATUS.get(result.kind, STOPPED)
            terminal.note(result.sentence)
        try:
            for line in [slabinfo(kernel.heap)] if proc else slab_table(kernel.heap):
                terminal.line(line.rstrip("\n"))
        except HeapCorruption as error:          # behind the rows of the caches that are sound
            terminal.error(f"the heap is corrupt: {error}")
            status = STOPPED
        if not proc:
            terminal.line()
            terminal.line(page_summary(kernel.heap).rstrip("\n"))
    return status


@click.command("map")
@program_argument(required=False)
@machine_options
@click.pass_obj
def memory_map(terminal: Terminal, /, program: str | Path | None, **machine: Any) -> None:
    """The physical memory map, and every mapped range of virtual memory with its rights."""
    with boot(program, **boot_options(**machine)) as kernel:
        loader_end = boot_info(kernel.memory, kernel.memory.u64(kernel.symbols["boot_params"])).loader_end
        for line in memory_map_text(kernel.machine.memory, kernel.machine.paging, loader_end).splitlines():
            terminal.line(line, "report")


@click.command()
@click.argument("symbol")
@program_argument(required=False)
@click.pass_obj
def disasm(terminal: Terminal, /, symbol: str, program: str | Path | None, modules: tuple[str, ...], cc: str | None,
           cflags: str) -> None:
    """A function of the kernel, or of PROGRAM: its source beside its bytes."""
    images = make_images(kernel_image(), program, modules, choice=c_options(cc, cflags))
    symbols = Symbols(*images.linked)
    if symbol == "main" and symbol not in symbols:
        raise UsageError("the kernel has no main: sandbox disasm main PROGRAM shows a program's")
    for line in disassembly(symbols, symbol):
        terminal.line(line, "source")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def new(terminal: Terminal, /, file: Path) -> None:
    """Write a commented program to start from, in C when FILE ends in .c; an existing file is left alone."""
    template = "template.c" if file.suffix == ".c" else "template.asm"
    text = (resources.files("sandbox") / template).read_text("utf-8")
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise click.ClickException(f"{file} exists, and is left as it is") from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    terminal.line(f"wrote {file}: now  sandbox run {shlex.quote(str(file))}", "report")


@click.command()
@program_argument()
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where the multiboot image goes.")
@click.option("--symbols", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where an ELF file with symbols and lines for gdb goes; its sources go to FILE.src.")
@machine_options
@click.pass_obj
def export(terminal: Terminal, /, program: str | Path, modules: tuple[str, ...], cc: str | None, cflags: str,
           output: Path | None, symbols: Path | None, **machine: Any) -> None:
    """Write the kernel with PROGRAM as an image that QEMU boots, or as a file that tells gdb about them.

    The command that uses the file is printed.
    """
    if output is None and symbols is None:
        raise UsageError("nothing to write: give -o FILE for the image, --symbols FILE for gdb, or both")
    options = BootOptions(**boot_options(**machine))
    images = make_images(kernel_image(), program, modules, choice=c_options(cc, cflags))
    if symbols is not None:
        write_symbols(symbols, images.linked)
        terminal.line(shlex.join(["gdb", str(symbols)]))
    if output is not None:
        try:
            output.write_bytes(export_image(images.kernel, images.program, options, images.modules))
        except OSError as error:
            raise click.ClickException(f"{output}: {error.strerror}") from None
        terminal.line(shlex.join(qemu_command(output, options)))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The rows as JSON.")
@click.pass_obj
def bench(terminal: Terminal, /, as_json: bool) -> None:
    """Measure the allocator in instructions, and the sandbox in time."""
    from .. import bench as benchmark

    rows = benchmark.measure()
    if as_json:
        terminal.line(json.dumps(benchmark.to_data(rows), indent=2))
    else:
        for line in benchmark.table(rows):
            terminal.line(line, "report")
