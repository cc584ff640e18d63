"""Perfetto and chrome://tracing: each call as a slice on its CPU's track, the bytes in use as a counter.

The Trace Event Format (JSON): ``ph`` X is a complete slice with ``ts`` and ``dur`` in microseconds, C a counter, M
metadata. One instruction is drawn as one microsecond, because the only clock is the instruction count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..events import Event
from ..ledger import changes


def document(events: Iterable[Event]) -> dict[str, Any]:
    """The trace as an object that ``json.dumps`` writes."""
    every = list(events)
    rows: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "guest (1 us = 1 instruction)"}}]
    rows += [{"ph": "M", "pid": 1, "tid": cpu, "name": "thread_name", "args": {"name": f"CPU {cpu}"}}
             for cpu in sorted({event.cpu for event in every})]
    rows += [{
        "ph": "X", "pid": 1, "tid": event.cpu, "ts": event.entered, "dur": max(event.instructions, 1),
        "name": event.function, "cat": event.kind,
        "args": {"address": hex(event.address), "asked": event.bytes_req, "given": event.bytes_alloc,
                 "cache": event.cache, "from": event.call_site, "failed": event.failed}} for event in every]
    sizes: dict[int, int] = {}
    in_use = 0
    for at, event in changes(every):
        in_use -= sizes.pop(event.address, 0)
        if event.kind == "alloc":
            sizes[event.address] = event.bytes_alloc
            in_use += event.bytes_alloc
        rows.append({"ph": "C", "pid": 1, "tid": 0, "ts": at, "name": "bytes in use",
                     "args": {"bytes": in_use}})
    return {"traceEvents": rows, "displayTimeUnit": "ns"}


def text(events: Iterable[Event]) -> str:
    """The file's contents."""
    return json.dumps(document(events))
