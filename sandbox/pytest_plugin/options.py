"""What a test may ask for: the marker's options and the command line's, each checked with one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytest

from ..errors import SandboxError, UsageError

MARKER = "sandbox"
RECORD_WHEN = ("on-failure", "always", "never")
LARGEST_SEED = (1 << 64) - 1


@dataclass(frozen=True)
class Limits:
    """What must hold when a test ends, None or False where nothing was asked for.

    ``max_instructions``: starts that its kernel may take. ``max_pages``: pages of 4 KiB that it may hold at a time.
    ``max_waste``: of these pages, at their peak, the percentage that nobody asked for. ``no_leaks``: everything that
    was allocated is freed, or reached, or kept. ``sound_heap``: validation finds nothing.
    """

    max_instructions: int | None = None
    max_pages: int | None = None
    max_waste: float | None = None
    no_leaks: bool = False
    sound_heap: bool = False

    def __post_init__(self) -> None:
        for name in ("max_instructions", "max_pages"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 0):
                raise UsageError(f"{name} is a number, not {value!r}")
        waste = self.max_waste
        if waste is not None and (isinstance(waste, bool) or not isinstance(waste, (int, float))
                                  or not 0 <= waste <= 100):
            raise UsageError(f"max_waste is a percentage from 0 to 100, not {waste!r}")
        for name in ("no_leaks", "sound_heap"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is True or False, not {getattr(self, name)!r}")

    def __bool__(self) -> bool:
        return self != Limits()


LIMITS = tuple(item.name for item in fields(Limits))


@dataclass(frozen=True)
class Wanted:
    """All that the markers of one test ask for: ``boot`` are options of :func:`sandbox.boot`."""

    boot: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    isolated: bool = False


def wanted(item: pytest.Item) -> Wanted:
    """What a test's markers say, the nearest one first; ``pytest.UsageError``, naming the test, for what cannot be."""
    given: dict[str, Any] = {}
    try:
        for mark in item.iter_markers(MARKER):
            if mark.args:
                raise UsageError(f"its options have names: {mark.args[0]!r} has none")
            given = {**mark.kwargs, **given}
        return _read(given, item.path.parent) if given else Wanted()
    except SandboxError as error:
        raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.{MARKER}: {error}") from None


def _read(given: Mapping[str, Any], directory: Path) -> Wanted:
    known = (*boot_names(), *LIMITS, "isolated")
    _require_known(given, known)
    isolated = given.get("isolated", False)
    if not isinstance(isolated, bool):
        raise UsageError(f"isolated is True or False, not {isolated!r}")
    limits = Limits(**{name: given[name] for name in LIMITS if name in given})
    boot = boot_options({name: value for name, value in given.items() if name in boot_names()}, directory)
    return Wanted(boot, limits, isolated)


def boot_names() -> tuple[str, ...]:
    """The options of :func:`sandbox.boot`."""
    from ..kernel import boot

    return tuple(inspect.signature(boot).parameters)


def boot_options(given: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Options for :func:`sandbox.boot`, checked as far as they can be without a boot. A program or an allocator that
    lies in ``directory``, beside the test, is that one."""
    from ..guest.allocator import AllocatorOptions, allocator_options
    from ..guest.options import BootOptions
    from ..toolchain.c.options import c_options
    from ..trace.shadow_options import shadow_options

    _require_known(given, boot_names())
    BootOptions(**{item.name: given[item.name] for item in fields(BootOptions) if item.name in given})
    allocator = given.get("allocator")
    shadow_options(given.get("shadow", False), given.get("quarantine", 0),
                   allocator if isinstance(allocator, Mapping) else None)
    allocator_options(given.get("symbols"), given.get("refused"), given.get("arena", AllocatorOptions.arena))
    c_options(given.get("cc"), given.get("cflags", ""))
    return {name: _beside(value, directory) if name in ("program", "allocator", "modules") else value
            for name, value in given.items()}


def _require_known(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else f": there are {', '.join(known)}"
            raise UsageError(f"there is no option {name!r}{hint}")


def _beside(program: Any, directory: Path) -> Any:
    """A relative path that exists beside the test's file, as that file; each of several; anything else as it is."""
    from .stock import is_file

    if isinstance(program, (list, tuple)):
        return [_beside(each, directory) for each in program]
    if not isinstance(program, (str, Path)) or "\n" in str(program):
        return program
    return directory / program if is_file(directory / program) else program


# -- the command line -------------------------------------------------------------------------------------------
def add_options(parser: pytest.Parser) -> None:
    """``--sandbox-record`` and ``--sandbox-seed``."""
    group = parser.getgroup("sandbox", "slab-sandbox")
    group.addoption("--sandbox-record", choices=RECORD_WHEN, default=RECORD_WHEN[0],
                    help="when to keep a test's run as .sandbox/NAME.rec, for sandbox step (default: on-failure)")
    group.addoption("--sandbox-seed", type=_seed, default=0, metavar="N",
                    help="the seed of tests that choose none themselves (default: 0)")


def _seed(text: str) -> int:
    """A seed from the command line; ``ValueError`` is what argparse expects."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_SEED:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"a seed is a number from 0 to {LARGEST_SEED}, not {text!r}")
    return number
