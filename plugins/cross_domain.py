"""cross_domain: what holds across domains.

- joint training of near domains: each learns the training records of those most like it too, and
  keeps what is held out to itself;
- universal patterns: changes that helped most of the domains that tried them, for those that have
  not;
- after a build: in which order domains teach each other best, and which of these hold.
"""

from collections.abc import Iterator, Mapping, Sequence

from meetara_build.agents import Context, Domain, Proposal, Run, hookimpl
from meetara_build.toolbox import paired_runs

JOINT, WARM, STEPS = "training.joint", "training.warm_start", "training.max_steps"
COMPANIONS = 2
FIRST_THRESHOLD = 0.2
"""Similarity from which joint training is tried while nothing is known of it."""
FIRST_GAIN = 0.005
"""What joint training is taken to gain before any was measured: about what bench.agents.worth
measured."""
LEAST_DOMAINS = 3
"""Domains that must have tried a change before it is called a pattern."""
MOST = 250
OWN_KEYS = (
    WARM,
    JOINT,
    "training.observers",
    "training.topic_weights",
    "training.micro_batch_tokens",
)
"""Keys whose value means something else in each domain, or changes no loss."""

Patterns = Mapping[tuple[str, str, str], list[paired_runs.Change]]
"""Changes of a key from one value to another, as text, in all domains."""


@hookimpl
def propose(context: Context) -> Sequence[Proposal]:
    """Groups to train jointly, and universal patterns, those that promise most first."""
    past = paired_runs.changes(context)
    found = [*joint(context, past), *universal(context, past)]
    allowed = [one for one in found if not context.domains[one.domain].is_locked(one.key)]
    return sorted(
        allowed, key=lambda one: (-one.expected_gain * one.confidence, one.domain, one.key)
    )[:MOST]


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """The best order of training, the groups, and what holds in most domains."""
    if len(context.domains) > 1:
        order = teachers(context)
        yield f"Most useful teachers first: {', '.join(order[:10])}{' …' if len(order) > 10 else ''}"
    past = paired_runs.changes(context)
    tried = paired_runs.by_domain(_set(change) for change in past if change.key == JOINT)
    if tried:
        helped = sum(gain > 0 for gain in tried.values())
        mean = sum(tried.values()) / len(tried)
        yield (
            f"Joint training helped {helped} of {len(tried)} domains that tried it, {mean:.1%} "
            "less loss on average"
        )
    for (key, old, new), several in sorted(_patterns(past).items()):
        gains = paired_runs.by_domain(several)
        if len(gains) >= LEAST_DOMAINS and _find_bound(gains) > 0.5:
            yield f"Universal: {key} {old} → {new} helped {_show_count(gains)}"


def _find_bound(gains: Mapping[str, float]) -> float:
    return paired_runs.lower_bound(sum(gain > 0 for gain in gains.values()), len(gains))


def _show_count(gains: Mapping[str, float]) -> str:
    return f"in {sum(gain > 0 for gain in gains.values())} of {len(gains)} domains"


# Joint training


def joint(context: Context, past: Sequence[paired_runs.Change]) -> Iterator[Proposal]:
    """For every domain that learns alone: to learn the records of its nearest neighbours too.

    Whether it is better than alone is measured by the build: what is not is taken back. So what is
    known is what it did so far.
    """
    known = paired_runs.by_domain(_set(change) for change in past if change.key == JOINT)
    threshold = find_similarity(context, past)
    gain = sum(known.values()) / len(known) if known else FIRST_GAIN
    if gain <= 0:
        return
    helped = sum(one > 0 for one in known.values())
    for name, domain in context.domains.items():
        near = [
            other for other in context.similar(name, COMPANIONS) if other.similarity >= threshold
        ]
        alone = context.runs_of(name, "adapter")  # what joint training is measured against
        if not near or not alone or domain.config.get(JOINT) or name in known:
            continue
        if not _has_room(context, domain, alone[-1], [other.domain for other in near]):
            continue  # what is learnt of others would be taken from its own
        names = sorted(other.domain for other in near)
        past_of_it = (
            f"it helped {_show_count(known)} so far" if known else "nothing of it is measured yet"
        )
        yield Proposal(
            name,
            JOINT,
            names,
            f"learn the records of {' and '.join(names)} too, the nearest domains; {past_of_it}",
            [f"similarity to {other.domain} {other.similarity:.2f}" for other in near],
            gain,
            (helped + 1) / (len(known) + 2),
        )


def _has_room(context: Context, domain: Domain, last: Run, companions: Sequence[str]) -> bool:
    """Whether the bound on steps leaves a domain as many passes over its own records as it has
    alone."""
    bound = domain.config.get(STEPS)
    records = [
        last,
        *(runs[-1] for name in companions if (runs := context.runs_of(name, "adapter"))),
    ]
    own, *others = [run.metrics.get("training_records") or 0 for run in records]
    return bound is None or not own or last.metrics["steps"] * (own + sum(others)) / own <= bound


def find_similarity(context: Context, past: Sequence[paired_runs.Change]) -> float:
    """The similarity of companions from which joint training has helped more often than not."""
    tried = []
    for change in map(_set, past):
        if change.key == JOINT and change.new:
            alike = dict(context.similar(change.domain, len(context.domains)))
            tried.append(
                (
                    sum(alike.get(name, 0.0) for name in change.new) / len(change.new),
                    change.gain > 0,
                )
            )
    if len(tried) < LEAST_DOMAINS:
        return FIRST_THRESHOLD
    return paired_runs.find_threshold(tried)


def _set(change: paired_runs.Change) -> paired_runs.Change:
    """A change that takes joint training back, told as one that begins it."""
    return change.turned() if change.key == JOINT and change.old and not change.new else change


# Patterns


def universal(context: Context, past: Sequence[paired_runs.Change]) -> Iterator[Proposal]:
    """Changes that helped most of the domains that tried them, for those that have the old value
    and have not tried."""
    for (key, old, new), several in sorted(_patterns(past).items()):
        gains = paired_runs.by_domain(several)
        if len(gains) < LEAST_DOMAINS or (bound := _find_bound(gains)) <= 0.5:
            continue
        mean = sum(gains.values()) / len(gains)
        for name, domain in context.domains.items():
            if (
                name in gains
                or mean <= 0
                or key not in domain.config
                or str(domain.config[key]) != old
            ):
                continue
            if key.startswith("lora.") and domain.config.get(WARM):
                continue  # it begins from an adapter of the present shape
            yield Proposal(
                name,
                key,
                several[0].new,
                f"{key} {old} → {new} helped {_show_count(gains)} that tried it",
                [
                    f"run {change.runs[1]}: {change.gain:+.1%} less validation loss"
                    for change in several[:5]
                ],
                mean,
                bound,
            )


def _patterns(past: Sequence[paired_runs.Change]) -> Patterns:
    """Every change, told from both sides."""
    found: dict[tuple[str, str, str], list[paired_runs.Change]] = {}
    for change in past:
        if change.key not in OWN_KEYS:
            for one in (change, change.turned()):
                found.setdefault((one.key, str(one.old), str(one.new)), []).append(one)
    return found


# Order


def teachers(context: Context) -> list[str]:
    """The domains that others are most like first: what is built first can be begun from."""
    useful = dict.fromkeys(context.domains, 0.0)
    for name in context.domains:
        for other in context.similar(name):
            useful[other.domain] += other.similarity
    return sorted(useful, key=lambda name: (-useful[name], name))
