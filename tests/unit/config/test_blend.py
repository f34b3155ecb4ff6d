"""The strict parsers of --data-path and --split."""

from __future__ import annotations

import pytest

from contextlm.config.blend import parse_blend, parse_split
from contextlm.errors import UserError


def test_good_blends() -> None:
    assert parse_blend(["data/a"]) == [(1.0, "data/a")]
    assert parse_blend(["0.7", "a", "0.3", "b"]) == [(pytest.approx(0.7), "a"), (pytest.approx(0.3), "b")]
    assert parse_blend(["3", "a", "1e0", "b"]) == [(0.75, "a"), (0.25, "b")]
    assert parse_blend(["5", "a"]) == [(1.0, "a")]
    assert parse_blend(["a", "b", "c"]) == [(None, "a"), (None, "b"), (None, "c")]
    assert parse_blend(["1", "./0.7"]) == [(1.0, "./0.7")]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "--data-path is missing"),
        (["0.7", "A", "B", "C"], "B stands where a weight is expected"),
        (["A", "0.7"], "A stands where a weight is expected"),
        (["0.7", "A", "0.3"], "the last weight, 0.3, has no prefix"),
        (["0.7"], "the last weight, 0.7, has no prefix"),
        (["0.7", "0.3", "A", "B"], "0.3 stands where a prefix is expected.*./0.3"),
        (["0", "A", "1", "B"], "weight 0 is not a positive number"),
        (["-1", "A", "2", "B"], "weight -1 is not a positive number"),
        (["nan", "A"], "weight nan is not"),
        (["inf", "A", "1", "B"], "weight inf is not"),
        (["1e308", "A", "1e308", "B"], "add up to infinity"),
        (["1e-320", "A", "1e300", "B"], "vanishes"),
        (["1", "A", "2", "A"], "A is given more than once"),
        (["A", "A"], "A is given more than once"),
    ],
)
def test_bad_blends_name_the_word(tokens: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_blend(tokens)
    assert all(problem.startswith("--data-path") for problem in error.value.problems)


def test_all_bad_words_of_a_blend_are_named() -> None:
    with pytest.raises(UserError) as error:
        parse_blend(["-1", "A", "B", "3"])
    assert len(error.value.problems) == 3


def test_good_splits() -> None:
    assert parse_split("969,30,1") == pytest.approx((0.969, 0.03, 0.001))
    assert parse_split("1,0,0") == (1.0, 0.0, 0.0)
    assert parse_split(" 98, 2, 0.0") == pytest.approx((0.98, 0.02, 0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100", "1 number;"),
        ("90,10", "2 numbers"),
        ("1,1,1,1", "4 numbers"),
        ("", "'' is not a non-negative number"),
        ("-1,1,0", "'-1' is not a non-negative number"),
        ("nan,1,0", "'nan'"),
        ("inf,1,0", "'inf'"),
        ("a,1,0", "'a'"),
        ("1,,0", "''"),
        ("0,0,0", "the sum is 0"),
        ("1e308,1e308,0", "the sum is inf"),
    ],
)
def test_bad_splits_name_flag_value_and_remedy(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        parse_split(text)
    assert f"--split {text}" in str(error.value) and "969,30,1" in str(error.value)
