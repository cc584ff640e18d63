"""The journal as data: what goes out comes back, and nothing else is read."""

from __future__ import annotations

import json

import pytest

from sandbox.errors import UsageError
from sandbox.guest.journal import Call, Flush, Interrupt, Journal, Receive, Run, SetRegister, Write

ENTRIES = (
    Call(0xFFFF_FFFF_8000_0000, (1, b"\x00\xff", 2**64 - 1), 1000),
    Call(0, (), 1),
    Run(None),
    Run(12345),
    Write(0xFFFF_8880_0000_0000, b"\x90\x90", False),
    Write(4096, b"", True),
    SetRegister("rax", 7),
    Interrupt(1_000_000, 4),
    Receive(b"typed\n"),
    Flush(),
)


def test_a_journal_survives_json() -> None:
    text = json.dumps(Journal(ENTRIES).to_data())
    back = Journal.from_data(json.loads(text))
    assert back.entries() == ENTRIES
    assert [type(entry) for entry in back] == [type(entry) for entry in ENTRIES]


@pytest.mark.parametrize("data", [
    None, 7, {}, {"version": 1}, {"version": 2, "entries": []}, {"version": 1, "entries": [["dance"]]},
    {"version": 1, "entries": [["run"]]}, {"version": 1, "entries": [["run", 1, 2]]},
    {"version": 1, "entries": [["write", 1, {"hex": "zz"}, True]]}, {"version": 1, "entries": [7]},
])
def test_anything_else_is_refused(data: object) -> None:
    with pytest.raises(UsageError):
        Journal.from_data(data)


def test_cutting_and_replacing_keep_append_alive() -> None:
    journal = Journal(ENTRIES)
    journal.cut(2)
    assert journal.entries() == ENTRIES[:2]
    journal.append(Run(1))
    assert journal.since(2) == [Run(1)]
    journal.replace(ENTRIES[3:])
    journal.append(Run(2))
    assert journal.entries() == (*ENTRIES[3:], Run(2))
