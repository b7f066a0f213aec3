"""What a search leaves for people and programs."""

import json
from pathlib import Path

import optuna
import pytest
from made_up import RECIPE, STEPS, VALIDATIONS, MadeUp, small_space

from meetara_build.tuning import search
from meetara_build.tuning.plots import importances, report, write_report


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    made = optuna.create_study(
        study_name="nutrition-1", sampler=search.sampler(1), pruner=search.pruner(3)
    )
    made.set_user_attr("domain", "nutrition")
    search.prepare(made, small_space(), [])
    made.optimize(search.Objective(MadeUp(), small_space(), RECIPE), n_trials=30)
    return made


def test_the_key_that_decides_the_loss_is_the_most_important(study: optuna.Study) -> None:
    found = importances(study)
    assert max(found, key=lambda key: found[key]) == "training.learning_rate"
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3)


def test_of_too_few_trials_nothing_is_said_and_nothing_drawn(tmp_path: Path) -> None:
    empty = optuna.create_study()
    assert importances(empty) == {}
    assert [path.name for path in write_report(empty, tmp_path)] == ["study.json", "history.svg"]


def test_history_and_importance_are_drawn_and_the_same_is_kept_as_json(
    study: optuna.Study, tmp_path: Path
) -> None:
    written = write_report(study, tmp_path / "tuning" / "nutrition")
    assert [path.name for path in written] == ["study.json", "history.svg", "importance.svg"]
    for path in written[1:]:
        assert path.read_text().startswith("<?xml")
        assert "<svg" in path.read_text()
    kept = json.loads(written[0].read_text())
    assert kept == json.loads(json.dumps(report(study)))
    assert kept["about"] == {"domain": "nutrition"}
    assert len(kept["trials"]) == 30
    first = kept["trials"][0]
    assert (first["from"], first["outcome"], first["steps"]) == (
        "current",
        "finished",
        VALIDATIONS * STEPS,
    )
    assert len(first["losses"]) == VALIDATIONS


def test_the_same_study_is_drawn_alike(study: optuna.Study, tmp_path: Path) -> None:
    one, other = (write_report(study, tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
