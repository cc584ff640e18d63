"""The flags of the kernel: what every module is compiled with, and what a user may add.

The code model and the ABI are those of Linux on x86-64 (``arch/x86/Makefile``: kernel code model, no red zone, general
registers alone, no position-independent code). Frame information goes to ``.debug_frame``, which is not loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import UsageError

INCLUDE = Path(__file__).resolve().parent.parent.parent / "libc" / "include"
"""The headers that stand for the compiler's own."""

CONTRACT = ("-ffreestanding", "-mcmodel=kernel", "-mno-red-zone", "-mgeneral-regs-only", "-fno-pic", "-fno-pie")
"""Without one of these, code does not fit into the kernel."""
LAYOUT = (
    "-fno-stack-protector", "-fcf-protection=none", "-fno-common", "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-fno-optimize-sibling-calls",
    "-g")
"""What makes an object one that can be linked, traced and debugged like the kernel's own code: each call has a frame of
its own, and ends at its own ``ret``, as in Linux with frame pointers."""
DEFAULTS = (
    "-std=gnu11", "-march=x86-64", "-mtune=generic", "-O1", "-Wall", "-Werror=implicit-function-declaration",
    "-Werror=implicit-int", "-fno-sanitize=all", "-gno-record-gcc-switches",
    "-fdiagnostics-color=never", "-fno-canonical-system-headers")
"""What makes the same bytes and the same words everywhere; a Makefile has its own mind here."""
EPOCH = ("-Wno-builtin-macro-redefined", '-D__DATE__="Jan  1 1970"', '-D__TIME__="00:00:00"',
         '-D__TIMESTAMP__="Thu Jan  1 00:00:00 1970"')
"""The only date that the guest knows: the same source gives the same bytes on every day."""
INSTEAD = {
    "-mgeneral-regs-only": ("-mno-sse", "-mno-sse2", "-mno-mmx", "-mno-80387"),
    "-march=x86-64": ("-march=x86_64",),
}
"""What says the same to a compiler that does not know the flag."""

PATH_FLAGS = ("-include", "-imacros", "-isystem", "-iquote", "-idirafter", "-I")
"""The flags with a file or directory as their argument."""
_PLAIN = re.compile(r"-[DU]\s*[A-Za-z_].*|-O([0-3sgz]|fast)?|-w|-W(?![alp],).*|-std=(gnu|c|iso9899:).*|-ansi|"
                    r"-pedantic(-errors)?|-g([0-3]|dwarf(-[2-5])?|gdb[0-3]?|no-.*|column-info)?")
_TUNING = re.compile(
    r"-f(no-)?(inline(-functions|-functions-called-once|-small-functions|-hint-functions|-limit=\d+)?|partial-inlining"
    r"|strict-(aliasing|overflow|flex-arrays(=\d)?)|wrapv(-pointer)?|trapv|builtin(-\w+)?|delete-null-pointer-checks"
    r"|(function|data)-sections|omit-frame-pointer|optimize-(sibling-calls|strlen)|(un)?signed-(char|bitfields)"
    r"|(unroll|unroll-all|peel|split|move|version)-loop[\w-]*|jump-tables|(tree|ipa|ssa|gcse|cse|split|reorder)-?[a-z-]*"
    r"|merge-(all-)?constants|zero-initialized-in-bss|gnu89-inline|ms-extensions|plan9-extensions|cond-mismatch"
    r"|(max-errors|error-limit)=\d+|align-(functions|loops|jumps|labels)(=\d+)?|schedule-insns2?|peephole2?"
    r"|thread-jumps|crossjumping|if-conversion2?|guess-branch-probability|keep-(inline|static)-[a-z]+|(slp-)?vectorize"
    r"|code-hoisting|dce|dse|defer-pop|expensive-optimizations|forward-propagate|shrink-wrap(-separate)?|store-merging"
    r"|toplevel-reorder|unit-at-a-time|web|semantic-interposition|visibility=(default|hidden|internal|protected)"
    r"|caret-diagnostics|show-column|diagnostics-show-[a-z-]+|isolate-erroneous-paths-[a-z]+|finite-loops)")
"""Flags of optimization and of the language: those that read or write no file."""
_OURS = frozenset((*CONTRACT, *LAYOUT, *DEFAULTS, "-nostdinc", "-fno-PIC", "-fno-PIE", "-m64"))
_REASONS = (
    (r"-f(pic|PIC|pie|PIE|plt)|-static-pie|-shared|-rdynamic", "the kernel's code is not position-independent"),
    (r"-mcmodel=.*", "the kernel lies in the topmost 2 GiB: its code model is 'kernel'"),
    (r"-m(32|16|x32)", "the guest is an x86-64 in long mode"),
    (r"-mred-zone", "an interrupt would overwrite a red zone"),
    (r"-m(sse|avx|mmx|80387|hard-float|fpmath|fma|f16c|3dnow).*", "kernel code uses general registers alone"),
    (r"-m.*", "the guest's processor is a plain x86-64"),
    (r"-f(file|macro|debug|profile|coverage)-(prefix-map|compilation-dir)=.*",
     "sources are called what their user calls them"),
    (r"-f(dump|opt-info|stack-usage|callgraph-info|save-optimization|time-|mem-report|preprocessed|directives-only|"
     r"syntax-only|diagnostics|working-directory|integrated|no-integrated|compare-debug|proc-stat|crash).*|-d.+|"
     r"-([ocSExvHM]|###)([=./].*)?|-M[MDFTQPG]+|-save-temps.*|-aux-info|-gsplit-dwarf.*|-gz.*",
     "what is read and written is the sandbox's business"),
    (r"-f(plugin|pass-plugin|modules?|prebuilt-|implicit-|build-session|auto-profile|profile|coverage|branch-prob|"
     r"test-coverage|use-ld|xray|ada|asm-blocks|ms-|input-charset).*|-[BX].*|-specs.*|--.*|-W[alp],.*|-wrapper|@.*",
     "it reaches beyond the module's own files"),
    (r"-f(lto|whole-program|fat-lto|thinlto|embed-bitcode).*|-[Ll].*", "modules are linked by the sandbox"),
    (r"-pg?|-finstrument-.*|-fsanitize.*|-fstack-(protector|clash|check|limit).*|-fsplit-stack|-fcf-protection.*",
     "it needs a run-time library that the guest does not have"),
    (r"-fhosted|-fno-freestanding", "the guest is a freestanding environment"),
    (r"-f(pack-struct|short-enums|short-wchar|leading-underscore|pcc-struct-return|common).*",
     "functions and data are laid out as the kernel's"),
)
"""What is refused, and why: the first pattern that a whole flag matches."""


def cflags() -> tuple[str, ...]:
    """The flags that an object file for the guest is compiled with, for a Makefile of one's own.

    Warnings, optimisation and the standard are left to the Makefile.
    """
    return (*CONTRACT, *LAYOUT, "-nostdinc", "-isystem", str(INCLUDE))


def checked(flags: Sequence[str], directory: Path, inside: str) -> tuple[str, ...]:
    """A user's flags, those with a path as seen by a compiler that knows ``directory`` by the name ``inside``.

    :class:`UsageError` for a flag that would break what the sandbox relies on, or that reaches outside of
    ``directory``. A relative path counts from ``directory``, or from here where that has no such file.
    """
    result: list[str] = []
    for flag in _joined(flags):
        if any(not character.isprintable() for character in flag):
            raise UsageError(f"the flag {flag!r} holds a character that is no text")
        if path := next((name for name in PATH_FLAGS if flag.startswith(name)), ""):
            found = _below(flag[len(path):].lstrip(" ="), directory, flag)
            if path in ("-include", "-imacros") and not (found and (directory / found).is_file()):
                raise UsageError(f"the flag {flag}: no such file below {directory}")
            result += [] if found is None else [path, str(Path(inside) / found)]
            continue
        reason = next((reason for pattern, reason in _REASONS if re.fullmatch(pattern, flag)), "")
        if reason and flag not in _OURS:
            raise UsageError(f"the flag {flag} is not for guest modules: {reason}")
        if flag not in _OURS and not _PLAIN.fullmatch(flag) and not _TUNING.fullmatch(flag):
            raise UsageError(f"the flag {flag!r} is not passed on: -D, -U, -I, -O, -W, -f, -g and -std are")
        result.append(flag)
    return tuple(result)


def _joined(flags: Sequence[str]) -> list[str]:
    """Flags with their argument in the same word."""
    result: list[str] = []
    rest = list(flags)
    while rest:
        flag = rest.pop(0)
        if flag in ("-D", "-U", *PATH_FLAGS):
            if not rest:
                raise UsageError(f"the flag {flag} needs an argument")
            flag = f"{flag}{'' if flag in ('-D', '-U') else ' '}{rest.pop(0)}"
        result.append(flag)
    return result


def _below(value: str, directory: Path, flag: str) -> Path | None:
    """The path in a flag, relative to ``directory``; None when nothing is there."""
    root = directory.resolve()
    for start in (root, Path.cwd()):
        found = Path(os.path.realpath(start / value))
        try:
            found.stat()
        except OSError:
            continue
        if root != found and root not in found.parents:
            raise UsageError(f"the flag {flag} leads outside of the module's directory, {directory}: give a source "
                             "that lies above both too, or objects of a Makefile with sandbox cflags")
        return found.relative_to(root)
    return None
