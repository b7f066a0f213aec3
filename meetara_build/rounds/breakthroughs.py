"""Results far beyond what the neighbours reached.

Each build that measured decisions of agents gives a gain: the logarithm of the loss before over the
loss after. A gain is called far beyond the others where its modified z-score, 0.6745 (x - median) /
MAD, is above 3.5 (Iglewicz and Hoaglin 1993): for gains that are normally distributed, about one
alarm in 5,000. It counts only after a repeat with another seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from meetara_build.rounds.track_record import Outcome

LIMIT = 3.5
FEWEST = 8
"""Gains of others below which nothing is called far."""
SMALLEST = 0.005
"""Half a percent of loss: where the others' gains are all alike, a smaller one is nothing to
tell."""
REPEATED = 0.5
"""The share of the gain that the repeat must reach."""


@dataclass(frozen=True)
class Breakthrough:
    """A domain whose loss fell far more than the others'. ``gain`` is the logarithm of loss before
    over after; ``score`` is the modified z-score."""

    id: str
    domain: str
    changes: Mapping[str, object]
    gain: float
    score: float
    others: int
    before: str
    after: str


def breakthroughs(measured: Iterable[Outcome], known: Iterable[str] = ()) -> list[Breakthrough]:
    """The gains far beyond the others', but for those whose ids are known."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in measured:
        if outcome.before is not None and outcome.loss is not None and outcome.loss < 1:
            groups.setdefault((outcome.domain, outcome.before, outcome.after), []).append(outcome)
    gains = {group: -math.log1p(-(members[0].loss or 0.0)) for group, members in groups.items()}
    told = set(known)
    found = []
    for (domain, before, after), gain in sorted(gains.items()):
        others = [other for group, other in gains.items() if group[0] != domain]
        id = f"breakthrough-{after}"[:64]
        if (
            id not in told
            and (score := compute_modified_z(gain, others)) > LIMIT
            and gain > SMALLEST
        ):
            members = groups[domain, before, after]
            changes = {outcome.key: outcome.value for outcome in members}
            found.append(Breakthrough(id, domain, changes, gain, score, len(others), before, after))
    return found


def compute_modified_z(value: float, others: Sequence[float]) -> float:
    """How far a value lies above others, in robust standard deviations; 0 where there are too
    few."""
    if len(others) < FEWEST:
        return 0.0
    middle = median(others)
    spread = median(abs(other - middle) for other in others)
    return 0.6745 * (value - middle) / max(spread, SMALLEST / 10)


def holds(before: float, after: float, repeated: float) -> bool:
    """Whether a repeat with another seed reaches enough of the gain from one loss to another."""
    return before - repeated >= REPEATED * (before - after) > 0


def message(one: Breakthrough, losses: Mapping[str, float]) -> dict[str, object]:
    """What the shared context is told; ``losses`` are those before, after, and of the repeat."""
    return {
        "domain": one.domain,
        "changes": dict(one.changes),
        "gain": one.gain,
        "score": one.score,
        "others": one.others,
        "runs": [one.before, one.after],
        **losses,
    }
