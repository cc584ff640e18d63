"""The quiz: its answers come from guests, and are those that one works out on paper."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from sandbox.errors import UsageError
from sandbox.lessons import Nonsense, Question, Tally, lesson, questions
from sandbox.lessons.question import Dice
from sandbox.lessons.quiz import ASKED

from .solve import ORACLES

SEEDS = (1, 2)


@cache
def asked(seed: int) -> tuple[Question, ...]:
    return tuple(questions(seed=seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("place", range(len(ASKED)), ids=lambda place: ASKED[place][1].__name__)
def test_an_answer_is_the_one_that_follows_from_the_question(place: int, seed: int) -> None:
    question = asked(seed)[place]
    assert ORACLES[place](question) == question.answer


@pytest.mark.parametrize("seed", SEEDS)
def test_choices_are_different_and_the_answer_is_one_of_them(seed: int) -> None:
    for question in asked(seed):
        if question.choices:
            assert 3 <= len(question.choices) == len(set(question.choices)) <= 4
            assert question.choices.count(str(question.answer)) == 1
        assert question.text.endswith("?") and question.why.endswith(".") and "\n" not in question.text + question.why


def test_there_is_a_question_for_each_lesson_up_to_the_seed() -> None:
    assert [number for number, _ in ASKED] == sorted(number for number, _ in ASKED)
    assert {int(number) for number, _ in ASKED} == set(range(1, 19)) and len(ORACLES) == len(ASKED)
    assert [question.lesson for question in asked(1)] == [number for number, _ in ASKED]


def test_the_same_seed_asks_the_same_and_another_one_other_things() -> None:
    again = tuple(questions(lesson("04"), seed=2))
    assert again == tuple(question for question in asked(2) if question.lesson == "04")
    assert sum(one == other for one, other in zip(asked(1), asked(2), strict=True)) < len(ASKED) // 2


def test_the_largest_seed_is_one_like_the_others() -> None:
    (question,) = questions(lesson("03"), seed=2**64 - 1)
    assert ORACLES[3](question) == question.answer


@pytest.mark.parametrize("seed", [-1, 2**64, True, "1", 1.0])
def test_a_seed_is_a_number_of_64_bits(seed: object) -> None:
    with pytest.raises(UsageError, match="a seed is a number from 0"):
        questions(seed=seed)  # type: ignore[arg-type]


def test_nothing_is_asked_about_a_lesson_to_be_tried() -> None:
    with pytest.raises(UsageError, match="nothing is asked about lesson 20"):
        questions(lesson("20"))


# -- replies ----------------------------------------------------------------------------------------------------
NUMBER = Question("how many?", 4576, "so many.")
ADDRESS = Question("where?", 0xFFFF_8880_0000_3040, "there.", address=True)
CHOICE = Question("which?", "blue", "it is.", ("red", "blue", "green"))


@pytest.mark.parametrize(("question", "replies"), [
    (NUMBER, ["4576", "4,576", "4_576", "0x11e0", "0X11E0", " 4576\n", "04576"]),
    (ADDRESS, ["0xffff888000003040", "ffff888000003040", "0xFFFF888000003040", "ffff_8880_0000_3040"]),
    (CHOICE, ["b", "B", "b)", " b.\n"])])
def test_the_right_answer_may_be_written_in_several_ways(question: Question, replies: list[str]) -> None:
    assert all(question.is_right(reply) for reply in replies)


@pytest.mark.parametrize(("question", "replies"), [
    (NUMBER, ["4575", "0", "0x4576", "99999999999999999999"]),
    (ADDRESS, ["0xffff888000003000", "3040", "0"]), (CHOICE, ["a", "c)"])])
def test_a_wrong_answer_is_wrong(question: Question, replies: list[str]) -> None:
    assert not any(question.is_right(reply) for reply in replies)


@pytest.mark.parametrize(("question", "replies"), [
    (NUMBER, ["", "x", "-1", "4.5", "45,76", "0x", "0x_", "1e3", "²", "9" * 5000, "4576 bytes"]),
    (ADDRESS, ["", "0x", "here", "0xg", "_", "f" * 17, "0x" + "0" * 5000]),
    (CHOICE, ["", "d", "blue", "1", "ab", ")", "ä"])])
def test_nonsense_is_told_in_one_short_sentence_and_is_no_answer(question: Question, replies: list[str]) -> None:
    for reply in replies:
        with pytest.raises(Nonsense, match=r"is not an? (number|address), like|is none of the letters") as told:
            question.is_right(reply)
        assert len(str(told.value)) < 80 and "\n" not in str(told.value)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_that_is_shown_is_right_when_it_is_typed(seed: int) -> None:
    for question in asked(seed):
        typed = question.shown_answer[0] if question.choices else question.shown_answer
        assert question.is_right(typed)
        if not question.choices:
            assert not question.is_right(hex(int(question.answer) + 1))


def test_points_are_counted() -> None:
    tally = Tally()
    assert str(tally) == "0 of 0 points"
    tally.count(True)
    assert str(tally) == "1 of 1 point"
    tally.count(False)
    assert (tally.right, tally.asked, str(tally)) == (1, 2, "1 of 2 points")


def test_dice_are_fair_reach_both_ends_and_draw_nothing_twice() -> None:
    dice = Dice(7)
    thrown = Counter(dice.between(1, 6) for _ in range(6000))
    assert set(thrown) == {1, 2, 3, 4, 5, 6} and min(thrown.values()) > 850
    for _ in range(50):
        assert sorted(dice.some_of("ABCD", 4)) == list("ABCD")
    places = Counter(dice.choices("yes", ["no", "never", "yes", "no", "not", "nowhere"]).index("yes")
                     for _ in range(400))
    assert set(places) == {0, 1, 2, 3} and min(places.values()) > 60
