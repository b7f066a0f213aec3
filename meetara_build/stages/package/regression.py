"""Whether a build is worse than the one that a person accepted, beyond what chance explains."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from meetara_build.stages.recipes.accepted import Accepted

FEWEST = 5
"""Records that both were measured on, below which chance explains anything."""
DRAWS = 2000
"""Of the records with replacement: the interval is a percentile bootstrap (Efron 1979)."""


def measure_regression(
    accepted: Accepted, evaluation: Mapping[str, Any]
) -> tuple[float, float, float] | None:
    """By which share of the accepted build's loss this one's is higher, and the 95% interval of that
    over draws of records; the loss is pooled over the tokens of the records that both have.

    The same record is the same tokens in both, so what is drawn is pairs. None where there are too
    few.
    """
    pairs = [
        (loss * tokens, before * tokens)
        for name, (loss, tokens) in sorted(evaluation["by_record"].items())
        for before, counted in [accepted.records.get(name, (0.0, 0))]
        if counted == tokens
    ]
    if len(pairs) < FEWEST:
        return None
    nats = np.array(pairs, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(nats), (DRAWS, len(nats)))
    sums = nats[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1] - 1.0, [0.025, 0.975])
    now, before = nats.sum(axis=0)
    return float(now / before - 1.0), float(low), float(high)
