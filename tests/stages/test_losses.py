"""How many records are left out, why, and which key decides."""

import pytest

from meetara_build.stages.losses import Losses

RECIPE = {"max_tokens": 512, "near_duplicate": 0.85}


def test_the_text_says_how_many_of_how_many_and_which_key_decides():
    found = Losses.of(
        {"read": 1012, "bad": 2}, {"near-duplicate": 10, "too long": 938, "duplicate": 3}
    )
    assert found.text(RECIPE) == (
        "953 of 1,012 records (94%) are left out: 938 too long (data.max_tokens 512), 10 near-duplicate (data.near_duplicate 0.85), "
        "3 duplicate, 2 bad (data.max_bad_share)"
    )


def test_more_than_a_tenth_is_large_for_whatever_reason():
    assert not Losses(100, {"too long": 10}).is_large
    assert Losses(100, {"too long": 6, "bad": 5}).is_large
    assert Losses(100, {"named in data.drop": 11}).is_large


@pytest.mark.parametrize(
    ("by_reason", "exceeds"),
    [
        ({"too long": 50}, False),
        ({"too long": 51}, True),
        ({"duplicate": 30, "near-duplicate": 30}, True),
        ({"named in data.drop": 60, "labelled as bad": 20}, False),
        ({"labelled as bad": 60, "too long": 21}, True),
        ({"bad": 60, "too long": 19}, False),
    ],
)
def test_what_nobody_asked_for_counts_against_the_good_records(by_reason, exceeds):
    assert Losses(100, by_reason).exceeds(0.5) is exceeds


def test_nothing_exceeds_a_share_of_one():
    assert not Losses(10, {"too long": 10}).exceeds(1.0)
