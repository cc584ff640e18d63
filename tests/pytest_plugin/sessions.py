"""Sessions of pytest inside of a test, with the plugin."""

from __future__ import annotations

import pytest

from sandbox.pytest_plugin import STOCK
from sandbox.pytest_plugin.run import TestRun
from sandbox.pytest_plugin.stock import Stock

LOADED = (TestRun, Stock)
"""Loaded here, so that the sessions inside of this one share it."""


class OneStock(Stock):
    """Booted kernels for many sessions: most of a small session is its boot."""

    def close(self) -> None:
        """Sessions end, and this does not."""

    def pytest_configure(self, config: pytest.Config) -> None:
        """As a plugin of a session, be its stock."""
        config.stash[STOCK] = self


SHARED = OneStock()
QUICK = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:randomly")


def run(pytester: pytest.Pytester, *arguments: str, apart: bool = False, fresh: bool = False) -> pytest.RunResult:
    """A session in this process, with kernels that others have booted unless it has to be ``fresh``; or ``apart``."""
    if apart:
        return pytester.runpytest_subprocess(*QUICK, *arguments)
    return pytester.runpytest_inprocess(*QUICK, *arguments, plugins=[] if fresh else [SHARED])


def passes(pytester: pytest.Pytester, text: str, *arguments: str, count: int = 1,
           fresh: bool = False) -> pytest.RunResult:
    """Run a file of tests that must all pass."""
    pytester.makepyfile(text)
    result = run(pytester, *arguments, fresh=fresh)
    result.assert_outcomes(passed=count)
    return result


def fails(pytester: pytest.Pytester, text: str, *arguments: str, count: int = 1) -> str:
    """Run a file of tests that must all fail; returns what pytest says."""
    pytester.makepyfile(text)
    result = run(pytester, *arguments)
    result.assert_outcomes(failed=count)
    return "\n".join(result.outlines)
