"""``sandbox check``: an allocator of somebody's own through the conformance pack, or a whole class's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..conformance.batch import Batch, Row
from ..conformance.check import ARENA
from ..conformance.folders import folders
from ..conformance.formats import batch_to_data, csv_header, csv_row, gradescope, to_data
from ..conformance.outcome import SECONDS, CheckOptions, isolated_outcome, outcome_of
from ..conformance.report import Report
from ..conformance.rubric import Rubric, default_rubric, default_text, read_rubric
from ..conformance.text import save_tests, text
from ..errors import ProgramError, UsageError
from ..guest.allocator import ROLES, allocator_options
from ..isolated import Bounds
from ..toolchain.packaged import example
from .options import compiler_options, is_number, modules_argument
from .terminal import Terminal

FAILED, NOT_LOADED = 1, 3


def _print_rubric(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        for line in default_text().splitlines():
            context.obj.line(line)
        context.exit()


@click.command()
@click.argument("allocator", required=False)
@modules_argument
@click.option("--symbols", metavar="ROLE=NAME,...",
              help="What its functions are called, where not init, allocate, deallocate, stats (and, if it has them, "
                   "reallocate, allocate_zeroed, allocate_aligned) or malloc, free, realloc, calloc; stats= means that "
                   "it has none, and refused= is what deallocate returns for a pointer that it does not take.")
@click.option("--arena", default=ARENA, show_default=True, metavar="SIZE", help="Memory that init is given.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N",
              help="What workloads are made of; the allocator never sees it.")
@click.option("--rubric", "rubric_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
              help="Points and limits for each line, instead of the default ones.")
@click.option("--print-rubric", is_flag=True, is_eager=True, expose_value=False, callback=_print_rubric,
              help="Show the default rubric, a file to start from.")
@click.option("--json", "as_json", is_flag=True, help="The marks and the whole report as JSON.")
@click.option("--format", "form", type=click.Choice(["text", "json", "gradescope"]), default="text",
              help="gradescope: a results.json for its autograder.")
@click.option("--batch", type=click.Path(path_type=Path), metavar="DIRECTORY",
              help="Check a class: one folder for each student, one row of CSV each. All the .c files in a folder, and "
                   "its .o files that are made of none of them, are linked together.")
@click.option("--name", default="allocator.asm", show_default=True, metavar="FILE",
              help="With --batch: the source in a folder that has more than one .asm file, or the first of its .c "
                   "files; .asm and .c are the same here.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N",
              help="With --batch: processes at a time.  [default: one for each core]")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write there, and not to standard output.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), metavar="DIRECTORY",
              help="Write each failing list of operations as a test file.")
@click.option("--timeout", type=float, default=SECONDS, show_default=True, metavar="SECONDS",
              help="The host's patience with one allocator, in case that its emulator hangs.")
@compiler_options
@click.option("--no-isolation", is_flag=True, help="Check in this process: faster, for an allocator that you trust.")
@click.pass_obj
def check(terminal: Terminal, /, allocator: str | None, modules: tuple[str, ...], symbols: str | None, arena: str,
          seed: int, rubric_file: Path | None, as_json: bool, form: str, batch: Path | None, name: str,
          jobs: int | None, output: Path | None, save: Path | None, timeout: float, cc: str | None, cflags: str,
          no_isolation: bool) -> int:
    """Put ALLOCATOR, a source in assembly or C with init, allocate, deallocate and stats, through the conformance pack.

    In C it may be several files, here or in each folder of a batch; one that defines malloc and free, and not allocate,
    is checked by those. An allocator that has no stats, by --symbols stats= or under malloc's names, has a line less.

    Exit status: 0 when every line passes, or the points reach the rubric's pass; 1 when not; 3 when it could not be
    loaded: the source is missing, does not assemble, or lacks a function; 2 for bad usage.
    """
    if as_json:
        if form == "gradescope":
            raise click.UsageError("--json and --format gradescope are two formats: choose one")
        form = "json"
    rubric = default_rubric() if rubric_file is None else read_rubric(rubric_file)
    roles, refused = _symbols(symbols)
    options = CheckOptions(seed, roles, refused, allocator_options(roles, refused, arena).arena,
                           shorten=batch is None or form == "json" or save is not None, cc=cc, cflags=cflags)
    if batch is not None:
        if allocator is not None or form == "gradescope" or no_isolation:
            raise click.UsageError("--batch is of a whole directory, in processes of their own: ALLOCATOR, "
                                   "--format gradescope and --no-isolation do not go with it")
        return _class(terminal, batch, name, options, rubric, form == "json", jobs, Bounds(timeout), output, save)
    if allocator is None:
        raise click.UsageError("Missing argument 'ALLOCATOR', or --batch DIRECTORY")
    if jobs is not None:
        raise click.UsageError("--jobs is of a batch: it needs --batch")
    files = [Path(file) if "/" in file or "\n" in file else file for file in (allocator, *modules)]
    subject = files if modules else files[0]
    with _writing(terminal, output, "check" if form == "text" else "plain") as write:
        outcome = outcome_of(subject, options) if no_isolation else isolated_outcome(subject, options, Bounds(timeout))
        grade = rubric.grade(outcome.report, outcome.error)
        tests = {} if save is None or outcome.report is None else save_tests(outcome.report, _file(allocator), save)
        if form != "text":
            write(json.dumps(to_data(outcome, grade) if form == "json" else gradescope(outcome, grade), indent=2))
        elif outcome.report is None:
            terminal.error(outcome.error)
        else:
            for line in text(outcome.report, grade, tests, _again(click.get_current_context())):
                write(line)
    if not outcome.loaded:
        return NOT_LOADED
    return 0 if grade.passed else FAILED


def _class(terminal: Terminal, directory: Path, name: str, options: CheckOptions, rubric: Rubric, as_json: bool,
           jobs: int | None, bounds: Bounds, output: Path | None, save: Path | None) -> int:
    """A whole class; after Ctrl-C, the rows that were done are written before the command ends."""
    batch = Batch(directory, folders(directory, name), options, rubric, jobs=jobs, bounds=bounds)
    done: list[Row] = []
    with _writing(terminal, output) as write:
        def keep(row: Row) -> None:
            done.append(row)
            if save is not None and (report := row.outcome.report) is not None:
                save_tests(_placed(report, directory), directory / report.allocator, save / row.student)
            if not as_json:
                write(csv_row(row))

        def finish() -> None:
            if as_json:
                write(json.dumps(batch_to_data(done, len(batch.folders), options.seed), indent=2))

        if not as_json:
            write(csv_header(rubric))
        try:
            with closing(batch.rows()) as rows:
                for row in rows:
                    keep(row)
        except KeyboardInterrupt:
            for row in batch.rest():
                keep(row)
            finish()
            raise
        finish()
    passed = sum(row.grade.passed for row in done)
    unchecked = sum(row.outcome.report is None for row in done)
    terminal.note(f"{len(done)} of {len(batch.folders)} folders, {passed} passed, {unchecked} without a report, "
                  f"seed {options.seed}")
    return 0 if passed == len(batch.folders) else FAILED


def _placed(report: Report, directory: Path) -> Report:
    """A report of a batch with the places of its modules as they are from here."""
    modules = [str(directory / file) for file in report.options.get("modules", ())]
    return replace(report, options={**report.options, "modules": modules}) if modules else report


@contextmanager
def _writing(terminal: Terminal, output: Path | None, kind: str = "plain") -> Iterator[Callable[[str], None]]:
    """Where lines go: each is in the file, or on standard output, as soon as it is written."""
    if output is None:
        def show(line: str) -> None:
            terminal.line(line, kind)
            terminal.out.flush()

        yield show
        return
    with output.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        def write(line: str) -> None:
            file.write(f"{line}\n")
            file.flush()

        yield write


def _symbols(text: str | None) -> tuple[dict[str, str | None], int | None]:
    """``allocate=my_alloc,stats=,refused=0``: names by role, None for a function that there is not; and ``refused``."""
    roles: dict[str, str | None] = {}
    refused = None
    for part in text.split(",") if text else ():
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role == "refused" and is_number(name):
            refused = int(name, 0)
        elif equals and role in ROLES:
            roles[role] = name or None
        else:
            raise UsageError(f"--symbols is ROLE=NAME,ROLE=NAME,... with the roles {', '.join(ROLES)}, or "
                             f"refused=NUMBER, and {part!r} is no part of that")
    return roles, refused


def _file(allocator: str) -> Path:
    """The source's own file: an example may be called by its number."""
    if Path(allocator).exists():
        return Path(allocator)
    try:
        return example(allocator)
    except ProgramError:
        return Path(allocator)


def _again(context: click.Context) -> str:
    """The command that makes the same check, as one types it."""
    words = ["sandbox", "check", context.params["allocator"], *context.params["modules"]]
    for parameter, option in (("symbols", "--symbols"), ("arena", "--arena"), ("seed", "--seed"),
                              ("rubric_file", "--rubric"), ("cc", "--cc"), ("cflags", "--cflags")):
        value: Any = context.params[parameter]
        if context.get_parameter_source(parameter) is not click.core.ParameterSource.DEFAULT:
            words += [option, str(value)]
    return shlex.join(words)
