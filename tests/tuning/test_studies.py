"""Where trials are kept."""

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from made_up import RANGES, RECIPE, small_space
from optuna.trial import TrialState

from meetara_build.context.local import Local
from meetara_build.context.store import Retention
from meetara_build.errors import ContextError
from meetara_build.tuning import studies
from meetara_build.tuning.space import apply_settings, read_space
from meetara_build.tuning.studies import (
    SETTINGS,
    best,
    find_tried,
    list_finished,
    open_storage,
    open_study,
    steps_taken,
    studies_url,
    study_name,
)

INPUTS = {"base": "b" * 64, "dataset": "d" * 64}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return studies_url(tmp_path, {"url": None})


def take(study: optuna.Study, loss: float, steps: int = 10) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr(SETTINGS, {"x": loss})
    trial.set_user_attr("steps", steps)
    study.tell(trial, loss)


def test_studies_are_in_the_context_s_database(tmp_path: Path) -> None:
    assert studies_url(tmp_path, {"url": None}) == f"sqlite:///{tmp_path}/context.db"
    there = f"sqlite:///{tmp_path}/else/where.db"
    assert studies_url(tmp_path, {"url": there}) == there


def test_behind_a_server_they_are_below_the_root(tmp_path: Path) -> None:
    assert (
        studies_url(tmp_path, {"url": "http://there:8000/mcp"})
        == f"sqlite:///{tmp_path}/context.db"
    )


def test_other_databases_are_refused() -> None:
    with pytest.raises(ContextError, match="use a file of SQLite, or PostgreSQL"):
        open_storage("mysql://me:secret@there/all")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    return str(request.getfixturevalue("url" if request.param == "sqlite" else "postgres"))


def test_context_and_studies_share_a_database_and_neither_minds_the_other(database: str) -> None:
    storage = open_storage(database)
    take(open_study(storage, "one", {"domain": "nutrition"}), 5.0)
    context = Local(database, Retention())
    metrics = {"kind": "metrics", "id": "1", "time": time.time(), "domain": "nutrition"}
    assert context.deliver([{**metrics, "sender": "me", "values": {"a": 1.0}}]) == ["1"]
    context.close()
    again = open_storage(database)  # which takes no other's version for its own
    assert [trial.value for trial in open_study(again, "one", {}).trials] == [5.0]
    assert {"trials", "alembic_version", "run", "meetara_version"} <= set(
        sa.inspect(again.engine).get_table_names()
    )
    for one in (storage, again):
        one.engine.dispose()


def _open(url: str) -> None:
    open_storage(url).engine.dispose()


def test_many_may_find_an_empty_database_at_once(database: str) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_open, [database] * 8)
    Local(database, Retention()).close()


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ContextError, match="mend the rights"):
        open_storage(f"sqlite:///{tmp_path}/file/context.db")
    (tmp_path / "context.db").write_text(
        "this is no database at all, and long enough to be seen as none" * 20
    )
    with pytest.raises(ContextError, match=r"context.db: is no database of SQLite, or damaged"):
        open_storage(f"sqlite:///{tmp_path}/context.db")


def test_tables_of_another_optuna_are_refused(url: str) -> None:
    storage = open_storage(url)
    with storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v9.0.0.a'"))
    with pytest.raises(ContextError, match="install that Optuna, or name another"):
        open_storage(url)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ContextError) as caught:
        open_storage(studies_url(tmp_path, {"url": "postgresql://me:secret@127.0.0.1:1/none"}))
    assert "secret" not in str(caught.value)


# A study is of one kind of loss


def test_a_change_of_data_base_space_or_of_a_key_that_is_not_searched_begins_a_new_study() -> None:
    space = small_space()
    name = study_name("nutrition", RECIPE, INPUTS, space)
    narrower = read_space({"lora.rank": RANGES["lora.rank"]}, RECIPE, "x")
    others = {
        study_name("nutrition", RECIPE, {**INPUTS, "dataset": "e" * 64}, space),
        study_name("nutrition", RECIPE, {**INPUTS, "base": "e" * 64}, space),
        study_name("nutrition", RECIPE, INPUTS, narrower),
        study_name("nutrition", {**RECIPE, "seed": 18}, INPUTS, space),
        study_name("nutrition", apply_settings(RECIPE, {"training.epochs": 4}), INPUTS, space),
    }
    assert name.startswith("nutrition-")
    assert name not in others
    assert len(others) == 5


def test_another_value_of_a_key_that_is_searched_goes_on_with_the_same_study() -> None:
    changed = apply_settings(RECIPE, {"lora.rank": 8, "training.learning_rate": 1e-3})
    assert study_name("nutrition", changed, INPUTS, read_space(RANGES, changed, "x")) == study_name(
        "nutrition", RECIPE, INPUTS, small_space()
    )


# Trials of the dead


def take_one(url: str, then: str) -> subprocess.CompletedProcess[bytes]:
    """A process that takes one trial, with x = 0.25, and does something in it."""
    code = (
        "import os, signal, sys, time\n"
        "from meetara_build.tuning import studies\n"
        "study = studies.open_study(studies.open_storage(sys.argv[1]), 'one', {})\n"
        "study.enqueue_trial({'x': 0.25}, user_attrs={'settings': {'x': 0.25}})\n"
        "def objective(trial):\n"
        "    x = trial.suggest_float('x', 0, 1)\n"
        f"    {then}\n"
        "    return x\n"
        "study.optimize(objective, n_trials=1)"
    )
    return subprocess.run([sys.executable, "-c", code, url], check=False)


def test_a_trial_whose_process_was_killed_is_tried_again_once_it_has_been_silent_for_long(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        take_one(url, "time.sleep(1); os.kill(os.getpid(), signal.SIGKILL)").returncode
        == -signal.SIGKILL
    )
    study = open_study(open_storage(url), "one", {})
    mine = study.ask()  # which says that it lives only while it is optimized
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING", "COMPLETE"]
    monkeypatch.setattr(studies, "DEAD_AFTER_SECONDS", 1)
    time.sleep(3)
    study = open_study(open_storage(url), "one", {})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    again = study.trials[-1]
    assert (again.params, again.user_attrs) == ({"x": 0.25}, {"settings": {"x": 0.25}})
    assert [one.state.name for one in study.trials] == ["FAIL", "RUNNING", "COMPLETE", "COMPLETE"]
    assert study.trials[mine.number].state == TrialState.RUNNING


def test_a_trial_that_is_interrupted_is_failed_at_once(url: str) -> None:
    take_one(url, "raise KeyboardInterrupt")
    study = open_study(open_storage(url), "one", {})
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def _take_some(url: str, place: int) -> None:
    study = open_study(open_storage(url), "one", {})
    for number in range(5):
        take(study, place + number / 10)


def test_several_processes_write_one_study(url: str) -> None:
    open_study(open_storage(url), "one", {})
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.starmap(_take_some, [(url, place) for place in range(3)])
    study = open_study(open_storage(url), "one", {})
    assert sorted(trial.value for trial in list_finished(study)) == sorted(
        place + number / 10 for place in range(3) for number in range(5)
    )


def test_the_best_the_current_and_the_cost_are_read_from_trials(url: str) -> None:
    study = open_study(open_storage(url), "one", {"domain": "nutrition"})
    for loss in (5.0, 4.0, 4.5):
        take(study, loss, steps=7)
    study.tell(study.ask(), state=TrialState.FAIL)
    top: Any = best(study.trials)
    assert top.value == 4.0
    assert steps_taken(study.trials) == 21
    assert find_tried(study.trials, {"x": 4.5}) == study.trials[2]
    assert find_tried(study.trials, {"x": 9.0}) is None
    assert best([]) is None
    assert study.user_attrs["domain"] == "nutrition"
