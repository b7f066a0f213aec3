"""Which topics of a domain are weak, and how many more records they need."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

FEWEST_RECORDS = 5
"""Of a topic: of fewer, the spread of their losses says nothing."""
FALSE_ALARMS = 0.05
"""Chance that any topic of a domain is called weak where none is (Bonferroni's correction)."""
FEWEST_FREE = 6
"""Topics beyond those that a fit could follow whatever they are."""
FEWEST_TIMES = 2.0
"""A law cannot be read off topics that all have about as many records."""
INTERVAL = 1.28
"""Standard errors on either side: eight in ten."""
ENDLESS = 20
"""Times the records there are, above which more of them are no remedy."""


class Topic(NamedTuple):
    """A topic's records: how many, and their mean loss when they first came by in training, before
    they were learnt from."""

    name: str
    records: int
    loss: float
    above: float
    weak: bool


def topics_of(lines: Iterable[Mapping[str, Any]]) -> list[Topic]:
    """The topics in ``adapter/records.jsonl``, the weakest first; ``above`` is by which share the
    loss is above the others'.

    A record's first loss is that of a record the model has not seen: a held-out loss that costs
    nothing, and leaves validation and test records alone. A topic is weak if its mean is above that
    of all others by more than chance (Welch's test, one-sided).
    """
    losses: dict[str, list[float]] = {}
    for line in lines:
        if line.get("topic") and line["losses"] and line["losses"][0] is not None:
            losses.setdefault(line["topic"], []).append(line["losses"][0])
    enough = sum(len(several) >= FEWEST_RECORDS for several in losses.values())
    chance = FALSE_ALARMS / max(enough, 1)
    found = []
    for name, own in losses.items():
        others = [loss for other, several in losses.items() if other != name for loss in several]
        if others:
            above = fmean(own) / fmean(others) - 1
            found.append(Topic(name, len(own), fmean(own), above, _far_above(own, others, chance)))
    return sorted(found, key=lambda topic: (-topic.above, topic.name))


def _far_above(own: Sequence[float], others: Sequence[float], chance: float) -> bool:
    if min(len(own), len(others)) < FEWEST_RECORDS:
        return False
    from scipy.stats import ttest_ind  # a second of a core, which few topics are worth

    return bool(ttest_ind(own, others, equal_var=False, alternative="greater").pvalue < chance)


class Law(NamedTuple):
    """``loss / the base's loss`` falls as ``records ** -power`` (the form of arXiv 2001.08361);
    ``error`` is the power's."""

    power: float
    error: float


def law(domains: Iterable[Sequence[tuple[int, float]]]) -> Law | None:
    """The power law through the topics of several domains: (records, share of the base's loss)
    each.

    Least squares on logarithms, with a level of its own for each domain. None where there are too
    few topics, or they differ too little in their records.
    """
    at, fell, levels = list[float](), list[float](), 0
    for topics in domains:
        usable = [
            (math.log(records), math.log(share))
            for records, share in topics
            if records > 0 and share > 0
        ]
        if len(usable) >= 2:
            middles = [fmean(values) for values in zip(*usable, strict=True)]
            at += [x - middles[0] for x, _ in usable]
            fell += [y - middles[1] for _, y in usable]
            levels += 1
    free = len(at) - levels - 1
    if free < FEWEST_FREE or max(at) - min(at) < math.log(FEWEST_TIMES):
        return None
    square = sum(x * x for x in at)
    slope = sum(x * y for x, y in zip(at, fell, strict=True)) / square
    left = sum((y - slope * x) ** 2 for x, y in zip(at, fell, strict=True))
    return Law(-slope, math.sqrt(left / free / square))


def more_records(
    records: int, share: float, target: float, found: Law | None
) -> tuple[int, int | None] | None:
    """How many more a topic needs until its share of the base's loss is the target: fewest and
    most, None for endless.

    None where the law does not say that more records help at all.
    """
    if found is None or found.power - INTERVAL * found.error <= 0 or share <= target:
        return None
    fewest, most = (
        records * math.expm1(math.log(share / target) / power)
        for power in (found.power + INTERVAL * found.error, found.power - INTERVAL * found.error)
    )
    if fewest > ENDLESS * records:
        return None
    return max(1, math.ceil(fewest)), math.ceil(most) if most <= ENDLESS * records else None
