"""A training's best validation loss is forecast from its beginning, and the interval is as wide as
past forecasts were wrong."""

import math
import random

import pytest

from meetara_build.toolbox.forecast import (
    SCALE,
    Curve,
    best_scale,
    curve_of,
    expect,
    forecast,
    still_falling,
)

STEPS, EVERY, WARMUP, PEAK = 60, 10, 6, 2e-3


def rate(step: int, steps: int = STEPS) -> float:
    """As the trainer has it: a warm-up, then half a cosine."""
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    return PEAK * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP))) / 2


def curve(
    floor: float = 5.0, height: float = 1.0, scale: float = SCALE, noise: float = 0.0, seed: int = 0
) -> Curve:
    """A training whose validation loss falls by the law."""
    draw, done, points = random.Random(seed), 0.0, []
    for step in range(STEPS):
        done += rate(step)
        loss = floor + height * math.exp(-done / scale)
        checked = loss * (1 + draw.gauss(0, noise)) if (step + 1) % EVERY == 0 else None
        points.append((step + 1, loss, checked, rate(step)))
    return Curve(points, STEPS, floor + height)


@pytest.mark.parametrize("scale", [SCALE / 2, SCALE, SCALE * 2])
def test_what_follows_the_law_is_foretold(scale: float) -> None:
    whole = curve(scale=scale)
    said = forecast(whole.first())
    assert whole.best is not None and said is not None
    assert said.loss == pytest.approx(whole.best, rel=0.02)
    assert said.low <= said.loss <= said.high


def test_the_schedule_counts_not_the_steps() -> None:
    """What is left of the cosine decides: a third of the steps is more than a third of the sum of
    the rates."""
    whole = curve(scale=0.03)
    linear = expect(whole.first()._replace(steps=20))
    assert linear is not None
    said = expect(whole.first())
    assert said is not None
    assert said.loss < linear.loss


def test_a_forecast_is_never_above_what_was_reached() -> None:
    rising = Curve([(1, 5.0, 5.0, 1e-3), (2, 5.0, 5.5, 1e-3)], 6, 5.2)
    said = forecast(rising)
    assert said is not None
    assert said.loss <= 5.0
    assert said.high <= 5.0


def test_without_any_validation_there_is_no_forecast() -> None:
    assert forecast(Curve([(1, 5.0, None, 1e-3)], 10)) is None


def test_before_the_first_validation_it_falls_as_the_training_loss_does() -> None:
    begun = curve(height=2.0).first(0.15)
    assert begun.best is None
    said = forecast(begun)
    assert said is not None and begun.before is not None
    assert 4.0 < said.low < said.loss < begun.before


def test_the_interval_holds_four_of_five() -> None:
    draw = random.Random(1)
    many = [
        curve(
            draw.uniform(4, 6),
            draw.uniform(0.2, 1.5),
            SCALE * 2 ** draw.uniform(-1, 1),
            0.003,
            seed,
        )
        for seed in range(80)
    ]
    past, new = many[:40], many[40:]
    said = [forecast(one.first(), past) for one in new]
    held = [f.low <= one.best <= f.high for f, one in zip(said, new, strict=True) if f and one.best]
    assert 0.65 <= sum(held) / len(held) <= 0.95


def test_past_trainings_teach_the_scale() -> None:
    slow = [curve(floor, scale=4 * SCALE) for floor in (4.0, 4.5, 5.0, 5.5, 6.0)]
    assert best_scale(slow) > SCALE
    assert best_scale(slow[:2]) == SCALE
    new = curve(5.2, scale=4 * SCALE)
    taught, untaught = forecast(new.first(), slow), forecast(new.first())
    assert taught is not None and untaught is not None and new.best is not None
    assert abs(taught.loss - new.best) < abs(untaught.loss - new.best)


def test_a_curve_is_read_from_training_json() -> None:
    whole = curve()
    report = {
        "curve": [list(point) for point in whole.points],
        "stopped_early": False,
        "validation_loss_before": 6.0,
    }
    assert curve_of(report) == whole
    stopped = {
        **report,
        "curve": report["curve"][:35],
        "stopped_early": True,
        "actions": [[35, "stop"]],
    }
    found = curve_of(stopped)
    assert found is not None and (found.steps, len(found.points)) == (STEPS, 35)


@pytest.mark.parametrize(
    "report",
    [
        None,
        {"curve": []},
        {"curve": [[1, 5.0, None, 1e-3]]},
        {"curve": [[1, 5.0, 5.0, 1e-3]], "actions": [[1, "roll_back"]]},
    ],
)
def test_a_training_that_teaches_nothing_is_left_out(report: dict | None) -> None:
    assert curve_of(report) is None


def test_what_the_second_half_gained_is_read_off_a_finished_training() -> None:
    even = [(step, 6.0 - step / 10, 6.0 - step / 10, 1e-3) for step in (1, 2, 3, 4)]
    assert still_falling(Curve(even, 4, 6.0)) == pytest.approx(0.2 / 5.6)
    slower = Curve([(1, 5.7, 5.7, 3e-3), (2, 5.6, 5.6, 1e-3)], 2, 6.0)
    assert still_falling(slower) == pytest.approx(0.2 / 5.6), (
        "half of the sum of the rates, not of the steps"
    )
    assert still_falling(Curve([*even, (5, 5.7, 5.7, 1e-3)], 5, 6.0)) == 0.0
    assert still_falling(Curve(even[:1], 1, 6.0)) == 0.0
