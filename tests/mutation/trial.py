"""The fast subset: what a kernel must do to pass for sound, in a few seconds. Any exception means that it does not.

The kernel's own self-test; claims about pages, slabs, magazines, misuse, interrupts and memory that runs out; seeded
workloads against a model under several boot options; and after each the judge of the heap.
"""

from __future__ import annotations

from typing import Any

from sandbox.kernel import Kernel
from sandbox.toolchain.image import Image

from .booted import booted, judge
from .cache_claims import CacheClaims
from .magazine_claims import MagazineClaims
from .option_claims import consistency_claims, debug_claims, roomy_claims
from .page_claims import PageClaims
from .workload import Workload

SELFTEST_LIMIT = 30_000_000
WORKLOADS: tuple[tuple[int, int, dict[str, Any]], ...] = (
    (2, 100, {"ram": "16M", "magazines": False, "empty_slab_limit": 0, "hz": 0}),
    (3, 60, {"ram": "8M", "slab_debug": "FZPU", "empty_slab_limit": 1}),
    (4, 40, {"ram": "8M", "slab_debug": "Z"}),
    (5, 40, {"ram": "8M", "slab_debug": "ZU"}),
    (6, 60, {"ram": "8M", "freelist_hardened": True, "freelist_random": True, "seed": 7}),
)


def trial(image: Image, selftest: Image, shim: Image) -> None:
    """Raise for a kernel that is not sound. ``shim`` is the program of :mod:`.booted`."""
    with booted(image, selftest) as kernel:
        result = kernel.run(SELFTEST_LIMIT)
        assert result.ok and " 0 failed" in kernel.console, f"self-test: {result}: {failed(kernel)}"
        judge(kernel)
    with booted(image, shim, ram="6M") as kernel:
        everything(kernel)
    with booted(image, shim, ram="6M", slab_debug="F") as kernel:
        consistency_claims(kernel)
    for seed, length, options in WORKLOADS:
        with booted(image, shim, **options) as kernel:
            roomy_claims(kernel) if options["ram"] == "16M" else debug_claims(kernel)
            Workload(kernel, seed).run(length)


def everything(kernel: Kernel) -> None:
    """All claims about a kernel with default options and little memory; no page is lost on the way."""
    judge(kernel, both=True)
    groups = (CacheClaims(kernel), PageClaims(kernel), MagazineClaims(kernel))
    groups[0].shrink_all()
    free = groups[0].free()
    for group in groups:
        group.hold()
        group.shrink_all()
        judge(kernel, both=True)
        assert group.free() == free
    Workload(kernel, 1).run(160)
    groups[0].shrink_all()
    assert groups[0].free() == free


def failed(kernel: Kernel) -> str:
    """The self-tests that did not pass."""
    return "; ".join(line for line in kernel.console.splitlines() if "[failed]" in line)
