"""The tests are tested: one instruction of the allocator is made wrong, and the fast subset must notice."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sandbox.errors import EngineError
from sandbox.isolated import Bounds, Child
from sandbox.toolchain import packaged

from .known import EQUIVALENT, SURVIVORS
from .mutants import FILES, OPERATORS, Mutant, chosen, every

SEED, COUNT, FIRST = 1, 240, 25
"""The seed, how many mutants a soak tries, and how many of them the suite."""
SECONDS = 120.0
LEAST_CAUGHT = 0.95


def selected() -> list[Mutant]:
    """The mutants of the soak, in an order of their own, without those that are none."""
    return [mutant for mutant in chosen(packaged.kernel_image(), SEED, COUNT) if mutant.name not in EQUIVALENT]


def unnoticed(mutants: Iterable[Mutant]) -> list[str]:
    """The names, with their lines, of those that the fast subset does not notice. An engine that dies or a child that
    hangs is noticed; the next mutant gets another child."""
    found = []
    with Child("tests.mutation.worker", Bounds(seconds=SECONDS)) as child:
        for mutant in mutants:
            try:
                (answer,) = child.ask(name=mutant.name)
            except EngineError:
                continue
            if not answer["noticed"]:
                found.append(f"{mutant.name} ({mutant.line})")
    return found


def test_the_kernel_as_it_is_passes_the_fast_subset() -> None:
    with Child("tests.mutation.worker", Bounds(seconds=SECONDS)) as child:
        assert [answer["noticed"] for answer in child.ask(name="")] == [""]


def test_the_first_mutants_are_noticed() -> None:
    mutants = [mutant for mutant in selected() if mutant.name not in SURVIVORS][:FIRST]
    assert len(mutants) == FIRST
    assert unnoticed(mutants) == []


@pytest.mark.soak
def test_at_least_95_percent_of_two_hundred_mutants_are_noticed_and_the_others_are_listed() -> None:
    mutants = selected()
    assert len(mutants) >= 200
    escaped = unnoticed(mutants)
    assert {name.rpartition(" (")[0] for name in escaped} <= SURVIVORS.keys(), escaped
    assert len(escaped) <= (1 - LEAST_CAUGHT) * len(mutants)


def test_every_operator_and_every_file_of_the_allocator_has_mutants() -> None:
    mutants = chosen(packaged.kernel_image(), SEED, COUNT)
    assert len(mutants) == COUNT == len({mutant.name for mutant in mutants})
    assert {mutant.operator for mutant in mutants} == set(OPERATORS)
    assert {mutant.line.rsplit("/", 1)[-1].split(".")[0] for mutant in mutants} == set(FILES)


def test_a_mutant_changes_one_instruction_and_nothing_else() -> None:
    image = packaged.kernel_image()
    original = image.bytes()
    for mutant in chosen(image, SEED, 40):
        changed = mutant.apply(image).bytes()
        at = mutant.address - image.base
        assert len(changed) == len(original) and changed != original
        assert changed[:at] == original[:at] and changed[at + len(mutant.data) :] == original[at + len(mutant.data) :]


def test_what_is_listed_exists() -> None:
    names = {mutant.name for mutant in every(packaged.kernel_image())}
    assert sorted((EQUIVALENT.keys() | SURVIVORS.keys()) - names) == []
    assert not EQUIVALENT.keys() & SURVIVORS.keys()
