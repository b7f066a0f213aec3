"""A build is held to the one that was accepted: by the same records, and beyond what chance
explains."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.stages.package.regression import measure_regression
from meetara_build.stages.recipes.accepted import Accepted

LOSSES = {f"r{number}": (2.0 + number / 10, 50 + number) for number in range(12)}


def accepted(records: dict[str, tuple[float, int]] | None = None) -> Accepted:
    return Accepted(base="mini", records=records or LOSSES)


def evaluated(changed: Any) -> dict[str, Any]:
    """An evaluation whose losses are the accepted ones, changed."""
    return {
        "by_record": {
            name: [changed(number, loss), tokens]
            for number, (name, (loss, tokens)) in enumerate(LOSSES.items())
        }
    }


def test_the_same_build_is_no_worse() -> None:
    assert measure_regression(accepted(), evaluated(lambda _, loss: loss)) == (0.0, 0.0, 0.0)


def test_a_loss_that_is_higher_on_every_record_is_surely_higher() -> None:
    found = measure_regression(accepted(), evaluated(lambda _, loss: 1.02 * loss))
    assert found == pytest.approx((0.02, 0.02, 0.02))


def test_losses_that_rise_and_fall_alike_may_be_chance() -> None:
    found = measure_regression(
        accepted(), evaluated(lambda number, loss: loss * (1.1 if number % 2 else 0.92))
    )
    assert found is not None
    middle, low, high = found
    assert low < 0.0 < middle < high


def test_long_answers_weigh_as_much_as_they_have_tokens() -> None:
    records = {"long": (2.0, 900)} | {f"r{at}": (2.0, 25) for at in range(4)}
    worse = {name: [2.2 if name == "long" else 2.0, n] for name, (_, n) in records.items()}
    found = measure_regression(accepted(records), {"by_record": worse})
    assert found is not None
    assert found[0] == pytest.approx(0.2 * 900 / 1000 / 2.0)


@pytest.mark.parametrize(
    "records",
    [
        {name: LOSSES[name] for name in list(LOSSES)[:4]},  # too few
        {f"other{name}": one for name, one in LOSSES.items()},  # others
        {name: (loss, tokens + 1) for name, (loss, tokens) in LOSSES.items()},  # edited
    ],
    ids=["few", "others", "edited"],
)
def test_builds_with_few_records_in_common_are_not_compared(
    records: dict[str, tuple[float, int]],
) -> None:
    assert measure_regression(accepted(records), evaluated(lambda _, loss: 9 * loss)) is None


@given(st.integers(0, 2**32 - 1))
def test_the_interval_holds_the_difference_and_is_the_same_each_time(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.1, len(LOSSES))
    figures = evaluated(lambda number, loss: loss + noise[number])
    found = measure_regression(accepted(), figures)
    assert found is not None
    assert found[1] <= found[0] <= found[2]
    assert measure_regression(accepted(), figures) == found
