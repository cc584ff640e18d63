"""Allocators that are wrong: each fails on the line that it should, with the sentence that it should, and the shortest
list that shows it is found."""

from __future__ import annotations

import re

import pytest

from sandbox.conformance import LINES

from .broken import BROKEN, SHRUNK, Broken, report_of


def named(broken: Broken) -> str:
    return broken.name.replace(" ", "-")


EVERY_OTHER = [pytest.param(broken, marks=[pytest.mark.soak] * (number % 2), id=named(broken))
               for number, broken in enumerate(BROKEN)]


@pytest.mark.parametrize("broken", EVERY_OTHER)
def test_a_broken_allocator_fails_for_its_own_reason(broken: Broken) -> None:
    report = report_of(broken)
    line = report[broken.line]
    assert not report.passed and not line.passed
    assert re.search(broken.reason, line.reason), line.reason
    assert [each.name for each in report] == list(LINES)
    assert all(each.reason for each in report.failed)
    assert line.again and line.script is not None
    if broken.name in SHRUNK:
        assert len(line.script.operations) == broken.shortest, line.script
