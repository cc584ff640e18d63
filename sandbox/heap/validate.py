"""The judge of the heap: it assumes nothing, stops at nothing, and says which rule is broken, and where.

``kernel.heap.validate()`` reads the allocator's whole state from guest bytes in one go (:mod:`.rules.evidence`), by a
walk of its own that shares nothing with the views, and judges it afterwards. Every pointer may be garbage: walks are
bounded, a list that comes back to itself is reported and left, nothing raises. The guest must stand between two
operations of the allocator; inside one, a lock is held or a count is behind, and the judge says so.

What follows from a violation is not reported beside it: of a slab whose free list leads nowhere the counts are not
compared, of a cache whose fields contradict each other no slab is judged. And the list is in order of cause.

======================  ==============================================================================================
memory-map              mem_map or max_pfn is not what the loader's memory map makes it
lock-held               a lock of the allocator is taken
free-live               an object that somebody is known to hold is on a free list
magazine-live           a magazine holds an object that somebody is known to hold
cache-fields            a cache's size, offset, order ... do not follow from its object size, alignment and flags
left-red-zone           the bytes before an object are not all 0xbb (free) or 0xcc (live)
right-red-zone          the bytes behind an object are not
kmalloc-red-zone        the bytes behind the size that kmalloc was asked for are not 0xcc
requested-size          more bytes were asked for than the object or the large allocation has
alignment-padding       the bytes that round an object up to a word are not 0x5a
poison                  a free object's bytes are not 0x6b: it was written to after it was freed
end-poison              its last byte is not 0xa5
object-padding          the bytes behind everything of an object are not 0x5a
slab-padding            the bytes behind the last object of a slab are not
free-pointer            a free pointer, or ``page.freelist``, leads out of the slab or between its objects
page-two-owners         a frame is in two blocks, free and in use, reserved and in use, or a slab has two caches
block-frames            the frames of a block, or its order, contradict its first frame or its cache
colour                  a slab's first object lies where none of the cache's colours puts it
objects-above-maximum   ``page.objects`` is more than fit in the slab
object-number           ``page.objects`` is less than the slab was cut into
inuse-above-objects     ``page.inuse`` is more than the slab has objects
free-list-cycle         a free list leads back to an object that it has been at
free-chain              a free list leads to a live object, or past a free one, by what the red zones say
cpu-slot                ``kmem_cache.cpu`` is no slot, or two caches have the same
magazine-bounds         top, limit, rounds or the 0 at the bottom of a magazine cannot be
magazine-owner          a magazine is no object of the cache ``magazine``, or two have it
depot-links             a depot's list leads nowhere, or in circles
magazine-foreign        a magazine holds what is no object of its cache
magazine-free           a magazine holds an object that is on its slab's free list as well
magazine-twice          an object is in magazines twice
object-count            ``page.inuse`` is not the number of objects that are off the free list
list-links              ``next`` and ``prev`` of a list do not match, or lead to what is no link of it
wrong-list              a slab is not on the list that it names, or not on the one that its objects ask for
lost-slab               a slab is on no list
lost-structure          a magazine or a struct kmem_cache is in use, and nothing leads to it
buddy-block             a free block's order or alignment cannot be, or what is on a list is no free block
buddy-overlap           two free blocks share a frame
buddy-unmerged          two free buddies were not merged
lost-page               a frame is neither free, nor reserved, nor in an allocated block; or a free block is on no list
counters                a count of slabs, blocks, magazines, slots, or of objects taken and given, is not what a walk
                        says
======================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable

from .reader import Readable
from .rules.evidence import Evidence
from .rules.lists import judge_balance, judge_caches, judge_lists, judge_locks, judge_lost
from .rules.magazines import Magazines
from .rules.objects import judge_objects
from .rules.pages import judge_pages
from .rules.slabs import judge_slabs
from .rules.violation import GROUPS, Report, Violation, in_order_of_cause

__all__ = ["RULES", "Violation", "validate"]

RULES = tuple(rule for group in GROUPS for rule in group)
"""The name of every rule, causes first."""


def validate(guest: Readable, first: bool = False, live: Iterable[int] = ()) -> list[Violation]:
    """Judge the heap of a guest: the violations, causes before what follows from them; empty for a sound heap.

    ``first`` keeps the first cause alone. ``live`` are addresses of objects that callers are known to hold, as a trace
    has them (:func:`sandbox.trace.ledger.held`): on a free list or in a magazine they are a violation.
    """
    evidence, report = Evidence(guest), Report()
    if evidence.wrong_map:
        at, why = evidence.wrong_map
        report.add("memory-map", at, why)
    elif evidence.up:
        _judge(evidence, report, live)
    found = in_order_of_cause(report.found)
    return found[:1] if first else found


def _judge(evidence: Evidence, report: Report, live: Iterable[int]) -> None:
    judge_locks(evidence, report)
    judge_caches(evidence, report)
    judge_slabs(evidence, report)
    magazines = Magazines(evidence, report)
    magazines.judge(live)
    judge_objects(evidence, report)
    judge_lists(evidence, report)
    judge_balance(evidence, magazines, report)
    judge_lost(magazines, report)
    judge_pages(evidence, report)
