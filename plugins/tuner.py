"""tuner: between builds, tries another point of build.yaml's ``tuning.space`` for each domain, as
Optuna's TPE sampler would (Bergstra et al. 2011), told what the domain's builds have measured.

A training that still gained much at its end gets a larger adapter first; then comes what did best
on similar domains. A promise is what such points have brought in this project so far, and nearly
nothing until that is known. ``meetara-build tune`` searches the same space within one process, and
much faster.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from meetara_build.agents import Context, Domain, Proposal, Run, hookimpl, is_within
from meetara_build.toolbox import needs
from meetara_build.toolbox.forecast import curve_of, still_falling
from meetara_build.toolbox.paired_runs import loss

MOST_KEYS = 3
"""That one proposal changes: of more, no one could say which helped."""
NEIGHBOURS = 3
FRESH = 3
"""Points that the sampler chooses at random before its model decides."""
ENOUGH = 10
"""Trainings before it is said which keys matter."""
PRIOR_GAIN, PRIOR_POINTS = 0.005, 2.0
"""What a point is taken to bring before any has been tried, and how many real ones outweigh
that."""
DIGITS = 3
FEWEST = 8
"""Validation records from which points are searched."""
SIZE = ("lora.rank", "lora.alpha")
UNFINISHED = 0.015
"""Share by which the second half of a training lowered its loss from which a larger adapter is
tried: on both domains of medquad in bench.agents.worth, whose trainings lost 2% in it, twice the
rank brought about 1%."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Past:
    """A training: its settings of the space, its validation loss, and the run's id."""

    settings: Settings
    loss: float
    run: str


@dataclass(frozen=True)
class Experience:
    """What points tried so far have brought: how many there were, how many helped, and the sum of
    their gains."""

    points: int = 0
    helped: int = 0
    gains: float = 0.0

    @property
    def gain(self) -> float:
        """What to expect of the next one."""
        return (PRIOR_POINTS * PRIOR_GAIN + self.gains) / (PRIOR_POINTS + self.points)

    @property
    def confidence(self) -> float:
        """How likely the next one helps; low until some have."""
        return (0.2 + self.helped) / (2 + self.points)


@hookimpl
def propose(context: Context) -> Iterator[Proposal]:
    """One new point for each domain that has been trained."""
    known = {name: pasts(context, domain) for name, domain in context.domains.items()}
    learnt = experience(known.values())
    for name, domain in context.domains.items():
        ranges = space(context, domain)
        if not known[name] or not ranges:
            continue
        now = {key: domain.config[key] for key in ranges}
        tried = [one.settings for one in known[name]]
        points = _points(context, domain, ranges, now, known, learnt)
        if point := next((one for one in points if _merge(now, one.settings) not in tried), None):
            yield from _proposals(domain, point)


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """Which keys matter, for domains that have been trained with enough different settings."""
    for name, domain in context.domains.items():
        found = importances(space(context, domain), pasts(context, domain))
        if found:
            shown = ", ".join(
                f"{key} {share:.0%}" for key, share in list(found.items())[:MOST_KEYS]
            )
            yield f"{name}: of the differences in validation loss between settings, {shown}"


def space(context: Context, domain: Domain) -> dict[str, Mapping[str, Any]]:
    """The ranges of the keys that may be changed for a domain."""
    allowed = context.policy.get("may_change", ())
    return {
        key: given
        for key, given in sorted(context.tuning.get("space", {}).items())
        if key in domain.config and is_within(key, allowed) and not domain.is_locked(key)
    }


def pasts(context: Context, domain: Domain) -> list[Past]:
    """A domain's trainings whose losses can be compared with the next one's: same data, same base,
    same other keys."""
    keys = list(space(context, domain))
    runs = [run for run in context.runs_of(domain.name, "adapter") if loss(run) is not None]
    last = runs[-1] if runs else None
    found: dict[str, Past] = {}
    for run in runs:
        settings = {key: run.value(key) for key in keys}
        complete = all(
            value is not None or domain.config[key] is None for key, value in settings.items()
        )
        if last and complete and run.inputs == last.inputs and _fix(run, keys) == _fix(last, keys):
            found[run.key] = Past(settings, loss(run) or 0.0, run.id)
    return list(found.values())


def experience(of_domains: Iterable[Sequence[Past]]) -> Experience:
    """What each training after a domain's first gained over the best before it; a worse one gained
    nothing."""
    gains = [
        max(0.0, 1 - one.loss / min(before.loss for before in trainings[:place]))
        for trainings in of_domains
        for place, one in enumerate(trainings)
        if place
    ]
    return Experience(len(gains), sum(gain > 0 for gain in gains), sum(gains))


def importances(
    ranges: Mapping[str, Mapping[str, Any]], trainings: Sequence[Past]
) -> dict[str, float]:
    """The share of the loss's differences that each key explains, most first; nothing of too few
    trainings."""
    if len(trainings) < ENOUGH or len({one.loss for one in trainings}) < ENOUGH or not ranges:
        return {}
    optuna = _optuna()
    found: dict[str, float] = optuna.importance.get_param_importances(
        _study(ranges, trainings, {}, 0)
    )
    return found


@dataclass(frozen=True)
class Point:
    """Settings to try next, and what is expected of them."""

    settings: Settings
    reason: str
    evidence: tuple[str, ...]
    gain: float
    confidence: float


def _points(
    context: Context,
    domain: Domain,
    ranges: Mapping[str, Mapping[str, Any]],
    now: Settings,
    known: Mapping[str, Sequence[Past]],
    learnt: Experience,
) -> Iterator[Point]:
    """What may be tried next, the most promising first; the lowest of many losses over few records
    is luck, and not looked for."""
    yield from _larger(domain, ranges, now, known[domain.name][-1])
    if context.runs_of(domain.name, "adapter")[-1].metrics.get("validation_records", 0) >= FEWEST:
        yield from _borrow(context, domain, now, known)
        yield _sample(context, domain, ranges, now, known[domain.name], learnt)


def _larger(
    domain: Domain, ranges: Mapping[str, Mapping[str, Any]], now: Settings, last: Past
) -> Iterator[Point]:
    """Twice the rank, and alpha with it: adapters of low rank learn less of much data (Biderman et
    al., arXiv 2405.09673)."""
    curve, size = (
        curve_of(domain.read("adapter/training.json")),
        {key: 2 * now[key] for key in SIZE if key in now},
    )
    falls = still_falling(curve) if curve is not None else 0.0
    if (
        falls < UNFINISHED
        or len(size) < len(SIZE)
        or not all(_in(ranges[key], value) for key, value in size.items())
    ):
        return
    yield Point(
        {**now, **size},
        f"the second half of the training lowered the loss by {falls:.1%}, to its end: it may have "
        "more to learn than fits",
        (f"run {last.run}: validation loss {last.loss:.4f}",),
        round(falls / 2, 5),
        0.7,
    )


def _in(given: Mapping[str, Any], value: Any) -> bool:
    choices = given.get("choices")
    return value in choices if choices is not None else bool(given["low"] <= value <= given["high"])


def _borrow(
    context: Context, domain: Domain, now: Settings, known: Mapping[str, Sequence[Past]]
) -> Iterator[Point]:
    """The best settings of the most similar domains on the same base."""
    alike = context.similar(domain.name, len(context.domains))
    same = [
        one
        for one in alike
        if context.domains[one.domain].config.get("base") == domain.config.get("base")
    ]
    for other in same[:NEIGHBOURS]:
        trainings = known[other.domain]
        if not trainings:
            continue
        top = min(trainings, key=lambda one: one.loss)
        before = [one for one in trainings if _merge(now, one.settings) == now]
        reference = before[0].loss if before else median(one.loss for one in trainings)
        settings = _few(_keep_in_bounds(context, now, _merge(now, top.settings)), now, {})
        gain = 1 - top.loss / reference
        if settings != now and gain > 0:
            yield Point(
                settings,
                f"these settings did best on {other.domain}, whose data is the most similar "
                f"(cosine {other.similarity:.2f})"
                if other == same[0]
                else f"these settings did best on {other.domain}, whose data is similar (cosine {other.similarity:.2f})",
                (
                    f"run {top.run}: validation loss {top.loss:.4f} on {other.domain}, {gain:.2%} "
                    f"below {reference:.4f}",
                ),
                round(gain * other.similarity, 5),
                round(0.2 + 0.5 * other.similarity, 3),
            )


def _sample(
    context: Context,
    domain: Domain,
    ranges: Mapping[str, Mapping[str, Any]],
    now: Settings,
    trainings: Sequence[Past],
    learnt: Experience,
) -> Point:
    """The sampler's next point; the same for the same trainings and answers."""
    refused = sum(
        message.get("about") == "proposal"
        and message.get("sender") == "tuner"
        and message.get("domain") == domain.name
        and any(said["answer"] == "rejected" for said in message.get("answers", ()))
        for message in context.messages
    )
    seed = zlib.crc32(f"{domain.name} {len(trainings)} {refused}".encode())
    asked = _study(ranges, trainings, now, seed).ask(_distributions(ranges, trainings, now)).params
    chosen = _keep_in_bounds(context, now, {key: _round(value) for key, value in asked.items()})
    settings = _few(chosen, now, importances(ranges, trainings))
    best = min(trainings, key=lambda one: one.loss)
    return Point(
        settings,
        f"the next point of a search that has tried {len(trainings)} for this domain",
        (
            f"run {best.run}: validation loss {best.loss:.4f}, the lowest of {len(trainings)}",
            f"{learnt.helped} of {learnt.points} points tried in this project helped",
        ),
        round(learnt.gain, 5),
        round(learnt.confidence, 3),
    )


def _proposals(domain: Domain, point: Point) -> Iterator[Proposal]:
    changed = {key: value for key, value in point.settings.items() if value != domain.config[key]}
    together = f"; changed together: {', '.join(changed)}" if len(changed) > 1 else ""
    for key, value in changed.items():
        reason, part = point.reason + together, round(point.gain / len(changed), 5)
        yield Proposal(domain.name, key, value, reason, point.evidence, part, point.confidence)


def _optuna() -> Any:
    with needs("agents"):
        import optuna
    return optuna


def _study(
    ranges: Mapping[str, Mapping[str, Any]], trainings: Sequence[Past], now: Settings, seed: int
) -> Any:
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=FRESH)
    )
    kinds = _distributions(ranges, trainings, now)
    for one in trainings:
        params = {key: one.settings[key] for key in ranges}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=kinds, value=one.loss)
        )
    return study


def _distributions(
    ranges: Mapping[str, Mapping[str, Any]], trainings: Sequence[Past], now: Settings
) -> dict[str, Any]:
    """The space as Optuna has it, widened by what has been tried and is configured."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, given in ranges.items():
        seen = [one.settings[key] for one in trainings] + ([now[key]] if now else [])
        if given.get("choices") is not None:
            found[key] = CategoricalDistribution(list(dict.fromkeys([*given["choices"], *seen])))
            continue
        low, high = min([given["low"], *seen]), max([given["high"], *seen])
        whole = all(isinstance(value, int) for value in (low, high, *seen))
        kind = IntDistribution if whole else FloatDistribution
        found[key] = kind(low, high, log=given.get("log", False))
    return found


def _keep_in_bounds(context: Context, now: Settings, settings: Settings) -> Settings:
    """No number further from the present one than policy allows in one go."""
    most = context.policy.get("at_most_times", float("inf"))
    return {key: _near(now[key], value, most) for key, value in settings.items()}


def _near(now: Any, value: Any, most: float) -> Any:
    """A number within so many times of another; a value that would be in between is left as it is
    now."""
    numbers = all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in (now, value)
    )
    if not numbers or not now or (value and 1 / most <= value / now <= most):
        return value
    return now


def _few(settings: Settings, now: Settings, shares: Mapping[str, float]) -> Settings:
    """A point that differs from the present one in few keys: those that matter most, as far as that
    is known."""
    order = sorted(
        settings, key=lambda key: (-shares.get(key, 0.0), not key.endswith("learning_rate"), key)
    )
    kept = [key for key in order if settings[key] != now[key]][:MOST_KEYS]
    return {**now, **{key: settings[key] for key in kept}}


def _merge(now: Settings, settings: Settings) -> Settings:
    """The settings of the keys that are searched for a domain."""
    return {
        key: settings[key] if settings.get(key) is not None else value for key, value in now.items()
    }


def _round(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _fix(run: Run, keys: Sequence[str]) -> Any:
    """All of a recipe but the keys that are searched."""
    parts = {
        part: {
            name: value
            for name, value in run.recipe.get(part, {}).items()
            if f"{part}.{name}" not in keys
        }
        for part in ("lora", "training")
    }
    return {**run.recipe, **parts}
