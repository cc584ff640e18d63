"""The model, the views and the trace of test_model, on kernels with debug flags and with encoded free lists."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, settings

from tests.test_model import Allocator


class WithEveryCheck(Allocator):
    """Consistency checks, red zones, poison and owners, for all caches."""

    options: ClassVar[dict[str, Any]] = {"slab_debug": "FZPU"}


class WithSomeCaches(Allocator):
    """Letters for the kmalloc caches alone, one without owners; the others keep their magazines."""

    options: ClassVar[dict[str, Any]] = {"slab_debug": "ZP,kmalloc-*;F,test-1"}


class WithHardenedLists(Allocator):
    """Free pointers under a secret, behind magazines. (With random order each cache holds a kmalloc of its own,
    which the model knows nothing of.)"""

    options: ClassVar[dict[str, Any]] = {"freelist_hardened": True, "seed": 11}


CHOSEN = settings(max_examples=6, stateful_step_count=25, deadline=None, derandomize=True,
                  suppress_health_check=list(HealthCheck))
TestWithEveryCheck = WithEveryCheck.TestCase
TestWithEveryCheck.settings = CHOSEN
TestWithSomeCaches = WithSomeCaches.TestCase
TestWithSomeCaches.settings = CHOSEN
TestWithHardenedLists = WithHardenedLists.TestCase
TestWithHardenedLists.settings = CHOSEN
