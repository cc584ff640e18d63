"""Every cache on a line, in slabinfo's columns, narrow enough for 80 columns; and who has the objects."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import HeapCorruption
from ..heap.views import Heap

HEADER = """\
                object  objects    pages                               in
name              size per slab per slab  slabs objects  in use magazines   free"""


def slab_table(heap: Heap) -> Iterator[str]:
    """The table's lines. slabinfo's active_objs are the objects in use and in magazines together.

    A cache that is corrupt is a row without counts; :class:`HeapCorruption` says what is wrong with the first of them
    behind the last row.
    """
    corruption: HeapCorruption | None = None
    yield from HEADER.splitlines()
    for cache in heap.caches:
        row = f"{cache.name:<15} {cache.object_size:>6} {cache.objects_per_slab:>8} {1 << cache.order:>8} "
        try:
            yield (f"{row}{len(cache.slabs):>6} {cache.total:>7} {cache.inuse:>7} {cache.cached:>9} "
                   f"{cache.free:>6}")
        except HeapCorruption as error:
            corruption = corruption or error
            yield f"{row}corrupt"
    if corruption is not None:
        raise corruption
