"""What a curve tells while a training runs: that it diverges, or that nothing is left to gain. Of
the points alone, nothing kept."""

from collections.abc import Sequence

from meetara_build.toolbox.forecast import NORMAL, Curve, expect
from meetara_build.training.settings import Point

RISEN = 1.12
"""Times its lowest, from which a smoothed training loss has risen: more than batches differ."""
SMOOTHING = 0.8
WARM = 6
"""Steps until the smoothed training loss says something."""
CHECKED_RISEN = 1.02
"""Times the best, from which a validation loss has risen while the rate is high."""
HIGH = 0.5
"""Of the highest rate: from it on the rate is high."""
HALVED = 0.6
"""A rate below so much of the one before it was lowered on purpose; no schedule falls so fast but
in its last steps."""
ENDING = 3
"""Those last steps."""
LEAST_GAIN = 0.002
"""Of the loss: less is not worth going on for."""


def diverges(curve: Curve) -> bool:
    """Whether the training loss has risen well above its minimum, or the validation loss has while
    the rate is high.

    Looks at the points since the rate was last lowered, so that it is lowered once for each rise.
    """
    points = _since_lowered(curve).points
    if len(points) <= WARM:
        return False
    smoothed, lowest = points[0][1], float("inf")
    for number, (_, loss, *_) in enumerate(points):
        smoothed = SMOOTHING * smoothed + (1 - SMOOTHING) * loss
        if number >= WARM:
            lowest = min(lowest, smoothed)
    checked = [loss for _, _, loss, _ in points if loss is not None]
    start = [] if curve.before is None else [curve.before]
    risen = points[-1][2] is not None and checked[-1] > CHECKED_RISEN * min([*checked, *start])
    return smoothed > RISEN * lowest or (risen and _rate_is_high(points))


def nothing_left(curve: Curve) -> bool:
    """Whether the best validation loss is hardly going to fall: the forecast's optimistic end is no
    better than it.

    Judged where validation was measured, at least twice; not while it still gains, and not while
    the rate is high: a loss that stands still then often falls once the rate comes down (arXiv
    2408.11029). Where the rate was lowered on purpose, a new curve began.
    """
    new = _since_lowered(curve)
    checked = [loss for _, _, loss, _ in new.points if loss is not None]
    if (
        len(checked) < 2
        or new.points[-1][2] is None
        or len(new.points) == new.steps
        or _rate_is_high(new.points)
    ):
        return False
    best, expected = curve.best, expect(new)
    assert best is not None and expected is not None
    if min(checked[:-1]) - checked[-1] > LEAST_GAIN * best:
        return False
    return best - (expected.loss - NORMAL * expected.spread) < LEAST_GAIN * best


def _rate_is_high(points: Sequence[Point]) -> bool:
    return points[-1][3] >= HIGH * max(rate for *_, rate in points)


def _since_lowered(curve: Curve) -> Curve:
    """The training as if it had begun when its rate was last lowered; the last steps of a schedule
    are no lowering."""
    rates = [rate for *_, rate in curve.points]
    lowered = [
        at
        for at in range(1, len(rates))
        if rates[at] < HALVED * rates[at - 1] and at < curve.steps - ENDING
    ]
    if not lowered:
        return curve
    at = lowered[-1]
    return Curve(curve.points[at:], curve.steps - at)
