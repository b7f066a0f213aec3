"""What is seen in a curve while it grows: divergence, and the end of all gains."""

import math

import pytest

from meetara_build.toolbox.divergence import diverges, nothing_left
from meetara_build.toolbox.forecast import Curve


def curve(
    losses: list[float],
    checked: dict[int, float],
    rates: list[float] | None = None,
    steps: int = 60,
) -> Curve:
    """Points from training losses and validations by step; the validation loss before was 6."""
    several = rates or [1e-3] * len(losses)
    return Curve(
        [(at + 1, loss, checked.get(at + 1), several[at]) for at, loss in enumerate(losses)],
        steps,
        before=6.0,
    )


def test_a_training_loss_that_rises_for_good_diverges() -> None:
    falling = [6.0 - 0.05 * step for step in range(20)]
    assert not diverges(curve(falling, {}))
    assert diverges(curve([*falling, *[7.0] * 8], {}))


def test_one_hard_batch_is_no_divergence() -> None:
    falling = [6.0 - 0.05 * step for step in range(20)]
    assert not diverges(curve([*falling, 7.0], {}))


def test_a_validation_loss_that_rises_while_the_rate_is_high_diverges() -> None:
    level = [5.5] * 20
    assert diverges(curve(level, {10: 5.6, 20: 5.9}))
    falling_rate = [1e-3] * 10 + [1e-4] * 10
    assert not diverges(curve(level, {10: 5.6, 20: 5.9}, falling_rate))


def test_a_rate_is_lowered_once_for_each_rise() -> None:
    risen = [5.0] * 12 + [7.0] * 8
    assert diverges(curve(risen, {}))
    assert not diverges(curve([*risen, 7.0, 7.0], {}, [1e-3] * 20 + [5e-4] * 2))


def test_it_goes_on_while_there_is_something_to_gain() -> None:
    assert not nothing_left(curve([5.5] * 20, {10: 5.7, 20: 5.4}))


def test_it_ends_once_nothing_is_left() -> None:
    rates = [1e-3 * (1 - step / 40) for step in range(40)]
    checked = {step: 5 + math.exp(-sum(rates[:step]) / 0.003) for step in (10, 20, 30, 40)}
    assert not nothing_left(curve([5.0] * 10, checked, rates[:10], steps=42))
    assert nothing_left(curve([5.0] * 40, checked, rates, steps=42))


def test_it_ends_when_validation_only_rises_though_the_rate_came_down() -> None:
    rates = [1e-3 * (1 - step / 50) for step in range(30)]
    assert nothing_left(curve([5.0] * 30, {10: 5.2, 20: 5.3, 30: 5.4}, rates))
    assert not nothing_left(curve([5.0] * 30, {10: 5.2, 20: 5.3, 30: 5.4}))


@pytest.mark.parametrize("checked", [{}, {20: 5.2}])
def test_two_validations_are_waited_for(checked: dict[int, float]) -> None:
    assert not nothing_left(curve([5.0] * 20, checked, [1e-3] * 10 + [1e-6] * 10))


def test_only_a_validation_decides() -> None:
    rates = [1e-3 * (1 - step / 50) for step in range(31)]
    assert not nothing_left(curve([5.0] * 31, {10: 5.2, 20: 5.3, 30: 5.4}, rates))


def test_a_lowered_rate_begins_a_new_curve() -> None:
    rates = [1e-3] * 20 + [4e-4 * (1 - step / 50) for step in range(30)]
    assert not nothing_left(curve([5.0] * 30, {10: 5.2, 20: 5.9, 30: 5.5}, rates[:30]))
    assert not nothing_left(curve([5.0] * 40, {10: 5.2, 20: 5.9, 30: 5.5, 40: 5.25}, rates[:40]))
    assert nothing_left(curve([5.0] * 50, {10: 5.2, 20: 5.9, 30: 5.5, 40: 5.5, 50: 5.6}, rates))
