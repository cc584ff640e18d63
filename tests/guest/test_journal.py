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
COUNTS = tuple(range(100, 100 + len(ENTRIES)))


def test_a_journal_survives_json() -> None:
    text = json.dumps(Journal(ENTRIES, COUNTS).to_data())
    back = Journal.from_data(json.loads(text))
    assert back.entries() == ENTRIES
    assert [back.count(index) for index in range(len(back))] == list(COUNTS)
    assert [type(entry) for entry in back] == [type(entry) for entry in ENTRIES]


@pytest.mark.parametrize("data", [
    None, 7, {}, {"version": 2}, {"version": 1, "entries": []}, {"version": 2, "entries": [[0, "dance"]]},
    {"version": 2, "entries": [[0, "run"]]}, {"version": 2, "entries": [[0, "run", 1, 2]]},
    {"version": 2, "entries": [["run", 1]]}, {"version": 2, "entries": [[-1, "run", 1]]},
    {"version": 2, "entries": [[5, "run", 1], [4, "run", 1]]}, {"version": 2, "entries": [[0]]},
    {"version": 2, "entries": [[0, "write", 1, {"hex": "zz"}, True]]}, {"version": 2, "entries": [7]},
])
def test_anything_else_is_refused(data: object) -> None:
    with pytest.raises(UsageError):
        Journal.from_data(data)


def test_a_copy_stays_as_it_is_and_replacing_with_it_counts_as_another_version() -> None:
    journal = Journal(ENTRIES[:2], COUNTS[:2])
    before = journal.copy()
    journal.append(Run(1), 200)
    assert journal.since(2) == [Run(1)] and journal.count(2) == 200 and journal.version == 0
    journal.replace(before)
    assert journal.entries() == ENTRIES[:2] and journal.version == 1
    journal.append(Run(2), 300)
    assert len(before) == 2


def test_every_entry_has_its_count() -> None:
    with pytest.raises(UsageError, match="10 entries of a journal with 1 instruction counts"):
        Journal(ENTRIES, (1,))
