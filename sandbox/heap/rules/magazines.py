"""Judging what stands in front of the slabs: each CPU's magazines, the depots, and the objects in them.

Who holds an object is not written anywhere; but some holders are known. The allocator itself holds its magazines, its
``struct kmem_cache`` and the random orders of its free lists, and a caller of the judge can name more (a trace's
account of what is held). Such an object is live, and must be on no free list and in no magazine.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...abi import PERCPU_SLOTS, kmem_cache, kmem_cache_cpu, magazine, percpu
from .evidence import CACHED, FREE, LIVE, Cache, Evidence
from .record import Record, decoder
from .slabs import where
from .violation import Report

_SLOTS, _OBJECTS = percpu.slots.offset, magazine.objects.offset
_TOP, _PREVIOUS, _ROUNDS = kmem_cache_cpu.top.offset, kmem_cache_cpu.previous.offset, magazine.rounds.offset
_front_record, _magazine_record = decoder(kmem_cache_cpu), decoder(magazine)


class Magazines:
    """One round of judging every magazine of every cache."""

    def __init__(self, evidence: Evidence, report: Report) -> None:
        self.evidence = evidence
        self.report = report
        self.owners: dict[int, str] = {}
        """Who has each magazine, and each other object that the allocator holds for itself."""
        self.fronts: dict[int, Record] = {}
        """Each cache's own slot of the CPU's data, by the cache's address."""
        self.sound: set[int] = set()
        """The caches all of whose magazines could be read."""
        self.places: dict[int, int] = {}
        """Where a magazine holds each object that is in one."""
        self._slots: dict[int, Cache] = {}
        self._own = evidence.memory.symbol("magazine_cache")

    def judge(self, live: Iterable[int]) -> None:
        """Slots, magazines, their objects; then everything that is known to be live."""
        at = self.evidence.memory.symbol("boot_cpu")
        data = None if at is None else self.evidence.memory.read(at, percpu.size)
        if at is None or data is None:
            return
        self._judge_shared_slot(at, data)
        for cache in self.evidence.caches.values():
            if not cache.wrong and self._judge_slot(cache) and self._judge_cache(cache, at, data):
                self.sound.add(cache.address)
        self._judge_slots_used()
        self._judge_live(live)

    # -- slots ------------------------------------------------------------------------------------------------
    def _judge_shared_slot(self, at: int, data: bytes) -> None:
        """Slot 0 belongs to the caches without magazines: always both empty and full."""
        front = _front_record(data[_SLOTS : _SLOTS + kmem_cache_cpu.size])
        if self.evidence.caches:
            self._judge_disabled(front, at + _SLOTS, "the slot of all caches without magazines", None)

    def _judge_disabled(self, front: Record, at: int, what: str, name: str | None) -> bool:
        below = self.evidence.memory.word(front.top - 8) if front.top >= 8 else None
        if front.top != front.limit or below != 0 or front.previous:
            self.report.add("magazine-bounds", at + _TOP,
                            f"{what}: it has no magazine, and top (0x{front.top:x}) is not "
                            "both its limit and behind a 0", name)
            return False
        return True

    def _judge_slot(self, cache: Cache) -> bool:
        """Whether ``kmem_cache.cpu`` names a slot, which no other cache has."""
        slot, odd = divmod(cache.fields.cpu - _SLOTS, kmem_cache_cpu.size)
        at = cache.address + kmem_cache.cpu.offset
        if odd or not 0 <= slot < PERCPU_SLOTS:
            self.report.add("cpu-slot", at, f"{cache.name}: kmem_cache.cpu is 0x{cache.fields.cpu:x}, which is no slot",
                            cache.name)
            return False
        other = self._slots.setdefault(slot, cache) if slot else cache
        if other is not cache:
            self.report.add("cpu-slot", at, f"{cache.name} and {other.name} have the same slot {slot}", cache.name)
        return other is cache

    def _judge_slots_used(self) -> None:
        """The map of slots in use against the caches' own word."""
        at = self.evidence.memory.symbol("percpu_slots_used")
        data = None if at is None else self.evidence.memory.read(at, (PERCPU_SLOTS + 1) // 8)
        if at is None or data is None or not self.evidence.caches:
            return
        if self.evidence.cache_ring is None or not self.evidence.cache_ring.sound:
            return
        used = int.from_bytes(data, "little")
        for slot in range(PERCPU_SLOTS):
            marked, has = used >> slot & 1, slot == 0 or slot in self._slots
            if bool(marked) != has:
                who = self._slots[slot].name if slot in self._slots else None
                self.report.add("counters", at + slot // 8, f"percpu_slots_used says that slot {slot} is "
                                f"{'used' if marked else 'free'}, and {who or 'no cache'} has it", who)

    # -- magazines --------------------------------------------------------------------------------------------
    def _judge_cache(self, cache: Cache, cpu: int, data: bytes) -> bool:
        """The cache's loaded and previous magazine, and its depot; whether all could be read."""
        sound = True
        if cache.fields.cpu != _SLOTS:
            offset = int(cache.fields.cpu)
            front = self.fronts[cache.address] = _front_record(data[offset : offset + kmem_cache_cpu.size])
            sound = self._judge_front(cache, front, cpu + offset)
        return self._judge_depot(cache, "full") and self._judge_depot(cache, "empty") and sound

    def _judge_front(self, cache: Cache, front: Record, at: int) -> bool:
        if not front.loaded:
            return self._judge_disabled(front, at, f"{cache.name}'s slot", cache.name)
        bottom, rounds = front.loaded + _OBJECTS, int(cache.fields.rounds)
        count, odd = divmod(front.top - bottom, 8)
        if odd or not 0 <= count <= rounds or front.limit != bottom + 8 * rounds:
            self.report.add("magazine-bounds", at + _TOP, f"{cache.name}: top is 0x{front.top:x} and limit "
                            f"0x{front.limit:x}, and the loaded magazine's {rounds} places begin at 0x{bottom:x}",
                            cache.name)
            return False
        loaded = self._judge_magazine(cache, front.loaded, "the loaded magazine", int(count))
        if not front.previous:
            return loaded
        return self._judge_magazine(cache, front.previous, "the previous magazine", None) and loaded

    def _judge_depot(self, cache: Cache, kind: str) -> bool:
        """One of the depot's two lists, which end in 0."""
        fields = cache.fields
        at, count = (fields.depot_full, fields.nr_depot_full) if kind == "full" else \
            (fields.depot_empty, fields.nr_depot_empty)
        place = cache.address + (kmem_cache.depot_full if kind == "full" else kmem_cache.depot_empty).offset
        seen: set[int] = set()
        while at:
            if at in seen:
                self.report.add("depot-links", place,
                                f"{cache.name}: the depot's list of {kind} magazines leads back to "
                                f"0x{at:x}", cache.name)
                return False
            seen.add(at)
            following = self.evidence.memory.word(at)
            if following is None or at % magazine.alignment:
                self.report.add("depot-links", place, f"{cache.name}: the depot's list of {kind} magazines leads to "
                                f"0x{at:x}, where no magazine can be", cache.name)
                return False
            if not self._judge_magazine(cache, at, f"a {kind} magazine of the depot", None, kind):
                return False
            place, at = at, following
        if len(seen) != count:
            number = kmem_cache.nr_depot_full if kind == "full" else kmem_cache.nr_depot_empty
            self.report.add("counters", cache.address + number.offset, f"{cache.name}: {number.name} is {count}, and "
                            f"{len(seen)} magazines are on the list", cache.name)
        return True

    def _judge_magazine(self, cache: Cache, at: int, what: str, count: int | None, kind: str = "") -> bool:
        """One magazine and its objects; ``count`` is how many it has where its own number is out of date."""
        data = self.evidence.memory.read(at, magazine.size)
        if data is None:
            self.report.add("magazine-owner", at, f"{cache.name}: {what} is 0x{at:x}, where no memory is", cache.name)
            return False
        self._own_object(at, f"{what} of {cache.name}", cache)
        record, full = _magazine_record(data), int(cache.fields.rounds)
        if record.bottom:
            self.report.add("magazine-bounds", at + magazine.bottom.offset,
                            f"{cache.name}: below the objects of {what} "
                            f"lies 0x{record.bottom:x} and not 0", cache.name)
        allowed = {"full": (full,), "empty": (0,)}.get(kind, (0, full))
        if count is None and record.rounds not in allowed:
            self.report.add("magazine-bounds", at + _ROUNDS, f"{cache.name}: {what} says that it holds {record.rounds} "
                            f"objects, and {' or '.join(map(str, allowed))} can be", cache.name)
            return False
        for place in range(record.rounds if count is None else count):
            self._judge_object(cache, at, place, what, data)
        return True

    def _own_object(self, at: int, who: str, cache: Cache) -> None:
        """A magazine is a live object of the cache called ``magazine``, and has one owner."""
        other = self.owners.get(at)
        if other is not None:
            self.report.add("magazine-owner", at, f"the magazine at 0x{at:x} is {who}, and also {other}", cache.name)
            return
        self.owners[at] = who
        found, own = self.evidence.find(at), self.evidence.caches.get(self._own or 0)
        if own is None or own.wrong or (found is None and self._is_unjudged(own, at)):
            return
        if found is None or found[0].cache is not own:
            self.report.add("magazine-owner", at, f"{who} is at 0x{at:x}, where no object of the cache magazine is",
                            cache.name)

    def _judge_object(self, cache: Cache, at: int, place: int, what: str, data: bytes) -> None:
        where_at = at + _OBJECTS + 8 * place
        address = int.from_bytes(data[_OBJECTS + 8 * place :][:8], "little")
        found = self.evidence.find(address)
        if found is None or found[0].cache is not cache:
            if self._is_unjudged(cache, address):
                return
            whose = f"an object of {found[0].cache.name}" if found else "no object"
            self.report.add("magazine-foreign", where_at, f"{cache.name}: {what} holds 0x{address:x}, which is {whose}",
                            cache.name, address)
            return
        slab, index = found
        if slab.broken and slab.state[index] != CACHED:
            slab.state[index] = CACHED                       # its free list is wrong: what is on it is not known
        elif slab.state[index] == FREE:
            self.report.add("magazine-free", where_at,
                            f"{cache.name}: {what} holds 0x{address:x}, which is also on the "
                            "free list of its slab", cache.name, address)
        elif slab.state[index] == CACHED:
            self.report.add("magazine-twice", where_at,
                            f"{cache.name}: {what} holds 0x{address:x}, which is in a magazine "
                            "already", cache.name, address)
        else:
            slab.state[index] = CACHED
        self.places[address] = where_at

    def _is_unjudged(self, cache: Cache, address: int) -> bool:
        """Whether an address lies in a slab of the cache whose frames or numbers are wrong: that is said already."""
        pfn = self.evidence.pfn_of(address)
        return self.evidence.slab_of(address) is None and pfn is not None and (
            cache.address in self.evidence.contested or int(self.evidence.frames["cache"][pfn]) == cache.address)

    # -- what is known to be live -----------------------------------------------------------------------------
    def _judge_live(self, live: Iterable[int]) -> None:
        known = dict(self.owners)
        for cache in self.evidence.caches.values():
            known[cache.address] = f"the struct kmem_cache of {cache.name}"
            if cache.fields.random_seq:
                known[int(cache.fields.random_seq)] = f"the random order of {cache.name}'s free lists"
        self.owners = dict(known)
        for address in live:
            known.setdefault(int(address), "held by its caller")
        for address, what in known.items():
            found = self.evidence.find(address)
            if found is None or found[0].broken:
                continue
            slab, index = found
            if slab.state[index] == CACHED:
                self.report.add("magazine-live", self.places[address], f"{slab.cache.name}: a magazine "
                                f"holds 0x{address:x}, which is {what}", slab.cache.name, address)
            elif slab.state[index] == FREE:
                self.report.add("free-live", address,
                                f"{where(slab)}: 0x{address:x} is on its free list, and is {what}",
                                slab.cache.name, address)

    def lost(self) -> Iterable[tuple[Cache, int]]:
        """The live objects of the allocator's own two caches that no cache and no list knows."""
        for name in ("magazine_cache", "kmem_cache_cache"):
            cache = self.evidence.caches.get(self.evidence.memory.symbol(name) or 0)
            for slab in () if cache is None else cache.slabs:
                if not slab.broken and slab.data is not None:
                    for index, state in enumerate(slab.state):
                        if state == LIVE and slab.object(index) not in self.owners:
                            yield slab.cache, slab.object(index)
