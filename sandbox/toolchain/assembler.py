"""The front door: sources to an :class:`Image`, from a cache where it has been done before.

::

    sources --expand--> statements --link--> plain text --backend--> bytes --verify--> Image

Text from users is assembled in a child process (``isolated=True``), because an assembler is a C++ library that
some text may abort; nothing in a source can then end or hang the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..address import PAGE_SIZE
from ..errors import AssemblyError, EngineError, ProgramError, UsageError
from .backend import Backend, default_backend
from .cache import Entry, find_prebuilt, hash_of, key_of, user_name, user_store
from .expand import expand
from .image import Image
from .source import Source

CHILD_SECONDS = 30.0
"""How long a child process may assemble; a large program takes a second."""


def assemble(
    sources: Sequence[Source],
    base: int,
    externs: Mapping[str, int] | None = None,
    *,
    prelude: Sequence[Source] = (),
    origins: Mapping[str, str] | None = None,
    backend: Backend | None = None,
    isolated: bool = False,
    cache: bool = True,
) -> Image:
    """Assemble ``sources``, in this order, as one unit at the page-aligned virtual address ``base``.

    ``externs`` are addresses of labels elsewhere, which the text may use and may not define (``origins`` says where
    they are defined, as ``file:line``); ``prelude`` are files of constants and macros, read first, that ``.include``
    also finds by name. Without ``backend`` the host's is taken: Keystone, GNU as or clang. ``isolated`` assembles
    in a child process; ``cache`` looks among the images of the package and in the user's cache.

    :class:`AssemblyError` blames a line; :class:`EngineError` says that no assembler is here.
    """
    externs, origins = externs or {}, origins or {}
    if not sources or base % PAGE_SIZE or not 0 <= base < 1 << 64:
        raise UsageError("an image is made from at least one source, at a multiple of 4096")
    key = key_of(sources, base, externs, prelude)
    use_cache = cache and backend is None
    store = user_store() if use_cache else None
    if use_cache:
        for entry in (find_prebuilt(key), store.load(user_name(key)) if store else None):
            image = _usable(entry, key, sources, prelude)
            if image is not None:
                return image
    if isolated and backend is None:
        entry = _in_child(sources, base, externs, prelude, origins)
    else:
        entry = build(sources, base, externs, prelude, origins, backend)
    if store is not None:
        with contextlib.suppress(OSError):
            store.save(user_name(key), entry)
    return entry.image


def _usable(entry: Entry | None, key: str, sources: Sequence[Source], prelude: Sequence[Source]) -> Image | None:
    """The entry's image, when it is of this key and nothing that went in has changed."""
    if entry is None or entry.image.source_hash != key or len(entry.names) != len(sources) + len(prelude):
        return None
    return entry.fresh(sources, prelude)


def build(sources: Sequence[Source], base: int, externs: Mapping[str, int], prelude: Sequence[Source],
          origins: Mapping[str, str], backend: Backend | None = None) -> Entry:
    """Assemble here and now, whatever any cache holds."""
    from .link import link

    unit = expand(sources, externs, origins, prelude)
    image = link(unit, base, externs, backend or default_backend())
    names = tuple(source.name for source in (*prelude, *sources))
    root = sources[0].directory.resolve()
    dependencies = {str(path.relative_to(root)): hash_of(data) for path, data in sorted(unit.dependencies.items())}
    return Entry(replace(image, source_hash=key_of(sources, base, externs, prelude)), names, dependencies)


# ---- in a child process

def _in_child(sources: Sequence[Source], base: int, externs: Mapping[str, int], prelude: Sequence[Source],
              origins: Mapping[str, str]) -> Entry:
    """What :func:`build` gives, made by another process."""
    request = json.dumps({
        "sources": [_packed(source) for source in sources], "prelude": [_packed(source) for source in prelude],
        "base": base, "externs": dict(externs), "origins": dict(origins)})
    name = sources[0].name
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    if not sys.executable:
        raise EngineError("this Python cannot start another process to assemble in")
    try:
        done = subprocess.run([sys.executable, "-m", "sandbox.toolchain.worker"], input=request, encoding="utf-8",
                              errors="replace", capture_output=True, timeout=CHILD_SECONDS, check=False,
                              env={**os.environ, "PYTHONPATH": path})
    except subprocess.TimeoutExpired:
        raise AssemblyError(name, 1, f"assembling takes longer than {CHILD_SECONDS:g} seconds") from None
    except OSError as error:
        raise EngineError(f"no process to assemble in can be started: {error}") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise AssemblyError(name, 1, f"the assembler itself broke down (status {done.returncode}) on this program"
                            ) from None
    if "entry" not in answer:
        raise _error(answer["error"])
    entry = Entry.from_json(answer["entry"])
    texts = {source.name: source.text for source in (*prelude, *sources)} | answer["texts"]
    return replace(entry, image=replace(entry.image, files={name: texts.get(name, "") for name in entry.image.files}))


def serve(request: str) -> str:
    """The child's side: a request of :func:`_in_child` to its answer."""
    data = json.loads(request)
    try:
        entry = build([_unpacked(item) for item in data["sources"]], data["base"], data["externs"],
                      [_unpacked(item) for item in data["prelude"]], data["origins"])
    except AssemblyError as error:
        return json.dumps({"error": ["AssemblyError", error.file, error.line, error.reason, error.text]})
    except ProgramError as error:
        return json.dumps({"error": ["ProgramError", str(error.path), error.reason]})
    except EngineError as error:
        return json.dumps({"error": ["EngineError", str(error)]})
    known = set(entry.names)
    texts = {name: text for name, text in entry.image.files.items() if name not in known}
    return json.dumps({"entry": entry.to_json(), "texts": texts})


def _packed(source: Source) -> list[str]:
    return [source.name, source.text, str(source.directory.resolve())]


def _unpacked(item: Sequence[str]) -> Source:
    return Source(item[0], item[1], Path(item[2]))


def _error(fields: Sequence[Any]) -> Exception:
    kinds: dict[str, Callable[..., Exception]] = {
        "AssemblyError": AssemblyError, "ProgramError": ProgramError, "EngineError": EngineError}
    return kinds[fields[0]](*fields[1:])
