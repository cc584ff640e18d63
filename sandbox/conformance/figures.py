"""Exact figures of plays, by stable keys."""

from __future__ import annotations

from collections.abc import Sequence

from ..address import PAGE_SIZE
from .findings import Play
from .report import Figure


def costs(plays: Sequence[Play]) -> dict[str, Figure]:
    """Instructions of calls from their first to their ``ret``: ``allocate_minimum``, ``allocate_median``,
    ``allocate_p99``, ``allocate_worst``, the same of ``deallocate``; ``calls``, how many were ``refused``, and
    ``init``."""
    figures: dict[str, Figure] = {}
    calls = [call for play in plays for call in play.calls]
    for role in ("allocate", "deallocate"):
        counts = sorted(call.instructions for call in calls if call.role == role and call.served)
        figures |= {f"{role}_{key}": value for key, value in zip(
            ("minimum", "median", "p99", "worst"), _quantiles(counts), strict=True)}
    return {**figures, "calls": sum(call.role in ("allocate", "deallocate") for call in calls),
            "refused": sum(not call.served for call in calls),
            "init": max((call.instructions for call in calls if call.role == "init"), default=0)}


def pages(plays: Sequence[Play]) -> dict[str, Figure]:
    """The allocator's own pages that were written or handed out; of several plays the most. ``init_pages`` are
    those of ``init``, and not counted in."""
    return {"pages": max((play.pages for play in plays), default=0),
            "init_pages": max((play.init_pages for play in plays), default=0)}


def waste_figures(plays: Sequence[Play]) -> dict[str, Figure]:
    """``waste_percent``: of the pages that had been handed out when most was held, what held nothing that was
    asked for; of several plays, of all of them together."""
    held = sum(play.peak_bytes for play in plays)
    size = PAGE_SIZE * sum(play.peak_pages for play in plays)
    return {"peak_bytes": max((play.peak_bytes for play in plays), default=0),
            "waste_percent": round(100 * (1 - held / size), 1) if size else 0.0}


def _quantiles(counts: Sequence[int]) -> tuple[int, int, int, int]:
    """Minimum, median, 99th percentile and worst: values that occurred (nearest rank), 0 where there are none."""
    if not counts:
        return 0, 0, 0, 0
    rank = [max(-(-len(counts) * percent // 100) - 1, 0) for percent in (50, 99)]
    return counts[0], counts[rank[0]], counts[rank[1]], counts[-1]
