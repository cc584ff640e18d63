"""Judging the lists: of all caches, and of each cache's slabs; and the numbers that count them."""

from __future__ import annotations

from ...abi import SLAB_DEBUG_FLAGS, SlabList, kmem_cache, page
from .evidence import CACHED, LISTS, Cache, Evidence, Slab
from .magazines import Magazines
from .slabs import where
from .violation import Report

_LINK, _LIST, _CACHE, _FLAGS = page.next.offset, page.list.offset, page.cache.offset, page.flags.offset
_WORDS = {SlabList.SLAB_LIST_NONE: "no list", SlabList.SLAB_LIST_PARTIAL: "the partial list",
          SlabList.SLAB_LIST_FULL: "the full list", SlabList.SLAB_LIST_EMPTY: "the empty list"}


def judge_locks(evidence: Evidence, report: Report) -> None:
    """Between two operations nobody holds a lock."""
    for name in ("zone_lock", "slab_caches_lock"):
        if evidence.memory.variable(name, 4):
            report.add("lock-held", evidence.memory.symbol(name) or 0,
                       f"{name} is held: somebody is in the middle of a "
                       "change, or did not give it back")
    for cache in evidence.caches.values():
        if cache.fields.lock:
            report.add("lock-held", cache.address + kmem_cache.lock.offset,
                       f"{cache.name}'s lock is held: somebody is in "
                       "the middle of a change, or did not give it back", cache.name)


def judge_caches(evidence: Evidence, report: Report) -> None:
    """The list of all caches, and the fields of each."""
    ring = evidence.cache_ring
    if ring is not None and ring.wrong:
        report.add("list-links", ring.wrong[0], f"slab_caches: {ring.wrong[1]}")
    for cache in evidence.caches.values():
        if cache.wrong:
            field, why = cache.wrong
            at = next(known.offset for known in kmem_cache.fields if known.name == field)
            report.add("cache-fields", cache.address + at, f"{cache.name}: {why}", cache.name)


def judge_lists(evidence: Evidence, report: Report) -> None:
    """Partial, full and empty of every cache."""
    for cache in evidence.caches.values():
        walked = [_judge_ring(evidence, cache, which, report) for which in LISTS]
        sound = all(walked)
        for slab in cache.slabs:
            _judge_place(slab, sound, report)
        made = int(cache.fields.alloc_slab) - int(cache.fields.free_slab)
        if sound and cache.address not in evidence.contested and made != len(cache.slabs):
            report.add("counters", cache.address + kmem_cache.alloc_slab.offset,
                       f"{cache.name}: {cache.fields.alloc_slab} "
                       f"slabs were made and {cache.fields.free_slab} given back, and it has {len(cache.slabs)}",
                       cache.name)


def _judge_ring(evidence: Evidence, cache: Cache, which: SlabList, report: Report) -> bool:
    """One list: its links, what is on it, and how many; whether it has slabs of the cache alone."""
    ring, (name, counter) = cache.rings[which], LISTS[which]
    own = True
    for at in ring.entries:
        pfn = evidence.pfn_of_page(at - _LINK)
        slab = None if pfn is None else evidence.slabs.get(pfn)
        own = own and slab is not None and slab.cache is cache
        if slab is None:
            report.add("block-frames", at - _LINK + _FLAGS,
                       f"{cache.name}'s {name} list: frame {pfn} is on it, and does "
                       "not begin a slab", cache.name)
        elif slab.cache is not cache:
            report.add("page-two-owners", slab.page + _CACHE,
                       f"the slab at 0x{slab.address:x} is on {cache.name}'s {name} "
                       f"list, and says that it is {slab.cache.name}'s", cache.name)
    if ring.wrong:
        report.add("list-links", ring.wrong[0], f"{cache.name}'s {name} list: {ring.wrong[1]}", cache.name)
        return False
    says = int(getattr(cache.fields, counter))
    if says != len(ring.entries):
        at = getattr(kmem_cache, counter).offset
        report.add("counters", cache.address + at,
                   f"{cache.name}: {counter} is {says}, and {len(ring.entries)} slabs are "
                   "on the list", cache.name)
    return own


def _judge_place(slab: Slab, lists_sound: bool, report: Report) -> None:
    """Whether a slab is on one list of its cache, the one that it says, and the one that its objects ask for."""
    cache, says = slab.cache, int(slab.info.list)
    mine = [which for owner, which in slab.on if owner is cache]
    if len(mine) > 1:
        report.add("page-two-owners", slab.page + _LINK,
                   f"{where(slab)} is on {' and '.join(_WORDS[one] for one in mine)}",
                   cache.name)
    elif not mine and lists_sound and len(slab.on) == 0:
        report.add("lost-slab", slab.page + _LIST, f"{where(slab)} is on none of its cache's lists", cache.name)
    elif mine and says != mine[0]:
        claims = _WORDS[SlabList(says)] if says in list(SlabList) else f"list {says}"
        report.add("wrong-list", slab.page + _LIST, f"{where(slab)} says that it is on {claims}, and is on "
                   f"{_WORDS[mine[0]]}", cache.name)
    elif mine and not slab.broken and slab.info.inuse <= cache.fields.objects and not cache.wrong:
        right = SlabList.SLAB_LIST_EMPTY if slab.info.inuse == 0 else SlabList.SLAB_LIST_FULL \
            if slab.info.inuse == slab.cache.fields.objects else SlabList.SLAB_LIST_PARTIAL
        if mine[0] != right:
            report.add("wrong-list", slab.page + _LINK, f"{where(slab)} has {slab.info.inuse} of "
                       f"{cache.fields.objects} objects out, and is on {_WORDS[mine[0]]}", cache.name)


def judge_balance(evidence: Evidence, magazines: Magazines, report: Report) -> None:
    """What was taken and not given back is what is out; an allocation that failed counts as taken, or not at all.
    Under debugging a refused free counts as one, so nothing follows there."""
    for cache in evidence.caches.values():
        if cache.wrong or cache.flags & SLAB_DEBUG_FLAGS or cache.address not in magazines.sound or \
                cache.address in evidence.contested or any(slab.broken or slab.data is None for slab in cache.slabs):
            continue
        fields, front = cache.fields, magazines.fronts.get(cache.address)
        taken = int(fields.alloc_slowpath) + (int(front.alloc_fastpath) if front else 0)
        given = int(fields.free_slowpath) + (int(front.free_fastpath) if front else 0)
        out = sum(int(slab.info.inuse) - slab.state.count(CACHED) for slab in cache.slabs)
        if not 0 <= taken - given - out <= fields.failed:
            report.add("counters", cache.address + kmem_cache.alloc_slowpath.offset,
                       f"{cache.name}: {taken} objects were "
                       f"taken and {given} given back, and {out} are held", cache.name)


def judge_lost(magazines: Magazines, report: Report) -> None:
    """Objects that the allocator took for itself and forgot."""
    evidence = magazines.evidence
    if evidence.cache_ring is None or not evidence.cache_ring.sound or len(magazines.sound) != len(evidence.caches):
        return
    for cache, address in magazines.lost():
        report.add("lost-structure", address, f"the {cache.name} at 0x{address:x} is in use, and no list leads to it",
                   cache.name, address)
