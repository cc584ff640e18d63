"""Differences of guest memory, byte by byte and by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import Kernel
from sandbox.view.difference import differing, places, rows, summary


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_rows_rebuild_what_was_wanted(found: bytes, wanted: bytes) -> None:
    """Each row of bytes, with the wanted ones put in, is the row that was wanted."""
    if found == wanted:
        assert differing(found, wanted) == [] and list(rows(found, wanted)) == []
        return
    lines = list(rows(found, wanted))
    length = max(len(found), len(wanted))
    rebuilt: dict[int, int] = dict(enumerate(found))
    for there, other in zip(lines[::2], lines[1::2], strict=True):
        row = int(there.split()[0], 16)
        cells = other.removeprefix("  wanted ").split()
        assert len(there) <= 80 and len(cells) == min(16, length - row)
        for at, cell in enumerate(cells, row):
            if cell == "--":
                del rebuilt[at]
            elif cell != "..":
                rebuilt[at] = int(cell, 16)
    assert bytes(rebuilt[at] for at in sorted(rebuilt)) == wanted
    offsets = differing(found, wanted)
    assert f"{len(offsets):,} of {length:,} bytes differ, the first at +0x{offsets[0]:02x}" in summary(found, wanted)


def test_each_field_is_told_once_with_both_values(kernel: Kernel) -> None:
    cache = kernel.heap.cache("kmalloc-64").address
    found = kernel.memory.read(cache, 64)
    wanted = bytearray(found)
    wanted[0x10:0x14] = (96).to_bytes(4, "little")
    wanted[0x11] ^= 1
    assert list(places(kernel, cache, found, bytes(wanted))) == [
        "  +0x10  kmem_cache(kmalloc-64).object_size is 64 (0x40), wanted 352 (0x160)"]


@pytest.mark.parametrize(("offset", "name"), [(0, "object 0 of kmalloc-64"), (70, "object 1 of kmalloc-64 +0x6")])
def test_each_object_is_told_once(kernel: Kernel, offset: int, name: str) -> None:
    pointer = kernel.call("kzalloc", 64)
    kernel.call("kmalloc", 64)
    found, wanted = bytes(256), bytearray(256)
    wanted[offset : offset + 4] = b"\\1\\2\\3\\4"[:4]
    (line,) = places(kernel, pointer, found, bytes(wanted))
    assert line.startswith(f"  +0x{offset:02x}  {name}")
