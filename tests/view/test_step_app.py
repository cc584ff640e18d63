"""The stepper's Textual application, through Textual's own pilot: keys, the line that is typed, colour, time."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

import sandbox
from sandbox import Kernel
from sandbox.debugger.timeline import Timeline
from sandbox.view.step.app import LOOKS, StepperApp
from sandbox.view.step.rows import STYLES
from sandbox.view.step.screen import picture
from sandbox.view.step.stepper import Stepper

BOUND = 0.1
"""Seconds of this process's own time that a step may take to be shown; 0.02 is usual, and a loaded host is slower."""


@pytest.fixture(scope="module")
def timeline() -> Iterator[Timeline[Kernel]]:
    recorded = sandbox.record("01")
    with recorded.kernel:
        yield recorded


@pytest.fixture
def stepper(timeline: Timeline[Kernel]) -> Stepper:
    timeline.goto(timeline.start)
    timeline.run_to("main")
    return Stepper(timeline)


def drive(app: StepperApp, script: Callable[[Pilot[Exception]], Awaitable[None]], size: tuple[int, int] = (80, 24)
          ) -> None:
    async def session() -> None:
        async with app.run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(session())


def shown(app: StepperApp) -> list[str]:
    """The rows as they are painted."""
    return [app.panes.render_line(y).text.rstrip() for y in range(app.panes.size.height)]


def test_what_is_painted_is_the_picture(stepper: Stepper) -> None:
    app = StepperApp(stepper)

    async def script(pilot: Pilot[Exception]) -> None:
        await pilot.press("s", "2", "5", "s", "S")
        assert shown(app) == [row.text.rstrip() for row in picture(stepper, 80, 24)]
        await pilot.resize_terminal(120, 40)
        assert shown(app) == [row.text.rstrip() for row in picture(stepper, 120, 40)]

    drive(app, script)


def test_a_line_is_typed_cancelled_and_recalled(stepper: Stepper, timeline: Timeline[Kernel]) -> None:
    app, start = StepperApp(stepper), timeline.position

    async def script(pilot: Pilot[Exception]) -> None:
        await pilot.press("g", "+", "7", "enter")
        assert timeline.position == start + 7 and stepper.prompt is None
        await pilot.press("g", "9", "escape")
        assert timeline.position == start + 7 and stepper.prompt is None
        await pilot.press("g", "up")
        assert app.query_one("#line", Input).value == "+7"
        await pilot.press("down", "up", "enter")
        assert timeline.position == start + 14
        await pilot.press("s")
        assert timeline.position == start + 15

    drive(app, script)


def test_without_unicode_lines_are_drawn_in_ascii(stepper: Stepper) -> None:
    app = StepperApp(stepper, ascii_only=True)

    async def script(pilot: Pilot[Exception]) -> None:
        await pilot.press("s")
        assert all(row.isascii() for row in shown(app)) and any("-[heap]-" in row for row in shown(app))

    drive(app, script)


def test_a_defect_of_the_program_comes_out_when_the_terminal_is_itself_again(stepper: Stepper) -> None:
    app = StepperApp(stepper)

    def broken(key: str) -> None:
        raise ZeroDivisionError(key)

    async def script(pilot: Pilot[Exception]) -> None:
        await pilot.press("s")

    stepper.press = broken                       # type: ignore[method-assign]
    drive(app, script)
    assert isinstance(app.return_value, ZeroDivisionError)


def test_quitting_leaves_the_application(stepper: Stepper) -> None:
    app = StepperApp(stepper)

    async def script(pilot: Pilot[Exception]) -> None:
        await pilot.press("q")

    drive(app, script)
    assert app.return_value is None and stepper.ended


def test_every_style_has_a_look() -> None:
    assert set(LOOKS) == set(STYLES)


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_a_step_is_shown_soon(stepper: Stepper, size: tuple[int, int]) -> None:
    app, times = StepperApp(stepper), []

    async def script(pilot: Pilot[Exception]) -> None:
        for key in "sssssSSSSSnnnnn":
            before = time.process_time()
            await pilot.press(key)
            times.append(time.process_time() - before)

    drive(app, script, size)
    assert statistics.median(times) < BOUND
