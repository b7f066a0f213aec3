"""The space of a search: keys that the training reads, values that they take."""

from typing import Any

import optuna
import pytest

from meetara_build.config.schema import Range
from meetara_build.errors import ConfigError
from meetara_build.tuning.space import Space, apply_settings, read_space

RECIPE: dict[str, Any] = {
    "seed": 17,
    "lora": {
        "rank": 16,
        "alpha": 32.0,
        "dropout": 0.0,
        "targets": "all-linear",
        "rslora": False,
        "dora": False,
    },
    "training": {
        "epochs": 3,
        "max_steps": None,
        "batch_tokens": 512,
        "micro_batch_tokens": None,
        "learning_rate": 2e-3,
        "warmup_share": 0.1,
        "schedule": "cosine",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "patience": 3,
        "validations_per_epoch": 2,
        "joint": [],
        "topic_weights": {},
        "observers": [],
    },
}


def space(**ranges: Any) -> Space:
    named = {key.replace("__", "."): Range(**given) for key, given in ranges.items()}
    return read_space(named, RECIPE, "conf/build.yaml")


def drawn(made: Space, count: int = 200) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [made.suggested(study.ask()) for _ in range(count)]


def test_every_drawn_value_is_one_of_its_range_in_the_digits_that_a_person_would_write() -> None:
    made = space(
        training__learning_rate={"low": 3e-5, "high": 2e-2, "log": True},
        lora__rank={"low": 4, "high": 32},
        lora__dropout={"choices": [0.0, 0.05]},
    )
    for settings in drawn(made):
        assert made.holds(settings)
        assert settings["training.learning_rate"] == float(
            f"{settings['training.learning_rate']:.3g}"
        )
        assert isinstance(settings["lora.rank"], int)


def test_whole_numbers_are_tried_only_where_a_key_takes_no_others() -> None:
    assert space(lora__rank={"low": 4, "high": 32}).dimensions[0].whole
    assert not space(training__weight_decay={"low": 0, "high": 1}).dimensions[0].whole


def test_what_is_configured_may_always_be_tried() -> None:
    made = space(
        lora__rank={"choices": [4, 8]}, training__learning_rate={"low": 1e-5, "high": 1e-3}
    )
    assert made.current == {"lora.rank": 16, "training.learning_rate": 2e-3}
    assert made.holds(made.current)


def test_of_choices_that_are_numbers_a_sampler_sees_the_order() -> None:
    made = space(
        lora__rank={"choices": [32, 4, 8]}, training__learning_rate={"low": 1e-5, "high": 1e-3}
    )
    assert made.dimensions[0].choices == (4, 8, 16, 32), "16 is configured"
    assert made.parameters({"lora.rank": 8, "training.learning_rate": 1e-4}) == {
        "lora.rank": 1,
        "training.learning_rate": 1e-4,
    }
    assert {settings["lora.rank"] for settings in drawn(made)} == {4, 8, 16, 32}


def test_choices_that_are_no_numbers_stay_as_they_are() -> None:
    made = space(lora__dora={"choices": [True, False]})
    assert made.parameters({"lora.dora": True}) == {"lora.dora": True}
    assert {settings["lora.dora"] for settings in drawn(made)} == {True, False}


def test_a_point_is_held_only_with_all_keys_and_each_within_its_range() -> None:
    made = space(
        lora__rank={"choices": [4, 16]}, training__learning_rate={"low": 1e-4, "high": 1e-2}
    )
    assert made.holds({"lora.rank": 4, "training.learning_rate": 1e-3})
    assert not made.holds({"lora.rank": 4, "training.learning_rate": 0.5})
    assert not made.holds({"lora.rank": 5, "training.learning_rate": 1e-3})
    assert not made.holds({"lora.rank": 4})
    assert not made.holds({"lora.rank": 4, "training.learning_rate": 1e-3, "lora.dropout": 0.1})


@pytest.mark.parametrize(
    "key",
    [
        "training.learning_rat",
        "data.max_tokens",
        "base",
        "training.warm_start",
        "training.joint",
        "lora.targets.0",
        "training.topic_weights",
        "training.observers",
        "training.loss_on_prompt",
    ],
)
def test_a_key_that_training_does_not_read_or_that_is_no_single_value_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"tuning.space: '{key}' is no key that tuning can try"):
        read_space({key: Range(low=1, high=2)}, RECIPE, "conf/build.yaml")


def test_a_typo_is_told_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'training.learning_rate'"):
        read_space({"training.learning_rat": Range(low=1, high=2)}, RECIPE, "conf/build.yaml")


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("training.learning_rate", {"low": 0.1, "high": 3.0}),
        ("lora.rank", {"choices": [4, 0]}),
        ("lora.rank", {"low": 0.5, "high": 8}),
        ("lora.dora", {"choices": [True, 3]}),
        ("training.batch_tokens", {"choices": [256, "many"]}),
    ],
)
def test_a_value_that_its_key_does_not_take_is_refused(key: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"tuning.space.{key}: .* is no value for this key"):
        read_space({key: Range(**given)}, RECIPE, "conf/build.yaml")


def test_a_range_cannot_hold_a_current_value_that_is_no_number() -> None:
    with pytest.raises(ConfigError, match=r"training.max_steps is None now.*give choices"):
        read_space({"training.max_steps": Range(low=10, high=100)}, RECIPE, "conf/build.yaml")


def test_settings_take_the_place_of_the_recipe_s_own_and_nothing_else_changes() -> None:
    changed = apply_settings(RECIPE, {"lora.rank": 4, "training.learning_rate": 1e-4})
    assert changed["lora"] == {**RECIPE["lora"], "rank": 4}
    assert changed["training"] == {**RECIPE["training"], "learning_rate": 1e-4}
    assert changed["seed"] == 17
    assert RECIPE["lora"]["rank"] == 16
