"""Assembly inside C: what of it would read other files.

A compiler passes the text of ``asm`` on to an assembler, whose ``.include`` and ``.incbin`` know no bounds. They are
refused here, and so is every way to write them that only the assembler sees: macros that build the name of a directive,
operands inside it, and the other strings of C that compilers copy into their assembly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_REST = (
    r"|(?:u8|[uUL])?\"(?P<string>(?:[^\"\\\n]|\\[^\n])*)\""
    r"|'(?:[^'\\\n]|\\[^\n])*'"
    r"|\b(?P<keyword>asm|__asm|__asm__|__attribute|__attribute__)\b"
    r"|(?P<double>\[\[|\]\])|(?P<open>\()|(?P<close>\))|(?P<newline>\n)|(?P<space>[ \t]+)|\w+|.")
_DIRECTIVE = r"^[ \t]*#(?P<directive>[^\n]*)$"
_RAW = r"|(?:u8|[uUL])?R\"(?P<mark>[^()\\\s\"]{0,16})\((?P<raw>.*?)\)(?P=mark)\""
_LANGUAGES = tuple(re.compile(tokens, re.MULTILINE | re.DOTALL)
                   for tokens in (_DIRECTIVE + _REST, _DIRECTIVE + _RAW + _REST))
"""The tokens of C without raw strings and with them, which depends on the compiler and -std: both readings count."""
_MARKER = re.compile(r'[ \t]*(?:line[ \t]+)?(\d+)[ \t]+"((?:[^"\\\n]|\\.)*)"')
_IDENT = re.compile(r"[ \t]*(?:ident|sccs)\b(.*)")
_ESCAPE = re.compile(r"\\(?:x\{?([0-9A-Fa-f]+)\}?|([0-7]{1,3})|o\{([0-7]+)\}|u\{?([0-9A-Fa-f]{1,8})\}?"
                     r"|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b", "E": "\x1b",
           "\n": ""}
_READS = re.compile(r"\.(include|incbin)\b", re.IGNORECASE)
_MODES = re.compile(r"\.(altmacro|mri)\b", re.IGNORECASE)
_BUILT = re.compile(r"(?:\.[\w.$]*|(?:^|[;\n]|\*/)\s*(?:[\w.$]+(?:%=|\\@)?:\s*|\{\w+\}\s*)*)(?:\\(?!@)|%(?![=%]))")
_DIALECTS = re.compile(r"(?<!%)\{([^{}|]*)\|([^{}|]*)\}")


def file_directive(text: str) -> tuple[str, int, str] | None:
    """The place in preprocessed C that would make an assembler read a file, and why it is refused; None: nowhere."""
    if not re.search(r"asm|__attribute|\[\[|#\s*(?:ident|sccs)", text):
        return None
    for file, line, words in chain.from_iterable(_assembly(language, text) for language in _LANGUAGES):
        dialects = [_DIALECTS.sub(rf"\{dialect}", words) for dialect in (1, 2)]      # {AT&T|Intel}
        if found := next(filter(None, map(_READS.search, dialects)), None):
            return file, line, f"{found.group()} in inline assembly is refused: it would read another file"
        if any(_MODES.search(text) or _BUILT.search(text) for text in dialects):
            return file, line, ("inline assembly that builds the name of a directive out of macros or operands is "
                                "refused: it could read another file")
    return None


_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_UNSAFE = re.compile(r"\.(incbin|include|macro|irpc?|altmacro|mri)\b", re.IGNORECASE)
_PLACE = re.compile(r'^\s*#\s+(\d+) "([^"\n]+)"', re.MULTILINE)


def unsafe_directive(assembly: str) -> tuple[str, int, str] | None:
    """The same for what a compiler hands to its assembler, however it was written: nothing is hidden there any more.

    Compilers write none of these directives themselves. The line is 0 where the text does not tell it.
    """
    at = 0
    for line in assembly.splitlines(keepends=True):
        found = _UNSAFE.search(_QUOTED.sub('""', line))
        if found:
            places = _PLACE.findall(assembly[:at])
            number, file = places[-1] if places else (0, "")
            return file, int(number), f"{found.group()} in inline assembly is refused: it could read another file"
        at += len(line)
    return None


def _assembly(language: re.Pattern[str], text: str) -> Iterator[tuple[str, int, str]]:
    """Every run of strings that may reach an assembler, decoded: file, line, text.

    Of an ``asm`` that is its first one (constraints and clobbers follow), of an attribute every one.
    """
    file, line, depth, inside, words, start = "", 1, 0, "", "", 1
    for token in language.finditer(text):
        kind, found = token.lastgroup, token.group()
        if kind in ("string", "raw") and inside:
            start = start if words else line
            words += token["raw"] if kind == "raw" else _decoded(token["string"])
        elif kind not in ("newline", "space", "directive") and words:
            yield file, start, words
            words, inside = "", "" if "asm" in inside else inside
        line += found.count("\n")
        if kind == "directive" and (marker := _MARKER.match(token["directive"])):
            file, line = re.sub(r"\\(.)", r"\1", marker[2]), int(marker[1]) - 1
        elif kind == "directive" and (ident := _IDENT.match(token["directive"])):
            yield file, line, _decoded(ident[1])
        elif kind == "keyword" and not inside:
            inside, depth = found, 0
        elif kind == "double" and (inside == "[[" if found == "]]" else not inside):
            inside, depth = ("[[", 1) if found == "[[" else ("", 0)
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            inside = inside if depth > 0 else ""
    if words:
        yield file, start, words


def _decoded(literal: str) -> str:
    """The characters of a string of C."""
    def character(match: re.Match[str]) -> str:
        hexadecimal, octal, long_octal, short, long, other = match.groups()
        if other is not None:
            return _SIMPLE.get(other, "." if other == "N" else other)
        value = int(hexadecimal or short or long or "0", 16) or int(octal or long_octal or "0", 8)
        return chr(value & 0x10FFFF)

    return _ESCAPE.sub(character, literal)
