"""Traces in other tools' formats."""

from __future__ import annotations

import json

import pytest

from sandbox.errors import UsageError
from sandbox.trace.events import SCHEMA, VERSION, Event
from sandbox.trace.export import collapsed, dhat, jsonl, perfetto

STACK = ("inner+0x5 (a.asm:9)", "main+0x20 (a.asm:2)", "Python")


def event(sequence: int, **values) -> Event:
    base = {"sequence": sequence, "entered": 10 * sequence, "instruction": 10 * sequence + 7, "kind": "alloc",
            "function": "kmalloc", "address": 0xFFFF_8880_0000_0000 + 64 * sequence, "bytes_req": 50,
            "bytes_alloc": 64, "cache": "kmalloc-64", "slab": None, "call_site": "inner+0x5", "line": "a.asm:9",
            "stack": STACK, "cpu": 0, "failed": False, "unfinished": False, "parent": None}
    return Event(**(base | values))


def tree() -> list[Event]:
    child = event(1, function="kmem_cache_alloc", parent=0)
    return [event(0, children=(child,)), child, event(2, kind="free", function="kfree", address=event(0).address)]


def test_json_lines_have_a_version_and_the_keys_of_the_attributes():
    head, *rows = map(json.loads, jsonl.lines(tree()))
    assert head == {"type": "sandbox-trace", "version": VERSION, "fields": list(SCHEMA)}
    assert [list(row) for row in rows] == [list(SCHEMA)] * 3
    assert rows[0]["address"] == 0xFFFF_8880_0000_0000 and rows[1]["parent"] == 0 and rows[0]["stack"] == list(STACK)


def test_a_file_gives_back_equal_events_and_their_tree(tmp_path):
    events = tree()
    assert jsonl.dump(events, tmp_path / "trace.jsonl") == 3
    loaded = jsonl.load(tmp_path / "trace.jsonl")
    assert loaded == events
    assert [item.children for item in loaded] == [(events[1],), (), ()]


@pytest.mark.parametrize(("text", "words"), [
    ([], "no trace"), (['{"version": 1}'], "no trace"), (["[]"], "no trace"), (["what"], "damaged"),
    (['{"type": "sandbox-trace", "version": 99}'], "version 99"),
    (['{"type": "sandbox-trace", "version": 1}', '{"sequence": 0}'], "damaged")])
def test_a_file_that_is_no_trace_is_refused_in_words(text, words):
    with pytest.raises(UsageError, match=words):
        jsonl.parse(text)


def test_collapsed_stacks_run_from_the_outermost_frame_and_count_nested_allocations_once():
    assert collapsed.lines(tree()) == ["Python;main;inner;kmalloc 64"]
    assert collapsed.lines(tree(), "calls", "free") == ["Python;main;inner;kfree 1"]
    with pytest.raises(UsageError, match="weighed by bytes, calls, instructions"):
        collapsed.lines(tree(), "colour")


def test_perfetto_gets_one_slice_for_each_event_and_the_bytes_in_use():
    rows = json.loads(perfetto.text(tree()))["traceEvents"]
    assert [(row["ts"], row["dur"], row["name"]) for row in rows if row["ph"] == "X"] == [
        (0, 7, "kmalloc"), (10, 7, "kmem_cache_alloc"), (20, 7, "kfree")]
    assert [row["args"]["bytes"] for row in rows if row["ph"] == "C"] == [64, 128, 64]


def test_dhat_counts_totals_maxima_lifetimes_and_what_is_left():
    first, second = event(0), event(1, bytes_alloc=96, stack=("other+0x1", "Python"))
    third = event(2, address=event(2).address, bytes_alloc=64)
    free = event(3, kind="free", function="kfree", address=first.address)
    profile = json.loads(dhat.text([first, second, free, third]))
    assert (profile["dhatFileVersion"], profile["tu"], profile["te"]) == (2, "instrs", 37)
    one, other = profile["pps"]
    assert [profile["ftbl"][frame] for frame in one["fs"]] == ["kmalloc", *STACK]
    assert (one["tb"], one["tbk"], one["mb"], one["eb"], one["ebk"]) == (128, 2, 128, 64, 1)
    assert (other["tb"], other["gb"], other["eb"]) == (96, 96, 96)
    assert one["tl"] == (30 - 7) + (37 - 27) and other["tl"] == 37 - 17
    assert profile["tg"] == 27 and one["gb"] == 128
