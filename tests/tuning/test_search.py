"""The search: what is tried first, what is stopped early, and that it goes on where it was left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from made_up import RECIPE, STEPS, VALIDATIONS, MadeUp, final_loss, small_space

from meetara_build.errors import TrainingError
from meetara_build.training.settings import History, Observer
from meetara_build.tuning import search, studies
from meetara_build.tuning.seeding import Start
from meetara_build.tuning.space import apply_settings
from meetara_build.tuning.studies import (
    ROLE,
    SETTINGS,
    best,
    find_tried,
    in_full,
    list_finished,
    steps_taken,
)
from meetara_build.tuning.studies import STEPS as TAKEN

SPACE = small_space()
GOOD = {"lora.rank": 32, "training.learning_rate": 2.9e-3}
optuna.logging.set_verbosity(optuna.logging.WARNING)


def new_study(seed: int = 1) -> optuna.Study:
    return optuna.create_study(sampler=search.sampler(seed), pruner=search.pruner(3))


def searched(
    trials: int, starts: list[Start] | None = None, seed: int = 1
) -> tuple[optuna.Study, MadeUp]:
    study, trainer = new_study(seed), MadeUp()
    search.prepare(study, SPACE, starts or [])
    study.optimize(search.Objective(trainer, SPACE, RECIPE), n_trials=trials)
    return study, trainer


def test_the_current_configuration_is_tried_first_and_in_full() -> None:
    study, _ = searched(12)
    first = study.trials[0]
    assert (
        first.user_attrs[SETTINGS]
        == SPACE.current
        == {"lora.rank": 16, "training.learning_rate": 2e-4}
    )
    assert first.user_attrs[ROLE] == "current"
    assert first.value == pytest.approx(final_loss(RECIPE))
    assert first.user_attrs[TAKEN] == VALIDATIONS * STEPS


def test_then_what_did_well_on_similar_domains_in_full_too() -> None:
    poor = Start(
        {"lora.rank": 4, "training.learning_rate": 3e-5},
        "music",
        "music, trial 3: validation loss 5.0",
    )
    study, _ = searched(3, [Start(GOOD, "fitness", "fitness, trial 7: validation loss 4.0"), poor])
    assert [trial.user_attrs[TAKEN] for trial in study.trials] == [VALIDATIONS * STEPS] * 3
    assert [trial.user_attrs[SETTINGS] for trial in study.trials[:2]] == [SPACE.current, GOOD]
    assert study.trials[1].user_attrs[ROLE] == "fitness, trial 7: validation loss 4.0"


def test_a_search_finds_settings_near_the_best_there_are() -> None:
    study, _ = searched(40)
    top = best(study.trials)
    assert top is not None and top.value is not None
    assert top.value < 4.1 < final_loss(RECIPE)
    assert top.value == pytest.approx(final_loss(apply_settings(RECIPE, top.user_attrs[SETTINGS])))


def test_poor_trials_are_stopped_at_a_validation_and_every_step_is_counted() -> None:
    study, _ = searched(40)
    stopped = [trial for trial in study.trials if not in_full(trial)]
    assert len(stopped) > 10
    assert {trial.user_attrs[TAKEN] for trial in study.trials if in_full(trial)} == {
        VALIDATIONS * STEPS
    }
    assert {trial.user_attrs[TAKEN] for trial in stopped} <= {0, STEPS, 2 * STEPS}, (
        "0: they diverged"
    )
    assert (
        steps_taken(study.trials)
        == sum(trial.user_attrs[TAKEN] for trial in study.trials)
        < 30 * VALIDATIONS * STEPS
    )


def test_no_trial_is_stopped_at_its_last_validation() -> None:
    class OneLook(MadeUp):
        def train(self, recipe: Mapping[str, Any], observe: Observer | None = None) -> History:
            last = VALIDATIONS * STEPS
            return super().train(
                recipe,
                lambda progress: observe(progress) if observe and progress.step == last else None,
            )

    study = new_study()
    study.optimize(search.Objective(OneLook(), SPACE, RECIPE), n_trials=10)
    rates = {
        trial.user_attrs[SETTINGS]["training.learning_rate"]: trial.state.name
        for trial in study.trials
    }
    assert {state for rate, state in rates.items() if rate < 0.015} == {"COMPLETE"}


def test_settings_that_diverge_are_stopped_and_end_no_search() -> None:
    study, trainer = new_study(), MadeUp()
    search.prepare(
        study, SPACE, [Start({"lora.rank": 8, "training.learning_rate": 0.02}, "x", "x")]
    )
    study.optimize(search.Objective(trainer, SPACE, RECIPE), n_trials=3)
    assert study.trials[1].state.name == "PRUNED"
    assert len(list_finished(study)) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_trained_twice(seed: int) -> None:
    trained = [str(recipe) for recipe in searched(40, seed=seed)[1].trained]
    assert len(set(trained)) == len(trained) >= 38


def test_a_current_configuration_that_cannot_be_trained_is_an_error() -> None:
    recipe = apply_settings(RECIPE, {"training.learning_rate": 0.02})
    space = SPACE._replace(current={"lora.rank": 16, "training.learning_rate": 0.02})
    study = new_study()
    search.prepare(study, space, [])
    with pytest.raises(TrainingError, match="the loss is nan"):
        study.optimize(search.Objective(MadeUp(), space, recipe), n_trials=1)


def test_the_same_seed_tries_the_same() -> None:
    assert searched(15)[1].trained == searched(15)[1].trained
    assert searched(15)[1].trained != searched(15, seed=2)[1].trained


def test_settings_that_were_tried_in_full_are_not_trained_again() -> None:
    study, trainer = new_study(), MadeUp()
    search.prepare(study, SPACE, [])
    study.optimize(search.Objective(trainer, SPACE, RECIPE), n_trials=1)
    study.enqueue_trial(SPACE.parameters(SPACE.current))
    study.optimize(search.Objective(trainer, SPACE, RECIPE), n_trials=1)
    first, second = study.trials
    assert (second.value, second.user_attrs[TAKEN]) == (first.value, 0)
    assert len(trainer.trained) == 1


def test_what_waits_or_was_tried_is_not_asked_for_again() -> None:
    study, trainer = new_study(), MadeUp()
    starts = [Start(GOOD, "fitness", "x")]
    for _ in range(2):
        search.prepare(study, SPACE, starts)
    assert len(study.trials) == 2
    study.optimize(search.Objective(trainer, SPACE, RECIPE), n_trials=2)
    search.prepare(study, SPACE, starts)
    assert len(study.trials) == 2


def test_a_new_current_configuration_is_tried_in_full_though_it_was_once_stopped_as_poor() -> None:
    study, trainer = searched(20)
    poor = next(trial for trial in study.trials if trial.intermediate_values and not in_full(trial))
    space = SPACE._replace(current=poor.user_attrs[SETTINGS])
    search.prepare(study, space, [])
    study.optimize(search.Objective(trainer, space, RECIPE), n_trials=1)
    again = find_tried(study.trials, space.current)
    assert again is not None
    assert again.user_attrs[TAKEN] == VALIDATIONS * STEPS


def test_a_search_goes_on_where_it_was_left_and_draws_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'context.db'}"
    study = studies.open_study(studies.open_storage(url), "nutrition-1", {"domain": "nutrition"})
    search.prepare(study, SPACE, [])
    for trials in (4, 4):
        again = search.resume_study(url, "nutrition-1", 17, 0, 3)
        again.optimize(search.Objective(MadeUp(), SPACE, RECIPE), n_trials=trials)
    numbers = [trial.params["training.learning_rate"] for trial in study.trials]
    assert len(numbers) == 8
    assert not set(numbers[:4]) & set(numbers[4:])
    assert isinstance(again.pruner, optuna.pruners.SuccessiveHalvingPruner)
