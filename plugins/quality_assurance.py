"""quality_assurance: better data, no wasted steps, no silent regressions.

- live (``training.observers: [quality_assurance]``): rolls back what is not finite, lowers the
  learning rate on divergence (and rolls back where nothing was gained before it), stops when the
  forecast says that nothing is left to gain;
- between builds: proposes itself as observer where it would have helped, to drop the training
  records that look most wrong, and a bound on the held-out loss, so that a later, worse build is
  not packaged;
- after a build: regressions and which keys differ, records to relabel with file and line, how good
  the forecasts are.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from meetara_build.agents import Action, Context, Domain, Progress, Proposal, hookimpl
from meetara_build.toolbox.divergence import diverges, nothing_left
from meetara_build.toolbox.forecast import Curve, curve_of, forecast, still_falling
from meetara_build.toolbox.mislabelled import Suspect, suspects
from meetara_build.toolbox.paired_runs import describe_run, loss
from meetara_build.toolbox.regressions import TOLERANCE, difference, list_evaluated, regression

NAME = "quality_assurance"
OBSERVERS, DROP, BOUND = "training.observers", "data.drop", "evaluation.max_loss"
NOT_FINITE = "not_finite"
"""What an observer is told of a step whose loss or gradient is no number."""
ENDED = "training-not-finite"
"""The code of a training that ended so (meetara_build/errors.py)."""
EPOCHS, STEPS = "training.epochs", "training.max_steps"
LEAST_GAIN = 0.004
"""Share of the loss that a training twice as long must promise: of the trainings of
bench.agents.worth, few that promised less gained."""
LONGER_HELPS = 0.7
"""How likely it is taken to do so."""
LEAST_SAVED = 0.1
"""Share of a training's steps from which stopping early is worth a proposal."""
DROPPED = 0.03
"""Of the training records: at most so many are dropped at once."""
DROP_GAIN = 0.001
"""What dropping them is taken to gain: what bench.agents.records measured."""
SHOWN = 5


@hookimpl
def observe(progress: Progress) -> Action | None:
    """A pure function of the points so far."""
    if progress.fault is not None:
        return Action.ROLL_BACK if progress.fault == NOT_FINITE else None
    curve = Curve(progress.curve, progress.steps, progress.validation_before)
    if diverges(curve):
        return Action.LOWER_LEARNING_RATE if _has_gained(curve) else Action.ROLL_BACK
    return Action.STOP if nothing_left(curve) else None


def _has_gained(curve: Curve) -> bool:
    """Whether the training has done any good: if not, a fresh optimizer from the best weights is
    better than going on slower."""
    return curve.before is None or (curve.best is not None and curve.best < curve.before)


@hookimpl
def propose(context: Context) -> Iterator[Proposal]:
    """By domain: watching, records to drop, the bound."""
    for domain in context.domains.values():
        several = (
            watching(context, domain),
            dropping(context, domain),
            bound(context, domain),
            *longer(context, domain),
        )
        for proposal in several:
            if proposal is not None and not domain.is_locked(proposal.key):
                yield proposal


@hookimpl
def insights(context: Context) -> Iterator[str]:
    """Regressions, records to relabel, forecasts."""
    for domain in context.domains.values():
        yield from regressions(context, domain)
    for domain in context.domains.values():
        yield from relabelling(context, domain)
    yield from forecasts(context)


# Watching


def watching(context: Context, domain: Domain) -> Proposal | None:
    """This agent as an observer, where the last training would have been shorter or have gone
    through with it."""
    observers = domain.config.get(OBSERVERS) or []
    curve = curve_of(domain.read("adapter/training.json"))
    if NAME in observers:
        return None
    value = sorted([*observers, NAME])
    failed = [run for run in context.runs_of(domain.name, "adapter", "failed") if run.code == ENDED]
    last = context.runs_of(domain.name, "adapter", None)[-1:]
    if failed and failed[-1:] == last:
        reason = (
            "The training ended because the loss was not finite; watched, it goes back and on at "
            "half the learning rate"
        )
        return Proposal(
            domain.name,
            OBSERVERS,
            value,
            reason,
            [f"run {failed[-1].id}: {failed[-1].error}"],
            0.0,
            0.8,
        )
    if curve is None:
        return None
    steps, taken = len(curve.points), _would_take(curve)
    if 1 - taken / steps < LEAST_SAVED:
        return None
    reason = (
        f"Watched, the last training would have ended after {taken} of {steps} steps with as good "
        "a loss"
    )
    return Proposal(
        domain.name,
        OBSERVERS,
        value,
        reason,
        _evidence(context, domain),
        1 - taken / steps,
        0.7,
        "seconds",
    )


def _would_take(curve: Curve) -> int:
    """Steps until the observer would have ended a training."""
    for end, (_, _, checked, _) in enumerate(curve.points, 1):
        if checked is not None and nothing_left(curve._replace(points=curve.points[:end])):
            return end
    return len(curve.points)


def _evidence(context: Context, domain: Domain) -> list[str]:
    run = context.current(domain.name, "adapter")
    return [describe_run(run)] if run is not None and isinstance(loss(run), float) else []


def longer(context: Context, domain: Domain) -> Iterator[Proposal]:
    """As many times the epochs as pay, where the last training still gained at its end.

    Each doubling is taken to bring half of what the one before it brought: a loss that falls to its
    floor as 1/S does, a common curve (Viering & Loog, arXiv 2103.10948). S is the sum of the
    learning rates so far. A doubling pays while it gains more than it costs.
    """
    run, curve = (
        context.current(domain.name, "adapter"),
        curve_of(domain.read("adapter/training.json")),
    )
    if run is None or curve is None:
        return
    falls = still_falling(curve)
    times, gain = _as_long_as_it_pays(falls, run.seconds / 60, context.policy)
    if times == 1:
        return
    steps, bound = run.metrics["steps"], domain.config.get(STEPS)
    reason = (
        f"The second half of the training lowered the loss by {falls:.1%}, to its end: {times} "
        "times as long"
    )
    wanted = {EPOCHS: times * domain.config[EPOCHS]} | (
        {STEPS: times * steps} if bound is not None and bound < times * steps else {}
    )
    for key, value in wanted.items():
        yield Proposal(
            domain.name,
            key,
            value,
            reason,
            _evidence(context, domain),
            gain / len(wanted),
            LONGER_HELPS,
        )


def _as_long_as_it_pays(
    falls: float, minutes: float, policy: Mapping[str, Any]
) -> tuple[int, float]:
    """How many times as long, and the share of the loss that is to gain; ``minutes`` is how long
    the training took."""
    times, gain, following = 1, 0.0, falls / 2
    while following >= LEAST_GAIN and 2 * times <= policy["at_most_times"]:
        if 100 * following * LONGER_HELPS * policy["minutes_a_percent"] < times * minutes:
            break
        times, gain, following = 2 * times, gain + following, following / 2
    return times, gain


# Records


class Look(NamedTuple):
    """What the records of a domain show, and where each stands."""

    suspects: list[Suspect]
    records: int
    places: Mapping[str, str]


def look(domain: Domain) -> Look | None:
    """The suspects among the records that were trained on; None where nothing is built."""
    records, account = domain.read("dataset/train.jsonl"), domain.read("dataset/account.jsonl")
    if not records or not account:
        return None
    losses = {line["id"]: line["losses"] for line in domain.read("adapter/records.jsonl") or []}
    places = {line["id"]: line["source"] for line in account if "id" in line}
    return Look(suspects(records, losses), len(records), places)


def dropping(context: Context, domain: Domain) -> Proposal | None:
    """The records whose answers look most wrong, beside those dropped already; never those that
    were tried in vain."""
    found = look(domain)
    if found is None:
        return None
    tried = _list_dropped_in_vain(context, domain)
    worst = [one for one in found.suspects if one.other_answer and one.id not in tried]
    worst = worst[: int(DROPPED * found.records)]
    if not worst:
        return None
    names = ", ".join(found.places.get(one.id, one.id) for one in worst[:SHOWN])
    reason = (
        f"{_count(len(worst), 'answer')} of {found.records} fit their questions less than the "
        f"words of another topic ({names}{' …' if len(worst) > SHOWN else ''})"
    )
    evidence = [*_evidence(context, domain), *(f"{one.id}: {one.why}" for one in worst[:SHOWN])]
    dropped = [*(domain.config.get(DROP) or []), *(one.id for one in worst)]
    return Proposal(domain.name, DROP, sorted(set(dropped)), reason, evidence, DROP_GAIN, 0.4)


def _list_dropped_in_vain(context: Context, domain: Domain) -> set[str]:
    """Records that were to be dropped by proposals of this agent that were rejected, by people or
    by the measurement."""
    own = [
        message
        for message in context.messages
        if message["about"] == "proposal"
        and message["sender"] == NAME
        and message["domain"] == domain.name
    ]
    rejected = [one for one in own if one["answers"] and one["answers"][-1]["answer"] == "rejected"]
    lists = [one["body"]["value"] for one in rejected if one["body"]["key"] == DROP]
    return {record for several in lists for record in several} - set(domain.config.get(DROP) or [])


def relabelling(context: Context, domain: Domain) -> Iterator[str]:
    """Records whose question and answer both speak of another topic."""
    found = look(domain)
    wrong = [one for one in found.suspects if not one.other_answer] if found else []
    if found and wrong:
        lines = "; ".join(
            f"{found.places.get(one.id, one.id)} ({one.id}) {one.why}" for one in wrong[:SHOWN]
        )
        yield f"{domain.name}: look at the topic of {_count(len(wrong), 'record')}: {lines}"


# Regressions


def bound(context: Context, domain: Domain) -> Proposal | None:
    """A little above the best held-out loss, where there is no bound or a looser one, and the
    newest model is within it.

    Nothing is chosen by the test records: they only tell that something has become worse.
    """
    results, now = list_evaluated(context, domain.name), domain.config.get(BOUND)
    if len(results) < 2:
        return None
    best = min(results, key=lambda one: one.loss)
    value = float(f"{best.loss * TOLERANCE:.4g}")
    if results[-1].loss > value or (now is not None and now <= value):
        return None
    reason = (
        f"No model that is more than 2% worse than the best so far ({best.loss:.3f}) is packaged"
    )
    evidence = [f"run {one.run.id}: held-out loss {one.loss:.3f}" for one in results[-SHOWN:]]
    return Proposal(domain.name, BOUND, value, reason, evidence, 0.0, 0.8)


def regressions(context: Context, domain: Domain) -> Iterator[str]:
    """Where the newest model is worse than the best before it, and what differs between the two
    trainings."""
    if worse := regression(list_evaluated(context, domain.name)):
        best, newest = worse
        yield (
            f"{domain.name}: held-out loss rose from {best.loss:.3f} (run {best.run.id}) to "
            f"{newest.loss:.3f} (run {newest.run.id}); {difference(best.training, newest.training)}"
        )


# Forecasts


def forecasts(context: Context) -> Iterator[str]:
    """How near the forecast at a third of training came to what the current adapters reached."""
    read = {
        name: curve_of(domain.read("adapter/training.json"))
        for name, domain in context.domains.items()
    }
    curves = {name: curve for name, curve in read.items() if curve is not None}
    errors, inside = [], 0
    for name, curve in curves.items():
        said = forecast(curve.first(), [other for one, other in curves.items() if one != name])
        if said is not None and curve.best is not None:
            errors.append(abs(said.loss / curve.best - 1))
            inside += said.low <= curve.best <= said.high
    if len(errors) >= 2:
        middle = sorted(errors)[len(errors) // 2]
        yield (
            f"At a third of training, the best validation loss was foretold to {middle:.1%} "
            f"(median of {len(errors)} domains); the 80% interval held {inside / len(errors):.0%} "
            "of them"
        )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
