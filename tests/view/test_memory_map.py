"""``sandbox map``: physical and virtual memory with rights, held against the machine."""

from __future__ import annotations

import re
from itertools import pairwise

from sandbox.abi import KERNEL_PHYS, LOADER_PHYS
from sandbox.view.memory_map import memory_map, physical

LINE = re.compile(r"  ([0-9a-f]{16})-([0-9a-f]{16}) +\d+ \w+ (\S+) ([0-9a-f]+) (.*)")


def rows(text: str) -> list[tuple[int, int, str, int, str]]:
    found = [LINE.match(line) for line in text.split("behind it\n")[1].splitlines()]
    assert all(found)
    return [(int(match[1], 16), int(match[2], 16), match[3], int(match[4], 16), match[5]) for match in found]


def test_every_line_of_the_virtual_map_translates_as_it_says(kernel):
    paging = kernel.machine.paging
    for start, end, rights, target, _ in rows(memory_map(kernel.machine.memory, paging)):
        assert paging.translate(start) == target and paging.translate(end - 1) == target + end - start - 1
        assert ("faults" in paging.explain(start, "write")) == ("w" not in rights)
        assert ("faults" in paging.explain(start, "execute")) == ("x" not in rights)


def test_nothing_is_writable_and_executable(kernel):
    found = rows(memory_map(kernel.machine.memory, kernel.machine.paging))
    assert not [row for row in found if "w" in row[2] and "x" in row[2]]
    assert {row[4] for row in found} >= {"kernel", "stack", "direct map"}


def test_the_physical_map_is_without_gaps_and_names_the_hole_and_the_loader(kernel):
    memory = kernel.machine.memory
    end = KERNEL_PHYS + 0x20_0000
    text = list(physical(memory.regions, end))
    spans = [tuple(int(number, 16) for number in re.findall(r"0x([0-9a-f]+)", line)) for line in text]
    assert spans[0][0] == 0 and spans[-1][1] == len(memory)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert (LOADER_PHYS, end) in spans and any("hole" in line for line in text)
