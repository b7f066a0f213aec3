"""The search itself: processes that take one trial after the other until there are enough.

The sampler is Optuna's Gaussian process with expected improvement (Snoek et al., arXiv 1206.2944), on ranks: of few trials it makes
more than TPE (bench.agents.tuning). Poor trials are stopped at a validation by successive halving (Li et al., arXiv 1810.05934),
unless they are close to the best at that point: between good settings an early loss does not tell which ends lower. The resource
is the share of a training: trials of other batch sizes have other numbers of steps, and after as many steps as another a trial of
large batches has seen more records. What a search costs is counted in steps all the same.
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist, median
from typing import Any, Protocol

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, create_trial

from meetara_build.errors import TrainingError
from meetara_build.training.settings import Action, History, Observer, Progress
from meetara_build.tuning.seeding import Start
from meetara_build.tuning.space import Space, applied, rounded
from meetara_build.tuning.studies import (
    CURRENT,
    FINISHED,
    ROLE,
    SETTINGS,
    STEPS,
    STOPPED,
    WORKER,
    in_full,
    open_storage,
    tried,
    worker,
)

FRESH_TRIALS = 4
"""Tried before the sampler's model decides: what is configured, and what did well elsewhere, are most of them."""
PERCENT = 100
"""Of a training: the resource that successive halving shares out."""
ROUNDED = 1
"""By how many percent validations after the same number of epochs differ, for trials of other batch sizes."""
CLOSE = 0.005
"""A loss is close to the best if it is higher by no more than this share of it."""


class Trains(Protocol):
    """Whatever trains an adapter by a recipe: ``trainer.Trainer``."""

    def train(self, recipe: Mapping[str, Any], observe: Observer | None = None) -> History:
        """Train it."""


def prepare(study: Study, space: Space, starts: Sequence[Start]) -> None:
    """Have the current configuration tried first, then what did well elsewhere; nothing twice."""
    trials = study.get_trials(deepcopy=False)
    ahead = [one.user_attrs.get(SETTINGS) for one in trials if not one.state.is_finished()]
    done = [one.user_attrs.get(SETTINGS) for one in trials if one.state in FINISHED]
    if not tried(trials, space.current) and space.current not in ahead:
        study.enqueue_trial(
            space.parameters(space.current), user_attrs={SETTINGS: space.current, ROLE: CURRENT}
        )
    for start in starts:
        if start.settings not in [*ahead, *done]:
            study.enqueue_trial(
                space.parameters(start.settings),
                user_attrs={SETTINGS: start.settings, ROLE: start.evidence},
            )


def resumed(url: str, name: str, seed: int, place: int, reduction_factor: int) -> Study:
    """A study as a worker goes on with it. Neither sampler nor pruner is stored: each worker makes its own.

    The sampler's seed is another for each worker, and after each interruption, so that none draws what was drawn before.
    """
    study = optuna.load_study(study_name=name, storage=open_storage(url))
    study.sampler = sampler(seed + 1000 * place + len(study.get_trials(deepcopy=False)))
    study.pruner = pruner(reduction_factor)
    return study


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """What chooses the settings of a trial."""
    return _Sampler(seed=seed, n_startup_trials=FRESH_TRIALS, warn_independent_sampling=False)


class _Sampler(optuna.samplers.GPSampler):
    """Expected improvement by the ranks of the losses, and nothing a second time.

    As they are, a few losses of poor settings are so far from the rest that the differences between good ones vanish beside them;
    as normal quantiles of their ranks they do not (Salinas, Shen and Perrone, arXiv 1909.13595).
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values to try; none, so that all of them are drawn at random, where it wants what was tried already."""
        wanted = super().sample_relative(study, trial, search_space)
        known = [
            rounded(other.params)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
        ]
        return {} if rounded(wanted) in known else wanted

    def _sample_relative_impl(
        self,
        study: Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Optuna's own, of trials whose values are quantiles."""
        quantiles = by_rank([one.value or 0.0 for one in completed_trials])
        ranked = [
            create_trial(params=one.params, distributions=one.distributions, value=quantile)
            for one, quantile in zip(completed_trials, quantiles, strict=True)
        ]
        return super()._sample_relative_impl(study, ranked, running_trials, search_space)


def by_rank(losses: Sequence[float]) -> list[float]:
    """The normal quantile of each loss's rank: the lowest far below 0, the one in the middle 0."""
    places = {
        at: place for place, at in enumerate(sorted(range(len(losses)), key=losses.__getitem__))
    }
    return [NormalDist().inv_cdf((places[at] + 0.5) / len(losses)) for at in range(len(losses))]


def pruner(reduction_factor: int) -> optuna.pruners.BasePruner:
    """What stops poor trials: with a factor of three all but a third after a ninth of a training, and again after a third."""
    return _Halving(
        min_resource=max(1, PERCENT // reduction_factor**2), reduction_factor=reduction_factor
    )


class _Halving(optuna.pruners.SuccessiveHalvingPruner):
    """Successive halving that lets trials go on which are close to the best so far."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether to stop it."""
        step = trial.last_step
        if not super().prune(study, trial) or step is None:
            return False
        there = [
            loss
            for other in study.get_trials(deepcopy=False)
            for at, loss in other.intermediate_values.items()
            if abs(at - step) <= ROUNDED
        ]
        return trial.intermediate_values[step] > min(there) * (1 + CLOSE)


def _as_the_worst(trial: Trial, fault: TrainingError) -> float:
    """What is told of settings that cannot be trained, lest the sampler asks for them again and again.

    Raises:
        optuna.TrialPruned: there is no loss yet that they could be as bad as.
    """
    losses = [one.value for one in trial.study.get_trials(deepcopy=False) if one.value is not None]
    if not losses:
        raise optuna.TrialPruned(str(fault))
    trial.set_user_attr(STOPPED, True)
    return max(losses)


class _Poor(Exception):
    """A training is stopped, at this percentage of it and with this loss."""


def in_the_end(trials: Sequence[FrozenTrial], step: int, loss: float) -> float:
    """What a loss at a step is likely to come to: its change in the trials that ran to their end (median), but no less than theirs.

    As they are, losses of trials that were stopped are not to be compared with those at the end: a sampler that is told them takes
    whole regions for poor that were only stopped early.
    """
    ends = [(one, one.value) for one in trials if in_full(one) and one.value is not None]
    changes = [
        end / there
        for one, end in ends
        for at, there in one.intermediate_values.items()
        if abs(at - step) <= ROUNDED
    ]
    return max(loss * median(changes), min(end for _, end in ends)) if changes else loss


class Objective:
    """A trial: train by its settings, and stop where it does poorly."""

    def __init__(self, trainer: Trains, space: Space, recipe: Mapping[str, Any]) -> None:
        self.trainer, self.space, self.recipe = trainer, space, recipe

    def __call__(self, trial: Trial) -> float:
        """Its lowest loss on the validation records; of one that is stopped what it would have come to, and of one that cannot be
        trained the worst so far, so that the sampler learns from them.

        Raises:
            optuna.TrialPruned: it cannot be trained, and no other was so far.
            TrainingError: the current configuration itself cannot be trained.
        """
        trial.set_user_attr(WORKER, worker())
        chosen = self.space.suggested(trial)
        settings = trial.user_attrs.get(SETTINGS, chosen)
        trial.set_user_attr(SETTINGS, settings)
        if again := tried(trial.study.get_trials(deepcopy=False), settings):
            trial.set_user_attr(STEPS, 0)
            assert again.value is not None
            return again.value  # the same seed gives the same loss
        asked_for = ROLE in trial.user_attrs  # for a reason, and so trained in full
        steps = reached = 0

        def observe(progress: Progress) -> Action | None:
            nonlocal steps, reached
            steps += progress.fault is None
            if (
                progress.validation_loss is not None and progress.step > reached
            ):  # a race begins anew
                reached = progress.step
                percent = PERCENT * progress.step // progress.steps
                trial.report(progress.validation_loss, percent)
                if progress.step < progress.steps and trial.should_prune() and not asked_for:
                    raise _Poor(percent, progress.validation_loss)
            return None

        try:
            history = self.trainer.train(applied(self.recipe, settings), observe)
        except _Poor as stopped:
            trial.set_user_attr(STOPPED, True)
            return in_the_end(trial.study.get_trials(deepcopy=False), *stopped.args)
        except TrainingError as fault:
            if settings == self.space.current:
                raise
            return _as_the_worst(trial, fault)
        finally:
            trial.set_user_attr(STEPS, steps)
        if history.validation_after is None:
            raise TrainingError(
                "there is no validation record to compare settings by; raise data.validation"
            )
        return history.validation_after
