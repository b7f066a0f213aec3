"""The search itself: processes that take one trial after the other until there are enough.

The sampler is Optuna's TPE (Watanabe, arXiv 2304.11127): it sees losses by their rank alone, learns
from trials that were stopped early, and keeps away from what others try at the moment. Poor trials
are stopped at a validation by successive halving (Li et al., arXiv 1810.05934). The resource is the
share of a training: trials of other batch sizes have other numbers of steps, and after as many
steps as another a trial of large batches has seen more records. What a search costs is counted in
steps all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import optuna
from optuna.study import Study
from optuna.trial import Trial, TrialState

from meetara_build.errors import TrainingError
from meetara_build.training.settings import Action, History, Observer, Progress
from meetara_build.tuning.seeding import Start
from meetara_build.tuning.space import Space, apply_settings
from meetara_build.tuning.studies import (
    CURRENT,
    FINISHED,
    ROLE,
    SETTINGS,
    STEPS,
    find_tried,
    list_finished,
    open_storage,
)

FRESH_TRIALS = 4
"""Tried before the sampler's model decides: what is configured, and what did well elsewhere, are
most of them."""
PERCENT = 100
"""Of a training: the resource that successive halving shares out."""


class Trains(Protocol):
    """Whatever trains an adapter by a recipe: ``trainer.Trainer``."""

    def train(self, recipe: Mapping[str, Any], observe: Observer | None = None) -> History:
        """Train it."""


def prepare(study: Study, space: Space, starts: Sequence[Start]) -> None:
    """Have the current configuration tried first, then what did well elsewhere; nothing twice."""
    trials = study.get_trials(deepcopy=False)
    ahead = [one.user_attrs.get(SETTINGS) for one in trials if one.state == TrialState.WAITING]
    done = [one.user_attrs.get(SETTINGS) for one in trials if one.state in FINISHED]
    if not find_tried(trials, space.current) and space.current not in ahead:
        study.enqueue_trial(
            space.parameters(space.current), user_attrs={SETTINGS: space.current, ROLE: CURRENT}
        )
    for start in starts:
        if start.settings not in [*ahead, *done]:
            study.enqueue_trial(
                space.parameters(start.settings),
                user_attrs={SETTINGS: start.settings, ROLE: start.evidence},
            )


def resume_study(url: str, name: str, seed: int, place: int, reduction_factor: int) -> Study:
    """A study as a worker goes on with it. Neither sampler nor pruner is stored: each worker makes
    its own.

    The sampler's seed is another for each worker, and after each interruption, so that none draws
    what was drawn before.
    """
    study = optuna.load_study(study_name=name, storage=open_storage(url))
    study.sampler = sampler(seed + 1000 * place + len(study.get_trials(deepcopy=False)))
    study.pruner = pruner(reduction_factor)
    return study


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """What chooses the settings of a trial."""
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=FRESH_TRIALS, multivariate=True, constant_liar=True
    )


def pruner(reduction_factor: int) -> optuna.pruners.BasePruner:
    """What stops poor trials: with a factor of three all but a third after a ninth of a training,
    and again after a third."""
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=max(1, PERCENT // reduction_factor**2), reduction_factor=reduction_factor
    )


class Objective:
    """A trial: train by its settings, and stop where it does poorly."""

    def __init__(self, trainer: Trains, space: Space, recipe: Mapping[str, Any]) -> None:
        self.trainer, self.space, self.recipe = trainer, space, recipe

    def __call__(self, trial: Trial) -> float:
        """Its lowest loss on the validation records.

        Raises:
            optuna.TrialPruned: it does poorly, or cannot be trained.
            TrainingError: the current configuration itself cannot be trained.
        """
        chosen = self.space.suggested(trial)
        settings = trial.user_attrs.get(SETTINGS, chosen)
        trial.set_user_attr(SETTINGS, settings)
        asked_for = ROLE in trial.user_attrs  # for a reason, and so trained in full
        steps = reached = 0
        trial.set_user_attr(STEPS, steps)
        done = list_finished(trial.study)  # the same seed gives the same losses
        if (again := find_tried(done, settings)) and again.value is not None:
            return again.value
        if not asked_for and settings in [one.user_attrs.get(SETTINGS) for one in done]:
            raise optuna.TrialPruned

        def observe(progress: Progress) -> Action | None:
            nonlocal steps, reached
            steps += progress.fault is None
            # A race begins anew, and a step is told once.
            if progress.validation_loss is not None and progress.step > reached:
                reached = progress.step
                trial.report(progress.validation_loss, PERCENT * progress.step // progress.steps)
                if progress.step < progress.steps and trial.should_prune() and not asked_for:
                    raise optuna.TrialPruned
            return None

        try:
            history = self.trainer.train(apply_settings(self.recipe, settings), observe)
        except TrainingError as fault:
            if settings == self.space.current:
                raise
            raise optuna.TrialPruned(str(fault)) from None
        finally:
            trial.set_user_attr(STEPS, steps)
        if history.validation_after is None:
            raise TrainingError(
                "there is no validation record to compare settings by; raise data.validation"
            )
        return history.validation_after
