"""Arithmetic on numbers and labels; Python is the oracle where it reads an operator as we do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.toolchain.expression import ExpressionError, Linear, evaluate

NAMES = {"K": Linear(8), "label": Linear(0, (("label", 1),)), "other": Linear(0, (("other", 1),))}


def value(text: str, conditional: bool = False) -> Linear:
    return evaluate(text, NAMES.__getitem__, conditional=conditional)


@pytest.mark.parametrize(("text", "number"), [
    ("-K", -8), ("~0x3f", -64), ("(1 << 12) - 1", 4095), ("0b101 | 2", 7), ("'A'", 65), (r"'\n'", 10), ("7 / 2", 3),
    ("-7 / 2", -3), ("-7 % 2", -1), ("K*2 + 1", 17), ("0xffffffffffffffff", (1 << 64) - 1), ("- -1", 1), ("10-3-2", 5),
])
def test_numbers(text: str, number: int) -> None:
    assert value(text) == Linear(number)


def test_labels_add_up() -> None:
    assert value("label + K") == Linear(8, (("label", 1),))
    assert value("label - other") == Linear(0, (("label", 1), ("other", -1)))
    assert value("label - label + 3") == Linear(3)
    assert value("label - (other - 4)").resolve({"label": 100, "other": 30}.__getitem__) == 74


@pytest.mark.parametrize("text", ["1 << 3 + 1", "1 | 2 + 4", "1 + 2 | 4", "1 << 2 * 3", "1 | 2 & 4 ^ 1"])
def test_where_gnu_as_and_c_rank_operators_differently_parentheses_are_demanded(text: str) -> None:
    with pytest.raises(ExpressionError, match="write parentheses"):
        value(text)


@pytest.mark.parametrize("text", [
    "", "1 +", "(1", "1)", "1 2", "010", "0x", "5h", "1b", "$", "$ - label", "1 / 0", "1 % 0", "1 << 64", "1 << -1",
    "-1 >> 1", "label * 2", "~label", "1 << 63 << 1", "0xffffffffffffffff + 1", "99999999999999999999", "1 == 1",
    "'ab'", r"'\q'", "+" * 100 + "1", "(" * 100 + "1" + ")" * 100, "1+" * 500 + "1",
])
def test_what_has_no_clear_value_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        value(text)


def test_comparisons_stand_in_conditions() -> None:
    assert value("K == 8 && !0", conditional=True).value != 0
    assert value("K > 8 || 0", conditional=True).value == 0


TREES = st.recursive(
    st.integers(0, 50).map(str),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*", "&", "|", "^"]), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"), max_leaves=7)


@given(TREES)
@settings(max_examples=100, deadline=None)
def test_with_parentheses_written_python_agrees(text: str) -> None:
    assert value(text) == Linear(eval(text))
