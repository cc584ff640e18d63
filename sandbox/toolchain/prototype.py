"""C prototypes: out of the comments above functions (``# void *kmalloc(size_t size)``), or as a compiler read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .image import Image

_PROTOTYPE = re.compile(
    r"^# (?P<result>[A-Za-z_][\w \t*]*?[ \t*])(?P<name>[A-Za-z_]\w*)\((?P<parameters>.*)\)\s*$", re.MULTILINE)
_PARAMETER = re.compile(r"(?P<type>.*?[\s*])(?P<name>[A-Za-z_]\w*)(?P<array>\[\w*\])?$")
_FUNCTION_POINTER = re.compile(r".*\(\*\s*(?P<name>[A-Za-z_]\w*)\)\s*\(.*\)$")


@dataclass(frozen=True)
class Prototype:
    """A C declaration: ``parameters`` as they are written, ``variadic`` for ``...`` at the end.

    ``result`` is what stands before the name: a type, or ``noreturn``.
    """

    name: str
    text: str
    parameters: tuple[str, ...]
    variadic: bool
    result: str = ""

    def accepts(self, count: int) -> bool:
        """Whether a call may have this many arguments."""
        return count >= len(self.parameters) if self.variadic else count == len(self.parameters)

    @property
    def wants(self) -> str:
        """How many arguments it takes, in words."""
        count = len(self.parameters)
        return f"{'at least ' if self.variadic else ''}{count} argument{'' if count == 1 else 's'}"

    def declared(self) -> Iterator[tuple[str, str]]:
        """Type and name of each parameter; an array is a pointer, and the type of a function ``void (*)()``."""
        for parameter in self.parameters:
            function, plain = _FUNCTION_POINTER.match(parameter), _PARAMETER.match(parameter)
            if function:
                yield "void (*)()", function["name"]
            elif plain:
                yield plain["type"].strip() + (" *" if plain["array"] else ""), plain["name"]
            else:
                yield parameter, ""


def prototypes(image: Image) -> dict[str, Prototype]:
    """The prototype of each label of ``image`` that has one above it, or was compiled from one."""
    found = {}
    for text in image.files.values():
        for match in _PROTOTYPE.finditer(text):
            name = match["name"]
            if name in image.symbols and re.search(rf"^{re.escape(name)}:", text, re.MULTILINE):
                found[name] = _parse(name, match[0][2:].strip(), match["parameters"], match["result"].strip())
    for label, declared in image.declarations.items():
        name = label.partition("@")[0]                    # of several static ones, each has its file's name behind
        before, _, after = declared.partition(f"{name}(")
        if after:
            parameters = _inside(after)
            found[label] = _parse(label, declared, parameters, before.strip() + after[len(parameters) + 1 :])
    return found


def _inside(text: str) -> str:
    """``text`` up to the parenthesis that closes one that was opened before it."""
    depth = 1
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[:at]
    return text


def _parse(name: str, text: str, parameters: str, result: str) -> Prototype:
    pieces, depth, start = [], 0, 0
    for at, character in enumerate(parameters):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            pieces.append(parameters[start:at].strip())
            start = at + 1
    pieces.append(parameters[start:].strip())
    if pieces in (["void"], [""]):
        pieces = []
    variadic = bool(pieces) and pieces[-1] == "..."
    return Prototype(name, text, tuple(pieces[:-1] if variadic else pieces), variadic, result)
