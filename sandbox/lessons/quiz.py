"""The quiz: every question about some lessons, and the points for replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..errors import UsageError
from ..guest.faults import dice
from . import ask_attacks, ask_objects, ask_pages, ask_slabs
from .catalogue import Lesson
from .guests import Guests
from .question import Dice, Question

ASKED: tuple[tuple[str, Callable[[Dice, Guests], Question]], ...] = (
    ("01", ask_objects.unused_bytes),
    ("01", ask_objects.next_address),
    ("02", ask_objects.freed_in_order),
    ("03", ask_objects.which_cache),
    ("04", ask_slabs.slabs_needed),
    ("04", ask_slabs.which_slab_dies),
    ("05", ask_slabs.link_of_a_free_object),
    ("06", ask_pages.buddy_of_a_block),
    ("06", ask_pages.blocks_after_a_split),
    ("07", ask_slabs.slow_paths),
    ("07", ask_slabs.objects_in_magazines),
    ("08", ask_slabs.colour_of_a_slab),
    ("09", ask_slabs.constructor_calls),
    ("10", ask_slabs.slabs_that_survive),
    ("11", ask_pages.entry_of_a_table),
    ("12", ask_pages.error_code),
    ("13", ask_attacks.tick_inside_of_kmalloc),
    ("14", ask_objects.bytes_in_the_neighbour),
    ("15", ask_objects.who_gets_freed_memory),
    ("16", ask_objects.owners_of_one_object),
    ("17", ask_attacks.what_becomes_of_the_attack),
    ("18", ask_attacks.offset_of_a_chunk),
    ("18", ask_attacks.refused_frees),
)
"""Which lesson is asked about by what, in order. Each lets a guest answer, as it is right after boot."""
LAST_SEED = (1 << 64) - 1


def questions(about: Lesson | None = None, seed: int = 1) -> Iterator[Question]:
    """Every question about one lesson, or about all of them, each computed when it is its turn.

    The same ``seed`` gives the same questions. :class:`UsageError` for one that is no number of 64 bits, and for a
    lesson that nothing is asked about.
    """
    if type(seed) is not int or not 0 <= seed <= LAST_SEED:
        raise UsageError(f"a seed is a number from 0 to {LAST_SEED}, not {seed!r}")
    chosen = [place for place, (number, _) in enumerate(ASKED) if about is None or number == about.number]
    if about is not None and not chosen:
        raise UsageError(f"nothing is asked about lesson {about.number}: try it, with  {about.command}")
    return _ask(chosen, seed)


def _ask(chosen: list[int], seed: int) -> Iterator[Question]:
    with Guests() as guests:
        for place in chosen:
            number, ask = ASKED[place]
            yield replace(ask(Dice(int(dice(seed, place) * LAST_SEED)), guests), lesson=number)


@dataclass
class Tally:
    """Points so far: one for each question that was answered right."""

    right: int = 0
    asked: int = 0

    def count(self, right: bool) -> None:
        """One more question that had a reply, or was passed over."""
        self.asked += 1
        self.right += right

    def __str__(self) -> str:
        return f"{self.right} of {self.asked} point{'' if self.asked == 1 else 's'}"
