"""The pytest plugin: a fresh kernel for every test, and reports that name the guilty instruction.

::

    def test_freed_memory_is_reused(kernel):
        first = kernel.call("kmalloc", 64)
        kernel.call("kfree", first)
        assert kernel.call("kmalloc", 64) == first

    @pytest.mark.sandbox(program="record.asm", shadow=True, no_leaks=True)
    def test_a_name_fits(kernel): ...

Fixtures: ``kernel``, ``kernel_factory`` and ``still_held``. The marker ``sandbox`` takes the options of
:func:`sandbox.boot`, limits that are checked when the test is over (:class:`~sandbox.pytest_plugin.options.Limits`),
and ``isolated=True``, which runs the test in a process of its own. ``--sandbox-record`` says when a test's run is
kept, ``--sandbox-seed`` what everything random begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from .options import MARKER, add_options, wanted

if TYPE_CHECKING:
    from ..kernel import Kernel
    from ..view.failure import Section
    from .run import TestRun
    from .stock import Stock

STOCK = pytest.StashKey["Stock"]()
"""Where a session's configuration has its booted kernels."""
_NAMES = pytest.StashKey["dict[str, str]"]()
_RUN = pytest.StashKey["TestRun"]()
_PRESENT = pytest.StashKey["TestRun | None"]()
_PYTEST = ("_pytest", "pluggy")


# -- fixtures ---------------------------------------------------------------------------------------------------
@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """A fresh machine with a booted kernel, as the test's marker ``sandbox`` wants it; ``kernel.trace`` records."""
    from ..errors import GuestError, SandboxError

    run = _run_of(request.node)
    try:
        lent = run.lend({})
    except GuestError:                                   # it has more to say than a sentence
        raise
    except SandboxError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    yield lent.kernel
    run.give_back(lent)


@pytest.fixture
def kernel_factory(request: pytest.FixtureRequest) -> Iterator[Callable[..., Kernel]]:
    """Makes fresh kernels: ``kernel_factory(ram="64M")`` has the options of ``sandbox.boot``, and where it says
    nothing those of the test's marker. All are given back when the test ends."""
    from .options import boot_options

    run, made = _run_of(request.node), []

    def make(**options: Any) -> Kernel:
        lent = run.lend(boot_options(options, request.path.parent))
        made.append(lent)
        return lent.kernel

    yield make
    for lent in reversed(made):
        run.give_back(lent)


@pytest.fixture
def still_held(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``still_held(pointer, ...)``: the test keeps these allocations, so that ``no_leaks`` does not count them."""
    run = _run_of(request.node)

    def keep(*pointers: int) -> None:
        run.kept.update(int(pointer) for pointer in pointers)

    return keep


def _run_of(item: pytest.Item) -> TestRun:
    """What the plugin knows of a test; its markers are read when it is first asked."""
    if _RUN not in item.stash:
        from .run import TestRun

        config = item.config
        item.stash[_RUN] = TestRun(lambda: _stock_of(config), wanted(item), config.getoption("--sandbox-seed"))
    return item.stash[_RUN]


def _stock_of(config: pytest.Config) -> Stock:
    """The session's booted kernels."""
    if STOCK not in config.stash:
        from .stock import Stock

        config.stash[STOCK] = Stock()
    return config.stash[STOCK]


# -- the session ------------------------------------------------------------------------------------------------
def pytest_addoption(parser: pytest.Parser) -> None:
    """``--sandbox-record`` and ``--sandbox-seed``."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", (
        f"{MARKER}(program=, ram=, slab_debug=, shadow=, ..., max_instructions=, max_pages=, max_waste=, no_leaks=, "
        "sound_heap=, isolated=): how the test's kernels are booted, and what must hold when it ends"))


def pytest_report_header(config: pytest.Config) -> str:
    """What to repeat a session with."""
    return f"sandbox: seed {config.getoption('--sandbox-seed')}, records {config.getoption('--sandbox-record')}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Read every marker before any test runs. (In a worker of pytest-xdist a wrong one fails its own test.)"""
    if hasattr(session.config, "workerinput"):
        return
    for item in session.items:
        if item.get_closest_marker(MARKER) is not None:
            wanted(item)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close every kernel."""
    if STOCK in config.stash:
        config.stash[STOCK].close()


# -- one test ---------------------------------------------------------------------------------------------------
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test that wants a process of its own gets one."""
    if _RUN in item.stash:                               # it runs again
        del item.stash[_RUN]
    if item.get_closest_marker(MARKER) is None:
        return None
    try:
        isolated = wanted(item).isolated
    except pytest.UsageError:                            # its setup says so
        return None
    from .isolation import can_isolate, run_isolated

    if not isolated or not can_isolate(item.config):
        return None
    run_isolated(item)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A wrong marker fails its test, whatever fixtures that has."""
    __tracebackhide__ = True
    if item.get_closest_marker(MARKER) is not None:
        try:
            _run_of(item)
        except pytest.UsageError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the test, and then see whether what its marker asks for holds."""
    run = item.stash.get(_RUN, None)
    item.config.stash[_PRESENT] = run
    try:
        result = yield
    finally:
        item.config.stash[_PRESENT] = None
    if run is not None and run.wanted.limits:
        own = any(mark.name == MARKER for mark in item.own_markers)
        sentences = run.check() if run.lent or not own else run.nothing_to_check()
        if sentences:
            pytest.fail("\n".join(sentences), pytrace=False)
    return result


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Say which bytes of guest memory differ, and what they belong to."""
    run = config.stash.get(_PRESENT, None)
    return None if run is None or op != "==" else run.compare(left, right)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what there is to say about the kernels of a test that failed, and keep its record."""
    if call.excinfo is not None and not item.config.getoption("fulltrace", False):
        _without_library(call.excinfo)
    report = yield
    run = item.stash.get(_RUN, None)
    if run is not None and not run.lent and report.failed and report.when == "setup" and call.excinfo is not None:
        _add_all(item, report, run.without_a_kernel(call.excinfo.value))
    when = item.config.getoption("--sandbox-record")
    keep = when == "always" or (when == "on-failure" and report.failed)
    if run is None or not run.lent or report.when == "teardown" or not (
            report.failed or (keep and report.when == "call")):
        return report
    root = item.config.rootpath
    sections = run.examine(None if call.excinfo is None else call.excinfo.value, report.failed,
                           root if keep else None, _record_name(item), item.config.invocation_params.dir)
    _add_all(item, report, sections)
    return report


def _without_library(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """An error that the library raises on purpose ends, for who reads it, at the line that called the library: one of
    the test's, or the fixture's."""
    from ..errors import SandboxError

    if not isinstance(excinfo.value, SandboxError):
        return
    package, theirs, ours, outer = Path(__file__).parents[1], None, None, ""
    entry: TracebackType | None = excinfo.tb
    while entry is not None:
        code, module = entry.tb_frame.f_code, entry.tb_frame.f_globals.get("__name__", "")
        top = module.partition(".")[0]
        if code.co_filename == __file__:
            if outer in _PYTEST:                         # a fixture: what came before were hooks of other plugins
                theirs = None
            ours = entry
        elif package not in Path(code.co_filename).parents and top not in _PYTEST:
            theirs = entry
        outer = top
        entry = entry.tb_next
    last = theirs or ours
    if last is not None:
        last.tb_next = None
        excinfo.traceback = type(excinfo.traceback)(excinfo.tb)


def _record_name(item: pytest.Item) -> str:
    """The name of a test's record: it depends on which other tests there are."""
    stash = item.session.stash
    if _NAMES not in stash:
        from .records import record_names

        stash[_NAMES] = record_names(other.nodeid for other in item.session.items)
    with suppress(KeyError):
        return stash[_NAMES][item.nodeid]
    from .records import record_names

    return record_names([item.nodeid])[item.nodeid]


def _add_all(item: pytest.Item, report: pytest.TestReport, sections: Iterable[Section]) -> None:
    """Sections behind the traceback, where JUnit and pytest-xdist take them along; where there is no such place, among
    what was captured. Who wants a line for each failure gets none."""
    if item.config.getoption("tbstyle", "auto") == "line":
        return
    add = getattr(report.longrepr, "addsection", None)
    for title, lines in sections:
        if callable(add):
            add(title, "\n".join(lines))
        elif report.failed:
            report.sections.append((title, "\n".join(lines)))
