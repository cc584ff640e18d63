"""What can be chosen when a kernel boots, and what cannot."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..abi import EMPTY_SLAB_LIMIT, MAXIMUM_RAM, MINIMUM_RAM, PAGE_SIZE, boot_info
from ..errors import UsageError

HZ_MINIMUM = 19                          # the 8254 divides its clock by 65536 at most
HZ_MAXIMUM = 10_000
"""A tick takes the kernel some 140 instructions, from the interrupt to the one that was interrupted; at this rate one
comes every 1900 (119 clocks of the 8254, 16 instructions each), which leaves handlers of programs room. The chip could
tick every 32 instructions: then one comes before the last is over, and nothing else ever runs."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([0-9]+)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
_DEBUG_LETTERS = "FZPUTAO-"
_DEBUG_NAME = re.compile(r"[!-)+-~]*\*?")


@dataclass(frozen=True)
class BootOptions:
    """How to boot; every field is checked, and :class:`~sandbox.errors.UsageError` says what is wrong.

    ``ram``: bytes, or a text like ``"16M"``; 4 MiB to 2 GiB in whole pages. ``magazines``: whether caches have
    per-CPU magazines. ``hz``: timer ticks a second, 0 for none. ``empty_slab_limit``: empty slabs that each cache
    keeps. ``seed``: for everything the kernel chooses at random. ``slab_debug``: Linux's boot parameter of that
    name. ``freelist_hardened``, ``freelist_random``: Linux's CONFIG_SLAB_FREELIST_HARDENED and _RANDOM; for the
    latter also a number, a seed for the order alone.
    """

    ram: int | str = "16M"
    magazines: bool = True
    hz: int = 100
    empty_slab_limit: int = EMPTY_SLAB_LIMIT
    seed: int = 0
    slab_debug: str = ""
    freelist_hardened: bool = False
    freelist_random: bool | int = False

    def __post_init__(self) -> None:
        check_ram(self.ram_size)
        for name in ("magazines", "freelist_hardened"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} is True or False, not {getattr(self, name)!r}")
        _check_int("empty_slab_limit", self.empty_slab_limit, 0, (1 << 32) - 1)
        _check_int("seed", self.seed, 0, (1 << 64) - 1)
        if not isinstance(self.freelist_random, bool):
            _check_int("freelist_random", self.freelist_random, 0, (1 << 64) - 1, ", a seed, or True or False")
        if self.hz != 0:
            _check_int("hz", self.hz, HZ_MINIMUM, HZ_MAXIMUM, " or 0 for no ticks",
                       " (beyond, a tick would come before the last one's handler is done)")
        _check_slab_debug(self.slab_debug)

    @property
    def freelist_seed(self) -> int:
        """What the order of new free lists is chosen from."""
        return self.seed if isinstance(self.freelist_random, bool) else self.freelist_random

    @property
    def ram_size(self) -> int:
        """``ram`` in bytes."""
        return parse_size(self.ram)


def parse_size(size: int | str) -> int:
    """Bytes from a number, or from a text like ``"512K"``, ``"16M"``, ``"1G"``, ``"64 MiB"``."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if found is None or len(found.group(1)) > 18:
        raise UsageError(f"{size!r} is not a size: write a number of bytes, or one with K, M or G behind it")
    return int(found.group(1)) * _UNITS[found.group(2).upper()]


def format_size(size: int) -> str:
    """The shortest text that :func:`parse_size` reads as ``size``: ``"16M"``, ``"4100K"``."""
    unit = next((unit for unit in ("G", "M", "K") if size and size % _UNITS[unit] == 0), "")
    return f"{size // _UNITS[unit]}{unit}"


def check_ram(size: int) -> None:
    """Refuse an amount of RAM that no machine of ours can have."""
    if size < MINIMUM_RAM:
        raise UsageError(f"{format_size(size)} of RAM is too small: the minimum is {format_size(MINIMUM_RAM)}")
    if size > MAXIMUM_RAM:
        raise UsageError(f"{format_size(size)} of RAM is too much: the maximum is {format_size(MAXIMUM_RAM)}")
    if size % PAGE_SIZE:
        raise UsageError(f"{size} bytes of RAM: it must be a multiple of {PAGE_SIZE}")


def _check_int(name: str, value: object, low: int, high: int, more: str = "", why: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UsageError(f"{name} is a number from {low} to {high}{more}, not {value!r}"
                         f"{why if isinstance(value, int) and value > high else ''}")


def _check_slab_debug(text: str) -> None:
    """Linux's syntax (Documentation/admin-guide/mm/slab.rst): blocks of ``letters[,cache,...]`` between ``;``.

    Letters may be small; no letters before a comma mean FZPU; a cache's name may end in ``*``. Linux skips a letter
    that it does not know, and takes everything behind a ``*`` for granted; here both are errors.
    """
    if not isinstance(text, str):
        raise UsageError(f"slab_debug is a text, not {text!r}")
    limit = boot_info.slab_debug.size - 1
    if len(text) > limit:
        raise UsageError(f"slab_debug has {len(text)} characters: at most {limit} fit")
    for block in text.split(";"):
        letters, *names = block.split(",")
        for letter in letters:
            if letter.upper() not in _DEBUG_LETTERS:
                raise UsageError(f"slab_debug: {letter!r} is no letter of it: they are F Z P U T A O and -")
        for name in names:
            if not name:
                raise UsageError(f"slab_debug: a cache's name is missing in {block!r}")
            if not _DEBUG_NAME.fullmatch(name):
                raise UsageError(f"slab_debug: {name!r} is no name of a cache, nor the beginning of one and a *")
