"""Settings from similar domains, to be tried first."""

from pathlib import Path
from typing import Any

from made_up import RECIPE, small_space

from meetara_build.agents.snapshot import Run
from meetara_build.tuning.seeding import Start, best_run, collect_starts, starts
from meetara_build.tuning.space import apply_settings
from meetara_build.tuning.studies import SETTINGS, open_storage, open_study

SPACE = small_space()
NEAR = {"lora.rank": 32, "training.learning_rate": 3e-3}
FAR = {"lora.rank": 8, "training.learning_rate": 1e-3}


def run(loss: float | None, settings: dict[str, Any] | None = None, **fields: Any) -> Run:
    given: dict[str, Any] = {
        "id": f"run-{loss}",
        "time": 1.0,
        "domain": "fitness",
        "stage": "adapter",
        "build": "b",
        "machine": "m",
        "hardware": "cpu",
        "outcome": "built",
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "peak_mb": 1.0,
        "size": 1,
        "fingerprint": "f",
        "key": "k",
        "usd": 0.0,
        "metrics": {"validation_loss_after": loss},
        "recipe": apply_settings(RECIPE, settings or {}),
        "inputs": {"dataset": "d", "base": "b"},
        **fields,
    }
    return Run(**given)


def start(settings: dict[str, Any], domain: str) -> Start:
    return Start(settings, domain, f"{domain} did well")


def test_the_best_of_each_similar_domain_comes_in_the_order_of_similarity() -> None:
    known = {"fitness": start(FAR, "fitness"), "sleep": start(NEAR, "sleep")}
    assert [one.domain for one in starts(SPACE, known, {}, ["sleep", "fitness", "music"])] == [
        "sleep",
        "fitness",
    ]


def test_what_the_space_does_not_hold_is_left_out_before_optuna_would_run_it() -> None:
    known = {
        "sleep": start({"lora.rank": 64, "training.learning_rate": 3e-3}, "sleep"),
        "music": start({"lora.rank": 8, "training.learning_rate": 0.5}, "music"),
        "fitness": start({"lora.rank": 8}, "fitness"),
    }
    assert starts(SPACE, known, {}, ["sleep", "music", "fitness"]) == []


def test_what_is_configured_already_or_named_twice_is_left_out() -> None:
    known = {
        "sleep": start(dict(SPACE.current), "sleep"),
        "music": start(NEAR, "music"),
        "art": start(NEAR, "art"),
    }
    assert [one.domain for one in starts(SPACE, known, {}, ["sleep", "music", "art"])] == ["music"]


def test_a_domain_that_was_never_tuned_lends_the_settings_of_its_best_build() -> None:
    runs = [run(5.2, FAR), run(4.9, NEAR), run(5.1)]
    found = starts(SPACE, {}, {"fitness": runs}, ["fitness"])
    assert found == [Start(NEAR, "fitness", "fitness, run run-4.9: validation loss 4.9000")]


def test_builds_of_other_data_failed_ones_and_those_without_a_loss_say_nothing() -> None:
    other = run(1.0, NEAR, inputs={"dataset": "older", "base": "b"})
    runs = [other, run(2.0, NEAR, outcome="failed"), run(None, NEAR), run(5.0, FAR), run(5.1)]
    assert best_run(SPACE, "fitness", runs) == Start(
        FAR, "fitness", "fitness, run run-5.0: validation loss 5.0000"
    )
    assert best_run(SPACE, "fitness", []) is None


def test_studies_give_the_best_trial_of_each_domain_s_newest_study_on_the_same_base(
    tmp_path: Path,
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/context.db")

    def study(name: str, domain: str, base: str, tried: list[tuple[dict[str, Any], float]]) -> None:
        made = open_study(storage, name, {"domain": domain, "base": base})
        for settings, loss in tried:
            trial = made.ask()
            trial.set_user_attr(SETTINGS, settings)
            made.tell(trial, loss)

    study("fitness-1", "fitness", "tiny", [(NEAR, 4.0)])
    study("fitness-2", "fitness", "tiny", [(NEAR, 5.0), (FAR, 4.8)])
    study("fitness-3", "fitness", "tiny", [])
    study("sleep-1", "sleep", "another", [(NEAR, 4.0)])
    assert collect_starts(storage, "tiny") == {
        "fitness": Start(
            FAR, "fitness", "fitness, study fitness-2, trial 1: validation loss 4.8000"
        )
    }
