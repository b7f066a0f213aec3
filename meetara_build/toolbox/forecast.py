"""The best validation loss that a training will reach, forecast while it runs, and how sure that
is.

A validation loss falls about as ``floor + height * (exp(-S / scale) + noise * rate)``. S is the sum
of the learning rates of all steps so far: a schedule that slows down slows the fall down. The first
part is "exponential plus offset", one of the curves of Domhan et al. (IJCAI 2015); see the survey
of Viering & Loog, arXiv 2103.10948. The second is what a high rate adds, and takes back as it comes
down (arXiv 2408.11029). Two or three points do not tell scale and noise. So all are weighed, by how
well they fit and by a log-normal prior around the scale that foretold past trainings best.

The interval is conformal (Lei et al., arXiv 1604.04173): as wide as the same forecast was wrong on
past trainings.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from meetara_build.training.settings import Point

SCALE = 0.03
"""Sum of learning rates in which the fall slows to a third, where no past training tells: measured
on the base ``tiny``."""
TRIED = tuple(SCALE * 2.0**power for power in range(-4, 5))
PRIOR_SPREAD = 1.2
"""Of the natural logarithm of the scale."""
RATE_NOISE = (0.0, 0.1, 0.2)
"""What the highest rate adds, as a share of the height."""
NOISE, MISFIT = 0.0015, 0.02
"""What a curve need not follow: of a validation loss, and of how far it has fallen."""
SHARE = 0.8
"""Of actual results that the interval is to hold."""
NORMAL = 1.28
"""Standard deviations of a normal distribution that hold so many."""
ENOUGH = 9
"""Past trainings without which no interval of so many can be read off them."""
FEWEST_FOR_SCALE = 5
THIRD = 1 / 3


class Curve(NamedTuple):
    """A training as far as it went: its points, how many steps were planned, and its validation
    loss before the first one."""

    points: Sequence[Point]
    steps: int
    before: float | None = None

    @property
    def best(self) -> float | None:
        """The lowest validation loss so far."""
        return min(
            (checked for _, _, checked, _ in self.points if checked is not None), default=None
        )

    def first(self, share: float = THIRD) -> "Curve":
        """The same training at an earlier time."""
        return self._replace(points=self.points[: max(1, round(self.steps * share))])


def curve_of(report: Mapping[str, Any] | None) -> Curve | None:
    """The curve in a ``training.json``; None if there is none, or an observer changed the rate, so
    that its plan is not known."""
    if not report or any(action != "stop" for _, action in report.get("actions", ())):
        return None
    points = [tuple(point) for point in report["curve"]]
    if not points or all(point[2] is None for point in points):
        return None
    steps = (
        _count_planned([point[3] for point in points])
        if report.get("stopped_early")
        else len(points)
    )
    return Curve(points, steps, report.get("validation_loss_before"))


class Forecast(NamedTuple):
    """The best validation loss by the end, and the interval that holds it in four of five
    trainings."""

    loss: float
    low: float
    high: float


class Expected(NamedTuple):
    """The best loss by the end as the fitted curves have it, and their spread."""

    loss: float
    spread: float


def forecast(curve: Curve, past: Sequence[Curve] = ()) -> Forecast | None:
    """What this training will reach; ``past`` are finished ones, which calibrate it. None where
    nothing was validated yet."""
    ended = [one for one in past if one.best is not None]
    scale = best_scale(ended)
    expected = expect(curve, scale)
    if expected is None:
        return None
    wrong = sorted(error for one in ended if (error := _error(one, scale)) is not None)
    place = math.ceil(SHARE * (len(wrong) + 1)) - 1
    width = (wrong[place] if len(wrong) >= ENOUGH else NORMAL) * _unit(expected)
    high = expected.loss + width
    return Forecast(
        expected.loss, expected.loss - width, high if curve.best is None else min(high, curve.best)
    )


def expect(curve: Curve, scale: float = SCALE) -> Expected | None:
    """The forecast of the fitted curves alone."""
    done, whole = _rate_sums(curve)
    highest = max((rate for *_, rate in curve.points), default=1.0)
    checked = [
        (at, rate / highest, loss)
        for at, (_, _, loss, rate) in zip(done, curve.points, strict=True)
        if loss is not None
    ]
    start = [] if curve.before is None else [(0.0, 0.0, curve.before)]
    if len(start) + len(checked) >= 2:
        found = _fit([*start, *checked], whole, scale, NOISE)
    elif start and len(curve.points) >= 3:
        found = _as_training_falls(curve, done, whole, scale)
    elif checked or start:
        level = (checked or start)[0][2]
        found = Expected(level, 0.02 * level)
    else:
        return None
    return found if curve.best is None else found._replace(loss=min(found.loss, curve.best))


def still_falling(curve: Curve) -> float:
    """The share by which the second half of a finished training lowered its validation loss; 0
    where it did not end at its best.

    Halves are of the sum of the learning rates; between two validations the loss is taken in
    proportion.
    """
    sums, _ = _rate_sums(curve)
    known = [(0.0, curve.before)] if curve.before is not None else []
    known += [
        (total, point[2])
        for total, point in zip(sums, curve.points, strict=True)
        if point[2] is not None
    ]
    if len(known) < 3:
        return 0.0
    (*_, (whole, last)), best = known, min(loss for _, loss in known)
    (low, above), (high, below) = next(pair for pair in pairwise(known) if pair[1][0] >= whole / 2)
    middle = above + (below - above) * (whole / 2 - low) / (high - low)
    return max(0.0, (middle - last) / last) if last <= best * (1 + NOISE) else 0.0


def best_scale(past: Sequence[Curve]) -> float:
    """The scale with which past trainings would have been foretold best; the usual one where they
    are few."""
    if len(past) < FEWEST_FOR_SCALE:
        return SCALE
    return min(
        TRIED, key=lambda scale: (sum(abs(_error_in_loss(one, scale)) for one in past), scale)
    )


def _error_in_loss(curve: Curve, scale: float) -> float:
    expected, actual = expect(curve.first(), scale), curve.best
    return 0.0 if expected is None or actual is None else (actual - expected.loss) / actual


def _error(curve: Curve, scale: float) -> float | None:
    """Of the forecast at a third of a finished training, in units of what it gave as its spread."""
    expected, actual = expect(curve.first(), scale), curve.best
    return (
        None
        if expected is None or actual is None
        else abs(actual - expected.loss) / _unit(expected)
    )


def _unit(expected: Expected) -> float:
    return expected.spread + NOISE * expected.loss


def _rate_sums(curve: Curve) -> tuple[list[float], float]:
    """The sum of learning rates up to each point, and that of the whole training if a cosine goes
    on as it began."""
    rates = [rate for *_, rate in curve.points]
    sums, total = [], 0.0
    for rate in rates:
        total += rate
        sums.append(total)
    if not rates:
        return sums, total
    last, top = len(rates) - 1, _top(rates)
    length = max(1, curve.steps - top)
    shape = [
        (1 + math.cos(math.pi * (index - top) / length)) / 2 for index in range(last, curve.steps)
    ]
    return sums, total + sum(rates[last] * part / shape[0] for part in shape[1:])


def _top(rates: Sequence[float]) -> int:
    """Where the cosine begins: the last step of the highest rate."""
    highest = max(rates)
    return max(index for index, rate in enumerate(rates) if rate == highest)


def _count_planned(rates: Sequence[float]) -> int:
    """How many steps a training that was stopped would have had, by how far its cosine had come
    down."""
    top, last = _top(rates), len(rates) - 1
    share = rates[last] / rates[top]
    return (
        len(rates)
        if last <= top or share >= 1
        else max(len(rates), round(top + (last - top) * math.pi / math.acos(2 * share - 1)))
    )


def _fit(
    points: Sequence[tuple[float, float, float]], whole: float, scale: float, noise: float
) -> Expected:
    """Least squares for each scale and rate noise on a grid, weighed by their likelihood and the
    prior.

    Points are sum of rates, share of the highest rate, and loss.
    """
    import numpy as np

    at, rate, loss = np.array(points, dtype=float).T
    scales, noises = (
        values.ravel()
        for values in np.meshgrid(scale * np.geomspace(1 / 64, 64, 43), RATE_NOISE, indexing="ij")
    )
    shape = np.exp(-at / scales[:, None]) + noises[:, None] * rate
    middle = shape.mean(axis=1, keepdims=True)
    square = ((shape - middle) ** 2).sum(axis=1).clip(min=1e-12)
    height = (((shape - middle) * (loss - loss.mean())).sum(axis=1) / square).clip(min=0.0)
    floor = loss.mean() - height * middle[:, 0]
    misfit = ((floor[:, None] + height[:, None] * shape - loss) ** 2).sum(axis=1)
    free = math.hypot(noise * loss.mean(), MISFIT * (loss.max() - loss.min()))
    evidence = -misfit / (2 * free**2) - (np.log(scales / scale) / PRIOR_SPREAD) ** 2 / 2
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    ends: Any = loss[-1] + height * (np.exp(-whole / scales) - shape[:, -1])
    mean = float((weight * ends).sum())
    return Expected(mean, math.sqrt(float((weight * (ends - mean) ** 2).sum())))


def _as_training_falls(curve: Curve, done: Sequence[float], whole: float, scale: float) -> Expected:
    """Nothing validated yet but at the start: the validation loss is taken to fall as the training
    loss does."""
    import numpy as np

    losses = np.array([loss for _, loss, *_ in curve.points])
    noise = max(NOISE, float(np.diff(losses).std() / math.sqrt(2) / losses.mean()))
    highest = max(rate for *_, rate in curve.points)
    rates = [rate / highest for *_, rate in curve.points]
    found = _fit(list(zip(done, rates, losses, strict=True)), whole, scale, noise)
    begin = float(losses[: max(1, len(losses) // 5)].mean())
    assert curve.before is not None
    return Expected(
        curve.before * min(found.loss / begin, 1.0), curve.before * (found.spread / begin + noise)
    )
