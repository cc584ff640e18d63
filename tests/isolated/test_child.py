"""The process around an engine: whatever becomes of it is one typed error here, and the next request works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import EngineCrashed, EngineError, EngineHung, EngineTooLarge, UsageError
from sandbox.isolated import Bounds, Child

WORKER = "tests.isolated.hostile_worker"


def ask(child: Child, what: str) -> list[dict[str, Any]]:
    return list(child.ask(what=what))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_requests_are_answered_by_one_process_one_after_the_other() -> None:
    with Child(WORKER) as child:
        answers = [ask(child, "print") for _ in range(5)]
        assert [answer[0] for answer in answers] == [{"began": "print"}] * 5
        assert {answer[-1]["pid"] for answer in answers} == {child.process}
        process = child.process
    assert process is not None and not alive(process)


@pytest.mark.parametrize(("what", "number", "words"), [
    ("abort", signal.SIGABRT, "impossible"), ("segfault", signal.SIGSEGV, "SIGSEGV")])
def test_a_signal_in_the_child_is_an_engine_error_with_its_number(what: str, number: int, words: str) -> None:
    with Child(WORKER) as child:
        with pytest.raises(EngineCrashed, match=words) as caught:
            ask(child, what)
        assert caught.value.signal == number
        assert ask(child, "print")[-1]["done"]


def test_a_child_that_leaves_by_itself_is_an_engine_error_with_its_status() -> None:
    with Child(WORKER) as child, pytest.raises(EngineCrashed, match="left with status 7") as caught:
        ask(child, "exit")
    assert (caught.value.signal, caught.value.status) == (None, 7)


def test_a_python_exception_in_the_child_is_named() -> None:
    with Child(WORKER) as child, pytest.raises(EngineCrashed, match="RuntimeError: a defect of the worker"):
        ask(child, "raise")


def test_a_child_that_hangs_is_ended_in_time() -> None:
    began = time.monotonic()
    with Child(WORKER, Bounds(seconds=1.5)) as child:
        with pytest.raises(EngineHung) as caught:
            ask(child, "hang")
        assert caught.value.seconds == 1.5 and child.process is None
    assert time.monotonic() - began < 10


def test_a_child_that_grows_is_ended_before_the_host_suffers() -> None:
    with Child(WORKER, Bounds(memory=100 << 20)) as child, pytest.raises(EngineTooLarge) as caught:
        ask(child, "eat")
    assert 100 << 20 < caught.value.size < 200 << 20


def test_a_child_that_talks_nonsense_is_an_engine_error() -> None:
    with Child(WORKER, Bounds(seconds=20)) as child, pytest.raises(EngineError, match="no message"):
        ask(child, "nonsense")


def test_twenty_thousand_messages_arrive_in_order_through_a_bounded_queue() -> None:
    with Child(WORKER) as child:
        numbers = [message["number"] for message in child.ask(what="flood") if "number" in message]
    assert numbers == list(range(20_000))


def test_giving_up_in_the_middle_ends_the_child_even_while_it_talks() -> None:
    with Child(WORKER) as child:
        for message in child.ask(what="flood"):
            process = child.process
            if message.get("number") == 10:
                break
        del message
        assert process is not None
        child.close()
        assert not alive(process)
        assert ask(child, "print")[-1]["done"]


def test_children_end_when_their_parent_does() -> None:
    code = (f"from sandbox.isolated import Child\nimport os\nchild = Child({WORKER!r})\nfor message in "
            "child.ask(what='hang'):\n    print(child.process, flush=True)\n    os._exit(0)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
                          cwd=Path(__file__).parents[2])
    process = int(done.stdout)
    deadline = time.monotonic() + 10
    while alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(process)


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    for _ in range(3):
        with Child(WORKER) as child, pytest.raises(EngineCrashed):
            ask(child, "abort")
    assert threading.active_count() == before


@pytest.mark.parametrize("bounds", [{"seconds": 0}, {"seconds": float("nan")}, {"seconds": "1"}, {"memory": 1},
                                    {"memory": 1e9}, {"seconds": True}])
def test_bounds_that_bound_nothing_are_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Bounds(**bounds)
