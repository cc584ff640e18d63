"""C source to an object file, by the host's compiler.

::

    my.c --survey--> -E, its files are ours? --> inline assembly --> -c --> ObjectFile, kept in the user's cache

The compiler runs in a directory of its own, in which the module's directory and our headers are links: it never sees a
path of the host, so that its bytes and its words are the same everywhere.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ...errors import CompileError, ProgramError
from ..source import Source
from . import object_cache, process
from .find import Compiler, find_compiler
from .flags import EPOCH, INCLUDE, PATH_FLAGS, cflags, checked
from .includes import LIBRARY, MODULE, Module, Survey, kind_of, opened, read, survey
from .inline_assembly import file_directive, unsafe_directive
from .objects import ObjectFile
from .options import COptions
from .process import Finished, run

__all__ = ["INCLUDE", "Compiler", "cflags", "compile_c", "find_compiler"]

MESSAGE_CHARACTERS = 64 << 10
"""How much of what a compiler says is shown."""
_ERROR = re.compile(r"^([^\s:][^:\n]*):(\d+)(?::\d+)?: (?:fatal )?[eE]rror: ", re.MULTILINE)
_FLOATING = re.compile(r"^.*\berror: .*(?:SSE|x87|80387|floating|'(?:float|double|long double)').*$", re.MULTILINE)
_EXPLANATION = ("note: kernel code must not use floating point or SSE: the kernel does not keep those registers "
                "(-mgeneral-regs-only)")


def compile_c(path: Path, shown: str, options: COptions, root: Path | None = None) -> ObjectFile:
    """Compile the C source at ``path``, which messages, ``__FILE__`` and debug information call ``shown``.

    ``shown`` ends with the file's own name. What it includes lies below ``root``, a directory above it, where ``shown``
    ends with the path from there; otherwise below its own. :class:`ProgramError` for a file that is missing or no text,
    :class:`UsageError` for a flag that is not for modules, :class:`CompilerMissing` where no compiler is,
    :class:`CompileError` with the compiler's own words.
    """
    module, source = _module(path, shown, path.parent if root is None else root)
    compiler = find_compiler(options.cc)
    flags = checked(options.flags, module.directory, MODULE)
    key = object_cache.key_of(compiler, flags, module, source.text)
    before = object_cache.load(key, module)
    if before is not None:
        return before
    searched = [value for flag, value in pairwise(flags) if flag in PATH_FLAGS]
    surveyed = survey(module, searched)
    files, data, words = _compiled(module, compiler, flags, surveyed)
    texts = {module.show(file): (read(module.path(file)) or b"").decode("utf-8", "replace") for file in files}
    made = ObjectFile(shown, data, module.beside, texts, words)
    object_cache.save(key, module, made, files, surveyed.names, searched)
    return made


def _compiled(module: Module, compiler: Compiler, flags: Sequence[str], surveyed: Survey
              ) -> tuple[tuple[str, ...], bytes, str]:
    """The files that went in, the object's bytes, and the compiler's warnings."""
    with tempfile.TemporaryDirectory(prefix="slab-sandbox-") as name:
        directory = Path(os.path.realpath(name))
        (directory / MODULE).symlink_to(module.directory)
        (directory / LIBRARY).symlink_to(INCLUDE)
        maps = (f"-ffile-prefix-map={old}={new}" for old, new in (
            (f"{MODULE}/", module.prefix), (f"./{MODULE}/", module.prefix), (str(directory), ".")))
        command = (*compiler.command, *compiler.flags, "-nostdinc", *EPOCH, *maps, *flags, compiler.headers, LIBRARY)
        files = _preprocessed(module, command, directory, surveyed)
        words = _assembled(module, compiler, command, directory)
        return files, (directory / "unit.o").read_bytes(), words


def _module(path: Path, shown: str, root: Path) -> tuple[Module, Source]:
    """The source and its surroundings; :class:`ProgramError` when it is none."""
    if path.suffix == ".S":
        raise ProgramError(shown, "assembly is not compiled: write .asm, or give its object file")
    if path.suffix != ".c":
        raise ProgramError(shown, "not a C source: its name must end in .c")
    if kind_of(path) in ("directory", "other"):
        raise ProgramError(shown, "a directory" if kind_of(path) == "directory" else "not a regular file")
    try:
        source = Source.read(path, shown)
    except ProgramError as error:
        raise ProgramError(shown, error.reason) from None
    above, beside = Path(os.path.realpath(root)), Path(os.path.realpath(path.parent))
    inner = (beside / path.name).relative_to(above).as_posix() if beside.is_relative_to(above) else path.name
    module = Module(above, inner, shown) if Path(shown).as_posix().endswith(f"/{inner}") or shown == inner else \
        Module(beside, path.name, shown)
    if "=" in module.prefix:
        raise ProgramError(shown, "compilers cannot be told to use a name with '=' before the file's own: go to its "
                                  "directory, or rename it")
    if not module.holds(path):
        raise ProgramError(shown, "is a link that leads outside of its directory")
    return module, source


def _assembled(module: Module, compiler: Compiler, command: tuple[str, ...], directory: Path) -> str:
    """Make ``unit.o``, after a look at what the assembler is to read; what the compiler says."""
    verbatim = ("-fno-integrated-as",) if "clang" in compiler.version else ()
    done = run((*command, *verbatim, "-S", "-o", "unit.s", module.main), directory)
    words = _words(module, done, directory)
    text = directory / "unit.s"
    if done.status or not text.is_file():
        raise _error(module, words)
    if found := unsafe_directive(text.read_text("utf-8", "replace")):
        file, line, what = module.show(found[0]) or module.shown, found[1], found[2]
        raise CompileError(file, line, f"{file}:{line}: {what}" if line else f"{file}: {what}")
    # clang tells the line of C that a wrong instruction is in only when it does both at once.
    source = module.main if "clang" in compiler.version else "unit.s"
    done = run((*command, "-c", "-o", "unit.o", source), directory)
    if done.status or not (directory / "unit.o").is_file():
        raise _error(module, _words(module, done, directory))
    return words if source == "unit.s" else _words(module, done, directory)


def _preprocessed(module: Module, command: tuple[str, ...], directory: Path, surveyed: Survey) -> tuple[str, ...]:
    """The files that go in, after the preprocessor has named them and nothing is wrong with them."""
    done = run((*command, "-H", "-E", module.main), directory)
    files = opened(module, done.output, done.messages, surveyed)
    if done.too_large:
        raise CompileError(module.shown, 0, f"{module.shown}: its includes and macros expand to more than "
                                            f"{process.OUTPUT_BYTES >> 20} MiB")
    if done.status:                                         # its words again, without the list of files
        raise _error(module, _words(module, run((*command, "-E", module.main), directory), directory))
    if found := file_directive(done.output):
        file, line, what = module.show(found[0]), found[1], found[2]
        raise CompileError(file, line, f"{file}:{line}: {what}")
    return files


def _words(module: Module, done: Finished, directory: Path) -> str:
    """What a compiler said, with the names that the user knows; :class:`CompileError` when it was ended."""
    reason = ""
    if done.too_slow:
        reason = f"the compiler takes longer than {process.SECONDS:g} seconds"
    elif done.too_large:
        reason = f"the compiler wrote more than {process.OUTPUT_BYTES >> 20} MiB"
    elif done.status < 0:
        reason = f"the compiler was ended by signal {-done.status} ({signal.strsignal(-done.status)})"
    if reason:
        raise CompileError(module.shown, 0, f"{module.shown}: {reason}")
    text = re.sub(rf"{re.escape(str(directory))}/[\w.-]+\.s", module.main, done.messages)
    if len(text) > MESSAGE_CHARACTERS:
        text = f"{text[: text.rfind(chr(10), 0, MESSAGE_CHARACTERS)]}\n... and more"
    return module.show(text.replace(f"{directory}/", ""))


def _error(module: Module, words: str) -> CompileError:
    """What a compiler said against a source."""
    first = _ERROR.search(words)
    if _FLOATING.search(words):
        words = f"{words.rstrip()}\n{_EXPLANATION}"
    return CompileError(first[1] if first else module.shown, int(first[2]) if first else 0, words)
