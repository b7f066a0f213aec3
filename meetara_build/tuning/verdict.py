"""Whether the best settings found are better than the current ones by more than noise, and what is
then decided."""

from collections.abc import Sequence
from math import inf, sqrt
from statistics import fmean, variance
from typing import Any, NamedTuple

from meetara_build.agents.proposal import Proposal
from meetara_build.tuning.space import Settings

MORE_SEEDS = 2
"""With how many further seeds the best settings and the current ones are trained."""
SURE = 0.95
"""How sure a gain must be before anything is decided."""


class Repeats(NamedTuple):
    """Losses with the search's own seed and with further ones, in the same order: of the current
    settings, of the best."""

    seeds: list[int]
    current: list[float]
    winner: list[float]


class Gain(NamedTuple):
    """By which share of the loss the best settings are better, and how sure that is."""

    share: float
    sure: float

    @property
    def beyond_noise(self) -> bool:
        """Whether it is worth a decision."""
        return self.share > 0 and self.sure >= SURE


def gain(repeats: Repeats) -> Gain:
    """The gain over the further seeds alone: the best of many trials was also lucky with the
    search's own.

    How sure it is comes from Student's t, with the spread of both settings' losses over all seeds
    as the noise.
    """
    from scipy.stats import t

    current, winner = repeats.current[1:], repeats.winner[1:]
    difference = fmean(current) - fmean(winner)
    noise = sqrt((variance(repeats.current) + variance(repeats.winner)) / len(current))
    freedom = 2 * (len(repeats.seeds) - 1)
    ratio = difference / noise if noise else inf * difference if difference else 0.0
    return Gain(difference / fmean(current), float(t.cdf(ratio, freedom)))


def proposals(
    domain: str,
    current: Settings,
    winner: Settings,
    repeats: Repeats,
    found: Gain,
    evidence: Sequence[str],
) -> list[Proposal]:
    """A change of each key that differs; all share one reason, since they were measured
    together."""
    changed = {key: value for key, value in winner.items() if value != current[key]}
    others = [
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in changed.items()
    ]
    reason = (
        f"tuning: {', '.join(others)} together give {found.share:.2%} less validation loss with "
        "seeds not searched with"
    )
    seeds = ", ".join(map(str, repeats.seeds))
    losses = (
        f"validation losses with seeds {seeds}: {_losses(repeats.winner)}, against "
        f"{_losses(repeats.current)}"
    )
    return [
        Proposal(
            domain,
            key,
            value,
            reason,
            (*evidence, losses),
            round(found.share, 5),
            round(found.sure, 3),
        )
        for key, value in changed.items()
    ]


def _losses(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
