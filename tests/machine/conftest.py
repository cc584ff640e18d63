"""Guests that are closed when their test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.machine.rig import Rig


@pytest.fixture
def guest() -> Iterator[Callable[..., Rig]]:
    """Make guests; see :class:`tests.machine.rig.Rig`."""
    made: list[Rig] = []

    def make(*arguments: Any, **options: Any) -> Rig:
        made.append(Rig(*arguments, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.close()
