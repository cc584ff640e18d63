"""Objects that were compiled before, in the user's cache, found by the content of everything that went in.

The key is a hash of the compiler, the flags, the source and its name. An entry lists the files that the source
included, with their hashes, and those that were looked for and not there: it counts only while all of that is so.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from ..cache import hash_of
from . import kept
from .find import Compiler
from .includes import Module, absent, kind_of, read
from .objects import ObjectFile


def key_of(compiler: Compiler, flags: Sequence[str], module: Module, text: str) -> str:
    """The name of the entry for this source, under these flags."""
    return kept.name_of("object", *compiler.identity, list(flags), module.shown, module.file, text)


def load(key: str, module: Module) -> ObjectFile | None:
    """The object of this key while nothing that went in has changed; None when there is none."""
    entry = kept.load(key)
    if entry is None:
        return None
    try:
        data = base64.b64decode(entry["object"], validate=True)
        if hash_of(data) != entry["hash"] or any(kind_of(module.path(str(name))) for name in entry["absent"]):
            return None
        texts = {}
        for name, digest in dict(entry["files"]).items():
            source = read(module.path(name))
            if source is None or not module.holds(module.path(name)) or hash_of(source) != digest:
                return None
            texts[module.show(name)] = source.decode("utf-8", "replace")
        return ObjectFile(module.shown, data, module.beside, texts, str(entry["warnings"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def save(key: str, module: Module, made: ObjectFile, files: Sequence[str], names: frozenset[str],
         searched: Sequence[str]) -> None:
    """Keep an object that was made from ``files``, in which these ``names`` are included."""
    kept.save(key, {
        "object": base64.b64encode(made.data).decode("ascii"), "hash": hash_of(made.data), "warnings": made.warnings,
        "files": {name: hash_of(read(module.path(name)) or b"") for name in files},
        "absent": absent(module, files, names, searched)})
