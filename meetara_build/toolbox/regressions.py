"""Whether models became worse: their losses on the same held-out records, and what differs between
the trainings behind them.

Nothing is chosen by held-out records; they only tell that something went wrong.
"""

from typing import NamedTuple

from meetara_build.agents.snapshot import Context, Run
from meetara_build.context.differences import differences

TOLERANCE = 1.02
"""Times the best loss, from which a result is a regression."""
REFERENCE = "F16"
SHOWN = 5


class Evaluated(NamedTuple):
    """A model's evaluation, its loss, and the training before it."""

    run: Run
    loss: float
    training: Run | None


def list_evaluated(context: Context, domain: str) -> list[Evaluated]:
    """Each model of a domain once, in the order of their last evaluation; only those measured on
    the same records as the newest."""
    done = [
        run
        for run in context.runs_of(domain, "evaluate", None)
        if REFERENCE in run.metrics.get("losses", {})
    ]
    trainings = [run for run in context.runs_of(domain, "adapter", None) if run.outcome != "failed"]
    found: dict[str, Evaluated] = {}
    for run in done:
        if run.inputs.get("dataset") == done[-1].inputs.get("dataset"):
            before = [one for one in trainings if one.time <= run.time]
            found.pop(run.key, None)
            found[run.key] = Evaluated(
                run, run.metrics["losses"][REFERENCE], before[-1] if before else None
            )
    return list(found.values())


def regression(results: list[Evaluated]) -> tuple[Evaluated, Evaluated] | None:
    """The best of the earlier ones and the newest, if that is more than tolerably worse."""
    if len(results) < 2:
        return None
    best, newest = min(results[:-1], key=lambda one: one.loss), results[-1]
    return (best, newest) if newest.loss > best.loss * TOLERANCE else None


def difference(old: Run | None, new: Run | None) -> str:
    """What differs between two trainings, as a line for people."""
    if old is None or new is None:
        return "the trainings are not among the runs that are kept"
    keys = [
        f"{'.'.join(path)}: {was} → {now}" for path, was, now in differences(old.recipe, new.recipe)
    ]
    inputs = [
        name
        for name in sorted({*old.inputs, *new.inputs})
        if old.inputs.get(name) != new.inputs.get(name)
    ]
    said = [*keys[:SHOWN], *(f"another {name}" for name in inputs)]
    return (
        f"what differs: {'; '.join(said)}"
        if said
        else "both trainings have the same recipe and inputs"
    )
