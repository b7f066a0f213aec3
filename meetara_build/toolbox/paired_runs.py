"""What past runs say of single changes: which key did what, in which domain, and how sure that
is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from meetara_build.agents.snapshot import Context, Run
from meetara_build.context.differences import differences, is_comparable, starting_point

LOOKED_AT = 40
"""Different results of a domain that are compared, the newest."""
PARTS = ("lora", "training")
"""The parts of a training's recipe that have the names of conf/build.yaml."""
CONFIDENCE = 0.8
"""Of an interval: nine in ten true shares are above its lower end."""


class Change(NamedTuple):
    """Two trainings of a domain on the same base and data that differ in one key, the older
    first."""

    domain: str
    key: str
    old: Any
    new: Any
    before: float
    after: float
    runs: tuple[str, str]

    @property
    def gain(self) -> float:
        """The share by which the validation loss fell."""
        return (self.before - self.after) / self.before

    def turned(self) -> "Change":
        """The same, told from the other side."""
        return Change(
            self.domain,
            self.key,
            self.new,
            self.old,
            self.after,
            self.before,
            (self.runs[1], self.runs[0]),
        )


def changes(context: Context) -> list[Change]:
    """Every change of a single key that past trainings show, by domain.

    A recipe that was run again counts once, with its last result.
    """
    found: list[Change] = []
    for domain in context.domains:
        results: dict[str, Run] = {}
        for run in context.runs_of(domain, "adapter"):
            if isinstance(loss(run), float) and run.recipe:
                results[f"{run.recipe} {starting_point(run.inputs)}"] = run
        known = list(results.values())[-LOOKED_AT:]
        for index, later in enumerate(known):
            found += [
                change for earlier in known[:index] if (change := _change(domain, earlier, later))
            ]
    return found


def loss(run: Run) -> float | None:
    """The figure of a training: nats a token on validation records; None where it has none."""
    found = run.metrics.get("validation_loss_after")
    return float(found) if isinstance(found, int | float) else None


def describe_run(run: Run) -> str:
    """A training as evidence: its id and its figure."""
    return f"run {run.id}: validation loss {loss(run):.3f}"


def _change(domain: str, earlier: Run, later: Run) -> Change | None:
    if not is_comparable(earlier.inputs, later.inputs):
        return None
    several = list(differences(earlier.recipe, later.recipe))
    before, after = loss(earlier), loss(later)
    if len(several) != 1 or several[0][0][0] not in PARTS or before is None or after is None:
        return None
    path, old, new = several[0]
    return Change(domain, ".".join(path), old, new, before, after, (earlier.id, later.id))


def list_remembered(context: Context) -> dict[str, tuple[int, int]]:
    """By change, as the knowledge base words it, how often it helped and was tried, also in runs
    that are no longer seen."""
    strategies = context.sections.get("knowledge_base", {}).get("optimization_strategies", ())
    return {one["change"]: (one["helped"], one["tried"]) for one in strategies}


def lower_bound(helped: int, tried: int) -> float:
    """What share helps at least, from how many of those tried did: the lower end of Wilson's
    interval (1927).

    0.5 or less says that the evidence does not speak for it: a few successes are not enough, and
    failures take them back.
    """
    if not tried:
        return 0.0
    from scipy.stats import binomtest  # a second of a core, for who has anything to weigh

    return float(binomtest(helped, tried).proportion_ci(CONFIDENCE, "wilson").low)


def find_threshold(tried: Sequence[tuple[float, bool]]) -> float:
    """Of similarities, each with whether what was tried at it helped: from which on it did more
    often than not.

    Above all of them if it did not.
    """
    for threshold in sorted(alike for alike, _ in tried):
        helped = [good for alike, good in tried if alike >= threshold]
        if lower_bound(sum(helped), len(helped)) > 0.5:
            return threshold
    return 1.01


def base_changes(context: Context) -> list[Change]:
    """What another base did, from the best training of each domain on each: the nats that its
    validation text takes.

    Losses a token cannot be compared between tokenizers. Loss times the tokens of the same text
    can.
    """
    names = base_names(context)
    found: list[Change] = []
    for domain in context.domains:
        best: dict[str, tuple[float, Any, Run]] = {}
        for run in context.runs_of(domain, "adapter"):
            name, nats = names.get(run.inputs.get("base", "")), _nats(run)
            if name is None or nats is None:
                continue
            text = (run.metrics.get("training_records"), run.metrics.get("validation_records"))
            if name not in best or nats < best[name][0] or text != best[name][1]:
                best[name] = (nats, text, run)
        found += [
            Change(domain, "base", old, new, nats, other, (run.id, later.id))
            for old, (nats, text, run) in best.items()
            for new, (other, same, later) in best.items()
            if old != new and text == same
        ]
    return found


def _nats(run: Run) -> float | None:
    """What a training's validation text takes, up to a factor that is the same for all bases; None
    where it cannot be told."""
    tokens = run.metrics.get("completion_tokens")
    whole = run.value("training.max_steps") is None and not run.metrics.get("stopped_early")
    alone = not run.value("training.joint") and not run.value("training.topic_weights")
    if not (tokens and whole and alone and isinstance(loss(run), float)):
        return None
    return float(loss(run) * tokens / run.value("training.epochs"))


def base_names(context: Context) -> dict[str, str]:
    """The name of each base by its digest, as those runs say that know both."""
    known = [
        run
        for run in context.runs
        if run.stage == "gguf" and "base" in run.inputs and run.recipe.get("base")
    ]
    return {run.inputs["base"]: run.recipe["base"] for run in known}


def by_domain(found: Iterable[Change]) -> dict[str, float]:
    """Each domain's mean gain: a domain has one vote, however often it tried."""
    gains: dict[str, list[float]] = {}
    for change in found:
        gains.setdefault(change.domain, []).append(change.gain)
    return {domain: sum(several) / len(several) for domain, several in gains.items()}


def agreement(one: Mapping[Any, float], other: Mapping[Any, float]) -> tuple[float, float]:
    """From the gains of two domains by change: how alike they are, as the correlation of what both
    tried, from 0 to 1; and how far that is to be trusted, from 0 (fewer than three changes in
    common) towards 1."""
    import numpy as np

    common = sorted({*one} & {*other}, key=str)
    first, second = ([gains[change] for change in common] for gains in (one, other))
    if len(common) < 3 or not np.std(first) or not np.std(second):
        return 0.0, 0.0
    return float(1 + np.corrcoef(first, second)[0, 1]) / 2, len(common) / (len(common) + 10)
