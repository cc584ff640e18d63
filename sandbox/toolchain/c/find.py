"""The host's C compiler: which one, for which machine, and which of our flags it knows."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...errors import CompilerMissing, EngineError, UsageError
from . import kept
from .flags import CONTRACT, DEFAULTS, INSTEAD, LAYOUT
from .process import run

COMMANDS = ("gcc", "clang", "cc")
"""What is looked for when nobody asks for a compiler, in this order."""
_ELF_X86_64 = re.compile(rb"\x7fELF\x02\x01.{10}\x01\0\x3e\0", re.DOTALL)
_TARGETS = ((), ("--target=x86_64-unknown-linux-gnu",))
_ZIG_TARGETS = (("-target", "x86_64-linux-none"),)      # without one, zig compiles for this very processor
_PROBE = """\
#if defined KERNEL && defined __SSE__
#error -mgeneral-regs-only leaves SSE on
#endif
int probe(int number) { return number; }
"""


@dataclass(frozen=True)
class Compiler:
    """A C compiler that writes x86-64 ELF objects.

    ``command`` with the target that it needs, ``flags`` are ours as far as it knows them, ``headers`` is the
    option that puts a directory of headers before its own, ``version`` the first line of what it says about itself.
    """

    command: tuple[str, ...]
    flags: tuple[str, ...]
    headers: str
    version: str

    @property
    def identity(self) -> tuple[object, ...]:
        """What an object's bytes depend on, besides its sources."""
        return (self.command, self.flags, self.headers, self.version)


def find_compiler(cc: str | None) -> Compiler:
    """The compiler ``cc`` (a command, perhaps with arguments), or $CC, gcc, clang, cc, ziglang: the first that is here.

    :class:`CompilerMissing` when there is none, :class:`EngineError` when it does not make objects for the guest. A
    compiler is asked once in a process.
    """
    return _find(cc, os.environ.get("CC", ""), os.environ.get("PATH", ""))


@cache
def _find(cc: str | None, from_environment: str, path: str) -> Compiler:
    asked = cc if cc is not None else from_environment
    if asked.strip():
        return _asked_for(asked, path)
    refusals: list[EngineError] = []
    for name in COMMANDS:
        found = shutil.which(name, path=path)
        if found is not None:
            try:
                return _probed((found,))
            except EngineError as error:
                refusals.append(error)
    if sys.executable and importlib.util.find_spec("ziglang") is not None:
        return _probed((sys.executable, "-m", "ziglang", "cc"))
    raise refusals[0] if refusals else CompilerMissing()


def _asked_for(cc: str, path: str) -> Compiler:
    """The compiler with this command."""
    try:
        words = shlex.split(cc)
    except ValueError:
        raise UsageError(f"{cc!r} is no command: a quotation mark has no partner") from None
    found = shutil.which(words[0], path=path) if words and "\0" not in cc else None
    if found is None:
        raise CompilerMissing(cc)
    return _probed((str(Path(found).absolute()), *words[1:]))


def _probed(command: tuple[str, ...]) -> Compiler:
    """The compiler behind ``command``, after it has shown what it can."""
    with tempfile.TemporaryDirectory(prefix="slab-sandbox-") as name:
        directory = Path(os.path.realpath(name))
        (directory / "probe.c").write_text(_PROBE, "ascii")
        version = run((*command, "--version"), directory)
        first = next(iter(version.output.splitlines()), "").strip()
        if version.status or not first:
            raise EngineError(f"{shlex.join(command)} is no C compiler: asked for its version, it says "
                              f"{(version.messages or version.output).strip()[:200]!r}")
        name = kept.name_of("compiler", command, version.output)
        try:
            known = kept.load(name) or {}
            return Compiler(tuple(known["command"]), tuple(known["flags"]), str(known["headers"]), first)
        except (KeyError, TypeError):
            compiler = _examined(command, first, directory)
        kept.save(name, {"command": compiler.command, "flags": compiler.flags, "headers": compiler.headers})
        return compiler


def _examined(command: tuple[str, ...], version: str, directory: Path) -> Compiler:
    """What a compiler can, as small programs show; :class:`EngineError` when it is not for the guest's machine."""
    for target in _ZIG_TARGETS if _is_zig(command) else _TARGETS:
        here = (*command, *target)
        if not _complaint(here, (), directory):
            return Compiler(here, _known(here, directory), _headers(here, directory), version)
    raise EngineError(f"{shlex.join(command)} ({version}) does not compile for x86-64 ELF: install gcc or clang, or "
                      "pip install 'slab-sandbox[c]'")


def _is_zig(command: tuple[str, ...]) -> bool:
    """Whether this is ``zig cc`` or ``python -m ziglang cc``."""
    return len(command) > 1 and command[-1] == "cc" and "zig" in Path(command[-2]).name


def _headers(command: tuple[str, ...], directory: Path) -> str:
    """``-isystem``, or ``-I`` for a compiler that has headers of its own before that (zig)."""
    (directory / "own").mkdir()
    (directory / "own" / "stdbool.h").write_text("int found;\n", "ascii")
    (directory / "header.c").write_text("#include <stdbool.h>\n", "ascii")
    done = run((*command, "-nostdinc", "-isystem", "own", "-E", "header.c"), directory)
    return "-isystem" if "int found" in done.output else "-I"


def _complaint(command: tuple[str, ...], flags: Sequence[str], directory: Path) -> str:
    """What the compiler says against these flags, or that it makes no x86-64 object; nothing when all is well."""
    target = directory / "probe.o"
    target.unlink(missing_ok=True)
    done = run((*command, "-Werror", *flags, "-c", "-o", target.name, "probe.c"), directory)
    if done.status == 0 and target.exists() and _ELF_X86_64.match(target.read_bytes()):
        return ""
    return done.messages.strip() or "no object for x86-64"


def _known(command: tuple[str, ...], directory: Path) -> tuple[str, ...]:
    """Our flags as far as the compiler knows them, or what says the same; :class:`EngineError` without the needed."""
    known = [*CONTRACT, *LAYOUT, *DEFAULTS]
    while complaint := _complaint(command, (*known, "-DKERNEL"), directory):
        unknown = ([flag for flag in known if re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w=-])", complaint)]
                   or [flag for flag in known if _complaint(command, (flag,), directory)])
        if not unknown:
            raise EngineError(f"{shlex.join(command)} does not take the kernel's flags: {complaint.splitlines()[0]}")
        for flag in unknown:
            instead = INSTEAD.get(flag, ())
            if flag in CONTRACT and not instead:
                raise EngineError(f"{shlex.join(command)} does not know {flag}, which kernel code needs: install a "
                                  "newer gcc or clang")
            at = known.index(flag)
            known[at : at + 1] = instead
    return tuple(known)
