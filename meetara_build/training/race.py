"""A warm start that does no harm: it is raced against a cold one, and the better of the two is
trained on.

Weights that another adapter has learnt help or harm, and nobody knows beforehand (arXiv
2407.16245). So the first steps are trained twice, with the same batches, and the start with the
lower validation loss after them goes on. The warm one has to lead by a little, since the cold one
catches up. The race leaves no trace in the run that won: where the cold start wins, the weights are
those of a training without any warm start.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from meetara_build.training.chat import Encoded
from meetara_build.training.computation import Prepare
from meetara_build.training.loop import prepare_model
from meetara_build.training.run import Run
from meetara_build.training.schedule import plan
from meetara_build.training.settings import History, Observer, Settings
from meetara_build.training.state import copy_tensors, put, trainable

STRETCH = 0.2
"""Share of the steps that are trained from both starts."""
LEAD = 0.003
"""By what share of the cold start's loss the warm one's must be lower. Of 34 pairs of domains, 22
similar and 12 not, this told the better start in 31, and the others cost at most 0.2% of the loss;
with half the stretch and no lead 24, and at most 0.5%."""


@dataclass(frozen=True)
class Outcome:
    """Who won, and the validation losses after ``steps`` steps."""

    warm_won: bool
    warm: float
    cold: float
    steps: int


def warm_wins(warm: float, cold: float) -> bool:
    """Whether the warm start goes on, by the validation losses after the stretch."""
    if not math.isfinite(cold):
        return math.isfinite(warm)
    return warm < (1 - LEAD) * cold


def race(
    model: nn.Module,
    warm_start: Callable[[], None],
    training: Sequence[Encoded],
    validation: Sequence[Encoded],
    settings: Settings,
    checkpoint_folder: Path,
    observe: Observer | None = None,
    prepare: Prepare = prepare_model,
) -> tuple[History, Outcome]:
    """Train ``model`` as it is against what ``warm_start`` makes of it; see ``loop.train``.

    Each of the two has a checkpoint of its own, so that a race that was interrupted goes on where
    it was.

    Raises:
        TrainingError: as ``loop.train`` does, of either start.
    """
    weights = trainable(model)
    starts = {"cold": copy_tensors(weights)}
    warm_start()
    starts["warm"] = copy_tensors(weights)
    put(
        weights, starts["cold"]
    )  # whose numbers are sound: how the model may compute is tried out with them
    with prepare(model, training, settings) as packed:
        steps = math.ceil(STRETCH * len(plan(training, settings)[0]))

        def run(name: str) -> Run:
            put(weights, starts[name])
            return Run(
                model, packed, training, validation, settings, checkpoint_folder / name, observe
            )

        losses = {name: run(name).go_for(steps) for name in starts}
        warm_won = warm_wins(losses["warm"], losses["cold"])
        history = run("warm" if warm_won else "cold").go()
    return history, Outcome(warm_won, losses["warm"], losses["cold"], steps)
