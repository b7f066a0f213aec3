"""Whether the best settings are better by more than noise."""

import pytest

from meetara_build.tuning.verdict import Gain, Repeats, gain, proposals

SEEDS = [17, 18, 19]


def test_a_gain_that_stands_with_every_seed_is_beyond_noise() -> None:
    found = gain(Repeats(SEEDS, [5.00, 5.01, 4.99], [4.80, 4.81, 4.79]))
    assert found.share == pytest.approx(0.04)
    assert found.beyond_noise


def test_a_gain_smaller_than_the_spread_over_seeds_is_noise() -> None:
    assert not gain(Repeats(SEEDS, [5.00, 5.10, 4.90], [4.95, 5.05, 4.90])).beyond_noise


def test_luck_with_the_search_s_own_seed_counts_for_nothing() -> None:
    found = gain(Repeats(SEEDS, [5.0, 5.0, 5.0], [4.0, 5.0, 5.0]))
    assert found.share == 0.0
    assert not found.beyond_noise


def test_without_any_spread_every_gain_is_real_and_every_loss_too() -> None:
    assert gain(Repeats(SEEDS, [5.0, 5.0, 5.0], [4.9, 4.9, 4.9])) == Gain(pytest.approx(0.02), 1.0)
    assert not gain(Repeats(SEEDS, [5.0, 5.0, 5.0], [5.1, 5.1, 5.1])).beyond_noise


def test_what_is_decided_are_the_keys_that_differ_with_what_was_measured() -> None:
    now = {"lora.rank": 16, "training.learning_rate": 2e-3, "lora.dropout": 0.0}
    best = {"lora.rank": 8, "training.learning_rate": 4e-3, "lora.dropout": 0.0}
    repeats = Repeats(SEEDS, [5.00, 5.01, 4.99], [4.80, 4.81, 4.79])
    made = proposals(
        "nutrition", now, best, repeats, gain(repeats), ["study nutrition-1, trial 7 of 30"]
    )
    assert [(one.domain, one.key, one.value) for one in made] == [
        ("nutrition", "lora.rank", 8),
        ("nutrition", "training.learning_rate", 4e-3),
    ]
    assert {one.reason for one in made} == {
        "tuning: lora.rank 8, training.learning_rate 0.004 together give 4.00% less validation loss with seeds not "
        "searched with"
    }
    assert made[0].evidence == (
        "study nutrition-1, trial 7 of 30",
        "validation losses with seeds 17, 18, 19: 4.8000, 4.8100, 4.7900, against 5.0000, 5.0100, 4.9900",
    )
    assert made[0].expected_gain == 0.04
    assert made[0].confidence > 0.95
