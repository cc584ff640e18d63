"""Booted machines that tests share: a test gets one as it was right after its boot, in the time of a restore.

For each set of options one kernel is booted, when the first test asks for it. What a test has done to it is undone by
restoring a snapshot; a kernel on which anything is left that no snapshot undoes (a hook, a patched method) is thrown
away instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from ..guest.guest import Snapshot
from ..kernel import Kernel, boot

IDLE_BYTES = 256 << 20
"""RAM of the kernels that wait for a test, at most; those that waited longest are given up."""


class _Attached(NamedTuple):
    """What of a kernel no snapshot brings back."""

    hooks: int
    companions: tuple[int, ...]
    listeners: tuple[int, ...]
    serial: object
    attributes: frozenset[str]

    @classmethod
    def of(cls, kernel: Kernel) -> _Attached:
        machine = kernel.machine
        return cls(machine.cpu.present, tuple(map(id, machine.companions)), tuple(map(id, machine.memory.listeners)),
                   machine.serial.listener, frozenset(vars(kernel)))


_GIVEN = ("program", "allocator", "modules")
"""Options whose values are files."""


class Booted:
    """A kernel, and the state that each test finds it in."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self._files = {path: _stamp(path) for path in _sources(options)}         # before they are read
        self.kernel: Kernel = boot(**{name: _placed(value) if name in _GIVEN else value
                                      for name, value in options.items()})
        try:
            self._note_files()
            self.kernel.trace.restart()
            self.snapshot: Snapshot = self.kernel.snapshot()
            self._attached = _Attached.of(self.kernel)
        except BaseException:
            self.kernel.close()
            raise

    def _note_files(self) -> None:
        """The files that the program's text includes, beside it."""
        directories = {path.parent for path in self._files}
        names = sorted({name for image in self.kernel.symbols.images[1:] for name in image.files})
        beside = [directory / name for directory in directories for name in names]
        for path in (*beside, *(Path(name).absolute() for name in names)):
            if path.is_file():
                self._files.setdefault(path, _stamp(path))

    def begin(self) -> Kernel:
        """The kernel as it was when it had booted, with an empty trace that records."""
        kernel = self.kernel
        kernel.restore(self.snapshot)
        if kernel.shadow is not None:
            kernel.shadow.forget_errors()
        kernel.trace.restart()
        return kernel

    @property
    def usable(self) -> bool:
        """Whether :meth:`begin` brings it back to its beginning: nothing is left on it, and its files are the same."""
        return not self.kernel.machine.cpu.closed and not self.kernel.machine.cpu.running \
            and _Attached.of(self.kernel) == self._attached \
            and all(_stamp(path) == stamp for path, stamp in self._files.items())


class Stock:
    """The kernels of one session. ``boots`` and ``restores`` count what they cost."""

    def __init__(self) -> None:
        self.boots = 0
        self.restores = 0
        self._idle: list[tuple[str, Booted]] = []        # those that waited longest first

    def lend(self, options: Mapping[str, Any]) -> Booted:
        """A booted kernel with these options, which nobody else has."""
        key = _key(options)
        for index, (known, booted) in enumerate(self._idle):
            if known == key:
                del self._idle[index]
                if booted.usable:
                    return self._begun(booted)
                booted.kernel.close()
                break
        self.boots += 1
        return self._begun(Booted(options))

    def _begun(self, booted: Booted) -> Booted:
        self.restores += 1
        booted.begin()
        return booted

    def give_back(self, booted: Booted) -> None:
        """The test is over."""
        key = _key(booted.options)
        if not booted.usable or any(known == key for known, _ in self._idle):
            booted.kernel.close()
            return
        self._idle.append((key, booted))
        while sum(len(each.kernel.physical) for _, each in self._idle) > IDLE_BYTES:
            self._idle.pop(0)[1].kernel.close()

    def close(self) -> None:
        """Close them all."""
        while self._idle:
            self._idle.pop()[1].kernel.close()


def _key(options: Mapping[str, Any]) -> str:
    """The same for options that boot the same kernel: those that are what they are anyway do not count."""
    defaults = {name: parameter.default for name, parameter in signature(boot).parameters.items()}
    return repr(sorted((name, value) for name, value in options.items() if repr(value) != repr(defaults[name])))


def is_file(source: object) -> bool:
    """Whether a program or an allocator, as :func:`sandbox.boot` takes it, is given as a file that is there."""
    if not isinstance(source, (str, Path)) or "\n" in str(source):
        return False
    try:
        return Path(source).is_file()
    except (OSError, ValueError):                # a name that no file can have
        return False


def _sources(options: Mapping[str, Any]) -> Iterator[Path]:
    """The files that are given as a program, an allocator or modules."""
    for name in _GIVEN:
        value = options.get(name)
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if is_file(each):
                yield Path(each).absolute()


def _placed(value: Any) -> Any:
    """A file by the path that one reads here; each of several; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [_placed(each) for each in value]
    return _near(Path(value).absolute()) if is_file(value) else value


def _near(path: Path) -> Path:
    """A path as one reads it here: relative where it lies below the working directory."""
    try:
        return path.relative_to(Path.cwd())
    except (OSError, ValueError):
        return path


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None when it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
