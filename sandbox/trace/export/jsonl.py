"""JSON Lines: one object on each line, the first with the version of the schema.

::

    {"type": "sandbox-trace", "version": 1, "fields": ["sequence", ...]}
    {"sequence": 0, "entered": 120, "instruction": 143, "kind": "alloc", "function": "kmalloc", ...}

The keys of the other lines are the attributes of :class:`~sandbox.trace.events.Event`; ``parent`` is the sequence
number of the event that it happened in. Addresses are numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..events import SCHEMA, VERSION, Event

TYPE = "sandbox-trace"


def lines(events: Iterable[Event]) -> Iterator[str]:
    """The lines of a file, without line ends."""
    yield json.dumps({"type": TYPE, "version": VERSION, "fields": list(SCHEMA)})
    for event in events:
        yield json.dumps(event.to_dict())


def dump(events: Iterable[Event], path: Path | str) -> int:
    """Write a file; returns how many events it has. ``events`` are all of a trace: ``trace.walk()``."""
    count = -1
    with Path(path).open("w", encoding="utf-8") as file:
        for line in lines(events):
            file.write(line + "\n")
            count += 1
    return count


def load(path: Path | str) -> list[Event]:
    """The events of a file, ``children`` included; :class:`UsageError` for what is no trace of this version."""
    with Path(path).open(encoding="utf-8") as file:
        return parse(file)


def parse(text: Iterable[str]) -> list[Event]:
    """The events of the lines of a file."""
    rows = [line for line in text if line.strip()]
    try:
        head = json.loads(rows[0]) if rows else {}
        if not isinstance(head, dict) or head.get("type") != TYPE:
            raise UsageError("this is no trace: its first line does not say so")
        if head.get("version") != VERSION:
            raise UsageError(f"a trace of version {head.get('version')}, and this program reads {VERSION}")
        return _tree([json.loads(row) for row in rows[1:]])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"this trace is damaged: {error}") from None


def _tree(rows: list[dict[str, Any]]) -> list[Event]:
    """Events with their children, from the last to the first, because children come after their parents."""
    below: dict[int, list[Event]] = {}
    events = []
    for row in reversed(rows):
        values = {name: row[name] for name in SCHEMA if name in row} | {"stack": tuple(row["stack"])}
        event = Event(**values, children=tuple(reversed(below.pop(row["sequence"], []))))
        events.append(event)
        if event.parent is not None:
            below.setdefault(event.parent, []).append(event)
    return events[::-1]
