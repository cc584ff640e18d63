"""A test in a process of its own: a guest that brings the engine down takes no other test with it.

The process is a fork, as in pytest-forked: fixtures of wider scopes are there already, and what the test sets up is
torn down in the child. Its reports come back through a pipe. With pytest-xdist a crash takes a worker with it, which is
replaced; without, the session. Only an ``isolated`` test fails alone in both.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

PIECE = 1 << 16


def can_isolate(config: pytest.Config) -> bool:
    """Whether there is a way: this host can fork, and nobody wants to debug in this process."""
    return hasattr(os, "fork") and not config.getoption("usepdb", False) and not config.getoption("trace", False)


def run_isolated(item: pytest.Item) -> None:
    """Run a test in a child, and report what became of it here."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _reports(item: pytest.Item) -> list[pytest.TestReport]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            _write(writing, json.dumps(_run(item)).encode())
            status = 0
        finally:
            os._exit(status)                             # nothing of the parent's is finished here
    os.close(writing)
    data = b""
    with os.fdopen(reading, "rb") as pipe:
        while piece := pipe.read(PIECE):
            data += piece
    _, status = os.waitpid(child, 0)
    if status or not data:
        return [_death(item, status)]
    hook = item.config.hook
    return [hook.pytest_report_from_serializable(config=item.config, data=one) for one in json.loads(data)]


def _run(item: pytest.Item) -> list[Any]:
    """In the child: the reports of the test, as plain data. What was set up before, the parent tears down."""
    stack = item.session._setupstate.stack
    outer: list[Any] = [node for node in item.listchain()[:-1] if node in stack]
    reports = runtestprotocol(item, log=False, nextitem=outer[-1] if outer else None)
    return [item.config.hook.pytest_report_to_serializable(config=item.config, report=report) for report in reports]


def _write(pipe: int, data: bytes) -> None:
    with os.fdopen(pipe, "wb") as out:
        out.write(data)


def _death(item: pytest.Item, status: int) -> pytest.TestReport:
    """The report of a test whose process died."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        how = f"was killed by {signal.Signals(number).name}" if number in set(signal.Signals) else f"died of {number}"
    else:
        how = f"ended with status {os.WEXITSTATUS(status)} before its reports came"
    call = pytest.CallInfo.from_call(lambda: pytest.fail(f"the process of this isolated test {how}", pytrace=False),
                                     "call")
    return pytest.TestReport.from_item_and_call(item, call)
