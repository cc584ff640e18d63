"""Hooks: what others want to hear of while the engine runs.

All hooked addresses share one hook of the engine behind a native filter, because the engine asks every hook it has at
every instruction; where the host allows no native code, each address has a hook of its own. Nothing that a callback
raises is lost: it stops the run, and comes out of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from ..errors import UsageError
from .engine import Engine, Gate
from .filter import AddressFilter
from .run import EventKind, Run

Handlers = dict[int, list[Callable[[int], None]]]


class Hook:
    """A hook on the CPU; :meth:`remove` ends it, and a second time does nothing."""

    def __init__(self, remove: Callable[[], None]) -> None:
        self._remove: Callable[[], None] | None = remove

    def remove(self) -> None:
        """Take the hook away."""
        remove, self._remove = self._remove, None
        if remove is not None:
            remove()


class Hooks:
    """The hooks of one engine, and what they call, in the terms of ``run``."""

    def __init__(self, engine: Engine, run: Run, native_filter: bool) -> None:
        self._engine = engine
        self._run = run
        self._marks: dict[int, int] = {}  # by address: the engine's hook, where there is no filter
        self._filter: AddressFilter | None = None
        self._breakpoints: frozenset[int] = frozenset()
        self.present = 0                 # hooks that somebody has added and not removed
        self._add_code_hook(native_filter)

    def hook_code(self, addresses: Iterable[int], callback: Callable[[int], None], *, replayed: bool = False) -> Hook:
        """Call ``callback(address)`` before each execution of the instruction at each of these virtual addresses.

        ``replayed``: also when it only runs again what has run before (:meth:`silence`).
        """
        listed, itself = sorted(set(addresses)), weakref.ref(self)
        table = self._run.followers if replayed else self._run.callbacks
        for at in listed:
            self.mark(at, callback, table)
        self.present += 1

        def remove() -> None:
            hooks = itself()
            if hooks is not None and not hooks._engine.closed:
                hooks.present -= 1
                for at in listed:
                    hooks.unmark(at, callback, table)

        return Hook(remove)

    def mark(self, at: int, handler: Callable[[int], None], table: Handlers) -> None:
        """Let ``handler`` be called before the instruction at ``at``."""
        table[at] = [*table.get(at, ()), handler]
        if self._filter is not None:
            self._filter.add(at)
        elif at not in self._marks:
            self._marks[at] = self._engine.on_code(self._on_code, at, at)
            self._run.flush_code = True

    def unmark(self, at: int, handler: Callable[[int], None], table: Handlers) -> None:
        """Take back one :meth:`mark`."""
        left = list(table[at])
        left.remove(handler)
        if left:
            table[at] = left
        else:
            del table[at]
        if self._filter is not None:
            self._filter.remove(at)
        elif not any(at in known for known in (self._run.handlers, self._run.followers, self._run.callbacks)):
            self._remove(self._marks.pop(at))

    def _add_code_hook(self, native: bool) -> None:
        """The one hook behind all hooked addresses, or none where the host cannot filter natively."""
        run = self._run
        handlers, followers, callbacks = run.handlers, run.followers, run.callbacks

        def reached(engine: int, address: int, size: int, user: int) -> None:
            if run.counter.value > run.limit.value:
                return  # the run ends before this instruction
            try:
                if address in handlers:
                    for handler in handlers[address]:
                        handler(address)
                if address in followers and run.starts < 0:
                    for follower in followers[address]:
                        follower(address)
                if address in callbacks and not run.silent and run.starts < 0:
                    if run.called and run.counter.value == 1:
                        return  # they were called, and stopped the last slice here
                    for callback in callbacks[address]:
                        callback(address)
            except BaseException as error:
                run.fail(error)
            if run.starts >= 0 and address in callbacks and run.kind is EventKind.REQUESTED:
                run.called_at = address

        self._on_code = reached
        if not native:
            return

        def gate(target: int) -> tuple[int, int]:
            self._filter = AddressFilter(target)
            return self._filter.entry, self._filter.user

        try:
            self._engine.on_every_instruction(reached, gate)
        except OSError:
            return

    def hook_memory(
        self, begin: int, end: int, callback: Callable[[str, int, int, int], None], *,
        read: bool = False, write: bool = False, read_after: bool = False, replayed: bool = False,
        gate: Gate | None = None,
    ) -> Hook:  # fmt: skip
        """Call ``callback(kind, address, size, value)`` for accesses to physical bytes ``begin`` up to ``end``.

        ``kind`` is ``"read"``, ``"write"`` or ``"read after"``; a write is reported before it happens, with its
        value (as an unsigned integer of ``size`` bytes); a read's value is known to ``read_after`` alone.
        ``replayed``: also when it only runs again what has run before. ``gate`` is native code that decides which
        accesses reach the callback: it is given the host address of that, and returns its own and a user pointer.
        """
        run = self._run

        def accessed(kind: str, address: int, size: int, value: int) -> None:
            if run.silent and not replayed:
                return
            run.access = 1
            try:
                callback(kind, address, size, value)
            except BaseException as error:
                run.fail(error)
            finally:
                run.access = 0

        kinds = [kind for kind, wanted in (("read", read), ("write", write), ("read after", read_after)) if wanted]
        if not kinds or begin >= end:
            raise UsageError("a memory hook needs a range and at least one kind of access")
        return self._hook(self._engine.on_memory(accessed, begin, end, kinds, gate))

    def hook_every_instruction(self, callback: Callable[[int], None], gate: Gate | None = None) -> Hook:
        """Call ``callback(address)`` before every instruction, in a replay too, and before one that then does not
        start because the run ends. ``gate`` as for :meth:`hook_memory`."""
        run = self._run

        def reached(engine: int, address: int, size: int, user: int) -> None:
            try:
                callback(address)
            except BaseException as error:
                run.fail(error)

        return self._hook(self._engine.on_every_instruction(reached, gate))

    def _hook(self, handle: int) -> Hook:
        """One of the engine's hooks, in the hands of whoever asked for it."""
        itself = weakref.ref(self)
        self._run.flush_code = True
        self.present += 1

        def remove() -> None:
            hooks = itself()
            if hooks is not None and not hooks._engine.closed:
                hooks.present -= 1
                hooks._remove(handle)

        return Hook(remove)

    def watch_stores(self, begin: int, end: int, callback: Callable[[int, int], None]) -> None:
        """For :class:`CodeWatch`: ``callback(address, size)`` at stores to physical ``begin`` up to ``end``."""
        run = self._run

        def stored(kind: str, address: int, size: int, value: int) -> None:
            try:
                callback(address, size)
            except BaseException as error:
                run.fail(error)

        self._engine.on_memory(stored, begin, end, ["write"])
        run.flush_code = True

    def _remove(self, handle: int) -> None:
        self._engine.remove(handle)
        self._run.flush_code = True

    def silence(self, silent: bool) -> None:
        """Pass over the callbacks of :meth:`hook_code` and :meth:`hook_memory`, or call them again."""
        self._run.silent = silent

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Stop before instructions at these virtual addresses, until the next call."""
        if addresses == self._breakpoints:
            return
        for at in self._breakpoints - addresses:
            self.unmark(at, self._run.at_breakpoint, self._run.handlers)
        for at in addresses - self._breakpoints:
            self.mark(at, self._run.at_breakpoint, self._run.handlers)
        self._breakpoints = addresses
