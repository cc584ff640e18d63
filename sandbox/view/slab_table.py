"""Every cache on a line, in slabinfo's columns, narrow enough for 80 columns; and who has the objects."""

from __future__ import annotations

from collections.abc import Iterator

from ..heap.views import Heap

HEADER = """\
                object  objects    pages                               in
name              size per slab per slab  slabs objects  in use magazines   free"""


def slab_table(heap: Heap) -> Iterator[str]:
    """The table's lines. slabinfo's active_objs are the objects in use and in magazines together."""
    yield from HEADER.splitlines()
    for cache in heap.caches:
        yield (f"{cache.name:<15} {cache.object_size:>6} {cache.objects_per_slab:>8} {1 << cache.order:>8} "
               f"{len(cache.slabs):>6} {cache.total:>7} {cache.inuse:>7} {cache.cached:>9} {cache.free:>6}")
